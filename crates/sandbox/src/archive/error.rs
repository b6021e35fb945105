//! What can go wrong with an archive.

use std::path::PathBuf;

/// A failure to read or write an archive, or what it holds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no archive, or a damaged one.
    #[error("the archive is damaged: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry would be outside of where it belongs.
    #[error(
        "the archive has an entry {path:?}, which leads elsewhere; nothing more is taken of it"
    )]
    Elsewhere {
        /// Its path, as it was written.
        path: PathBuf,
    },
    /// An entry is of a kind that is not carried.
    #[error(
        "the archive has {path:?}, which is {what}; only files, directories and symbolic links can be copied"
    )]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// There is more than is taken.
    #[error("{path:?} is more than may be copied at once: at most {allowed} {limit}")]
    TooMuch {
        /// Where that was seen.
        path: PathBuf,
        /// What is limited.
        limit: Most,
        /// How much is allowed.
        allowed: u64,
    },
    /// The other side stopped before the end.
    #[error("the copy stopped before its end")]
    Ended,
    /// A path of this machine cannot be read or written.
    #[error("cannot {doing} {path:?}")]
    Local {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The bytes cannot be passed on.
    #[error("cannot pass on the archive")]
    Stream(#[source] std::io::Error),
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// Entries.
    Entries,
    /// Bytes of one file.
    FileBytes,
    /// Bytes of all of them.
    TotalBytes,
    /// Bytes of a path.
    PathBytes,
    /// Names in a path.
    Depth,
}

impl std::fmt::Display for Most {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Entries => "entries",
            Self::FileBytes => "bytes a file",
            Self::TotalBytes => "bytes in all",
            Self::PathBytes => "bytes a path",
            Self::Depth => "directories in each other",
        })
    }
}

impl Error {
    /// A path of this machine, and what was being done with it, as an infinitive.
    pub fn local(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Local {
            doing,
            path: path.into(),
            source,
        }
    }

    /// That the other side of a stream has gone is told by why it went.
    pub(super) fn stream(source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::BrokenPipe => Self::Ended,
            _ => Self::Stream(source),
        }
    }
}
