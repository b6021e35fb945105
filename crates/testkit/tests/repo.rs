//! What a test is promised of repositories and their snapshots.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use skep_testkit::{Difference, Options, Repo, Snapshot};

#[test]
fn the_same_steps_give_the_same_commits() {
    let make = || {
        let repo = Repo::new();
        repo.file("a.txt", "one\n")
            .executable("bin/run", "#!/bin/sh\n")
            .symlink("link", "a.txt");
        repo.commit("First")
    };
    assert_eq!(make(), make());
}

#[test]
fn a_generated_repository_has_its_files_and_a_clean_tree() {
    let repo = Repo::generated(250);
    assert_eq!(repo.git(&["ls-files"]).lines().count(), 250);
    assert_eq!(repo.git(&["status", "--porcelain"]), "");
    assert_eq!(repo.git(&["rev-list", "--count", "HEAD"]), "1");
}

#[test]
fn branches_and_revisions_are_read_back() {
    let repo = Repo::new();
    repo.file("a.txt", "one");
    let first = repo.commit("First");
    repo.branch("side").file("a.txt", "two").commit("Second");
    assert_eq!(repo.read_at("side", "a.txt").as_deref(), Some(&b"one"[..]));
    assert_eq!(repo.read_at("main", "a.txt").as_deref(), Some(&b"two"[..]));
    assert_eq!(repo.read_at("main", "b.txt"), None);
    assert_eq!(repo.tip("side"), Some(first));
    assert_eq!(repo.tip("nowhere"), None);
}

#[test]
fn a_snapshot_sees_content_mode_kind_and_what_came_or_went() {
    let repo = Repo::new();
    repo.file("a", "1")
        .file("b", "1")
        .file("c", "1")
        .file("d/e", "1")
        .commit("First");
    let before = repo.snapshot();
    before.assert_same(&repo.snapshot());
    repo.file("a", "2")
        .executable("b", "1")
        .remove("c")
        .symlink("f", "a");
    let seen: Vec<String> = before
        .differences(&repo.snapshot())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        seen,
        [
            "the content changed of a",
            "the mode or kind changed of b",
            "removed c",
            "added f"
        ]
    );
}

#[test]
fn a_snapshot_can_count_times_and_leave_paths_out() {
    let repo = Repo::new();
    repo.file("a", "1").file("out/b", "1");
    let options = Options {
        exclude: vec![".git".into(), "out".into()],
        mtimes: true,
        ..Options::default()
    };
    let before = Snapshot::of(repo.path(), &options);
    assert_eq!(before.len(), 1);
    fs::File::options()
        .write(true)
        .open(repo.path().join("a"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    repo.file("out/c", "1");
    let after = Snapshot::of(repo.path(), &options);
    assert_eq!(
        before.differences(&after),
        [Difference::Changed(
            Path::new("a").into(),
            "the time of last change"
        )]
    );
}

#[test]
fn only_the_integration_branch_may_appear_in_a_users_repository() {
    let repo = Repo::new();
    repo.file("a", "1").commit("First");
    let before = repo.snapshot();
    let tree = repo.git(&["rev-parse", "HEAD^{tree}"]);
    let commit = repo.git(&["commit-tree", &tree, "-m", "Ours"]);
    repo.git(&["update-ref", "refs/heads/skep/integration", &commit]);
    before.assert_only_integration(&repo.snapshot());
    // A branch beside it is another one.
    repo.git(&["update-ref", "refs/heads/skep/other", &commit]);
    let after = repo.snapshot();
    assert!(std::panic::catch_unwind(|| before.assert_only_integration(&after)).is_err());
    repo.git(&["update-ref", "-d", "refs/heads/skep/other"]);
    before.assert_only_integration(&repo.snapshot());
    repo.git(&["update-ref", "refs/heads/theirs", &commit]);
    let after = repo.snapshot();
    assert!(std::panic::catch_unwind(|| before.assert_only_integration(&after)).is_err());
    repo.git(&["update-ref", "-d", "refs/heads/theirs"]);
    before.assert_only_integration(&repo.snapshot());
    // A file that was written again is a change, whatever is in it.
    let content = fs::read(repo.path().join("a")).unwrap();
    let earlier = std::time::SystemTime::UNIX_EPOCH;
    repo.file("a", content);
    let file = fs::File::options()
        .write(true)
        .open(repo.path().join("a"))
        .unwrap();
    file.set_modified(earlier).unwrap();
    let after = repo.snapshot();
    assert!(std::panic::catch_unwind(|| before.assert_only_integration(&after)).is_err());
}

#[test]
fn trapped_hooks_tell_when_git_runs_one() {
    let repo = Repo::new();
    let tripped = repo.path().join("../tripped");
    repo.file("a", "1").commit("First");
    repo.trap_hooks(&tripped);
    repo.git(&["-c", "core.hooksPath=/dev/null", "branch", "quiet"]);
    assert!(!tripped.exists());
    repo.file("a", "2");
    assert!(!repo.try_git(&["commit", "-am", "Second"]).status.success());
    assert!(tripped.exists());
}
