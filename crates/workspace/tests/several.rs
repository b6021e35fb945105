//! Several repositories that are written in one workspace: what is written in each comes out of each,
//! and a moment is one of all of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::fs;
use std::path::{Path, PathBuf};

use scene::KINDS;
use skep_workspace::{
    Base, Change, Error, Layering, Layers, Limits, MOST_ALSO, Store, Visitor, Workspace,
};
use tempfile::TempDir;

#[test]
fn all_of_this_holds_for_an_ordinary_user_too() {
    scene::again_as_an_ordinary_user("all_of_this_holds_for_an_ordinary_user_too");
}

struct Scene {
    dir: TempDir,
    store: Store,
}

impl Scene {
    fn new(kind: Layering) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), kind).unwrap();
        Self { dir, store }
    }

    /// A base with one file of its own name.
    fn base(&self, name: &str) -> Base {
        let base = self.store.base::<Error>(name, |tree| {
            fs::write(tree.join(name), "base\n").unwrap();
            fs::create_dir(tree.join(".git")).unwrap();
            Ok(())
        });
        base.unwrap()
    }

    fn workspace(&self) -> Workspace {
        let also = [
            ("lib".to_owned(), self.base("lib")),
            ("app".to_owned(), self.base("app")),
        ];
        self.store
            .create_also("w", &self.base("own"), &also)
            .unwrap()
    }
}

/// Where a repository of the workspace is written.
fn place(workspace: &Workspace, name: &str) -> PathBuf {
    let also = workspace.also_layers();
    let found = also.into_iter().find(|(known, _)| known == name);
    match found.map_or_else(|| workspace.layers(), |(_, layers)| layers) {
        Layers::Overlay { upper, .. } => upper,
        Layers::Directory(directory) => directory,
    }
}

/// What is seen of a file: the topmost layer that has it. Nothing is removed in these tests.
fn seen(workspace: &Workspace, name: &str, file: &str) -> Option<String> {
    let also = workspace.also_layers();
    let found = also.into_iter().find(|(known, _)| known == name);
    let layers = match found.map_or_else(|| workspace.layers(), |(_, layers)| layers) {
        Layers::Overlay { lowers, upper, .. } => [vec![upper], lowers].concat(),
        Layers::Directory(directory) => vec![directory],
    };
    let mut found = layers.iter().map(|layer| layer.join(file));
    let path = found.find(|path| path.exists())?;
    Some(fs::read_to_string(path).unwrap())
}

fn write(workspace: &Workspace, name: &str, file: &str, text: &str) {
    fs::write(place(workspace, name).join(file), text).unwrap();
}

struct Paths(Vec<String>);

impl Visitor<Error> for Paths {
    fn wants(&mut self, _: &bstr::BStr, _: bool) -> Result<bool, Error> {
        Ok(true)
    }

    fn visit(&mut self, change: Change) -> Result<(), Error> {
        self.0.push(change.path().to_string());
        Ok(())
    }
}

fn changed(workspace: &Workspace, name: &str) -> Vec<String> {
    let mut paths = Paths(Vec::new());
    let limits = Limits::default();
    let summary = match name {
        "own" => workspace.wanted_changes(&limits, &mut paths),
        name => workspace.wanted_changes_of(name, &limits, &mut paths),
    };
    assert!(summary.unwrap().refused.is_empty());
    paths.0
}

fn snapshot(workspace: &mut Workspace, name: &str) {
    let _before = workspace.snapshot(name).unwrap();
    workspace.settle().unwrap();
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn what_is_written_in_a_repository_comes_out_of_it_and_of_no_other() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let workspace = scene.workspace();
        write(&workspace, "own", "one", "1");
        write(&workspace, "lib", "two", "2");
        write(&workspace, "lib", "lib", "changed\n");
        assert_eq!(changed(&workspace, "own"), ["one"]);
        assert_eq!(changed(&workspace, "lib"), ["lib", "two"]);
        assert!(changed(&workspace, "app").is_empty());
        let missing = workspace.wanted_changes_of("no", &Limits::default(), &mut Paths(Vec::new()));
        assert!(matches!(missing, Err(Error::NoRepository { .. })));
        assert_eq!(
            workspace.also_base_keys().collect::<Vec<_>>(),
            [("lib", "lib"), ("app", "app")]
        );
    }
}

