//! Directories of probes, which go away with them, and those that killed probes left.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "skep-probe-";
/// How often a directory is made: a sweep can take one before it is locked.
const TRIES: usize = 10;

/// A directory that is removed at the end of a probe. It is locked as long, so that it can be told
/// from one whose probe was killed.
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one in a place, where those of killed probes are removed first.
    pub(crate) fn new(place: &Path) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(place)?;
        clear(place);
        for _ in 0..TRIES {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = place.join(format!("{PREFIX}{}-{count}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {}
                // It is somebody else's: process ids come again.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            if let Some(lock) = lock(&path)? {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    pub(crate) fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes what killed probes left in a place.
pub(crate) fn clear(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        match lock(&path) {
            Ok(Some(_dead)) => remove(&path),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "a probe's directory is left alone");
            }
        }
    }
}

/// Locks a directory; none where somebody has it, or it is gone by now.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match directory.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Whoever had it may have removed it in between.
    let own = directory.metadata()?;
    let is_named = fs::symlink_metadata(path)
        .is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino()));
    Ok(is_named.then_some(directory))
}

fn remove(path: &Path) {
    // An overlay leaves directories without any rights, one in the other where it is volatile.
    let mut inner = path.join("work/work");
    for below in ["incompat", "volatile", ""] {
        match rustix::fs::chmod(&inner, rustix::fs::Mode::RWXU) {
            Ok(()) => inner.push(below),
            Err(_) => break,
        }
    }
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "the probe's directory stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_probe_left_is_removed_by_the_next_and_what_lives_is_not() {
        let place = tempfile::tempdir().unwrap();
        let dead = place.path().join("skep-probe-1-0");
        fs::create_dir_all(dead.join("work/work/incompat/volatile")).unwrap();
        let other = place.path().join("other");
        fs::create_dir(&other).unwrap();
        let living = Scratch::new(place.path()).unwrap();
        assert!(!dead.exists() && other.exists());
        let file = living.directory("plain").unwrap();
        clear(place.path());
        assert!(file.exists());
        drop(living);
        assert!(!file.exists() && other.exists());
    }
}
