//! Agents at work: operations done in the real merged view (an overlay in a user namespace, or a
//! copied directory), and a model of trees to compare with.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bstr::BStr;
use skep_workspace::{
    Base, Change, Error, Fetch, Fetched, Layering, Layers, Limits, Listing, Seen, Store, Summary,
    Visitor, Workspace, changes_elsewhere,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File {
        executable: bool,
        content: Vec<u8>,
    },
    Link(Vec<u8>),
    /// Pipes, sockets, devices: never part of a change.
    Special,
}

/// The files and links of a tree by path; directories are what paths imply.
pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

/// Reads a tree with the means of the standard library; `.git` at the top is left out.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        let full = root.join(&dir);
        widen(&full, 0o700);
        for entry in fs::read_dir(&full).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            if path == Path::new(".git") {
                continue;
            }
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            let node = if meta.is_dir() {
                todo.push(path);
                continue;
            } else if meta.is_symlink() {
                Node::Link(
                    fs::read_link(entry.path())
                        .unwrap()
                        .as_os_str()
                        .as_bytes()
                        .to_vec(),
                )
            } else if meta.is_file() {
                widen(&entry.path(), 0o400);
                let content = fs::read(entry.path()).unwrap();
                Node::File {
                    executable: meta.mode() & 0o100 != 0,
                    content,
                }
            } else {
                assert!(!meta.file_type().is_block_device());
                Node::Special
            };
            tree.insert(path.as_os_str().as_bytes().to_vec(), node);
        }
    }
    tree
}

/// Only where it is needed: in the merged view it makes a copy.
fn widen(path: &Path, needed: u32) {
    let mode = fs::metadata(path).unwrap().mode();
    if mode & needed != needed {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | needed)).unwrap();
    }
}

fn below(path: &[u8]) -> Vec<u8> {
    [path, b"/"].concat()
}

/// Applies one entry as its documentation says.
pub(crate) fn apply(tree: &mut Tree, change: Change) {
    let path = change.path().to_vec();
    tree.retain(|key, _| *key != path && !key.starts_with(&below(&path)));
    let node = match change {
        Change::Removed(_) | Change::Cleared(_) => return,
        Change::File {
            executable,
            len,
            mut content,
            ..
        } => {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).unwrap();
            assert_eq!(len, bytes.len() as u64);
            Node::File {
                executable,
                content: bytes,
            }
        }
        Change::Link { target, .. } => Node::Link(target.into()),
    };
    for (at, byte) in path.iter().enumerate() {
        if *byte == b'/' {
            tree.remove(&path[..at]);
        }
    }
    tree.insert(path, node);
}

