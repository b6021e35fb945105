//! Several sandboxes in one command line.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::dice::{Dice, wanted};
use crate::lifecycle::{create, destroy_all, json, listed, world};
use crate::world::DEADLINE;

// docs/bad-input.md: Several sandboxes to start, stop or destroy, and one where it fails
#[test]
fn of_several_sandboxes_what_was_done_is_told_also_where_another_fails() {
    let world = world();
    let ids = ["one", "two", "three"].map(|name| create(&world, &["--name", name]));
    let workspaces = world.data().join("workspaces");
    world
        .skep(&["sandbox", "stop", "one", "two", "three"])
        .expect_code(0);
    // What the second one lies over is not what it was.
    let record = workspaces.join(&ids[1]).join("record");
    let whole = fs::read(&record).unwrap();
    fs::write(&record, "damaged").unwrap();
    let start = ["sandbox", "start", "--json", "one", "two", "three"];
    let ran = world.skep(&start).expect_code(1);
    let told = ran.json_lines().remove(0);
    let started = told["started"].as_array().unwrap();
    let started: Vec<&Value> = started.iter().map(|it| &it["name"]).collect();
    assert_eq!(started, ["one", "three"]);
    let outcomes = told["outcomes"].as_array().unwrap();
    assert_eq!(
        (&outcomes[1]["id"], &outcomes[1]["error"]["exit"]),
        (&Value::from(&*ids[1]), &"failed".into())
    );
    assert_eq!(
        (&outcomes[2]["name"], &outcomes[2]["error"]),
        (&"three".into(), &Value::Null)
    );
    assert!(ran.stderr.starts_with("{\"error\""), "{}", ran.stderr);
    for (id, status) in ids.iter().zip(["running", "stopped", "running"]) {
        assert_eq!(listed(&world, id).unwrap()["status"], status);
    }
    // In words, too.
    world
        .skep(&["sandbox", "stop", "one", "three"])
        .expect_code(0);
    let ran = world
        .skep(&["sandbox", "start", "one", "two", "three"])
        .expect_code(1);
    assert_eq!(ran.stdout, format!("{}\n{}\n", ids[0], ids[2]));
    assert!(ran.stderr.contains("error:"), "{}", ran.stderr);
    // Where one is not there, nothing is done to the others.
    world
        .skep(&["sandbox", "stop", "one", "four"])
        .expect_code(5);
    assert_eq!(listed(&world, &ids[0]).unwrap()["status"], "running");
    fs::write(&record, whole).unwrap();
    destroy_all(&world);
}

// docs/bad-input.md: Several sandboxes to start, stop or destroy, and one where it fails
#[test]
fn whoever_is_told_to_end_among_several_sandboxes_says_what_was_done() {
    let mut dice = Dice(wanted("SKEP_SEED").unwrap_or(11));
    let world = world();
    let names = ["one", "two", "three", "four"];
    for name in names {
        create(&world, &["--name", name]);
    }
    let all = |verb| [&["sandbox", verb, "--json"][..], &names].concat();
    let standing = |status: &str| -> Vec<String> {
        let list = json(&world, &["list"]);
        let list = list["sandboxes"].as_array().unwrap();
        let such = list.iter().filter(|it| it["status"] == status);
        such.map(|it| it["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let verbs = [
        ("stop", "stopped", "stopped"),
        ("start", "started", "running"),
        ("destroy", "destroyed", "running"),
    ];
    for (verb, done, status) in verbs {
        let rounds = if verb == "destroy" { 1 } else { 3 };
        for signal in [Signal::INT, Signal::TERM].into_iter().cycle().take(rounds) {
            // All of them stand as they shall before.
            let before = match verb {
                "start" => "stop",
                _ => "start",
            };
            for name in names {
                world.skep(&["sandbox", before, name]);
            }
            let mut running = world.start(&all(verb));
            if !running.ends_within(Duration::from_millis(30 + dice.below(400))) {
                running.signal(signal);
            }
            let ran = running.finish(DEADLINE);
            // It was told before it had begun.
            let (Some(code), [told]) = (ran.code(), &*ran.json_lines()) else {
                continue;
            };
            let ids = told[done].as_array().unwrap();
            let id = |it: &Value| it["id"].as_str().unwrap_or_default().to_owned();
            let ids: Vec<String> = match verb {
                "start" => ids.iter().map(id).collect(),
                _ => ids
                    .iter()
                    .map(|it| it.as_str().unwrap().to_owned())
                    .collect(),
            };
            let now = standing(status);
            for id in &ids {
                assert_eq!(now.contains(id), verb != "destroy", "{verb}: {told}");
            }
            let ended = if signal == Signal::INT { 130 } else { 143 };
            let expected = if ids.len() == names.len() { 0 } else { ended };
            assert_eq!(code, expected, "{verb}: {told}");
        }
    }
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    destroy_all(&world);
}
