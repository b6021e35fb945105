//! Repositories in every state and with everything that git can hold: work is done on them, and
//! nothing of them is changed that was not asked for.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use testkit::Repo;
use testkit::models::{Dialect, Job, Script, Step};

use crate::world::{PROMPT, World, before, mending, wrong_answer};

const RUN: [&str; 4] = ["run", "--plan", "none", PROMPT];

/// A model that runs a command and says that it is done.
fn doing(command: &str) -> Script {
    Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(command))
            .step(Step::say("The answer is 42.")),
    )
}

/// What a revision holds: mode, object and path of every file.
fn listing(repo: &Repo, revision: &str) -> Vec<String> {
    let said = repo.git(&["ls-tree", "-r", "-z", revision]);
    said.split('\0')
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect()
}

// docs/bad-input.md: Detached `HEAD`
#[test]
fn a_detached_head_is_worked_on_and_taken_onto() {
    let world = World::simple();
    world.repo.checkout("HEAD~0");
    let was = before(&world.repo);
    world.skep(&RUN).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    was.assert_only_integration(&world.repo.snapshot());
    let main = world.repo.tip("main");
    world.skep(&["apply"]).expect_code(0);
    let answer = fs::read_to_string(world.repo.path().join("answer.txt")).unwrap();
    assert_eq!(answer, "42\n");
    assert_eq!(world.repo.tip("main"), main, "no branch of the user moved");
}

/// A user in the middle of a merge that conflicts in `other.txt`.
fn merging() -> World {
    let repo = wrong_answer();
    repo.branch("side");
    repo.file("other.txt", "mine\n").commit("Mine");
    repo.checkout("side");
    repo.file("other.txt", "theirs\n").commit("Theirs");
    repo.checkout("main");
    assert!(!repo.try_git(&["merge", "side"]).status.success());
    World::new(Dialect::Chat, repo, mending())
}

// docs/bad-input.md: The middle of a merge: `skep run`
// docs/bad-input.md: The middle of a merge: `skep apply`
// docs/bad-input.md: The middle of a merge: `skep run --dirty`
#[test]
fn in_the_middle_of_a_merge_work_starts_from_head_and_is_not_taken() {
    let world = merging();
    let was = before(&world.repo);
    let refused = world
        .skep(&["run", "--dirty", "--plan", "none", PROMPT])
        .expect_code(6);
    assert!(refused.stderr.contains("merge"), "{}", refused.stderr);
    was.assert_same(&world.repo.snapshot());
    let ran = world.skep(&RUN).expect_code(0);
    assert!(ran.stderr.contains("other.txt"), "{}", ran.stderr);
    assert_eq!(world.integrated("other.txt"), "mine\n");
    was.assert_only_integration(&world.repo.snapshot());
    let was = before(&world.repo);
    let refused = world.skep(&["apply"]).expect_code(6);
    assert!(refused.stderr.contains("merge"), "{}", refused.stderr);
    was.assert_same(&world.repo.snapshot());
}

