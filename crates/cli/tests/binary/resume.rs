//! A process that is killed costs nothing but the step that it was at: the next one goes on.

use std::cell::Cell;

use ledger::{Ledger, Options};
use testkit::models::{Dialect, Hold, Job, Script, Step};
use testkit::{Ran, Repo, Started};

use crate::world::{DEADLINE, PROMPT, World, entries, wrong_answer};

fn world(script: Script) -> World {
    World::new(Dialect::Chat, wrong_answer(), script)
}

fn start(world: &World) -> Started {
    world.start(&["run", "--json", "--plan", "none", PROMPT])
}

/// The request goes on to its end.
fn go_on(world: &World) -> Ran {
    let ran = world.skep(&["retry", "--json"]).expect_code(0);
    assert_whole(world);
    ran
}

/// Nothing is left behind, and the ledger holds what it must.
pub fn assert_whole(world: &World) {
    world.assert_nothing_left();
    let data = world.data();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let violations = runtime.block_on(async {
        let ledger = Ledger::open(Options::new(&data)).await.unwrap();
        let violations = ledger.check().await.unwrap();
        ledger.close().await;
        violations
    });
    assert!(violations.is_empty(), "{violations:#?}");
}

/// How many attempts began.
fn attempts(ran: &Ran) -> usize {
    let events = ran.json_lines();
    let began = events.iter().filter(|it| it["type"] == "attempt_started");
    began.count()
}

/// The calls that the model was made, by how many answers each conversation held already.
fn calls(world: &World) -> Vec<usize> {
    let requests = world.model.conversations();
    let answers = requests.iter().map(|request| {
        let json = request.json();
        let messages = json["messages"].as_array().unwrap().clone();
        messages
            .iter()
            .filter(|message| message["role"] == "assistant")
            .count()
    });
    answers.collect()
}

fn steps() -> Job {
    Job::on(PROMPT).with_tools()
}

#[test]
fn killed_during_the_models_answer_only_that_call_is_made_again() {
    let hold = Hold::new();
    let script = Script::new().job(
        steps()
            .step(Step::shell("echo one >> log.txt"))
            .step(Step::shell("echo 42 > answer.txt").held_by(&hold))
            .step(Step::say("The answer is 42.")),
    );
    let world = world(script);
    let mut running = start(&world);
    world.model.wait_for_count(DEADLINE, 2);
    running.kill();
    hold.release();
    let ran = go_on(&world);
    assert_eq!(attempts(&ran), 1);
    assert_eq!(calls(&world), [0, 1, 1, 2]);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_eq!(world.integrated("log.txt"), "one\n");
}

#[test]
fn killed_during_a_tool_no_tool_runs_twice_and_the_model_is_told() {
    let script = Script::new().job(
        steps()
            .step(Step::shell("echo one >> log.txt").and_call(
                "shell",
                serde_json::json!({ "command": "echo two >> log.txt; sleep 1000" }),
            ))
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    );
    let world = world(script);
    let mut running = start(&world);
    running.line(DEADLINE, |it| {
        it.contains("\"tool_call\"") && it.contains("two >> log.txt")
    });
    running.kill();
    let ran = go_on(&world);
    assert_eq!(attempts(&ran), 1);
    assert_eq!(calls(&world), [0, 1, 2], "no call is paid twice");
    let log = world.integrated("log.txt");
    assert!(["one\n", "one\ntwo\n"].contains(&&*log), "{log:?}");
    let told = world.model.conversations();
    assert!(told.last().unwrap().text().contains("is unknown"));
    // What was recorded before is not recorded again.
    let calls = ran.json_lines();
    let calls = calls
        .iter()
        .filter(|it| it["payload"]["event"]["kind"] == "tool_call");
    assert_eq!(calls.count(), 3);
}

/// A run that was killed while its check was under way.
fn killed_in_the_gate() -> World {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n");
    repo.file(
        "skep.toml",
        "[[check]]\nname = \"answer\"\ncommand = \"sleep 2; grep -qx 42 answer.txt\"\n",
    );
    repo.commit("A check that takes its time");
    let script = Script::new().job(
        steps()
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Chat, repo, script);
    let mut running = start(&world);
    running.line(DEADLINE, |it| {
        it.contains("attempt_changed") && it.contains("\"to\":\"checking\"")
    });
    running.kill();
    world
}

