//! Bases are built once, shared by all who ask, and evicted only when nobody needs them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use skep_workspace::{Base, Error, Layering, Layers, Limits, MAX_LAYERS, Space, Store};

fn store(dir: &Path) -> Store {
    Store::open(dir, Layering::Overlay).unwrap()
}

fn fill(dir: &Path) -> Result<(), Error> {
    fs::write(dir.join("a"), "content of a").unwrap();
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/b"), "content of b").unwrap();
    Ok(())
}

fn base(store: &Store, key: &str) -> Base {
    store.base(key, fill).unwrap()
}

#[test]
fn a_base_that_many_threads_ask_for_at_once_is_built_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (builds, start) = (AtomicUsize::new(0), Barrier::new(50));
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                start.wait();
                let base = store
                    .base("c0ffee", |dir| {
                        builds.fetch_add(1, Ordering::SeqCst);
                        fill(dir)
                    })
                    .unwrap();
                assert_eq!(
                    fs::read(base.trees()[0].join("d/b")).unwrap(),
                    b"content of b"
                );
            });
        }
    });
    assert_eq!(builds.load(Ordering::SeqCst), 1);
}

/// Not a test of its own: the body of the processes that the next test starts.
#[test]
fn child_process_asks_for_a_base() {
    let Some(dir) = std::env::var_os("SKEP_TEST_STORE") else {
        return;
    };
    let store = store(Path::new(&dir));
    let built = store.base("shared", |tree| {
        let log = Path::new(&dir).join("built");
        let mut log = fs::File::options()
            .append(true)
            .create(true)
            .open(log)
            .unwrap();
        std::io::Write::write_all(&mut log, b"x").unwrap();
        if std::env::var_os("SKEP_TEST_DIE").is_some() {
            fs::write(tree.join("half"), "half a file").unwrap();
            std::process::abort();
        }
        fill(tree)
    });
    assert_eq!(
        fs::read(built.unwrap().trees()[0].join("a")).unwrap(),
        b"content of a"
    );
}

fn child(dir: &Path, die: bool) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_process_asks_for_a_base"])
        .env("SKEP_TEST_STORE", dir);
    if die {
        command.env("SKEP_TEST_DIE", "1");
    }
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_base_that_several_processes_ask_for_at_once_is_built_once_even_after_a_builder_died() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    assert!(!child(dir.path(), true).wait().unwrap().success());
    assert!(
        store.bases().unwrap().is_empty(),
        "half a base is never seen"
    );
    let children: Vec<_> = (0..6).map(|_| child(dir.path(), false)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(
        fs::read(dir.path().join("built")).unwrap(),
        b"xx",
        "the one that died, and one more"
    );
    assert!(!base(&store, "shared").trees()[0].join("half").exists());

    let swept = store.sweep(|_| true).unwrap();
    assert_eq!((swept.unfinished, swept.workspaces.len()), (1, 0));
    assert_eq!(
        store.empty_trash(&AtomicBool::new(false)).unwrap().removed,
        1
    );
    assert_eq!(
        fs::read_dir(dir.path().join("bases/.new")).unwrap().count(),
        0
    );
}

#[test]
fn a_failed_build_leaves_nothing_and_the_next_one_starts_from_an_empty_directory() {
    #[derive(Debug)]
    enum Broken {
        Checkout,
        Store,
    }
    impl From<Error> for Broken {
        fn from(_: Error) -> Self {
            Broken::Store
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let failed = store.base("k", |tree| {
        fs::write(tree.join("half"), "x").unwrap();
        Err(Broken::Checkout)
    });
    assert!(matches!(failed, Err(Broken::Checkout)));
    let base = store.base("k", |tree| {
        assert_eq!(fs::read_dir(tree).unwrap().count(), 0);
        fill(tree)
    });
    assert!(base.unwrap().trees()[0].join("a").exists());
}

#[test]
fn a_base_is_listed_with_its_size_and_its_last_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    base(&store, "one");
    base(&store, "two");
    let before = store.bases().unwrap();
    assert_eq!(
        before
            .iter()
            .map(|info| info.key.as_str())
            .collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert!(before.iter().all(|info| info.bytes >= 4096), "{before:?}");
    assert_eq!(before, store.bases().unwrap(), "to list is not to use");
    base(&store, "one");
    let after = store.bases().unwrap();
    assert!(after[0].last_use > before[0].last_use && after[1].last_use == before[1].last_use);
}

#[test]
fn a_base_is_evicted_only_when_no_workspace_and_no_process_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let held = base(&store, "k");
    assert!(matches!(store.evict("k"), Err(Error::BaseInUse { .. })));
    let workspace = store.create("w", &held).unwrap();
    drop(held);
    match store.evict("k") {
        Err(Error::BaseInUse { user, .. }) => assert_eq!(user, "workspace w"),
        other => panic!("{other:?}"),
    }
    workspace.delete().unwrap();
    store.evict("k").unwrap();
    assert!(store.find_base("k").unwrap().is_none());
    assert!(matches!(store.evict("k"), Err(Error::NoBase { .. })));
    assert_eq!(
        store.empty_trash(&AtomicBool::new(false)).unwrap().removed,
        2
    );
    assert!(
        base(&store, "k").trees()[0].join("a").exists(),
        "it can be built again"
    );
}

/// A layer over the base `parent` that changes `a`, adds `n/c` and takes `d` away.
fn layer(store: &Store, key: &str, parent: &str) -> Base {
    store
        .layered_base(key, |dir| {
            fs::write(dir.join("a"), format!("a of {key}")).unwrap();
            fs::create_dir(dir.join("n")).unwrap();
            fs::write(dir.join("n/c"), "content of c").unwrap();
            whiteout(&dir.join("d"));
            store.find_base(parent)
        })
        .unwrap()
}

fn whiteout(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let device = makedev(0, 0);
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), device).unwrap();
}

