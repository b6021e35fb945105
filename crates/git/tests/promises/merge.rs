//! Merges and comparisons without a checkout.

use bstr::BString;
use skep_git::{CommitId, Error, FileKind, Merged, Mirror, NewCommit};

use crate::repo::{Repo, git_in, run, someone};

fn change(mirror: &Mirror, parent: CommitId, path: &str, content: &str) -> CommitId {
    let mut writer = mirror.tree_writer(mirror.tree_of(parent).unwrap());
    writer
        .put_file(
            path.into(),
            false,
            &mut content.as_bytes(),
            content.len() as u64,
        )
        .unwrap();
    let tree = writer.finish().unwrap().tree;
    let who = someone();
    let parents = [parent];
    mirror
        .commit(&NewCommit {
            tree,
            parents: &parents,
            author: &who,
            committer: &who,
            message: path.into(),
        })
        .unwrap()
}

#[test]
fn two_changes_of_one_file_both_land() {
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let ours = change(&mirror, repo.head(), "a.txt", "ONE\ntwo\nthree\n");
    let theirs = change(&mirror, repo.head(), "a.txt", "one\ntwo\nthree\nfour\n");
    let Merged::Clean { tree } = mirror.merge(ours, theirs, None).unwrap() else {
        panic!("conflict")
    };
    let id = mirror.entry_in(tree, "a.txt".into()).unwrap().unwrap().id;
    assert_eq!(
        mirror.read_blob(id, 100).unwrap(),
        b"ONE\ntwo\nthree\nfour\n"
    );
    assert_eq!(
        mirror.merge(repo.head(), theirs, None).unwrap(),
        Merged::Clean {
            tree: mirror.tree_of(theirs).unwrap()
        }
    );
}

#[test]
fn a_conflict_names_its_files_whatever_they_are_called() {
    let repo = Repo::started();
    let strange = "dir/new\nline";
    repo.write(strange, b"x\n");
    repo.commit("strange");
    let (_source, mirror) = repo.fetched();
    let ours = change(&mirror, repo.head(), strange, "ours\n");
    let theirs = change(&mirror, repo.head(), strange, "theirs\n");
    let Merged::Conflicted { files, tree } = mirror.merge(ours, theirs, None).unwrap() else {
        panic!("clean")
    };
    assert_eq!(files, [BString::from(strange)]);
    let id = mirror.entry_in(tree, strange.into()).unwrap().unwrap().id;
    assert!(
        String::from_utf8(mirror.read_blob(id, 1000).unwrap())
            .unwrap()
            .contains("<<<<<<<")
    );
}

#[test]
fn a_given_base_makes_it_a_cherry_pick() {
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let first = change(&mirror, repo.head(), "first", "1");
    let second = change(&mirror, first, "second", "2");
    for merged in [
        mirror.cherry_pick(second, repo.head()).unwrap(),
        mirror.merge(repo.head(), second, Some(first)).unwrap(),
    ] {
        let Merged::Clean { tree } = merged else {
            panic!("conflict")
        };
        assert!(mirror.entry_in(tree, "second".into()).unwrap().is_some());
        assert!(mirror.entry_in(tree, "first".into()).unwrap().is_none());
    }
}

#[test]
fn merge_attributes_of_the_repository_count() {
    let repo = Repo::started();
    repo.write(".gitattributes", b"CHANGES merge=union\n");
    repo.write("CHANGES", b"start\n");
    repo.commit("union");
    let (_source, mirror) = repo.fetched();
    let ours = change(&mirror, repo.head(), "CHANGES", "start\nours\n");
    let theirs = change(&mirror, repo.head(), "CHANGES", "start\ntheirs\n");
    let merged = mirror.merge(ours, theirs, None).unwrap();
    if crate::repo::program().version().unwrap()
        >= (skep_git::Version {
            major: 2,
            minor: 41,
        })
    {
        assert!(matches!(merged, Merged::Clean { .. }), "{merged:?}");
    }
}

#[test]
fn a_merge_takes_no_setting_of_anybody() {
    let repo = Repo::started();
    repo.write(".gitattributes", b"* merge=evil filter=evil diff=evil\n");
    repo.commit("attributes");
    let trace = repo.set_traps();
    repo.git(&[
        "config",
        "merge.evil.driver",
        &format!("touch {}", trace.display()),
    ]);
    repo.git(&[
        "config",
        "diff.evil.textconv",
        &format!("touch {};cat", trace.display()),
    ]);
    let _gone = std::fs::remove_file(&trace);
    let (_source, mirror) = repo.fetched();
    let ours = change(&mirror, repo.head(), "a.txt", "ONE\ntwo\nthree\n");
    let theirs = change(&mirror, repo.head(), "a.txt", "one\ntwo\nTHREE\nfour\n");
    mirror.merge(ours, theirs, None).unwrap();
    mirror
        .diff(
            mirror.tree_of(ours).unwrap(),
            mirror.tree_of(theirs).unwrap(),
        )
        .unwrap();
    mirror
        .patch(
            mirror.tree_of(ours).unwrap(),
            mirror.tree_of(theirs).unwrap(),
            1000,
        )
        .unwrap();
    assert!(!trace.exists());
}

