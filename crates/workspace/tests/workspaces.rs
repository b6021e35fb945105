//! Workspaces are there at once, found again, deleted at once and never leaked.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use skep_workspace::{Base, Error, Layering, Layers, Store};

fn store(dir: &Path, kind: Layering) -> (Store, Base) {
    let store = Store::open(dir, kind).unwrap();
    let base = store.base("k", |tree| {
        fs::write(tree.join("a"), "content of a").unwrap();
        Ok::<_, Error>(())
    });
    let base = base.unwrap();
    (store, base)
}

#[test]
fn an_overlay_workspace_has_the_base_below_and_empty_directories_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, base) = store(dir.path(), Layering::Overlay);
    let workspace = store.create("w1", &base).unwrap();
    let Layers::Overlay {
        lowers,
        upper,
        work,
    } = workspace.layers()
    else {
        panic!("not an overlay")
    };
    assert_eq!(lowers, base.trees());
    for part in [upper, work, workspace.home(), workspace.tmp()] {
        assert_eq!(fs::read_dir(&part).unwrap().count(), 0);
        assert_eq!(
            fs::metadata(&part).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }
    assert_eq!((workspace.id(), workspace.base_key()), ("w1", "k"));
    assert_eq!(
        fs::metadata(dir.path().join("workspaces"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

#[test]
fn a_workspace_is_found_again_by_another_store_of_any_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, base) = store(dir.path(), Layering::Overlay);
    let layers = store.create("w1", &base).unwrap().layers();
    let again = Store::open(dir.path(), Layering::Copy).unwrap();
    assert_eq!(again.list().unwrap(), ["w1"]);
    assert_eq!(again.open_workspace("w1").unwrap().layers(), layers);
    assert!(matches!(
        again.open_workspace("w2"),
        Err(Error::NoWorkspace { .. })
    ));
    assert!(matches!(
        again.create("w1", &base),
        Err(Error::Exists { .. })
    ));
}

#[test]
fn a_sweep_takes_what_nobody_owns_and_leaves_what_is_live_or_held() {
    let dir = tempfile::tempdir().unwrap();
    let (store, base) = store(dir.path(), Layering::Overlay);
    for id in ["live", "dead"] {
        store.create(id, &base).unwrap();
    }
    let held = store.create("held", &base).unwrap();
    let swept = store.sweep(|id| id == "live").unwrap();
    assert_eq!(
        (swept.workspaces, swept.held),
        (vec!["dead".to_owned()], vec!["held".to_owned()])
    );
    drop(held);
    store.sweep(|id| id == "live").unwrap();
    assert_eq!(store.list().unwrap(), ["live"]);
    assert_eq!(
        store.empty_trash(&AtomicBool::new(false)).unwrap().removed,
        2
    );
}

#[test]
fn a_deleted_id_is_free_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [Layering::Overlay, Layering::Copy] {
        let (store, base) = store(dir.path(), kind);
        for _ in 0..3 {
            let workspace = store.create("w", &base).unwrap();
            assert!(workspace.disk_bytes().unwrap() > 0);
            workspace.delete().unwrap();
            assert!(store.list().unwrap().is_empty());
        }
    }
}

#[test]
fn a_workspace_whose_process_was_killed_is_taken_over_with_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (store, base) = store(dir.path(), Layering::Overlay);
    let workspace = store.create("w1", &base).unwrap();
    let Layers::Overlay { upper, work, .. } = workspace.layers() else {
        panic!("not an overlay")
    };
    fs::write(upper.join("b"), "written").unwrap();
    // As the kernel leaves it.
    fs::create_dir_all(work.join("incompat/volatile")).unwrap();
    assert!(matches!(
        store.reopen_workspace("w1"),
        Err(Error::WorkspaceInUse { .. })
    ));
    drop(workspace);
    for _ in 0..3 {
        let again = store.reopen_workspace("w1").unwrap();
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(upper.join("b")).unwrap(), "written");
        fs::create_dir_all(work.join("incompat/volatile")).unwrap();
        drop(again);
    }
    // It is frozen and deleted as any other.
    let mut again = store.reopen_workspace("w1").unwrap();
    again.freeze().unwrap();
    again.delete().unwrap();
    store.empty_trash(&AtomicBool::new(false)).unwrap();
    assert!(matches!(
        store.reopen_workspace("w1"),
        Err(Error::NoWorkspace { .. })
    ));
}

#[test]
fn a_workspace_that_is_to_be_kept_is_gone_on_with_after_a_restart_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (store, base) = store(dir.path(), Layering::Overlay);
    let mut workspace = store.create("w1", &base).unwrap();
    workspace.keep().unwrap();
    let _before = workspace.snapshot("s1").unwrap();
    workspace.settle().unwrap();
    fs::write(workspace.home().join("note"), "mine").unwrap();
    workspace.sync().unwrap();
    assert!(matches!(
        store.resume_workspace("w1"),
        Err(Error::WorkspaceInUse { .. })
    ));
    drop(workspace);
    let record = dir.path().join("workspaces/w1/record");
    let text = fs::read_to_string(&record).unwrap();
    let (head, _) = text.split_once("boot ").unwrap();
    let other = format!("{head}boot 00000000-0000-4000-8000-000000000000\n");
    fs::write(&record, other).unwrap();
    let again = store.resume_workspace("w1").unwrap();
    assert_eq!(again.snapshots(), ["s1"]);
    assert_eq!(
        fs::read_to_string(again.home().join("note")).unwrap(),
        "mine"
    );
}

#[test]
fn a_sweep_asks_once_more_when_nobody_can_hold_a_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let (store, base) = store(dir.path(), Layering::Overlay);
    drop(store.create("w1", &base).unwrap());
    // Its holder says that it is to be kept, and is killed, between the question and the lock.
    let asked = std::cell::Cell::new(0);
    let swept = store.sweep(|_| asked.replace(asked.get() + 1) > 0).unwrap();
    assert!(swept.workspaces.is_empty());
    assert_eq!(store.list().unwrap(), ["w1"]);
    assert_eq!(store.sweep(|_| false).unwrap().workspaces, ["w1"]);
}

#[test]
fn a_workspace_of_an_earlier_boot_or_without_its_base_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (store, base) = store(dir.path(), Layering::Overlay);
    drop(store.create("w1", &base).unwrap());
    let record = dir.path().join("workspaces/w1/record");
    let text = fs::read_to_string(&record).unwrap();
    let (head, boot) = text.split_once("boot ").unwrap();
    for other in ["", "boot 00000000-0000-4000-8000-000000000000\n"] {
        fs::write(&record, format!("{head}{other}")).unwrap();
        assert!(matches!(
            store.reopen_workspace("w1"),
            Err(Error::OtherBoot { .. })
        ));
    }
    fs::write(&record, format!("{head}boot {boot}")).unwrap();
    fs::remove_dir_all(dir.path().join("bases/k")).unwrap();
    assert!(matches!(
        store.reopen_workspace("w1"),
        Err(Error::NoBase { .. })
    ));
}
