//! A base that is a layer over another one cannot be told from one that was checked out whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use skep_git::{CommitId, Error, Mirror};

use crate::repo::{Repo, git_in, os, program, run};

/// What an agent could look at, the index apart, whose times differ: names, kinds, modes, link targets and contents,
/// and what git says.
const LOOK: &str = r#"set -e
find . -path ./.git/index -o -printf '%y %m %P -> %l\0' | sort -z
find . -type f ! -path ./.git/index -print0 | sort -z | xargs -0r sha1sum
git diff-files --raw
git status --porcelain=v2 --branch --ignored
git log --format='%H %T %P %s'
git for-each-ref
git ls-files --stage -z
git write-tree
git rev-list --all --objects | sort
git cat-file --batch-check --batch-all-objects
git fsck --full --strict 2>&1
"#;

/// Looks at the tree that the layers make together, as an agent would: from inside an overlay.
fn look(layers: &[PathBuf]) -> String {
    let dir = tempfile::tempdir_in(layers[0].parent().unwrap()).unwrap();
    let [upper, work, mount] = ["upper", "work", "mount"].map(|name| dir.path().join(name));
    for part in [&upper, &work, &mount] {
        std::fs::create_dir(part).unwrap();
    }
    let lowers: Vec<_> = layers.iter().map(|layer| layer.to_str().unwrap()).collect();
    let options = format!(
        "userxattr,lowerdir={},upperdir={},workdir={}",
        lowers.join(":"),
        upper.display(),
        work.display()
    );
    let environment = git_in(dir.path(), &[]);
    let mut command = Command::new("unshare");
    command
        .env_clear()
        .envs(environment.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .args(["-Urm", "sh", "-c"])
        .arg(r#"mount -t overlay -o "$1" overlay "$2" && cd "$2" && exec sh -c "$3""#)
        .args(["sh", &options])
        .arg(&mount)
        .arg(LOOK);
    let output = command
        .output()
        .expect("unshare, of util-linux, is needed: apt-get install util-linux");
    let _mode_000 = std::fs::set_permissions(work.join("work"), PermissionsExt::from_mode(0o700));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).replace('\0', "\n");
    assert!(output.status.success(), "{text}");
    text
}

fn whole(repo: &Repo, mirror: &Mirror, commit: CommitId) -> PathBuf {
    let into = repo.dir.path().join(format!("whole-{commit}"));
    if !into.exists() {
        mirror.checkout(commit, &into, None).unwrap();
    }
    into
}

/// The stack of a commit over another stack.
fn over(repo: &Repo, mirror: &Mirror, commit: CommitId, below: &[PathBuf]) -> Vec<PathBuf> {
    let into = repo
        .dir
        .path()
        .join(format!("layer-{commit}-{}", below.len()));
    std::fs::create_dir(&into).unwrap();
    mirror.checkout_over(commit, &into, below, None).unwrap();
    let mut stack = vec![into];
    stack.extend_from_slice(below);
    stack
}

#[track_caller]
fn assert_alike(stack: &[PathBuf], whole: &Path) {
    let (ours, theirs) = (look(stack), look(&[whole.to_owned()]));
    if ours != theirs {
        let differ: Vec<_> = ours.lines().filter(|l| !theirs.contains(l)).collect();
        let missing: Vec<_> = theirs.lines().filter(|l| !ours.contains(l)).collect();
        panic!("only over a layer: {differ:#?}\nonly in a whole base: {missing:#?}");
    }
}

#[test]
fn a_layer_holds_only_what_differs_and_looks_like_a_whole_base() {
    let repo = Repo::started();
    for number in 0..200 {
        repo.write(format!("many/{}/f{number}", number % 10), b"same\n");
    }
    let first = repo.commit("many");
    repo.write("a.txt", b"changed\n");
    repo.write("new/one", b"1\n");
    std::fs::remove_dir_all(repo.path.join("dir/deep")).unwrap();
    std::fs::remove_file(repo.path.join("many/3/f3")).unwrap();
    let second = repo.commit("a little");
    let (source, mirror) = repo.fetched();
    mirror.fetch(&source, first).unwrap();

    let (before, after) = (
        mirror.tree_of(first).unwrap(),
        mirror.tree_of(second).unwrap(),
    );
    // Five directories (the top is one), two files, and two that are gone.
    assert_eq!(mirror.layer_size(before, after, 9).unwrap(), Some(9));
    assert_eq!(mirror.layer_size(before, after, 8).unwrap(), None);
    assert_eq!(mirror.layer_size(before, before, 0).unwrap(), Some(0));

    let below = whole(&repo, &mirror, first);
    assert_eq!(mirror.checkout_len(&below), Some(203));
    let stack = over(&repo, &mirror, second, &[below]);
    assert_eq!(mirror.checkout_len(&stack[0]), Some(202));
    let mut held = Command::new("find");
    held.current_dir(&stack[0])
        .args([".", "-path", "./.git", "-prune", "-o", "!", "-type", "d"])
        .args(["-printf", "%y %P\n"]);
    let mut held: Vec<_> = String::from_utf8(run(held))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    held.sort();
    assert_eq!(
        held,
        ["c dir/deep", "c many/3/f3", "f a.txt", "f new/one"],
        "a character device stands for what is gone"
    );
    assert_alike(&stack, &whole(&repo, &mirror, second));
}

#[test]
fn a_layer_for_an_older_commit_hides_what_came_later_its_history_included() {
    let repo = Repo::started();
    let old = repo.commit("old");
    repo.write("secret", b"of the future\n");
    let new = repo.commit("new");
    let (source, mirror) = repo.fetched();
    mirror.fetch(&source, old).unwrap();
    let below = whole(&repo, &mirror, new);
    let stack = over(&repo, &mirror, old, &[below]);
    assert_alike(&stack, &whole(&repo, &mirror, old));
    // And one more, back to the new one.
    let stack = over(&repo, &mirror, new, &stack);
    assert_alike(&stack, &whole(&repo, &mirror, new));
}

#[test]
fn a_layer_over_a_shallow_history_knows_where_it_ends() {
    let origin = Repo::started();
    origin.write("a.txt", b"more\n");
    origin.commit("more");
    let repo = Repo::new();
    let url = format!("file://{}", origin.path.display());
    repo.git(&["fetch", "--quiet", "--depth=1", &url, "main"]);
    repo.git(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    let shallow = repo.head();
    repo.write("b.txt", b"mine\n");
    let deeper = repo.commit("mine");
    repo.git(&["checkout", "--quiet", "--orphan", "other"]);
    let other = repo.commit("without a past");
    let (source, mirror) = repo.fetched();
    for commit in [shallow, deeper, other] {
        mirror.fetch(&source, commit).unwrap();
    }
    let below = whole(&repo, &mirror, shallow);
    let stack = over(&repo, &mirror, deeper, &[below]);
    assert_alike(&stack, &whole(&repo, &mirror, deeper));
    let stack = over(&repo, &mirror, other, &stack);
    assert_alike(&stack, &whole(&repo, &mirror, other));
}

#[test]
fn nothing_is_laid_over_what_is_no_checkout() {
    let repo = Repo::started();
    let (_source, mirror) = repo.fetched();
    let below = whole(&repo, &mirror, repo.head());
    let into = repo.dir.path().join("into");
    std::fs::create_dir(&into).unwrap();
    for damage in [
        |index: &Path| std::fs::write(index, b"DIRC").unwrap(),
        |index: &Path| std::fs::remove_file(index).unwrap(),
    ] {
        damage(&below.join(".git/index"));
        let outcome = mirror.checkout_over(repo.head(), &into, std::slice::from_ref(&below), None);
        assert!(
            matches!(outcome, Err(Error::NotBelow { .. })),
            "{outcome:?}"
        );
    }
    let outcome = mirror.checkout_over(repo.head(), &into, &[], None);
    assert!(matches!(outcome, Err(Error::NotBelow { .. })));
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(bool, u8),
    Link(&'static str),
    Submodule(u8),
}

type Files = BTreeMap<Vec<u8>, Node>;

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Node),
    Remove(Vec<u8>),
    Move(Vec<u8>, Vec<u8>),
}

/// Names that sort around each other, differ in case or form only, or are no text.
const NAMES: [&[u8]; 9] = [
    b"a",
    b"A",
    b"a-b",
    b"a.b",
    b"d",
    "é".as_bytes(),
    "e\u{301}".as_bytes(),
    b"\xff",
    b"n\nl",
];

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..NAMES.len(), 1..4).prop_map(|names| {
        let names: Vec<_> = names.into_iter().map(|name| NAMES[name]).collect();
        names.join(&b'/')
    })
}

