//! What the configuration says of egress, as it is at each moment.

use super::{Environment, File, presets::Machine};
use domain::egress::{Presets, Users};
use gateway::Configured;
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// What tells one state of a file from another.
type Stamp = Option<(u64, u64, i64, i64, i64, i64)>;

/// The table `[egress]` of a configuration file, which is read again when the file has changed.
pub(crate) struct Watched {
    path: PathBuf,
    machine: Machine,
    known: Mutex<(Stamp, Result<Arc<Users>, String>)>,
    presets: OnceLock<Arc<Presets>>,
}

impl Watched {
    /// The one in this file.
    pub(crate) fn new(path: PathBuf, env: &Environment) -> Self {
        let known = (stamp(&path), read(&path));
        Self {
            path,
            machine: Machine::new(env),
            known: Mutex::new(known),
            presets: OnceLock::new(),
        }
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let found = fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    let written = (found.mtime(), found.mtime_nsec());
    Some((
        found.ino(),
        found.len(),
        written.0,
        written.1,
        changed.0,
        changed.1,
    ))
}

fn read(path: &Path) -> Result<Arc<Users>, String> {
    let file = File::read(path).map_err(|error| domain::failure::chain(&error))?;
    Ok(Arc::new(file.egress))
}

impl Configured for Watched {
    fn users(&self) -> Result<Arc<Users>, String> {
        // Taken before the file is read: what is written meanwhile is read the next time.
        let now = stamp(&self.path);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != now {
            *known = (now, read(&self.path));
        }
        known.1.clone()
    }

    fn presets(&self) -> Arc<Presets> {
        Arc::clone(
            self.presets
                .get_or_init(|| Arc::new(self.machine.presets())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_seen_at_once_and_a_broken_file_is_an_error_until_it_is_mended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let watched = Watched::new(path.clone(), &Environment::of([]));
        let first = watched.users().unwrap();
        assert!(first.asked);
        assert!(Arc::ptr_eq(&first, &watched.users().unwrap()));
        fs::write(&path, "[egress]\nasked = false\n").unwrap();
        assert!(!watched.users().unwrap().asked);
        fs::write(&path, "[egress]\naskd = false\n").unwrap();
        let error = watched.users().unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("`asked`"),
            "{error}"
        );
        fs::write(&path, "[[egress.deny]]\nhost = 'a b'\n").unwrap();
        let error = watched.users().unwrap_err();
        assert!(error.contains("`egress.deny`, rule 1"), "{error}");
        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.users().unwrap(), Users::default());
    }
}
