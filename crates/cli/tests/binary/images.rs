//! Containers with the root of an image, as people ask for them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::{Home, Image, Podman, Ran, Repo};

use crate::world::DEADLINE;

const NAME: &str = "localhost/skep-test:latest";
const PROGRAMS: [&str; 6] = ["sh", "cat", "id", "ls", "true", "touch"];

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
        let found = all.iter().find(|it| it["name"] == "image").unwrap();
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
    let said = desk.skep(&["sandbox", "list"]).expect_code(2).stderr;
    assert!(said.contains("`kind = \"container\"`"), "{said}");
    desk.podman.assert_nothing_left();
}
