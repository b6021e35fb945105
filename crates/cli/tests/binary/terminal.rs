//! What a person sees on a terminal, and what happens when it is closed: `skep run` under
//! `script`, which makes a terminal of its own.

use testkit::models::{Dialect, Hold, Job, Script, Step};
use testkit::{Started, leaks};

use crate::world::{DEADLINE, PROMPT, World, assert_no_cgroup_of, before, wrong_answer};

/// Goes up over what was drawn and clears it: what stands between is the number of rows.
const UP: &str = "\u{1b}[";
const AND_AWAY: &str = "A\r\u{1b}[J";

/// Starts a run on a terminal. Its output is that of the terminal.
fn on_a_terminal(world: &World) -> Started {
    let command = format!("exec \"$SKEP\" run --plan none '{PROMPT}'");
    world
        .home
        .start("script", ["-qec", &command, "/dev/null"], world.repo.path())
}

fn world(script: Script) -> World {
    World::new(Dialect::Chat, wrong_answer(), script)
        .env("SKEP", env!("CARGO_BIN_EXE_skep"))
        .env("TERM", "xterm")
}

/// The lines that a terminal shows in the end, of one that only goes up and clears.
fn shown(output: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in output.split_inclusive('\n') {
        let mut rest = part;
        while let Some((before, after)) = rest.split_once(UP) {
            let Some((rows, left)) = after.split_once(AND_AWAY) else {
                break;
            };
            assert_eq!(before, "", "the cursor is at the beginning of a line");
            let rows: usize = rows.parse().unwrap();
            assert!(rows <= lines.len(), "{rows} rows of {lines:?}");
            lines.truncate(lines.len() - rows);
            rest = left;
        }
        if !rest.is_empty() {
            lines.push(rest.trim_end().to_owned());
        }
    }
    lines
}

#[test]
fn each_job_has_a_line_while_it_runs_and_only_the_result_remains() {
    let hold = Hold::new();
    let world = world(
        Script::new().job(
            Job::on(PROMPT)
                .with_tools()
                .step(Step::shell("echo 42 > answer.txt"))
                .step(Step::say("The answer is 42.").held_by(&hold)),
        ),
    );
    let mut running = on_a_terminal(&world);
    // What the first call used is there while the second one is waited for.
    let line = running.line(DEADLINE, |it| {
        it.contains("work ") && it.contains("running") && it.contains('$')
    });
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = words.iter().position(|it| *it == "running").unwrap();
    let [elapsed, tokens, money] = [1, 2, 3].map(|it| words[place + it]);
    assert!(elapsed.ends_with('s'), "{line}");
    assert!(tokens.starts_with(|it: char| it.is_ascii_digit()), "{line}");
    assert!(money.starts_with('$'), "{line}");
    let below = running.line(DEADLINE, |it| it.contains("of 1 settled"));
    assert!(below.contains("Ctrl-C cancels"), "{below}");
    hold.release();
    let ran = running.finish(DEADLINE).expect_code(0);
    let remains = shown(&ran.stdout).join("\n");
    assert!(ran.stdout.contains("Ctrl-C cancels"), "it was drawn");
    assert!(!remains.contains("Ctrl-C cancels"), "{remains}");
    assert!(!remains.contains("of 1 settled"), "{remains}");
    assert!(remains.contains("skep/integration"), "{remains}");
    assert!(!remains.contains('\u{1b}'), "{remains:?}");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    world.assert_nothing_left();
}

#[test]
fn closing_the_terminal_cancels_and_leaves_nothing() {
    let world = world(
        Script::new().job(
            Job::on(PROMPT)
                .with_tools()
                .step(Step::shell(
                    "trap '' INT TERM HUP; (trap '' INT TERM HUP; sleep 1000) & sleep 1000",
                ))
                .step(Step::say("The answer is 42.")),
        ),
    );
    let was = before(&world.repo);
    let mut running = on_a_terminal(&world);
    running.line(DEADLINE, |it| it.contains("work ") && it.contains("$ trap"));
    let script = running.pid();
    let skep = leaks::processes_of(world.home.root())
        .into_iter()
        .find(|it| it.command.ends_with(PROMPT) && it.pid != script)
        .unwrap()
        .pid;
    // The terminal is gone with the program that made it.
    running.kill();
    leaks::assert_none(world.home.root());
    world.assert_nothing_left();
    assert_no_cgroup_of(skep);
    was.assert_same(&world.repo.snapshot());
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let requests = listed[0]["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0]["state"], "cancelled");
}
