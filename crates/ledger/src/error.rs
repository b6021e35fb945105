//! What can go wrong with a verb.

use crate::find::Found;
use domain::{BlobId, GrantId, LeaseId, SessionId, budget, machine, plan};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// Why a verb did nothing. A verb that fails has changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lease ended: it was released, revoked, or it expired. Stop the work; nothing that it
    /// still does can be recorded.
    #[error("the lease {0} has ended: somebody else may hold the work now")]
    LeaseLost(LeaseId),
    /// There is no such thing.
    #[error("there is no {kind} `{name}`")]
    NotFound {
        /// The kind of thing.
        kind: &'static str,
        /// Its id or prefix, as it was given.
        name: String,
    },
    /// A prefix names more than one thing.
    #[error("`{prefix}` is the beginning of {}: write more of it", list(matches))]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// Some of what it could mean, at most [`crate::find::MAX_MATCHES`].
        matches: Vec<Found>,
    },
    /// The state does not allow it.
    #[error(transparent)]
    Illegal(#[from] machine::Illegal),
    /// The budget does not allow it.
    #[error(transparent)]
    Refused(#[from] budget::Refused),
    /// The plan is not valid.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// The key was used before, for something else.
    #[error("the key `{key}` was used for something else: use a new key")]
    KeyTaken {
        /// The key.
        key: String,
    },
    /// The call is over: it was settled, or given back.
    #[error("call {call} of grant {grant} is over already")]
    Settled {
        /// The grant.
        grant: GrantId,
        /// The call.
        call: u64,
    },
    /// The number of a call came before, with another amount or another end.
    #[error("call {call} of grant {grant} was recorded otherwise before")]
    CallTaken {
        /// The grant.
        grant: GrantId,
        /// The call.
        call: u64,
    },
    /// It has ended, and what was asked is only for what has not.
    #[error("the {kind} {name} has ended already")]
    Ended {
        /// The kind of thing.
        kind: &'static str,
        /// Its id.
        name: String,
    },
    /// Somebody does just now what it is about, and says soon how that ended.
    #[error("the {kind} {name} is in hand just now: try again when that has ended")]
    InHand {
        /// The kind of thing.
        kind: &'static str,
        /// Its id.
        name: String,
    },
    /// There is too much already: nothing was stored.
    #[error("{what}: try again in {} s", retry_after.as_millis().div_ceil(1_000).max(1))]
    Busy {
        /// What there is too much of.
        what: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// What was given cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// The content of a blob is not what its name says.
    #[error("the blob {id} is damaged: its content is not what was stored")]
    BlobCorrupt {
        /// The blob.
        id: BlobId,
    },
    /// What was to be recorded names a blob that is not there. Store it again, then record.
    #[error("the blob {id} is not there: it must be stored before anything names it")]
    BlobMissing {
        /// The blob.
        id: BlobId,
    },
    /// Nothing is removed while a backup is made.
    #[error("a backup is being made: nothing is removed until it has ended")]
    BackingUp,
    /// Events that come after this place were removed. Go on from the first that is kept, and know
    /// that there is a gap.
    #[error("the events of {session} before {first} were removed: read from {first} on")]
    CursorExpired {
        /// The session.
        session: SessionId,
        /// The first sequence that is kept.
        first: u64,
    },
    /// Something is there already, and would be lost.
    #[error("`{}` is not empty: name a directory that is empty or does not exist", .0.display())]
    NotEmpty(PathBuf),
    /// A backup is not what it was when it was made, or is none.
    #[error("the backup cannot be used: {0}")]
    BackupDamaged(String),
    /// It was restored from a backup, and the ledger that was backed up may still live: nothing is
    /// done until a person says that this one takes its place.
    #[error(
        "this ledger was restored from a backup, and the one that was backed up may still work on \
         what had not ended when the backup was made: {}",
        requests(*open)
    )]
    NotTakenOver {
        /// How many requests had not ended when the backup was made.
        open: u64,
    },
    /// A blob is longer than the reader or the ledger takes.
    #[error("a blob of {bytes} bytes or more is longer than the {max} bytes that are taken")]
    BlobTooLong {
        /// How long it is, as far as that is known.
        bytes: u64,
        /// The most.
        max: u64,
    },
    /// The directory holds what belongs to a ledger, and the ledger itself is not there: an empty one
    /// in its place would be taken for the truth.
    #[error(
        "ledger.db is missing or empty, and `{}` holds what belongs to it: nothing was touched",
        left.display()
    )]
    RowsLost {
        /// Something that belongs to it.
        left: PathBuf,
    },
    /// The data was written by a newer Skep.
    #[error("the ledger has version {found}, and this Skep knows up to {known}: use a newer Skep")]
    NewerVersion {
        /// The version of the data.
        found: u32,
        /// The newest version that is known.
        known: u32,
    },
    /// The storage failed.
    #[error("the ledger could not {doing}: {kind}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// What kind of failure it was.
        kind: Fault,
        /// What the storage said.
        source: Cause,
    },
    /// The ledger was closed.
    #[error("the ledger is closed")]
    Closed,
}

