//! Locks that the kernel releases when their holder dies.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, io};

/// How a lock excludes others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Any number of users.
    Shared,
    /// One owner.
    Alone,
}

/// A lock on a file or directory, held until it is dropped. Descriptors are close-on-exec, so that a
/// child program never keeps one.
#[derive(Debug)]
pub(crate) struct Lock {
    file: OwnedFd,
}

impl Lock {
    /// Locks the file at `path`, making it if need be; `None` if somebody holds it otherwise.
    pub(crate) fn file(path: &Path, hold: Hold) -> Result<Option<Lock>, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io("open the lock", path))?;
        Self::take(file, path, hold)
    }

    /// Locks the directory at `path`; `None` if somebody holds it otherwise, or it is not there.
    pub(crate) fn directory(path: &Path, hold: Hold) -> Result<Option<Lock>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(file) => Self::take(file, path, hold),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(io("open", path)(errno)),
        }
    }

    /// Lets others in beside this holder; `None` if the path was moved away in the moment that this
    /// takes, in which the kernel holds neither lock.
    pub(crate) fn share(self, path: &Path) -> Result<Option<Lock>, Error> {
        Self::take(self.file, path, Hold::Shared)
    }

    /// The lock counts only while the path still names what was locked: its last holder may have
    /// moved it away in between.
    fn take(file: OwnedFd, path: &Path, hold: Hold) -> Result<Option<Lock>, Error> {
        let operation = match hold {
            Hold::Shared => FlockOperation::NonBlockingLockShared,
            Hold::Alone => FlockOperation::NonBlockingLockExclusive,
        };
        match fs::flock(&file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(io("lock", path)(errno)),
        }
        let ours = fs::fstat(&file).map_err(io("look at the lock", path))?;
        match fs::lstat(path) {
            Ok(named) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => {
                Ok(Some(Lock { file }))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(io("look at the lock", path)(errno)),
        }
    }

    /// What a holder before this one left in the lock's file, at most so many bytes; nothing where it is
    /// longer.
    pub(crate) fn note(&self, most: usize, path: &Path) -> Result<Vec<u8>, Error> {
        let failed = || io("read the lock", path);
        let length = fs::fstat(&self.file).map_err(failed())?.st_size;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > most {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; length];
        let read = rustix::io::pread(&self.file, &mut bytes, 0).map_err(failed())?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Leaves this in the lock's file for the holders after this one.
    pub(crate) fn set_note(&self, note: &[u8], path: &Path) -> Result<(), Error> {
        let failed = || io("write to the lock", path);
        fs::ftruncate(&self.file, 0).map_err(failed())?;
        let mut written = 0;
        while let Some(rest) = note.get(written..).filter(|rest| !rest.is_empty()) {
            let count = rustix::io::pwrite(&self.file, rest, written as u64).map_err(failed())?;
            written = written.saturating_add(count);
        }
        Ok(())
    }

    /// Marks the lock's file as used now.
    pub(crate) fn touch(&self, path: &Path) -> Result<(), Error> {
        let now = fs::Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_NOW,
        };
        let times = fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        fs::futimens(&self.file, &times).map_err(io("set the last use of", path))
    }
}
