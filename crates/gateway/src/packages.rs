//! Artefacts of package registries, kept for all sandboxes of the machine.
//!
//! A file for each: one line that says what it is, then its bytes. It appears as a whole, by a rename,
//! or not at all; what a process that died was writing is swept by the next one. What was used longest
//! ago goes first where all of them take more than they may.

use bytes::Bytes;
use domain::egress::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use std::{
    fs::{self, File, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use tokio::sync::Semaphore;

/// The most that come in at once; more pass without being kept.
const AT_ONCE: usize = 16;

/// The most that they take, in bytes, whatever a disk has.
pub const PACKAGES_BYTES: u64 = 10 << 30;

/// The longest line that says what a file is.
const LINE: u64 = 16 << 10;

/// The most files that are looked at: of more, the rest is as if it were not there until some are gone.
const FILES: usize = 200_000;

/// What artefacts in the making are called.
const MAKING: &str = "making-";

/// Artefacts in a directory.
#[derive(Debug)]
pub struct Packages {
    directory: PathBuf,
    most: u64,
    /// What they take; none until it was measured.
    taken: Mutex<Option<u64>>,
    number: AtomicU64,
    /// Room for those that come in at once: each takes a thread.
    pub(crate) room: Arc<Semaphore>,
}

/// What an artefact is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// Scheme, host and port, and path.
    pub(crate) url: String,
}

/// What is said of an artefact before its bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    url: String,
    kind: Option<String>,
    /// Whether it came from an address that is not public.
    private: bool,
    length: u64,
}

/// One that is here.
pub(crate) struct Kept {
    /// At its first byte.
    pub(crate) bytes: File,
    /// Whether it came from an address that is not public.
    pub(crate) private: bool,
    pub(crate) kind: Option<String>,
    pub(crate) length: u64,
}

/// What is known of one that comes in.
pub(crate) struct Coming {
    pub(crate) name: Name,
    pub(crate) kind: Option<String>,
    pub(crate) length: u64,
    pub(crate) private: bool,
    pub(crate) digest: Option<Digest>,
}

impl Packages {
    /// Those in this directory, which need not be there yet, and may take this much.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, most: u64) -> Self {
        Self {
            directory: directory.into(),
            most,
            taken: Mutex::default(),
            number: AtomicU64::new(0),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The longest artefact that is kept, in bytes.
    pub(crate) const fn longest(&self) -> u64 {
        self.most / 4
    }

    fn path(&self, name: &Name) -> PathBuf {
        let digest = Sha256::digest(name.url.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(hex)
    }

    /// One that is here. Looking for it counts as a use.
    pub(crate) fn find(&self, name: &Name) -> Option<Kept> {
        let file = File::open(self.path(name)).ok()?;
        let there = file.metadata().ok()?.len();
        if let Err(error) = file.set_modified(SystemTime::now()) {
            tracing::debug!(%error, "the use of an artefact is not noted");
        }
        let mut bytes = BufReader::new(file);
        let mut line = String::new();
        let read = bytes.by_ref().take(LINE).read_line(&mut line).ok()?;
        let said: Said = serde_json::from_str(&line).ok()?;
        let whole = (read as u64).checked_add(said.length) == Some(there);
        (whole && said.url == name.url).then_some(Kept {
            bytes: at(bytes.into_inner(), read as u64)?,
            private: said.private,
            kind: said.kind,
            length: said.length,
        })
    }

    /// Takes in one whose bytes come in pieces. It is kept if they are as many as was said, and have the
    /// digest that was given.
    pub(crate) fn keep(
        &self,
        coming: &Coming,
        pieces: impl Iterator<Item = Bytes>,
    ) -> io::Result<bool> {
        fs::create_dir_all(&self.directory)?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{MAKING}{}-{number}", std::process::id());
        let temporary = self.directory.join(temporary);
        let made = self.write(coming, pieces, &temporary);
        if !matches!(made, Ok(Some(_)))
            && let Err(error) = fs::remove_file(&temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "what is no artefact stays");
        }
        let Some(bytes) = made? else { return Ok(false) };
        self.took(bytes)?;
        Ok(true)
    }

    fn write(
        &self,
        coming: &Coming,
        pieces: impl Iterator<Item = Bytes>,
        temporary: &Path,
    ) -> io::Result<Option<u64>> {
        let mut file = File::create_new(temporary)?;
        // As long as it is held, nobody takes it for one of a process that died.
        file.lock()?;
        let (mut short, mut long) = (Sha256::new(), Sha512::new());
        let length = coming.length;
        let said = Said {
            url: coming.name.url.clone(),
            kind: coming.kind.clone(),
            private: coming.private,
            length,
        };
        let line = serde_json::to_string(&said)? + "\n";
        if line.len() as u64 > LINE || length > self.longest() {
            return Ok(None);
        }
        file.write_all(line.as_bytes())?;
        let mut written = 0_u64;
        for bytes in pieces {
            written = written.saturating_add(bytes.len() as u64);
            if written > length {
                return Ok(None);
            }
            match &coming.digest {
                Some(Digest::Sha256(_)) => short.update(&bytes),
                Some(Digest::Sha512(_)) => long.update(&bytes),
                None => {}
            }
            file.write_all(&bytes)?;
        }
        let is_right = match &coming.digest {
            Some(Digest::Sha256(wanted)) => short.finalize().as_slice() == wanted,
            Some(Digest::Sha512(wanted)) => long.finalize().as_slice() == wanted,
            None => true,
        };
        if written != length || !is_right {
            return Ok(None);
        }
        // A machine that loses its power has the name only with all bytes.
        file.sync_data()?;
        fs::rename(temporary, self.path(&coming.name))?;
        Ok(Some(length.saturating_add(line.len() as u64)))
    }

    /// Counts what was taken, and makes room where it is too much.
    fn took(&self, bytes: u64) -> io::Result<()> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match *taken {
            // Other processes may have added theirs: it is measured when it seems to be too much.
            Some(known) if known.saturating_add(bytes) <= self.most => known.saturating_add(bytes),
            _ => {
                self.shrink(self.most)?;
                self.bytes()?
            }
        };
        *taken = Some(now);
        Ok(())
    }

