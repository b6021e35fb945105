//! Whatever an agent left, it is deleted: completely, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use scene::{KINDS, Scene};
use skep_workspace::{Error, Layering, Store};

#[test]
fn all_of_this_holds_for_an_ordinary_user_too() {
    scene::again_as_an_ordinary_user("all_of_this_holds_for_an_ordinary_user_too");
}

/// Not a test of its own: what happens in a process of its own.
#[test]
fn child_plays_a_scene() {
    scene::child(|name| match name {
        "work" => {
            fs::remove_dir_all("src").unwrap();
            fs::write("README.md", "more").unwrap();
            fs::create_dir_all("a/b").unwrap();
            fs::write("a/b/c", "c").unwrap();
            fs::set_permissions("a/b", fs::Permissions::from_mode(0o555)).unwrap();
            fs::set_permissions("a", fs::Permissions::from_mode(0o500)).unwrap();
        }
        other => panic!("{other}"),
    });
}

/// Not a test of its own: empties a trash in which another file system is mounted.
#[test]
fn child_empties_a_trash() {
    let Some(dir) = std::env::var_os("SKEP_TEST_STORE") else {
        return;
    };
    let emptied = empty(&Store::open(Path::new(&dir), Layering::Overlay).unwrap());
    assert_eq!(
        (emptied.removed, emptied.failed.len()),
        (0, 1),
        "{emptied:?}"
    );
    assert_eq!(
        fs::read(Path::new(&dir).join("trash/t/mounted/kept")).unwrap(),
        b"kept\n"
    );
}

fn empty(store: &Store) -> skep_workspace::Emptied {
    store.empty_trash(&AtomicBool::new(false)).unwrap()
}

fn trash(scene: &Scene) -> std::path::PathBuf {
    scene.dir.path().join("store/trash")
}

fn assert_gone(scene: &Scene) {
    let emptied = empty(&scene.store);
    assert!(emptied.failed.is_empty(), "{emptied:?}");
    assert_eq!(fs::read_dir(trash(scene)).unwrap().count(), 0);
}

#[test]
fn a_workspace_that_was_mounted_and_used_is_deleted_with_its_shut_directories() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        scene.play("work");
        scene.store.open_workspace("w").unwrap().delete().unwrap();
        assert!(scene.store.list().unwrap().is_empty());
        assert_gone(&scene);
    }
}

#[test]
fn links_are_deleted_and_what_they_point_at_is_not() {
    let scene = Scene::new(Layering::Overlay);
    let outside = scene.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "p").unwrap();
    let top = scene.written();
    symlink(&outside, top.join("to a directory")).unwrap();
    symlink(outside.join("precious"), top.join("to a file")).unwrap();
    fs::hard_link(outside.join("precious"), top.join("hard")).unwrap();
    fs::create_dir(top.join("shut")).unwrap();
    symlink(&outside, top.join("shut/x")).unwrap();
    fs::set_permissions(top.join("shut"), fs::Permissions::from_mode(0o0)).unwrap();
    symlink("/", trash(&scene).join("in the trash itself")).unwrap();
    scene.store.open_workspace("w").unwrap().delete().unwrap();
    assert_gone(&scene);
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"p");
}

/// Makes a chain of directories that no path can name, each with a file beside the next.
fn chain(top: &Path, depth: usize) {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at: OwnedFd = openat(CWD, top, directory, Mode::empty()).unwrap();
    let name = "d".repeat(100);
    for level in 0..depth {
        mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        let next = openat(&at, name.as_str(), directory, Mode::empty()).unwrap();
        if level % 500 == 0 {
            openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        }
        at = next;
    }
}

#[test]
fn a_tree_deeper_than_any_path_and_any_limit_of_descriptors_is_measured_and_deleted() {
    let scene = Scene::new(Layering::Overlay);
    chain(&scene.written(), 3_000);
    assert!(scene.workspace.disk_bytes().unwrap() >= 3_000 * 4096);
    let read = scene
        .workspace
        .changes(&Default::default(), &mut |_| Ok::<_, Error>(()));
    assert!(matches!(read, Err(Error::Limit { .. })));
    scene.store.open_workspace("w").unwrap().delete().unwrap();
    assert_gone(&scene);
}

#[test]
fn wide_directories_with_the_longest_names_are_deleted() {
    let scene = Scene::new(Layering::Overlay);
    for (name, count) in [("files", 100_000), ("directories", 3_000)] {
        let dir = scene.written().join(name);
        fs::create_dir(&dir).unwrap();
        let at = openat(CWD, &dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for number in 0..count {
            let name = format!("{number:0>255}");
            if count > 10_000 {
                openat(&at, name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            } else {
                mkdirat(&at, name, Mode::empty()).unwrap();
            }
        }
    }
    scene.store.open_workspace("w").unwrap().delete().unwrap();
    assert_gone(&scene);
}

#[test]
fn several_may_empty_the_trash_at_once_and_a_stop_leaves_the_rest_for_later() {
    let scene = Scene::new(Layering::Copy);
    for number in 0..40 {
        scene
            .store
            .create(&format!("w{number}"), &scene.base)
            .unwrap()
            .delete()
            .unwrap();
    }
    assert!(matches!(
        scene.store.empty_trash(&AtomicBool::new(true)),
        Err(Error::Stopped)
    ));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| empty(&scene.store));
        }
    });
    assert_gone(&scene);
}

#[test]
fn directories_swapped_during_the_deletion_never_lead_outside() {
    let scene = Scene::new(Layering::Overlay);
    let outside = scene.dir.path().join("outside");
    fs::create_dir_all(outside.join("a/b")).unwrap();
    fs::write(outside.join("a/b/precious"), "p").unwrap();
    let stop = AtomicBool::new(false);
    let (real, link) = (scene.dir.path().join("real"), scene.dir.path().join("link"));
    symlink(&outside, &link).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for entry in fs::read_dir(trash(&scene)).unwrap().flatten() {
                    let place = entry.path().join("swap");
                    drop(fs::rename(&place, &real));
                    drop(symlink(&outside, &place));
                    drop(fs::remove_file(&place));
                    drop(fs::rename(&real, &place));
                }
            }
        });
        let _stop = scene::Stop(&stop);
        for round in 0..300 {
            let fresh = scene.dir.path().join("fresh");
            fs::create_dir_all(fresh.join("swap/a/b")).unwrap();
            fs::write(fresh.join("swap/a/b/precious"), "mine").unwrap();
            fs::rename(fresh, trash(&scene).join(format!("t{round}"))).unwrap();
            scene.store.empty_trash(&AtomicBool::new(false)).unwrap();
        }
    });
    assert_eq!(fs::read(outside.join("a/b/precious")).unwrap(), b"p");
}

#[test]
fn a_file_system_mounted_in_the_trash_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Layering::Overlay).unwrap();
    fs::create_dir_all(dir.path().join("trash/t/mounted")).unwrap();
    let script = r#"mount -t tmpfs tmpfs "$1" && echo kept > "$1/kept" && shift && exec "$@""#;
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh"])
        .arg(dir.path().join("trash/t/mounted"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_empties_a_trash"])
        .env("SKEP_TEST_STORE", dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(empty(&store).removed, 1);
}
