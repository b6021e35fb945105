//! Fetching into the mirror.

use std::process::{Command, Stdio};

use bstr::ByteSlice;
use skep_git::{CommitId, Error, Mirror, Source};

use crate::repo::{Repo, differences, everything, git_in, program, run};

#[test]
fn a_fetched_commit_has_its_history_and_nothing_of_other_branches() {
    let repo = Repo::started();
    repo.git(&["branch", "before"]);
    repo.git(&["checkout", "--quiet", "-b", "other"]);
    repo.write("secret", b"elsewhere");
    let other = repo.commit("other");
    repo.git(&["checkout", "--quiet", "main"]);
    repo.write("a.txt", b"changed\n");
    let head = repo.commit("second");
    let (_source, mirror) = repo.fetched();
    assert!(mirror.contains(head) && !mirror.contains(other));
    assert_eq!(
        run(git_in(
            mirror.directory(),
            &["rev-list", "--count", &head.to_string()]
        ))
        .trim(),
        b"2"
    );
    run(git_in(
        mirror.directory(),
        &["fsck", "--full", "--strict", "--no-dangling"],
    ));
    assert_eq!(
        mirror.read(head, "a.txt".into(), 100).unwrap().unwrap(),
        b"changed\n"
    );
    assert_eq!(mirror.read(head, "a.txt/x".into(), 100).unwrap(), None);
    assert!(matches!(
        mirror.read(head, "a.txt".into(), 3),
        Err(Error::TooLarge { .. })
    ));
}

#[test]
fn a_second_fetch_starts_no_process() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    // A directory without git: any start of a process would fail.
    let nowhere = tempfile::tempdir().unwrap();
    let stub = nowhere.path().join("git");
    crate::repo::write_executable(&stub, "#!/bin/sh\nexit 1\n");
    let without = skep_git::Program::find(nowhere.path().as_os_str()).unwrap();
    let again = Mirror::open_or_create(mirror.directory(), without).unwrap();
    again.fetch(&source, source.head().commit).unwrap();
}

#[test]
fn fetching_leaves_the_repository_as_it_is_and_runs_nothing_of_it() {
    let repo = Repo::started();
    repo.write("dirty", b"x");
    let trace = repo.set_traps();
    let before = everything(&repo.path);
    let (source, mirror) = repo.fetched();
    mirror
        .checkout(
            repo.source().head().commit,
            &repo.dir.path().join("base"),
            Some(&source),
        )
        .unwrap();
    source.uncommitted().unwrap();
    source.resolve("HEAD~0").unwrap();
    mirror
        .snapshot_uncommitted(&source, &crate::repo::someone())
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
}

#[test]
fn each_later_commit_adds_only_what_is_new() {
    let repo = Repo::started();
    repo.fetched();
    let mut sizes = Vec::new();
    for i in 0..45 {
        repo.write("a.txt", format!("{i}").as_bytes());
        repo.commit("next");
        let (_source, mirror) = repo.fetched();
        let base = repo.dir.path().join(format!("base{i}"));
        mirror.checkout(repo.head(), &base, None).unwrap();
        let packs = std::fs::read_dir(base.join(".git/objects/pack"))
            .unwrap()
            .count()
            / 2;
        sizes.push(packs);
        assert_eq!(
            run(git_in(&base, &["rev-list", "--count", "HEAD"])).trim(),
            format!("{}", i + 2).as_bytes()
        );
    }
    assert!(sizes.iter().all(|packs| *packs <= 40), "{sizes:?}");
    assert!(sizes.contains(&2));
}

