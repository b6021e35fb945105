//! A command to run inside, and how it ended.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Call, Size};

/// A command to run in a sandbox. Nothing of the owner's environment reaches it.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program and its arguments. A program without a slash is looked up in `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment. See [`crate::Sandbox::base_env`] for what most commands need.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, as seen inside.
    pub cwd: PathBuf,
    /// What the command reads.
    pub stdin: Stdin,
    /// A terminal of this size in place of the three streams: `stdin` does not count then.
    pub terminal: Option<Size>,
    /// After this long the command's whole tree gets SIGTERM, and SIGKILL after [`Command::grace`].
    pub timeout: Option<Duration>,
    /// The time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether what the command left running goes on after it has ended. If not (the default), it
    /// is killed before the exit is reported, so that the output ends with the command.
    pub keep_background: bool,
}

impl Command {
    /// A command with an empty environment and no input.
    pub fn new<I, S>(argv: I, cwd: impl Into<PathBuf>) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: cwd.into(),
            stdin: Stdin::Null,
            terminal: None,
            timeout: None,
            grace: Duration::from_secs(2),
            keep_background: false,
        }
    }

    /// Adds to the environment; a later value for a name replaces an earlier one.
    #[must_use]
    pub fn with_env<I, K, V>(mut self, env: I) -> Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<OsString>,
        V: Into<OsString>,
    {
        for (name, value) in env {
            let name = name.into();
            self.env.retain(|(known, _)| *known != name);
            self.env.push((name, value.into()));
        }
        self
    }

    /// Sets what the command reads.
    #[must_use]
    pub fn with_stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Gives it a terminal; most programs need `TERM` in their environment besides.
    #[must_use]
    pub fn with_terminal(mut self, size: Size) -> Self {
        self.terminal = Some(size);
        self
    }

    /// Sets the time after which the command is ended.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// What a command reads from its standard input.
#[derive(Debug, Clone, Default)]
pub enum Stdin {
    /// Nothing.
    #[default]
    Null,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// What the owner writes to [`crate::Process::stdin`].
    Pipe,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// The exit code, if the command ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Whether it was ended because its time was over.
    pub timed_out: bool,
    /// The limit of the sandbox that struck while it ran and that explains its failure.
    pub limit: Option<Limit>,
    /// The call that the sandbox refused to it last, if it failed and nothing else explains that.
    #[serde(default)]
    pub refused: Option<Call>,
}

impl Exit {
    /// What of the sandbox explains that it failed, for a person, and what to do about that.
    pub fn why(&self) -> Option<String> {
        match (self.limit, self.refused) {
            (Some(limit), _) => Some(format!("the {limit} was reached")),
            (None, Some(call)) => Some(format!(
                "the sandbox refused the call `{call}`, which may be why it failed; {}",
                call.remedy()
            )),
            (None, None) => None,
        }
    }

    /// The number that a shell would show: the code, or 128 and the signal.
    pub fn shell_code(&self) -> u8 {
        let number = match (self.code, self.signal) {
            (Some(code), _) => code,
            (None, Some(signal)) => signal.saturating_add(128),
            (None, None) => 255,
        };
        u8::try_from(number).unwrap_or(u8::MAX)
    }

    /// Whether the command ended by itself with code 0, in time.
    pub fn success(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}")?,
            (None, Some(signal)) => write!(f, "ended by signal {signal}")?,
            (None, None) => write!(f, "ended")?,
        }
        if self.timed_out {
            write!(f, ", out of time")?;
        }
        match (self.limit, self.refused) {
            (Some(limit), _) => write!(f, ", {limit} reached"),
            (None, Some(call)) => write!(f, ", `{call}` refused"),
            (None, None) => Ok(()),
        }
    }
}

/// A limit of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// [`crate::Limits::memory_bytes`].
    Memory,
    /// [`crate::Limits::processes`].
    Processes,
    /// [`crate::Limits::file_bytes`].
    FileBytes,
    /// What the owner of the workspace lets it take on disk; the owner says when, with
    /// [`crate::Strike`].
    Disk,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "limit of memory",
            Self::Processes => "limit of processes",
            Self::FileBytes => "limit of a file's size",
            Self::Disk => "limit of the disk",
        })
    }
}
