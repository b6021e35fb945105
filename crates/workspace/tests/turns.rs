//! Snapshots between turns, the way back, forks and folded layers: what an agent sees, and what comes
//! out, is always what was written, as if it had been one directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use scene::{Node, Scene, Tree};
use skep_workspace::{Error, Layering, Layers, Store, Workspace};

#[test]
fn all_of_this_holds_for_an_ordinary_user_too() {
    scene::again_as_an_ordinary_user("all_of_this_holds_for_an_ordinary_user_too");
}

/// Not a test of its own: what happens in the merged view, in a process of its own.
#[test]
fn child_plays_a_scene() {
    scene::child(|name| match name {
        "nothing" => {}
        "replace" => {
            fs::remove_dir_all("src").unwrap();
            fs::write("src", "a file now").unwrap();
            fs::remove_file("README.md").unwrap();
            fs::create_dir_all("docs/new").unwrap();
            fs::write("docs/new/a", "1").unwrap();
            fs::set_permissions(".", fs::Permissions::from_mode(0o750)).unwrap();
        }
        "again" => {
            fs::remove_file("src").unwrap();
            fs::create_dir("src").unwrap();
            fs::write("src/other", "o").unwrap();
            fs::remove_dir_all("docs").unwrap();
            fs::create_dir("docs").unwrap();
            fs::write("README.md", "back").unwrap();
            fs::write("shut", "s").unwrap();
            fs::set_permissions("shut", fs::Permissions::from_mode(0o000)).unwrap();
            fs::create_dir("closed").unwrap();
            fs::write("closed/in", "i").unwrap();
            fs::set_permissions("closed", fs::Permissions::from_mode(0o000)).unwrap();
        }
        "write" => fs::write("written", "w").unwrap(),
        "mode" => assert_eq!(
            fs::metadata(".").unwrap().permissions().mode() & 0o777,
            0o750
        ),
        seed => scene::random(seed.parse().unwrap()),
    });
}

fn plain(tree: Tree) -> Tree {
    tree.into_iter()
        .filter(|(_, node)| *node != Node::Special)
        .collect()
}

/// What the agent sees is what comes out, and this is it.
fn is(scene: &Scene, workspace: &Workspace, expected: &Tree, when: &str) {
    assert_eq!(
        plain(scene.play_in(workspace, "nothing")),
        *expected,
        "{when}: seen"
    );
    assert_eq!(scene.applied_of(workspace), *expected, "{when}: comes out");
}

fn snapshot(workspace: &mut Workspace, name: &str) {
    let _before = workspace.snapshot(name).unwrap();
    workspace.settle().unwrap();
}

fn undo(workspace: &mut Workspace, to: Option<&str>) {
    let _before = workspace.undo(to).unwrap();
    workspace.settle().unwrap();
}

fn random(state: &mut u64, bound: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize % bound
}