/// The kind of a failure of the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is no space left.
    #[error("the disk is full")]
    Full,
    /// Another process kept the ledger for too long.
    #[error("another process keeps it")]
    Busy,
    /// It must not be written.
    #[error("it is read-only")]
    ReadOnly,
    /// What is stored makes no sense.
    #[error("what is stored is damaged")]
    Damaged,
    /// The disk, the directory or its permissions.
    #[error("the disk or the directory cannot be used")]
    Io,
    /// Anything else.
    #[error("the storage failed")]
    Other,
}

/// What the storage said, for a log.
#[derive(Clone)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl Cause {
    pub(crate) fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Error {
    /// Whether it is a fault of the machine that may pass by itself: the same may be asked again
    /// after a while. What is stored is not in doubt.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Storage { kind, .. } => matches!(kind, Fault::Full | Fault::Busy | Fault::Io),
            _ => false,
        }
    }

    pub(crate) fn missing(kind: &'static str, name: impl fmt::Display) -> Self {
        Self::NotFound {
            kind,
            name: name.to_string(),
        }
    }

    /// A failure of the file system.
    pub(crate) fn file(doing: &'static str, error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let kind = match error.kind() {
            K::StorageFull | K::QuotaExceeded => Fault::Full,
            K::ReadOnlyFilesystem => Fault::ReadOnly,
            _ => Fault::Io,
        };
        Self::Storage {
            doing,
            kind,
            source: Cause::new(error),
        }
    }
}

pub(crate) fn requests(number: u64) -> String {
    match number {
        1 => "1 request".into(),
        many => format!("{many} requests"),
    }
}

fn list(matches: &[Found]) -> String {
    let names: Vec<String> = matches.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// What goes wrong inside a verb; it becomes an [`Error`] when the verb's name is known.
#[derive(Debug)]
pub(crate) enum Trouble {
    Verb(Error),
    Sql(rusqlite::Error),
    /// A row that this program cannot have written.
    Row(String),
}

impl Trouble {
    pub(crate) fn during(self, doing: &'static str) -> Error {
        match self {
            Self::Verb(error) => error,
            Self::Row(what) => Error::Storage {
                doing,
                kind: Fault::Damaged,
                source: Cause::new(what),
            },
            Self::Sql(error) => {
                use rusqlite::ErrorCode as C;
                let kind = match error.sqlite_error_code() {
                    _ if lacks_space(&error) => Fault::Full,
                    Some(C::DiskFull) => Fault::Full,
                    Some(C::DatabaseBusy | C::DatabaseLocked) => Fault::Busy,
                    Some(C::ReadOnly | C::PermissionDenied) => Fault::ReadOnly,
                    Some(C::DatabaseCorrupt | C::NotADatabase | C::TypeMismatch) => Fault::Damaged,
                    Some(C::SystemIoFailure | C::CannotOpen) => Fault::Io,
                    _ => Fault::Other,
                };
                Error::Storage {
                    doing,
                    kind,
                    source: Cause::new(error),
                }
            }
        }
    }
}

/// Whether there was no room for the index of the log, which SQLite calls a failure to read or write.
fn lacks_space(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Verb(error)
    }
}

impl From<machine::Illegal> for Trouble {
    fn from(error: machine::Illegal) -> Self {
        Self::Verb(error.into())
    }
}

impl From<budget::Refused> for Trouble {
    fn from(error: budget::Refused) -> Self {
        Self::Verb(error.into())
    }
}

impl From<plan::Error> for Trouble {
    fn from(error: plan::Error) -> Self {
        Self::Verb(error.into())
    }
}
