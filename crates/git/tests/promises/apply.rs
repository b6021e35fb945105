//! `skep apply`, onto the user's branch.

use bstr::BString;
use skep_git::{ApplyMode, CommitId, Error, Mirror, NewCommit};

use crate::repo::{Repo, differences, everything, someone, write_executable};

fn change(mirror: &Mirror, parent: CommitId, files: &[(&str, &str)]) -> CommitId {
    let mut writer = mirror.tree_writer(mirror.tree_of(parent).unwrap());
    for (path, content) in files {
        writer
            .put_file(
                (*path).into(),
                false,
                &mut content.as_bytes(),
                content.len() as u64,
            )
            .unwrap();
    }
    let tree = writer.finish().unwrap().tree;
    let who = someone();
    let parents = [parent];
    mirror
        .commit(&NewCommit {
            tree,
            parents: &parents,
            author: &who,
            committer: &who,
            message: "work\n".into(),
        })
        .unwrap()
}

const MODES: [ApplyMode; 3] = [ApplyMode::Merge, ApplyMode::Squash, ApplyMode::CherryPick];

fn settings(repo: &Repo) {
    repo.git(&["config", "core.hooksPath", ".git/hooks"]);
    repo.git(&["config", "commit.gpgSign", "false"]);
}

#[test]
fn work_is_taken_in_each_way_and_uncommitted_work_beside_it_stays() {
    for mode in MODES {
        for diverged in [false, true] {
            let repo = Repo::started();
            settings(&repo);
            let base = repo.head();
            let (source, mirror) = repo.fetched();
            let one = change(&mirror, base, &[("a.txt", "ONE\ntwo\nthree\n")]);
            let tip = change(&mirror, one, &[("new/file", "x")]);
            if diverged {
                repo.write("mine", b"mine");
                repo.commit("mine");
            }
            repo.write("dir/b.txt", b"uncommitted\n");
            repo.write("untracked", b"u");
            let applied = source.apply(&mirror, base, tip, mode, "Take it").unwrap();
            assert_eq!(applied.after, repo.head());
            assert_eq!(applied.branch, Some("main".into()));
            assert_eq!(
                std::fs::read(repo.path.join("a.txt")).unwrap(),
                b"ONE\ntwo\nthree\n"
            );
            assert_eq!(std::fs::read(repo.path.join("new/file")).unwrap(), b"x");
            assert_eq!(
                repo.git(&["status", "--porcelain"]),
                " M dir/b.txt\n?? untracked"
            );
            let count = repo.git(&["rev-list", "--count", &format!("{base}..HEAD")]);
            let expected = match (mode, diverged) {
                (ApplyMode::Merge, false) | (ApplyMode::CherryPick, false) => "2",
                (ApplyMode::Squash, false) => "1",
                (ApplyMode::Merge, true) => "4",
                (ApplyMode::CherryPick, true) => "3",
                (ApplyMode::Squash, true) => "2",
            };
            assert_eq!(count, expected, "{mode:?} {diverged}");
            let again = source.apply(&mirror, base, tip, mode, "Take it").unwrap();
            assert_eq!(
                again.before, again.after,
                "{mode:?}: there was nothing left to take"
            );
        }
    }
}

#[test]
fn uncommitted_work_in_the_way_is_named_and_nothing_changes() {
    for mode in MODES {
        let repo = Repo::started();
        settings(&repo);
        repo.write(".gitignore", b"*.log\n");
        let base = repo.commit("ignore");
        let (source, mirror) = repo.fetched();
        let tip = change(
            &mirror,
            base,
            &[
                ("a.txt", "new\n"),
                ("build.log", "theirs"),
                ("untracked/x", "theirs"),
                ("file/x", "theirs"),
            ],
        );
        repo.write("a.txt", b"mine\n");
        repo.write("build.log", b"mine, ignored");
        repo.write("untracked/x", b"mine");
        repo.write("file", b"mine, where a directory should be");
        repo.write("dir/b.txt", b"not in the way\n");
        let before = everything(&repo.path);
        let Err(Error::Uncommitted { files }) = source.apply(&mirror, base, tip, mode, "m") else {
            panic!("applied")
        };
        assert_eq!(
            files,
            ["a.txt", "build.log", "file", "untracked/x"].map(BString::from)
        );
        assert_eq!(
            differences(&repo.path, &before, &everything(&repo.path)),
            [""; 0]
        );
    }
}