#[test]
fn any_sequence_of_turns_snapshots_undos_forks_and_folds_comes_out_as_it_went_in() {
    for seed in 1..=4_u64 {
        let mut scene = Scene::new(Layering::Overlay);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let start = plain(scene.play("nothing"));
        let mut moments: Vec<(String, Tree)> = Vec::new();
        let mut now = start.clone();
        let mut forks = 0;
        for step in 0..24 {
            let when = format!("seed {seed}, step {step}");
            match random(&mut state, 13) {
                0..=4 => now = plain(scene.play(&(seed * 1_000 + step).to_string())),
                5..=8 => {
                    let name = format!("s{step}");
                    snapshot(&mut scene.workspace, &name);
                    moments.push((name, now.clone()));
                    if random(&mut state, 2) == 0 {
                        continue;
                    }
                }
                9 => {
                    let to = random(&mut state, moments.len() + 1);
                    moments.truncate(to);
                    let (name, tree) = match moments.last() {
                        None => (None, &start),
                        Some((name, tree)) => (Some(name.as_str()), tree),
                    };
                    now = tree.clone();
                    undo(&mut scene.workspace, name);
                }
                10 => {
                    if let Some((name, tree)) = moments.last() {
                        forks += 1;
                        let id = format!("f{forks}");
                        let fork = scene.workspace.fork(Some(name), &id).unwrap();
                        is(&scene, &fork, tree, &when);
                        scene.play_in(&fork, &(seed * 7_000 + step).to_string());
                        // The same files, and nothing of what the fork wrote.
                        if random(&mut state, 2) == 0 {
                            fork.delete().unwrap();
                            scene.store.empty_trash(&Default::default()).unwrap();
                        }
                    }
                }
                11 if !moments.is_empty() => {
                    // What was written until then stays, as if it had been written on.
                    let (name, _) = moments.remove(random(&mut state, moments.len()));
                    scene.workspace.forget(&name).unwrap();
                    assert!(matches!(
                        scene.workspace.undo(Some(&name)),
                        Err(Error::NoSnapshot { .. })
                    ));
                }
                _ => {
                    if let Some(fold) = scene.workspace.fold_some(2, 2) {
                        let built = fold.build(&Default::default()).unwrap();
                        scene.workspace.adopt(built).unwrap();
                    }
                }
            }
            is(&scene, &scene.workspace, &now, &when);
        }
        let names: Vec<_> = moments.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(scene.workspace.snapshots(), names);
        // Each moment is still reached, the last one first.
        for (name, tree) in moments.iter().rev() {
            undo(&mut scene.workspace, Some(name));
            is(
                &scene,
                &scene.workspace,
                tree,
                &format!("seed {seed}, back to {name}"),
            );
        }
        undo(&mut scene.workspace, None);
        is(&scene, &scene.workspace, &start, "the beginning");
        assert!(scene.lines().is_empty());
    }
}

#[test]
fn what_hides_and_what_is_shut_survives_snapshots_and_folds() {
    let mut scene = Scene::new(Layering::Overlay);
    let mut seen = Vec::new();
    for (name, what) in [("one", "replace"), ("two", "again"), ("three", "write")] {
        seen.push(plain(scene.play(what)));
        snapshot(&mut scene.workspace, name);
        scene.play("mode");
    }
    is(&scene, &scene.workspace, &seen[2], "three layers");
    let lines = scene.lines();
    let built = scene
        .workspace
        .fold_some(1, 3)
        .unwrap()
        .build(&Default::default())
        .unwrap();
    scene.workspace.adopt(built).unwrap();
    let Layers::Overlay { lowers, .. } = scene.workspace.layers() else {
        panic!("not an overlay")
    };
    assert_eq!(lowers.len(), 2, "the base and what was folded");
    assert_eq!(scene.lines(), lines);
    is(&scene, &scene.workspace, &seen[2], "one layer");
    scene.play("mode");
    undo(&mut scene.workspace, Some("one"));
    is(
        &scene,
        &scene.workspace,
        &seen[0],
        "the first of those that were folded",
    );
}

#[test]
fn a_plain_copy_has_no_snapshots_and_says_so() {
    let mut scene = Scene::new(Layering::Copy);
    assert!(!scene.workspace.has_snapshots());
    assert!(matches!(
        scene.workspace.snapshot("a"),
        Err(Error::NoSnapshots { .. })
    ));
    assert!(matches!(
        scene.workspace.undo(None),
        Err(Error::NoSnapshots { .. })
    ));
    assert!(matches!(
        scene.workspace.fork(None, "f"),
        Err(Error::NoSnapshots { .. })
    ));
    assert!(scene.workspace.fold().is_none() && scene.workspace.snapshots().is_empty());
}

