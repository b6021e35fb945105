//! Locks that a killed process left in the user's repository. Git takes a lock by making a file, and
//! nobody takes that away when its maker is killed: from then on every git refuses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::process::{Call, Output};
use crate::program::Program;
use crate::source::Source;

/// How long a lock may be empty while its maker lives: it is written to within microseconds.
const OLD: Duration = Duration::from_secs(10);
/// How long a git that lives may have one of the locks that one that was killed may have left.
const SHORT: Duration = Duration::from_secs(1);
/// How often a lock is looked at that is not old yet.
const INTERVAL: Duration = Duration::from_millis(50);
/// The most entries of a git directory that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// Removes a lock that a killed process of ours left. Whose it is, is seen by its content; where it
/// is empty, it is waited for until it is too old for a process that lives.
pub(crate) fn remove_left(
    lock: &Path,
    program: &Program,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut waited = Duration::ZERO;
    loop {
        let Ok(content) = fs::read(lock) else {
            return Ok(());
        };
        let is_left = match content.is_empty() {
            true => waited >= OLD || is_old(lock),
            false => is_ours(String::from_utf8_lossy(&content).trim()),
        };
        if is_left {
            tracing::info!(lock = %lock.display(), "removing the lock that a killed process left");
            return fs::remove_file(lock).map_err(|e| Error::io("removing", lock, e));
        }
        if !content.is_empty() {
            return Ok(());
        }
        program.cancel().check("waiting for a lock that was left")?;
        std::thread::park_timeout(INTERVAL);
        waited += INTERVAL;
    }
}

fn is_old(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|it| it.modified());
    changed.is_ok_and(|it| it.elapsed().is_ok_and(|age| age > OLD))
}

impl Source {
    /// Runs git as the user. Where it is killed, the locks that it had are taken away, so that the
    /// next git can put things right.
    pub(crate) fn execute_as_user(&self, call: Call<'_>) -> Result<Output, Error> {
        let before = self.locks();
        let output = self.program().execute(call);
        // What fails here has ended the process with its group.
        if output.as_ref().map_or(true, |it| it.code.is_none()) {
            let mut left = self.locks();
            left.retain(|lock| !before.contains(lock));
            // One of a git that lives goes by itself.
            let mut waited = Duration::ZERO;
            while !left.is_empty() && waited < SHORT {
                std::thread::park_timeout(INTERVAL);
                waited += INTERVAL;
                let now = self.locks();
                left.retain(|lock| now.contains(lock));
            }
            for lock in &left {
                tracing::info!(lock = %lock.display(), "removing the lock that a killed git left");
                if let Err(error) = fs::remove_file(lock) {
                    tracing::warn!(%error, lock = %lock.display(), "a lock that a killed git left stays");
                }
            }
        }
        output
    }

    /// The locks that there are now: beside the files of the git directory, and of the branch.
    fn locks(&self) -> BTreeSet<PathBuf> {
        let places = [self.git_dir(), self.common_dir()];
        let mut found: BTreeSet<PathBuf> = places
            .into_iter()
            .filter_map(|place| fs::read_dir(place).ok())
            .flat_map(|entries| entries.take(MAX_ENTRIES).filter_map(Result::ok))
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it == "lock"))
            .collect();
        if let Some(branch) = &self.head().branch
            && let Ok(branch) = std::str::from_utf8(branch)
        {
            let lock = self.common_dir().join("refs/heads").join(branch);
            let lock = lock.with_added_extension("lock");
            found.extend(lock.exists().then_some(lock));
        }
        found
    }
}