#[test]
fn staged_work_is_never_swept_into_the_commit() {
    let repo = Repo::started();
    let base = repo.head();
    let (source, mirror) = repo.fetched();
    let tip = change(&mirror, base, &[("a.txt", "new\n")]);
    repo.write("staged", b"x");
    repo.git(&["add", "staged"]);
    for mode in MODES {
        assert!(matches!(
            source.apply(&mirror, base, tip, mode, "m"),
            Err(Error::Uncommitted { .. })
        ));
    }
}

#[test]
fn a_conflict_is_named_and_nothing_changes() {
    for mode in MODES {
        let repo = Repo::started();
        let base = repo.head();
        let (source, mirror) = repo.fetched();
        let tip = change(&mirror, base, &[("a.txt", "theirs\n")]);
        repo.write("a.txt", b"mine\n");
        repo.commit("mine");
        let before = everything(&repo.path);
        let Err(Error::Conflicts { files }) = source.apply(&mirror, base, tip, mode, "m") else {
            panic!("applied")
        };
        assert_eq!(files, [BString::from("a.txt")]);
        assert_eq!(
            differences(&repo.path, &before, &everything(&repo.path)),
            [""; 0]
        );
    }
}

#[test]
fn a_hook_that_refuses_leaves_the_branch_and_the_files_as_they_were() {
    for mode in MODES {
        let repo = Repo::started();
        settings(&repo);
        let base = repo.head();
        let (source, mirror) = repo.fetched();
        let tip = change(
            &mirror,
            base,
            &[("a.txt", "ONE\ntwo\nthree\n"), ("new", "x")],
        );
        repo.write("mine", b"mine");
        let head = repo.commit("mine");
        repo.write("dir/b.txt", b"uncommitted\n");
        for hook in [
            "pre-commit",
            "pre-merge-commit",
            "prepare-commit-msg",
            "commit-msg",
        ] {
            write_executable(
                &repo.path.join(".git/hooks").join(hook),
                "#!/bin/sh\necho the hook says no\nexit 1\n",
            );
        }
        let outcome = source.apply(&mirror, base, tip, mode, "m");
        assert!(
            matches!(outcome, Err(Error::Failed { .. })),
            "{mode:?}: {outcome:?}"
        );
        assert_eq!(repo.head(), head);
        assert_eq!(
            repo.git(&["status", "--porcelain"]),
            " M dir/b.txt",
            "{mode:?}"
        );
        assert!(!repo.path.join("new").exists());
        for file in ["MERGE_HEAD", "CHERRY_PICK_HEAD", "SQUASH_MSG", "sequencer"] {
            assert!(
                !repo.path.join(".git").join(file).exists(),
                "{mode:?} left {file}"
            );
        }
    }
}

#[test]
fn a_merge_in_progress_is_refused_and_a_detached_head_is_not() {
    let repo = Repo::started();
    let base = repo.head();
    let (source, mirror) = repo.fetched();
    let tip = change(&mirror, base, &[("new", "x")]);
    repo.write(".git/MERGE_HEAD", format!("{base}\n").as_bytes());
    assert!(matches!(
        source.apply(&mirror, base, tip, ApplyMode::Merge, "m"),
        Err(Error::InProgress { .. })
    ));
    std::fs::remove_file(repo.path.join(".git/MERGE_HEAD")).unwrap();
    repo.git(&["checkout", "--quiet", "--detach"]);
    let applied = source
        .apply(&mirror, base, tip, ApplyMode::Merge, "m")
        .unwrap();
    assert_eq!((applied.branch, applied.after), (None, tip));
    assert_eq!(repo.git(&["rev-parse", "main"]), base.to_string());
}
