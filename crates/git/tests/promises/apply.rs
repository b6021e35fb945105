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
            let applied = source
                .apply(&mirror, base, tip, mode, "Take it", &[])
                .unwrap();
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
            let again = source
                .apply(&mirror, base, tip, mode, "Take it", &[])
                .unwrap();
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
        let Err(Error::Uncommitted { files }) = source.apply(&mirror, base, tip, mode, "m", &[])
        else {
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
            source.apply(&mirror, base, tip, mode, "m", &[]),
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
        let Err(Error::Conflicts { files }) = source.apply(&mirror, base, tip, mode, "m", &[])
        else {
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
fn a_git_that_is_killed_with_its_locks_leaves_the_branch_and_the_files_as_they_were() {
    for forward in [true, false] {
        for mode in MODES {
            let repo = Repo::started();
            settings(&repo);
            let base = repo.head();
            let (source, mirror) = repo.fetched();
            let work = [("a.txt", "ONE\ntwo\nthree\n"), ("new", "x")];
            let tip = change(&mirror, base, &work);
            if !forward {
                repo.write("mine", b"mine");
                repo.commit("mine");
            }
            repo.write("dir/b.txt", b"uncommitted\n");
            let (head, status) = (repo.head(), repo.git(&["status", "--porcelain"]));
            // Git holds the locks of what it moves while it asks this hook, once.
            write_executable(
                &repo.path.join(".git/hooks/reference-transaction"),
                "#!/bin/sh\ngrep -q refs/heads/ || exit 0\n[ \"$1\" = prepared ] || exit 0\n\
                 mkdir .git/killed 2>/dev/null || exit 0\nkill -9 $PPID\n",
            );
            let outcome = source.apply(&mirror, base, tip, mode, "m", &[]);
            assert!(
                matches!(outcome, Err(Error::Failed { .. })),
                "{mode:?}: {outcome:?}"
            );
            assert!(repo.path.join(".git/killed").exists(), "{mode:?}");
            assert_eq!(repo.head(), head, "{mode:?}");
            assert_eq!(repo.git(&["status", "--porcelain"]), status, "{mode:?}");
            let after = source.apply(&mirror, base, tip, mode, "m", &[]);
            assert!(after.is_ok(), "{mode:?}: {after:?}");
        }
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
        let outcome = source.apply(&mirror, base, tip, mode, "m", &[]);
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

// docs/bad-input.md: Detached `HEAD`
// docs/bad-input.md: The middle of a merge: `skep apply`
#[test]
fn a_merge_in_progress_is_refused_and_a_detached_head_is_not() {
    let repo = Repo::started();
    let base = repo.head();
    let (source, mirror) = repo.fetched();
    let tip = change(&mirror, base, &[("new", "x")]);
    repo.write(".git/MERGE_HEAD", format!("{base}\n").as_bytes());
    assert!(matches!(
        source.apply(&mirror, base, tip, ApplyMode::Merge, "m", &[]),
        Err(Error::InProgress { .. })
    ));
    std::fs::remove_file(repo.path.join(".git/MERGE_HEAD")).unwrap();
    repo.git(&["checkout", "--quiet", "--detach"]);
    let applied = source
        .apply(&mirror, base, tip, ApplyMode::Merge, "m", &[])
        .unwrap();
    assert_eq!((applied.branch, applied.after), (None, tip));
    assert_eq!(repo.git(&["rev-parse", "main"]), base.to_string());
}

/// Something that is done to a repository.
type Doing<'a> = &'a dyn Fn(&Repo);

/// A change that takes files away.
fn without(mirror: &Mirror, parent: CommitId, files: &[&str]) -> CommitId {
    let mut writer = mirror.tree_writer(mirror.tree_of(parent).unwrap());
    for path in files {
        writer.remove((*path).into()).unwrap();
    }
    let who = someone();
    mirror
        .commit(&NewCommit {
            tree: writer.finish().unwrap().tree,
            parents: &[parent],
            author: &who,
            committer: &who,
            message: "less\n".into(),
        })
        .unwrap()
}

/// A repository with uncommitted work of every kind, what a request that took it along started from, and what was made
/// of it.
fn taken_along() -> (Repo, CommitId, CommitId) {
    let repo = Repo::new();
    settings(&repo);
    for name in [
        "modified",
        "staged",
        "deleted",
        "unstaged-deletion",
        "mode",
        "kept",
    ] {
        repo.write(name, b"base\n");
    }
    repo.write(".gitattributes", b"crlf text eol=crlf\n");
    repo.write("crlf", b"base\r\n");
    repo.commit("start");
    repo.write("modified", b"mine\n");
    repo.write("crlf", b"mine\r\n");
    repo.write("staged", b"mine\n");
    repo.write("new/staged", b"mine\n");
    repo.git(&["add", "staged", "new/staged"]);
    repo.git(&["rm", "--quiet", "deleted"]);
    std::fs::remove_file(repo.path.join("unstaged-deletion")).unwrap();
    repo.write("new/untracked", b"mine\n");
    std::os::unix::fs::symlink("modified", repo.path.join("link")).unwrap();
    write_executable(&repo.path.join("mode"), "base\n");
    let (source, mirror) = repo.fetched();
    let start = mirror.snapshot_uncommitted(&source, &someone()).unwrap();
    let one = change(
        &mirror,
        start,
        &[
            ("modified", "mine, and theirs\n"),
            ("crlf", "mine, and theirs\n"),
            ("staged", "mine, and theirs\n"),
            ("new/staged", "mine, and theirs\n"),
            ("new/untracked", "mine, and theirs\n"),
        ],
    );
    let tip = without(&mirror, one, &["mode"]);
    (repo, start, tip)
}

#[test]
fn uncommitted_work_that_was_taken_along_becomes_what_was_made_of_it() {
    for mode in MODES {
        let (repo, start, tip) = taken_along();
        let (source, mirror) = (repo.source(), repo.mirror());
        let base = repo.head();
        let applied = source.apply(&mirror, base, tip, mode, "m", &[start]);
        assert_eq!(applied.unwrap().after, repo.head(), "{mode:?}");
        assert_eq!(repo.git(&["status", "--porcelain"]), "", "{mode:?}");
        assert_eq!(
            repo.git(&["rev-parse", "HEAD^{tree}"]),
            mirror.tree_of(tip).unwrap().to_string()
        );
        for name in ["modified", "staged", "new/staged", "new/untracked"] {
            let content = std::fs::read(repo.path.join(name)).unwrap();
            assert_eq!(content, b"mine, and theirs\n", "{mode:?} {name}");
        }
        let content = std::fs::read(repo.path.join("crlf")).unwrap();
        assert_eq!(content, b"mine, and theirs\r\n");
        for name in ["deleted", "unstaged-deletion", "mode"] {
            assert!(!repo.path.join(name).exists(), "{mode:?} {name}");
        }
        assert!(!repo.path.join(".git/skep-aside").exists());
    }
}

#[test]
fn uncommitted_work_that_changed_after_it_was_taken_along_is_refused_and_stays() {
    let spoil: [(&str, Doing<'_>); 6] = [
        ("modified", &|repo| repo.write("modified", b"mine, later\n")),
        ("new/untracked", &|repo| {
            repo.write("new/untracked", b"mine, later\n")
        }),
        ("staged", &|repo| repo.write("staged", b"mine, later\n")),
        // Staged otherwise than it is in the tree.
        ("staged", &|repo| {
            repo.write("staged", b"mine, staged\n");
            repo.git(&["add", "staged"]);
            repo.write("staged", b"mine\n");
        }),
        ("deleted", &|repo| repo.write("deleted", b"back again\n")),
        ("kept", &|repo| {
            repo.write("kept", b"staged later\n");
            repo.git(&["add", "kept"]);
        }),
    ];
    for (name, spoil) in spoil {
        let (repo, start, tip) = taken_along();
        let (source, mirror) = (repo.source(), repo.mirror());
        spoil(&repo);
        let before = everything(&repo.path);
        for mode in MODES {
            let outcome = source.apply(&mirror, repo.head(), tip, mode, "m", &[start]);
            let Err(Error::Uncommitted { files }) = outcome else {
                panic!("{mode:?} {name}: {outcome:?}")
            };
            assert!(files.contains(&BString::from(name)), "{name}: {files:?}");
            assert_eq!(
                differences(&repo.path, &before, &everything(&repo.path)),
                [""; 0]
            );
        }
    }
}

#[test]
fn uncommitted_work_counts_as_taken_only_where_the_commit_that_holds_it_is_taken_too() {
    let (repo, start, tip) = taken_along();
    let (source, mirror) = (repo.source(), repo.mirror());
    // One change alone does not bring what it started from.
    let outcome = source.apply(&mirror, start, tip, ApplyMode::CherryPick, "m", &[start]);
    assert!(
        matches!(
            outcome,
            Err(Error::Uncommitted { .. } | Error::Conflicts { .. })
        ),
        "{outcome:?}"
    );
}

#[test]
fn uncommitted_work_is_put_back_as_it_was_when_a_hook_refuses() {
    for mode in MODES {
        let (repo, start, tip) = taken_along();
        let (source, mirror) = (repo.source(), repo.mirror());
        let base = repo.head();
        repo.git(&["commit", "--quiet", "--allow-empty", "--only", "-m", "mine"]);
        for hook in ["commit-msg", "prepare-commit-msg", "pre-merge-commit"] {
            write_executable(
                &repo.path.join(".git/hooks").join(hook),
                "#!/bin/sh\nexit 1\n",
            );
        }
        let (head, status) = (repo.head(), repo.git(&["status", "--porcelain"]));
        let outcome = source.apply(&mirror, base, tip, mode, "m", &[start]);
        assert!(
            matches!(outcome, Err(Error::Failed { .. })),
            "{mode:?}: {outcome:?}"
        );
        assert_eq!(repo.head(), head);
        assert_eq!(repo.git(&["status", "--porcelain"]), status, "{mode:?}");
        let again = mirror
            .snapshot_uncommitted(&repo.source(), &someone())
            .unwrap();
        assert_eq!(
            mirror.tree_of(again).unwrap(),
            mirror.tree_of(start).unwrap()
        );
        assert!(!repo.path.join(".git/skep-aside").exists());
    }
}

#[test]
fn files_that_an_interrupted_apply_left_aside_are_named_before_anything_else() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let tip = change(&mirror, repo.head(), &[("new", "x")]);
    repo.write(".git/skep-aside/a.txt", b"mine\n");
    let outcome = source.apply(&mirror, repo.head(), tip, ApplyMode::Merge, "m", &[]);
    assert!(
        matches!(outcome, Err(Error::Interrupted { .. })),
        "{outcome:?}"
    );
}

#[test]
fn a_hook_that_git_would_run_is_never_changed_wherever_links_lead() {
    let link = |target: &str, place: &std::path::Path| {
        std::os::unix::fs::symlink(target, place).unwrap();
    };
    let places: [(&str, Doing<'_>); 4] = [
        ("the directory", &|repo| {
            repo.git(&["config", "core.hooksPath", ".husky"]);
        }),
        ("a link to the directory", &|repo| {
            link("../.husky", &repo.path.join(".git/linked"));
            repo.git(&["config", "core.hooksPath", ".git/linked"]);
        }),
        ("a link in the place of git's own directory", &|repo| {
            repo.git(&["config", "--unset", "core.hooksPath"]);
            std::fs::remove_dir_all(repo.path.join(".git/hooks")).unwrap();
            link("../.husky", &repo.path.join(".git/hooks"));
        }),
        ("a link to the hook", &|repo| {
            link(
                "../../.husky/pre-commit",
                &repo.path.join(".git/hooks/pre-commit"),
            );
        }),
    ];
    for (name, set) in places {
        let repo = Repo::started();
        settings(&repo);
        std::fs::create_dir_all(repo.path.join(".git/hooks")).unwrap();
        write_executable_in(&repo, ".husky/pre-commit");
        let base = repo.commit("hooks");
        set(&repo);
        let (source, mirror) = repo.fetched();
        let tip = change(&mirror, base, &[(".husky/pre-commit", "echo pwned\n")]);
        let before = everything(&repo.path);
        for mode in MODES {
            let outcome = source.apply(&mirror, base, tip, mode, "m", &[]);
            assert!(
                matches!(outcome, Err(Error::ChangesHook { .. })),
                "{name}, {mode:?}: {outcome:?}"
            );
            assert_eq!(
                differences(&repo.path, &before, &everything(&repo.path)),
                [""; 0]
            );
        }
        let beside = change(&mirror, base, &[("a.txt", "new\n")]);
        source
            .apply(&mirror, base, beside, ApplyMode::Merge, "m", &[])
            .unwrap();
    }
}

fn write_executable_in(repo: &Repo, path: &str) {
    let path = repo.path.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_executable(&path, "#!/bin/sh\nexit 0\n");
}
