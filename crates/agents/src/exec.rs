//! Running a command where the agent works, as a role above provides it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

/// A command to run inside.
#[derive(Debug, Clone)]
pub struct Request {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// The whole environment: nothing else reaches the command.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, as seen inside.
    pub cwd: PathBuf,
    /// What the command reads; then its input ends.
    pub stdin: Vec<u8>,
    /// After this long, the command and all that it started are ended.
    pub timeout: Duration,
    /// The most bytes that are kept of each of its two outputs. A streamed output is not kept.
    pub max_output: usize,
}

/// The beginning and the end of what a command printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes.
    pub head: Vec<u8>,
    /// The last bytes, where there were more than fit into `head`.
    pub tail: Vec<u8>,
    /// Bytes between them that were thrown away.
    pub omitted: u64,
}

impl Captured {
    /// All that was printed, if nothing was thrown away.
    #[must_use]
    pub fn whole(&self) -> Option<Vec<u8>> {
        (self.omitted == 0).then(|| [self.head.as_slice(), self.tail.as_slice()].concat())
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, if the command ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Whether its time was over.
    pub timed_out: bool,
    /// The limit of the sandbox that struck, in words: "limit of memory".
    pub limit: Option<String>,
    /// The call of the kernel that the sandbox refused, where that may be why it failed, by its name.
    pub refused: Option<String>,
}

impl Exit {
    /// Whether the command ended by itself, in time, with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.timed_out, self.code, self.signal) {
            (true, ..) => f.write_str("ran out of time")?,
            (false, Some(code), _) => write!(f, "exit code {code}")?,
            (false, None, Some(signal)) => write!(f, "ended by signal {signal}")?,
            (false, None, None) => f.write_str("ended")?,
        }
        match (&self.limit, &self.refused) {
            (Some(limit), _) => write!(f, ", {limit} reached"),
            (None, Some(call)) => write!(f, ", the sandbox refused the call `{call}`"),
            (None, None) => Ok(()),
        }
    }
}

/// How a command ended, and what it printed.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it printed.
    pub stdout: Captured,
    /// What it printed to its error output.
    pub stderr: Captured,
    /// How long it ran.
    pub duration: Duration,
}

/// Why a command could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not start.
    #[error("cannot start {program} in the sandbox")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A limit of the sandbox leaves nothing to run it with: the next try would meet it too.
    #[error("{program} cannot run in the sandbox any more")]
    Limit {
        /// The program.
        program: String,
        /// Which.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The sandbox ended, or lost it.
    #[error("the sandbox ended while {program} ran")]
    Gone {
        /// The program.
        program: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Runs commands where the agent works.
///
/// Dropping a future of these methods, or a [`Running`], kills the command and all that it
/// started.
#[async_trait]
pub trait Exec: Send + Sync {
    /// Runs a command to its end. That it fails, or runs out of time, is no error.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or the sandbox ends.
    async fn exec(&self, request: Request) -> Result<Output, Error>;

    /// Starts a command whose output is read as it comes.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    async fn spawn(&self, request: Request) -> Result<Box<dyn Running>, Error>;
}

/// A command that runs, and whose output is read as it comes.
#[async_trait]
pub trait Running: Send {
    /// The next bytes of its output, in chunks of the implementer's choice; `None` at the end.
    /// It may be cancelled without losing bytes. The error output is read and kept meanwhile,
    /// at most [`Request::max_output`] bytes of it.
    ///
    /// # Errors
    ///
    /// When the sandbox ends.
    async fn read(&mut self) -> Result<Option<Vec<u8>>, Error>;

    /// Waits until it has ended. `stdout` of what this returns is empty.
    ///
    /// # Errors
    ///
    /// When the sandbox ends.
    async fn wait(&mut self) -> Result<Output, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_says_which_limit_or_which_refused_call_explains_it() {
        let mut exit = Exit {
            code: Some(1),
            refused: Some("ptrace".into()),
            ..Exit::default()
        };
        let said = "exit code 1, the sandbox refused the call `ptrace`";
        assert_eq!(exit.to_string(), said);
        exit.limit = Some("limit of memory".into());
        assert_eq!(exit.to_string(), "exit code 1, limit of memory reached");
    }
}
