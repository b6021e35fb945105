//! A base is a complete checkout, byte for byte, whatever is in the repository.

use std::os::unix::fs::PermissionsExt;

use bstr::ByteSlice;
use skep_git::{Error, Mirror};

use crate::repo::{Repo, git_in, os, raw_tree, run};

fn base(repo: &Repo, mirror: &Mirror) -> std::path::PathBuf {
    let into = repo.dir.path().join(format!("base-{}", repo.head()));
    mirror
        .checkout(repo.head(), &into, Some(&repo.source()))
        .unwrap();
    into
}

#[test]
fn a_base_is_a_clean_checkout_on_its_own_branch_with_a_valid_index() {
    let repo = Repo::started();
    repo.git(&["tag", "v1"]);
    repo.git(&[
        "remote",
        "add",
        "origin",
        "https://user:secret@example.invalid/x",
    ]);
    let mirror = repo.mirror();
    let base = base(&repo, &mirror);
    let git = |args: &[&str]| {
        String::from_utf8(run(git_in(&base, args)))
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert_eq!(
        git(&["status", "--porcelain=v2", "--branch"])
            .lines()
            .next()
            .unwrap(),
        format!("# branch.oid {}", repo.head())
    );
    assert_eq!(git(&["symbolic-ref", "HEAD"]), "refs/heads/skep/work");
    assert_eq!(
        git(&["for-each-ref", "--format=%(refname)"]),
        "refs/heads/skep/work"
    );
    assert_eq!(git(&["remote"]), "");
    assert_eq!(git(&["status", "--porcelain", "--ignored"]), "");
    assert_eq!(
        git(&["diff-files", "--name-only"]),
        "",
        "the index knows the files without reading them"
    );
    assert!(
        !base.join(".git/logs").exists() && !base.join(".git/objects/info/alternates").exists()
    );
    git(&["fsck", "--full", "--strict"]);
    // As an agent works: nothing but what is in the base is needed.
    std::fs::write(base.join("new"), b"x").unwrap();
    git(&["add", "new"]);
    run({
        let mut c = std::process::Command::new("git");
        c.current_dir(&base)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", "/nonexistent");
        c.args(["commit", "--quiet", "-m", "mine"]);
        c
    });
    assert_eq!(
        git(&["log", "-1", "--format=%an <%ae>"]),
        "Skep agent <agent@skep.invalid>"
    );
}

#[test]
fn the_index_holds_what_git_would_write() {
    let repo = Repo::started();
    repo.write(format!("long/{}", "x".repeat(200)), b"y");
    repo.write("seven77", b"padding");
    repo.write("eight888", b"padding");
    repo.commit("names of all lengths");
    let mirror = repo.mirror();
    let base = base(&repo, &mirror);
    let list = |dir| run(git_in(dir, &["ls-files", "--stage", "-z"]));
    assert_eq!(list(&base), list(&repo.path));
    // A broken cache tree would give another tree.
    assert_eq!(
        run(git_in(&base, &["write-tree"])).trim(),
        mirror.tree_of(repo.head()).unwrap().to_string().as_bytes()
    );
}

#[test]
fn an_edit_right_after_the_checkout_is_seen_even_with_the_same_size() {
    let repo = Repo::started();
    let mirror = repo.mirror();
    let base = base(&repo, &mirror);
    std::fs::write(base.join("a.txt"), b"ONE\ntwo\nthree\n").unwrap();
    assert_eq!(
        run(git_in(&base, &["status", "--porcelain"])),
        b" M a.txt\n"
    );
}

// docs/bad-input.md: Pointers of git LFS
// docs/bad-input.md: CRLF, and `.gitattributes`
#[test]
fn files_are_byte_for_byte_whatever_attributes_say() {
    let repo = Repo::new();
    repo.git(&["config", "core.autocrlf", "false"]);
    repo.write("crlf.txt", b"one\r\ntwo\r\n");
    repo.write("id.c", b"$Id$\n");
    repo.write(
        "big.bin",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    );
    repo.write("utf16.txt", b"text");
    repo.commit("content first");
    repo.write(
        ".gitattributes",
        b"*.txt text eol=crlf\n*.c ident\n*.bin filter=lfs diff=lfs merge=lfs -text\nutf16.txt working-tree-encoding=UTF-16\n* filter=evil\n",
    );
    repo.git(&["add", ".gitattributes"]);
    repo.git(&["commit", "--quiet", "-m", "attributes later"]);
    repo.write("sub/.gitattributes", b"* eol=lf\n");
    repo.write("sub/dos.txt", b"x\r\n");
    repo.git(&[
        "-c",
        "core.attributesFile=/dev/null",
        "add",
        "sub/.gitattributes",
    ]);
    let blob = run(git_in(
        &repo.path,
        &["hash-object", "-w", "--no-filters", "sub/dos.txt"],
    ));
    repo.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("100644,{},sub/dos.txt", blob.trim().to_str().unwrap()),
    ]);
    repo.git(&["commit", "--quiet", "-m", "more"]);
    let mirror = repo.mirror();
    let base = base(&repo, &mirror);
    for (file, content) in [
        ("crlf.txt", &b"one\r\ntwo\r\n"[..]),
        ("id.c", b"$Id$\n"),
        ("utf16.txt", b"text"),
        ("sub/dos.txt", b"x\r\n"),
        (
            "big.bin",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        ),
    ] {
        assert_eq!(std::fs::read(base.join(file)).unwrap(), content, "{file}");
    }
    // Touch everything, so that git must compare the content again.
    for entry in ["crlf.txt", "id.c", "utf16.txt", "sub/dos.txt", "big.bin"] {
        let file = std::fs::File::options()
            .append(true)
            .open(base.join(entry))
            .unwrap();
        file.set_modified(std::time::SystemTime::now()).unwrap();
    }
    assert_eq!(run(git_in(&base, &["status", "--porcelain"])), b"");
}

