//! A user's home in which to run the binary: nothing of the machine's own configuration, keys or
//! caches is seen, and whatever was written is below one directory.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tempfile::TempDir;

use crate::repo::give;

/// The most of each stream that is kept, in bytes.
const MAX_OUTPUT: u64 = 64 << 20;
/// How long a stream may take to end when its program has.
const END_OF_STREAM: Duration = Duration::from_secs(2);
/// The most lines that wait to be read.
const MAX_LINES: usize = 1 << 16;

/// An isolated home: the directories, the environment and the user that programs run with.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
    uid: Option<u32>,
    env: Vec<(OsString, OsString)>,
    /// What the programs see at another place: a directory of the machine, and where.
    binds: Vec<(PathBuf, PathBuf)>,
    _dir: TempDir,
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
            _dir: dir,
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

/// A program that runs. Its process group is killed when this is dropped.
#[derive(Debug)]
pub struct Started {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    began: Instant,
    what: String,
    lines: Receiver<String>,
    stdout: Stream,
    stderr: Stream,
    ended: Option<ExitStatus>,
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
    /// Whether a process that it left behind holds its output open.
    pub left_open: bool,
}

impl Started {
    /// Starts a command with no input, reading both its streams, in a process group of its own.
    pub fn spawn(mut command: Command) -> Started {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {what}: {error}"));
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor of the process");
        let out = child.stdout.take().expect("its output");
        let err = child.stderr.take().expect("its errors");
        let (send, lines) = sync_channel(MAX_LINES);
        let stdout = Stream::read(out, Some(send));
        let stderr = Stream::read(err, None);
        Started {
            child,
            pid,
            pidfd,
            began: Instant::now(),
            what,
            lines,
            stdout,
            stderr,
            ended: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The next line of its output that fits; lines before it are passed over. Stops the test
    /// when the output ends, or at the deadline.
    pub fn line(&mut self, deadline: Duration, fits: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + deadline;
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) if fits(&line) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => self.give_up("no such line", deadline),
                Err(RecvTimeoutError::Disconnected) => {
                    self.give_up("its output ended without such a line", deadline)
                }
            }
        }
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal)
            .unwrap_or_else(|error| panic!("signalling {}: {error}", self.what));
    }

    /// Sends a signal to its process group, as a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid, signal)
            .unwrap_or_else(|error| panic!("signalling {}: {error}", self.what));
    }

    /// Kills the program alone, as a crash would, and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert!(
            self.ends_within(Duration::from_secs(10)),
            "{} does not die",
            self.what
        );
    }

    /// Whether it ends within this time.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        if self.ended.is_some() {
            return true;
        }
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(left).expect("a time to wait");
            match poll(&mut fds, Some(&wait)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => return false,
                Ok(_) => break,
                Err(error) => panic!("waiting for {}: {error}", self.what),
            }
        }
        self.ended = Some(self.child.wait().expect("its status"));
        true
    }

    /// Waits for its end. Stops it, and the test, at the deadline.
    pub fn finish(mut self, deadline: Duration) -> Ran {
        if !self.ends_within(deadline) {
            self.give_up("it still runs", deadline);
        }
        let took = self.began.elapsed();
        let status = self.ended.expect("it has ended");
        let whole = [self.stdout.ends(), self.stderr.ends()];
        Ran {
            status,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took,
            left_open: whole.contains(&false),
        }
    }

    fn give_up(&mut self, why: &str, deadline: Duration) -> ! {
        self.stop();
        panic!(
            "{}: {why} after {deadline:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.what,
            self.stdout.text(),
            self.stderr.text()
        );
    }

    /// Kills its process group. The group is still its own: nobody has waited for it.
    fn stop(&mut self) {
        if self.ended.is_none() {
            if let Err(error) = kill_process_group(self.pid, Signal::KILL) {
                assert_eq!(error, rustix::io::Errno::SRCH, "killing {}", self.what);
            }
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One stream of a program, read by a thread until its end.
#[derive(Debug)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Stream {
    fn read(from: impl Read + Send + 'static, lines: Option<SyncSender<String>>) -> Stream {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (at_end, end) = sync_channel::<()>(1);
        let all = bytes.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from.take(MAX_OUTPUT));
            let mut line = Vec::new();
            // An error ends the stream as its end does.
            while reader.read_until(b'\n', &mut line).is_ok_and(|it| it > 0) {
                all.lock().expect("the stream").extend_from_slice(&line);
                if let Some(lines) = &lines {
                    // Nobody may be reading the lines: the bytes are kept all the same.
                    drop(lines.try_send(String::from_utf8_lossy(&line).trim_end().to_owned()));
                }
                line.clear();
            }
            drop(at_end);
        });
        Stream { bytes, end }
    }

    /// Whether it ends; a process that was left behind can hold it open.
    fn ends(&self) -> bool {
        self.end.recv_timeout(END_OF_STREAM) == Err(RecvTimeoutError::Disconnected)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("the stream")).into_owned()
    }
}

impl Ran {
    /// The exit code; nothing when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Asserts its exit code, and shows its output otherwise.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ran {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Its output as JSON, one value a line; stops the test where a line is none.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }
}
