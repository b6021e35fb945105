//! Real git repositories in temporary directories.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::{Options, Snapshot, generate};

/// A user's repository: a working tree and its `.git`, on the branch `main`.
///
/// Commits have fixed identities and dates that count up, so that the same steps give the same
/// ids. No configuration of the machine or the user is read.
#[derive(Debug)]
pub struct Repo {
    path: PathBuf,
    commits: Cell<u64>,
    /// Removed with the repository.
    _dir: Option<TempDir>,
}

impl Default for Repo {
    fn default() -> Self {
        Self::new()
    }
}

impl Repo {
    /// An empty repository in a temporary directory that everybody may enter.
    pub fn new() -> Repo {
        let dir = tempfile::Builder::new()
            .prefix("skep-repo-")
            .tempdir()
            .expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let path = dir.path().canonicalize().expect("its path").join("repo");
        let mut repo = Repo::at(&path);
        repo._dir = Some(dir);
        repo
    }

    /// An empty repository in this directory, which is made; it stays.
    pub fn at(path: &Path) -> Repo {
        fs::create_dir_all(path).expect("the repository's directory");
        let repo = Repo {
            path: path.to_owned(),
            commits: Cell::new(0),
            _dir: None,
        };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo.config("user.name", "Ada Example");
        repo.config("user.email", "ada@example.org");
        repo
    }

    /// A repository with one commit of `files` small, different files, 100 to a directory,
    /// checked out. 90,000 files take some seconds.
    pub fn generated(files: usize) -> Repo {
        let repo = Repo::new();
        generate::import(&repo, files);
        repo.commits.set(1);
        repo.git(&["-c", "checkout.workers=0", "reset", "--quiet", "--hard"]);
        repo
    }

    /// The working tree.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into the working tree.
    pub fn file(&self, path: &str, contents: impl AsRef<[u8]>) -> &Repo {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("the file's directory");
        fs::write(&path, contents)
            .unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        self
    }

    /// Writes a program into the working tree.
    pub fn executable(&self, path: &str, contents: impl AsRef<[u8]>) -> &Repo {
        self.file(path, contents);
        fs::set_permissions(self.path.join(path), fs::Permissions::from_mode(0o755))
            .expect("its mode");
        self
    }

    /// Makes a link in the working tree.
    pub fn symlink(&self, path: &str, target: impl AsRef<Path>) -> &Repo {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("the link's directory");
        symlink(target, path).expect("the link");
        self
    }

    /// Removes a file of the working tree.
    pub fn remove(&self, path: &str) -> &Repo {
        fs::remove_file(self.path.join(path)).expect("the file to remove");
        self
    }

    /// Commits the working tree as it is. The id of the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&[
            "commit",
            "--quiet",
            "--no-verify",
            "--allow-empty",
            "--message",
            message,
        ]);
        self.head()
    }

    /// Makes a branch at `HEAD` without switching to it.
    pub fn branch(&self, name: &str) -> &Repo {
        self.git(&["branch", name]);
        self
    }

    /// Switches to a branch or commit.
    pub fn checkout(&self, name: &str) -> &Repo {
        self.git(&["checkout", "--quiet", name]);
        self
    }

    /// Installs a hook.
    pub fn hook(&self, name: &str, script: &str) -> &Repo {
        self.executable(&format!(".git/hooks/{name}"), script)
    }

    /// Installs every hook that git knows, each of which makes the file `tripped` and fails:
    /// nothing may ever run them.
    pub fn trap_hooks(&self, tripped: &Path) -> &Repo {
        for name in [
            "pre-commit",
            "prepare-commit-msg",
            "commit-msg",
            "post-commit",
            "pre-merge-commit",
            "post-merge",
            "post-checkout",
            "pre-push",
            "pre-receive",
            "update",
            "post-receive",
            "reference-transaction",
            "post-index-change",
            "fsmonitor-watchman",
            "pre-rebase",
            "post-rewrite",
            "pre-auto-gc",
            "post-update",
            "proc-receive",
            "push-to-checkout",
        ] {
            self.hook(
                name,
                &format!("#!/bin/sh\n: > '{}'\nexit 1\n", tripped.display()),
            );
        }
        self
    }

    /// Sets a key of the repository's own configuration.
    pub fn config(&self, key: &str, value: &str) -> &Repo {
        self.git(&["config", key, value]);
        self
    }

    /// The id of `HEAD`.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// The id that a revision means; nothing when there is none.
    pub fn tip(&self, revision: &str) -> Option<String> {
        let output = self.try_git(&["rev-parse", "--verify", "--quiet", revision]);
        output.status.success().then(|| text(&output.stdout))
    }

    /// A file's content at a revision; nothing when it is not there.
    pub fn read_at(&self, revision: &str, path: &str) -> Option<Vec<u8>> {
        let output = self.try_git(&["cat-file", "blob", &format!("{revision}:{path}")]);
        output.status.success().then_some(output.stdout)
    }

    /// Runs git in the repository and gives its output without the last newline; it must succeed.
    pub fn git(&self, args: &[&str]) -> String {
        let output = self.try_git(args);
        assert!(
            output.status.success(),
            "git {args:?} in {}: {}",
            self.path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs git in the repository.
    pub fn try_git(&self, args: &[&str]) -> Output {
        self.command(args)
            .stdin(Stdio::null())
            .output()
            .expect("git is needed for this test: install git")
    }

    /// git in the repository, with an environment of its own.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let n = self.commits.get();
        self.commits.set(n + 1);
        let date = format!("{} +0000", 1_700_000_000 + n);
        let mut command = Command::new("git");
        command
            // Nothing here outlives a crash of the machine: there is nothing to sync.
            .args([
                "-c",
                "safe.directory=*",
                "-c",
                "core.fsync=none",
                "-c",
                "gc.auto=0",
            ])
            .args(args)
            .current_dir(&self.path)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date);
        command
    }

    /// Gives everything to an ordinary user. Does nothing unless root runs the test.
    pub fn give_to(&self, uid: u32) -> &Repo {
        give(self.path(), uid);
        self
    }

    /// Every file of the working tree, with the time of its last change, and of `.git`, where what
    /// is read and written again with the same content is no change.
    pub fn snapshot(&self) -> Snapshot {
        let options = Options {
            mtimes: true,
            timeless: vec![".git".into()],
            ..Options::default()
        };
        Snapshot::of(&self.path, &options)
    }
}

/// Gives a directory and everything below it to a user, when root runs the test.
pub(crate) fn give(path: &Path, uid: u32) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut queue = vec![path.to_owned()];
    while let Some(path) = queue.pop() {
        rustix::fs::chownat(
            rustix::fs::CWD,
            &path,
            Some(rustix::fs::Uid::from_raw(uid)),
            Some(rustix::fs::Gid::from_raw(uid)),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap_or_else(|error| panic!("giving {} away: {error}", path.display()));
        if path.symlink_metadata().is_ok_and(|it| it.is_dir()) {
            queue.extend(
                fs::read_dir(&path)
                    .expect("its entries")
                    .map(|it| it.expect("an entry").path()),
            );
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_end_matches('\n')
        .to_owned()
}
