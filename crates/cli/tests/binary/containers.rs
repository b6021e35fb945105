//! Agents whose sandboxes are containers: all of a request, and what a kill leaves of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::leaks;
use testkit::models::{Hold, Job, Script, Step};

use crate::world::{DEADLINE, PROMPT, Told, World, mending, wrong_answer};

/// A request whose agent and checks run in containers.
const RUN: [&str; 7] = [
    "run",
    "--json",
    "--sandbox",
    "container",
    "--plan",
    "none",
    PROMPT,
];

#[test]
fn a_request_is_worked_on_in_containers_to_its_end() {
    works_to_its_end(World::with_podman(wrong_answer(), mending()));
}

#[test]
fn a_request_of_an_ordinary_user_is_worked_on_in_containers_to_its_end() {
    works_to_its_end(World::with_podman_of_ordinary_user(
        wrong_answer(),
        mending(),
    ));
}

fn works_to_its_end(world: World) {
    let was = world.repo.snapshot();
    let told = Told::of(world.skep(&RUN).expect_code(0));
    let began = told.all("attempt_started").next().unwrap();
    assert_eq!(began["sandbox"], "container");
    assert_eq!(told.verdicts("answer").first().unwrap(), "passed");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    was.assert_only_integration(&world.repo.snapshot());
    world.assert_no_secret(&[&told.ran]);
    world.assert_nothing_left();
}

/// A run that was killed while its agent waits for the model, in the middle of its turn.
fn killed(world: &World, hold: &Hold) {
    let mut running = world.start(&RUN);
    world.model.wait_for_count(DEADLINE, 2);
    // Neither the engine nor what it starts has it.
    let holders = leaks::processes_holding(&world.key);
    let holders: Vec<_> = holders.iter().map(|it| it.pid).collect();
    assert_eq!(holders, [running.pid()]);
    running.kill();
    hold.release();
}

fn two_steps(hold: &Hold) -> Script {
    Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo one >> log.txt"))
            .step(Step::shell("echo 42 > answer.txt").held_by(hold))
            .step(Step::say("The answer is 42.")),
    )
}

#[test]
fn killed_in_the_middle_it_goes_on_in_a_container_and_leaves_none() {
    let hold = Hold::new();
    goes_on(World::with_podman(wrong_answer(), two_steps(&hold)), &hold);
}

#[test]
fn killed_in_the_middle_it_goes_on_in_a_container_of_an_ordinary_user_too() {
    let hold = Hold::new();
    let world = World::with_podman_of_ordinary_user(wrong_answer(), two_steps(&hold));
    goes_on(world, &hold);
}

fn goes_on(world: World, hold: &Hold) {
    killed(&world, hold);
    let told = Told::of(world.skep(&["resume", "--json"]).expect_code(0));
    let began: Vec<_> = told.all("attempt_started").collect();
    assert_eq!(began.len(), 1, "it is the same attempt");
    assert_eq!(began[0]["sandbox"], "container");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_eq!(world.integrated("log.txt"), "one\n");
    // That somebody was killed who had an engine is known until one looks what it left.
    world.skep(&["gc"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn what_was_asked_for_in_containers_is_tried_again_in_containers() {
    let never = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::say("I cannot do that."))
            .step(Step::say("I still cannot.")),
    );
    let world = World::with_podman(wrong_answer(), never);
    world.skep(&RUN).expect_code(1);
    let told = Told::of(world.skep(&["retry", "--json"]).expect_code(1));
    let began: Vec<_> = told.all("attempt_started").collect();
    assert_eq!(began.len(), 1);
    assert_eq!(began[0]["sandbox"], "container");
    world.assert_nothing_left();
}

#[test]
fn requests_in_containers_and_others_are_gone_on_with_each_in_its_kind() {
    let holds = [Hold::new(), Hold::new()];
    let script = |script: Script, prompt: &str, hold: &Hold| {
        script.job(
            Job::on(prompt)
                .with_tools()
                .step(Step::shell(format!("echo '{prompt}' > '{prompt}'")).held_by(hold))
                .step(Step::say("It is there.")),
        )
    };
    let names = ["first.txt", "second.txt"];
    let both = script(Script::new(), names[0], &holds[0]);
    let both = script(both, names[1], &holds[1]);
    let repo = testkit::Repo::new();
    repo.file("kept.txt", "kept\n");
    repo.commit("No check");
    let world = World::with_podman(repo, both);
    let mut contained = RUN;
    contained[6] = names[0];
    let mut running = [
        world.start(&contained),
        world.start(&["run", "--json", "--plan", "none", names[1]]),
    ];
    world.model.wait_for_count(DEADLINE, 2);
    for one in &mut running {
        one.kill();
    }
    holds.iter().for_each(Hold::release);
    let told = Told::of(world.skep(&["resume", "--json"]).expect_code(0));
    let mut kinds: Vec<_> = told
        .all("attempt_started")
        .map(|it| it["sandbox"].as_str().unwrap())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["container", "namespace"]);
    for name in names {
        assert_eq!(world.integrated(name), format!("{name}\n"));
    }
    world.skep(&["gc"]).expect_code(0);
    world.assert_nothing_left();
}

