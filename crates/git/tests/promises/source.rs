//! Finding the user's repository and looking at it.

use bstr::BString;
use skep_git::{Error, Source, StatusKind};

use crate::repo::{Repo, differences, everything, git_in, program, run, someone};

#[test]
fn a_repository_is_found_from_below_and_from_linked_worktrees() {
    let repo = Repo::started();
    let source = Source::discover(&repo.path.join("dir/deep"), program()).unwrap();
    assert_eq!(source.top(), repo.path.canonicalize().unwrap());
    assert_eq!(source.head().branch, Some("main".into()));
    assert_eq!(source.head().commit, repo.head());
    repo.git(&["worktree", "add", "--quiet", "../linked", "-b", "side"]);
    let linked = Source::discover(&repo.dir.path().join("linked/dir"), program()).unwrap();
    assert_eq!(linked.common_dir(), source.common_dir());
    assert_eq!(linked.head().branch, Some("side".into()));
    assert_ne!(linked.git_dir(), source.git_dir());
    repo.git(&["checkout", "--quiet", "--detach"]);
    assert_eq!(repo.source().head().branch, None);
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let discover = |path: &std::path::Path| Source::discover(path, program()).err().unwrap();
    assert!(matches!(discover(dir.path()), Error::NotARepository { .. }));
    let make = |name: &str, args: &[&str]| {
        let mut all = vec!["init", "--quiet"];
        all.extend(args);
        all.push(name);
        run(git_in(dir.path(), &all));
        dir.path().join(name)
    };
    assert!(matches!(
        discover(&make("unborn", &[])),
        Error::NoCommits { .. }
    ));
    assert!(matches!(
        discover(&make("bare", &["--bare"])),
        Error::Bare { .. }
    ));
    assert!(matches!(
        discover(&make("long", &["--object-format=sha256"])),
        Error::Unsupported { .. }
    ));
    let table = git_in(
        dir.path(),
        &["init", "--quiet", "--ref-format=reftable", "table"],
    )
    .output()
    .unwrap();
    if table.status.success() {
        assert!(matches!(
            discover(&dir.path().join("table")),
            Error::Unsupported { .. }
        ));
    }
}

#[test]
fn a_revision_is_resolved_as_git_does() {
    let repo = Repo::started();
    let first = repo.head();
    repo.git(&["tag", "-a", "v1", "-m", "x"]);
    let second = repo.commit("second");
    let source = repo.source();
    assert_eq!(source.resolve("v1").unwrap(), first);
    assert_eq!(source.resolve("HEAD~1").unwrap(), first);
    assert_eq!(source.resolve(&second.to_string()[..10]).unwrap(), second);
    assert!(matches!(
        source.resolve("nope"),
        Err(Error::UnknownRevision { .. })
    ));
    assert!(matches!(
        source.resolve("HEAD:a.txt"),
        Err(Error::UnknownRevision { .. })
    ));
}

#[test]
fn uncommitted_work_is_listed_without_touching_anything() {
    let repo = Repo::started();
    repo.write(".gitignore", b"ignored\n");
    repo.commit("ignore");
    repo.write("a.txt", b"changed\n");
    repo.write("staged \"name\"\n", b"x");
    repo.git(&["add", "--", "staged \"name\"\n"]);
    repo.write("untracked dir/file", b"x");
    repo.write("ignored", b"x");
    std::fs::remove_file(repo.path.join("dir/b.txt")).unwrap();
    // Same content, new time: `git status` would refresh the index.
    repo.write("dir/deep/c.txt", b"c\n");
    let trace = repo.set_traps();
    let before = everything(&repo.path);
    let found: Vec<_> = repo
        .source()
        .uncommitted()
        .unwrap()
        .into_iter()
        .map(|e| (e.path, e.kind, e.staged))
        .collect();
    let entry = |path: &str, kind, staged| (BString::from(path), kind, staged);
    assert_eq!(
        found,
        [
            entry("a.txt", StatusKind::Changed, false),
            entry("dir/b.txt", StatusKind::Deleted, false),
            entry("staged \"name\"\n", StatusKind::Added, true),
            entry("untracked dir/file", StatusKind::Untracked, false),
        ]
    );
    assert_eq!(
        differences(&repo.path, &before, &everything(&repo.path)),
        [""; 0]
    );
    assert!(
        !trace.exists(),
        "{}",
        std::fs::read_to_string(&trace).unwrap()
    );
}

#[test]
fn a_snapshot_holds_the_uncommitted_work_and_leaves_the_repository_as_it_is() {
    let repo = Repo::started();
    repo.write(".gitignore", b"ignored\n");
    let head = repo.commit("ignore");
    let mirror = repo.mirror();
    assert_eq!(
        mirror
            .snapshot_uncommitted(&repo.source(), &someone())
            .unwrap(),
        head
    );
    repo.write("staged", b"staged\n");
    repo.git(&["add", "staged"]);
    repo.write("a.txt", b"changed\n");
    repo.write("new/file", b"new\n");
    repo.write("ignored", b"x");
    std::fs::remove_file(repo.path.join("dir/b.txt")).unwrap();
    let trace = repo.set_traps();
    let before = everything(&repo.path);
    let commit = mirror
        .snapshot_uncommitted(&repo.source(), &someone())
        .unwrap();
    assert_eq!(
        differences(&repo.path, &before, &everything(&repo.path)),
        [""; 0]
    );
    assert!(
        !trace.exists(),
        "{}",
        std::fs::read_to_string(&trace).unwrap()
    );
    let paths: Vec<_> = mirror
        .changed_paths(
            mirror.tree_of(head).unwrap(),
            mirror.tree_of(commit).unwrap(),
        )
        .unwrap()
        .into_iter()
        .map(|c| c.path.to_string())
        .collect();
    assert_eq!(paths, ["a.txt", "dir/b.txt", "new/file", "staged"]);
    let base = repo.dir.path().join("base");
    mirror.checkout(commit, &base, None).unwrap();
    assert_eq!(std::fs::read(base.join("staged")).unwrap(), b"staged\n");
    run(git_in(&base, &["fsck", "--full"]));
}

#[test]
fn another_owners_repository_needs_the_users_word() {
    let me = std::fs::metadata("/proc/self")
        .map(|m| std::os::unix::fs::MetadataExt::uid(&m))
        .unwrap();
    assert_eq!(
        me, 0,
        "only root can make a repository of another owner: run this test as root, or in \
         `unshare --map-auto --map-root-user`"
    );
    let repo = Repo::started();
    run({
        let mut c = std::process::Command::new("chown");
        c.args(["-R", "12345:12345"]).arg(&repo.path);
        c
    });
    let outcome = Source::discover(&repo.path, program());
    assert!(
        matches!(outcome, Err(Error::NotTrusted { .. })),
        "{:?}",
        outcome.err()
    );
}
