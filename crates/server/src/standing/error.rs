//! What can go wrong with a sandbox that a process holds.

use domain::Reason;
use serde::{Deserialize, Serialize};
use std::{io, path::PathBuf};

/// Why a sandbox that a process holds cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing has this id or name.
    #[error("there is no sandbox `{name}`")]
    NotFound {
        /// What was named.
        name: String,
    },
    /// Only the beginning was named, for what cannot be taken back.
    #[error("`{name}` is only the beginning of {id}, and this wants a whole id or name")]
    NotWhole {
        /// What was named.
        name: String,
        /// One that begins like this.
        id: String,
    },
    /// Several begin like this.
    #[error("`{name}` is the beginning of several sandboxes: {ids}")]
    Ambiguous {
        /// What was named.
        name: String,
        /// Which.
        ids: String,
    },
    /// Another has the name.
    #[error("the sandbox {id} has the name `{name}` already")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A name that cannot be one.
    #[error(
        "`{name}` cannot be the name of a sandbox: it takes up to 64 letters, digits, `-`, `_` and `.`, no `-` at its beginning, and no id"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A person's dotfiles cannot be taken.
    #[error("{0}")]
    Dotfiles(String),
    /// There are as many as may be.
    #[error(
        "there are {} sandboxes already, which is as many as are held at once; end some with `skep sandbox destroy`",
        super::MOST
    )]
    TooMany,
    /// The holder ended, or was killed.
    #[error("the sandbox {id} has ended")]
    Gone {
        /// Which.
        id: String,
    },
    /// Nothing can run in it.
    #[error(
        "the sandbox {id} is stopped ({why}); `skep sandbox start {id}` brings it up with its files"
    )]
    Stopped {
        /// Which.
        id: String,
        /// Why.
        why: super::Why,
    },
    /// It runs, or another process is about to start it.
    #[error("the sandbox {id} runs, or another process is about to start it")]
    Held {
        /// Which.
        id: String,
    },
    /// A sandbox that is stopped before it is ready.
    #[error("the sandbox is stopped or destroyed before it is ready")]
    GivenUp,
    /// The process that was to hold a sandbox was told to end before that was ready.
    #[error("the process that was to hold the sandbox was told to end before it was ready")]
    Told,
    /// Its files cannot be taken away.
    #[error("the files of sandboxes could not be cleared away")]
    Files(#[source] workspace::Error),
    /// The holder said no.
    #[error("{message}")]
    Refused {
        /// Why, with what to do.
        message: String,
        /// The reason, where it is one of the domain.
        reason: Option<Reason>,
    },
    /// It cannot be used like this now.
    #[error("{message}")]
    Unable {
        /// What is in the way.
        why: Unable,
        /// The same in words.
        message: String,
    },
    /// The command itself cannot be started.
    #[error("{message}")]
    Program {
        /// Why.
        message: String,
        /// What a shell would end with: 127 if there is no such program, else 126.
        code: u8,
    },
    /// The holder does not answer.
    #[error(
        "the process {pid} that holds the sandbox {id} does not answer; `kill -9 {pid}` stops the sandbox, and its files stay"
    )]
    Silent {
        /// The sandbox.
        id: String,
        /// The holder.
        pid: u32,
    },
    /// One side says what the other cannot read: they are not of the same version.
    #[error(
        "what the holder of the sandbox says cannot be read: it is another version of skep; destroy it, and create another"
    )]
    Unreadable(#[source] serde_json::Error),
    /// What is written down of a sandbox cannot be read.
    #[error("{} cannot be read: it is damaged, or of another version of skep", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A message is longer than any may be.
    #[error(
        "a command for a sandbox is longer than {} bytes",
        super::talk::LONGEST
    )]
    TooLong,
    /// A file or a socket of it cannot be used.
    #[error("{doing} {} failed", path.display())]
    File {
        /// What was done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The conversation with the holder broke.
    #[error("the conversation with the holder of the sandbox broke")]
    Conversation(#[source] io::Error),
}

/// What is in the way of a command, of a snapshot, of the way back to one, or of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unable {
    /// Sandboxes of this kind, or on this machine, have none.
    NoSnapshots,
    /// There is none of this name.
    NotFound,
    /// There is one of this name.
    Taken,
    /// No snapshot can have this name.
    Name,
    /// There are as many as can be.
    TooMany,
    /// Something runs inside, or as much as may at a time.
    Busy,
    /// Nothing can run in it any more, and its files are there: it has to be started again.
    Over,
}

impl Error {
    /// Why the sandbox did not start a command.
    pub(super) fn of_start(error: sandbox::Error) -> crate::Error {
        let code = match &error {
            sandbox::Error::NotFound { .. } => 127,
            sandbox::Error::CannotStart { .. } => 126,
            _ => return error.into(),
        };
        Self::Program {
            message: domain::failure::chain(&error),
            code,
        }
        .into()
    }

    /// Wraps what the system says of a path.
    pub(super) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}
