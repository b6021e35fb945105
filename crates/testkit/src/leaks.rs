//! What must not be left behind: processes, mounts, secrets.

mod kernel;

pub use kernel::{holders_below, loops_below, mounts_anywhere, sockets_below};

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How a compressed blob begins.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The most that one compressed blob is unpacked to, in bytes.
const MAX_UNPACKED: u64 = 256 << 20;

/// A process that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command line, or its name in brackets.
    pub command: String,
}

impl Process {
    /// Whether it ends within this time; at once when it has gone already.
    pub fn ends_within(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let Some(pid) = Pid::from_raw(self.pid) else {
            return true;
        };
        // Gone already when there is no descriptor to be had.
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return true;
        };
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(left).expect("a time to wait");
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&wait)) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("waiting for {self:?}: {error}"),
                Ok(ready) => return ready > 0,
            }
        }
    }
}

/// The processes, other than this one, that have to do with a directory: it is named in their
/// arguments, environment, program, working directory or mounts. A process in a sandbox whose
/// workspace or home is below the directory is among them.
pub fn processes_of(dir: &Path) -> Vec<Process> {
    processes(|pid| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let named = ["cmdline", "environ", "mountinfo"].iter().any(|it| {
            fs::read(proc.join(it)).is_ok_and(|bytes| contains(&bytes, dir.as_os_str().as_bytes()))
        });
        named
            || ["cwd", "exe", "root"]
                .iter()
                .any(|it| fs::read_link(proc.join(it)).is_ok_and(|link| link.starts_with(dir)))
    })
}

/// The processes whose environment or arguments hold a secret.
pub fn processes_holding(secret: &str) -> Vec<Process> {
    processes(|pid| {
        ["environ", "cmdline"].iter().any(|it| {
            fs::read(format!("/proc/{pid}/{it}"))
                .is_ok_and(|bytes| contains(&bytes, secret.as_bytes()))
        })
    })
}

/// Waits until no process has to do with a directory; what is left at the deadline.
pub fn wait_until_none(dir: &Path, deadline: Duration) -> Vec<Process> {
    let end = Instant::now() + deadline;
    loop {
        let left = processes_of(dir);
        let remaining = end.saturating_duration_since(Instant::now());
        let Some(first) = left.first() else {
            return left;
        };
        if remaining.is_zero() {
            return left;
        }
        let Some(pid) = Pid::from_raw(first.pid) else {
            return left;
        };
        // Gone already when there is no descriptor to be had.
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) {
            let wait = Timespec::try_from(remaining).expect("a time to wait");
            if poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&wait)).is_err() {
                // Interrupted: the next round looks again.
                continue;
            }
        }
    }
}

/// Asserts that within ten seconds nothing of a directory is alive or mounted.
#[track_caller]
pub fn assert_none(dir: &Path) {
    let left = wait_until_none(dir, Duration::from_secs(10));
    assert!(left.is_empty(), "still alive: {left:?}");
    let mounts = mounts_anywhere(dir);
    assert!(mounts.is_empty(), "still mounted: {mounts:?}");
    let sockets = sockets_below(dir);
    assert!(sockets.is_empty(), "still bound: {sockets:?}");
    let loops = loops_below(dir);
    assert!(loops.is_empty(), "still loop devices: {loops:?}");
    let holders = holders_below(dir);
    assert!(holders.is_empty(), "still open in: {holders:?}");
}

fn processes(fits: impl Fn(i32) -> bool) -> Vec<Process> {
    let me = std::process::id() as i32;
    let mut found: Vec<Process> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != me && !is_dead(*pid) && fits(*pid))
        .map(|pid| Process {
            pid,
            command: command_of(pid),
        })
        .collect();
    found.sort_by_key(|it| it.pid);
    found
}

