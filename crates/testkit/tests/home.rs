//! What a test is promised of homes, the programs that run in them, and what they leave behind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::io::Write;
use std::time::Duration;

use rustix::process::Signal;
use skep_testkit::{Home, Repo, leaks};

const SOON: Duration = Duration::from_secs(20);
const SECRET: &str = "sk-canary-0123456789abcdef";

#[test]
fn a_program_sees_the_homes_environment_and_no_other() {
    let home = Home::new().env("EXTRA", "1");
    let ran = home
        .run("env", [] as [&str; 0], &home.home(), SOON)
        .expect_code(0);
    for line in [format!("HOME={}", home.home().display()), "EXTRA=1".into()] {
        assert!(ran.stdout.lines().any(|it| it == line), "{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("CARGO"), "{}", ran.stdout);
}

#[test]
fn a_home_for_an_ordinary_user_belongs_to_that_user() {
    let home = Home::new().as_user(65534);
    let file = home.file("config/skep/config.toml", "x = 1\n");
    let ran = home.run(
        "sh",
        [
            "-c",
            "id -u; id -G; cat \"$1\"; : > \"$HOME/new\"",
            "sh",
            file.to_str().unwrap(),
        ],
        &home.home(),
        SOON,
    );
    let ran = ran.expect_code(0);
    if rustix::process::geteuid().is_root() {
        assert_eq!(ran.stdout, "65534\n65534\nx = 1\n");
    }
}

#[test]
fn rust_works_in_a_home_and_nothing_of_it_is_seen_from_outside() {
    for home in [Home::new(), Home::new().as_user(65534)] {
        let home = home.with_rust();
        // The program is the process that was started, not a child of it.
        let script = "id -u; echo $$; cargo --version";
        let started = home.start("sh", ["-c", script], &home.home());
        let pid = started.pid();
        let ran = started.finish(SOON).expect_code(0);
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines[1], pid.to_string());
        assert!(lines[2].starts_with("cargo 1."), "{}", ran.stdout);
        leaks::assert_none(home.root());
        for place in [".rustup", ".cargo/bin"] {
            let outside = home.home().join(place);
            assert!(fs::read_dir(outside).map_or(true, |mut it| it.next().is_none()));
        }
    }
}

#[test]
fn a_line_of_output_is_waited_for_and_a_signal_reaches_the_program() {
    let home = Home::new();
    let mut sh = home.start(
        "sh",
        [
            "-c",
            "trap 'echo bye; exit 3' INT; echo one; echo ready; while :; do sleep 1; done",
        ],
        &home.home(),
    );
    assert_eq!(sh.line(SOON, |it| it.starts_with("re")), "ready");
    sh.signal_group(Signal::INT);
    let ran = sh.finish(SOON).expect_code(3);
    assert_eq!(ran.stdout, "one\nready\nbye\n");
}

#[test]
fn a_program_that_does_not_end_is_stopped_at_the_deadline() {
    let home = Home::new();
    let run = std::panic::catch_unwind(|| {
        home.run("sleep", ["1000"], &home.home(), Duration::from_millis(50))
    });
    let message = *run.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("it still runs after 50ms"), "{message}");
    leaks::assert_none(home.root());
}

#[test]
fn a_process_left_behind_is_found_by_its_directory() {
    let home = Home::new();
    let ran = home
        .run(
            "sh",
            ["-c", "cd /; sleep 1000 >/dev/null 2>&1 & echo $!"],
            &home.home(),
            SOON,
        )
        .expect_code(0);
    assert!(!ran.left_open);
    let pid: i32 = ran.stdout.trim().parse().unwrap();
    let left = leaks::wait_until_none(home.root(), Duration::ZERO);
    assert_eq!(left.iter().map(|it| it.pid).collect::<Vec<_>>(), [pid]);
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL)
        .unwrap();
    leaks::assert_none(home.root());
}

#[test]
fn a_secret_in_an_environment_is_found() {
    let home = Home::new().env("KEY", SECRET);
    let mut sh = home.start("sh", ["-c", "echo ready; read x"], &home.home());
    sh.line(SOON, |_| true);
    drop(sh);
    let home = home.env("OTHER", "1");
    let started = home.start("sleep", ["1000"], &home.home());
    assert!(
        leaks::processes_holding(SECRET)
            .iter()
            .any(|it| it.pid == started.pid())
    );
}

#[test]
fn a_secret_is_found_wherever_it_lies() {
    let home = Home::new();
    let key = SECRET.as_bytes();
    home.file("data/plain", [b"xx", key, b"yy"].concat());
    home.file(&format!("data/{SECRET}.txt"), "");
    home.file(
        "data/hex",
        key.iter().map(|it| format!("{it:02x}")).collect::<String>(),
    );
    home.file("data/base64", "eHNrLWNhbmFyeS0wMTIzNDU2Nzg5YWJjZGVmeQ==");
    std::os::unix::fs::symlink(SECRET, home.data().join("link")).unwrap();
    let mut blob = b"row".to_vec();
    let mut packed = zstd::Encoder::new(Vec::new(), 3).unwrap();
    // Both halves come before the whole, so that the whole is only referred to.
    packed
        .write_all(&[&key[..12], b" ", &key[12..], b" ", key].concat())
        .unwrap();
    blob.extend(packed.finish().unwrap());
    blob.extend(b"row");
    home.file("data/packed", blob);
    home.file("data/clean", "nothing");
    let found = leaks::paths_holding(home.root(), SECRET);
    let names: Vec<_> = found
        .iter()
        .map(|it| it.file_name().unwrap().to_str().unwrap())
        .collect();
    let expected = [
        "base64",
        "hex",
        "link",
        "packed",
        "plain",
        &format!("{SECRET}.txt"),
    ];
    assert_eq!(names, expected);
    assert!(
        !fs::read(home.data().join("packed"))
            .unwrap()
            .windows(key.len())
            .any(|it| it == key)
    );
}

#[test]
fn a_secret_in_a_git_object_is_found() {
    let repo = Repo::new();
    repo.file("a", "clean").commit("First");
    repo.file("b", format!("key = {SECRET}\n")).commit("Second");
    let blob = repo.git(&["rev-parse", "HEAD:b"]);
    assert_eq!(
        leaks::git_objects_holding(&repo.path().join(".git"), SECRET),
        [blob]
    );
}
