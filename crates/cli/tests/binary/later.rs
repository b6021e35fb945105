//! Requests that are not to begin yet, and those that come too fast.

use crate::world::{DEADLINE, PROMPT, Told, World};
use serde_json::Value;
use std::time::{Instant, SystemTime};

/// The request that a process submits just now.
fn submitted(world: &World) -> String {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let list = world.skep(&["list", "--json"]).expect_code(0);
        let list: Value = serde_json::from_str(&list.stdout).unwrap();
        if let Some(id) = list["requests"][0]["id"].as_str() {
            return id.to_owned();
        }
    }
    panic!("nothing was submitted");
}

#[test]
fn a_request_that_is_not_to_begin_yet_says_until_when_it_waits_and_can_be_cancelled() {
    let world = World::simple();
    let args = ["run", "--not-before", "1h", "--plan", "none", PROMPT];
    let running = world.start(&args);
    let id = submitted(&world);
    let why = world.skep(&["why", &id]).expect_code(0).stdout;
    assert!(
        why.contains("queued") && why.contains("it waits until") && why.contains("skep resume"),
        "{why}"
    );
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