#[test]
fn names_are_given_once_and_must_be_known() {
    let mut scene = Scene::new(Layering::Overlay);
    snapshot(&mut scene.workspace, "a");
    assert!(matches!(
        scene.workspace.snapshot("a"),
        Err(Error::SnapshotExists { .. })
    ));
    assert!(matches!(
        scene.workspace.snapshot("../a"),
        Err(Error::Name { .. })
    ));
    assert!(matches!(
        scene.workspace.undo(Some("b")),
        Err(Error::NoSnapshot { .. })
    ));
    assert!(matches!(
        scene.workspace.fork(Some("b"), "f"),
        Err(Error::NoSnapshot { .. })
    ));
    assert!(matches!(
        scene.workspace.fork(Some("a"), "w"),
        Err(Error::Exists { .. })
    ));
    assert_eq!(scene.workspace.snapshots(), ["a"]);
}

#[test]
fn what_was_set_up_is_no_change_and_what_was_frozen_between_turns_is() {
    let mut scene = Scene::new(Layering::Overlay);
    scene.play("write");
    scene.workspace.freeze().unwrap();
    scene.play("replace");
    let lines = scene.lines();
    let before = scene.workspace.disk_bytes().unwrap();
    snapshot(&mut scene.workspace, "a");
    assert_eq!(scene.lines(), lines);
    let after = scene.workspace.disk_bytes().unwrap();
    assert!(after >= before, "what was frozen counts: {before}, {after}");
    assert!(scene.workspace.snapshot_bytes("a").unwrap() >= 4096);
    undo(&mut scene.workspace, None);
    assert!(scene.lines().is_empty());
    assert!(scene.play("nothing").contains_key(b"written".as_slice()));
}

/// All directories of layers that there are.
fn layers(scene: &Scene, workspace: &str) -> BTreeSet<String> {
    let place = scene.dir.path().join("store/workspaces").join(workspace);
    let list = fs::read_dir(place).unwrap();
    let all: Vec<_> = list
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let names = |word: &str| -> BTreeSet<String> {
        let these = all.iter().filter(|name| name.starts_with(word));
        these.cloned().collect()
    };
    assert_eq!(names("work.").len(), 1, "one scratch directory");
    &names("layer.") | &names("fold.")
}

#[test]
fn a_change_of_layers_that_was_not_mounted_is_as_if_it_had_not_been_asked() {
    let mut scene = Scene::new(Layering::Overlay);
    let seen = plain(scene.play("replace"));
    snapshot(&mut scene.workspace, "a");
    let now = plain(scene.play("again"));
    let was = layers(&scene, "w");
    let before = scene.workspace.snapshot("b").unwrap();
    scene.workspace.take_back(before).unwrap();
    assert_eq!(scene.workspace.snapshots(), ["a"]);
    is(&scene, &scene.workspace, &now, "no snapshot");
    let before = scene.workspace.undo(None).unwrap();
    scene.workspace.take_back(before).unwrap();
    is(&scene, &scene.workspace, &now, "no undo");
    assert_eq!(layers(&scene, "w"), was);
    undo(&mut scene.workspace, Some("a"));
    is(&scene, &scene.workspace, &seen, "an undo");
}

#[test]
fn what_a_killed_process_left_half_done_is_cleared_away_by_the_next() {
    let mut scene = Scene::new(Layering::Overlay);
    let seen = plain(scene.play("replace"));
    snapshot(&mut scene.workspace, "a");
    scene.play("again");
    // Killed before it could mount the layers, and while it folded.
    let _before = scene.workspace.undo(Some("a")).unwrap();
    let left = scene.dir.path().join("store/workspaces/w/folding/half");
    fs::create_dir_all(&left).unwrap();
    let scene::Scene {
        dir,
        store,
        base,
        workspace,
    } = scene;
    drop(workspace);
    let workspace = store.reopen_workspace("w").unwrap();
    let scene = Scene {
        dir,
        store,
        base,
        workspace,
    };
    is(&scene, &scene.workspace, &seen, "reopened");
    assert_eq!(scene.workspace.snapshots(), ["a"]);
    assert_eq!(layers(&scene, "w").len(), 2);
    assert!(!left.exists());
}

fn shared(scene: &Scene) -> usize {
    let list = fs::read_dir(scene.dir.path().join("store/layers")).unwrap();
    list.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        !name.to_string_lossy().starts_with('.')
    })
    .count()
}

