//! A command in a place, wherever the place is held.

use super::{
    error::Error as StandingError,
    said::{Said, Told},
    talk::{Answer, Talk},
};
use crate::Error;
use sandbox::{Call, Exit, Process, Size, Terminal};
use serde::{Deserialize, Serialize};
use std::{ffi::OsString, io, os::fd::OwnedFd, time::Duration};
use tokio::net::unix::pipe;

/// How long a holder may take to note what a command printed.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// A command for a place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    /// The program and its arguments; a shell where there are none.
    pub argv: Vec<OsString>,
    /// What the environment has besides.
    pub env: Vec<(OsString, OsString)>,
    /// The size of its terminal, if it gets one in place of its streams.
    pub terminal: Option<Size>,
    /// Whether it has an input.
    pub stdin: bool,
    /// After this long it is ended.
    pub timeout: Option<Duration>,
    /// Whether what it leaves running goes on, until the sandbox ends.
    #[serde(default)]
    pub keep_background: bool,
}

/// The owner's ends of what a command reads and writes.
#[derive(Debug)]
pub enum Ends {
    /// Pipes.
    Pipes {
        /// Its input, if it has one. Drop it to end the input.
        stdin: Option<pipe::Sender>,
        /// What it prints.
        stdout: pipe::Receiver,
        /// What it prints to its error output.
        stderr: pipe::Receiver,
    },
    /// A terminal.
    Terminal(Terminal),
}

impl Ends {
    /// The descriptors, for another process.
    pub(super) fn into_descriptors(self) -> io::Result<Vec<OwnedFd>> {
        Ok(match self {
            Self::Terminal(terminal) => vec![terminal.into_fd()],
            Self::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                let mut all = vec![stdout.into_nonblocking_fd()?, stderr.into_nonblocking_fd()?];
                if let Some(stdin) = stdin {
                    all.push(stdin.into_nonblocking_fd()?);
                }
                all
            }
        })
    }

    /// From the descriptors that another process has handed out.
    fn from_descriptors(fds: Vec<OwnedFd>) -> Result<Self, Error> {
        let broken = |source| Error::from(StandingError::Conversation(source));
        let mut fds = fds.into_iter();
        Ok(match (fds.next(), fds.next(), fds.next()) {
            (Some(terminal), None, _) => Self::Terminal(Terminal::new(terminal)?),
            (Some(stdout), Some(stderr), stdin) => Self::Pipes {
                stdout: pipe::Receiver::from_owned_fd(stdout).map_err(broken)?,
                stderr: pipe::Receiver::from_owned_fd(stderr).map_err(broken)?,
                stdin: stdin
                    .map(pipe::Sender::from_owned_fd)
                    .transpose()
                    .map_err(broken)?,
            },
            (None, ..) => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
        })
    }
}

/// What a person does to a command from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nudge {
    /// `SIGINT` to all of it.
    Interrupt,
    /// `SIGTERM` to all of it.
    Terminate,
    /// `SIGKILL` to all of it.
    Kill,
}

/// A command that runs in a place. Dropping it kills all that it started.
#[derive(Debug)]
pub struct Running {
    ends: Option<Ends>,
    at: At,
    swept: bool,
}

#[derive(Debug)]
enum At {
    Here(Process),
    /// With the holder of the place.
    There(Box<Talk>),
}

impl Running {
    pub(super) fn here(mut process: Process) -> Self {
        let ends = match (
            process.terminal.take(),
            process.stdout.take(),
            process.stderr.take(),
        ) {
            (Some(terminal), ..) => Some(Ends::Terminal(terminal)),
            (None, Some(stdout), Some(stderr)) => Some(Ends::Pipes {
                stdin: process.stdin.take(),
                stdout,
                stderr,
            }),
            _ => None,
        };
        Self {
            ends,
            at: At::Here(process),
            swept: false,
        }
    }

    pub(super) fn there(talk: Talk, fds: Vec<OwnedFd>) -> Result<Self, Error> {
        Ok(Self {
            ends: Some(Ends::from_descriptors(fds)?),
            at: At::There(Box::new(talk)),
            swept: false,
        })
    }

    /// Whether it was ended because its sandbox was.
    #[must_use]
    pub fn ended_with_sandbox(&self) -> bool {
        self.swept
    }

    /// Hands out what the command reads and writes, once.
    pub fn take_ends(&mut self) -> Option<Ends> {
        self.ends.take()
    }

    /// Waits for its end. May be cancelled, and called again until it has answered.
    ///
    /// # Errors
    /// When the sandbox, or its holder, ended first.
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        match &mut self.at {
            At::Here(process) => Ok(process.wait().await?),
            At::There(talk) => match talk.hear().await? {
                Some((Answer::Exited(exit), _)) => Ok(exit),
                Some((Answer::Ended(exit), _)) => {
                    self.swept = true;
                    Ok(exit)
                }
                Some((refused @ Answer::Refused { .. }, _)) => {
                    let broken = || StandingError::Conversation(io::ErrorKind::InvalidData.into());
                    Err(refused.into_error(broken).into())
                }
                _ => Err(sandbox::Error::Gone.into()),
            },
        }
    }

    /// Tells the holder what the command printed last, for whoever asks why it failed: only a client has read
    /// it. Once it was waited for; where there is no holder that wants to know, nothing happens.
    pub async fn remember(&mut self, mut said: Said) {
        let At::There(talk) = &mut self.at else {
            return;
        };
        if let Err(error) = talk.say(&Told::from(&mut said), &[]).await {
            tracing::debug!(%error, "what was printed does not reach the holder");
            return;
        }
        // It hangs up when that is noted.
        let noted = tokio::time::timeout(NOTED_WITHIN, talk.until_hung_up()).await;
        if noted.is_err() {
            tracing::debug!("the holder takes long to note what was printed");
        }
    }

    /// The calls that were refused to it, once it was waited for; none of one elsewhere.
    pub(super) fn refused(&self) -> &[Call] {
        match &self.at {
            At::Here(process) => process.refused(),
            At::There(_) => &[],
        }
    }

    /// Signals all of the command. That it has ended meanwhile is no failure.
    pub async fn nudge(&mut self, nudge: Nudge) {
        match &mut self.at {
            At::Here(process) => match nudge {
                Nudge::Interrupt => process.interrupt(),
                Nudge::Terminate => process.terminate(),
                Nudge::Kill => process.kill(),
            },
            At::There(talk) => {
                if let Err(error) = talk.say(&nudge, &[]).await {
                    tracing::debug!(%error, "a signal does not reach the holder");
                }
            }
        }
    }
}
