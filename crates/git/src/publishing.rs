//! What is about to be published, noted in the mirror: a process that is killed in the middle leaves
//! the lock of the branch in the user's repository, or the branch moved without the mark of it. The
//! next one knows by the note that both are ours.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::ids::CommitId;
use crate::mirror::{Mirror, take_lock};
use crate::source::Source;

/// A lock holds the name of a commit within microseconds; one that is empty for so long is nobody's.
const OLD: Duration = Duration::from_secs(10);

/// The note, locked for as long as this process publishes.
#[derive(Debug)]
pub(crate) struct Publishing {
    note: File,
    path: PathBuf,
}

impl Publishing {
    /// Notes what is about to be published, after whoever publishes the branch now, and takes away
    /// the lock that a killed process left.
    pub(crate) fn begin(
        mirror: &Mirror,
        source: &Source,
        branch: &str,
        to: CommitId,
    ) -> Result<Self, Error> {
        let path = path(mirror, branch);
        let mut note = take_lock(&path, mirror.program())?;
        if let Some(left) = noted(mirror, branch) {
            remove_lock(source, branch, left)?;
        }
        let written = note.set_len(0).and_then(|()| write!(note, "{to}"));
        written.map_err(|e| Error::io("writing", &path, e))?;
        Ok(Self { note, path })
    }

    /// The branch is where it should be, and marked so.
    pub(crate) fn done(self) -> Result<(), Error> {
        let cleared = self.note.set_len(0);
        cleared.map_err(|e| Error::io("writing", &self.path, e))
    }
}

fn path(mirror: &Mirror, branch: &str) -> PathBuf {
    // `:` is in no name of a branch.
    mirror
        .directory()
        .join(format!("publishing-{}", branch.replace('/', ":")))
}

/// What a process that did not finish was about to publish.
pub(crate) fn noted(mirror: &Mirror, branch: &str) -> Option<CommitId> {
    fs::read_to_string(path(mirror, branch)).ok()?.parse().ok()
}

/// Removes the lock of the branch if it is the one that was left: it names the same commit. A lock
/// of a git that is at work names another.
fn remove_lock(source: &Source, branch: &str, left: CommitId) -> Result<(), Error> {
    let lock = source.common_dir().join("refs/heads").join(branch);
    let lock = lock.with_added_extension("lock");
    let Ok(content) = fs::read_to_string(&lock) else {
        return Ok(());
    };
    let is_left = content.trim() == left.to_string() || (content.is_empty() && is_old(&lock));
    if is_left {
        tracing::info!(lock = %lock.display(), "removing the lock that a killed process left");
        fs::remove_file(&lock).map_err(|e| Error::io("removing", lock, e))?;
    }
    Ok(())
}

fn is_old(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|it| it.modified());
    changed.is_ok_and(|it| it.elapsed().is_ok_and(|age| age > OLD))
}
