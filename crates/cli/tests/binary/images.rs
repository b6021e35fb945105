//! Containers with the root of an image, as people ask for them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::models::{Dialect, Job, Script, Step};
use testkit::{Home, Image, Podman, Ran, Repo};

use crate::world::{DEADLINE, PROMPT, World, wrong_answer};

const NAME: &str = "localhost/skep-test:latest";
const PROGRAMS: [&str; 7] = ["sh", "cat", "id", "ls", "perl", "true", "touch"];

/// A user with a Podman that has one image, and a repository.
struct Desk {
    podman: Podman,
    repo: Repo,
}

impl Desk {
    fn new() -> Self {
        let podman = Podman::new(Home::new());
        let image = Image::of(PROGRAMS)
            .file("/opt/tools/said", "#!/bin/sh\necho of the image")
            .change("ENV PATH=/opt/tools:/usr/bin");
        image.import(&podman, NAME);
        let repo = Repo::new();
        repo.file("answer.txt", "41\n");
        repo.commit("A wrong answer");
        Self { podman, repo }
    }

    fn configured(self, text: &str) -> Self {
        let place = self.podman.root().join("config/skep");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("config.toml"), text).unwrap();
        self
    }

    fn skep(&self, args: &[&str]) -> Ran {
        let program = Path::new(env!("CARGO_BIN_EXE_skep"));
        let home = self.podman.home();
        home.run(program, args, self.repo.path(), DEADLINE)
    }

    fn json(&self, args: &[&str], code: i32) -> Value {
        let ran = self.skep(&[args, &["--json"]].concat());
        ran.expect_code(code).json_lines().remove(0)
    }
}

// docs/bad-input.md: An image that the engine does not have
#[test]
fn a_sandbox_can_have_the_root_of_an_image_and_so_have_its_forks() {
    let desk = Desk::new();
    let create = ["sandbox", "create", "--for", "10m", "--image"];
    let missing = desk.skep(&[&create[..], &["localhost/not-there:1"]].concat());
    let said = missing.expect_code(4).stderr;
    assert!(
        said.contains("`podman pull localhost/not-there:1`"),
        "{said}"
    );

    let told = desk.skep(&[&create[..], &["localhost/not-there:1", "--json"]].concat());
    let told: Value = serde_json::from_str(&told.expect_code(4).stderr).unwrap();
    assert_eq!(told["error"]["reason"], "image_missing");

    let made = desk.json(&[&create[..], &[NAME, "--name", "one"]].concat(), 0);
    assert_eq!(made["kind"], "container");
    assert_eq!(made["image"], NAME);
    let script = "said; cat answer.txt; test ! -e /usr/bin/git && id -u";
    let ran = desk.skep(&["sandbox", "exec", "one", "--", "sh", "-c", script]);
    assert_eq!(ran.expect_code(0).stdout, "of the image\n41\n1000\n");
    let text = desk
        .skep(&["sandbox", "inspect", "one"])
        .expect_code(0)
        .stdout;
    assert!(text.contains(NAME), "{text}");
    desk.skep(&["sandbox", "fork", "one", "--name", "other"])
        .expect_code(0);
    let ran = desk.skep(&["sandbox", "exec", "other", "--", "said"]);
    assert_eq!(ran.expect_code(0).stdout, "of the image\n");
    desk.skep(&["sandbox", "destroy", "one"]).expect_code(0);
    desk.skep(&["sandbox", "destroy", "other"]).expect_code(0);
    desk.podman.assert_nothing_left();
}

#[test]
fn the_doctor_says_whether_the_image_of_the_configuration_is_there() {
    let of = |image: &str| format!("[sandbox]\nkind = 'container'\nimage = '{image}'\n");
    let finding = |told: &Value| {
        let all = told["findings"].as_array().unwrap();
        let found = all.iter().find(|it| it["name"] == "images").unwrap();
        found.clone()
    };
    let desk = Desk::new().configured(&of(NAME));
    let found = finding(&desk.json(&["doctor"], 4));
    assert_eq!(found["health"], "good", "{found}");
    let desk = desk.configured(&of("localhost/not-there:1"));
    let found = finding(&desk.json(&["doctor"], 4));
    assert_eq!(found["health"], "broken");
    assert_eq!(found["remedy"], "`podman pull localhost/not-there:1`");
    let desk = desk.configured("[sandbox]\nimage = 'debian'\n");
    let said = desk.skep(&["sandbox", "create"]).expect_code(2).stderr;
    assert!(said.contains("`kind = \"container\"`"), "{said}");
    desk.podman.assert_nothing_left();
}

