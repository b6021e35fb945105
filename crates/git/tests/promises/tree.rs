//! Trees from entries are what git makes of the same files.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bstr::{BStr, BString, ByteSlice};
use proptest::prelude::*;
use skep_git::{Error, TreeId, TreeWriter};

use crate::repo::{Repo, git_in, os, run};

#[derive(Clone, Debug)]
enum Op {
    File(Vec<u8>, bool, Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Clear(Vec<u8>),
}

/// Few names, so that files and directories get into each other's way; some are hard to sort or to print.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        b"a".to_vec(),
        b"a.c".to_vec(),
        b"a-".to_vec(),
        b"a0".to_vec(),
        b"B".to_vec(),
        b"b\nc".to_vec(),
        b"\xff\xfe".to_vec(),
        "\u{e9}".as_bytes().to_vec(),
        b".gitignored".to_vec(),
        b"x y".to_vec(),
        b"-f".to_vec(),
    ])
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(name(), 1..4).prop_map(|parts| parts.join(&b'/'))
}

fn op() -> impl Strategy<Value = Op> {
    let content = prop::collection::vec(any::<u8>(), 0..12);
    prop_oneof![
        5 => (path(), any::<bool>(), content.clone()).prop_map(|(p, x, c)| Op::File(p, x, c)),
        1 => (path(), prop::sample::select(vec![b"a".to_vec(), b"../../x".to_vec(), b"/etc/passwd".to_vec(), b"\xff".to_vec()]))
            .prop_map(|(p, t)| Op::Link(p, t)),
        2 => path().prop_map(Op::Remove),
        1 => path().prop_map(Op::Clear),
    ]
}

fn to_writer(writer: &mut TreeWriter, op: &Op) {
    match op {
        Op::File(path, x, content) => {
            writer
                .put_file(
                    path.as_bstr(),
                    *x,
                    &mut content.as_slice(),
                    content.len() as u64,
                )
                .unwrap();
        }
        Op::Link(path, target) => writer.put_link(path.as_bstr(), target.as_bstr()).unwrap(),
        Op::Remove(path) => writer.remove(path.as_bstr()).unwrap(),
        Op::Clear(path) => writer.clear(path.as_bstr()).unwrap(),
    }
}

/// The same on a file system.
fn to_files(repo: &Repo, op: &Op) {
    let place = |path: &[u8]| -> PathBuf {
        let mut dir = repo.path.clone();
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        for part in &parts[..parts.len() - 1] {
            dir.push(os(part));
            if dir.symlink_metadata().is_ok_and(|m| !m.is_dir()) {
                std::fs::remove_file(&dir).unwrap();
            }
        }
        std::fs::create_dir_all(&dir).unwrap();
        let at = dir.join(os(parts[parts.len() - 1]));
        erase(&at);
        at
    };
    match op {
        Op::File(path, x, content) => {
            let at = place(path);
            std::fs::write(&at, content).unwrap();
            std::fs::set_permissions(
                &at,
                PermissionsExt::from_mode(if *x { 0o755 } else { 0o644 }),
            )
            .unwrap();
        }
        Op::Link(path, target) => std::os::unix::fs::symlink(os(target), place(path)).unwrap(),
        Op::Remove(path) => {
            let mut dir = repo.path.clone();
            for part in path.split(|b| *b == b'/') {
                if dir.symlink_metadata().map_or(true, |m| !m.is_dir()) {
                    return;
                }
                dir.push(os(part));
            }
            erase(&dir);
        }
        Op::Clear(path) => std::fs::create_dir_all(place(path)).unwrap(),
    }
}

fn erase(path: &std::path::Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default()
    })]

    #[test]
    fn a_tree_from_entries_is_what_git_add_makes_of_the_same_files(
        first in prop::collection::vec(op(), 0..10),
        then in prop::collection::vec(op(), 1..12),
    ) {
        let repo = Repo::new();
        for op in &first {
            to_files(&repo, op);
        }
        repo.commit("base");
        let (_source, mirror) = repo.fetched();
        let base = mirror.tree_of(repo.head()).unwrap();
        let mut writer = mirror.tree_writer(base);
        for op in &then {
            to_files(&repo, op);
            to_writer(&mut writer, op);
        }
        repo.git(&["-c", "core.symlinks=true", "add", "--all"]);
        let expected: TreeId = repo.git(&["write-tree"]).parse().unwrap();
        prop_assert_eq!(writer.finish().unwrap().tree, expected);
    }
}

