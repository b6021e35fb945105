//! The directory of a holder: `run/sandboxes/ID` below the data directory, open to its user alone.

use super::{error::Error, moments::ForkOf, more::Given};
use domain::{SandboxId, Timestamp, entity::Beside};
use sandbox::Kind;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};
use tokio::net::UnixListener;

/// How many are held at once, at most.
pub const MOST: usize = 64;
/// What a holder's diagnostics may take, in bytes; then they begin anew.
const LONGEST_LOG: u64 = 1 << 20;
const LONGEST_RECORD: u64 = 64 << 10;
const TRIES: usize = 10;
const RECORD: &str = "record.json";
const SOCKET: &str = "socket";
const LOG: &str = "log";

/// What is known of a sandbox that a process holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: SandboxId,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// The top of the repository that it was made from.
    pub repository: PathBuf,
    /// The commit that is checked out.
    pub commit: String,
    /// The kind.
    pub kind: Kind,
    /// The image whose root it has, where that is not the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What it is a fork of, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_of: Option<ForkOf>,
    /// Further repositories that are written in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Alongside>,
    /// Further repositories that are shown in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Alongside>,
    /// What it has got beyond what every one has.
    #[serde(flatten)]
    pub given: Given,
    /// When it was ready.
    pub created: Timestamp,
    /// When it ends by itself.
    pub ends: Timestamp,
    /// The process that holds it.
    pub pid: u32,
}

/// A further repository of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alongside {
    /// The name of its directory.
    pub name: String,
    /// The URL or the path that it is from.
    pub origin: String,
    /// The commit that is checked out.
    pub commit: String,
}

impl From<&Beside> for Alongside {
    fn from(one: &Beside) -> Self {
        Self {
            name: one.name.clone(),
            origin: one.origin.clone(),
            commit: one.commit.clone(),
        }
    }
}

/// A holder's directory. As long as this is held, by the holder or by who starts it, nobody removes
/// the directory.
#[derive(Debug)]
pub struct Berth {
    /// The sandbox.
    pub id: SandboxId,
    path: PathBuf,
    /// The directory, locked.
    directory: File,
}

impl Berth {
    /// Makes a directory for a new holder.
    ///
    /// # Errors
    /// [`Error::TooMany`], or when the data directory cannot be written.
    pub fn make(data: &Path, id: SandboxId) -> Result<Self, Error> {
        let above = place(data);
        let path = above.join(id.to_string());
        if entries(&above)?.len() >= MOST {
            return Err(Error::TooMany);
        }
        let doing = "making the directory";
        for _ in 0..TRIES {
            private()
                .recursive(true)
                .create(&above)
                .map_err(Error::file(doing, &above))?;
            match private().create(&path) {
                Ok(()) => {}
                // Just now the last one beside it was removed, or a sweep saw it before its lock.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) =>
                {
                    continue;
                }
                Err(error) => return Err(Error::file(doing, &path)(error)),
            }
            if let Some(directory) = lock(&path, false)? {
                return Ok(Self {
                    id,
                    path,
                    directory,
                });
            }
        }
        Err(Error::file(doing, path)(ErrorKind::ResourceBusy.into()))
    }

    /// Takes over the directory that was made for this process.
    ///
    /// # Errors
    /// [`Error::Gone`] when it was removed.
    pub fn join(data: &Path, id: SandboxId) -> Result<Self, Error> {
        let path = place(data).join(id.to_string());
        match lock(&path, false)? {
            Some(directory) => Ok(Self {
                id,
                path,
                directory,
            }),
            None => Err(Error::Gone { id: id.to_string() }),
        }
    }

    /// The file for what the holder says of itself.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn log(&self) -> Result<File, Error> {
        let path = self.path.join(LOG);
        File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("opening", path))
    }

    /// The end of what the holder said of itself, at most so many bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_words(&self, bytes: usize) -> Result<String, Error> {
        let path = self.path.join(LOG);
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| {
                file.take(LONGEST_LOG.saturating_mul(2))
                    .read_to_end(&mut text)
            })
            .map_err(Error::file("reading", path))?;
        let start = text.len().saturating_sub(bytes);
        Ok(String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned())
    }

    /// Begins the diagnostics anew where they have grown too long.
    pub(super) fn shorten_log(&self) {
        let shortened = self.log().and_then(|file| {
            let failed = Error::file("shortening", self.path.join(LOG));
            match file.metadata() {
                Ok(found) if found.len() > LONGEST_LOG => file.set_len(0).map_err(failed),
                _ => Ok(()),
            }
        });
        if let Err(error) = shortened {
            tracing::debug!(%error, "the diagnostics could not be shortened");
        }
    }

    pub(super) fn listen(&self) -> Result<UnixListener, Error> {
        UnixListener::bind(socket(&self.directory))
            .map_err(Error::file("listening at", self.path.join(SOCKET)))
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(Error::Unreadable)?;
        let (new, path) = (self.path.join("record.new"), self.path.join(RECORD));
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&new, &path));
        written.map_err(Error::file("writing", path))
    }

    /// Removes the directory: the sandbox is gone, or never came.
    pub fn remove(self) {
        remove(&self.path);
    }
}