#[test]
fn what_the_trusted_side_writes_lands_in_the_repository_that_it_names() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let workspace = scene.workspace();
        let edit = workspace.edit_also("lib").unwrap();
        edit.write("a/new".into(), true, b"new").unwrap();
        edit.remove("lib".into()).unwrap();
        assert_eq!(changed(&workspace, "lib"), ["a/new", "lib"]);
        assert!(changed(&workspace, "own").is_empty());
        assert!(matches!(
            workspace.edit_also("own"),
            Err(Error::NoRepository { .. })
        ));
    }
}

#[test]
fn what_was_there_before_the_first_turn_is_a_change_of_none_of_them() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let mut workspace = scene.workspace();
        write(&workspace, "own", "one", "1");
        write(&workspace, "app", "two", "2");
        workspace.freeze().unwrap();
        assert!(changed(&workspace, "own").is_empty());
        assert!(changed(&workspace, "app").is_empty());
        write(&workspace, "app", "three", "3");
        assert_eq!(changed(&workspace, "app"), ["three"]);
        assert_eq!(seen(&workspace, "app", "two").unwrap(), "2");
    }
}

#[test]
fn a_moment_is_one_of_all_repositories_for_the_way_back_and_for_forks() {
    let scene = Scene::new(Layering::Overlay);
    let mut workspace = scene.workspace();
    write(&workspace, "own", "file", "1");
    write(&workspace, "lib", "file", "1");
    snapshot(&mut workspace, "one");
    write(&workspace, "lib", "file", "2");
    write(&workspace, "app", "file", "2");
    snapshot(&mut workspace, "two");
    write(&workspace, "own", "file", "3");
    assert_eq!(changed(&workspace, "lib"), ["file"]);

    let mut fork = workspace.fork(Some("two"), "f").unwrap();
    assert_eq!(seen(&fork, "own", "file").unwrap(), "1");
    assert_eq!(seen(&fork, "lib", "file").unwrap(), "2");
    assert_eq!(seen(&fork, "app", "file").unwrap(), "2");
    write(&fork, "app", "file", "of the fork");
    assert_eq!(seen(&workspace, "app", "file").unwrap(), "2");

    let _before = workspace.undo(Some("one")).unwrap();
    workspace.settle().unwrap();
    assert_eq!(workspace.snapshots(), ["one"]);
    assert_eq!(seen(&workspace, "own", "file").unwrap(), "1");
    assert_eq!(seen(&workspace, "lib", "file").unwrap(), "1");
    assert_eq!(seen(&workspace, "app", "file"), None);
    assert_eq!(fork.snapshots(), ["one", "two"]);

    // A change that could not be mounted is taken back in all of them.
    let before = workspace.undo(None).unwrap();
    workspace.take_back(before).unwrap();
    assert_eq!(seen(&workspace, "lib", "file").unwrap(), "1");
    let _before = fork.undo(None).unwrap();
    fork.settle().unwrap();
    assert!(changed(&fork, "lib").is_empty() && changed(&fork, "own").is_empty());

    drop((workspace, fork));
    scene.store.sweep(|_| false).unwrap();
    scene.store.empty_trash(&Default::default()).unwrap();
    for part in ["workspaces", "layers", "trash"] {
        let left = fs::read_dir(scene.dir.path().join("store").join(part)).unwrap();
        let names = left.map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names
            .filter(|name| name != ".new" && name != ".lock")
            .collect();
        assert!(names.is_empty(), "{part}: {names:?}");
    }
}

#[test]
fn layers_are_folded_in_all_repositories_or_in_none() {
    let scene = Scene::new(Layering::Overlay);
    let mut workspace = scene.workspace();
    for number in 0..4 {
        let text = number.to_string();
        write(&workspace, "own", &text, &text);
        write(&workspace, "lib", "last", &text);
        snapshot(&mut workspace, &format!("s{number}"));
    }
    let lowers = |workspace: &Workspace| {
        let all = [workspace.layers()].into_iter();
        let also = workspace
            .also_layers()
            .into_iter()
            .map(|(_, layers)| layers);
        let counted = all.chain(also).map(|layers| match layers {
            Layers::Overlay { lowers, .. } => lowers.len(),
            Layers::Directory(_) => 0,
        });
        counted.collect::<Vec<_>>()
    };
    assert_eq!(lowers(&workspace), [5, 5, 5]);
    let fold = workspace.fold_some(2, 3).unwrap();
    let built = fold.build(&Default::default()).unwrap();
    workspace.adopt(built).unwrap();
    assert_eq!(lowers(&workspace), [3, 3, 3]);
    assert_eq!(changed(&workspace, "own"), ["0", "1", "2", "3"]);
    assert_eq!(seen(&workspace, "lib", "last").unwrap(), "3");

    // One that does not fit any more is not used for any of them.
    snapshot(&mut workspace, "s4");
    let built = workspace.fold_some(0, 2).unwrap();
    let built = built.build(&Default::default()).unwrap();
    let _before = workspace.undo(Some("s3")).unwrap();
    workspace.settle().unwrap();
    workspace.adopt(built).unwrap();
    assert_eq!(lowers(&workspace), [3, 3, 3]);
    let _before = workspace.undo(Some("s1")).unwrap();
    workspace.settle().unwrap();
    assert_eq!(lowers(&workspace), [3, 3, 3], "two turns each, and no fold");
    assert_eq!(seen(&workspace, "lib", "last").unwrap(), "1");
}

