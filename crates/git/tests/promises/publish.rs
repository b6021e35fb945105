//! The one branch that is ours, and nothing else.

use skep_git::{CommitId, IntegrationBranch, Mirror, NewCommit, Published};

use crate::repo::{Repo, differences, everything, git_in, run, someone};

const BRANCH: &str = "skep/integration";

pub(crate) fn change(mirror: &Mirror, parent: CommitId, files: usize, content: &str) -> CommitId {
    let mut writer = mirror.tree_writer(mirror.tree_of(parent).unwrap());
    for i in 0..files {
        let content = format!("{content} {i}");
        writer
            .put_file(
                format!("new/{i}").as_str().into(),
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
            message: "c".into(),
        })
        .unwrap()
}

#[test]
fn publishing_changes_one_branch_and_adds_objects_and_runs_no_hook() {
    for (files, packed) in [(3, false), (900, true)] {
        let repo = Repo::started();
        repo.write("dirty", b"uncommitted");
        repo.git(&["config", "core.logAllRefUpdates", "true"]);
        let trace = repo.set_traps();
        let (source, mirror) = repo.fetched();
        let new = change(&mirror, repo.source().head().commit, files, "x");
        let before = everything(&repo.path);
        assert_eq!(
            source
                .publish(&mirror, BRANCH, new, None, &someone())
                .unwrap(),
            Published::Done
        );
        let changed = differences(&repo.path, &before, &everything(&repo.path));
        assert!(
            !trace.exists(),
            "{}",
            std::fs::read_to_string(&trace).unwrap()
        );
        let ours = |path: &String| {
            path.starts_with(".git/objects/")
                || [
                    ".git/refs/heads/skep",
                    ".git/refs/heads/skep/integration",
                    ".git/logs/refs/heads/skep",
                    ".git/logs/refs/heads/skep/integration",
                ]
                .contains(&path.as_str())
        };
        let others: Vec<_> = changed.iter().filter(|path| !ours(path)).collect();
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(changed.iter().any(|path| path.ends_with(".pack")), packed);
        for gone in [".git/hooks", ".git/config"] {
            let path = repo.path.join(gone);
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap()
            } else {
                std::fs::write(path, "[core]\n\trepositoryformatversion = 0\n").unwrap()
            }
        }
        assert_eq!(repo.git(&["rev-parse", BRANCH]), new.to_string());
        repo.git(&["fsck", "--full", "--strict", "--no-dangling"]);
        assert!(
            repo.git(&["reflog", "show", BRANCH])
                .contains("skep: publish")
        );
    }
}

#[test]
fn the_branch_moves_only_from_where_it_was_expected() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let first = change(&mirror, repo.head(), 1, "first");
    let second = change(&mirror, first, 1, "second");
    let publish = |new, expected| {
        source
            .publish(&mirror, BRANCH, new, expected, &someone())
            .unwrap()
    };
    assert_eq!(
        publish(second, Some(first)),
        Published::Moved { actual: None }
    );
    assert_eq!(publish(first, None), Published::Done);
    assert_eq!(
        publish(second, None),
        Published::Moved {
            actual: Some(first)
        }
    );
    repo.git(&["pack-refs", "--all"]);
    assert_eq!(publish(second, Some(first)), Published::Done);
    assert_eq!(publish(second, Some(second)), Published::Done);
    repo.git(&["update-ref", &format!("refs/heads/{BRANCH}"), "HEAD"]);
    assert_eq!(
        publish(first, Some(second)),
        Published::Moved {
            actual: Some(repo.head())
        }
    );
    assert_eq!(source.branch(BRANCH).unwrap(), Some(repo.head()));
}

#[test]
fn what_a_process_left_that_was_killed_while_it_published_is_taken_away() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let first = change(&mirror, repo.head(), 1, "first");
    let second = change(&mirror, first, 1, "second");
    let branch = IntegrationBranch::new(mirror.clone(), BRANCH);
    let note = mirror
        .directory()
        .join(format!("publishing-{}", BRANCH.replace('/', ":")));
    let lock = repo.path.join(format!(".git/refs/heads/{BRANCH}.lock"));
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let pending = || branch.publish_pending(&source, &someone()).unwrap();
    // Killed with the lock taken, before the branch moved.
    branch.advance(None, first).unwrap();
    std::fs::write(&note, first.to_string()).unwrap();
    std::fs::write(&lock, format!("{first}\n")).unwrap();
    assert_eq!(pending(), Some(first));
    // Killed when the branch had moved, before it was marked; and more has landed since.
    let mark = branch.published().unwrap();
    source
        .publish(&mirror, BRANCH, second, mark, &someone())
        .unwrap();
    std::fs::write(&note, second.to_string()).unwrap();
    let third = change(&mirror, second, 1, "third");
    branch.advance(Some(first), third).unwrap();
    assert_eq!(pending(), Some(third));
    assert_eq!(source.branch(BRANCH).unwrap(), Some(third));
    // A lock of somebody else stays.
    std::fs::write(&note, third.to_string()).unwrap();
    std::fs::write(&lock, format!("{first}\n")).unwrap();
    let fourth = change(&mirror, third, 1, "fourth");
    branch.advance(Some(third), fourth).unwrap();
    assert!(branch.publish_pending(&source, &someone()).is_err());
    assert!(lock.exists());
}

