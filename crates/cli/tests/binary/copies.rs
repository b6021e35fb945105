//! `skep sandbox copy`: files into a standing sandbox, and out of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use testkit::Ran;

use crate::world::{DEADLINE, World, mending, wrong_answer};

fn skep(world: &World, args: &[&str]) -> Ran {
    world.skep(&[&["sandbox"], args].concat())
}

fn exec(world: &World, script: &str) -> String {
    let ran = skep(world, &["exec", "try", "--", "sh", "-c", script]);
    ran.expect_code(0).stdout
}

fn shell(world: &World, script: &str) -> Ran {
    let started = world.home.start("sh", ["-c", script], world.repo.path());
    started.finish(DEADLINE)
}

/// One of each that is copied.
fn fixtures(world: &World) {
    let place = world.repo.path().join("fixtures");
    fs::create_dir_all(place.join("empty")).unwrap();
    fs::write(place.join("plain"), "text\n").unwrap();
    fs::write(place.join("odd \n name"), "odd").unwrap();
    fs::write(place.join("program"), "#!/bin/sh\necho runs\n").unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.join("program"), mode).unwrap();
    symlink("plain", place.join("link")).unwrap();
}

fn is_the_same(world: &World, copy: &Path) {
    let place = world.repo.path().join("fixtures");
    for name in ["plain", "odd \n name", "program"] {
        let (one, other) = (place.join(name), copy.join(name));
        assert_eq!(fs::read(&one).unwrap(), fs::read(&other).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o100;
        assert_eq!(mode(&one), mode(&other), "{name}");
    }
    assert_eq!(
        fs::read_link(copy.join("link")).unwrap(),
        Path::new("plain")
    );
    assert_eq!(fs::read_dir(copy.join("empty")).unwrap().count(), 0);
}

fn files_are_copied(world: &World) {
    skep(world, &["create", "--for", "10m", "--name", "try"]).expect_code(0);
    fixtures(world);
    let ran = skep(world, &["copy", "fixtures", "try:"]).expect_code(0);
    assert_eq!((&*ran.stdout, &*ran.stderr), ("", ""));
    let said = exec(world, "fixtures/program; cat fixtures/link answer.txt; pwd");
    assert!(said.starts_with("runs\ntext\n41\n/workspace/"), "{said}");
    // A relative path begins at the top of the workspace, wherever this program works.
    let elsewhere = world.home.root().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let ran = world.skep_in(&elsewhere, &["sandbox", "copy", "try:fixtures", "back"]);
    ran.expect_code(0);
    is_the_same(world, &elsewhere.join("back"));
    let args = ["copy", "--json", "try:fixtures", "again"];
    let said: Value = skep(world, &args).expect_code(0).json_lines().remove(0);
    assert!(said["id"].as_str().unwrap().starts_with("x-"));
    assert_eq!((&said["entries"], &said["bytes"]), (&6.into(), &28.into()));
    assert_eq!(said["left_out"], serde_json::json!([]));
    is_the_same(world, &world.repo.path().join("again"));
    // What is in a directory goes into one, also where there is none yet.
    skep(world, &["copy", "try:fixtures/.", "fresh"]).expect_code(0);
    is_the_same(world, &world.repo.path().join("fresh"));
    skep(world, &["copy", "fixtures/.", "try:fresh"]).expect_code(0);
    assert_eq!(exec(world, "fresh/program; ls fresh | wc -l"), "runs\n6\n");
    // What is there is replaced, or is one with what comes, as `cp -r` does.
    exec(
        world,
        "echo other > fixtures/plain; mkdir -p to/fixtures; echo x > to/fixtures/kept",
    );
    skep(world, &["copy", "fixtures", "try:to"]).expect_code(0);
    let said = exec(
        world,
        "cat to/fixtures/kept to/fixtures/plain fixtures/plain",
    );
    assert_eq!(said, "x\ntext\nother\n");
    // Archives, as the programs of this machine write and read them.
    let script = "tar -c --format=FORMAT fixtures | \"$SKEP\" sandbox copy - try:/tmp/FORMAT";
    for format in ["gnu", "pax", "ustar"] {
        shell(world, &script.replace("FORMAT", format)).expect_code(0);
        let said = exec(world, &format!("/tmp/{format}/fixtures/program"));
        assert_eq!(said, "runs\n");
    }
    let script = "mkdir out && \"$SKEP\" sandbox copy try:/tmp/gnu/. - | tar -x -C out";
    shell(world, script).expect_code(0);
    is_the_same(world, &world.repo.path().join("out/fixtures"));
    skep(world, &["destroy", "try"]).expect_code(0);
}

#[test]
fn files_are_copied_into_a_sandbox_and_out_of_it() {
    let world = World::simple().env("SKEP", env!("CARGO_BIN_EXE_skep"));
    files_are_copied(&world);
    world.assert_nothing_left();
}

#[test]
fn files_are_copied_into_a_container_and_out_of_it() {
    let world = World::with_podman(wrong_answer(), mending());
    let world = world.env("SKEP", env!("CARGO_BIN_EXE_skep"));
    let place = world.home.config().join("skep");
    fs::create_dir_all(&place).unwrap();
    let config = place.join("config.toml");
    let mut text = fs::read_to_string(&config).unwrap_or_default();
    text.push_str("[sandbox]\nkind = \"container\"\n");
    fs::write(config, text).unwrap();
    files_are_copied(&world);
}

// docs/bad-input.md: A copy of what is not there, or to where no directory is
// docs/bad-input.md: A copy that is of no sandbox, or of two
// docs/bad-input.md: An archive that leads elsewhere, or with what cannot be copied
#[test]
fn what_cannot_be_copied_is_named_and_nothing_leads_elsewhere() {
    let world = World::simple().env("SKEP", env!("CARGO_BIN_EXE_skep"));
    skep(&world, &["create", "--for", "10m", "--name", "try"]).expect_code(0);
    for args in [
        ["copy", "", "try:b"],
        ["copy", "a", "b"],
        ["copy", "try:a", "try:b"],
        ["copy", "./try:a", "b"],
    ] {
        let said = skep(&world, &args).expect_code(2).stderr;
        assert!(said.contains("one of the two"), "{said}");
    }
    let said = skep(&world, &["copy", "--json", "try:.", "-"]).expect_code(2);
    assert!(said.stderr.contains("standard output"), "{}", said.stderr);
    skep(&world, &["copy", "none:a", "b"]).expect_code(5);
    let said = skep(&world, &["copy", "try:no/such\u{1b}", "b"]).expect_code(1);
    assert!(said.stderr.contains("no/such\\u{1b}"), "{}", said.stderr);
    assert!(!world.repo.path().join("b").exists());
    let said = skep(&world, &["copy", "no-such", "try:b"]).expect_code(1);
    assert!(said.stderr.contains("no-such"), "{}", said.stderr);
    let said = skep(&world, &["copy", "answer.txt", "try:no/such/x"]).expect_code(1);
    assert!(said.stderr.contains("no/such/x"), "{}", said.stderr);

    // What an agent leaves to lead a copy out of its way.
    let secret = world.home.root().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let script = format!(
        "mkdir -p l; ln -s {0} l/s; ln -s {0} l/file; mkfifo l/pipe",
        secret.display()
    );
    exec(&world, &script);
    let ran = skep(&world, &["copy", "try:l", "got"]).expect_code(0);
    assert!(
        ran.stderr.contains("l/pipe is a named pipe"),
        "{}",
        ran.stderr
    );
    assert!(world.repo.path().join("got/s").is_symlink());
    // Once more: the link that came is replaced and not written through.
    exec(&world, "rm l/s; echo new > l/s");
    skep(&world, &["copy", "try:l/s", "got"]).expect_code(0);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of the host");
    assert_eq!(
        fs::read_to_string(world.repo.path().join("got/s")).unwrap(),
        "new\n"
    );

    for (entry, says) in [("../up", "leads elsewhere"), ("/root", "leads elsewhere")] {
        let script = format!(
            "tar -c -P --transform='s|answer.txt|{entry}|' answer.txt | \"$SKEP\" sandbox copy - try:in"
        );
        let said = shell(&world, &script).expect_code(1).stderr;
        assert!(said.contains(says) && said.contains(entry), "{said}");
    }
    let script = "ln answer.txt hard; tar -c answer.txt hard | \"$SKEP\" sandbox copy - try:in";
    let said = shell(&world, script).expect_code(1).stderr;
    assert!(said.contains("a hard link"), "{said}");
    let script = "head -c 3000 /dev/urandom | \"$SKEP\" sandbox copy - try:in";
    let said = shell(&world, script).expect_code(1).stderr;
    assert!(said.contains("damaged"), "{said}");
    let script = "tar -c answer.txt | head -c 700 | \"$SKEP\" sandbox copy - try:in";
    let said = shell(&world, script).expect_code(1).stderr;
    assert!(said.contains("before its end"), "{said}");
    skep(&world, &["destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_copy_that_is_interrupted_leaves_nothing_that_runs() {
    let world = World::simple().env("SKEP", env!("CARGO_BIN_EXE_skep"));
    skep(&world, &["create", "--for", "10m", "--name", "try"]).expect_code(0);
    let script = "mkfifo pipe; exec \"$SKEP\" sandbox copy - try:half <> pipe";
    let copying = world.home.start("sh", ["-c", script], world.repo.path());
    exec(&world, "until test -d half; do sleep 0.05; done");
    copying.signal(Signal::INT);
    copying.finish(DEADLINE).expect_code(130);
    let commands = || {
        let ran = skep(&world, &["inspect", "--json", "try"]).expect_code(0);
        ran.json_lines().remove(0)["state"]["commands"].clone()
    };
    // Its holder hears of it a moment later.
    let end = Instant::now() + DEADLINE;
    while commands() != 0 {
        assert!(Instant::now() < end, "{} still run", commands());
    }
    skep(&world, &["destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}