#[test]
fn what_workspaces_share_lives_as_long_as_one_of_them() {
    let mut scene = Scene::new(Layering::Overlay);
    scene.play("write");
    scene.workspace.freeze().unwrap();
    // What the setup wrote is seen, and does not come out.
    let is = |scene: &Scene, workspace: &Workspace, expected: &Tree, when: &str| {
        assert_eq!(
            plain(scene.play_in(workspace, "nothing")),
            *expected,
            "{when}"
        );
        let mut change = expected.clone();
        change.remove(b"written".as_slice()).unwrap();
        assert_eq!(scene.applied_of(workspace), change, "{when}");
    };
    let one = plain(scene.play("replace"));
    snapshot(&mut scene.workspace, "one");
    let two = plain(scene.play("again"));
    snapshot(&mut scene.workspace, "two");
    let forks: Vec<Workspace> = (0..3)
        .map(|number| {
            scene
                .workspace
                .fork(Some("one"), &format!("f{number}"))
                .unwrap()
        })
        .collect();
    assert_eq!(shared(&scene), 2, "the setup's and the first turn's");
    is(&scene, &scene.workspace, &two, "the source");
    for fork in &forks {
        is(&scene, fork, &one, "a fork");
        assert_eq!(fork.snapshots(), ["one"]);
    }
    let second = scene.workspace.fork(Some("two"), "second").unwrap();
    let stop = Default::default();
    // The source goes first; what its forks need stays, what only it needed does not.
    let scene::Scene {
        dir,
        store,
        base,
        workspace,
    } = scene;
    workspace.delete().unwrap();
    store.sweep(|_| true).unwrap();
    store.empty_trash(&stop).unwrap();
    let mut forks = forks.into_iter();
    let scene = Scene {
        dir,
        store,
        base,
        workspace: forks.next().unwrap(),
    };
    is(&scene, &scene.workspace, &one, "a fork without its source");
    is(&scene, &second, &two, "a second fork");
    assert_eq!(shared(&scene), 3);
    second.delete().unwrap();
    scene.store.empty_trash(&stop).unwrap();
    assert_eq!(shared(&scene), 2);
    forks.for_each(|fork| fork.delete().unwrap());
    let Scene {
        dir,
        store,
        base,
        workspace,
    } = scene;
    workspace.delete().unwrap();
    let emptied = store.empty_trash(&stop).unwrap();
    assert!(emptied.failed.is_empty());
    let left = fs::read_dir(dir.path().join("store/layers"))
        .unwrap()
        .count();
    assert_eq!(left, 1, "the lock");
    drop(base);
    store.evict("k").unwrap();
}

/// Writes as an agent would, without a mount.
fn write(workspace: &Workspace, name: &str, content: &str) {
    let Layers::Overlay { upper, .. } = workspace.layers() else {
        panic!("not an overlay")
    };
    fs::write(upper.join(name), content).unwrap();
}

#[test]
fn hundreds_of_turns_keep_few_layers_mounted_and_lead_back_far() {
    let mut scene = Scene::new(Layering::Overlay);
    for turn in 0..450 {
        write(
            &scene.workspace,
            &format!("file-{}", turn % 50),
            &turn.to_string(),
        );
        write(&scene.workspace, "last", &turn.to_string());
        snapshot(&mut scene.workspace, &format!("turn-{turn}"));
        if let Some(fold) = scene.workspace.fold() {
            scene
                .workspace
                .adopt(fold.build(&Default::default()).unwrap())
                .unwrap();
        }
        let Layers::Overlay { lowers, .. } = scene.workspace.layers() else {
            panic!("not an overlay")
        };
        assert!(
            lowers.len() <= 100,
            "{} layers after turn {turn}",
            lowers.len()
        );
    }
    let names = scene.workspace.snapshots();
    assert!(names.len() > 256 && names.len() < 300, "{}", names.len());
    for turn in 450 - 256..450 {
        assert!(names.contains(&format!("turn-{turn}")));
    }
    let last = |tree: &Tree| tree[b"last".as_slice()].clone();
    let content = |text: &str| Node::File {
        executable: false,
        content: text.into(),
    };
    assert_eq!(last(&scene.applied()), content("449"));
    for name in [&names[names.len() - 3], &names[20], &names[1]] {
        undo(&mut scene.workspace, Some(name));
        let turn = name.strip_prefix("turn-").unwrap();
        let number: usize = turn.parse().unwrap();
        assert_eq!(last(&scene.applied()), content(turn));
        for other in number.saturating_sub(5)..=number {
            let key = format!("file-{}", other % 50);
            assert_eq!(scene.applied()[key.as_bytes()], content(&other.to_string()));
        }
    }
}

