//! How a run ends when it is told to, and when it is killed.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use testkit::models::{Dialect, Fault, Job, Script, Step};
use testkit::{Repo, Started, leaks};

use crate::world::{
    self, DEADLINE, PROMPT, World, assert_no_cgroup_of, before, mending, wrong_answer,
};

/// A model whose agent starts a command that does not end by itself, and ignores what it can.
fn busy() -> Script {
    Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(
                "trap '' INT TERM HUP; (trap '' INT TERM HUP; sleep 1000) & sleep 1000; sleep 1000",
            ))
            .step(Step::say("The answer is 42.")),
    )
}

fn world(script: Script) -> (World, testkit::Snapshot) {
    let world = World::new(Dialect::Chat, wrong_answer(), script);
    let was = before(&world.repo);
    (world, was)
}

/// A run whose agent's command is under way.
fn under_way(world: &World) -> Started {
    let mut running = world.start(&["run", "--json", "--plan", "none", PROMPT]);
    running.line(DEADLINE, |it| it.contains("tool_call"));
    running
}

/// A signal cancels: the code, and nothing that is left.
fn cancels(signal: Signal, code: i32) {
    let (world, was) = world(busy());
    let running = under_way(&world);
    let pid = running.pid();
    running.signal(signal);
    let ran = running.finish(DEADLINE).expect_code(code);
    assert!(!ran.left_open, "no process holds the output");
    assert!(
        ran.json_lines()
            .iter()
            .any(|it| it["type"] == "request_changed" && it["payload"]["to"] == "cancelled"),
        "{}",
        ran.stdout
    );
    world.assert_nothing_left();
    assert_no_cgroup_of(pid);
    was.assert_same(&world.repo.snapshot());
    // And the user goes on.
    world.model.set_script(mending());
    world.run();
}

// docs/bad-input.md: An agent that ignores `SIGTERM`
#[test]
fn ctrl_c_cancels_cleans_up_and_ends_with_130() {
    cancels(Signal::INT, 130);
}

#[test]
fn a_closed_terminal_cancels_cleans_up_and_ends_with_129() {
    cancels(Signal::HUP, 129);
}

#[test]
fn a_request_to_terminate_cancels_cleans_up_and_ends_with_143() {
    cancels(Signal::TERM, 143);
}

#[test]
fn ctrl_c_while_the_model_thinks_cancels_too() {
    let script = Script::new().otherwise(Step::fault(Fault::Never));
    let (world, was) = world(script);
    let running = world.start(&["run", "--plan", "none", PROMPT]);
    world.model.wait_for_count(DEADLINE, 1);
    // As a terminal does: the whole group hears it.
    running.signal_group(Signal::INT);
    let ran = running.finish(DEADLINE).expect_code(130);
    assert!(ran.stderr.contains("cancel"), "{}", ran.stderr);
    world.assert_nothing_left();
    was.assert_same(&world.repo.snapshot());
}

#[test]
fn a_second_ctrl_c_quits_at_once() {
    let (world, was) = world(busy());
    let mut running = under_way(&world);
    let pid = running.pid();
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    // Two that come together count as one: the second one that is seen ends it.
    if !running.ends_within(Duration::from_millis(500)) {
        running.signal(Signal::INT);
    }
    let ran = running.finish(DEADLINE);
    assert_eq!(ran.code(), Some(130), "{}", ran.stderr);
    leaks::assert_none(&world.data());
    was.assert_same(&world.repo.snapshot());
    // What it could not clean up, the next run does.
    world.model.set_script(mending());
    // Quit before it was known to be cancelled, the request can be gone on with, and keeps its files.
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let request = &listed[0]["requests"][0];
    if request["state"] != "cancelled" {
        let id = request["id"].as_str().unwrap();
        world.skep(&["cancel", id]).expect_code(0);
    }
    world.run();
    world.assert_nothing_left();
    assert_no_cgroup_of(pid);
}

#[test]
fn what_is_killed_takes_its_sandboxes_along_and_the_next_run_sweeps() {
    let (world, was) = world(busy());
    let mut running = under_way(&world);
    let pid = running.pid();
    let inside = leaks::processes_of(&world.data());
    assert!(
        inside.iter().any(|it| it.pid != pid),
        "processes are in the sandbox: {inside:?}"
    );
    running.kill();
    leaks::assert_none(&world.data());
    was.assert_same(&world.repo.snapshot());
    world.model.set_script(mending());
    world.run();
    assert_eq!(world.integrated("answer.txt"), "42\n");
    leaks::assert_none(&world.data());
    assert_no_cgroup_of(pid);
    // What was cut off is still known, with its workspace, and can be ended.
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let requests = listed[0]["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 2);
    let cut = requests.iter().find(|it| it["state"] != "done").unwrap();
    let id = cut["id"].as_str().unwrap();
    world.skep(&["cancel", id]).expect_code(0);
    world.model.set_script(mending());
    world.skep(&["drop"]).expect_code(0);
    world.skep(&["retry", id]).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    world.assert_nothing_left();
}

#[test]
fn an_output_that_cannot_be_written_is_an_error_and_not_one_that_nobody_reads() {
    let world = World::simple();
    let skep = env!("CARGO_BIN_EXE_skep");
    for args in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["list"],
        &["completions", "bash"],
        &["log", "--schema"],
        &["shell", "--", "echo", "hello"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let ran = world
            .home
            .command(skep)
            .args(args)
            .current_dir(world.repo.path())
            .stdin(Stdio::null())
            .stdout(full.unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{args:?}: {said}");
        assert!(
            said.contains("the output could not be written") && said.contains("hint:"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn an_output_that_nobody_reads_any_more_cancels_and_ends_with_141() {
    let (world, was) = world(busy());
    let skep = env!("CARGO_BIN_EXE_skep");
    let mut command = world.home.command("sh");
    // The reader goes after one line; the shell tells how the writer ended.
    command
        .arg("-c")
        .arg("{ \"$1\" run --json --plan none \"$2\"; echo \"code $?\" >&2; } | head -n 1")
        .args(["sh", skep, PROMPT])
        .current_dir(world.repo.path())
        .stdout(Stdio::piped());
    let ran = Started::spawn(command).finish(DEADLINE);
    assert!(ran.stderr.contains("code 141"), "{}", ran.stderr);
    world.assert_nothing_left();
    was.assert_same(&world.repo.snapshot());
}

// docs/bad-input.md: Two runs at once
#[test]
fn two_runs_at_once_share_the_data_and_both_land() {
    let repo = Repo::new();
    repo.file("one.txt", "1\n").file("two.txt", "2\n");
    repo.commit("Two files");
    let script = Script::new()
        .job(
            Job::on("Change one")
                .with_tools()
                .step(Step::shell("echo one > one.txt"))
                .step(Step::say("It is changed.")),
        )
        .job(
            Job::on("Change two")
                .with_tools()
                .step(Step::shell("echo two > two.txt"))
                .step(Step::say("It is changed.")),
        );
    let world = World::new(Dialect::Chat, repo, script);
    let runs =
        ["Change one", "Change two"].map(|prompt| world.start(&["run", "--plan", "none", prompt]));
    for run in runs {
        run.finish(DEADLINE).expect_code(0);
    }
    assert_eq!(world.integrated("one.txt"), "one\n");
    assert_eq!(world.integrated("two.txt"), "two\n");
    world.assert_nothing_left();
    assert_eq!(world::entries(&world.data().join("workspaces")).len(), {
        world::entries(&world.data().join("workspaces"))
            .iter()
            .filter(|it| it.starts_with('.'))
            .count()
    });
}
