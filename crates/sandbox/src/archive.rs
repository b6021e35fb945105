//! Archives: files as a stream of bytes, which is how they go in and out of a sandbox.
//!
//! A [`Reader`] faces whoever wrote the archive, and that may be a hostile inside: what it hands out are
//! relative paths without `..`, files, directories and links, within bounds. It opens nothing itself.

mod error;
pub mod local;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "the inside's own files"
)]
#[path = "../init/read.rs"]
pub(crate) mod read;
mod reader;
mod records;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "the inside's own files"
)]
#[path = "../init/tar.rs"]
mod tar;
mod writer;

use std::ffi::OsStr;
use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use error::{Error, Most};
pub use reader::{Listed, Reader};
pub use writer::Writer;

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is: relative, of ordinary names alone. Empty for the directory that all others are in.
    pub path: PathBuf,
    /// What it is.
    pub what: What,
}

impl Entry {
    /// Whether it is what was asked for by that name, or below it. Who wrote an archive also chose the
    /// names in it.
    ///
    /// # Errors
    /// [`Error::Elsewhere`] for anything else.
    pub fn is_of(&self, name: &OsStr) -> Result<(), Error> {
        match self.path.components().next() {
            Some(Component::Normal(first)) if first == name => Ok(()),
            _ => Err(Error::Elsewhere {
                path: self.path.clone(),
            }),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory; what is in it comes as entries of its own.
    Directory,
    /// A regular file. Its content follows.
    File {
        /// Whether its owner may execute it; nothing else of its mode counts.
        executable: bool,
        /// Its length in bytes.
        len: u64,
    },
    /// A symbolic link.
    Link {
        /// Where it points: any bytes without a zero, nothing checked.
        target: PathBuf,
    },
    /// Something that is not carried: nothing but its kind is known.
    Other(Other),
}

/// What is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// A device.
    Device,
    /// A named pipe.
    Pipe,
    /// A unix socket.
    Socket,
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Device => "a device",
            Self::Pipe => "a named pipe",
            Self::Socket => "a socket",
        })
    }
}

/// How much of an archive is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Entries.
    pub entries: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files and targets of links together; of a listing those of its paths and targets.
    pub total_bytes: u64,
    /// Bytes of a path, and of a link's target.
    pub path_bytes: usize,
    /// Names in a path.
    pub depth: usize,
}

impl Default for Bounds {
    /// A million entries, 8 GiB a file, 32 GiB in all, paths of 4,095 bytes, 257 names.
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            file_bytes: 8 << 30,
            total_bytes: 32 << 30,
            path_bytes: 4_095,
            depth: 257,
        }
    }
}

/// How far a transfer has come, for whoever shows it meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// Entries so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.0.entries.load(Ordering::Relaxed)
    }

    /// Bytes of files so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, entries: u64, bytes: u64) {
        self.0.entries.fetch_add(entries, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
