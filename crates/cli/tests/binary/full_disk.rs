//! Sandboxes on a disk that is full, or almost: nothing is begun there, and what is there is had and ended.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::world::{DEADLINE, World};

/// A disk in memory for the data directory of a world. It goes with this, when nobody uses it any more.
struct Disk {
    keeper: Child,
    place: String,
}

impl Disk {
    fn new(place: String, mib: u64) -> Disk {
        let script = format!(
            "mount -t tmpfs -o size={mib}m tmpfs '{place}' && echo mounted && exec sleep infinity"
        );
        let mut keeper = Command::new("unshare")
            .args(["-Urm", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is needed for this test");
        let mut said = String::new();
        let mut output = BufReader::new(keeper.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "mounted\n", "a disk in memory can be mounted");
        Disk { keeper, place }
    }

    /// How something is run that sees it.
    fn enter(&self) -> String {
        let pid = self.keeper.id();
        format!("nsenter -t {pid} -U -m --preserve-credentials")
    }

    /// From now on so much is free, in KiB.
    fn leave(&self, kib: u64) {
        let place = &self.place;
        let script = format!(
            "used=$(df -k --output=used '{place}' | tail -n 1); \
             mount -o remount,size=$((used + {kib}))k '{place}'"
        );
        let words = self.enter();
        let mut words = words.split(' ');
        let done = Command::new(words.next().unwrap())
            .args(words)
            .args(["sh", "-c", &script])
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.keeper.kill().ok();
        self.keeper.wait().ok();
    }
}

fn world(mib: u64) -> (World, Disk) {
    let world = World::simple();
    fs::create_dir_all(world.data()).unwrap();
    let disk = Disk::new(world.data().display().to_string(), mib);
    let script = format!(
        "exec {} sh -c 'cd \"$0\" && exec SKEP \"$@\"' \"$PWD\" \"$@\"",
        disk.enter()
    );
    let world = world.wrapped(&script);
    (world, disk)
}

fn json(world: &World, args: &[&str]) -> Value {
    let ran = world.skep(&[&["sandbox", "--json"], args].concat());
    ran.expect_code(0).json_lines().remove(0)
}

// docs/bad-input.md: A new sandbox on a disk that is almost full (`create`, `fork`, `skep shell`)
#[test]
fn no_sandbox_is_made_where_nothing_could_run_in_it_and_it_is_said_what_is_free_and_needed() {
    let (world, _disk) = world(500);
    let ran = world.skep(&["sandbox", "create"]).expect_code(1);
    let needed = "MiB left, and 1 GiB must stay free";
    assert!(ran.stderr.contains(needed), "{}", ran.stderr);
    assert!(ran.stderr.contains("skep gc"), "{}", ran.stderr);
    let ran = world.skep(&["shell", "--", "true"]).expect_code(1);
    assert!(ran.stderr.contains(needed), "{}", ran.stderr);
    let ran = world.skep(&["doctor"]).expect_code(4);
    assert!(ran.stdout.contains(needed), "{}", ran.stdout);
    let ran = world.skep(&["sandbox", "create", "--json"]).expect_code(1);
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["error"]["reason"], "storage");
    let none = serde_json::json!([]);
    assert_eq!(json(&world, &["list"])["sandboxes"], none);
    assert_eq!(json(&world, &["list"])["damaged"], none);
}

// docs/bad-input.md: A sandbox whose disk has become full, or that passed a bound of the disk
#[test]
fn what_is_in_a_sandbox_on_a_full_disk_is_had_and_it_is_stopped_and_destroyed() {
    let (world, disk) = world(1_200);
    for name in ["one", "other"] {
        let args = ["sandbox", "create", "--for", "10m", "--name", name];
        world.skep(&args).expect_code(0);
    }
    let write = "echo 42 > answer.txt; mkdir new; echo new > new/file; echo home > ~/file";
    let args = ["sandbox", "exec", "one", "--", "sh", "-c", write];
    world.skep(&args).expect_code(0);
    // Most of it is gone, by whomever.
    disk.leave(50 << 10);
    let state = |name| json(&world, &["inspect", name])["state"].clone();
    let end = Instant::now() + DEADLINE;
    while state("one").get("full").is_none() {
        assert!(
            Instant::now() < end,
            "the watcher sees that the disk is full"
        );
    }
    let args = ["sandbox", "exec", "one", "--", "true"];
    world.skep(&args).expect_code(4);

    let came = world.home.root().join("came");
    let to = came.display().to_string();
    let gives = || {
        world
            .skep(&["sandbox", "copy", "one:.", &to])
            .expect_code(0);
        let read = |name| fs::read_to_string(came.join(name)).unwrap();
        assert_eq!(read("answer.txt"), "42\n");
        assert_eq!(read("new/file"), "new\n");
        fs::remove_dir_all(&came).unwrap();
        let args = ["sandbox", "copy", "one:/home/agent/file", "-"];
        let archive = world.skep(&args).expect_code(0);
        assert!(archive.stdout.contains("home\n"));
    };
    gives();
    // Into it nothing is copied.
    let args = ["sandbox", "copy", "answer.txt", "one:in"];
    world.skep(&args).expect_code(4);
    let shown = state("one");
    let paths: Vec<&str> = shown["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["answer.txt", "new/file"]);

    // What is stopped is started, so that it gives its files.
    world.skep(&["sandbox", "stop", "one"]).expect_code(0);
    world.skep(&["sandbox", "start", "one"]).expect_code(0);
    gives();

    disk.leave(0);
    world.skep(&["sandbox", "stop", "one"]).expect_code(0);
    let list = json(&world, &["list"]);
    let one = &list["sandboxes"][0];
    assert_eq!(
        (&one["status"], &one["why"]),
        (&"stopped".into(), &"asked".into())
    );
    let args = ["sandbox", "destroy", "one", "other"];
    world.skep(&args).expect_code(0);
    assert_eq!(json(&world, &["list"])["sandboxes"], serde_json::json!([]));
    drop(disk);
    testkit::leaks::assert_none(&world.data());
}
