//! `skep shell`: a person's own sealed workspace.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use rustix::process::Signal;
use testkit::{Ran, Started, leaks};

use crate::world::{DEADLINE, World, entries};

fn world() -> World {
    World::simple().env("SKEP", env!("CARGO_BIN_EXE_skep"))
}

/// Runs a script of the host's shell in the repository, in which `$SKEP` is the program.
fn host_sh(world: &World, script: &str) -> Ran {
    let started = world.home.start("sh", ["-c", script], world.repo.path());
    started.finish(DEADLINE)
}

/// The patch that is named on standard error.
fn patch(ran: &Ran) -> PathBuf {
    let (_, rest) = ran.stderr.split_once("what was changed is in ").unwrap();
    rest.split_once(": ").unwrap().0.into()
}

#[test]
fn a_person_works_in_a_sealed_copy_and_what_changed_can_be_applied() {
    let world = world();
    let secret = world.home.root().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let was = world.repo.snapshot();
    let script = format!(
        "cat answer.txt; echo 42 > answer.txt; printf '\\0\\1' > bytes; \
         test ! -e {} && test $(wc -l < /proc/net/route) = 1 && exit 7",
        secret.display()
    );
    let ran = world
        .skep(&["shell", "--", "sh", "-c", &script])
        .expect_code(7);
    assert_eq!(ran.stdout, "41\n", "only the command's own output");
    assert!(
        ran.stderr.contains("sealed, without a network"),
        "{}",
        ran.stderr
    );
    was.assert_same(&world.repo.snapshot());
    let patch = patch(&ran);
    assert!(patch.starts_with(world.data().join("patches")));
    world.repo.git(&["apply", patch.to_str().unwrap()]);
    assert_eq!(
        fs::read(world.repo.path().join("answer.txt")).unwrap(),
        b"42\n"
    );
    assert_eq!(
        fs::read(world.repo.path().join("bytes")).unwrap(),
        b"\0\x01"
    );
    world.assert_nothing_left();
}

#[test]
fn a_patch_goes_where_it_is_wanted_and_nowhere_else() {
    let world = world();
    let ran = world.skep(&[
        "shell",
        "--patch",
        "mine.patch",
        "--",
        "sh",
        "-c",
        "echo 42 > answer.txt",
    ]);
    ran.expect_code(0);
    let text = fs::read_to_string(world.repo.path().join("mine.patch")).unwrap();
    assert!(text.contains("+42"), "{text}");
    assert!(!world.data().join("patches").exists());
    world.assert_nothing_left();
}