#[test]
fn work_that_landed_and_was_not_published_is_published_once_by_the_next_process() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let first = change(&mirror, repo.head(), 1, "first");
    let second = change(&mirror, first, 1, "second");
    let branch = IntegrationBranch::new(mirror.clone(), BRANCH);
    let pending = || branch.publish_pending(&source, &someone()).unwrap();
    assert_eq!(pending(), None, "nothing has landed");
    // Never published before, then published before.
    for (seen, next) in [(None, first), (Some(first), second)] {
        branch.advance(seen, next).unwrap();
        assert_eq!(pending(), Some(next));
        assert_eq!(source.branch(BRANCH).unwrap(), Some(next));
        assert_eq!(branch.published().unwrap(), Some(next));
        assert_eq!(pending(), None);
    }
    // The branch was moved, and only the mark is missing.
    let third = change(&mirror, second, 1, "third");
    branch.advance(Some(second), third).unwrap();
    source
        .publish(&mirror, BRANCH, third, Some(second), &someone())
        .unwrap();
    assert_eq!(pending(), Some(third));
    assert_eq!(branch.published().unwrap(), Some(third));
}

// docs/bad-input.md: `skep/integration` is deleted
// docs/bad-input.md: `skep/integration` is moved by the user
#[test]
fn a_branch_that_a_person_moved_or_deleted_before_work_was_published_is_left_alone() {
    for deleted in [false, true] {
        let repo = Repo::started();
        let (source, mirror) = repo.fetched();
        let first = change(&mirror, repo.head(), 1, "first");
        let second = change(&mirror, first, 1, "second");
        let branch = IntegrationBranch::new(mirror.clone(), BRANCH);
        branch.advance(None, first).unwrap();
        branch.publish_pending(&source, &someone()).unwrap();
        branch.advance(Some(first), second).unwrap();
        if deleted {
            repo.git(&["branch", "--quiet", "-D", BRANCH]);
        } else {
            repo.git(&["update-ref", &format!("refs/heads/{BRANCH}"), "HEAD"]);
        }
        let before = source.branch(BRANCH).unwrap();
        assert_eq!(branch.publish_pending(&source, &someone()).unwrap(), None);
        assert_eq!(source.branch(BRANCH).unwrap(), before);
        assert_eq!(branch.recorded().unwrap(), Some(second), "nothing is lost");
    }
}

// docs/bad-input.md: `skep/integration` is checked out: `skep run`
#[test]
fn a_branch_that_is_checked_out_anywhere_is_not_moved() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let first = change(&mirror, repo.head(), 1, "first");
    let second = change(&mirror, first, 1, "second");
    source
        .publish(&mirror, BRANCH, first, None, &someone())
        .unwrap();
    repo.git(&["worktree", "add", "--quiet", "../linked", BRANCH]);
    let outcome = source
        .publish(&mirror, BRANCH, second, Some(first), &someone())
        .unwrap();
    assert!(
        matches!(outcome, Published::CheckedOut { .. }),
        "{outcome:?}"
    );
    let outcome = source.drop_branch(BRANCH, first, &someone()).unwrap();
    assert!(
        matches!(outcome, Published::CheckedOut { .. }),
        "{outcome:?}"
    );
    repo.git(&["worktree", "remove", "../linked"]);
    repo.git(&["checkout", "--quiet", BRANCH]);
    let outcome = source
        .publish(&mirror, BRANCH, second, Some(first), &someone())
        .unwrap();
    assert!(
        matches!(outcome, Published::CheckedOut { .. }),
        "{outcome:?}"
    );
    assert_eq!(source.branch(BRANCH).unwrap(), Some(first));
    repo.git(&["checkout", "--quiet", "main"]);
    assert_eq!(
        source
            .publish(&mirror, BRANCH, second, Some(first), &someone())
            .unwrap(),
        Published::Done
    );
}

