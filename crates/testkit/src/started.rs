//! Programs that a test starts: their output is read, their end is waited for, and none outlives
//! the test.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
    waitid,
};

/// The most of each stream that is kept, in bytes.
const MAX_OUTPUT: u64 = 64 << 20;
/// How long a stream may take to end when its program has.
const END_OF_STREAM: Duration = Duration::from_secs(2);
/// The most lines that wait to be read.
const MAX_LINES: usize = 1 << 16;

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

    /// Kills the program alone, as a crash would, and waits for its end; how it ended, for it may
    /// have been over just before.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        assert!(
            self.ends_within(Duration::from_secs(10)),
            "{} does not die",
            self.what
        );
        self.ended.expect("it has ended")
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

    /// Whether it is stopped by a signal within this time; false when it ends first.
    pub fn stops_within(&self, time: Duration) -> bool {
        let (pid, (told, hears)) = (self.pid, sync_channel(1));
        std::thread::spawn(move || {
            let either = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let status = loop {
                match waitid(WaitId::Pid(pid), either) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => break other,
                }
            };
            let stopped = matches!(status, Ok(Some(status)) if status.stopped());
            // Nobody hears it after the deadline.
            told.send(stopped).ok();
        });
        hears.recv_timeout(time).unwrap_or(false)
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
