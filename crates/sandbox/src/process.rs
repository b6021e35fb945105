//! One running command, as its owner holds it.

use std::os::fd::OwnedFd;

use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::stdio::Stdio;
use crate::{Call, Error, Exit, Terminal};

/// How a kind of sandbox reaches what it has started.
pub(crate) trait Reach: Send + Sync {
    /// Sends a signal to the whole tree of the command; nothing happens if it has ended.
    fn signal_tree(&self, signal: i32);
}

/// One running command. Dropping it kills the command and all that it started.
pub struct Process {
    /// The command's input, if [`crate::Stdin::Pipe`] was asked for. Drop it to end the input.
    pub stdin: Option<pipe::Sender>,
    /// What the command prints. It must be read: a command that finds the pipe full waits.
    /// `None` once taken.
    pub stdout: Option<pipe::Receiver>,
    /// What the command prints to its error output. `None` once taken.
    pub stderr: Option<pipe::Receiver>,
    /// The owner's end of the terminal, if [`crate::Command::terminal`] asked for one; there are no
    /// pipes then. It must be read as they must. Dropped, it hangs up: the command gets SIGHUP.
    pub terminal: Option<Terminal>,
    exit: Outcome,
    reach: Box<dyn Reach>,
}

enum Outcome {
    Pending(oneshot::Receiver<Result<Ended, Error>>),
    Known(Box<Ended>),
    Lost,
}

/// What is known of a command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) refused: Vec<Call>,
}

impl Process {
    pub(crate) fn new(
        exit: oneshot::Receiver<Result<Ended, Error>>,
        reach: Box<dyn Reach>,
    ) -> Self {
        Self {
            stdin: None,
            stdout: None,
            stderr: None,
            terminal: None,
            exit: Outcome::Pending(exit),
            reach,
        }
    }

    /// Takes the owner's ends of the streams; hands out the command's.
    pub(crate) fn take_streams(&mut self, streams: Stdio) -> [OwnedFd; 3] {
        self.stdin = streams.stdin;
        self.stdout = Some(streams.stdout);
        self.stderr = Some(streams.stderr);
        streams.inside
    }

    /// Waits until the command has ended. The timeout of the command is kept whether or not anyone
    /// waits. May be called again, and may be cancelled.
    ///
    /// # Errors
    /// [`Error::Gone`] if the sandbox ended first.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        match &mut self.exit {
            Outcome::Known(ended) => Ok(ended.exit),
            Outcome::Lost => Err(Error::Gone),
            Outcome::Pending(receiver) => match receiver.await.unwrap_or(Err(Error::Gone)) {
                Ok(ended) => {
                    let exit = ended.exit;
                    self.exit = Outcome::Known(Box::new(ended));
                    Ok(exit)
                }
                Err(error) => {
                    self.exit = Outcome::Lost;
                    Err(error)
                }
            },
        }
    }

    /// The calls that the sandbox refused to it, as [`crate::Last::refused`], once its end was waited for.
    pub fn refused(&self) -> &[Call] {
        match &self.exit {
            Outcome::Known(ended) => &ended.refused,
            Outcome::Pending(_) | Outcome::Lost => &[],
        }
    }

    /// Asks the whole tree of the command to end (SIGTERM).
    pub fn terminate(&self) {
        self.reach.signal_tree(libc::SIGTERM);
    }

    /// Interrupts the whole tree of the command (SIGINT), as `Ctrl-C` does.
    pub fn interrupt(&self) {
        self.reach.signal_tree(libc::SIGINT);
    }

    /// Kills the whole tree of the command (SIGKILL).
    pub fn kill(&self) {
        self.reach.signal_tree(libc::SIGKILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Outcome::Pending(receiver) = &mut self.exit {
            // An exit that has arrived already needs no kill.
            if receiver.try_recv().is_err() {
                self.reach.signal_tree(libc::SIGKILL);
            }
        }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}