/// A repository with what file systems and other tools find hard.
fn odd() -> Repo {
    let inner = Repo::new();
    inner.file("inner.txt", "of another repository\n");
    inner.commit("Inner");
    let repo = wrong_answer();
    let path = inner.path().to_str().unwrap();
    repo.git(&[
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        path,
        "lib/inner",
    ]);
    repo.file(
        "large.bin",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    );
    repo.symlink("passwords", "/etc/passwd")
        .symlink("out", "../../../elsewhere")
        .symlink("itself", "itself");
    repo.file("Readme", "one\n").file("README", "another\n");
    for name in [&b"new\nline"[..], b"\xff\xfe.bin", b" leading \"quotes\"\t"] {
        fs::write(repo.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    repo.file("dos.txt", "one\r\ntwo\r\n")
        .file("unix.txt", "one\ntwo\n")
        .file("mixed.txt", "one\r\ntwo\nthree\r")
        .file("id.c", "$Id$\n");
    repo.commit("What is odd");
    // From here on git would make something else of these files.
    repo.file(
        ".gitattributes",
        "*.txt text eol=crlf\ndos.txt -text\n*.c ident\n*.bin filter=lfs diff=lfs merge=lfs -text\n\
         answer.txt -text\n",
    );
    repo.git(&["add", ".gitattributes"]);
    repo.git(&["commit", "--quiet", "--message", "Attributes"]);
    // This one has what git would check out here.
    repo.remove("unix.txt");
    repo.git(&["checkout", "--quiet", "--", "unix.txt"]);
    repo
}

// docs/bad-input.md: Submodules
// docs/bad-input.md: Pointers of git LFS
// docs/bad-input.md: Links that lead out of the tree
// docs/bad-input.md: Names that differ only in case
// docs/bad-input.md: Names with line breaks, or that are not UTF-8
// docs/bad-input.md: CRLF, and `.gitattributes`
#[test]
fn what_is_odd_in_a_repository_is_kept_byte_for_byte() {
    let script = doing(
        "echo 42 > answer.txt; printf 'three\\r\\n' >> dos.txt; \
         grep -q $'\\r' unix.txt || echo three >> unix.txt; \
         printf new > \"$(printf 'other\\nline')\"; printf new > \"$(printf 'x\\377')\"; \
         ln -s /etc/hosts hosts; echo other > ANSWER.txt",
    );
    let world = World::new(Dialect::Messages, odd(), script);
    let old = listing(&world.repo, "HEAD");
    let was = before(&world.repo);
    world.skep(&RUN).expect_code(0);
    was.assert_only_integration(&world.repo.snapshot());
    let new = listing(&world.repo, "skep/integration");
    let changed: Vec<&String> = new.iter().filter(|it| !old.contains(it)).collect();
    let names: Vec<&str> = changed
        .iter()
        .map(|it| it.split_once('\t').unwrap().1)
        .collect();
    let lost: Vec<&str> = old
        .iter()
        .filter(|it| !new.contains(it))
        .map(|it| it.split_once('\t').unwrap().1)
        .collect();
    assert_eq!(
        lost,
        ["answer.txt", "dos.txt", "unix.txt"],
        "the others are as they were"
    );
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(!names.contains(&"ANSWER.txt"), "answer.txt is there");
    assert!(
        names.contains(&"other\nline") && names.contains(&"hosts"),
        "{names:?}"
    );
    assert!(
        changed
            .iter()
            .any(|it| it.starts_with("120000") && it.ends_with("hosts"))
    );
    assert_eq!(world.integrated("dos.txt"), "one\r\ntwo\r\nthree\r\n");
    assert_eq!(world.integrated("unix.txt"), "one\ntwo\nthree\n");
    // And taken, the files of the user are these, and no other.
    world.skep(&["apply"]).expect_code(0);
    let read = |name: &[u8]| fs::read(world.repo.path().join(OsStr::from_bytes(name))).unwrap();
    assert_eq!(read(b"dos.txt"), b"one\r\ntwo\r\nthree\r\n");
    assert_eq!(read(b"unix.txt"), b"one\r\ntwo\r\nthree\r\n");
    assert_eq!(read(b"mixed.txt"), b"one\r\ntwo\nthree\r");
    assert_eq!(read(b"id.c"), b"$Id$\n");
    assert_eq!(read(b"x\xff"), b"new");
    assert_eq!(read(b"other\nline"), b"new");
    assert_eq!(read(b"new\nline"), b"new\nline");
    assert_eq!(read(b"lib/inner/inner.txt"), b"of another repository\n");
    assert_eq!(
        fs::read_link(world.repo.path().join("hosts")).unwrap(),
        std::path::Path::new("/etc/hosts")
    );
}

// docs/bad-input.md: 100,000 files in one directory
#[test]
fn a_hundred_thousand_files_in_one_directory_are_kept() {
    let repo = wrong_answer();
    let many = repo.path().join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..100_000 {
        fs::write(many.join(format!("{number:06}")), b"").unwrap();
    }
    repo.commit("Many files");
    let script = doing("echo 42 > answer.txt; rm many/000000; echo 1 > many/000001");
    let world = World::new(Dialect::Chat, repo, script);
    world.skep(&RUN).expect_code(0);
    let tree = world
        .repo
        .git(&["ls-tree", "--name-only", "skep/integration:many"]);
    assert_eq!(tree.lines().count(), 99_999);
    assert_eq!(world.integrated("many/000001"), "1\n");
    world.assert_nothing_left();
}

// docs/bad-input.md: A file of 1 GB
#[test]
fn a_file_of_a_gigabyte_is_kept() {
    let repo = wrong_answer();
    let large = fs::File::create(repo.path().join("large.img")).unwrap();
    large.set_len(1 << 30).unwrap();
    repo.config("core.compression", "1");
    repo.commit("A large file");
    let world = World::new(Dialect::Chat, repo, mending());
    let was = world.repo.git(&["rev-parse", "HEAD:large.img"]);
    world.skep(&RUN).expect_code(0);
    let kept = world.repo.git(&["rev-parse", "skep/integration:large.img"]);
    assert_eq!(kept, was);
    world.assert_nothing_left();
}

// docs/bad-input.md: An agent that makes a file of more than 100 MiB
#[test]
fn a_file_that_is_too_large_for_a_change_is_named_and_the_change_refused() {
    let script = doing("echo 42 > answer.txt; truncate -s 1G made.img");
    let world = World::new(Dialect::Chat, wrong_answer(), script);
    let was = before(&world.repo);
    let ran = world.skep(&RUN).expect_code(1);
    let said = format!("{}{}", ran.stderr, ran.stdout);
    assert!(said.contains("made.img"), "{said}");
    was.assert_same(&world.repo.snapshot());
    world.assert_nothing_left();
}
