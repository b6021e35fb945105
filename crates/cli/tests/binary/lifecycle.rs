//! Sandboxes that are stopped, by whom or by what however, and started again: their files are there.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{Ran, Started, leaks};

use crate::dice::{Dice, wanted};
use crate::world::{DEADLINE, World};

pub(crate) fn world() -> World {
    World::simple()
}

pub(crate) fn create(world: &World, more: &[&str]) -> String {
    let args = [&["sandbox", "create", "--for", "10m"], more].concat();
    world.skep(&args).expect_code(0).stdout.trim().to_owned()
}

pub(crate) fn exec(world: &World, id: &str, script: &str) -> Ran {
    world.skep(&["sandbox", "exec", id, "--", "sh", "-c", script])
}

pub(crate) fn json(world: &World, args: &[&str]) -> Value {
    let ran = world.skep(&[&["sandbox", "--json"], args].concat());
    ran.expect_code(0).json_lines().remove(0)
}

/// What is listed of a sandbox.
pub(crate) fn listed(world: &World, id: &str) -> Option<Value> {
    let list = json(world, &["list"]);
    let all = list["sandboxes"].as_array().unwrap();
    all.iter().find(|it| it["id"] == id).cloned()
}

fn holder(of: &Value) -> Pid {
    Pid::from_raw(i32::try_from(of["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

/// Runs a command in it that goes on until it is ended.
fn endless(world: &World, id: &str, more: &[&str]) -> Started {
    let script = "trap '' HUP TERM INT; (setsid sleep 1000 &); touch begun; sleep 1000";
    let args = [&["sandbox", "exec"], more, &[id, "--", "sh", "-c", script]];
    let running = world.start(&args.concat());
    exec(
        world,
        id,
        "until test -e begun; do sleep 0.02; done; rm begun",
    )
    .expect_code(0);
    running
}

pub(crate) fn destroy_all(world: &World) {
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    leaks::assert_none(&world.data());
    world.skep(&["gc"]).expect_code(0);
    world.assert_nothing_left();
}

// docs/bad-input.md: A command for a sandbox that is stopped
#[test]
fn a_stopped_sandbox_is_started_with_its_files_its_home_and_its_snapshots() {
    let world = world();
    let id = create(&world, &["--name", "try", "--also", "copy=."]);
    let script = "echo 1 > one; echo note > ~/note; echo also > ../copy/also";
    exec(&world, "try", script).expect_code(0);
    world.skep(&["sandbox", "snapshot", "try"]).expect_code(0);
    exec(&world, "try", "echo 2 > one; echo 2 > ../copy/also").expect_code(0);
    let before = listed(&world, &id).unwrap();
    assert_eq!(
        (&before["status"], &before["why"]),
        (&"running".into(), &Value::Null)
    );

    let stopped = json(&world, &["stop", "try"]);
    assert_eq!(stopped["stopped"][0], *id);
    leaks::assert_none(&world.data());
    world.skep(&["sandbox", "stop", "try"]).expect_code(0);
    let now = listed(&world, &id).unwrap();
    assert_eq!(
        (&now["status"], &now["why"]),
        (&"stopped".into(), &"asked".into())
    );
    assert_eq!(
        (&now["ends"], &now["state"]),
        (&before["ends"], &Value::Null)
    );
    let shown = world.skep(&["sandbox", "inspect", "try"]).expect_code(0);
    assert!(shown.stdout.contains("stopped since"), "{}", shown.stdout);
    for args in [
        &["exec", "try", "--", "true"][..],
        &["snapshot", "try"],
        &["fork", "try"],
    ] {
        let refused = world.skep(&[&["sandbox"], args].concat()).expect_code(6);
        let wanted = format!("skep sandbox start {id}");
        assert!(refused.stderr.contains(&wanted), "{}", refused.stderr);
    }
    // Whoever makes sandboxes, or clears up, leaves it.
    world.skep(&["shell", "--", "true"]).expect_code(0);
    world.skep(&["gc", "--all"]).expect_code(0);

    let started = json(&world, &["start", "try", "--for", "20m"]);
    let one = &started["started"][0];
    assert_eq!(
        (&one["id"], &one["name"]),
        (&Value::from(&*id), &"try".into())
    );
    assert_eq!(one["created"], before["created"]);
    assert!(one["ends"].as_i64() > before["ends"].as_i64());
    world.skep(&["sandbox", "start", "try"]).expect_code(6);
    let script = "cat one ../copy/also ~/note; git status --short";
    let ran = exec(&world, "try", script).expect_code(0);
    assert_eq!(ran.stdout, "2\n2\nnote\n?? one\n");
    world.skep(&["sandbox", "undo", "try", "s1"]).expect_code(0);
    let ran = exec(&world, "try", "cat one ../copy/also").expect_code(0);
    assert_eq!(ran.stdout, "1\nalso\n");
    world
        .skep(&["sandbox", "fork", "try", "--for", "10m"])
        .expect_code(0);
    world.skep(&["sandbox", "stop", "try"]).expect_code(0);
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    assert_eq!(listed(&world, &id), None);
    destroy_all(&world);
}

#[test]
fn a_holder_that_is_killed_or_told_to_end_leaves_a_stopped_sandbox_with_its_files() {
    let world = world();
    let id = create(&world, &[]);
    for (signal, why) in [(Signal::KILL, "killed"), (Signal::TERM, "told")] {
        exec(&world, &id, &format!("echo {why} > file")).expect_code(0);
        let running = endless(&world, &id, &[]);
        kill_process(holder(&listed(&world, &id).unwrap()), signal).unwrap();
        assert_ne!(running.finish(DEADLINE).code(), Some(0));
        leaks::assert_none(&world.data());
        let now = listed(&world, &id).unwrap();
        assert_eq!(
            (&now["status"], &now["why"]),
            (&"stopped".into(), &why.into())
        );
        world.skep(&["shell", "--", "true"]).expect_code(0);
        world.skep(&["sandbox", "start", &id]).expect_code(0);
        let ran = exec(&world, &id, "cat file").expect_code(0);
        assert_eq!(ran.stdout.trim(), why);
    }
    kill_process(holder(&listed(&world, &id).unwrap()), Signal::KILL).unwrap();
    world.skep(&["sandbox", "destroy", &id]).expect_code(0);
    world.assert_nothing_left();
}

// docs/bad-input.md: Starting a sandbox that had secrets, without them
#[test]
fn a_sandbox_that_had_secrets_is_started_with_them_given_again() {
    let world = world();
    let secret = world.home.file("token", "a-secret-of-mine");
    let given = format!("token={}", secret.display());
    let id = create(&world, &["--secret", &given]);
    world.skep(&["sandbox", "stop", &id]).expect_code(0);
    let refused = world.skep(&["sandbox", "start", &id]).expect_code(2);
    assert!(
        refused.stderr.contains("--secret token="),
        "{}",
        refused.stderr
    );
    assert_eq!(
        leaks::paths_holding(&world.data(), "a-secret-of-mine"),
        Vec::<std::path::PathBuf>::new()
    );
    // What one had is nothing for another.
    let other = create(&world, &[]);
    world.skep(&["sandbox", "stop", &other]).expect_code(0);
    let both = ["sandbox", "start", &id, &other, "--secret", &given];
    world.skep(&both).expect_code(2);
    world
        .skep(&["sandbox", "start", &id, "--secret", &given])
        .expect_code(0);
    let ran = exec(&world, &id, "cat /run/skep/secrets/token").expect_code(0);
    assert_eq!(ran.stdout, "a-secret-of-mine");
    destroy_all(&world);
}

#[test]
fn a_command_is_told_that_it_ended_with_its_sandbox() {
    let world = world();
    let id = create(&world, &[]);
    let running = endless(&world, &id, &[]);
    let captured = endless(&world, &id, &["--json"]);
    world.skep(&["sandbox", "stop", &id]).expect_code(0);
    let ran = running.finish(DEADLINE).expect_code(137);
    assert!(
        ran.stderr.contains("the sandbox was stopped"),
        "{}",
        ran.stderr
    );
    let shown = captured
        .finish(DEADLINE)
        .expect_code(137)
        .json_lines()
        .remove(0);
    assert_eq!(shown["ended_by"], "sandbox");
    destroy_all(&world);
}

#[test]
fn of_two_who_want_one_name_or_start_one_sandbox_at_once_one_does() {
    let world = world();
    let both = |args: &[&str]| {
        let both = [world.start(args), world.start(args)];
        let mut codes = both.map(|it| it.finish(DEADLINE).code());
        codes.sort_unstable();
        codes
    };
    let create = ["sandbox", "create", "--name", "one", "--for", "10m"];
    assert_eq!(both(&create), [Some(0), Some(6)]);
    exec(&world, "one", "echo 1 > file").expect_code(0);
    world.skep(&["sandbox", "stop", "one"]).expect_code(0);
    assert_eq!(both(&["sandbox", "start", "one"]), [Some(0), Some(6)]);
    assert_eq!(exec(&world, "one", "cat file").expect_code(0).stdout, "1\n");
    // Whichever comes first, it is gone in the end.
    world.skep(&["sandbox", "stop", "one"]).expect_code(0);
    let starting = world.start(&["sandbox", "start", "one"]);
    world.skep(&["sandbox", "destroy", "one"]).expect_code(0);
    starting.finish(DEADLINE);
    let list = json(&world, &["list"]);
    assert_eq!(list["sandboxes"], serde_json::json!([]));
    destroy_all(&world);
}

#[test]
fn a_stopped_sandbox_goes_with_its_files_when_its_time_is_over() {
    let world = world();
    let made = world.skep(&["sandbox", "create", "--for", "6s", "--json"]);
    let ends = made.expect_code(0).json_lines().remove(0)["ends"]
        .as_u64()
        .unwrap();
    world.skep(&["sandbox", "stop", "--json"]).expect_code(2);
    let list = json(&world, &["list"]);
    let id = list["sandboxes"][0]["id"].as_str().unwrap().to_owned();
    world.skep(&["sandbox", "stop", &id]).expect_code(0);
    let gc = |args: &[&str]| {
        let ran = world.skep(&[&["gc", "--json"], args].concat());
        ran.expect_code(0).json_lines().remove(0)
    };
    assert_eq!(gc(&[])["sandboxes"]["stopped"], serde_json::json!([id]));
    let doctor = world.skep(&["doctor", "--json"]);
    assert!(doctor.stdout.contains("1 stopped"), "{}", doctor.stdout);
    let now = || {
        let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::try_from(age.unwrap().as_micros()).unwrap()
    };
    while now() < ends {
        std::thread::yield_now();
    }
    assert_eq!(
        gc(&["--dry-run"])["sandboxes"]["past"],
        serde_json::json!([id])
    );
    assert_eq!(gc(&[])["sandboxes"]["past"], serde_json::json!([id]));
    assert_eq!(listed(&world, &id), None);
    world.assert_nothing_left();
}

#[test]
fn a_sandbox_that_does_not_answer_keeps_no_client_waiting() {
    let world = world();
    let id = create(&world, &[]);
    let running = endless(&world, &id, &[]);
    let interrupted = endless(&world, &id, &[]);
    // The holder has other children too.
    let first = listed(&world, &id).unwrap()["state"]["first_process"].clone();
    let first = Pid::from_raw(i32::try_from(first.as_i64().unwrap()).unwrap()).unwrap();
    kill_process(first, Signal::STOP).unwrap();

    let args = ["sandbox", "exec", "--timeout", "1s", &id, "--", "true"];
    let ran = world.skep(&args).expect_code(124);
    assert!(ran.stderr.contains("does not answer"), "{}", ran.stderr);
    let waiting = world.start(&["sandbox", "exec", &id, "--", "true"]);
    waiting.signal(Signal::TERM);
    assert!(matches!(waiting.finish(DEADLINE).code(), Some(143) | None));
    interrupted.signal(Signal::INT);
    let ran = interrupted.finish(Duration::from_secs(60)).expect_code(130);
    assert!(ran.stderr.contains("does not answer"), "{}", ran.stderr);
    running.signal(Signal::TERM);
    running.finish(Duration::from_secs(60)).expect_code(143);
    world.skep(&["sandbox", "stop", &id]).expect_code(0);
    world.skep(&["sandbox", "start", &id]).expect_code(0);
    exec(&world, &id, "true").expect_code(0);
    destroy_all(&world);
}

// docs/bad-input.md: A broken configuration, and sandboxes that are there
#[test]
fn a_broken_configuration_takes_no_sandbox_away() {
    let world = world();
    let id = create(&world, &["--name", "try"]);
    world
        .home
        .file("config/skep/config.toml", "[sandbox]\nkind = 7\n");
    exec(&world, "try", "echo 1 > file").expect_code(0);
    assert_eq!(listed(&world, &id).unwrap()["status"], "running");
    world.skep(&["sandbox", "inspect", "try"]).expect_code(0);
    world.skep(&["sandbox", "stop", "try"]).expect_code(0);
    world.skep(&["sandbox", "start", "try"]).expect_code(2);
    assert_eq!(listed(&world, &id).unwrap()["status"], "stopped");
    world
        .home
        .file("config/skep/config.toml", "this is = = nothing\n");
    let ran = world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    assert!(ran.stderr.contains("configuration"), "{}", ran.stderr);
    world.assert_nothing_left();
}

// docs/bad-input.md: A sandbox whose record is damaged, or of another version
#[test]
fn a_sandbox_of_which_nothing_can_be_read_hides_no_other_and_can_be_destroyed() {
    let world = world();
    let id = create(&world, &["--name", "try"]);
    let bad = create(&world, &["--name", "bad"]);
    world.skep(&["sandbox", "stop", "bad"]).expect_code(0);
    let place = world.data().join("run/sandboxes");
    fs::write(place.join(&bad).join("record.json"), "{").unwrap();
    fs::write(place.join("stray"), "").unwrap();
    exec(&world, "try", "echo 1 > file").expect_code(0);
    let list = json(&world, &["list"]);
    assert_eq!(list["sandboxes"][0]["id"], *id);
    assert_eq!(list["damaged"][0]["id"], *bad);
    let told = world.skep(&["sandbox", "list"]).expect_code(0).stderr;
    assert!(
        told.contains(&format!("skep sandbox destroy {bad}")),
        "{told}"
    );
    world.skep(&["gc"]).expect_code(0);
    assert!(world.data().join("workspaces").join(&bad).exists());
    // It is not said that there is none.
    for args in [
        &["inspect", &bad][..],
        &["stop", &bad],
        &["exec", &bad, "--", "true"],
    ] {
        let ran = world.skep(&[&["sandbox"], args].concat()).expect_code(1);
        let hint = format!("`skep sandbox destroy {bad}`");
        assert!(ran.stderr.contains(&hint), "{args:?}: {}", ran.stderr);
    }
    world.skep(&["sandbox", "destroy", &bad]).expect_code(0);
    assert_eq!(json(&world, &["list"])["damaged"], Value::Array(Vec::new()));
    fs::remove_file(place.join("stray")).unwrap();
    // Also one that runs: what it is held by is not written anywhere else.
    let record = place.join(&id).join("record.json");
    fs::write(record, "{").unwrap();
    world.skep(&["sandbox", "destroy", &id]).expect_code(0);
    assert_eq!(json(&world, &["list"])["damaged"], Value::Array(Vec::new()));
    destroy_all(&world);
}

#[test]
fn a_start_whose_holder_is_killed_says_that_the_sandbox_stays_and_how_it_is_tried_again() {
    let world = world();
    let id = create(&world, &["--name", "try"]);
    let killed = |args: &[&str], signal| {
        // It may be ready before it is seen.
        for _ in 0..20 {
            world.skep(&["sandbox", "stop", "try"]).expect_code(0);
            let mut starting = world.start(args);
            let holder = loop {
                let all = leaks::processes_of(&world.data());
                let is_holder = |it: &&leaks::Process| it.command.contains(" sandbox hold ");
                if let Some(it) = all.iter().find(is_holder) {
                    break Pid::from_raw(it.pid);
                }
                if starting.ends_within(Duration::ZERO) {
                    break None;
                }
            };
            if let Some(pid) = holder {
                // It may have gone already.
                kill_process(pid, signal).ok();
            }
            let ran = starting.finish(DEADLINE);
            if ran.code() == Some(1) {
                return ran.stderr;
            }
        }
        panic!("it is always ready before it can be killed");
    };
    let start = ["sandbox", "start", "try"];
    let said = killed(&start, Signal::KILL);
    assert!(said.contains("signal: 9"), "{said}");
    assert!(said.contains(&format!("skep sandbox start {id}")), "{said}");
    let said = killed(&start, Signal::TERM);
    // By then it may not listen yet.
    let told = said.contains("told to end") || said.contains("signal: 15");
    assert!(told, "{said}");
    assert!(
        !said.contains("report"),
        "it is no mistake of Skep's: {said}"
    );
    world.skep(&["sandbox", "start", "try"]).expect_code(0);
    destroy_all(&world);
}

#[test]
fn of_several_sandboxes_each_is_tried_also_where_nothing_can_be_said() {
    let world = world();
    let ids = [create(&world, &[]), create(&world, &[])];
    for what in ["stop", "destroy"] {
        let full = fs::File::options().write(true).open("/dev/full");
        let ran = world
            .home
            .command(env!("CARGO_BIN_EXE_skep"))
            .args(["sandbox", what])
            .args(&ids)
            .current_dir(world.repo.path())
            .stdout(full.unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{what}: {said}");
        for id in &ids {
            let left = listed(&world, id).map(|it| it["status"].clone());
            let expected = (what == "stop").then(|| "stopped".into());
            assert_eq!(left, expected, "{what}: {said}");
        }
    }
    world.assert_nothing_left();
}

/// Waits until it is seen that nothing runs in it any more, and what is said of that.
fn says_how_it_ended(world: &World) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let state = json(world, &["inspect", "try"])["state"].clone();
        if state["alive"] == false {
            assert_eq!(state["processes"], Value::Null, "{state}");
            assert_eq!(state["stats"]["memory_bytes"], Value::Null, "{state}");
            let ended = state["ended"].clone();
            let remedy = ended["remedy"].as_str().unwrap();
            assert!(remedy.contains("`skep sandbox start`"), "{remedy}");
            return ended;
        }
        assert!(Instant::now() < end, "{state}");
    }
}

// docs/bad-input.md: A sandbox in which nothing runs any more (its first process was killed, or a bound of the disk was passed)
#[test]
fn a_sandbox_in_which_nothing_runs_any_more_says_how_its_files_are_had_again() {
    let world = world();
    create(&world, &["--name", "try"]);
    exec(&world, "try", "echo 1 > file").expect_code(0);
    let state = json(&world, &["inspect", "try"])["state"].clone();
    let first = i32::try_from(state["first_process"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    let ended = says_how_it_ended(&world);
    assert_eq!(ended["exit"]["signal"], 9, "{ended}");
    assert_eq!(ended["trouble"], "ended");
    let ran = exec(&world, "try", "true").expect_code(4);
    assert!(ran.stderr.contains("skep sandbox start"), "{}", ran.stderr);
    let shown = world.skep(&["sandbox", "inspect", "try"]).expect_code(0);
    let said = shown.stdout;
    assert!(
        said.contains("its first process: ended by signal 9"),
        "{said}"
    );
    assert!(said.contains("`skep sandbox start`"), "{said}");
    world.skep(&["sandbox", "stop", "try"]).expect_code(0);
    world.skep(&["sandbox", "start", "try"]).expect_code(0);
    assert_eq!(exec(&world, "try", "cat file").stdout, "1\n");
    destroy_all(&world);
}

#[test]
fn a_fork_of_which_nothing_comes_leaves_no_snapshot_in_its_source() {
    let world = world();
    let id = create(&world, &["--name", "try"]);
    exec(&world, "try", "echo 1 > file").expect_code(0);
    let snapshots = || json(&world, &["inspect", "try"])["state"]["snapshots"].clone();
    let config = world
        .home
        .file("config/skep/config.toml", "[sandbox]\nkind = 7\n");
    world.skep(&["sandbox", "fork", "try"]).expect_code(2);
    fs::remove_file(config).unwrap();
    assert_eq!(snapshots(), serde_json::json!([]));
    for _ in 0..4 {
        let mut forking = world.start(&["sandbox", "fork", "try", "-n", "2", "--for", "10m"]);
        let holders = || {
            let all = leaks::processes_of(&world.data());
            all.iter()
                .filter(|it| it.command.contains(" sandbox hold "))
                .count()
        };
        let end = Instant::now() + DEADLINE;
        while holders() < 2 && !forking.ends_within(Duration::ZERO) {
            assert!(Instant::now() < end, "a fork is begun or refused");
        }
        forking.kill();
        while holders() > 1
            && json(&world, &["list"])["sandboxes"]
                .as_array()
                .unwrap()
                .len()
                == 1
        {
            assert!(Instant::now() < end, "the forks are gone");
        }
        let is_alone = json(&world, &["list"])["sandboxes"]
            .as_array()
            .unwrap()
            .len()
            == 1;
        while is_alone && snapshots() != serde_json::json!([]) {
            assert!(Instant::now() < end, "{}", snapshots());
        }
        if !is_alone {
            break;
        }
    }
    // What was written stays, and the next snapshot holds all of it.
    assert_eq!(exec(&world, &id, "cat file").expect_code(0).stdout, "1\n");
    destroy_all(&world);
}

#[test]
fn a_holder_that_is_killed_while_forks_are_made_loses_no_snapshot_that_was_told() {
    let mut dice = Dice(wanted("SKEP_SEED").unwrap_or(7));
    let world = world();
    let id = create(&world, &["--name", "try"]);
    let mut told = Vec::new();
    for _ in 0..wanted("SKEP_ROUNDS").unwrap_or(5) {
        let fork = ["sandbox", "fork", "try", "--for", "10m"];
        let forking = [world.start(&fork), world.start(&fork)];
        let snapshot = ["sandbox", "snapshot", "try", "--json"];
        let mut taking = [world.start(&snapshot), world.start(&snapshot)];
        taking[1].ends_within(Duration::from_millis(dice.below(150)));
        let pid = holder(&listed(&world, &id).unwrap());
        kill_process(pid, Signal::KILL).unwrap();
        for taken in taking {
            let ran = taken.finish(DEADLINE);
            if ran.code() == Some(0) {
                let name = ran.json_lines().remove(0)["snapshot"].clone();
                told.push(name);
            }
        }
        for fork in forking {
            fork.finish(DEADLINE);
        }
        let end = Instant::now() + DEADLINE;
        while listed(&world, &id).unwrap()["status"] != "stopped" {
            assert!(Instant::now() < end, "it is stopped without its holder");
        }
        for other in json(&world, &["list"])["sandboxes"].as_array().unwrap() {
            if other["id"] != *id {
                let other = other["id"].as_str().unwrap();
                world.skep(&["sandbox", "destroy", other]);
            }
        }
        world.skep(&["sandbox", "start", "try"]).expect_code(0);
        let state = json(&world, &["inspect", "try"])["state"].clone();
        let there: Vec<&Value> = state["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["name"])
            .collect();
        for name in &told {
            assert!(there.contains(&name), "{name} of {told:?}: {there:?}");
        }
    }
    destroy_all(&world);
}

/// What is done to a sandbox while somebody is killed.
const STEPS: [&str; 6] = ["create", "stop", "start", "snapshot", "undo", "destroy"];

#[test]
fn whoever_is_killed_at_whatever_moment_a_sandbox_is_absent_or_has_the_files_of_the_last_step() {
    let mut dice = Dice(wanted("SKEP_SEED").unwrap_or(11));
    let world = world();
    let mut content = String::new();
    let mut id: Option<String> = None;
    for round in 0..wanted("SKEP_ROUNDS").unwrap_or(18) {
        let step = STEPS[usize::try_from(round).unwrap() % STEPS.len()];
        if id.is_none() && step != "create" {
            id = Some(create(&world, &["--name", "try"]));
            content.clear();
        }
        if id.is_some() && step == "create" {
            world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
            content.clear();
        }
        if let Some(id) = id.as_deref().filter(|_| step != "create") {
            let is_running = listed(&world, id).is_some_and(|it| it["status"] == "running");
            if !is_running {
                world.skep(&["sandbox", "start", id]).expect_code(0);
            }
            content = format!("{round}");
            exec(&world, id, &format!("echo {round} > file")).expect_code(0);
            match step {
                "undo" => {
                    let name = format!("r{round}");
                    let args = ["sandbox", "snapshot", id, "--name", &name];
                    world.skep(&args).expect_code(0);
                }
                "start" => {
                    world.skep(&["sandbox", "stop", id]).expect_code(0);
                }
                _ => {}
            }
        }
        let to = format!("r{round}");
        let mut args = vec!["sandbox", step];
        match step {
            "create" => args.extend(["--name", "try", "--for", "10m"]),
            "undo" => args.extend(["try", &to]),
            _ => args.push("try"),
        }
        let mut doing = world.start(&args);
        doing.ends_within(Duration::from_millis(dice.below(250)));
        // The client, its holder, or both.
        let whom = dice.below(3);
        if whom != 1 && !doing.ends_within(Duration::ZERO) {
            doing.kill();
        }
        if whom != 0 {
            for it in leaks::processes_of(&world.data()) {
                if it.command.contains(" sandbox hold ")
                    && let Some(pid) = Pid::from_raw(it.pid)
                {
                    // It may have gone already.
                    kill_process(pid, Signal::KILL).ok();
                }
            }
        }
        doing.finish(DEADLINE);
        // Whatever goes on by itself comes to its end: what is listed as running answers.
        let end = Instant::now() + DEADLINE;
        let now = loop {
            let list = json(&world, &["list"]);
            let now = list["sandboxes"].as_array().unwrap().first().cloned();
            let holders = leaks::processes_of(&world.data())
                .iter()
                .filter(|it| it.command.contains(" sandbox hold "))
                .count();
            let settled = match &now {
                None => holders == 0,
                Some(it) if it["status"] == "stopped" => holders == 0,
                Some(it) => it["status"] == "running" && it["state"]["alive"] == true,
            };
            if settled {
                break now;
            }
            assert!(
                Instant::now() < end,
                "{step} {whom}: {now:?}, {holders} holders"
            );
        };
        let Some(now) = now else {
            assert!(
                matches!(step, "create" | "destroy"),
                "{step} {whom} lost it"
            );
            id = None;
            continue;
        };
        let found = now["id"].as_str().unwrap().to_owned();
        if step == "create" {
            content.clear();
        }
        if now["status"] == "stopped" {
            world.skep(&["sandbox", "start", &found]).expect_code(0);
        }
        let ran = exec(&world, &found, "cat file 2>/dev/null || true").expect_code(0);
        assert_eq!(ran.stdout.trim(), content, "{step} {whom}");
        id = Some(found);
    }
    destroy_all(&world);
}