/// Where holders have their directories.
pub(super) fn place(data: &Path) -> PathBuf {
    data.join("run").join("sandboxes")
}

/// The path to the socket in a directory, which may itself be longer than a socket's may be.
pub(super) fn socket(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

fn private() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Opens a directory and locks it, shared or alone; nothing where that cannot be, or the directory is
/// not there any more.
fn lock(path: &Path, alone: bool) -> Result<Option<File>, Error> {
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("opening", path)(error)),
    };
    let locked = match alone {
        true => directory.try_lock(),
        false => directory.try_lock_shared(),
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(Error::file("locking", path)(error)),
    }
    // Its last holder may have removed it in between, and another be there by now.
    let number = |found: &fs::Metadata| (found.dev(), found.ino());
    match (directory.metadata(), fs::symlink_metadata(path)) {
        (Ok(own), Ok(named)) if number(&own) == number(&named) => Ok(Some(directory)),
        _ => Ok(None),
    }
}

fn entries(above: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(above) {
        Ok(list) => Ok(list
            .filter_map(|entry| Some(entry.ok()?.path()))
            // More than are ever made: what is there beyond is nobody's of ours.
            .take(MOST * 16)
            .collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file("reading", above)(error)),
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "what a holder left could not be removed");
    }
    // It stays where there are others.
    if let Some(above) = path.parent()
        && let Err(error) = fs::remove_dir(above)
    {
        tracing::trace!(%error, "there are other sandboxes");
    }
}

/// Removes the directories of holders that have ended.
///
/// # Errors
/// When they cannot be looked at.
pub fn sweep(data: &Path) -> Result<(), Error> {
    living(data).map(drop)
}

/// The sandboxes whose holders live and are ready, the oldest first, each with its directory. What
/// dead holders left is removed.
pub(super) fn living(data: &Path) -> Result<Vec<(Record, File)>, Error> {
    let mut all = Vec::new();
    for path in entries(&place(data))? {
        if let Some(_alone) = lock(&path, true)? {
            remove(&path);
            continue;
        }
        let Ok(directory) = File::open(&path) else {
            continue;
        };
        // One that has none is about to be ready.
        if let Some(record) = read(&path.join(RECORD))? {
            all.push((record, directory));
        }
    }
    all.sort_by_key(|(record, _)| (record.created, record.id));
    Ok(all)
}

fn read(path: &Path) -> Result<Option<Record>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_RECORD).read_to_end(&mut bytes));
    match read {
        Ok(_) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(Error::Unreadable),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("reading", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: SandboxId) -> Record {
        Record {
            id,
            name: Some("one".into()),
            repository: "/repository".into(),
            commit: "1a2b3c4d".into(),
            kind: Kind::Namespace,
            image: None,
            fork_of: None,
            also: Vec::new(),
            beside: Vec::new(),
            given: Given::default(),
            created: Timestamp(1),
            ends: Timestamp(2),
            pid: 1,
        }
    }

    #[test]
    fn a_directory_whose_holder_has_ended_is_removed_by_whoever_looks() {
        let data = tempfile::tempdir().unwrap();
        let id = SandboxId::from_bits(7);
        let berth = Berth::make(data.path(), id).unwrap();
        berth.write(&record(id)).unwrap();
        let found = living(data.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, record(id));
        drop((found, berth));
        assert!(living(data.path()).unwrap().is_empty());
        assert!(!place(data.path()).exists(), "nothing is left");
    }

    #[test]
    fn a_directory_is_passed_on_without_a_moment_in_which_it_is_free() {
        let data = tempfile::tempdir().unwrap();
        let id = SandboxId::from_bits(7);
        let made = Berth::make(data.path(), id).unwrap();
        let joined = Berth::join(data.path(), id).unwrap();
        drop(made);
        sweep(data.path()).unwrap();
        assert!(joined.path.exists());
        joined.remove();
        let refused = Berth::join(data.path(), id);
        assert!(matches!(refused, Err(Error::Gone { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_socket_is_reached_however_long_the_path_is() {
        let data = tempfile::tempdir().unwrap();
        let deep = data.path().join("x".repeat(200));
        let berth = Berth::make(&deep, SandboxId::from_bits(7)).unwrap();
        let listener = berth.listen().unwrap();
        let connected = tokio::net::UnixStream::connect(socket(&berth.directory)).await;
        assert!(connected.is_ok());
        assert!(listener.accept().await.is_ok());
    }
}