#[test]
fn a_diff_counts_lines_finds_renames_and_knows_binaries() {
    let repo = Repo::started();
    repo.write("old name", b"1\n2\n3\n4\n5\n6\n7\n8\n");
    repo.write("gone", b"x\n");
    let before = repo.commit("before");
    repo.git(&["mv", "old name", "new\nname"]);
    repo.git(&["rm", "--quiet", "gone"]);
    repo.write("bin", b"\0\x01\x02");
    repo.write("a.txt", b"one\n2\nthree\nfour\n");
    let after = repo.commit("after");
    let (_source, mirror) = repo.fetched();
    let (b, a) = (
        mirror.tree_of(before).unwrap(),
        mirror.tree_of(after).unwrap(),
    );
    let diff = mirror.diff(b, a).unwrap();
    let find = |path: &str| diff.iter().find(|c| c.path == path).unwrap();
    assert_eq!((find("a.txt").additions, find("a.txt").deletions), (2, 1));
    assert!(find("bin").binary && find("bin").before.is_none());
    assert_eq!(find("gone").after, None);
    assert_eq!(find("new\nname").old_path, Some("old name".into()));
    assert_eq!(find("new\nname").after, Some(FileKind::File));
    assert_eq!(diff.len(), 4);

    let paths: Vec<_> = mirror
        .changed_paths(b, a)
        .unwrap()
        .into_iter()
        .map(|c| c.path)
        .collect();
    assert_eq!(
        paths,
        ["a.txt", "bin", "gone", "new\nname", "old name"].map(BString::from)
    );

    let patch = mirror.patch(b, a, 50).unwrap();
    assert!(patch.truncated && patch.text.len() == 50);
    let whole = mirror.patch(b, a, 1 << 20).unwrap();
    assert!(!whole.truncated && whole.text.starts_with(b"diff --git "));

    let file = tempfile::tempfile().unwrap();
    mirror.write_patch(b, a, &file, 1 << 20).unwrap();
    let whole = std::io::read_to_string(rewound(&file)).unwrap();
    assert!(whole.contains("GIT binary patch"), "{whole}");
    let file = tempfile::tempfile().unwrap();
    let cut = mirror.write_patch(b, a, &file, 100).unwrap_err();
    assert!(matches!(cut, Error::TooLarge { limit: 100, .. }), "{cut}");
    assert!(file.metadata().unwrap().len() <= 100);
}

fn rewound(mut file: &std::fs::File) -> &std::fs::File {
    use std::io::Seek as _;
    file.rewind().unwrap();
    file
}

#[test]
fn a_commit_is_what_git_reads() {
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let mut who = someone();
    who.name = "Evil\nparent 123 <x>".into();
    who.offset_minutes = -90;
    let parents = [repo.head()];
    let tree = mirror.tree_of(repo.head()).unwrap();
    let commit = NewCommit {
        tree,
        parents: &parents,
        author: &who,
        committer: &someone(),
        message: "Say\n\nwhy".into(),
    };
    let id = mirror.commit(&commit).unwrap();
    assert_eq!(mirror.commit(&commit).unwrap(), id);
    run(git_in(
        mirror.directory(),
        &["fsck", "--strict", &id.to_string()],
    ));
    let shown = run(git_in(
        mirror.directory(),
        &[
            "show",
            "-s",
            "--format=%an|%ad|%B",
            "--date=raw",
            &id.to_string(),
        ],
    ));
    assert_eq!(
        String::from_utf8(shown).unwrap(),
        "Evilparent 123 x|1700000000 -0130|Say\n\nwhy\n\n"
    );
    let info = mirror.commit_info(id).unwrap();
    assert_eq!(
        (info.tree, info.parents, info.message),
        (tree, parents.to_vec(), "Say\n\nwhy\n".into())
    );
    assert_eq!(info.author.offset_minutes, -90);
    assert!(mirror.is_ancestor(repo.head(), id, 100).unwrap());
    assert!(!mirror.is_ancestor(id, repo.head(), 100).unwrap());
}

