//! One run of the program: fed and drained at once, within its deadline and its limit, as the leader of a group that
//! ends with it.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::Error;
use crate::program::Program;

/// What is kept of a process's error output: its end.
const STDERR_LIMIT: usize = 8 * 1024;
/// How often a running process's cancellation is looked at.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

impl Program {
    /// Runs a process to its end, its limit or its cancellation. The whole group is killed unless it ended by itself.
    pub(crate) fn execute(&self, call: Call<'_>) -> Result<Output, Error> {
        let Call {
            doing,
            mut command,
            stdin,
            stdout,
            limit,
            keep_head,
            watch,
            most,
        } = call;
        self.cancel().check(doing)?;
        command
            .stdin(if stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(stdout.map_or_else(Stdio::piped, Stdio::from))
            .stderr(Stdio::piped())
            .process_group(0);
        let started = Instant::now();
        let child = command
            .spawn()
            .map_err(|source| Error::io("starting", self.path(), source))?;
        let mut group = Group {
            child,
            ended: false,
        };
        if let Some(most) = most {
            most.hold(&group.child)
                .map_err(|e| Error::io("limiting", self.path(), e))?;
        }
        let attended = Attended {
            doing,
            limit,
            keep_head,
            started,
        };
        let outcome = self.attend(
            &mut group.child,
            stdin.unwrap_or_default(),
            &attended,
            watch,
        );
        let (stdout, stderr, truncated) = match outcome {
            Ok(all) => all,
            Err(Attend::Io(source)) => {
                return Err(Error::io("talking to", self.path(), source));
            }
            Err(Attend::Failed(error)) => return Err(error),
        };
        if truncated {
            // Nobody reads the rest: the group ends when `group` is dropped.
            return Ok(Output {
                code: Some(0),
                status: "truncated".to_owned(),
                stdout,
                stderr,
                truncated,
            });
        }
        let status = group
            .child
            .wait()
            .map_err(|source| Error::io("waiting for", self.path(), source))?;
        group.ended = true;
        tracing::trace!(
            doing,
            ms = started.elapsed().as_millis() as u64,
            "git ended"
        );
        Ok(Output {
            code: status.code(),
            status: status.to_string(),
            stdout,
            stderr,
            truncated,
        })
    }

    /// Feeds and drains a child until both of its outputs are closed.
    fn attend(
        &self,
        child: &mut Child,
        mut input: &[u8],
        attended: &Attended,
        mut watch: Option<Watch<'_>>,
    ) -> Result<(Vec<u8>, Vec<u8>, bool), Attend> {
        let &Attended {
            doing,
            limit,
            keep_head,
            started,
        } = attended;
        let mut stdin = child.stdin.take();
        let mut stdout = child.stdout.take();
        let mut stderr = child.stderr.take();
        for fd in [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            rustix::io::ioctl_fionbio(fd, true).map_err(|e| Attend::Io(e.into()))?;
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut buffer = vec![0_u8; 64 * 1024];
        // Woken by the child's pipes, the deadline, or the interval at which cancellation is looked at.
        while stdout.is_some() || stderr.is_some() {
            self.cancel().check(doing).map_err(Attend::Failed)?;
            let left = self.deadline().saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(Attend::Failed(Error::TimedOut {
                    doing,
                    after: self.deadline(),
                }));
            }
            let mut fds = Vec::with_capacity(3);
            if let Some(pipe) = &stdin {
                fds.push(PollFd::new(pipe, PollFlags::OUT));
            }
            if let Some(pipe) = &stdout {
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
            if let Some(pipe) = &stderr {
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
            let wait = left.min(CANCEL_INTERVAL);
            let wait = Timespec {
                tv_sec: wait.as_secs() as i64,
                tv_nsec: i64::from(wait.subsec_nanos()),
            };
            match poll(&mut fds, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(Attend::Io(e.into())),
            }
            drop(fds);
            if let Some(pipe) = &stdin {
                match feed(pipe, &mut input) {
                    Ok(true) => stdin = None,
                    Ok(false) => {}
                    Err(e) => return Err(Attend::Io(e)),
                }
            }
            if let Some(pipe) = &stdout
                && drain(pipe, &mut buffer, &mut out).map_err(Attend::Io)?
            {
                stdout = None;
            }
            if out.len() > limit {
                if keep_head {
                    out.truncate(limit);
                    return Ok((out, err, true));
                }
                return Err(Attend::Failed(Error::TooLarge {
                    what: format!("what git printed while {doing}"),
                    limit: limit as u64,
                }));
            }
            let before = err.len();
            if let Some(pipe) = &stderr
                && drain(pipe, &mut buffer, &mut err).map_err(Attend::Io)?
            {
                stderr = None;
            }
            if let Some(watch) = &mut watch {
                watch(err.get(before..).unwrap_or_default()).map_err(Attend::Failed)?;
            }
            if err.len() > STDERR_LIMIT {
                err.drain(..err.len() - STDERR_LIMIT);
            }
        }
        Ok((out, err, false))
    }
}

/// How a child is attended.
struct Attended {
    doing: &'static str,
    limit: usize,
    keep_head: bool,
    started: Instant,
}

/// What sees a process at work: it is given what the process has said on its error output since the
/// last time, perhaps nothing, at least every 50 ms. Its error ends the process.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Error>;

/// What each process of a group may take, by the kernel's own count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// The size of one file, in bytes.
    pub(crate) file: u64,
    /// Memory that is not of files, in bytes.
    pub(crate) memory: Option<u64>,
}

impl Most {
    /// Holds for the child and all that it starts from now on.
    fn hold(self, child: &Child) -> std::io::Result<()> {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(child.id() as i32);
        let file = (Resource::Fsize, self.file);
        let memory = self.memory.map(|most| (Resource::Data, most));
        for (resource, most) in [file].into_iter().chain(memory) {
            let limit = Rlimit {
                current: Some(most),
                maximum: Some(most),
            };
            match prlimit(pid, resource, limit) {
                // It has ended already.
                Ok(_) | Err(Errno::SRCH) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

enum Attend {
    Io(std::io::Error),
    Failed(Error),
}

/// Writes what the pipe takes; true when all is written or nobody reads any more.
fn feed(pipe: impl AsFd, input: &mut &[u8]) -> std::io::Result<bool> {
    while !input.is_empty() {
        match rustix::io::write(&pipe, input) {
            Ok(n) => *input = input.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::PIPE) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

/// Reads once; true at the end.
fn drain(pipe: impl AsFd, buffer: &mut [u8], into: &mut Vec<u8>) -> std::io::Result<bool> {
    match rustix::io::read(&pipe, &mut *buffer) {
        Ok(0) => Ok(true),
        Ok(n) => {
            into.extend_from_slice(buffer.get(..n).unwrap_or_default());
            Ok(false)
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// A child that leads a process group, which ends with this value.
struct Group {
    child: Child,
    ended: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32)
            && let Err(error) =
                rustix::process::kill_process_group(pid, rustix::process::Signal::KILL)
        {
            tracing::debug!(%error, "the process group was gone already");
        }
        if let Err(error) = self.child.wait() {
            tracing::debug!(%error, "the process was reaped already");
        }
    }
}

/// One run of a process.
pub(crate) struct Call<'a> {
    doing: &'static str,
    command: Command,
    stdin: Option<&'a [u8]>,
    stdout: Option<File>,
    limit: usize,
    keep_head: bool,
    watch: Option<Watch<'a>>,
    most: Option<Most>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(doing: &'static str, command: Command) -> Call<'a> {
        Call {
            doing,
            command,
            stdin: None,
            stdout: None,
            limit: 64 * 1024 * 1024,
            keep_head: false,
            watch: None,
            most: None,
        }
    }

    /// Who sees the process at work.
    pub(crate) fn watch(mut self, watch: Watch<'a>) -> Call<'a> {
        self.watch = Some(watch);
        self
    }

    /// What its processes may take.
    pub(crate) fn within(mut self, most: Most) -> Call<'a> {
        self.most = Some(most);
        self
    }

    pub(crate) fn stdin(mut self, input: &'a [u8]) -> Call<'a> {
        self.stdin = Some(input);
        self
    }

    /// Where its output goes; nothing of it is read here then.
    pub(crate) fn into_file(mut self, file: File) -> Call<'a> {
        self.stdout = Some(file);
        self
    }

    /// More output than this is an error.
    pub(crate) fn limit(mut self, bytes: usize) -> Call<'a> {
        self.limit = bytes;
        self
    }

    /// More output than this is cut off, and the process stopped.
    pub(crate) fn head(mut self, bytes: usize) -> Call<'a> {
        self.limit = bytes;
        self.keep_head = true;
        self
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) status: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) truncated: bool,
}

impl Output {
    pub(crate) fn success(self, doing: &'static str) -> Result<Output, Error> {
        if self.code == Some(0) {
            Ok(self)
        } else {
            Err(self.failure(doing))
        }
    }

    pub(crate) fn failure(&self, doing: &'static str) -> Error {
        let message = String::from_utf8_lossy(&self.stderr).trim().to_owned();
        Error::Failed {
            doing,
            status: self.status.clone(),
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Cancel;

    fn program() -> Program {
        Program::find(&std::env::var_os("PATH").unwrap()).unwrap()
    }

    #[test]
    fn a_process_over_its_deadline_is_killed_with_its_group() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]);
        let program = program().with_deadline(Duration::from_millis(200));
        let started = Instant::now();
        let error = program.execute(Call::new("testing", command)).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_cancelled_process_ends_soon() {
        let cancel = Cancel::new();
        let program = program().with_cancel(cancel.clone());
        let canceller = std::thread::spawn(move || cancel.cancel());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec sleep 1000"]);
        let error = program.execute(Call::new("testing", command)).unwrap_err();
        canceller.join().unwrap();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    }

    #[test]
    fn large_input_and_output_pass_at_once() {
        let input = vec![b'x'; 3 << 20];
        let call = Call::new("testing", Command::new("/bin/cat")).stdin(&input);
        let output = program().execute(call).unwrap();
        assert_eq!(output.stdout, input);
    }

    #[test]
    fn endless_output_is_cut_off() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyy; done"]);
        let output = program()
            .execute(Call::new("testing", command).head(1000))
            .unwrap();
        assert!(output.truncated);
        assert_eq!(output.stdout.len(), 1000);
    }
}