#[test]
fn all_of_them_are_counted_and_their_bases_stay_as_long_as_the_workspace() {
    let scene = Scene::new(Layering::Overlay);
    let mut workspace = scene.workspace();
    let before = workspace.disk_bytes().unwrap();
    let big = "x".repeat(100_000);
    write(&workspace, "lib", "big", &big);
    write(&workspace, "app", "big", &big);
    let after = workspace.disk_bytes().unwrap();
    assert!(after >= before + 200_000, "{before}, {after}");
    snapshot(&mut workspace, "one");
    assert!(workspace.snapshot_bytes("one").unwrap() >= 200_000);
    drop(workspace);
    for key in ["own", "lib", "app"] {
        let refused = scene.store.evict(key);
        assert!(
            matches!(refused, Err(Error::BaseInUse { .. })),
            "{key}: {refused:?}"
        );
    }
    scene.store.sweep(|_| false).unwrap();
    for key in ["own", "lib", "app"] {
        scene.store.evict(key).unwrap();
    }
    scene.store.empty_trash(&Default::default()).unwrap();
    assert_eq!(count(&scene.dir.path().join("store/trash")), 0);
}

#[test]
fn whoever_takes_over_finds_all_repositories_as_they_were() {
    let scene = Scene::new(Layering::Overlay);
    let mut workspace = scene.workspace();
    write(&workspace, "app", "file", "1");
    snapshot(&mut workspace, "one");
    write(&workspace, "lib", "file", "2");
    // What a mount leaves in the kernel's own directories.
    for (_, layers) in workspace.also_layers() {
        if let Layers::Overlay { work, .. } = layers {
            fs::create_dir(work.join("work")).unwrap();
        }
    }
    drop(workspace);
    let workspace = scene.store.reopen_workspace("w").unwrap();
    assert_eq!(changed(&workspace, "app"), ["file"]);
    assert_eq!(changed(&workspace, "lib"), ["file"]);
    for (_, layers) in workspace.also_layers() {
        if let Layers::Overlay { work, .. } = layers {
            assert_eq!(count(&work), 0);
        }
    }
}

#[test]
fn a_record_whose_repositories_have_different_moments_is_damaged() {
    let scene = Scene::new(Layering::Overlay);
    let mut workspace = scene.workspace();
    snapshot(&mut workspace, "one");
    drop(workspace);
    let record = scene.dir.path().join("store/workspaces/w/record");
    let text = fs::read_to_string(&record).unwrap();
    let cut = text.rfind("turn ").unwrap();
    let rest = text[cut..].split_once('\n').unwrap().1;
    fs::write(&record, format!("{}{rest}", &text[..cut])).unwrap();
    let opened = scene.store.open_workspace("w");
    assert!(matches!(opened, Err(Error::Record { .. })), "{opened:?}");
}

#[test]
fn a_name_is_given_once_and_no_more_repositories_than_can_be() {
    let scene = Scene::new(Layering::Overlay);
    let own = scene.base("own");
    let named = |names: &[&str]| {
        let lib = scene.base("lib");
        let also = names.iter().map(|name| ((*name).to_owned(), lib.clone()));
        also.collect::<Vec<_>>()
    };
    for names in [&["a", "a"][..], &["../a"], &[""]] {
        let refused = scene.store.create_also("w", &own, &named(names));
        assert!(matches!(refused, Err(Error::Name { .. })), "{names:?}");
    }
    let many: Vec<String> = (0..=MOST_ALSO).map(|number| format!("n{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = scene.store.create_also("w", &own, &named(&many));
    assert!(matches!(refused, Err(Error::TooManyRepositories)));
    assert_eq!(scene.store.list().unwrap(), Vec::<String>::new());
    scene
        .store
        .create_also("w", &own, &named(&many[1..]))
        .unwrap();
}
