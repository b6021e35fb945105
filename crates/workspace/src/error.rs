//! What can go wrong with the files of attempts.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bstr::BString;
use rustix::io::Errno;

use crate::record::MOST_ALSO;

/// An operation on bases or workspaces that did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that the trusted side may not write in a workspace.
    #[error(
        "the path {path} may not be written in a workspace: it is not relative, or names a git directory"
    )]
    EditPath {
        /// The path.
        path: BString,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// What was being done, as the verb of a sentence.
        doing: &'static str,
        /// To what. Inside a workspace this is the path relative to its root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key or id that cannot be the name of a directory.
    #[error(
        "{name:?} cannot name a {what}: use 1 to 200 of A-Z a-z 0-9 . _ -, not starting with a dot"
    )]
    Name {
        /// `base`, `setup`, `workspace` or `snapshot`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// The store's directories are on different file systems, so that nothing could be renamed into place.
    #[error(
        "{path:?} is on another file system than the store: keep bases, workspaces and trash together"
    )]
    FileSystems {
        /// The directory that is elsewhere.
        path: PathBuf,
    },
    /// The store's directory belongs to another user.
    #[error("{path:?} belongs to user {owner}: choose a directory of your own")]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// There is a workspace with this id already.
    #[error("there is a workspace {id:?} already: open it, or choose another id")]
    Exists {
        /// The id.
        id: String,
    },
    /// There is no workspace with this id.
    #[error("there is no workspace {id:?}")]
    NoWorkspace {
        /// The id.
        id: String,
    },
    /// Nothing of this repository is written in the workspace.
    #[error("the workspace {id:?} holds no repository {name:?}")]
    NoRepository {
        /// The workspace.
        id: String,
        /// The name that was asked for.
        name: String,
    },
    /// More repositories were to be written in one workspace than can be.
    #[error("a workspace holds at most {} repositories that are written", MOST_ALSO + 1)]
    TooManyRepositories,
    /// Another process has this workspace open.
    #[error("the workspace {id:?} is in use by another process")]
    WorkspaceInUse {
        /// The id.
        id: String,
    },
    /// The machine was started anew since this workspace was written, which was never synced.
    #[error(
        "the machine was restarted since the workspace {id:?} was written: it may be incomplete"
    )]
    OtherBoot {
        /// The id.
        id: String,
    },
    /// A workspace without layers has no snapshots.
    #[error(
        "the workspace {id:?} is a plain copy of its base: it has no snapshots, no undo and no forks"
    )]
    NoSnapshots {
        /// The id.
        id: String,
    },
    /// What a setup left is a layer, and workspaces here have none.
    #[error("workspaces are plain copies here: what a setup left cannot lie over one")]
    NoLayers,
    /// There is no snapshot of this name.
    #[error("the workspace {id:?} has no snapshot {name:?}")]
    NoSnapshot {
        /// The workspace.
        id: String,
        /// The name that was asked for.
        name: String,
    },
    /// There is a snapshot of this name already.
    #[error("the workspace {id:?} has a snapshot {name:?} already: choose another name")]
    SnapshotExists {
        /// The workspace.
        id: String,
        /// The name.
        name: String,
    },
    /// No layer can be added.
    #[error(
        "the workspace {id:?} has as many snapshots as can be kept: go back to one, or fork it"
    )]
    TooManySnapshots {
        /// The workspace.
        id: String,
    },
    /// Somebody else has been collecting shared layers for too long.
    #[error(
        "the layers that workspaces share were still being collected by another after {waited:?}: try again later"
    )]
    SharedBusy {
        /// How long this call waited.
        waited: Duration,
    },
    /// There is no base with this key.
    #[error("there is no base {key:?}: build it first")]
    NoBase {
        /// The key.
        key: String,
    },
    /// A base cannot be evicted now.
    #[error("base {key:?} is in use by {user}")]
    BaseInUse {
        /// The key.
        key: String,
        /// A workspace, or `a process`.
        user: String,
    },
    /// Somebody else has been building a base for too long.
    #[error("base {key:?} was still being built by another after {waited:?}: try again later")]
    BaseBusy {
        /// The key.
        key: String,
        /// How long this call waited.
        waited: Duration,
    },
    /// A base was to lie over one that is a whole stack already.
    #[error("the base {key:?} would lie over too many others: it has to be made whole")]
    TooManyLayers {
        /// The key.
        key: String,
    },
    /// A base holds something that is neither a file, a directory nor a symbolic link.
    #[error("base entry {path:?} is neither a file, a directory nor a symbolic link")]
    BaseEntry {
        /// The path relative to the base.
        path: BString,
    },
    /// The record beside a workspace cannot be read.
    #[error("the record {path:?} is damaged: delete the workspace")]
    Record {
        /// The file.
        path: PathBuf,
    },
    /// The workspace holds more than the limits allow.
    #[error("{path:?} exceeds the limit of {allowed} {limit}")]
    Limit {
        /// Where it was noticed, relative to the workspace.
        path: BString,
        /// Which limit.
        limit: Limit,
        /// What is allowed.
        allowed: u64,
    },
    /// Something changed the files while they were read: a process of the attempt is still alive.
    #[error("{path:?} changed while it was read: end the attempt's processes first")]
    Changed {
        /// The path relative to the workspace.
        path: BString,
    },
    /// What a listing of files that are elsewhere says makes no sense.
    #[error("the listing of the workspace makes no sense at {path:?}")]
    Listing {
        /// The path.
        path: BString,
    },
    /// A directory kept filling while it was deleted.
    #[error("{path:?} is being filled while it is deleted: end the processes that write to it")]
    Filling {
        /// The path relative to the trash.
        path: BString,
    },
    /// The operation was stopped by its owner.
    #[error("stopped before the end")]
    Stopped,
}

/// A bound on what is read out of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Entries: files, links, directories, removals and refusals.
    Entries,
    /// Bytes of one file.
    FileBytes,
    /// Bytes of all files and link targets.
    TotalBytes,
    /// Directories above an entry.
    Depth,
    /// Bytes of a path.
    PathBytes,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Entries => "entries",
            Limit::FileBytes => "bytes in one file",
            Limit::TotalBytes => "bytes in all",
            Limit::Depth => "levels of directories",
            Limit::PathBytes => "bytes in a path",
        })
    }
}

/// An [`Error::Io`] from a system call, for `map_err`.
pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Io {
        doing,
        path: path.as_ref().to_owned(),
        source: errno.into(),
    }
}

/// An [`Error::Io`] from the standard library, for `map_err`.
pub(crate) fn std_io(
    doing: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        doing,
        path: path.as_ref().to_owned(),
        source,
    }
}
