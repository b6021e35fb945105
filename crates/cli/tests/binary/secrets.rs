//! A file of the repository holds the key of a provider, and an agent reads it: nothing that Skep
//! keeps, prints or sends holds the key.

use std::path::PathBuf;
use std::time::Duration;

use testkit::models::{Dialect, Hold, Job, Script, Scripted, Step};
use testkit::{Ran, leaks};

use crate::notify::Webhook;
use crate::world::{DEADLINE, PROMPT, Told, World, entries, with_model, wrong_answer};

/// A repository with the key in a file, a model that knows the key, and somebody who is told.
struct Leaky {
    world: World,
    hook: Webhook,
}

impl Leaky {
    fn new(script: impl Fn(&str) -> Script) -> Self {
        let hook = Webhook::new(&[]);
        let mut world = World::new(Dialect::Chat, wrong_answer(), Script::new());
        world.model = Scripted::with_key(script(&world.key), &world.key);
        world.home = with_model(world.home, Dialect::Chat, &world.model, &world.key);
        world
            .repo
            .file("service.env", format!("KEY={}\n", world.key));
        world.repo.commit("A file that should not be here");
        world.home.file(
            "config/skep/config.toml",
            format!("[[notify]]\nwebhook = \"{}\"\n", hook.address()),
        );
        Self { world, hook }
    }

    /// Asserts that the key is in nothing that was kept, printed or sent, and that something was
    /// kept in its place. What is left is the repository's own content.
    #[track_caller]
    fn assert_kept_nowhere(&self, ran: &Ran) {
        let Self { world, hook } = self;
        let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
        let request = listed[0]["requests"][0]["id"].as_str().unwrap();
        let log = world.skep(&["log", request, "--json"]).expect_code(0);
        assert!(log.stdout.contains(&stars(world)), "{}", log.stdout);
        let mut printed = vec![ran.stdout.clone(), ran.stderr.clone(), log.stdout];
        for args in [
            &["log", request][..],
            &["show", request],
            &["show", request, "--json"],
            &["diff", request],
            &["why", request],
            &["list"],
        ] {
            // There is no difference where nothing came of it.
            let ran = world.skep(args);
            printed.extend([ran.stdout, ran.stderr]);
        }
        printed.push(hook.next().body.to_string());
        printed.push(world.repo.git(&["log", "--all", "--format=%B"]));
        for text in printed {
            assert!(!text.contains(&world.key), "{text}");
        }
        assert_eq!(kept_in(world), Vec::<PathBuf>::new());
        world.assert_nothing_left();
    }
}

/// What stands in place of the key.
fn stars(world: &World) -> String {
    "*".repeat(world.key.len())
}

/// The files of the data directory that hold the key, packed or not, but for the repository's own.
fn kept_in(world: &World) -> Vec<PathBuf> {
    let names = entries(&world.data());
    assert!(names.iter().any(|it| it == "ledger.db"), "{names:?}");
    names
        .iter()
        .filter(|it| !["repositories", "bases"].contains(&it.as_str()))
        .flat_map(|it| leaks::paths_holding(&world.data().join(it), &world.key))
        .collect()
}

/// Longer than what a model is told, so that it is cut.
const MUCH: &str = "for i in $(seq 400); do cat service.env; done";

#[test]
fn a_key_that_the_built_in_agent_reads_and_says_is_kept_nowhere() {
    let leaky = Leaky::new(|key| {
        let job = Job::on(PROMPT).with_tools();
        let job = job
            // Each piece of what it says becomes an event of its own.
            .step(
                Step::shell("cat service.env service.env >&2")
                    .saying(format!("{key} I look for {key} now"))
                    .slowly(Duration::from_millis(60)),
            )
            .step(Step::shell(format!("{MUCH}; echo {key}; touch {key}")))
            .step(Step::shell(format!("rm {key}; echo 42 > answer.txt")))
            .step(Step::say(format!("The key is {key} and the answer 42.")));
        Script::new().job(job)
    });
    let told = leaky.world.run();
    assert_eq!(leaky.world.integrated("answer.txt"), "42\n");
    let said: String = agent(&told, "text").map(|it| text(it, "text")).collect();
    let stars = stars(&leaky.world);
    let begins = format!("{stars} I look for {stars} now");
    assert!(said.starts_with(&begins), "{said}");
    assert!(agent(&told, "text").count() > 1, "it came in pieces");
    leaky.assert_kept_nowhere(&told.ran);
}

