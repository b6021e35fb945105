//! Real repositories in temporary directories, and what is needed to look at them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use skep_git::{CommitId, Mirror, Program, Signature, Source};

pub(crate) struct Repo {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn program() -> Program {
    Program::find(&std::env::var_os("PATH").unwrap()).expect("install git 2.38 or newer")
}

pub(crate) fn someone() -> Signature {
    Signature::new("Skep", "skep@skep.invalid", 1_700_000_000)
}

/// Git without the settings of this machine.
pub(crate) fn git_in(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program().path());
    command
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .args([
            "-c",
            "user.name=User",
            "-c",
            "user.email=user@example.invalid",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(args)
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(mut command: Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

impl Repo {
    pub(crate) fn new() -> Repo {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("user");
        std::fs::create_dir(&path).unwrap();
        let repo = Repo { dir, path };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo.git(&["config", "user.name", "User"]);
        repo.git(&["config", "user.email", "user@example.invalid"]);
        repo.git(&["config", "gc.auto", "0"]);
        repo
    }

    /// With one commit of a few files.
    pub(crate) fn started() -> Repo {
        let repo = Repo::new();
        repo.write("a.txt", b"one\ntwo\nthree\n");
        repo.write("dir/b.txt", b"b\n");
        repo.write("dir/deep/c.txt", b"c\n");
        repo.commit("start");
        repo
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        String::from_utf8_lossy(&run(git_in(&self.path, args)))
            .trim_end()
            .to_owned()
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, content: &[u8]) {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn commit(&self, message: &str) -> CommitId {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.head()
    }

    pub(crate) fn head(&self) -> CommitId {
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    pub(crate) fn source(&self) -> Source {
        Source::discover(&self.path, program()).unwrap()
    }

    pub(crate) fn mirror(&self) -> Mirror {
        Mirror::open_or_create(&self.dir.path().join("mirror"), program()).unwrap()
    }

    /// The mirror with `HEAD` fetched.
    pub(crate) fn fetched(&self) -> (Source, Mirror) {
        let (source, mirror) = (self.source(), self.mirror());
        mirror.fetch(&source, source.head().commit).unwrap();
        (source, mirror)
    }

    /// Adds hooks that leave `trace` beside the repository when they run.
    pub(crate) fn set_traps(&self) -> PathBuf {
        let trace = self.dir.path().join("trace");
        let script = format!(
            "#!/bin/sh\necho \"$0 $*\" >> '{}'\ncat > /dev/null\n",
            trace.display()
        );
        let trap = self.dir.path().join("trap");
        write_executable(&trap, &script);
        for hook in [
            "reference-transaction",
            "post-checkout",
            "post-commit",
            "post-merge",
            "post-update",
            "post-receive",
            "pre-receive",
            "update",
            "post-index-change",
            "pre-commit",
            "post-rewrite",
            "pre-auto-gc",
            "push-to-checkout",
            "proc-receive",
            "fsmonitor-watchman",
            "post-applypatch",
            "pre-push",
        ] {
            write_executable(&self.path.join(".git/hooks").join(hook), &script);
        }
        let trap = trap.to_str().unwrap();
        for name in [
            "core.fsmonitor",
            "core.sshCommand",
            "uploadpack.packObjectsHook",
            "diff.external",
            "core.pager",
            "core.editor",
        ] {
            self.git(&["config", name, trap]);
        }
        self.git(&["config", "include.path", "hostile.config"]);
        self.write(
            ".git/hostile.config",
            format!(
                "[core]\n\thooksPath = {}\n\taskPass = {trap}\n",
                self.path.join(".git/hooks").display()
            )
            .as_bytes(),
        );
        // Set by the last `git config`, if at all.
        let _gone = std::fs::remove_file(&trace);
        trace
    }
}

pub(crate) fn write_executable(path: &Path, script: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Every file below a directory: mode, modification time, content.
pub(crate) fn everything(dir: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_symlink() {
                std::fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec()
            } else if meta.is_dir() {
                open.push(path.clone());
                found.insert(path, (meta.mode(), 0, 0, Vec::new()));
                continue;
            } else {
                std::fs::read(&path).unwrap()
            };
            found.insert(
                path,
                (meta.mode(), meta.mtime(), meta.mtime_nsec(), content),
            );
        }
    }
    found
}

/// What differs between two looks at a directory, relative to it.
pub(crate) fn differences(
    dir: &Path,
    before: &BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>,
    after: &BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>,
) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            name.strip_prefix(dir)
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

pub(crate) fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// A tree object made by hand, with entries that git would refuse to add.
pub(crate) fn raw_tree(repo: &Repo, entries: &[(&str, &[u8], &str)]) -> String {
    let mut data = Vec::new();
    for (mode, name, id) in entries {
        data.extend_from_slice(mode.as_bytes());
        data.push(b' ');
        data.extend_from_slice(name);
        data.push(0);
        for pair in id.as_bytes().chunks(2) {
            data.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        }
    }
    let mut command = git_in(
        &repo.path,
        &["hash-object", "-t", "tree", "-w", "--stdin", "--literally"],
    );
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&data).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