// docs/bad-input.md: Submodules
// docs/bad-input.md: Links that lead out of the tree
// docs/bad-input.md: Names with line breaks, or that are not UTF-8
#[test]
fn strange_names_links_and_submodules_are_checked_out() {
    let repo = Repo::new();
    repo.write("Case", b"1");
    repo.write("case", b"2");
    repo.write(os(b"new\nline"), b"3");
    repo.write(os(b"\xff\xfe/\x80"), b"4");
    repo.write("run.sh", b"#!/bin/sh\n");
    std::fs::set_permissions(repo.path.join("run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    for (name, target) in [
        ("dangling", "nowhere"),
        ("absolute", "/etc/passwd"),
        ("out", "../../../../out"),
        ("dir", "."),
    ] {
        std::os::unix::fs::symlink(target, repo.path.join(name)).unwrap();
    }
    let pin = "1111111111111111111111111111111111111111";
    repo.git(&["add", "--all"]);
    repo.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{pin},lib/sub"),
    ]);
    repo.git(&["commit", "--quiet", "-m", "strange"]);
    let mirror = repo.mirror();
    let base = base(&repo, &mirror);
    assert_eq!(std::fs::read(base.join(os(b"new\nline"))).unwrap(), b"3");
    assert_eq!(
        std::fs::read(base.join(os(b"\xff\xfe/\x80"))).unwrap(),
        b"4"
    );
    assert_eq!(
        (
            std::fs::read(base.join("Case")).unwrap(),
            std::fs::read(base.join("case")).unwrap()
        ),
        (b"1".into(), b"2".into())
    );
    assert_eq!(
        base.join("run.sh").metadata().unwrap().permissions().mode() & 0o111,
        0o111
    );
    assert_eq!(
        std::fs::read_link(base.join("absolute")).unwrap(),
        std::path::Path::new("/etc/passwd")
    );
    assert_eq!(
        std::fs::read_link(base.join("out")).unwrap(),
        std::path::Path::new("../../../../out")
    );
    assert_eq!(std::fs::read_dir(base.join("lib/sub")).unwrap().count(), 0);
    assert_eq!(run(git_in(&base, &["status", "--porcelain"])), b"");
    assert!(run(git_in(&base, &["ls-files", "--stage", "lib/sub"])).starts_with(b"160000 1111"));
}

