//! What a copied workspace held when it was made, so that a change is noticed without trusting
//! anything that the agent can set.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{self, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};

use crate::dir::Meta;
use crate::error::{Error, io, std_io};

/// The first bytes of the file.
const MAGIC: &[u8] = b"skep manifest 1\n";
/// Seconds and nanoseconds since 1970.
pub(crate) type Time = (i64, u32);
/// How long to wait for the clock: more than the two seconds of the coarsest file system.
const SETTLE: Duration = Duration::from_millis(2_100);
/// Stands for a time that is not known.
const NO_TIME: Time = (i64::MIN, 0);
/// Larger than any manifest: some 40 million entries.
const LARGEST: u64 = 4 << 30;

/// One entry of the copy. The change time and the inode's number cannot be set by its owner; the
/// device is that of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    mode: u32,
    inode: u64,
    size: u64,
    mtime: Time,
    ctime: Time,
    /// How many of the following entries lie below this one.
    pub(crate) below: usize,
}

impl Entry {
    pub(crate) fn of(name: &[u8], meta: &Meta) -> Entry {
        let (inode, size) = (meta.id.1, meta.size);
        Entry {
            name: name.to_vec(),
            mode: meta.mode,
            inode,
            size,
            mtime: meta.mtime,
            ctime: meta.ctime,
            below: 0,
        }
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether this is the same file or directory, whatever its content.
    pub(crate) fn is_inode(&self, meta: &Meta) -> bool {
        self.inode == meta.id.1 && self.kind() == meta.kind()
    }
}

/// The entries of a tree: each directory before what it holds, names in the order of their bytes.
#[derive(Debug)]
pub(crate) struct Manifest {
    entries: Vec<Entry>,
    /// When `.git` at the top was made, if the file system keeps that: an inode can be used again.
    pub(crate) git_birth: Option<Time>,
    /// When it was written: nothing that an agent did is older.
    written: Time,
}

impl Manifest {
    pub(crate) fn new(entries: Vec<Entry>, git_birth: Option<Time>) -> Manifest {
        Manifest {
            entries,
            git_birth,
            written: NO_TIME,
        }
    }

    /// What a copy held at a moment that its own clock had not left behind: what was written in the last
    /// tick of the clock counts as touched, for more may have been written in the same.
    pub(crate) fn at_once(entries: Vec<Entry>, git_birth: Option<Time>) -> Manifest {
        let newest = entries.iter().map(|entry| entry.ctime).max();
        Manifest {
            entries,
            git_birth,
            written: newest.unwrap_or(NO_TIME),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was written to the entry. Equal times prove that only for what is older than
    /// the manifest: anything younger counts as touched.
    pub(crate) fn is_untouched(&self, entry: &Entry, meta: &Meta) -> bool {
        entry.is_inode(meta)
            && (entry.mode, entry.size, entry.mtime, entry.ctime)
                == (meta.mode, meta.size, meta.mtime, meta.ctime)
            && entry.ctime < self.written
    }

    /// Writes the manifest, and waits until the file system's clock has left the last entry behind:
    /// some milliseconds at most where times are fine.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let bytes = written_as(self.git_birth, &self.entries).ok_or_else(|| Error::Record {
            path: path.to_owned(),
        })?;
        std::fs::write(path, bytes).map_err(std_io("write", path))?;
        let newest = self.entries.iter().map(|entry| entry.ctime).max();
        let start = Instant::now();
        while Some(written(path)?) <= newest && start.elapsed() < SETTLE {
            // Nobody tells when a clock moves on.
            std::thread::park_timeout(Duration::from_millis(1));
            let file = fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            };
            let times = Timestamps {
                last_access: now,
                last_modification: now,
            };
            file.and_then(|file| fs::futimens(file, &times))
                .map_err(io("set the time of", path))?;
        }
        Ok(())
    }

    pub(crate) fn read(path: &Path) -> Result<Manifest, Error> {
        let stat = fs::lstat(path).map_err(io("look at", path))?;
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > LARGEST {
            return Err(Error::Record {
                path: path.to_owned(),
            });
        }
        let bytes = std::fs::read(path).map_err(std_io("read", path))?;
        let (git_birth, entries) = parse(&bytes).ok_or_else(|| Error::Record {
            path: PathBuf::from(path),
        })?;
        let written = written(path)?;
        Ok(Manifest {
            entries,
            git_birth,
            written,
        })
    }
}

/// When the manifest was written, by the file system's clock.
fn written(path: &Path) -> Result<Time, Error> {
    let stat = fs::lstat(path).map_err(io("look at", path))?;
    // The widths of these fields differ between machines.
    #[allow(clippy::unnecessary_cast)]
    Ok((stat.st_mtime as i64, stat.st_mtime_nsec as u32))
}

/// The bytes of the file; none where a name is longer than any file system takes.
pub(crate) fn written_as(git_birth: Option<Time>, entries: &[Entry]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + entries.len() * 80);
    bytes.extend_from_slice(MAGIC);
    let (seconds, nanoseconds) = git_birth.unwrap_or(NO_TIME);
    bytes.extend_from_slice(&seconds.to_le_bytes());
    bytes.extend_from_slice(&nanoseconds.to_le_bytes());
    for entry in entries {
        let length = u16::try_from(entry.name.len()).ok()?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&entry.name);
        bytes.extend_from_slice(&entry.mode.to_le_bytes());
        for number in [entry.inode, entry.size, entry.below as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (seconds, nanoseconds) in [entry.mtime, entry.ctime] {
            bytes.extend_from_slice(&seconds.to_le_bytes());
            bytes.extend_from_slice(&nanoseconds.to_le_bytes());
        }
    }
    Some(bytes)
}

pub(crate) fn parse(bytes: &[u8]) -> Option<(Option<Time>, Vec<Entry>)> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let born = (
        i64::from_le_bytes(take(&mut rest)?),
        u32::from_le_bytes(take(&mut rest)?),
    );
    let git_birth = Some(born).filter(|time| *time != NO_TIME);
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let length = u16::from_le_bytes(take(&mut rest)?);
        let (name, after) = rest.split_at_checked(usize::from(length))?;
        rest = after;
        entries.push(Entry {
            name: name.to_vec(),
            mode: u32::from_le_bytes(take(&mut rest)?),
            inode: u64::from_le_bytes(take(&mut rest)?),
            size: u64::from_le_bytes(take(&mut rest)?),
            below: usize::try_from(u64::from_le_bytes(take(&mut rest)?)).ok()?,
            mtime: (
                i64::from_le_bytes(take(&mut rest)?),
                u32::from_le_bytes(take(&mut rest)?),
            ),
            ctime: (
                i64::from_le_bytes(take(&mut rest)?),
                u32::from_le_bytes(take(&mut rest)?),
            ),
        });
    }
    let count = entries.len();
    let fits = |(index, entry): (usize, &Entry)| entry.below < count - index;
    entries
        .iter()
        .enumerate()
        .all(fits)
        .then_some((git_birth, entries))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