#[test]
fn a_shallow_clone_stays_shallow_and_can_be_deepened() {
    let origin = Repo::started();
    for i in 0..5 {
        origin.write("a.txt", format!("{i}").as_bytes());
        origin.commit("more");
    }
    let repo = Repo::new();
    std::fs::remove_dir_all(&repo.path).unwrap();
    let url = format!("file://{}", origin.path.display());
    run(git_in(
        repo.dir.path(),
        &["clone", "--quiet", "--depth=2", &url, "user"],
    ));
    let (source, mirror) = repo.fetched();
    let base = repo.dir.path().join("base");
    mirror.checkout(repo.head(), &base, Some(&source)).unwrap();
    assert_eq!(
        run(git_in(&base, &["rev-list", "--count", "HEAD"])).trim(),
        b"2"
    );
    assert_eq!(
        run(git_in(&base, &["rev-parse", "--is-shallow-repository"])).trim(),
        b"true"
    );
    run(git_in(&base, &["fsck", "--full"]));

    repo.git(&["fetch", "--quiet", "--unshallow"]);
    let source = repo.source();
    mirror.fetch(&source, repo.head()).unwrap();
    let deep = repo.dir.path().join("deep");
    mirror.checkout(repo.head(), &deep, None).unwrap();
    assert_eq!(
        run(git_in(&deep, &["rev-list", "--count", "HEAD"])).trim(),
        b"6"
    );
    assert_eq!(
        run(git_in(&deep, &["rev-parse", "--is-shallow-repository"])).trim(),
        b"false"
    );
    run(git_in(&deep, &["fsck", "--full"]));
}

#[test]
fn objects_behind_alternates_are_found() {
    let origin = Repo::started();
    let repo = Repo::new();
    std::fs::remove_dir_all(&repo.path).unwrap();
    run(git_in(
        repo.dir.path(),
        &[
            "clone",
            "--quiet",
            "--shared",
            origin.path.to_str().unwrap(),
            "user",
        ],
    ));
    let (_source, mirror) = repo.fetched();
    run(git_in(mirror.directory(), &["fsck", "--full"]));
    assert!(!mirror.directory().join("objects/info/alternates").exists());
}

#[test]
fn a_partial_clone_is_fetched_as_far_as_it_goes() {
    let origin = Repo::started();
    origin.git(&["config", "uploadpack.allowFilter", "true"]);
    origin.write("a.txt", b"newer\n");
    origin.commit("second");
    let repo = Repo::new();
    std::fs::remove_dir_all(&repo.path).unwrap();
    let url = format!("file://{}", origin.path.display());
    run(git_in(
        repo.dir.path(),
        &["clone", "--quiet", "--filter=blob:none", &url, "user"],
    ));
    let (source, mirror) = repo.fetched();
    let base = repo.dir.path().join("base");
    mirror.checkout(repo.head(), &base, Some(&source)).unwrap();
    assert_eq!(std::fs::read(base.join("a.txt")).unwrap(), b"newer\n");
    assert_eq!(run(git_in(&base, &["status", "--porcelain"])), b"");
}

#[test]
fn a_commit_that_is_nowhere_is_a_typed_error() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let nobody: CommitId = "1234567890123456789012345678901234567890".parse().unwrap();
    assert!(matches!(
        mirror.fetch(&source, nobody),
        Err(Error::Missing { .. })
    ));
}

/// Not a promise by itself: what the next test starts twice.
#[test]
fn a_child_process_fetches_when_it_is_told_where() {
    let (Some(user), Some(mirror)) = (
        std::env::var_os("SKEP_TEST_USER"),
        std::env::var_os("SKEP_TEST_MIRROR"),
    ) else {
        return;
    };
    let source = Source::discover(user.as_ref(), program()).unwrap();
    let mirror = Mirror::open_or_create(mirror.as_ref(), program()).unwrap();
    let base = mirror
        .directory()
        .parent()
        .unwrap()
        .join(format!("base-{}", std::process::id()));
    mirror
        .checkout(source.head().commit, &base, Some(&source))
        .unwrap();
}

#[test]
fn several_processes_fetch_at_once_into_one_mirror() {
    let repo = Repo::started();
    for i in 0..200 {
        repo.write(format!("many/{i}"), format!("{i}").as_bytes());
    }
    repo.commit("many");
    let mirror = repo.dir.path().join("mirror");
    let children: Vec<_> = (0..4)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "fetch::a_child_process_fetches_when_it_is_told_where",
                ])
                .env("SKEP_TEST_USER", &repo.path)
                .env("SKEP_TEST_MIRROR", &mirror)
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let bases: Vec<_> = std::fs::read_dir(repo.dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            p.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("base-")
        })
        .collect();
    assert_eq!(bases.len(), 4);
    let packs = std::fs::read_dir(mirror.join("objects/pack"))
        .unwrap()
        .count();
    assert_eq!(packs, 2, "one pack and its index, whoever was first");
    for base in bases {
        assert_eq!(run(git_in(&base, &["status", "--porcelain"])), b"");
    }
}

