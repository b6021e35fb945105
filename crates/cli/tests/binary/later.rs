//! Requests that are not to begin yet, and those that come too fast.

use crate::world::{DEADLINE, PROMPT, Told, World};
use serde_json::Value;
use std::{
    fs,
    time::{Instant, SystemTime},
};

/// The newest request, when there are so many: a process submits it just now.
fn submitted(world: &World, many: usize) -> String {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let list = world.skep(&["list", "--json"]).expect_code(0);
        let list: Value = serde_json::from_str(&list.stdout).unwrap();
        let requests = list["requests"].as_array().unwrap();
        if requests.len() == many {
            return requests[0]["id"].as_str().unwrap().to_owned();
        }
    }
    panic!("nothing was submitted");
}

#[test]
fn a_request_that_is_not_to_begin_yet_says_until_when_it_waits_and_can_be_cancelled() {
    let world = World::simple();
    let args = ["run", "--not-before", "1h", "--plan", "none", PROMPT];
    let running = world.start(&args);
    let id = submitted(&world, 1);
    let why = world.skep(&["why", &id]).expect_code(0).stdout;
    assert!(
        why.contains("queued") && why.contains("it waits until") && why.contains("skep resume"),
        "{why}"
    );
    let why = world.skep(&["why", &id, "--json"]).expect_code(0);
    let why: Value = serde_json::from_str(&why.stdout).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let until = why["causes"][0]["until"].as_u64().unwrap();
    assert!(u128::from(until) > now.unwrap().as_micros(), "{why}");
    let left = world.skep(&["resume"]).expect_code(0);
    assert!(
        left.stderr.contains("waits until") && left.stderr.contains("nothing was interrupted"),
        "{}",
        left.stderr
    );
    world.skep(&["pause", &id]).expect_code(0);
    let why = world.skep(&["why", &id]).expect_code(0).stdout;
    assert!(why.contains("somebody paused it"), "{why}");
    world.skep(&["ledger", "check"]).expect_code(0);
    world.skep(&["cancel", &id]).expect_code(0);
    let ran = running.finish(DEADLINE).expect_code(130);
    assert!(ran.stderr.contains("it waits until"), "{}", ran.stderr);
    world.skep(&["ledger", "check"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_request_begins_by_itself_when_its_time_has_come() {
    let world = World::simple();
    let before = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let args = ["run", "--json", "--not-before", "3s"];
    let ran = world.skep(&[&args[..], &["--plan", "none", PROMPT]].concat());
    let told = Told::of(ran.expect_code(0));
    let planned = told
        .events
        .iter()
        .find(|it| it["payload"]["to"] == "planning");
    let micros = planned.unwrap()["time"].as_u64().unwrap();
    assert!(u128::from(micros) >= before.as_micros() + 3_000_000);
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

// docs/bad-input.md: A time to begin that is none, or years ahead
#[test]
fn a_time_that_makes_no_sense_is_refused_before_anything_is_stored() {
    let world = World::simple();
    for (args, word) in [
        (&["--not-before", "soon"][..], "like `2h`"),
        (&["--not-before", "9000d"], "at the latest"),
        (&["--not-before", "2h", "--key", "k"], "another request"),
    ] {
        let ran = world.skep(&[&["run", "--plan", "none", PROMPT], args].concat());
        let ran = ran.expect_code(2);
        assert!(ran.stderr.contains(word), "{}", ran.stderr);
    }
    let list = world.skep(&["list", "--json"]).expect_code(0);
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(list["requests"], Value::Array(Vec::new()));
}

// docs/bad-input.md: More requests than are taken
#[test]
fn more_requests_than_the_configuration_takes_are_refused_with_when_to_come_back() {
    let world = World::simple();
    let directory = world.home.config().join("skep");
    fs::create_dir_all(&directory).unwrap();
    let config = directory.join("config.toml");
    fs::write(&config, "[limits]\nper_minute = 1\n").unwrap();
    let run = |key: &str| world.skep(&["run", "--json", "--key", key, "--plan", "none", PROMPT]);
    run("a").expect_code(0);
    run("a").expect_code(0);
    let refused = run("b").expect_code(6);
    let object: Value = serde_json::from_str(&refused.stderr).unwrap();
    let error = &object["error"];
    assert_eq!(error["exit"], "refused");
    let seconds = error["retry_after"].as_u64().unwrap();
    assert!((1..=60).contains(&seconds), "{error}");
    let said = error["message"].as_str().unwrap();
    let when = format!("1 request in a minute: try again in {seconds} s");
    assert!(said.contains(&when), "{said}");
    // What was refused was not stored.
    let list = world.skep(&["list", "--json"]).expect_code(0);
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(list["requests"].as_array().unwrap().len(), 1);

    fs::write(&config, "[limits]\nwaiting = 1\n").unwrap();
    let waiting = world.start(&["run", "--not-before", "1h", "--plan", "none", PROMPT]);
    let id = submitted(&world, 2);
    let refused = world
        .skep(&["run", "--plan", "none", PROMPT])
        .expect_code(6);
    assert!(
        refused.stderr.contains("1 request waits") && refused.stderr.contains("[limits]"),
        "{}",
        refused.stderr
    );
    world.skep(&["cancel", &id]).expect_code(0);
    waiting.finish(DEADLINE).expect_code(130);
}
