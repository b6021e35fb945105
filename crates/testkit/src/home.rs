//! A user's home in which to run the binary: nothing of the machine's own configuration, keys or
//! caches is seen, and whatever was written is below one directory.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::repo::give;
use crate::started::{Ran, Started};

/// An isolated home: the directories, the environment and the user that programs run with. Its
/// directories go with the last clone.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    uid: Option<u32>,
    env: Vec<(OsString, OsString)>,
    /// What the programs see at another place: a directory of the machine, and where.
    binds: Vec<(PathBuf, PathBuf)>,
    _dir: Arc<TempDir>,
}

/// Mounts pairs of directories, then becomes the program as an ordinary user. Nothing is forked, so
/// that the process is the program's own.
const BIND: &str = "set -e; user=$1 left=$2; shift 2; while [ $left -gt 0 ]; do \
    mount --bind \"$1\" \"$2\"; shift 2; left=$((left - 1)); done; \
    exec setpriv --reuid=$user --regid=$user --clear-groups --inh-caps=-all -- \"$@\"";

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// A new, empty home. Programs run as the user who runs the test, with `PATH` as it is there.
    pub fn new() -> Home {
        let dir = tempfile::Builder::new()
            .prefix("skep-home-")
            .tempdir()
            .expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let root = dir.path().canonicalize().expect("its path");
        for name in ["home", "config", "data", "state", "cache", "tmp", "runtime"] {
            fs::create_dir(root.join(name)).expect("a directory of the home");
        }
        fs::set_permissions(root.join("runtime"), fs::Permissions::from_mode(0o700))
            .expect("its mode");
        let mut home = Home {
            root: root.clone(),
            uid: None,
            env: Vec::new(),
            binds: Vec::new(),
            _dir: Arc::new(dir),
        };
        for (name, place) in [
            ("HOME", "home"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "runtime"),
            ("TMPDIR", "tmp"),
        ] {
            home = home.env(name, root.join(place));
        }
        home.env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("NO_COLOR", "1")
            .env("TERM", "dumb")
            .env("GIT_CONFIG_NOSYSTEM", "1")
    }

    /// The same home for an ordinary user. Where the test does not run as root it stays with
    /// whoever runs it.
    pub fn as_user(mut self, uid: u32) -> Home {
        if rustix::process::geteuid().is_root() {
            give(&self.root, uid);
            self.uid = Some(uid);
        }
        self
    }

    /// Lets the programs here use Rust as it is installed for whoever runs the test. For the same
    /// user its places are named. An ordinary user cannot look into root's home: there they appear
    /// in the user's own, in mounts that no other program sees, and nothing is copied.
    pub fn with_rust(mut self) -> Home {
        let real = PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
        let place = |name: &str, below: &str| {
            std::env::var_os(name).map_or_else(|| real.join(below), PathBuf::from)
        };
        let (rustup, cargo) = (
            place("RUSTUP_HOME", ".rustup"),
            place("CARGO_HOME", ".cargo"),
        );
        if self.uid.is_none() {
            for (name, path) in [("RUSTUP_HOME", rustup), ("CARGO_HOME", cargo)] {
                if path.is_dir() {
                    self = self.env(name, path);
                }
            }
            return self;
        }
        for (from, to) in [
            (rustup, ".rustup"),
            (cargo.join("bin"), ".cargo/bin"),
            (cargo.join("registry"), ".cargo/registry"),
        ] {
            if from.is_dir() {
                let to = self.home().join(to);
                fs::create_dir_all(&to).expect("a place to mount on");
                self.binds.push((from, to));
            }
        }
        // The places to mount on are the user's, as are the directories around them.
        self.uid.iter().for_each(|uid| give(&self.home(), *uid));
        let mut path = self.home().join(".cargo/bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        self.env("PATH", path)
    }

    /// Sets a variable for the programs that run here; the last value counts.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Home {
        let (name, value) = (name.into(), value.into());
        self.env.retain(|it| it.0 != name);
        self.env.push((name, value));
        self
    }

    /// A variable of the programs that run here.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        let found = self.env.iter().find(|it| it.0 == name);
        found.map(|it| it.1.as_os_str())
    }

    /// The user of the programs that run here, when that is another than who runs the test.
    pub fn user(&self) -> Option<u32> {
        self.uid
    }

    /// The directory that holds all the others: everything that was written is below it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `HOME`.
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// `XDG_CONFIG_HOME`.
    pub fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// `XDG_DATA_HOME`.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// `XDG_STATE_HOME`.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Writes a file below [`Self::root`], for the user of this home.
    pub fn file(&self, path: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.join(path);
        let parent = path.parent().expect("a parent");
        fs::create_dir_all(parent).expect("the file's directory");
        fs::write(&path, contents).expect("the file");
        if let Some(uid) = self.uid {
            let top = path
                .strip_prefix(&self.root)
                .expect("below")
                .components()
                .next()
                .expect("a name");
            give(&self.root.join(top), uid);
        }
        path
    }

    /// A program with this home's environment and user, and no other variable.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.uid {
            Some(uid) if !self.binds.is_empty() => self.bound(uid, program.as_ref()),
            Some(uid) => {
                let mut command = Command::new(program);
                // The standard library drops supplementary groups when root sets a user.
                command.uid(uid).gid(uid);
                command
            }
            None => Command::new(program),
        };
        command
            .env_clear()
            .envs(self.env.iter().map(|it| (&it.0, &it.1)))
            .current_dir(self.home());
        command
    }

    /// A program that sees what is bound, and is the user's only when that is done.
    fn bound(&self, uid: u32, program: &OsStr) -> Command {
        let mut command = Command::new("/usr/bin/unshare");
        command
            .args(["--mount", "--propagation", "private", "/bin/sh", "-c", BIND])
            .args(["sh".into(), uid.to_string(), self.binds.len().to_string()]);
        for (from, to) in &self.binds {
            command.args([from, to]);
        }
        command.arg(program);
        command
    }

    /// Runs a program in a directory to its end. Stops it, and the test, at the deadline.
    pub fn run<I, S>(
        &self,
        program: impl AsRef<OsStr>,
        args: I,
        dir: &Path,
        deadline: Duration,
    ) -> Ran
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.start(program, args, dir).finish(deadline)
    }

    /// The program that runs this test, where another user can reach it too.
    pub fn this_program(&self) -> Command {
        let program = self.root.join("this-program");
        if !program.exists() {
            let own = std::env::current_exe().expect("this program");
            fs::copy(own, &program).expect("a copy of this program");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        self.command(program)
    }

    /// Runs tests of the program that runs this one; all of them must pass.
    pub fn run_tests<const N: usize>(&self, args: [&str; N], deadline: Duration) {
        let mut command = self.this_program();
        command.args(args);
        let ran = Started::spawn(command).finish(deadline);
        assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
        // A name that no test has any more would pass as well.
        let mut skips = false;
        for arg in args {
            let is_name = !arg.starts_with("--") && !skips;
            skips = arg == "--skip";
            let ran_one = ran.stdout.lines().any(|line| {
                line.starts_with("test ") && line.contains(arg) && line.ends_with(" ok")
            });
            assert!(ran_one || !is_name, "no test is `{arg}`:\n{}", ran.stdout);
        }
    }

    /// Starts a program in a directory, in a process group of its own.
    pub fn start<I, S>(&self, program: impl AsRef<OsStr>, args: I, dir: &Path) -> Started
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(program);
        command.args(args).current_dir(dir);
        Started::spawn(command)
    }
}