// docs/bad-input.md: A sidecar that is never ready
#[test]
fn a_sandbox_has_what_the_configuration_puts_beside_it() {
    let serve = "socket(S,2,1,0)||die; bind(S,pack(q(S n C4 x8),2,7433,127,0,0,1))||die; \
        listen(S,9); $|=1; print qq(serving $ENV{TOKEN}\\n); \
        while(accept(C,S)){print C qq(served\\n); close C}";
    let config = format!(
        "[sandbox]\nkind = 'container'\n[[sandbox.sidecar]]\nname = 'db'\nimage = '{NAME}'\n\
        command = ['perl', '-e', '{serve}']\nenv = {{ TOKEN = 'hush-2b9d' }}\nready = {{ port = 7433 }}\n"
    );
    let desk = Desk::new().configured(&config);
    desk.skep(&["sandbox", "create", "--for", "10m", "--name", "one"])
        .expect_code(0);
    let ask = "exec 3<>/dev/tcp/127.0.0.1/7433; cat <&3";
    let ran = desk.skep(&["sandbox", "exec", "one", "--", "bash", "-c", ask]);
    assert_eq!(ran.expect_code(0).stdout, "served\n");
    let shown = desk.json(&["sandbox", "inspect", "one"], 0);
    let beside = &shown["state"]["sidecars"][0];
    assert_eq!(beside["name"], "db");
    assert_eq!(beside["alive"], true);
    assert_eq!(beside["output"][0], "serving [hidden]");
    let text = desk
        .skep(&["sandbox", "inspect", "one"])
        .expect_code(0)
        .stdout;
    let runs = format!("db ({NAME}) runs, ready since ");
    assert!(text.contains(&runs), "{text}");
    assert_eq!(beside["health"]["ready"], true);
    desk.skep(&["sandbox", "destroy", "one"]).expect_code(0);

    let config = config.replace("port = 7433", "port = 7434, within = '1s'");
    let desk = desk.configured(&config);
    // Also where nobody has tried yet whether there can be sandboxes at all.
    let tried = desk.podman.home().data().join("skep/layering");
    fs::remove_file(tried).unwrap();
    let first = desk.skep(&["sandbox", "create"]).expect_code(4).stderr;
    assert!(first.contains("\n  serving [hidden]\n"), "{first}");
    let refused = desk.skep(&["sandbox", "create"]).expect_code(4).stderr;
    for said in ["the sidecar db", "port 7434", "serving [hidden]", "running"] {
        assert!(refused.contains(said), "{said}: {refused}");
    }
    // Each line of it is a line.
    assert!(refused.contains("\n  serving [hidden]\n"), "{refused}");
    let told = desk.skep(&["sandbox", "create", "--json"]).expect_code(4);
    let told: Value = serde_json::from_str(&told.stderr).unwrap();
    assert_eq!(told["error"]["lines"][0], "serving [hidden]");
    let healthy = desk.skep(&["doctor"]).expect_code(4).stdout;
    assert!(!refused.contains("hush-2b9d") && !healthy.contains("hush-2b9d"));
    assert!(healthy.contains("the sidecar db"), "{healthy}");
    desk.podman.assert_nothing_left();
}

#[test]
fn a_job_with_setup_and_checks_works_in_an_image_with_what_is_beside_it() {
    let podman = Podman::new(Home::new());
    let image = Image::of(PROGRAMS).file("/opt/tools/said", "#!/bin/sh\necho of the image");
    image
        .change("ENV PATH=/opt/tools:/usr/bin")
        .import(&podman, NAME);
    let repo = wrong_answer();
    let ask =
        "perl -e 'socket(S,2,1,0); connect(S,pack(q(S n C4 x8),2,7433,127,0,0,1))||die; print <S>'";
    let policy = format!(
        "[setup]\ncommand = \"said > from-setup && test ! -e /usr/bin/git\"\n\
        [[check]]\nname = \"answer\"\ncommand = \"\"\"\n\
        test $(cat answer.txt) = 42 && test -s from-setup && test $({ask}) = served\"\"\"\n"
    );
    repo.file("skep.toml", &policy)
        .file(".gitignore", "from-setup\n");
    repo.commit("Ask what is beside it");
    let step = format!("said; {ask}; test -s from-setup && echo 42 > answer.txt");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(&step))
            .step(Step::say("The answer is 42.")),
    );
    let settings = |name: &str| podman.root().join("podman").join(name);
    let world = World::new(Dialect::Chat, repo, script)
        .env("CONTAINERS_CONF", settings("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", settings("storage.conf"));
    let serve = "socket(S,2,1,0)||die; bind(S,pack(q(S n C4 x8),2,7433,127,0,0,1))||die; \
        listen(S,9); while(accept(C,S)){print C qq(served\\n); close C}";
    let config = format!(
        "[sandbox]\nkind = 'container'\nimage = '{NAME}'\n[[sandbox.sidecar]]\nname = 'db'\n\
        image = '{NAME}'\ncommand = ['perl', '-e', '{serve}']\nready = {{ port = 7433 }}\n"
    );
    let place = world.home.root().join("config/skep");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("config.toml"), config).unwrap();
    let told = world.run();
    told.ran.expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    podman.assert_nothing_left();
}
