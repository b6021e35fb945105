//! `skep demo`: everything at work, without a key, a daemon, root or another install.

use std::path::Path;

use testkit::{Home, leaks};

use crate::world::{DEADLINE, entries, outside};

/// The command that runs the repository's tests, as the demo itself prints it.
fn tests_of(said: &str) -> Vec<String> {
    let command = said
        .lines()
        .rev()
        .find_map(|it| {
            let (command, rest) = it.strip_prefix('`')?.split_once('`')?;
            rest.contains("fails at the first commit")
                .then_some(command)
        })
        .unwrap_or_else(|| panic!("the command of the tests is printed:\n{said}"));
    command.split(' ').map(str::to_owned).collect()
}

/// A home whose `PATH` has what every machine has, and these programs.
fn home_with(programs: &[&str]) -> Home {
    let home = Home::new();
    let bin = home.root().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let usual = [
        "git", "sh", "awk", "cat", "grep", "ls", "mkdir", "rm", "sed", "timeout",
    ];
    for name in usual.iter().chain(programs) {
        let found = std::env::split_paths(&path)
            .map(|it| it.join(name))
            .find(|it| it.is_file())
            .unwrap_or_else(|| panic!("{name} is needed for this test: install it"));
        std::os::unix::fs::symlink(found, bin.join(name)).unwrap();
    }
    home.env("PATH", bin)
}

#[test]
fn the_demo_keeps_a_repository_whose_tests_fail_first_and_pass_on_the_integration_branch() {
    is_whole(&Home::new(), "python3 -B -m unittest");
}

#[test]
fn without_python_the_demo_is_all_there_on_node() {
    is_whole(&home_with(&["node"]), "node --test");
}

#[test]
fn without_python_and_node_the_demo_is_all_there_on_the_shell() {
    is_whole(&home_with(&[]), "sh tests/all.sh");
}

/// The whole demo, on a repository whose tests are run by this command.
fn is_whole(home: &Home, tests: &str) {
    let dir = home.root().join("kept");
    let skep = env!("CARGO_BIN_EXE_skep");
    let args = ["demo", "--dir", dir.to_str().unwrap()];
    let ran = home.run(skep, args, &home.home(), DEADLINE).expect_code(0);
    let said = ran.stdout.as_str();
    let command = tests_of(said);
    assert_eq!(command.join(" "), tests);
    let argv: Vec<&str> = command.iter().map(String::as_str).collect();

    let (passes, told) = outside(&dir, &argv);
    assert!(!passes, "the tests fail at the first commit: {told}");
    let git = |args: &[&str]| {
        let mut argv = vec!["git", "-C", dir.to_str().unwrap()];
        argv.extend(args);
        let (ok, said) = outside(Path::new("/"), &argv);
        assert!(ok, "{said}");
        said.trim().to_owned()
    };
    assert_eq!(git(&["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(git(&["status", "--porcelain"]), "");
    git(&["checkout", "--quiet", "skep/integration"]);
    let (passes, told) = outside(&dir, &argv);
    assert!(passes, "the tests pass on skep/integration: {told}");
    git(&["checkout", "--quiet", "main"]);

    // Four jobs, one of them in two rounds, all integrated, at no cost.
    for job in ["durations", "money", "table", "summary"] {
        let line = said.lines().find(|it| it.trim_start().starts_with(job));
        assert!(
            line.is_some_and(|it| it.contains("integrated")),
            "{job}:\n{said}"
        );
    }
    assert!(
        said.contains("2 rounds") && said.contains("failed, exit 1"),
        "{said}"
    );
    assert!(said.contains("$0.00"), "{said}");
    let probes: Vec<&str> = said.lines().filter(|it| it.contains("refused: ")).collect();
    assert_eq!(probes.len(), 3, "{said}");
    assert!(
        probes.iter().all(|it| it.contains("done ")),
        "the same succeeds outside: {probes:?}"
    );
    assert!(ran.stderr.contains("no real model"), "{}", ran.stderr);
    let next = said.split("try next").nth(1).unwrap();
    assert_eq!(next.trim().lines().count(), 3, "{next}");

    // What it names next works.
    let id = next
        .split_whitespace()
        .find(|it| it.starts_with("r-"))
        .unwrap();
    let shown = home
        .run(skep, ["show", id], &home.home(), DEADLINE)
        .expect_code(0);
    assert!(shown.stdout.contains("durations"), "{}", shown.stdout);
    let dir_arg = dir.to_str().unwrap();
    home.run(skep, ["-C", dir_arg, "apply"], &home.home(), DEADLINE)
        .expect_code(0);
    let (passes, told) = outside(&dir, &argv);
    assert!(passes, "the tests pass on main: {told}");

    assert!(!ran.left_open);
    leaks::assert_none(home.root());
    assert_eq!(entries(&home.root().join("tmp")), Vec::<String>::new());
}

#[test]
fn the_demo_leaves_nothing_behind_and_needs_no_terminal_and_no_configuration() {
    let home = Home::new();
    let skep = env!("CARGO_BIN_EXE_skep");
    let ran = home
        .run(skep, ["demo", "--json"], &home.home(), DEADLINE)
        .expect_code(0);
    let events = ran.json_lines();
    assert!(
        events
            .iter()
            .any(|it| it["type"] == "request_changed" && it["payload"]["to"] == "done")
    );
    assert_eq!(events.last().unwrap()["type"], "published");
    assert!(!ran.left_open);
    leaks::assert_none(home.root());
    for place in ["tmp", "home", "config", "data", "state"] {
        let left = entries(&home.root().join(place));
        assert!(left.is_empty(), "left in {place}: {left:?}");
    }
}

#[test]
fn the_demo_does_not_write_into_a_directory_that_is_in_use() {
    let home = Home::new();
    let file = home.file("home/kept/mine.txt", "mine\n");
    let skep = env!("CARGO_BIN_EXE_skep");
    let ran = home
        .run(skep, ["demo", "--dir", "kept"], &home.home(), DEADLINE)
        .expect_code(6);
    assert!(ran.stderr.contains("not empty"), "{}", ran.stderr);
    assert_eq!(entries(file.parent().unwrap()), ["mine.txt"]);
}