#[test]
fn a_script_can_be_piped_into_a_shell_and_its_output_out_of_it() {
    let world = world();
    let ran = host_sh(
        &world,
        "printf 'cat answer.txt\\ntest -t 0 || echo no terminal\\nexit 3\\n' | \"$SKEP\" shell | tr a-z A-Z; \
         printf 'exit 3' | \"$SKEP\" shell",
    )
    .expect_code(3);
    assert_eq!(ran.stdout, "41\nNO TERMINAL\n");
    assert!(ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
    world.assert_nothing_left();
}

#[test]
fn an_earlier_commit_and_what_cannot_be_one() {
    let world = world();
    world
        .repo
        .file("answer.txt", "40\n")
        .commit("Another answer");
    let ran = world.skep(&["shell", "--ref", "HEAD~1", "--", "cat", "answer.txt"]);
    assert_eq!(ran.expect_code(0).stdout, "41\n");
    let ran = world
        .skep(&["shell", "--ref", "no-such", "--", "true"])
        .expect_code(5);
    assert!(ran.stderr.contains("no-such"), "{}", ran.stderr);
    let ran = world
        .skep(&["shell", "--", "no-such-program"])
        .expect_code(127);
    assert!(ran.stderr.contains("no-such-program"), "{}", ran.stderr);
    world.assert_nothing_left();
}

#[test]
fn a_shell_has_a_terminal_ctrl_c_goes_into_it_and_the_persons_own_is_put_back() {
    let world = world();
    let inside = "stty size; tty; trap \"echo interrupted; exit 9\" INT; echo ready; \
                  while :; do sleep 0.05; done";
    let program = format!("\"$SKEP\" shell -- bash -c '{inside}'");
    let (mut running, mut keys) = at_a_terminal(&world, &program);
    assert_eq!(running.line(DEADLINE, |it| it.contains("31 97")), "31 97");
    running.line(DEADLINE, |it| it.starts_with("/dev/pts/"));
    running.line(DEADLINE, |it| it == "ready");
    keys.write_all(b"\x03").unwrap();
    running.line(DEADLINE, |it| it.contains("interrupted"));
    let ran = running.finish(DEADLINE).expect_code(9);
    assert_the_terminal_is_as_it_was(&ran);
    world.assert_nothing_left();
}

#[test]
fn a_shell_in_a_sandbox_has_a_terminal_and_the_sandbox_goes_on_without_it() {
    let world = world();
    let create = ["sandbox", "create", "--for", "10m", "--name", "try"];
    world.skep(&create).expect_code(0);
    let (mut running, mut keys) = at_a_terminal(&world, "\"$SKEP\" sandbox shell try");
    // What is typed is shown, too: what is waited for is not in it.
    keys.write_all(
        b"stty size; tty; echo 42 > answer.txt; sleep 1000 & sh -c 'echo re\"\"ady; sleep 1000'\n",
    )
    .unwrap();
    running.line(DEADLINE, |it| it.contains("31 97"));
    running.line(DEADLINE, |it| it.contains("/dev/pts/"));
    running.line(DEADLINE, |it| it.ends_with("ready"));
    keys.write_all(b"\x03echo code $?; exit 9\n").unwrap();
    running.line(DEADLINE, |it| it.ends_with("code 130"));
    let ran = running.finish(DEADLINE).expect_code(9);
    assert_the_terminal_is_as_it_was(&ran);

    let state = world.skep(&["sandbox", "inspect", "--json", "try"]);
    let state = state.expect_code(0).json_lines().remove(0)["state"].clone();
    assert_eq!(
        (&state["alive"], &state["commands"]),
        (&true.into(), &0.into())
    );
    // Where it is piped it is as any command.
    let script = "printf 'cat answer.txt; test -t 0 || exit 3' | \"$SKEP\" sandbox shell";
    let ran = host_sh(&world, &format!("{script} try")).expect_code(3);
    assert_eq!((&*ran.stdout, &*ran.stderr), ("42\n", ""));
    let ran = host_sh(&world, &format!("{script} --json try")).expect_code(3);
    let told = ran.json_lines().remove(0);
    assert_eq!(
        (&told["stdout"], &told["exit"]["code"]),
        (&"42\n".into(), &3.into())
    );
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

/// Starts a program at a terminal of 31 rows and 97 columns, and gives what types there.
fn at_a_terminal(world: &World, program: &str) -> (Started, fs::File) {
    let root = world.home.root();
    let keys = root.join("keys");
    host_sh(world, &format!("mkfifo {}", keys.display())).expect_code(0);
    let outside = format!("stty rows 31 cols 97; {program}; code=$?; stty -a; exit $code");
    fs::write(root.join("outside"), outside).unwrap();
    let command = format!(
        "exec script -qec 'sh {}/outside' /dev/null < {}",
        root.display(),
        keys.display()
    );
    let running = world.home.start("sh", ["-c", &command], world.repo.path());
    let typed = fs::File::options().write(true).open(&keys).unwrap();
    // It is open at both ends.
    fs::remove_file(keys).unwrap();
    (running, typed)
}

#[track_caller]
fn assert_the_terminal_is_as_it_was(ran: &Ran) {
    let modes: Vec<&str> = ran.stdout.split_whitespace().collect();
    for mode in ["icanon", "isig", "echo", "opost"] {
        assert!(modes.contains(&mode), "{mode}: {}", ran.stdout);
    }
}

#[test]
fn however_a_shell_ends_nothing_of_it_is_left() {
    let world = world();
    let script =
        "echo 42 > answer.txt; trap '' TERM HUP; echo ready; (setsid sleep 1000 &); sleep 1000";
    let begin = || {
        let mut running = world.start(&["shell", "--", "sh", "-c", script]);
        running.line(DEADLINE, |it| it == "ready");
        running
    };
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let running = begin();
        running.signal(signal);
        let ran = running.finish(DEADLINE).expect_code(code);
        assert!(patch(&ran).exists(), "what was changed is not lost");
        world.assert_nothing_left();
    }
    let mut killed = begin();
    killed.kill();
    leaks::assert_none(&world.data());
    let left = entries(&world.data().join("workspaces"));
    assert_eq!(left.iter().filter(|it| it.starts_with("x-")).count(), 1);
    world.skep(&["shell", "--", "true"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_patch_of_more_than_memory_should_hold_is_kept_whole() {
    let world = World::simple();
    // More than 64 MiB of text.
    let script = "yes abcdefghijklmnopqrstuvwxyz | head -c 70000000 > big.txt";
    let ran = world
        .skep(&["shell", "--", "sh", "-c", script])
        .expect_code(0);
    let patch = patch(&ran);
    assert!(fs::metadata(&patch).unwrap().len() > 70_000_000);
    world.repo.git(&["apply", patch.to_str().unwrap()]);
    let made = fs::metadata(world.repo.path().join("big.txt")).unwrap();
    assert_eq!(made.len(), 70_000_000);
    world.assert_nothing_left();
}