/// Whether a process has ended and only waits for its parent.
fn is_dead(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|it| {
            it.rsplit_once(") ")
                .map(|(_, rest)| rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(true)
}

fn command_of(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if line.is_empty() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!("[{}]", name.trim_end());
    }
    String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

/// Where a secret is below a directory: in a file, a name, a link, or inside a compressed blob;
/// as it is, in hexadecimal, or in Base64. Git's objects are compressed another way: see
/// [`git_objects_holding`].
pub fn paths_holding(dir: &Path, secret: &str) -> Vec<PathBuf> {
    let forms = forms(secret);
    let holds = |bytes: &[u8]| forms.iter().any(|it| contains(bytes, it));
    let mut found = Vec::new();
    let mut queue = vec![dir.to_owned()];
    while let Some(path) = queue.pop() {
        // What has gone since it was listed holds nothing.
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        let name = path.file_name().unwrap_or_default();
        let mut hit = path != dir && holds(name.as_bytes());
        if metadata.is_dir() {
            let list = fs::read_dir(&path)
                .unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
            queue.extend(list.filter_map(Result::ok).map(|it| it.path()));
        } else if metadata.is_symlink() {
            hit |= fs::read_link(&path).is_ok_and(|it| holds(it.as_os_str().as_bytes()));
        } else if metadata.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            hit |= holds(&bytes) || unpacked(&bytes).iter().any(|it| holds(it));
        }
        if hit {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The objects of a git directory that hold a secret, by their ids.
pub fn git_objects_holding(git_dir: &Path, secret: &str) -> Vec<String> {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(["-c", "safe.directory=*", "--git-dir"])
            .arg(git_dir)
            .args(args)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdout(Stdio::piped());
        command
    };
    let list = git(&[
        "cat-file",
        "--batch-all-objects",
        "--batch-check=%(objectname) %(objecttype)",
    ])
    .output()
    .expect("git is needed for this test: install git");
    assert!(
        list.status.success(),
        "git cannot list the objects of {}",
        git_dir.display()
    );
    let ids: Vec<&str> = std::str::from_utf8(&list.stdout)
        .expect("ids")
        .lines()
        .filter_map(|it| it.split(' ').next())
        .collect();
    let mut child = git(&["cat-file", "--batch", "--buffer"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("git");
    let mut input = child.stdin.take().expect("its input");
    let mut output = child.stdout.take().expect("its output");
    let all = std::thread::scope(|scope| {
        scope.spawn(move || {
            for id in &ids {
                writeln!(input, "{id}").expect("git reads the ids");
            }
        });
        let mut all = Vec::new();
        output.read_to_end(&mut all).expect("git's output");
        all
    });
    assert!(
        child.wait().expect("git ends").success(),
        "git cannot read the objects of {}",
        git_dir.display()
    );
    let forms = forms(secret);
    let mut found = Vec::new();
    let mut rest = all.as_slice();
    while let Some(end) = rest.iter().position(|it| *it == b'\n') {
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        let mut words = head.split(' ');
        let id = words.next().unwrap_or_default();
        let size: usize = words
            .nth(1)
            .and_then(|it| it.parse().ok())
            .expect("an object's size");
        let body = &rest[end + 1..end + 1 + size];
        if forms.iter().any(|it| contains(body, it)) {
            found.push(id.to_owned());
        }
        rest = &rest[end + 2 + size..];
    }
    found
}

/// What is in the compressed blobs of a file, wherever each begins.
fn unpacked(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for start in 0..bytes.len().saturating_sub(ZSTD_MAGIC.len()) {
        if bytes[start..].starts_with(&ZSTD_MAGIC)
            && let Ok(reader) = zstd::Decoder::new(&bytes[start..])
        {
            let mut text = Vec::new();
            // A page of a database can cut a blob short: what came before counts.
            drop(
                reader
                    .single_frame()
                    .take(MAX_UNPACKED)
                    .read_to_end(&mut text),
            );
            all.push(text);
        }
    }
    all
}

/// The ways in which a secret can be written. Base64 depends on what comes before it: the middle
/// of each of the three is the same wherever it stands.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    assert!(
        secret.len() >= 8,
        "a secret to look for has at least eight bytes"
    );
    let bytes = secret.as_bytes();
    let mut forms = vec![bytes.to_vec()];
    forms.push(
        bytes
            .iter()
            .flat_map(|it| format!("{it:02x}").into_bytes())
            .collect(),
    );
    for skip in 0..3 {
        let whole = &bytes[skip..];
        forms.push(base64(&whole[..whole.len() / 3 * 3]));
    }
    forms
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks_exact(3)
        .flat_map(|it| {
            let n = u32::from(it[0]) << 16 | u32::from(it[1]) << 8 | u32::from(it[2]);
            [18, 12, 6, 0].map(|shift| LETTERS[(n >> shift & 63) as usize])
        })
        .collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else {
        return true;
    };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|it| it == first) {
        rest = &rest[at..];
        if rest.starts_with(part) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}