#[test]
fn a_key_that_a_program_prints_is_kept_nowhere_whether_it_ends_well_or_not() {
    for (end, code) in [("echo 42 > answer.txt", 0), ("exit 3", 1)] {
        let leaky = Leaky::new(|_| Script::new());
        let agent = format!(
            "command:sh -c '{MUCH}; cat service.env >&2; printf %s \"$(cat service.env)\"; {end}'"
        );
        let args = ["run", "--plan", "none", "--agent", &agent, PROMPT];
        let ran = leaky.world.skep(&args).expect_code(code);
        leaky.assert_kept_nowhere(&ran);
    }
}

#[test]
fn a_key_that_a_check_the_setup_or_a_plan_tells_of_is_kept_nowhere() {
    let with = |policy: &str, script: fn(&str) -> Script, plan: &str, code: i32| {
        let leaky = Leaky::new(script);
        leaky.world.repo.file("skep.toml", policy);
        leaky.world.repo.commit("Another policy");
        let ran = leaky.world.skep(&["run", "--plan", plan, PROMPT]);
        leaky.assert_kept_nowhere(&ran.expect_code(code));
    };
    let mend = |_: &str| crate::world::mending();
    let check = "[[check]]\nname = \"env\"\ncommand = \"cat service.env; exit 1\"\n";
    with(check, mend, "none", 1);
    let setup = "[setup]\ncommand = \"cat service.env; exit 1\"\n";
    with(setup, mend, "none", 1);
    let planned = |key: &str| {
        let plan = format!(
            "{{\"job\": [{{\"name\": \"answer\", \"title\": \"Use {key}\", \
             \"prompt\": \"{PROMPT} with {key}\", \"criteria\": [\"{key} is used\"]}}]}}"
        );
        let mending = crate::world::mending();
        mending.job(Job::on(PROMPT).step(Step::say(plan).slowly(Duration::from_millis(1))))
    };
    with("", planned, "auto", 0);
    let wrong = |key: &str| {
        let said = format!("{{\"job\": [{{\"name\": \"{key}\", \"prompt\": \"{PROMPT}\"}}]}}");
        let planner = Job::on(PROMPT).step(Step::say(said.clone()));
        crate::world::mending().job(planner.step(Step::say(said)))
    };
    with("", wrong, "auto", 0);
}

#[test]
fn an_agent_that_read_a_key_goes_on_after_a_kill_and_is_replayed() {
    let hold = Hold::new();
    let leaky = Leaky::new(|key| {
        let job = Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("cat service.env; echo once >> log.txt"))
            .step(Step::shell(format!("echo {key}; {MUCH}")).saying(format!("I saw {key}.")))
            .step(Step::shell("echo 42 > answer.txt").held_by(&hold))
            .step(Step::say("The answer is 42."));
        Script::new().job(job)
    });
    let world = &leaky.world;
    let mut running = world.start(&["run", "--json", "--plan", "none", PROMPT]);
    world.model.wait_for_count(DEADLINE, 3);
    running.kill();
    hold.release();
    let told = Told::of(world.skep(&["retry", "--json"]).expect_code(0));
    assert_eq!(
        told.all("attempt_started").count(),
        1,
        "it is the same attempt"
    );
    assert_eq!(world.integrated("log.txt"), "once\n");
    assert_eq!(world.model.conversations().len(), 5, "one call was cut off");
    leaky.assert_kept_nowhere(&told.ran);
    let args = ["replay", &told.attempt(), "--json"];
    let replayed = world.skep(&args).expect_code(0).json_lines();
    assert_eq!(replayed[0]["same_tree"], true);
    assert_eq!(replayed[0]["differing_outputs"], serde_json::json!([]));
}

/// What the agent did of this kind.
fn agent<'a>(told: &'a Told, kind: &'a str) -> impl Iterator<Item = &'a serde_json::Value> {
    let events = told.all("agent").map(|it| &it["event"]);
    events.filter(move |it| it["kind"] == kind)
}

fn text(event: &serde_json::Value, field: &str) -> String {
    event[field].as_str().unwrap().to_owned()
}