/// The container of a run that was killed, and with it whoever would have cleared that away.
fn left_behind(world: &World, hold: &Hold) -> String {
    let podman = world.podman.as_ref().unwrap();
    let mut running = world.start(&RUN);
    world.model.wait_for_count(DEADLINE, 2);
    for process in leaks::processes_of(podman.root()) {
        if process.command.contains("conmon") {
            kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL).unwrap();
        }
    }
    running.kill();
    hold.release();
    podman.wait_until_quiet();
    let left = podman.containers();
    assert_eq!(left.len(), 1, "{left:?}");
    left[0].split(' ').next().unwrap().to_owned()
}

fn object(world: &World, args: &[&str]) -> Value {
    world.skep(args).json_lines().remove(0)
}

#[test]
fn what_a_killed_run_left_in_an_engine_is_named_by_doctor_and_removed_by_gc() {
    let hold = Hold::new();
    let world = World::with_podman(wrong_answer(), two_steps(&hold));
    let id = left_behind(&world, &hold);
    // Whichever engine is chosen by then: it is another one that knows nothing of it.
    let other = world.home.root().join("no-engine");
    let world = world.env("DOCKER_HOST", format!("unix://{}", other.display()));
    let podman = world.podman.as_ref().unwrap();
    let told = object(&world, &["doctor", "--json"]);
    let findings = told["findings"].as_array().unwrap();
    let found = findings.iter().find(|it| it["name"] == "left containers");
    let found = found.unwrap_or_else(|| panic!("{told:#}"));
    assert!(found["detail"].as_str().unwrap().contains(&id), "{found}");
    assert_eq!(found["health"], "lacking");
    let would = object(&world, &["gc", "--dry-run", "--json"]);
    assert_eq!(would["containers"], json!([id]));
    assert_eq!(podman.containers().len(), 1);
    let did = world.skep(&["gc"]).expect_code(0).stdout;
    assert!(did.contains("1 container of killed processes"), "{did}");
    assert_eq!(podman.containers(), Vec::<String>::new());
    let again = object(&world, &["gc", "--json"]);
    assert_eq!(again["containers"], json!([]));
    let world = world.env("DOCKER_HOST", "");
    world.skep(&["resume", "--json"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn the_mark_of_an_engine_that_is_gone_for_a_week_is_told_and_dropped() {
    let world = World::simple();
    world.run();
    let run = world.data().join("run");
    let socket = world.home.root().join("no-engine").display().to_string();
    let (mark, noted) = (
        run.join("engine.another-start.1-2-3-0"),
        run.join("engine.another-start.1-2-3-0.absent"),
    );
    fs::write(&mark, format!("listens {socket}")).unwrap();
    let is_told = |told: &Value| told["failed"][0]["name"] == "containers";
    for _ in 0..2 {
        let told = object(&world, &["gc", "--json"]);
        assert!(is_told(&told), "{told}");
        assert_eq!(told["engines"], json!([]));
        assert!(noted.exists() && !mark.exists());
    }
    let old = SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60);
    let file = fs::File::options().append(true).open(&noted).unwrap();
    file.set_modified(old).unwrap();
    let told = object(&world, &["gc", "--dry-run", "--json"]);
    assert_eq!(told["engines"], json!([socket]));
    assert!(noted.exists());
    let doctor = world.skep(&["doctor"]).stdout;
    assert!(doctor.contains("were not there for a week"), "{doctor}");
    let said = world.skep(&["gc"]).expect_code(0).stdout;
    assert!(said.contains(&socket), "{said}");
    let told = object(&world, &["gc", "--json"]);
    assert_eq!(
        (&told["engines"], &told["failed"]),
        (&json!([]), &json!([]))
    );
    world.assert_nothing_left();
}

#[test]
fn whoever_never_used_containers_never_waits_for_an_engine() {
    let world = World::simple();
    let (dir, asked) = (
        world.home.root().join("bin"),
        world.home.root().join("asked"),
    );
    let path = world.home.variable("PATH").unwrap().to_owned();
    let mut first = dir.clone().into_os_string();
    first.push(":");
    first.push(path);
    let script = format!("#!/bin/sh\ntouch {}\nexit 1\n", asked.display());
    let program = world.home.file("bin/podman", script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let world = world.env("PATH", first);
    world.run();
    world.skep(&["gc"]).expect_code(0);
    world.skep(&["gc", "--dry-run"]).expect_code(0);
    world.skep(&["doctor"]).expect_code(0);
    assert!(!asked.exists(), "podman was started");
    world.skep(&["run", "--sandbox", "container", PROMPT]);
    assert!(asked.exists(), "it would have been seen");
}