/// The order and the shape that entries promise.
pub(crate) fn check_order(paths: &[(Vec<u8>, &'static str)]) {
    let key = |path: &[u8]| {
        path.split(|byte| *byte == b'/')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    for pair in paths.windows(2) {
        let (before, after) = (key(&pair[0].0), key(&pair[1].0));
        assert!(before < after, "{:?} before {:?}", pair[0], pair[1]);
    }
    for (path, _) in paths {
        assert!(!path.is_empty() && !path.starts_with(b"/"));
        assert!(
            path.split(|byte| *byte == b'/')
                .all(|part| !part.is_empty() && part != b"." && part != b"..")
        );
    }
}

pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) base: Base,
    pub(crate) workspace: Workspace,
}

/// A base with some of everything that a repository can hold.
pub(crate) fn fill(tree: &Path) {
    for dir in ["src/deep/er", "docs", "old/a/b", "vendor", ".git/objects"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    for (path, content) in [
        ("README.md", "read me"),
        ("src/main.rs", "fn main() {}"),
        ("src/lib.rs", "pub fn f() {}"),
        ("src/deep/er/x.rs", "x"),
        ("docs/one.md", "one"),
        ("docs/two.md", "two"),
        ("old/a/b/c.txt", "c"),
        ("old/d.txt", "d"),
        ("vendor/v.c", "v"),
        ("run.sh", "#!/bin/sh"),
        (".git/HEAD", "ref: refs/heads/main"),
        (".git/config", "[core]"),
    ] {
        fs::write(tree.join(path), content).unwrap();
    }
    fs::set_permissions(tree.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("README.md", tree.join("link")).unwrap();
    std::os::unix::fs::symlink("src", tree.join("dirlink")).unwrap();
}

pub(crate) const KINDS: [Layering; 2] = [Layering::Overlay, Layering::Copy];

impl Scene {
    pub(crate) fn new(kind: Layering) -> Scene {
        Scene::over(kind, fill)
    }

    pub(crate) fn over(kind: Layering, fill: impl FnOnce(&Path)) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), kind).unwrap();
        let base = store
            .base("k", |tree| {
                fill(tree);
                Ok::<_, Error>(())
            })
            .unwrap();
        let workspace = store.create("w", &base).unwrap();
        Scene {
            dir,
            store,
            base,
            workspace,
        }
    }

    /// The directory that the agent writes, seen from outside.
    pub(crate) fn written(&self) -> PathBuf {
        match self.workspace.layers() {
            Layers::Overlay { upper, .. } => upper,
            Layers::Directory(dir) => dir,
        }
    }

    /// Runs the scene `name` of this test binary in the merged view, in a process of its own, and
    /// returns the tree that it saw in the end.
    pub(crate) fn play(&self, name: &str) -> Tree {
        self.play_in(&self.workspace, name)
    }

    /// The same in another workspace.
    pub(crate) fn play_in(&self, workspace: &Workspace, name: &str) -> Tree {
        let exe = std::env::current_exe().unwrap();
        let (snapshot, mount) = (
            self.dir.path().join("snapshot"),
            self.dir.path().join("merged"),
        );
        fs::create_dir_all(&mount).unwrap();
        let mut command = Command::new("unshare");
        match workspace.layers() {
            Layers::Overlay {
                lowers,
                upper,
                work,
            } => {
                let lowers: Vec<_> = lowers.iter().map(|lower| lower.to_str().unwrap()).collect();
                let options = format!(
                    "userxattr,lowerdir={},upperdir={},workdir={}",
                    lowers.join(":"),
                    upper.display(),
                    work.display()
                );
                let script =
                    r#"mount -t overlay -o "$1" overlay "$2" && cd "$2" && shift 2 && exec "$@""#;
                command
                    .args(["-Urm", "sh", "-c", script, "sh", &options])
                    .arg(&mount);
            }
            Layers::Directory(dir) => {
                command
                    .args(["-Ur", "sh", "-c", r#"cd "$1" && shift && exec "$@""#, "sh"])
                    .arg(dir);
            }
        }
        command
            .arg(exe)
            .args(["--exact", "child_plays_a_scene", "--nocapture"]);
        command
            .env("SKEP_TEST_SCENE", name)
            .env("SKEP_TEST_SNAPSHOT", &snapshot);
        let output = command
            .output()
            .expect("unshare, of util-linux, is needed: apt-get install util-linux");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        decode(&fs::read(&snapshot).unwrap())
    }

    pub(crate) fn changes(&self) -> (Vec<Change>, Summary) {
        Scene::changes_of(&self.workspace)
    }

    fn changes_of(workspace: &Workspace) -> (Vec<Change>, Summary) {
        let mut changes = Vec::new();
        let summary = workspace
            .changes(&Limits::default(), &mut |change| {
                changes.push(change);
                Ok::<_, Error>(())
            })
            .unwrap();
        (changes, summary)
    }

    /// What changed, as lines to compare.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.changes().0.iter().map(line).collect()
    }

    /// Applies what changed to the base.
    pub(crate) fn applied(&self) -> Tree {
        self.applied_of(&self.workspace)
    }

    pub(crate) fn applied_of(&self, workspace: &Workspace) -> Tree {
        let mut tree = tree(&self.base.trees()[0]);
        let (changes, _) = Scene::changes_of(workspace);
        let seen: Vec<_> = changes
            .iter()
            .map(|change| (change.path().to_vec(), ""))
            .collect();
        check_order(&seen);
        for change in changes {
            apply(&mut tree, change);
        }
        tree
    }
}

/// The files themselves, for whoever has only listings.
struct Directory(PathBuf);

impl Fetch for Directory {
    fn fetch(&mut self, path: &BStr, len: u64) -> std::io::Result<Fetched> {
        let path = self.0.join(OsStr::from_bytes(path));
        widen(&path, 0o400);
        let content = fs::File::open(path)?;
        let meta = content.metadata()?;
        assert_eq!(meta.len(), len);
        Ok(Fetched {
            content,
            len,
            executable: meta.mode() & 0o100 != 0,
        })
    }
}

impl Scene {
    /// What the workspace holds, as somebody who is elsewhere would be told.
    pub(crate) fn listing(&self) -> Listing {
        let root = self.written();
        let mut listing = Listing::default();
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            widen(&root.join(&dir), 0o700);
            for entry in fs::read_dir(root.join(&dir)).unwrap() {
                let entry = entry.unwrap();
                let path = dir.join(entry.file_name());
                let meta = fs::symlink_metadata(entry.path()).unwrap();
                let target = fs::read_link(entry.path()).ok();
                let target = target.map(|it| it.as_os_str().as_bytes().into());
                let born = meta.created().ok();
                let born = born.map(|it| it.duration_since(std::time::UNIX_EPOCH).unwrap());
                listing
                    .add(Seen {
                        path: path.as_os_str().as_bytes().into(),
                        inode: meta.ino(),
                        mode: meta.mode(),
                        size: meta.size(),
                        modified: (meta.mtime(), meta.mtime_nsec().try_into().unwrap()),
                        changed: (meta.ctime(), meta.ctime_nsec().try_into().unwrap()),
                        born: born.map(|it| (it.as_secs().try_into().unwrap(), it.subsec_nanos())),
                        target,
                    })
                    .unwrap();
                if meta.is_dir() {
                    todo.push(path);
                }
            }
        }
        listing
    }

    pub(crate) fn changes_elsewhere(
        &self,
        before: &Listing,
        now: &Listing,
        limits: &Limits,
    ) -> (Vec<Change>, Summary) {
        let mut all = Vec::new();
        let mut visit = Taking(|change| all.push(change));
        let mut fetch = Directory(self.written());
        let summary = changes_elsewhere((before, now), &mut fetch, limits, &mut visit).unwrap();
        (all, summary)
    }

    pub(crate) fn limited_elsewhere(
        &self,
        before: &Listing,
        now: &Listing,
        limits: &Limits,
    ) -> Result<Summary, Error> {
        let mut fetch = Directory(self.written());
        changes_elsewhere((before, now), &mut fetch, limits, &mut Taking(drop))
    }
}