/// What one side does to a path.
#[derive(Clone, Debug)]
enum Edit {
    Write(usize, u8),
    Remove(usize),
    Move(usize, usize),
    MoveDirectory(usize, usize),
}

const PATHS: [&str; 9] = [
    "a", "b", "d/a", "d/b", "d/s/a", "d/s/b", "e/a", "e/s/a", "f",
];
const DIRECTORIES: [&str; 5] = ["d/", "d/s/", "e/", "e/s/", "g/"];

type Files = std::collections::BTreeMap<String, String>;

fn content(n: u8) -> String {
    (0..10)
        .map(|line| format!("line {line} of content {n}\n"))
        .collect()
}

fn edited(mut files: Files, edits: &[Edit]) -> Files {
    for edit in edits {
        match *edit {
            Edit::Write(path, n) => {
                let path = PATHS[path];
                // As likely a small change as a new content: git finds renames by likeness.
                let text = match files.get(path) {
                    Some(text) if n.is_multiple_of(2) => format!("{text}and {n}\n"),
                    _ => content(n),
                };
                files.insert(path.into(), text);
            }
            Edit::Remove(path) => drop(files.remove(PATHS[path])),
            Edit::Move(from, to) => {
                if let Some(text) = files.remove(PATHS[from]) {
                    files.insert(PATHS[to].into(), text);
                }
            }
            Edit::MoveDirectory(from, to) => {
                let (from, to) = (DIRECTORIES[from], DIRECTORIES[to]);
                if to.starts_with(from) {
                    continue;
                }
                let moved: Vec<String> = files
                    .keys()
                    .filter(|path| path.starts_with(from))
                    .cloned()
                    .collect();
                for path in moved {
                    let text = files.remove(&path).unwrap();
                    files.insert(path.replacen(from, to, 1), text);
                }
            }
        }
    }
    files
}

fn committed(mirror: &Mirror, files: &Files, parents: &[CommitId]) -> CommitId {
    let mut writer = mirror.tree_writer(skep_git::TreeId::empty());
    for (path, text) in files {
        writer
            .put_file(
                path.as_str().into(),
                false,
                &mut text.as_bytes(),
                text.len() as u64,
            )
            .unwrap();
    }
    let who = someone();
    mirror
        .commit(&NewCommit {
            tree: writer.finish().unwrap().tree,
            parents,
            author: &who,
            committer: &who,
            message: "".into(),
        })
        .unwrap()
}

fn edits() -> impl proptest::strategy::Strategy<Value = Vec<Edit>> {
    use proptest::prelude::*;
    let path = || 0..PATHS.len();
    let directory = || 0..DIRECTORIES.len();
    proptest::collection::vec(
        prop_oneof![
            4 => (path(), 0_u8..6).prop_map(|(path, n)| Edit::Write(path, n)),
            2 => path().prop_map(Edit::Remove),
            2 => (path(), path()).prop_map(|(from, to)| Edit::Move(from, to)),
            1 => (directory(), directory()).prop_map(|(from, to)| Edit::MoveDirectory(from, to)),
        ],
        0..4,
    )
}

#[test]
fn a_merge_makes_what_git_makes() {
    use proptest::prelude::*;
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let start = proptest::collection::btree_set(0..PATHS.len(), 1..PATHS.len());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let strategy = (start, edits(), edits());
    let outcome = runner.run(&strategy, |(start, ours, theirs)| {
        let base: Files = start
            .into_iter()
            .map(|n| (PATHS[n].to_owned(), content(100 + n as u8)))
            .collect();
        let root = committed(&mirror, &base, &[]);
        let ours = committed(&mirror, &edited(base.clone(), &ours), &[root]);
        let theirs = committed(&mirror, &edited(base, &theirs), &[root]);
        let output = git_in(
            mirror.directory(),
            &[
                "merge-tree",
                "--write-tree",
                "--name-only",
                "--no-messages",
                &ours.to_string(),
                &theirs.to_string(),
            ],
        )
        .output()
        .unwrap();
        // Git 2.47 has an assertion that some moves of directories break.
        let Some(code) = output.status.code() else {
            return Ok(());
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let tree = text.lines().next().unwrap_or_default();
        let merged = mirror.cherry_pick(theirs, ours).unwrap();
        match (code, &merged) {
            (0, Merged::Clean { tree: found }) => prop_assert_eq!(found.to_string(), tree),
            (1, Merged::Conflicted { .. }) => {}
            (code, _) => prop_assert!(false, "git says {code}, we {merged:?}"),
        }
        Ok(())
    });
    outcome.unwrap();
}
