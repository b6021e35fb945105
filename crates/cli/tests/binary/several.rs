//! Several repositories that are written in one sealed workspace.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::models::{Dialect, Script};
use testkit::{Ran, Repo, leaks};

use crate::world::{NOBODY, World};

/// The user's repository, and a library beside it.
fn world() -> (World, Repo) {
    let lib = Repo::new();
    lib.file("lib.txt", "1\n").commit("A library");
    (World::simple(), lib)
}

fn also(lib: &Repo) -> String {
    format!("lib={}", lib.path().display())
}

fn exec(world: &World, id: &str, script: &str) -> Ran {
    let ran = world.skep(&["sandbox", "exec", id, "--", "sh", "-c", script]);
    ran.expect_code(0)
}

fn object(world: &World, args: &[&str]) -> Value {
    let ran = world.skep(&[&["sandbox", "--json"], args].concat());
    ran.expect_code(0).json_lines().remove(0)
}

#[test]
fn a_shell_of_several_repositories_leaves_a_patch_of_each_that_was_changed() {
    let (world, lib) = world();
    let other = Repo::new();
    other.file("kept.txt", "kept\n").commit("Nobody changes it");
    let was = (world.repo.snapshot(), lib.snapshot());
    let script = "cat ../lib/lib.txt ../other/kept.txt; echo 42 > answer.txt; \
                  echo 2 > ../lib/lib.txt; git -C ../lib add lib.txt; printf '\\0\\1' > ../lib/bytes";
    let (lib_url, other_url) = (
        format!("lib=file://{}", lib.path().display()),
        format!("other={}", other.path().display()),
    );
    let ran = world.skep(&[
        "shell", "--also", &lib_url, "--also", &other_url, "--", "sh", "-c", script,
    ]);
    let ran = ran.expect_code(0);
    assert_eq!(ran.stdout, "1\nkept\n");
    assert!(ran.stderr.contains("/workspace/lib\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("in lib:\n"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("in other:"), "{}", ran.stderr);
    was.0.assert_same(&world.repo.snapshot());
    was.1.assert_same(&lib.snapshot());
    let patches: Vec<&str> = ran
        .stderr
        .lines()
        .filter_map(|line| {
            line.split_once("what was changed is in ")?
                .1
                .split_once(": ")
        })
        .map(|(path, _)| path)
        .collect();
    assert_eq!(patches.len(), 2);
    assert!(patches[1].ends_with(".lib.patch"), "{patches:?}");
    world.repo.git(&["apply", patches[0]]);
    lib.git(&["apply", patches[1]]);
    let read = |path: std::path::PathBuf| fs::read(path).unwrap();
    assert_eq!(read(world.repo.path().join("answer.txt")), b"42\n");
    assert_eq!(read(lib.path().join("lib.txt")), b"2\n");
    assert_eq!(read(lib.path().join("bytes")), b"\0\x01");
    world.assert_nothing_left();
}

#[test]
fn a_patch_that_cannot_be_written_where_it_should_be_is_kept_and_takes_no_other_along() {
    let (world, lib) = world();
    let nowhere = world.home.root().join("nowhere/mine.patch");
    let ran = world.skep(&[
        "shell",
        "--also",
        &also(&lib),
        "--patch",
        nowhere.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        "echo 42 > answer.txt; echo 2 > ../lib/lib.txt",
    ]);
    let ran = ran.expect_code(1);
    assert!(ran.stderr.contains("is kept in"), "{}", ran.stderr);
    let kept = fs::read_dir(world.data().join("patches")).unwrap();
    assert_eq!(kept.count(), 2, "of each repository");
    world.assert_nothing_left();
}

#[test]
fn what_is_only_shown_to_a_person_cannot_be_written_and_forks_show_it_too() {
    let (world, lib) = world();
    let notes = Repo::new();
    notes.file("notes.txt", "read me\n").commit("Notes");
    let (also, with) = (also(&lib), format!("notes={}", notes.path().display()));
    let both = ["--also", &also, "--with", &with];
    let script = "cat ../notes/notes.txt; ! touch ../notes/new; echo 2 > ../lib/lib.txt";
    let shell = [&["shell"][..], &both, &["--", "sh", "-c", script]].concat();
    let ran = world.skep(&shell).expect_code(0);
    assert_eq!(ran.stdout, "read me\n");
    assert!(ran.stderr.contains("read-only, at /workspace/notes"));
    assert!(ran.stderr.contains("in lib:") && !ran.stderr.contains("in notes:"));
    let create = [&["create", "--name", "try", "--for", "10m"][..], &both].concat();
    let made = object(&world, &create);
    assert_eq!(made["beside"][0]["commit"], notes.head());
    object(&world, &["fork", "try", "--name", "idea", "--for", "10m"]);
    let seen = exec(
        &world,
        "idea",
        "cat ../notes/notes.txt ../lib/lib.txt; ls ..",
    );
    assert_eq!(seen.stdout, "read me\n1\nlib\nnotes\nrepo\n");
    let text = world.skep(&["sandbox", "inspect", "idea"]).expect_code(0);
    assert!(text.stdout.contains("beside it"), "{}", text.stdout);
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    world.assert_nothing_left();
    assert_eq!(notes.git(&["status", "--short"]), "");
}

#[test]
fn an_ordinary_user_works_on_several_repositories_too() {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n").commit("A wrong answer");
    let world = World::of_ordinary_user(Dialect::Chat, repo, Script::new());
    let lib = Repo::at(&world.home.home().join("lib"));
    lib.file("lib.txt", "1\n").commit("A library");
    lib.give_to(NOBODY);
    let also = also(&lib);
    let create = ["create", "--name", "try", "--for", "10m", "--also", &also];
    object(&world, &create);
    exec(
        &world,
        "try",
        "echo 42 > answer.txt; echo 2 > ../lib/lib.txt",
    );
    world.skep(&["sandbox", "snapshot", "try"]).expect_code(0);
    exec(&world, "try", "echo 3 > ../lib/lib.txt; mkdir ../lib/d");
    world.skep(&["sandbox", "undo", "try", "s1"]).expect_code(0);
    let seen = exec(&world, "try", "cat answer.txt ../lib/lib.txt; ls ../lib");
    assert_eq!(seen.stdout, "42\n2\nlib.txt\n");
    let shown = object(&world, &["inspect", "try"]);
    assert_eq!(shown["state"]["also"][0]["files"][0]["path"], "lib.txt");
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn the_patches_lie_where_they_are_wanted_and_programs_are_told_of_each() {
    let (world, lib) = world();
    let also = also(&lib);
    let ran = world.skep(&[
        "--json",
        "shell",
        "--patch",
        "mine.patch",
        "--also",
        &also,
        "--",
        "sh",
        "-c",
        "echo 2 > ../lib/lib.txt",
    ]);
    let told: Value = serde_json::from_str(ran.expect_code(0).stderr.trim()).unwrap();
    assert_eq!(told["files"], json!([]));
    assert_eq!(told["patch"], Value::Null);
    let of = &told["also"][0];
    assert_eq!(of["name"], "lib");
    assert_eq!(of["commit"], lib.head());
    assert_eq!(of["files"][0]["path"], "lib.txt");
    let patch = world.repo.path().join("mine.lib.patch");
    assert_eq!(of["patch"], patch.to_str().unwrap());
    assert!(fs::read_to_string(patch).unwrap().contains("+2"));
    assert!(!world.repo.path().join("mine.patch").exists());
    let alone = world
        .skep(&["--json", "shell", "--", "true"])
        .expect_code(0);
    assert!(!alone.stderr.contains("also"), "{}", alone.stderr);
    world.assert_nothing_left();
}

#[test]
fn one_repository_that_holds_too_much_keeps_none_of_the_others() {
    let (world, lib) = world();
    let also = also(&lib);
    // A hole: it takes no space, and it counts.
    let script = "truncate -s 101M ../lib/big; echo 42 > answer.txt";
    let shell = ["shell", "--also", &also, "--", "sh", "-c", script];
    let ran = world.skep(&shell).expect_code(1);
    assert!(ran.stderr.contains("error: in lib: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("big"), "{}", ran.stderr);
    let patch = ran.stderr.split("git apply ").nth(1).unwrap();
    let patch = patch.split('`').next().unwrap();
    assert!(fs::read_to_string(patch).unwrap().contains("+42\n"));

    let ran = world
        .skep(&[&["--json"], &shell[..]].concat())
        .expect_code(1);
    let told: Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert_eq!(told["files"][0]["path"], "answer.txt");
    assert_eq!(told["also"][0]["patch"], Value::Null);
    assert_eq!(told["also"][0]["error"]["exit"], "failed");

    let create = ["create", "--name", "try", "--for", "10m", "--also", &also];
    object(&world, &create);
    exec(&world, "try", script);
    let state = object(&world, &["inspect", "try"])["state"].clone();
    assert_eq!(state["files"][0]["path"], "answer.txt");
    assert!(
        state["also"][0]["unreadable"]
            .as_str()
            .unwrap()
            .contains("big")
    );
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

// docs/bad-input.md: A bare repository
#[test]
fn a_bare_repository_of_this_machine_is_fetched_like_that_of_a_url() {
    let (world, lib) = world();
    let bare = world.home.home().join("lib.git");
    lib.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let (also, with) = (
        format!("lib={}", bare.display()),
        format!("shown={}", bare.display()),
    );
    let script = "cat ../shown/lib.txt; echo 2 > ../lib/lib.txt";
    let ran = world
        .skep(&[
            "shell", "--also", &also, "--with", &with, "--", "sh", "-c", script,
        ])
        .expect_code(0);
    assert_eq!(ran.stdout, "1\n");
    let patch = ran.stderr.split("git apply ").nth(1).unwrap();
    let patch = patch.split('`').next().unwrap();
    assert!(fs::read_to_string(patch).unwrap().contains("+2\n"));
    world.assert_nothing_left();
}

// docs/bad-input.md: Too many further repositories, two of one name, or one where nothing can be
#[test]
fn what_cannot_be_written_beside_the_repository_is_refused_before_anything_is_made() {
    let (world, lib) = world();
    let one = also(&lib);
    let refused = |args: &[&str], code, says: &str| {
        let ran = world.skep(args).expect_code(code);
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    };
    let twice = ["shell", "--also", &one, "--also", &one, "--", "true"];
    refused(&twice, 2, "are named `lib`");
    let both = ["shell", "--also", &one, "--with", &one, "--", "true"];
    refused(&both, 2, "are named `lib`");
    let create = ["sandbox", "create", "--also", &one, "--also", &one];
    refused(&create, 2, "are named `lib`");
    let many: Vec<String> = (0..8)
        .map(|it| one.replace("lib=", &format!("l{it}=")))
        .collect();
    let mut args = vec!["shell"];
    args.extend(many.iter().flat_map(|one| ["--also", one.as_str()]));
    args.extend(["--", "true"]);
    refused(&args, 2, "more than 7 times");
    refused(&["shell", "--also", "repo=.", "--", "true"], 2, "name");
    let deep = one.replace("lib=", "a/b=");
    refused(
        &["shell", "--also", &deep, "--", "true"],
        2,
        "letters, digits",
    );
    refused(
        &["sandbox", "create", "--with", &deep],
        2,
        "letters, digits",
    );
    let option = ["sandbox", "create", "--name=-"];
    refused(&option, 2, "cannot be the name of a sandbox");
    let nowhere = ["shell", "--also", "x=/no/such/place", "--", "true"];
    refused(&nowhere, 2, "/no/such/place");
    let nowhere = ["sandbox", "create", "--also", "x=/no/such/place"];
    refused(&nowhere, 2, "/no/such/place");
    let list = object(&world, &["list"]);
    assert_eq!(list["sandboxes"], json!([]));
    world.assert_nothing_left();
}

#[test]
fn a_sandbox_of_several_repositories_goes_back_and_is_forked_in_all_of_them() {
    let (world, lib) = world();
    let also = also(&lib);
    let made = object(
        &world,
        &["create", "--name", "try", "--for", "10m", "--also", &also],
    );
    assert_eq!(made["also"][0]["name"], "lib");
    exec(
        &world,
        "try",
        "echo 42 > answer.txt; echo 2 > ../lib/lib.txt",
    );
    world.skep(&["sandbox", "snapshot", "try"]).expect_code(0);
    exec(
        &world,
        "try",
        "rm answer.txt ../lib/lib.txt; touch ../lib/new",
    );
    let shown = object(&world, &["inspect", "try"]);
    assert_eq!(shown["also"][0]["commit"], lib.head());
    assert_eq!(shown["state"]["also"][0]["name"], "lib");
    let paths = |shown: &Value| {
        let files = shown["state"]["also"][0]["files"].as_array().unwrap();
        let paths = files
            .iter()
            .map(|it| it["path"].as_str().unwrap().to_owned());
        paths.collect::<Vec<_>>()
    };
    assert_eq!(paths(&shown), ["lib.txt", "new"]);
    let text = world.skep(&["sandbox", "inspect", "try"]).expect_code(0);
    assert!(
        text.stdout.contains("in lib:\n") && text.stdout.contains("also"),
        "{}",
        text.stdout
    );

    let fork = [
        "fork", "try", "--at", "s1", "--name", "idea", "--for", "10m",
    ];
    let forked = object(&world, &fork);
    assert_eq!(forked["forks"][0]["also"][0]["name"], "lib");
    let seen = "cat answer.txt ../lib/lib.txt; ls ../lib";
    assert_eq!(exec(&world, "idea", seen).stdout, "42\n2\nlib.txt\n");
    world.skep(&["sandbox", "undo", "try", "s1"]).expect_code(0);
    assert_eq!(exec(&world, "try", seen).stdout, "42\n2\nlib.txt\n");
    world
        .skep(&["sandbox", "undo", "try", "--start"])
        .expect_code(0);
    assert_eq!(exec(&world, "try", seen).stdout, "41\n1\nlib.txt\n");

    // Killed holders leave nothing that runs, and of what is destroyed nothing of either repository stays.
    for name in ["try", "idea"] {
        let pid = object(&world, &["inspect", name])["pid"].as_i64().unwrap();
        let holder = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(holder, Signal::KILL).unwrap();
    }
    leaks::assert_none(&world.data());
    world
        .skep(&["sandbox", "destroy", "try", "idea"])
        .expect_code(0);
    let none = object(&world, &["list"]);
    assert_eq!(none["sandboxes"], json!([]));
    world.skep(&["gc"]).expect_code(0);
    world.assert_nothing_left();
    assert_eq!(lib.git(&["status", "--short"]), "");
}
