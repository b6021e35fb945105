//! The first process of a sandbox, as its owner ends it and learns how it ended.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::start::{GONE_WITHIN, wait_readable};
use crate::Error;

/// The first process of a sandbox, a child of this process.
pub(crate) struct First {
    pub(crate) pidfd: OwnedFd,
    pub(crate) pid: u32,
    reaped: bool,
    /// How it ended, once this process has waited for it.
    status: Option<ExitStatus>,
}

impl First {
    pub(super) fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self {
            pidfd,
            pid,
            reaped: false,
            status: None,
        }
    }

    /// Kills the sandbox and waits until nothing of it is left.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        if self.reaped {
            return Ok(());
        }
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            // It has ended by itself.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(Error::io("end the sandbox")(error.into())),
        }
        if !wait_readable(self.pidfd.as_fd(), Instant::now() + GONE_WITHIN)? {
            return Err(Error::Silent {
                seconds: GONE_WITHIN.as_secs(),
                doing: "ending",
            });
        }
        self.reaped = true;
        match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(ended) => self.status = ended.as_ref().map(status_of),
            // A program that ignores its children's ends has none to wait for.
            Err(Errno::CHILD) => {}
            Err(error) => return Err(Error::io("take the end of the sandbox")(error.into())),
        }
        Ok(())
    }

    /// How it ended, if it has and is a child of this process. It is not waited for: its number stays its.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.status.or_else(|| {
            let seen = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), look);
            seen.ok().flatten().as_ref().map(status_of)
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.reaped || wait_readable(self.pidfd.as_fd(), Instant::now()).unwrap_or(true)
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, pid = self.pid, "a sandbox does not end");
        }
    }
}

/// What `wait` would say of how a process ended.
fn status_of(ended: &WaitIdStatus) -> ExitStatus {
    /// Whether there was a core, beside the signal.
    const CORE: i32 = 0x80;
    let code = ended.exit_status().map(|code| code << 8);
    let core = if ended.dumped() { CORE } else { 0 };
    let signal = ended.terminating_signal().map(|signal| signal | core);
    ExitStatus::from_raw(code.or(signal).unwrap_or_default())
}
