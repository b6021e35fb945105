//! Entries of what changed, and the bounds under which they are read.

use std::fs::File;

use bstr::{BStr, BString};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::dir::Meta;
use crate::error::{Error, Limit, io};
use crate::names::is_git_directory;

/// One entry of what an attempt changed. Paths are relative to the workspace's root, separated by
/// `/`, never empty, never containing `.` or `..`; otherwise they are any bytes.
///
/// Entries come parents before children and names in the order of their bytes. To apply them to a
/// tree of files: an entry at a path replaces whatever the base has at that path, a directory with
/// all its content included; an entry below a path makes that path a directory.
#[derive(Debug)]
pub enum Change {
    /// Nothing of the base at or below this path remains. It may name what the base never had.
    Removed(BString),
    /// Nothing of the base at or below this path remains, and a directory is there now, whose content
    /// follows. Like trees in git, entries say nothing else about directories. It may name what the
    /// base never had.
    Cleared(BString),
    /// A regular file was written, or only touched: its content can be that of the base.
    File {
        /// Where.
        path: BString,
        /// Whether its owner may execute it.
        executable: bool,
        /// Its length in bytes when it was opened.
        len: u64,
        /// The open file, at its start. It is the one that was checked, whatever happens to the name.
        content: File,
    },
    /// A symbolic link was made.
    Link {
        /// Where.
        path: BString,
        /// Where it points, as data: any bytes, nothing checked.
        target: BString,
    },
}

impl Change {
    /// The path that this entry is about.
    pub fn path(&self) -> &BStr {
        let (Change::Removed(path)
        | Change::Cleared(path)
        | Change::File { path, .. }
        | Change::Link { path, .. }) = self;
        path.as_ref()
    }
}

/// Who visits what an attempt changed.
pub trait Visitor<E> {
    /// Whether an entry is wanted; what is not wanted is neither opened nor counted nor reported. It is
    /// asked, perhaps twice, of every entry that is not the sign of a deletion. A directory that is not
    /// wanted is left out with all that is below it, so that one of which the base has anything at or
    /// below that path must be wanted.
    ///
    /// # Errors
    /// Any: it ends the walk.
    fn wants(&mut self, path: &BStr, is_directory: bool) -> Result<bool, E>;

    /// Takes one entry.
    ///
    /// # Errors
    /// Any: it ends the walk.
    fn visit(&mut self, change: Change) -> Result<(), E>;
}

/// A visitor that wants everything.
pub(crate) struct Everything<'a, E>(pub(crate) &'a mut dyn FnMut(Change) -> Result<(), E>);

impl<E> Visitor<E> for Everything<'_, E> {
    fn wants(&mut self, _: &BStr, _: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit(&mut self, change: Change) -> Result<(), E> {
        (self.0)(change)
    }
}

/// How much is read out of a workspace before it is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all kinds; directories and refusals count. A workspace that is a plain copy counts
    /// only what differs from its base.
    pub entries: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files and link targets together.
    pub total_bytes: u64,
    /// Directories above an entry.
    pub depth: usize,
    /// Bytes of a path.
    pub path_bytes: usize,
}

impl Default for Limits {
    /// 200,000 entries, 100 MiB a file, 1 GiB in all, 256 levels, paths of 4,095 bytes.
    fn default() -> Self {
        Limits {
            entries: 200_000,
            file_bytes: 100 << 20,
            total_bytes: 1 << 30,
            depth: 256,
            path_bytes: 4_095,
        }
    }
}

/// Something that was found and not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it is.
    pub path: BString,
    /// Why it was not taken.
    pub why: Why,
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// A device.
    Device,
    /// A named pipe.
    Pipe,
    /// A unix socket.
    Socket,
    /// A name that git, or a file system without case, takes for a repository's own directory.
    GitDirectory,
    /// It carries an overlay attribute (a redirection, or metadata without content) that a mount with
    /// `userxattr` never writes: its content is elsewhere.
    Elsewhere,
    /// Another file system is mounted there.
    Mounted,
    /// A kind of entry that this system does not name.
    Unknown,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Why::Device => "a device cannot be part of a change",
            Why::Pipe => "a named pipe cannot be part of a change",
            Why::Socket => "a socket cannot be part of a change",
            Why::GitDirectory => "a git directory inside the repository cannot be part of a change",
            Why::Elsewhere => "its content is not in the workspace",
            Why::Mounted => "another file system is mounted there",
            Why::Unknown => "it is of an unknown kind",
        })
    }
}

/// What became of `.git` at the top of a workspace. It is never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GitDir {
    /// Still the base's directory, perhaps with other content; or the base never had one.
    #[default]
    Kept,
    /// Another directory, a file, a link or something else is there now.
    Replaced,
    /// It is gone.
    Removed,
}

/// What a reading of the changes found beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries that were counted against [`Limits::entries`].
    pub entries: u64,
    /// Bytes of files and link targets.
    pub bytes: u64,
    /// What was found and not taken, in the order of the walk.
    pub refused: Vec<Refused>,
    /// What became of `.git` at the top.
    pub git: GitDir,
}

/// Counts entries against the limits, checks them and passes them on.
pub(crate) struct Emitter<'a, E> {
    limits: &'a Limits,
    visitor: &'a mut dyn Visitor<E>,
    pub(crate) summary: Summary,
}