#[test]
fn what_a_workspace_takes_is_told_by_one_meter_over_all_its_turns() {
    let mut scene = Scene::new(Layering::Overlay);
    let workspace = &mut scene.workspace;
    let mut meter = workspace.meter();
    let mut now = |workspace: &Workspace| {
        let taken = meter.taken().unwrap();
        assert_eq!(taken, workspace.meter().taken().unwrap(), "a new meter");
        taken.bytes
    };
    let empty = now(workspace);
    let megabyte = "x".repeat(1 << 20);
    write(workspace, "first", &megabyte);
    snapshot(workspace, "a");
    let frozen = now(workspace);
    assert!(frozen >= empty + (1 << 20), "{empty}, {frozen}");
    write(workspace, "second", &megabyte);
    let both = now(workspace);
    assert!(both >= frozen + (1 << 20), "{frozen}, {both}");
    snapshot(workspace, "b");
    assert!(now(workspace) >= both);
    undo(workspace, Some("a"));
    assert!(now(workspace) < both);
    undo(workspace, None);
    assert!(now(workspace) < frozen);
}

/// What the files below a directory take on the disk, each once.
fn on_disk(dir: &Path) -> u64 {
    let (mut bytes, mut seen, mut queue) = (0, BTreeSet::new(), vec![dir.to_owned()]);
    while let Some(place) = queue.pop() {
        let found = fs::symlink_metadata(&place).unwrap();
        if seen.insert((found.dev(), found.ino())) {
            bytes += found.len().max(found.blocks() * 512);
        }
        if found.is_dir() {
            queue.extend(fs::read_dir(place).unwrap().map(|it| it.unwrap().path()));
        }
    }
    bytes
}

#[test]
fn a_snapshot_and_a_fork_take_what_was_changed_and_no_copy_of_the_rest() {
    // Directories, records and what is written in this test.
    const LITTLE: u64 = 64 << 10;
    const MUCH: u64 = 4 << 20;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Layering::Overlay).unwrap();
    let much = "x".repeat(usize::try_from(MUCH).unwrap());
    let fill = |tree: &Path| -> Result<(), Error> {
        fs::write(tree.join("of-base"), &much).unwrap();
        Ok(())
    };
    let base = store.base("b", fill).unwrap();
    let mut was = on_disk(dir.path());
    let mut takes = || {
        let now = on_disk(dir.path());
        now.saturating_sub(std::mem::replace(&mut was, now))
    };
    let mut workspace = store.create("w", &base).unwrap();
    assert!(takes() < LITTLE);
    write(&workspace, "first", &much);
    snapshot(&mut workspace, "a");
    let taken = takes();
    assert!((MUCH..MUCH + LITTLE).contains(&taken), "{taken}");
    snapshot(&mut workspace, "nothing");
    let taken = takes();
    assert!(taken < LITTLE, "{taken}");
    write(&workspace, "small", "changed");
    snapshot(&mut workspace, "small");
    let taken = takes();
    assert!(taken < LITTLE, "{taken}");
    let fork = workspace.fork(Some("small"), "f").unwrap();
    let taken = takes();
    assert!(taken < LITTLE, "{taken}");
    write(&fork, "small", "changed again");
    let taken = takes();
    assert!(taken < LITTLE, "{taken}");
}