#[test]
fn what_a_process_left_that_was_killed_while_it_dropped_the_branch_is_taken_away() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let first = change(&mirror, repo.head(), 1, "first");
    let branch = IntegrationBranch::new(mirror.clone(), BRANCH);
    let note = mirror
        .directory()
        .join(format!("publishing-{}", BRANCH.replace('/', ":")));
    let lock = repo.path.join(format!(".git/refs/heads/{BRANCH}.lock"));
    let packed = repo.path.join(".git/packed-refs.lock");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    let empty = |path: &std::path::Path| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = std::fs::File::create(path).unwrap();
        file.set_modified(old).unwrap();
    };
    branch.advance(None, first).unwrap();
    branch.publish(&source, None, first, &someone()).unwrap();
    repo.git(&["pack-refs", "--all"]);
    // Killed when it had both locks, and had written what is to be packed.
    std::fs::write(&note, format!("drop {first}")).unwrap();
    empty(&lock);
    let content = std::fs::read(repo.path.join(".git/packed-refs")).unwrap();
    std::fs::write(&packed, content).unwrap();
    let dropped = branch.drop_branch(&source, first, &someone()).unwrap();
    assert_eq!(dropped, Published::Done);
    assert_eq!(source.branch(BRANCH).unwrap(), None);
    // Killed before it had written anything; the next one publishes.
    std::fs::write(&note, format!("drop {first}")).unwrap();
    empty(&lock);
    empty(&packed);
    branch.publish(&source, None, first, &someone()).unwrap();
    assert_eq!(source.branch(BRANCH).unwrap(), Some(first));
    assert!(!packed.exists() && !lock.exists());
    // Locks of somebody else stay where nothing was left.
    empty(&packed);
    assert!(branch.drop_branch(&source, first, &someone()).is_err());
    assert!(packed.exists());
}

#[test]
fn publishing_from_a_linked_worktree_moves_the_shared_branch() {
    let repo = Repo::started();
    repo.git(&["worktree", "add", "--quiet", "../linked", "-b", "side"]);
    let source =
        skep_git::Source::discover(&repo.dir.path().join("linked"), crate::repo::program())
            .unwrap();
    let mirror = repo.mirror();
    mirror.fetch(&source, source.head().commit).unwrap();
    let new = change(&mirror, source.head().commit, 2, "x");
    assert_eq!(
        source
            .publish(&mirror, BRANCH, new, None, &someone())
            .unwrap(),
        Published::Done
    );
    assert_eq!(repo.git(&["rev-parse", BRANCH]), new.to_string());
}

#[test]
fn dropping_removes_the_branch_wherever_git_keeps_it() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let new = change(&mirror, repo.head(), 1, "x");
    for packed in [false, true] {
        source
            .publish(&mirror, BRANCH, new, None, &someone())
            .unwrap();
        if packed {
            repo.git(&["pack-refs", "--all"]);
        }
        let other = repo.head();
        assert_eq!(
            source.drop_branch(BRANCH, other, &someone()).unwrap(),
            Published::Moved { actual: Some(new) }
        );
        assert_eq!(
            source.drop_branch(BRANCH, new, &someone()).unwrap(),
            Published::Done
        );
        assert_eq!(
            repo.git(&["for-each-ref", "--format=%(refname)"]),
            "refs/heads/main"
        );
    }
}

#[test]
fn a_lock_of_another_process_and_a_taken_name_are_errors() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let new = change(&mirror, repo.head(), 1, "x");
    repo.write(".git/refs/heads/skep/integration.lock", b"");
    assert!(
        source
            .publish(&mirror, BRANCH, new, None, &someone())
            .is_err()
    );
    std::fs::remove_dir_all(repo.path.join(".git/refs/heads/skep")).unwrap();
    repo.git(&["branch", "skep"]);
    assert!(
        source
            .publish(&mirror, BRANCH, new, None, &someone())
            .is_err()
    );
    assert!(
        source
            .publish(&mirror, "HEAD", new, None, &someone())
            .is_err()
    );
    assert!(
        source
            .publish(&mirror, "../main", new, None, &someone())
            .is_err()
    );
    run(git_in(&repo.path, &["fsck"]));
}

#[test]
fn whoever_was_lost_and_still_runs_lands_nothing_once_somebody_has_taken_over() {
    let repo = Repo::started();
    let (_, mirror) = repo.fetched();
    let first = change(&mirror, repo.head(), 1, "first");
    let second = change(&mirror, first, 1, "second");
    let branch = IntegrationBranch::new(mirror.clone(), BRANCH);
    branch.hold(1).unwrap();
    branch.land(None, first, 1).unwrap();
    branch.hold(2).unwrap();
    let late = branch.land(Some(first), second, 1);
    assert!(
        matches!(late, Err(skep_git::Error::Fenced { .. })),
        "{late:?}"
    );
    assert_eq!(branch.recorded().unwrap(), Some(first));
    branch.land(Some(first), second, 2).unwrap();
    assert_eq!(branch.recorded().unwrap(), Some(second));
}
