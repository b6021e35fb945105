//! Looking after what Skep does: why something stands still, what died, how it went, limits.

use crate::world::{DEADLINE, PROMPT, Told, World, wrong_answer};
use testkit::Repo;
use testkit::models::{Dialect, Job, Script, Step};

/// A world in which a request has failed, and its id.
fn failed() -> (World, String) {
    failed_in(wrong_answer())
}

fn failed_in(repo: Repo) -> (World, String) {
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo 43 > answer.txt"))
            .step(Step::say("The answer is 43."))
            .step(Step::say("I am sure."))
            .step(Step::say("Really.")),
    );
    let world = World::new(Dialect::Chat, repo, script);
    let told = Told::of(
        world
            .skep(&["run", "--json", "--plan", "none", PROMPT])
            .expect_code(1),
    );
    let request = told.request();
    (world, request)
}

#[test]
fn a_failed_request_says_why_and_its_job_is_a_dead_letter_that_can_be_tried_again() {
    let (world, request) = failed();
    let why = world.skep(&["why", &request]).expect_code(0).stdout;
    assert!(
        why.contains("failed") && why.contains("check") && why.contains("hint:"),
        "{why}"
    );
    let dead = world.skep(&["dead-letters"]).expect_code(0).stdout;
    assert!(
        dead.contains("j-") && dead.contains("skep retry j-"),
        "{dead}"
    );
    let object = world.skep(&["dead-letters", "--json"]).expect_code(0);
    let object: serde_json::Value = serde_json::from_str(&object.stdout).unwrap();
    assert_eq!(object["jobs"][0]["failure"]["reason"], "checks_failed");
    let job = object["jobs"][0]["id"].as_str().unwrap().to_owned();
    let letters = object["letters"].as_array().unwrap();
    let mut again: Vec<_> = letters
        .iter()
        .map(|it| it["again"].as_str().unwrap())
        .collect();
    again.sort_unstable();
    assert_eq!(
        again,
        [format!("skep retry {job}"), format!("skep retry {request}")]
    );
    let why = world.skep(&["why", &job, "--json"]).expect_code(0);
    let why: serde_json::Value = serde_json::from_str(&why.stdout).unwrap();
    assert_eq!(why["state"], "dead");
    let stats = world.skep(&["stats", "--json"]).expect_code(0);
    let stats: serde_json::Value = serde_json::from_str(&stats.stdout).unwrap();
    assert_eq!(
        (&stats["dead"], &stats["success_rate"]),
        (&1.into(), &0.0.into())
    );
    assert_eq!(stats["run"]["count"], 1);
    let refused = world.skep(&["top-up", &request, "1k"]).expect_code(6);
    assert!(refused.stderr.contains("skep retry"), "{}", refused.stderr);
    let nothing = world.skep(&["resume"]).expect_code(0);
    assert!(
        nothing.stderr.contains("nothing was interrupted"),
        "{}",
        nothing.stderr
    );
}

#[test]
fn a_check_to_which_a_sandbox_refused_a_call_says_which_and_what_to_do() {
    let repo = wrong_answer();
    let check = "unshare --user grep -qx 43 answer.txt";
    let policy = format!("[[check]]\nname = \"answer\"\ncommand = \"{check}\"\n");
    repo.file("skep.toml", &policy);
    repo.commit("A check that makes a namespace");
    let (world, request) = failed_in(repo);
    let shown = world.skep(&["show", &request]).expect_code(0).stdout;
    let named = "the sandbox refused the call `unshare(CLONE_NEWUSER)`";
    assert!(
        shown.contains(named) && shown.contains("--nested"),
        "{shown}"
    );
}

#[test]
fn a_list_or_a_span_of_nothing_is_refused_and_not_answered_with_nothing() {
    let world = World::simple();
    world.run();
    for command in ["list", "sessions", "dead-letters"] {
        for number in ["0", "-1", "many"] {
            let number = format!("--limit={number}");
            let refused = world.skep(&[command, &number]).expect_code(2);
            let said = &refused.stderr;
            assert!(said.contains("a number from 1 on"), "{command}: {said}");
        }
        world.skep(&[command, "-n", "1"]).expect_code(0);
    }
    for span in ["0h", "0ms", "0d0h"] {
        let refused = world.skep(&["stats", "--since", span]).expect_code(2);
        assert!(refused.stderr.contains("`7d`"), "{}", refused.stderr);
    }
    let told = world.skep(&["stats", "--since", "1h"]).expect_code(0);
    assert!(told.stdout.contains("1 delivered"), "{}", told.stdout);
}

#[test]
fn a_relative_data_directory_is_seen_from_where_the_program_is_started() {
    let world = World::simple().env("SKEP_DATA", "here/data");
    let start = world.home.home();
    let repo = world.repo.path().to_str().unwrap().to_owned();
    let run = ["-C", &repo, "run", "--json", "--plan", "none", PROMPT];
    world.skep_in(&start, &run).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert!(start.join("here/data/ledger.db").exists());
    assert!(!world.repo.path().join("here").exists());
    let listed = |dir: &std::path::Path, args: &[&str]| {
        let ran = world.skep_in(dir, args).expect_code(0).json_lines();
        ran[0]["requests"].as_array().unwrap().len()
    };
    assert_eq!(listed(&start, &["-C", &repo, "list", "--json"]), 1);
    assert_eq!(listed(&start, &["list", "--json"]), 1);
    let up = ["--data", "../here/data", "list", "--json"];
    std::fs::create_dir(start.join("below")).unwrap();
    assert_eq!(listed(&start.join("below"), &up), 1);
    world.skep_in(&start, &["ledger", "check"]).expect_code(0);
}