#[test]
fn the_mirror_is_sound_after_trees_were_written() {
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let mut writer = mirror.tree_writer(mirror.tree_of(repo.head()).unwrap());
    let big = vec![7_u8; 5 << 20];
    writer
        .put_file("big".into(), false, &mut big.as_slice(), big.len() as u64)
        .unwrap();
    writer
        .put_file("dir/new.txt".into(), true, &mut &b"x"[..], 1)
        .unwrap();
    writer.remove("dir/deep".into()).unwrap();
    let tree = writer.finish().unwrap().tree;
    assert_eq!(
        mirror
            .read_blob(
                mirror.entry_in(tree, "big".into()).unwrap().unwrap().id,
                6 << 20
            )
            .unwrap(),
        big
    );
    run(git_in(mirror.directory(), &["fsck", "--full", "--strict"]));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let repo = Repo::started();
    let mirror = repo.mirror();
    let mut writer = mirror.tree_writer(TreeId::empty());
    for size in [10_usize, 5 << 20] {
        let data = vec![1_u8; size];
        for announced in [size as u64 - 1, size as u64 + 1] {
            let error = writer
                .put_file("f".into(), false, &mut data.as_slice(), announced)
                .unwrap_err();
            assert!(matches!(error, Error::LengthChanged { .. }), "{error}");
        }
    }
    assert_eq!(writer.finish().unwrap().tree, TreeId::empty());
}

#[test]
fn paths_that_git_refuses_are_refused() {
    let repo = Repo::started();
    let mut writer = repo.mirror().tree_writer(TreeId::empty());
    for path in [
        ".git/config",
        "a/.GIT/hooks/x",
        "git~1",
        "../x",
        "/etc/x",
        "a//b",
        "",
        "a/..",
        ".git . /x",
        "x/.g\u{200c}it/y",
    ] {
        let path: &BStr = path.into();
        assert!(
            writer.put_file(path, false, &mut &b""[..], 0).is_err(),
            "{path} was taken"
        );
        assert!(
            writer.put_link(path, "x".into()).is_err(),
            "{path} was taken"
        );
        assert!(writer.remove(path).is_err(), "{path} was taken");
    }
    assert!(writer.put_link(".gitmodules".into(), "x".into()).is_err());
    assert!(writer.put_link("x".into(), "".into()).is_err());
}

// docs/bad-input.md: Submodules
#[test]
fn a_submodule_stays_until_it_is_removed_or_replaced() {
    let repo = Repo::started();
    let pin = "1111111111111111111111111111111111111111";
    repo.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{pin},lib/sub"),
    ]);
    repo.git(&["commit", "--quiet", "-m", "pin"]);
    let (_source, mirror) = repo.fetched();
    let base = mirror.tree_of(repo.head()).unwrap();
    let sub = |tree| {
        mirror
            .entry_in(tree, "lib/sub".into())
            .unwrap()
            .map(|e| e.kind)
    };

    let mut writer = mirror.tree_writer(base);
    writer
        .put_file("lib/sub/f".into(), false, &mut &b"x"[..], 1)
        .unwrap();
    let written = writer.finish().unwrap();
    assert_eq!(written.tree, base);
    assert_eq!(written.below_submodules, vec![BString::from("lib/sub/f")]);
    // Git ignores such files too.
    repo.write("lib/sub/f", b"x");
    repo.git(&["add", "--all"]);
    assert_eq!(repo.git(&["write-tree"]), base.to_string());

    let mut writer = mirror.tree_writer(base);
    writer.clear("lib/sub".into()).unwrap();
    assert_eq!(
        sub(writer.finish().unwrap().tree),
        Some(skep_git::FileKind::Submodule)
    );

    let mut writer = mirror.tree_writer(base);
    writer.remove("lib/sub".into()).unwrap();
    assert_eq!(sub(writer.finish().unwrap().tree), None);

    let mut writer = mirror.tree_writer(base);
    writer
        .put_file("lib/sub".into(), false, &mut &b"x"[..], 1)
        .unwrap();
    assert_eq!(
        sub(writer.finish().unwrap().tree),
        Some(skep_git::FileKind::File)
    );
}
