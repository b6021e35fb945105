//! The copies of repositories that were given by URLs, for whoever looks after the disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::Error;
use crate::leftovers::entries;
use crate::remote::url_of;

/// A copy of a repository that was given by a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where it is.
    pub directory: PathBuf,
    /// The URL; none where the copy was never made to its end.
    pub url: Option<String>,
    /// When something was fetched into it last.
    pub last_use: SystemTime,
    /// Whether it has branches of its own: integrated work that a person may not have taken yet.
    pub holds_work: bool,
}

/// More than this of packed references is not read: then the copy is taken to hold work.
const MOST: u64 = 16 << 20;
/// The deepest name of a branch that is looked for.
const DEEPEST: usize = 16;

/// The copies in `place`, sorted by name; none where there is no such directory.
pub fn copies(place: &Path) -> Result<Vec<Copied>, Error> {
    let mut found: Vec<Copied> = entries(place)?
        .into_iter()
        .filter(|(_, metadata)| metadata.is_dir())
        .map(|(directory, _)| Copied {
            url: url_of(&directory),
            last_use: last_use(&directory),
            holds_work: holds_work(&directory),
            directory,
        })
        .collect();
    found.sort_by(|one, other| one.directory.cmp(&other.directory));
    Ok(found)
}

impl Copied {
    /// Moves the copy to `to`, unless a fetch is at work in it, or it was used or got a branch since it
    /// was looked at. Whether it was moved.
    pub fn move_away(&self, to: &Path) -> Result<bool, Error> {
        let path = self.directory.join("skep/lock");
        let held = match File::options().write(true).open(&path) {
            Ok(lock) => lock.try_lock().map(|()| Some(lock)),
            // It was never made to its end.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => return Err(Error::io("opening", path, e)),
        };
        let Ok(_lock) = held else { return Ok(false) };
        if last_use(&self.directory) != self.last_use || holds_work(&self.directory) {
            return Ok(false);
        }
        match fs::rename(&self.directory, to) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("moving away", &self.directory, e)),
        }
    }
}

/// A fetch marks the lock as used; what comes in is written to the others.
fn last_use(directory: &Path) -> SystemTime {
    let places = ["skep/lock", "skep/url", "HEAD", "objects/pack", ""];
    let times = places.iter().filter_map(|place| {
        let found = fs::symlink_metadata(directory.join(place)).ok()?;
        found.modified().ok()
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Whether it has branches. What cannot be read may hold some.
fn holds_work(directory: &Path) -> bool {
    let mut packed = Vec::new();
    let read = File::open(directory.join("packed-refs"))
        .and_then(|file| file.take(MOST).read_to_end(&mut packed));
    match read {
        Ok(length) if length as u64 >= MOST => return true,
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(_) => return true,
    }
    let is_branch = |line: &[u8]| {
        let name = line.splitn(2, |byte| *byte == b' ').nth(1);
        name.is_some_and(|name| name.starts_with(b"refs/heads/"))
    };
    packed.split(|byte| *byte == b'\n').any(is_branch)
        || holds_file(&directory.join("refs/heads"), DEEPEST)
}

fn holds_file(directory: &Path, depth: usize) -> bool {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(e) => return e.kind() != ErrorKind::NotFound,
    };
    for entry in listed {
        let Ok(entry) = entry else { return true };
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory || depth == 0 || holds_file(&entry.path(), depth - 1) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(place: &Path, name: &str) -> PathBuf {
        let directory = place.join(name);
        fs::create_dir_all(directory.join("refs/heads/empty")).unwrap();
        fs::create_dir_all(directory.join("skep")).unwrap();
        fs::write(directory.join("skep/lock"), "").unwrap();
        directory
    }

    #[test]
    fn a_copy_with_a_branch_holds_work_wherever_the_branch_is_written() {
        let place = tempfile::tempdir().unwrap();
        copy(place.path(), "a-none");
        let loose = copy(place.path(), "b-loose");
        fs::create_dir_all(loose.join("refs/heads/skep")).unwrap();
        fs::write(loose.join("refs/heads/skep/integration"), "id\n").unwrap();
        let packed = copy(place.path(), "c-packed");
        fs::write(
            packed.join("packed-refs"),
            "# pack-refs\nid refs/skep/fetched/x\nid refs/heads/skep/integration\n",
        )
        .unwrap();
        let fetched = copy(place.path(), "d-fetched");
        fs::write(fetched.join("packed-refs"), "id refs/skep/fetched/x\n").unwrap();
        let holds: Vec<_> = copies(place.path())
            .unwrap()
            .iter()
            .map(|copy| copy.holds_work)
            .collect();
        assert_eq!(holds, [false, true, true, false]);
    }

    #[test]
    fn a_copy_that_is_being_fetched_into_or_was_used_stays() {
        let place = tempfile::tempdir().unwrap();
        let directory = copy(place.path(), "one");
        let to = place.path().join("away");
        let seen = copies(place.path()).unwrap().remove(0);
        let lock = File::options()
            .write(true)
            .open(directory.join("skep/lock"))
            .unwrap();
        lock.try_lock().unwrap();
        assert!(!seen.move_away(&to).unwrap(), "it is being fetched into");
        lock.unlock().unwrap();
        let later = seen.last_use + std::time::Duration::from_secs(1);
        lock.set_modified(later).unwrap();
        assert!(!seen.move_away(&to).unwrap(), "it was used meanwhile");
        let seen = copies(place.path()).unwrap().remove(0);
        assert!(seen.move_away(&to).unwrap());
        assert!(to.exists() && !directory.exists());
        assert!(!seen.move_away(&to).unwrap(), "somebody was quicker");
    }
}