impl<'a, E: From<Error>> Emitter<'a, E> {
    pub(crate) fn new(limits: &'a Limits, visitor: &'a mut dyn Visitor<E>) -> Self {
        Emitter {
            limits,
            visitor,
            summary: Summary::default(),
        }
    }

    /// Whether the visitor wants an entry. Names of git directories are reported whoever asks.
    pub(crate) fn wants(&mut self, path: &BString, kind: FileType) -> Result<bool, E> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if is_git_directory(name) {
            return Ok(true);
        }
        self.visitor
            .wants(path.as_ref(), kind == FileType::Directory)
    }

    /// Whether a name of a listing has to be looked at. Directories are asked about later, when what
    /// comes before them has been visited; what may be the sign of a deletion always has to be.
    pub(crate) fn wants_listed(&mut self, path: &BString, hint: FileType) -> Result<bool, E> {
        match hint {
            FileType::RegularFile | FileType::Symlink => self.wants(path, hint),
            _ => Ok(true),
        }
    }

    /// Counts an entry that is about to be looked at.
    pub(crate) fn count(&mut self, path: &BString) -> Result<(), Error> {
        self.summary.entries = self.summary.entries.saturating_add(1);
        exceeds(
            path,
            Limit::Entries,
            self.summary.entries,
            self.limits.entries,
        )?;
        exceeds(
            path,
            Limit::PathBytes,
            as_u64(path.len()),
            as_u64(self.limits.path_bytes),
        )
    }

    /// Checks that a directory at `depth` may be entered.
    pub(crate) fn enter(&self, path: &BString, depth: usize) -> Result<(), Error> {
        exceeds(path, Limit::Depth, as_u64(depth), as_u64(self.limits.depth))
    }

    /// How many names a listing may still bring.
    pub(crate) fn check_listing(
        &self,
        path: &BString,
        names: usize,
        known: usize,
    ) -> Result<(), Error> {
        let counted = self
            .summary
            .entries
            .saturating_add(as_u64(names.saturating_sub(known)));
        exceeds(path, Limit::Entries, counted, self.limits.entries)
    }

    pub(crate) fn removed(&mut self, path: BString) -> Result<(), E> {
        self.visitor.visit(Change::Removed(path))
    }

    pub(crate) fn cleared(&mut self, path: BString) -> Result<(), E> {
        self.visitor.visit(Change::Cleared(path))
    }

    pub(crate) fn refuse(&mut self, path: BString, why: Why) {
        self.summary.refused.push(Refused { path, why });
    }

    /// Refuses a name that git would take for its own; says whether it did.
    pub(crate) fn refuse_git(&mut self, path: &BString, name: &[u8]) -> bool {
        let git = is_git_directory(name);
        if git {
            self.refuse(path.clone(), Why::GitDirectory);
        }
        git
    }

    /// Refuses what is neither file, directory nor link.
    pub(crate) fn refuse_kind(&mut self, path: BString, kind: FileType) {
        let why = match kind {
            FileType::CharacterDevice | FileType::BlockDevice => Why::Device,
            FileType::Fifo => Why::Pipe,
            FileType::Socket => Why::Socket,
            FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown => {
                Why::Unknown
            }
        };
        self.refuse(path, why);
    }

    /// Checks that a file may be opened.
    pub(crate) fn fits(&self, path: &BString, meta: &Meta) -> Result<(), Error> {
        exceeds(path, Limit::FileBytes, meta.size, self.limits.file_bytes)
    }

    /// Passes on an open file.
    pub(crate) fn file(&mut self, path: BString, content: File, meta: &Meta) -> Result<(), E> {
        self.fits(&path, meta)?;
        self.add_bytes(&path, meta.size)?;
        let executable = meta.mode & 0o100 != 0;
        self.visitor.visit(Change::File {
            path,
            executable,
            len: meta.size,
            content,
        })
    }

    /// Passes on a link.
    pub(crate) fn link(&mut self, path: BString, target: Vec<u8>) -> Result<(), E> {
        self.add_bytes(&path, as_u64(target.len()))?;
        self.visitor.visit(Change::Link {
            path,
            target: target.into(),
        })
    }

    fn add_bytes(&mut self, path: &BString, bytes: u64) -> Result<(), Error> {
        self.summary.bytes = self.summary.bytes.saturating_add(bytes);
        exceeds(
            path,
            Limit::TotalBytes,
            self.summary.bytes,
            self.limits.total_bytes,
        )
    }
}

fn exceeds(path: &BString, limit: Limit, value: u64, allowed: u64) -> Result<(), Error> {
    if value > allowed {
        Err(Error::Limit {
            path: path.clone(),
            limit,
            allowed,
        })
    } else {
        Ok(())
    }
}

pub(crate) fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// An error of a system call on a name that was there a moment ago: if it says that the name is gone
/// or is something else, somebody changed it.
pub(crate) fn moved(doing: &'static str, path: &BString) -> impl FnOnce(Errno) -> Error {
    move |errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::ISDIR | Errno::NXIO => {
            Error::Changed { path: path.clone() }
        }
        errno => io(doing, crate::tree::as_path(path))(errno),
    }
}