#[test]
fn a_base_can_be_a_layer_over_another_one_which_stays_as_long() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    base(&store, "whole");
    let top = layer(&store, "top", "whole");
    let place = |key: &str| dir.path().join("bases").join(key).join("tree");
    assert_eq!(top.trees(), [place("top"), place("whole")]);
    let workspace = store.create("w", &top).unwrap();
    let Layers::Overlay { lowers, .. } = workspace.layers() else {
        panic!("an overlay was asked for");
    };
    assert_eq!(lowers, top.trees());
    drop(workspace);

    let refused = |key: &str, by: &str| match store.evict(key) {
        Err(Error::BaseInUse { user, .. }) => assert_eq!(user, by),
        other => panic!("{other:?}"),
    };
    refused("whole", "a process");
    drop(top);
    refused("whole", "base top");
    refused("top", "workspace w");
    store.sweep(|_| false).unwrap();
    store.evict("top").unwrap();
    store.evict("whole").unwrap();
}

#[test]
fn what_a_store_takes_is_measured_and_says_which_bases_nobody_uses() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    base(&store, "whole");
    let top = layer(&store, "top", "whole");
    base(&store, "spare");
    let workspace = store.create("w", &top).unwrap();
    fs::write(workspace.tmp().join("big"), vec![1; 100_000]).unwrap();
    base(&store, "gone");
    store.evict("gone").unwrap();
    let space = store.space(&AtomicBool::new(false)).unwrap();
    let used = |key: &str| {
        let found = space.bases.iter().find(|base| base.key == key).unwrap();
        (found.parent.as_deref(), found.used_by.as_deref())
    };
    assert_eq!(used("top"), (Some("whole"), Some("workspace w")));
    assert_eq!(used("whole"), (None, Some("a process")), "it is held");
    assert_eq!(used("spare"), (None, None));
    assert_eq!(space.workspaces[0].id, "w");
    assert!(space.workspaces[0].bytes > 100_000);
    assert!(space.trash.entries == 1 && space.trash.bytes > 0);
    let spare: Vec<_> = space.spare_bases().iter().map(|it| &it.key).collect();
    assert_eq!(spare, ["spare"]);

    drop((top, workspace));
    let would = store.would_sweep(|_| false).unwrap();
    assert_eq!(would.workspaces, ["w"]);
    assert!(store.open_workspace("w").is_ok(), "nothing was moved");
    store.sweep(|_| false).unwrap();
    let space = store.space(&AtomicBool::new(false)).unwrap();
    let spare: Vec<_> = space.spare_bases().iter().map(|it| &it.key).collect();
    assert_eq!(spare.len(), 3);
    assert!(
        spare.iter().position(|key| *key == "top") < spare.iter().position(|key| *key == "whole")
    );
    for key in spare {
        store.evict(key).unwrap();
    }
    let mut told = Vec::new();
    store
        .empty_trash_telling(&AtomicBool::new(false), &mut |done, of| {
            told.push((done, of));
        })
        .unwrap();
    assert_eq!(told.len(), 5);
    assert_eq!(
        store.space(&AtomicBool::new(false)).unwrap(),
        Space::default()
    );
}

#[test]
fn a_copy_of_a_base_that_is_a_layer_holds_what_the_layers_make_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Layering::Copy).unwrap();
    base(&store, "whole");
    let top = layer(&store, "top", "whole");
    let workspace = store.create("w", &top).unwrap();
    let Layers::Directory(files) = workspace.layers() else {
        panic!("a copy was asked for");
    };
    assert_eq!(fs::read(files.join("a")).unwrap(), b"a of top");
    assert_eq!(fs::read(files.join("n/c")).unwrap(), b"content of c");
    assert!(fs::symlink_metadata(files.join("d")).is_err());
    let mut changed = 0;
    workspace
        .changes(&Limits::default(), &mut |_| {
            changed += 1;
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(changed, 0, "nothing was changed in it yet");
}

#[test]
fn a_stack_of_bases_has_a_bounded_height() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    base(&store, "b1");
    for number in 2..=MAX_LAYERS {
        layer(&store, &format!("b{number}"), &format!("b{}", number - 1));
    }
    let highest = store.find_base(&format!("b{MAX_LAYERS}")).unwrap().unwrap();
    assert_eq!(highest.trees().len(), MAX_LAYERS);
    assert!(!highest.can_bear());
    let above = store.layered_base("above", |_| Ok::<_, Error>(Some(highest.clone())));
    assert!(matches!(above, Err(Error::TooManyLayers { .. })));
    assert!(store.find_base("above").unwrap().is_none());
}

#[test]
fn a_base_without_what_it_lies_over_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    base(&store, "whole");
    layer(&store, "top", "whole");
    // By hand: the store does not do this.
    fs::remove_dir_all(dir.path().join("bases/whole")).unwrap();
    assert!(store.find_base("top").unwrap().is_none());
    assert_eq!(base(&store, "top").trees().len(), 1);
    layer(&store, "other", "top");
    fs::write(dir.path().join("bases/other/record"), "").unwrap();
    assert_eq!(base(&store, "other").trees().len(), 1);
}

#[test]
fn a_key_or_id_never_leads_out_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let base = base(&store, "k");
    for name in ["", "..", "../x", "a/b", ".new", "\n"] {
        assert!(
            matches!(store.base(name, fill), Err(Error::Name { .. })),
            "{name:?}"
        );
        assert!(
            matches!(store.create(name, &base), Err(Error::Name { .. })),
            "{name:?}"
        );
        assert!(
            matches!(store.open_workspace(name), Err(Error::Name { .. })),
            "{name:?}"
        );
    }
}