    /// What they take, in bytes.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn bytes(&self) -> io::Result<u64> {
        let all = self.all()?;
        Ok(all.iter().map(|(_, bytes, _)| *bytes).sum())
    }

    /// Every file with its size and its last use.
    fn all(&self) -> io::Result<Vec<(PathBuf, u64, SystemTime)>> {
        let listed = match fs::read_dir(&self.directory) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for entry in listed.take(FILES) {
            let entry = entry?;
            // Another process may have removed it.
            if let Ok(meta) = entry.metadata() {
                all.push((entry.path(), meta.len(), meta.modified()?));
            }
        }
        Ok(all)
    }

    /// Removes what processes that died were writing, and the longest unused until the rest takes no
    /// more than this. Says how many bytes went.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file not removed.
    pub fn shrink(&self, most: u64) -> io::Result<u64> {
        let mut all = self.all()?;
        all.sort_by_key(|(_, _, used)| *used);
        let mut left: u64 = all.iter().map(|(_, bytes, _)| *bytes).sum();
        let mut freed = 0;
        for (path, bytes, _) in all {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let goes = if name.starts_with(MAKING) {
                is_left(&path)
            } else {
                left > most
            };
            if !goes {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => freed += bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            left = left.saturating_sub(bytes);
        }
        Ok(freed)
    }
}

fn at(mut file: File, offset: u64) -> Option<File> {
    file.seek(SeekFrom::Start(offset)).ok()?;
    Some(file)
}

/// Whether nobody is writing a file any more.
fn is_left(path: &Path) -> bool {
    match File::open(path).map(|file| file.try_lock()) {
        Ok(Ok(())) => true,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn name(path: &str) -> Name {
        Name {
            url: format!("https://a.test:443{path}"),
        }
    }

    fn coming(path: &str, length: u64, digest: Option<Digest>) -> Coming {
        Coming {
            name: name(path),
            kind: Some("application/zip".into()),
            length,
            private: false,
            digest,
        }
    }

    fn pieces(bytes: &[u8]) -> impl Iterator<Item = Bytes> {
        let all: Vec<_> = bytes.chunks(2).map(Bytes::copy_from_slice).collect();
        all.into_iter()
    }

    fn read(packages: &Packages, path: &str) -> Option<String> {
        let mut kept = packages.find(&name(path))?;
        let mut text = String::new();
        kept.bytes.read_to_string(&mut text).unwrap();
        assert_eq!(
            (kept.length, kept.kind.as_deref()),
            (text.len() as u64, Some("application/zip"))
        );
        Some(text)
    }

    #[test]
    fn an_artefact_is_kept_whole_and_right_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let packages = Packages::new(directory.path().join("packages"), 1 << 20);
        assert_eq!(packages.bytes().unwrap(), 0);
        let right = Digest::Sha256(Sha256::digest(b"abc").into());
        let wrong = Digest::Sha512(Sha512::digest(b"abd").into());
        for (path, length, digest, kept) in [
            ("/a", 3, Some(right), true),
            ("/b", 3, Some(wrong), false),
            ("/d", 4, None, false),
            ("/e", 2, None, false),
            ("/f", 3, None, true),
        ] {
            let found = packages.keep(&coming(path, length, digest), pieces(b"abc"));
            assert_eq!(found.unwrap(), kept, "{path}");
            assert_eq!(read(&packages, path).is_some(), kept, "{path}");
        }
        assert_eq!(read(&packages, "/a").as_deref(), Some("abc"));
        assert_eq!(packages.all().unwrap().len(), 2, "nothing half is left");
        // One that was cut on the disk is none.
        let path = packages.path(&name("/a"));
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 1]).unwrap();
        assert!(packages.find(&name("/a")).is_none());
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_a_dead_process_left_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let packages = Packages::new(directory.path(), 3_900);
        let keep = |path: &str| {
            let made = packages.keep(&coming(path, 900, None), pieces(&[b'x'; 900]));
            assert!(made.unwrap());
        };
        let used = |path: &str, ago: u64| {
            let file = File::options()
                .write(true)
                .open(packages.path(&name(path)))
                .unwrap();
            let at = SystemTime::now() - Duration::from_secs(ago);
            file.set_modified(at).unwrap();
        };
        for path in ["/a", "/b", "/c"] {
            keep(path);
        }
        for (path, ago) in [("/a", 300), ("/b", 200), ("/c", 100)] {
            used(path, ago);
        }
        assert!(packages.find(&name("/a")).is_some(), "which is a use");
        let dead = directory.path().join("making-1-1");
        fs::write(&dead, "half").unwrap();
        let alive = File::create(directory.path().join("making-1-2")).unwrap();
        alive.lock().unwrap();
        keep("/d");
        assert!(packages.find(&name("/b")).is_none());
        assert!(packages.find(&name("/a")).is_some() && packages.find(&name("/d")).is_some());
        assert!(packages.bytes().unwrap() <= 3_900);
        assert!(!dead.exists() && directory.path().join("making-1-2").exists());
        assert!(packages.shrink(0).unwrap() > 0);
        drop(alive);
        packages.shrink(0).unwrap();
        assert_eq!(packages.bytes().unwrap(), 0);
    }
}