#[test]
fn trees_that_would_write_outside_or_into_dot_git_are_refused() {
    let repo = Repo::started();
    let blob = repo.git(&["rev-parse", "HEAD:a.txt"]);
    let inner = raw_tree(&repo, &[("100644", b"config", &blob)]);
    let link = {
        repo.write("l", b"/tmp");
        repo.git(&["hash-object", "-w", "l"])
    };
    let cases: Vec<(&str, String)> = vec![
        (".git", raw_tree(&repo, &[("40000", b".git", &inner)])),
        (".GIT", raw_tree(&repo, &[("40000", b".GIT", &inner)])),
        ("git~1", raw_tree(&repo, &[("40000", b"git~1", &inner)])),
        ("..", raw_tree(&repo, &[("40000", b"..", &inner)])),
        (
            "slash",
            raw_tree(&repo, &[("100644", b"../../escaped", &blob)]),
        ),
        (
            "a link and a directory of one name",
            raw_tree(&repo, &[("120000", b"x", &link), ("40000", b"x", &inner)]),
        ),
        (
            "a file twice",
            raw_tree(&repo, &[("100644", b"x", &blob), ("100644", b"x", &blob)]),
        ),
    ];
    for (what, tree) in cases {
        let commit = repo.git(&["commit-tree", &tree, "-m", what]);
        repo.git(&["update-ref", "HEAD", &commit]);
        let into = repo.dir.path().join("hostile");
        let outcome = repo
            .mirror()
            .checkout(repo.head(), &into, Some(&repo.source()));
        assert!(outcome.is_err(), "{what} was checked out");
        assert!(!into.exists() && !repo.dir.path().join("escaped").exists());
    }
    let left: Vec<_> = std::fs::read_dir(repo.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.as_encoded_bytes().starts_with(b".skep")),
        "{left:?}"
    );
}

#[test]
fn a_tree_that_unfolds_without_end_is_refused() {
    let repo = Repo::started();
    let blob = repo.git(&["rev-parse", "HEAD:a.txt"]);
    let names: Vec<Vec<u8>> = (0..10).map(|i| format!("d{i}").into_bytes()).collect();
    let mut id = raw_tree(
        &repo,
        &names
            .iter()
            .map(|n| ("100644", n.as_slice(), blob.as_str()))
            .collect::<Vec<_>>(),
    );
    for _ in 0..9 {
        id = raw_tree(
            &repo,
            &names
                .iter()
                .map(|n| ("40000", n.as_slice(), id.as_str()))
                .collect::<Vec<_>>(),
        );
    }
    let commit = repo.git(&["commit-tree", &id, "-m", "bomb"]);
    repo.git(&["update-ref", "HEAD", &commit]);
    let outcome = repo.mirror().checkout(
        repo.head(),
        &repo.dir.path().join("bomb"),
        Some(&repo.source()),
    );
    assert!(
        matches!(outcome, Err(Error::TooManyFiles { .. })),
        "{outcome:?}"
    );
}

#[test]
fn a_base_of_integrated_work_has_that_work_and_no_other() {
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let who = crate::repo::someone();
    let change = |name: &str| {
        let mut writer = mirror.tree_writer(mirror.tree_of(repo.head()).unwrap());
        writer
            .put_file(name.into(), false, &mut name.as_bytes(), name.len() as u64)
            .unwrap();
        let tree = writer.finish().unwrap().tree;
        let parents = [repo.head()];
        mirror
            .commit(&skep_git::NewCommit {
                tree,
                parents: &parents,
                author: &who,
                committer: &who,
                message: name.into(),
            })
            .unwrap()
    };
    let (mine, others) = (change("mine"), change("others"));
    let into = repo.dir.path().join("base");
    mirror.checkout(mine, &into, None).unwrap();
    assert_eq!(std::fs::read(into.join("mine")).unwrap(), b"mine");
    let has = |id: &str| {
        git_in(&into, &["cat-file", "-e", id])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(has(&mine.to_string()) && has(&repo.head().to_string()) && !has(&others.to_string()));
    run(git_in(&into, &["fsck", "--full", "--strict"]));
}