#[test]
fn a_reference_moves_only_from_where_it_was_expected() {
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let first = repo.head();
    let second = repo.commit("second");
    repo.fetched();
    let name = "refs/skep/integration/main";
    assert_eq!(mirror.read_ref(name).unwrap(), None);
    mirror.update_ref(name, Some(first), None).unwrap();
    let error = mirror.update_ref(name, Some(second), None).unwrap_err();
    assert!(
        matches!(error, Error::Moved { actual: Some(id), .. } if id == first),
        "{error}"
    );
    mirror.update_ref(name, Some(second), Some(first)).unwrap();
    assert_eq!(mirror.read_ref(name).unwrap(), Some(second));
    assert_eq!(
        run(git_in(mirror.directory(), &["rev-parse", name])).trim(),
        second.to_string().as_bytes()
    );
    mirror.update_ref(name, None, Some(second)).unwrap();
    assert_eq!(mirror.read_ref(name).unwrap(), None);
    for bad in [
        "refs/heads/main",
        "HEAD",
        "refs/skep/../x",
        "refs/skep/",
        "../x",
        "refs/skep/a.lock",
    ] {
        assert!(
            matches!(mirror.read_ref(bad), Err(Error::BadReference { .. })),
            "{bad} was taken"
        );
    }
}

#[test]
fn of_many_writers_of_one_reference_one_wins_each_round() {
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let first = repo.head();
    let commits: Vec<_> = (0..8).map(|i| repo.commit(&format!("c{i}"))).collect();
    repo.fetched();
    mirror.update_ref("refs/skep/x", Some(first), None).unwrap();
    let won = std::thread::scope(|scope| {
        let threads: Vec<_> = commits
            .iter()
            .map(|commit| {
                let mirror = repo.mirror();
                scope.spawn(move || {
                    mirror
                        .update_ref("refs/skep/x", Some(*commit), Some(first))
                        .is_ok()
                })
            })
            .collect();
        threads
            .into_iter()
            .filter(|_| true)
            .map(|t| t.join().unwrap())
            .filter(|won| *won)
            .count()
    });
    assert_eq!(won, 1);
}

/// Cuts the packs, or all that the mirror has, to nothing or to a half.
pub(crate) fn damage(mirror: &Mirror, half: bool) {
    let mut open = vec![mirror.directory().join("objects")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            let keep = if half { content.len() / 2 } else { 0 };
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &content[..keep]).unwrap();
        }
    }
}

#[test]
fn what_of_the_mirror_cannot_be_read_is_fetched_again() {
    for half in [false, true] {
        let repo = Repo::started();
        let (_, before) = repo.fetched();
        repo.write("later", b"later\n");
        let head = repo.commit("later");
        repo.fetched();
        damage(&before, half);
        let (source, mirror) = (repo.source(), repo.mirror());
        mirror.fetch(&source, head).unwrap();
        let read = mirror.read(head, "later".into(), 100).unwrap();
        assert_eq!(read.unwrap(), b"later\n");
        run(git_in(
            mirror.directory(),
            &["fsck", "--full", "--strict", "--no-dangling"],
        ));
    }
}

#[test]
fn a_damaged_object_that_the_repository_has_again_is_taken_from_there() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    repo.write("later", b"later\n");
    let head = repo.commit("later");
    let name = head.to_string();
    let shelf = mirror.directory().join("objects").join(&name[..2]);
    std::fs::create_dir_all(&shelf).unwrap();
    std::fs::write(shelf.join(&name[2..]), b"").unwrap();
    drop(source);
    mirror.fetch(&repo.source(), head).unwrap();
    let read = mirror.read(head, "later".into(), 100).unwrap();
    assert_eq!(read.unwrap(), b"later\n");
}

#[test]
fn a_damaged_mirror_that_cannot_be_mended_is_named_with_what_to_do() {
    let repo = Repo::started();
    let (source, mirror) = repo.fetched();
    let head = source.head().commit;
    // The repository lost its objects as well, all but the newest commit.
    let tree = mirror.tree_of(head).unwrap().to_string();
    damage(&mirror, false);
    let object = repo.path.join(".git/objects").join(&tree[..2]);
    std::fs::remove_file(object.join(&tree[2..])).unwrap();
    let error = repo.mirror().fetch(&repo.source(), head).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains(&mirror.directory().display().to_string()),
        "{said}"
    );
    assert!(said.contains("may be removed"), "{said}");
}