fn op() -> impl Strategy<Value = Op> {
    let node = prop_oneof![
        6 => (any::<bool>(), 0_u8..4).prop_map(|(executable, n)| Node::File(executable, n)),
        2 => prop::sample::select(vec!["a", "../..", "/etc/passwd", "nowhere"]).prop_map(Node::Link),
        1 => (1_u8..3).prop_map(Node::Submodule),
    ];
    prop_oneof![
        6 => (path(), node).prop_map(|(path, node)| Op::Put(path, node)),
        2 => path().prop_map(Op::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Op::Move(from, to)),
    ]
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn put(files: &mut Files, path: Vec<u8>, node: Node) {
    files.retain(|known, _| !is_below(known, &path) && !is_below(&path, known));
    files.insert(path, node);
}

fn apply(files: &mut Files, op: Op) {
    match op {
        Op::Put(path, node) => put(files, path, node),
        Op::Remove(path) => files.retain(|known, _| !is_below(known, &path)),
        Op::Move(from, to) => {
            let moved: Vec<_> = files
                .extract_if(.., |known, _| is_below(known, &from))
                .collect();
            for (path, node) in moved {
                let to = [&to, &path[from.len()..]].concat();
                put(files, to, node);
            }
        }
    }
}

/// A chain of commits with these trees.
fn committed(repo: &Repo, trees: &[Files]) -> Vec<CommitId> {
    let quoted = |path: &[u8]| {
        let escape = |byte: &u8| format!("\\{byte:03o}");
        format!("\"{}\"", path.iter().map(escape).collect::<String>())
    };
    let mut stream = Vec::new();
    for (number, files) in trees.iter().enumerate() {
        let head = format!(
            "commit refs/heads/main\nmark :{}\ncommitter U <u@example.invalid> 1700000000 +0000\ndata 1\nx\ndeleteall\n",
            number + 1
        );
        stream.extend_from_slice(head.as_bytes());
        for (path, node) in files {
            let path = quoted(path);
            let line = match node {
                Node::File(executable, n) => {
                    let mode = if *executable { "100755" } else { "100644" };
                    format!("M {mode} inline {path}\ndata 2\n{n}\n\n")
                }
                Node::Link(to) => format!("M 120000 inline {path}\ndata {}\n{to}\n", to.len()),
                Node::Submodule(n) => format!("M 160000 {} {path}\n", format!("{n}").repeat(40)),
            };
            stream.extend_from_slice(line.as_bytes());
        }
        stream.push(b'\n');
    }
    let marks = repo.dir.path().join("marks");
    let export = format!("--export-marks={}", marks.display());
    let mut command = git_in(&repo.path, &["fast-import", "--quiet", "--force", &export]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&stream).unwrap();
    assert!(child.wait().unwrap().success());
    let mut found: Vec<(usize, CommitId)> = std::fs::read_to_string(&marks)
        .unwrap()
        .lines()
        .map(|line| line[1..].split_once(' ').unwrap())
        .map(|(mark, id)| (mark.parse().unwrap(), id.parse().unwrap()))
        .collect();
    found.sort();
    found.into_iter().map(|(_, id)| id).collect()
}

#[test]
fn a_layer_over_any_tree_for_any_tree_looks_like_a_whole_base() {
    let ops = || prop::collection::vec(op(), 1..8);
    let strategy = (prop::collection::vec(op(), 0..14), ops(), ops());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 8,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&strategy, |(first, second, third)| {
        let repo = Repo::new();
        let mut files = Files::new();
        let mut trees = Vec::new();
        for ops in [first, second, third] {
            ops.into_iter().for_each(|op| apply(&mut files, op));
            trees.push(files.clone());
        }
        let commits = committed(&repo, &trees);
        let mirror = Mirror::open_or_create(&repo.dir.path().join("mirror"), program()).unwrap();
        let source = repo.source();
        for commit in &commits {
            mirror.fetch(&source, *commit).unwrap();
        }
        let wholes: Vec<_> = commits
            .iter()
            .map(|commit| whole(&repo, &mirror, *commit))
            .collect();
        let second = over(&repo, &mirror, commits[1], &wholes[..1]);
        let third = over(&repo, &mirror, commits[2], &second);
        let back = over(&repo, &mirror, commits[0], &third);
        assert_alike(&second, &wholes[1]);
        assert_alike(&third, &wholes[2]);
        assert_alike(&back, &wholes[0]);
        Ok(())
    });
    outcome.unwrap();
    assert!(os(NAMES[7]).to_str().is_none());
}