#[test]
fn killed_in_the_gate_the_agents_finished_turn_is_not_run_again() {
    let world = killed_in_the_gate();
    let ran = go_on(&world);
    assert_eq!(attempts(&ran), 1);
    assert_eq!(calls(&world), [0, 1]);
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

#[test]
fn killed_in_the_second_round_the_agent_goes_on_in_it() {
    let hold = Hold::new();
    let script = Script::new().job(
        steps()
            .step(Step::shell("echo one >> log.txt"))
            .step(Step::say("The answer is 42."))
            .step(Step::shell("echo two >> log.txt; echo 42 > answer.txt"))
            .step(Step::say("Now it is.").held_by(&hold)),
    );
    let world = world(script);
    let mut running = start(&world);
    world.model.wait_for_count(DEADLINE, 4);
    running.kill();
    hold.release();
    let ran = go_on(&world);
    assert_eq!(attempts(&ran), 1);
    assert_eq!(calls(&world), [0, 1, 2, 3, 3]);
    assert_eq!(world.integrated("log.txt"), "one\ntwo\n");
    // What the turn before had left is known.
    for (round, added) in [("1", "+one"), ("2", "+two")] {
        let diff = world.skep(&["diff", "--round", round]).expect_code(0);
        let lines = diff.stdout.lines();
        let log: Vec<_> = lines.filter(|it| ["+one", "+two"].contains(it)).collect();
        assert_eq!(log, [added], "{}", diff.stdout);
    }
    let ran = ran.json_lines();
    let turns = ran
        .iter()
        .filter(|it| it["payload"]["event"]["kind"] == "turn");
    assert_eq!(turns.count(), 2);
}

#[test]
fn killed_while_its_change_is_merged_it_lands_once() {
    let world = World::simple();
    let mut running = start(&world);
    running.line(DEADLINE, |it| {
        it.contains("change_changed") && it.contains("\"to\":\"merging\"")
    });
    running.kill();
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    if listed[0]["requests"][0]["state"] != "done" {
        go_on(&world);
    }
    assert_whole(&world);
    assert_eq!(calls(&world), [0, 1]);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    let log = world
        .repo
        .git(&["rev-list", "--count", "HEAD..skep/integration"]);
    assert_eq!(log.trim(), "1");
}

#[test]
fn killed_after_every_step_it_still_does_each_once() {
    const STEPS: usize = 6;
    let mut job = steps();
    for step in 0..STEPS {
        job = job.step(Step::shell(format!("echo {step} >> log.txt")));
    }
    let job = job
        .step(Step::shell("echo 42 > answer.txt"))
        .step(Step::say("The answer is 42."));
    let world = world(Script::new().job(job));
    let mut running = start(&world);
    for killed in 1..=STEPS {
        // Each run tells all that happened before, too.
        let seen = Cell::new(0);
        running.line(DEADLINE, |it| {
            seen.set(seen.get() + usize::from(it.contains("\"tool_result\"")));
            seen.get() == killed
        });
        running.kill();
        running = world.start(&["retry", "--json"]);
    }
    let ran = running.finish(DEADLINE).expect_code(0);
    assert_whole(&world);
    assert_eq!(attempts(&ran), 1);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    let log = world.integrated("log.txt");
    let lines: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(lines.is_sorted_by(|a, b| a < b), "{lines:?}");
    // A call whose answer was on its way when the process was killed was made twice.
    let calls = calls(&world);
    assert!(calls.len() <= STEPS + 2 + STEPS, "{calls:?}");
    assert!(calls.is_sorted(), "{calls:?}");
}

#[test]
fn a_request_that_is_cancelled_after_its_process_was_killed_leaves_nothing() {
    let hold = Hold::new();
    let script = Script::new().job(
        steps()
            .step(Step::shell("echo one >> log.txt"))
            .step(Step::say("The answer is 42.").held_by(&hold)),
    );
    let world = world(script);
    let mut running = start(&world);
    world.model.wait_for_count(DEADLINE, 2);
    running.kill();
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let id = listed[0]["requests"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        kept(&world),
        1,
        "its workspace is kept so that it can go on"
    );
    world.skep(&["cancel", &id]).expect_code(0);
    assert_eq!(kept(&world), 0);
    assert_whole(&world);
}

/// How many workspaces there are, with those that are being deleted.
fn kept(world: &World) -> usize {
    let places = ["workspaces", "trash"].map(|place| entries(&world.data().join(place)));
    let names = places.iter().flatten();
    names.filter(|name| !name.starts_with('.')).count()
}

#[test]
fn cancelling_one_request_leaves_the_workspace_of_another_that_works_or_was_interrupted() {
    let hold = Hold::new();
    let step = || Step::shell("echo 42 > answer.txt");
    let held = |prompt: &str| {
        let job = Job::on(prompt).with_tools().step(step());
        job.step(Step::say("The answer is 42.").held_by(&hold))
    };
    let script = Script::new()
        .job(held("Mend the first"))
        .job(held("Mend the second"))
        .job(held("Mend the third"));
    let world = world(script);
    let begin = |prompt: &str| world.start(&["run", "--json", "--plan", "none", prompt]);
    let mut first = begin("Mend the first");
    world.model.wait_for_count(DEADLINE, 2);
    first.kill();
    let mut second = begin("Mend the second");
    world.model.wait_for_count(DEADLINE, 4);
    second.kill();
    let third = begin("Mend the third");
    world.model.wait_for_count(DEADLINE, 6);
    assert_eq!(kept(&world), 3);
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    // The newest first.
    let id = listed[0]["requests"][2]["id"].as_str().unwrap();
    world.skep(&["cancel", id]).expect_code(0);
    assert_eq!(kept(&world), 2);
    hold.release();
    third.finish(DEADLINE).expect_code(0);
    world.skep(&["resume"]).expect_code(0);
    assert_whole(&world);
}

#[test]
fn an_agent_without_a_memory_begins_anew() {
    let world = world(Script::new());
    let agent = "command:sh -c 'echo x >> log.txt; test -e done || { touch done; sleep 1000; }; \
                 echo 42 > answer.txt'";
    let mut running = world.start(&["run", "--json", "--plan", "none", "--agent", agent, PROMPT]);
    running.line(DEADLINE, |it| it.contains("\"kind\":\"turn\""));
    running.kill();
    // It sleeps again, in a workspace of its own.
    let mut again = world.start(&["retry", "--json"]);
    let seen = Cell::new(0);
    again.line(DEADLINE, |it| {
        seen.set(seen.get() + usize::from(it.contains("\"kind\":\"turn\"")));
        seen.get() == 2
    });
    again.signal(rustix::process::Signal::INT);
    let ran = again.finish(DEADLINE).expect_code(130);
    assert_eq!(attempts(&ran), 2);
    let events = ran.json_lines();
    let lost = events
        .iter()
        .find(|it| it["type"] == "attempt_changed" && it["payload"]["to"] == "lost");
    let why = lost.unwrap()["payload"]["failure"]["detail"].as_str();
    assert!(why.unwrap().contains("cannot go on"), "{why:?}");
    assert_whole(&world);
}

/// Lets the kept workspace look as if the machine had been restarted since.
fn restart(world: &World) {
    let kept = world.data().join("workspaces");
    for name in entries(&kept) {
        let record = kept.join(name).join("record");
        if let Ok(text) = std::fs::read_to_string(&record) {
            let (head, _) = text.split_once("boot ").unwrap();
            std::fs::write(&record, format!("{head}boot another\n")).unwrap();
        }
    }
}

#[test]
fn a_workspace_from_before_a_restart_of_the_machine_is_not_trusted() {
    let hold = Hold::new();
    let script = Script::new().job(
        steps()
            .step(Step::shell("echo one >> log.txt; echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.").held_by(&hold)),
    );
    let world = world(script);
    let mut running = start(&world);
    world.model.wait_for_count(DEADLINE, 2);
    running.kill();
    testkit::leaks::assert_none(&world.data());
    restart(&world);
    hold.release();
    let ran = go_on(&world);
    assert_eq!(attempts(&ran), 2);
    let events = ran.json_lines();
    let lost = events
        .iter()
        .find(|it| it["type"] == "attempt_changed" && it["payload"]["to"] == "lost")
        .unwrap();
    let why = lost["payload"]["failure"]["detail"].as_str().unwrap();
    assert!(why.contains("restarted"), "{why}");
    assert_eq!(world.integrated("log.txt"), "one\n");
}

#[test]
fn a_finished_turn_outlives_a_restart_of_the_machine() {
    let world = killed_in_the_gate();
    testkit::leaks::assert_none(&world.data());
    restart(&world);
    let ran = go_on(&world);
    assert_eq!(attempts(&ran), 1);
    assert_eq!(calls(&world), [0, 1]);
}

#[test]
fn killed_before_its_work_was_published_resume_publishes_it_and_leaves_nothing() {
    let world = World::simple();
    let point = "request integrating done after 1";
    let args = ["run", "--json", "--plan", "none", PROMPT];
    let ran = world.start_with(&args, "SKEP_KILL_AT", point);
    ran.finish(DEADLINE);
    assert_eq!(world.repo.tip("skep/integration"), None);
    let resumed = world.skep(&["resume"]).expect_code(0);
    assert!(
        resumed.stderr.contains("nothing to go on with"),
        "{resumed:?}"
    );
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_whole(&world);
}