/// Takes everything.
struct Taking<F>(F);

impl<F: FnMut(Change)> Visitor<Error> for Taking<F> {
    fn wants(&mut self, _: &BStr, _: bool) -> Result<bool, Error> {
        Ok(true)
    }

    fn visit(&mut self, change: Change) -> Result<(), Error> {
        (self.0)(change);
        Ok(())
    }
}

/// An entry of a listing, of which nothing but its name matters.
pub(crate) fn seen(path: &str, is_directory: bool) -> Seen {
    Seen {
        path: path.into(),
        inode: 1,
        mode: if is_directory { 0o040755 } else { 0o100644 },
        size: 0,
        modified: (0, 0),
        changed: (0, 0),
        born: None,
        target: None,
    }
}

pub(crate) fn line(change: &Change) -> String {
    match change {
        Change::Removed(path) => format!("- {path}"),
        Change::Cleared(path) => format!("/ {path}"),
        Change::File {
            path,
            executable,
            len,
            ..
        } => format!("{} {path} {len}", if *executable { 'x' } else { 'f' }),
        Change::Link { path, target } => format!("l {path} -> {target}"),
    }
}

/// The body of the child process: runs `scenes` in the current directory and writes what is there.
pub(crate) fn child(scenes: impl Fn(&str)) {
    let Ok(name) = std::env::var("SKEP_TEST_SCENE") else {
        return;
    };
    scenes(&name);
    fs::write(
        std::env::var_os("SKEP_TEST_SNAPSHOT").unwrap(),
        encode(&tree(Path::new("."))),
    )
    .unwrap();
}

fn encode(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, node) in tree {
        let (kind, content): (u8, &[u8]) = match node {
            Node::File {
                executable,
                content,
            } => (u8::from(*executable), content),
            Node::Link(target) => (2, target),
            Node::Special => (3, b""),
        };
        bytes.push(kind);
        for part in [path.as_slice(), content] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Tree {
    fn part<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let part = &bytes[8..8 + length];
        *bytes = &bytes[8 + length..];
        part
    }
    let mut tree = Tree::new();
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        let (path, content) = (part(&mut bytes).to_vec(), part(&mut bytes).to_vec());
        let node = match kind {
            0 | 1 => Node::File {
                executable: *kind == 1,
                content,
            },
            2 => Node::Link(content),
            _ => Node::Special,
        };
        tree.insert(path, node);
    }
    tree
}

pub(crate) fn os(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// A long walk of random operations on a small set of names, so that they meet each other.
pub(crate) fn random(seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % bound
    };
    let names = [
        "src",
        "docs",
        "old",
        "a",
        "b",
        "x.rs",
        "README.md",
        "link",
        "vendor",
        "deep",
        "er",
        "run.sh",
    ];
    for step in 0..300 {
        let mut pick = || {
            (0..=next(3))
                .map(|_| names[next(names.len())])
                .collect::<PathBuf>()
        };
        let (path, other) = (pick(), pick());
        // Whatever fails (a parent that is a file, a directory that is not empty) just did not happen;
        // a path through a link would leave the model of plain names, but stays in the tree.
        let done = match next(11) {
            0 | 1 => fs::write(&path, format!("{step}")),
            2 => fs::create_dir_all(&path),
            3 => fs::remove_file(&path),
            4 => fs::remove_dir_all(&path),
            5 => fs::rename(&path, &other),
            6 => std::os::unix::fs::symlink(other, &path),
            7 => fs::hard_link(&path, &other),
            8 => fs::set_permissions(
                &path,
                fs::Permissions::from_mode(if step % 2 == 0 { 0o755 } else { 0o640 }),
            ),
            9 => fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .and_then(|mut f| std::io::Write::write_all(&mut f, b"+")),
            _ => fs::remove_dir(&path),
        };
        drop(done);
    }
}

/// Runs all other tests of this binary again: as an ordinary user if this process is root's, else as
/// the same one. The tests that only measure size are left out. One after the other: a program that
/// one test starts holds, until it has replaced itself, the locks of all the others.
pub(crate) fn again_as_an_ordinary_user(this: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let exe = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&exe);
        command
    } else {
        Command::new(&exe)
    };
    let output = command
        .args(["--test-threads=1", "--skip", this])
        .args(["--skip", "hundred_thousand", "--skip", "wide_directories"])
        .env("TMPDIR", dir.path())
        .current_dir("/")
        .output()
        .expect("setpriv, of util-linux, is needed: apt-get install util-linux");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Sets its flag when it is dropped, so that a thread that watches it ends even after a panic.
pub(crate) struct Stop<'a>(pub(crate) &'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