#[test]
fn limits_are_set_shown_and_taken_away() {
    let world = World::new(Dialect::Chat, wrong_answer(), Script::new());
    let none = world.skep(&["limit"]).expect_code(0);
    assert!(none.stdout.contains("no limits"), "{}", none.stdout);
    world
        .skep(&["limit", "--agent", "builtin", "2"])
        .expect_code(0);
    let set = world
        .skep(&["limit", "--repository", ".", "1"])
        .expect_code(0);
    assert!(
        set.stdout.contains("builtin  at most 2") && set.stdout.contains("at most 1"),
        "{}",
        set.stdout
    );
    world
        .skep(&["limit", "--agent", "builtin", "0"])
        .expect_code(2);
    for of in ["--provider", "--agent"] {
        let refused = world.skep(&["limit", of, "", "2"]).expect_code(2);
        assert!(
            refused.stderr.contains("has 1 to 200 bytes")
                && !refused.stderr.contains("an provider"),
            "{}",
            refused.stderr
        );
    }
    let left = world
        .skep(&["limit", "--agent", "builtin", "none"])
        .expect_code(0);
    assert!(!left.stdout.contains("builtin"), "{}", left.stdout);
}

#[test]
fn a_paused_request_stops_its_agent_and_goes_on_with_the_same_attempt() {
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo begun >> steps.txt"))
            .step(Step::shell("sleep 1000"))
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Chat, wrong_answer(), script);
    let mut running = world.start(&["run", "--json", "--plan", "none", PROMPT]);
    running.line(DEADLINE, |line| line.contains("sleep 1000"));
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let id = listed[0]["requests"][0]["id"].as_str().unwrap().to_owned();
    world.skep(&["pause", &id]).expect_code(0);
    running.line(DEADLINE, |line| line.contains("\"to\":\"suspended\""));
    let why = world.skep(&["why", &id]).expect_code(0).stdout;
    assert!(
        why.contains("paused") && why.contains("skep resume"),
        "{why}"
    );
    let again = world.skep(&["pause", &id]).expect_code(6);
    assert!(
        again.stderr.contains("the request is paused already"),
        "{}",
        again.stderr
    );
    world.skep(&["resume", &id]).expect_code(0);
    let ended = running.finish(DEADLINE).expect_code(0);
    assert!(ended.stdout.contains("\"to\":\"done\""), "{}", ended.stdout);
    // What had been done was not done again.
    assert_eq!(world.integrated("steps.txt"), "begun\n");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    let stats = world.skep(&["stats", "--json"]).expect_code(0).json_lines();
    assert_eq!(stats[0]["run"]["count"], 1);
    world.skep(&["ledger", "check"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_session_is_found_by_its_name_and_keeps_its_log_under_another_one() {
    let world = World::simple();
    world.run();
    let listed = world.skep(&["sessions", "--json"]).expect_code(0);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let id = listed["sessions"][0]["id"].as_str().unwrap().to_owned();
    let renamed = world
        .skep(&["sessions", "--rename", &id, "the answer"])
        .expect_code(0);
    assert!(renamed.stdout.contains("the answer"), "{}", renamed.stdout);
    let found = world.skep(&["sessions", "ANSWER"]).expect_code(0);
    assert!(found.stdout.contains(&id), "{}", found.stdout);
    let none = world.skep(&["sessions", "100%"]).expect_code(0);
    assert!(none.stdout.contains("No session has"), "{}", none.stdout);
    let log = world.skep(&["log", &id]).expect_code(0);
    assert!(
        log.stdout.contains("session renamed to the answer"),
        "{}",
        log.stdout
    );
    let refused = world
        .skep(&["sessions", "--rename", &id, ""])
        .expect_code(2);
    assert!(refused.stderr.contains("not a name"), "{}", refused.stderr);
}

#[test]
fn disk_space_that_nothing_needs_is_given_back_beside_a_run_that_goes_on() {
    let world = World::simple();
    world.run();
    let object = |arguments: &[&str]| {
        let told = world.skep(arguments).expect_code(0);
        serde_json::from_str::<serde_json::Value>(&told.stdout).unwrap()
    };
    let said = world.skep(&["gc", "--dry-run"]).expect_code(0).stdout;
    assert!(
        said.contains("base ") && said.contains("mirror ") && said.contains("in all"),
        "{said}"
    );
    let would = object(&["gc", "--all", "--dry-run", "--json"]);
    let bases = would["bases"].as_array().unwrap().len();
    assert!(bases > 0 && would["freed"].as_u64() > Some(0), "{would}");
    assert_eq!(would["before"]["bases"].as_array().unwrap().len(), bases);
    let did = object(&["gc", "--all", "--json"]);
    assert_eq!(did["bases"], would["bases"]);
    let left = object(&["gc", "--all", "--json"]);
    assert_eq!(
        (&left["freed"], &left["before"]["trash"]),
        (&0.into(), &0.into())
    );
    let said = world.skep(&["gc"]).expect_code(0).stdout;
    assert_eq!(said, "There is nothing to give back.\n");
    // What is gone is made again.
    world.run();
}
