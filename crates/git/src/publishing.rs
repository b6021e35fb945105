//! What is about to be done to the branch in the user's repository, noted in the mirror: a process
//! that is killed in the middle leaves locks there, or the branch moved without the mark of it. The
//! next one knows by the note that both are ours.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use crate::error::Error;
use crate::ids::CommitId;
use crate::locks;
use crate::mirror::{Mirror, take_lock};
use crate::source::Source;

/// What stands before the commit of a branch that is about to be removed.
const DROP: &str = "drop ";
/// What a file of packed references begins with. Git writes them beside its lock, and not into it as
/// is done here.
const PACKED: &str = "# pack-refs with:";

/// The note, locked for as long as this process publishes.
#[derive(Debug)]
pub(crate) struct Publishing {
    note: File,
    path: PathBuf,
}

impl Publishing {
    /// Notes what is about to be published, after whoever changes the branch now, and takes away
    /// the locks that a killed process left.
    pub(crate) fn begin(
        mirror: &Mirror,
        source: &Source,
        branch: &str,
        to: CommitId,
    ) -> Result<Self, Error> {
        Self::note(mirror, source, branch, &to.to_string())
    }

    /// The same for a branch that is about to be removed.
    pub(crate) fn begin_drop(
        mirror: &Mirror,
        source: &Source,
        branch: &str,
        from: CommitId,
    ) -> Result<Self, Error> {
        Self::note(mirror, source, branch, &format!("{DROP}{from}"))
    }

    fn note(mirror: &Mirror, source: &Source, branch: &str, text: &str) -> Result<Self, Error> {
        let path = path(mirror, branch);
        let mut note = take_lock(&path, mirror.program())?;
        if let Ok(left) = fs::read_to_string(&path) {
            remove_locks(mirror, source, branch, &left)?;
        }
        let written = note.set_len(0).and_then(|()| write!(note, "{text}"));
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

/// Removes the locks that a process left which noted this. The lock of a branch names the same
/// commit; one of a git that is at work names another. A branch that is removed is locked by an
/// empty file, and the packed references with it.
fn remove_locks(mirror: &Mirror, source: &Source, branch: &str, left: &str) -> Result<(), Error> {
    if left.is_empty() {
        return Ok(());
    }
    let place = source.common_dir();
    let lock = place.join("refs/heads").join(branch);
    let lock = lock.with_added_extension("lock");
    locks::remove_left(&lock, mirror.program(), |content| content == left)?;
    if !left.starts_with(DROP) {
        return Ok(());
    }
    let packed = place.join("packed-refs.lock");
    locks::remove_left(&packed, mirror.program(), |content| {
        content.starts_with(PACKED)
    })
}
