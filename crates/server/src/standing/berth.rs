//! The directory of a holder: `run/sandboxes/ID` below the data directory, open to its user alone.

use super::{
    error::Error,
    kept::{Kept, discard, strike},
    moments::ForkOf,
    more::Given,
};
use domain::{SandboxId, Timestamp, entity::Beside};
use sandbox::Kind;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Read as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::net::UnixListener;

/// How many are held at once, at most.
pub const MOST: usize = 64;
/// What a holder's diagnostics may take, in bytes; then they begin anew.
const LONGEST_LOG: u64 = 1 << 20;
pub(super) const LONGEST_RECORD: u64 = 256 << 10;
/// How long those are waited for who only look, and who make directories.
const WAITS: Duration = Duration::from_secs(10);
const LOOKS: Duration = Duration::from_millis(2);
/// The process that holds the sandbox has a lock on this file.
const HELD: &str = "held";
/// The name that the sandbox is to have.
const NAME: &str = "name";
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

/// A sandbox's directory. As long as this is held, by the holder or by who starts it, nobody removes the
/// directory.
#[derive(Debug)]
pub struct Berth {
    /// The sandbox.
    pub id: SandboxId,
    path: PathBuf,
    /// The directory, locked.
    directory: File,
    /// That this process is the one that holds the sandbox.
    held: Option<File>,
}

impl Berth {
    /// Makes a directory for a new holder. A name is this one's from now on: of several who ask for one at
    /// the same time, one gets it.
    ///
    /// # Errors
    /// [`Error::TooMany`], [`Error::NameTaken`], or when the data directory cannot be written.
    pub fn make(data: &Path, id: SandboxId, name: Option<&str>) -> Result<Self, Error> {
        let above = place(data);
        let path = above.join(id.to_string());
        let doing = "making the directory";
        patiently(|| {
            private()
                .recursive(true)
                .create(&above)
                .map_err(Error::file(doing, &above))?;
            // One at a time: names are looked at, and the directory with its name is there after that.
            let Some(_alone) = lock(&above, true)? else {
                return Ok(None);
            };
            let all = entries(&above)?;
            if all.len() >= MOST {
                return Err(Error::TooMany);
            }
            if let Some(name) = name {
                free(name, &all)?;
            }
            match private().create(&path) {
                Ok(()) => {}
                // Just now the last one beside it was removed, or a sweep saw it before its lock.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(Error::file(doing, &path)(error)),
            }
            let Some(directory) = lock(&path, false)? else {
                return Ok(None);
            };
            if let Some(name) = name {
                let place = path.join(NAME);
                fs::write(&place, name).map_err(Error::file("writing", &place))?;
            }
            Ok(Some(Self {
                id,
                path: path.clone(),
                directory,
                held: None,
            }))
        })?
        .ok_or_else(|| Error::file(doing, path)(ErrorKind::ResourceBusy.into()))
    }

    /// The directory of a sandbox that is there, for who starts it, or for what is to be read of it.
    ///
    /// # Errors
    /// [`Error::Gone`] when it was removed.
    pub fn claim(data: &Path, id: SandboxId) -> Result<Self, Error> {
        let path = place(data).join(id.to_string());
        let directory = patiently(|| match lock(&path, false)? {
            None if !path.exists() => Err(Error::Gone { id: id.to_string() }),
            locked => Ok(locked),
        })?;
        let directory = directory.ok_or_else(|| Error::Gone { id: id.to_string() })?;
        Ok(Self {
            id,
            path,
            directory,
            held: None,
        })
    }

    /// Takes over the directory, to hold the sandbox: as the only process that does.
    ///
    /// # Errors
    /// [`Error::Gone`] when it was removed; [`Error::Held`] when another process holds it.
    pub fn join(data: &Path, id: SandboxId) -> Result<Self, Error> {
        let mut berth = Self::claim(data, id)?;
        let path = berth.path.join(HELD);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("opening", &path))?;
        // Whoever only looks holds it for a moment.
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() < LOOKS * 50 => {
                    std::thread::park_timeout(LOOKS);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Held { id: id.to_string() });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(Error::file("locking", path)(error));
                }
            }
        }
        berth.held = Some(file);
        Ok(berth)
    }

    /// Whether a process holds the sandbox.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.is_some() || is_held(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
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
        // One of a holder that was killed leads nowhere.
        let path = self.path.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::file("removing", path)(error));
            }
            _ => {}
        }
        UnixListener::bind(socket(&self.directory)).map_err(Error::file("listening at", path))
    }

    /// What is written of it.
    pub(super) fn kept(&self) -> Result<Kept, Error> {
        Kept::read(&self.path)?.ok_or_else(|| Error::Gone {
            id: self.id.to_string(),
        })
    }

    pub(super) fn write(&self, kept: &Kept) -> Result<(), Error> {
        kept.write(&self.path)
    }

    /// Takes the room for what is written next.
    pub(super) fn reserve(&self, kept: &Kept) {
        if let Err(error) = kept.reserve(&self.path) {
            tracing::debug!(%error, "how it ends may not be written down where the disk is full");
        }
    }

    /// From now on there is no such sandbox: what is left of it goes, whoever is killed.
    pub(super) fn strike(&self) -> Result<(), Error> {
        strike(&self.path)
    }

    /// As [`Berth::remove`], of a sandbox that nobody is to find: with its files, if its holder left any.
    pub fn abandon(self, data: &Path) {
        if let Err(error) = self.strike().and_then(|()| discard(data, self.id)) {
            tracing::warn!(%error, "what a sandbox left goes at the next sweep");
        }
        self.remove();
    }

    /// Removes the directory: the sandbox is gone, or never came.
    pub fn remove(self) {
        remove(&self.path);
    }
}

/// Where sandboxes have their directories.
pub(super) fn place(data: &Path) -> PathBuf {
    site::kept_in(data)
}

/// Tries something again while others are in the way who soon are not: the kernel tells nobody when a lock
/// is released, and a lock that is waited for has no deadline. Nothing when they stay.
fn patiently<T>(mut attempt: impl FnMut() -> Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    let started = Instant::now();
    loop {
        match attempt()? {
            Some(done) => return Ok(Some(done)),
            None if started.elapsed() >= WAITS => return Ok(None),
            None => std::thread::park_timeout(LOOKS),
        }
    }
}

/// That no sandbox has this name, of those in these directories.
fn free(name: &str, all: &[PathBuf]) -> Result<(), Error> {
    for path in all {
        let taken = fs::read(path.join(NAME)).is_ok_and(|it| it == name.as_bytes());
        // One that its holder left before it was whole has none any more.
        if taken && (Kept::read(path)?.is_some() || lock(path, true)?.is_none()) {
            let id = path.file_name().unwrap_or_default().to_string_lossy();
            return Err(Error::NameTaken {
                name: name.to_owned(),
                id: id.into_owned(),
            });
        }
    }
    Ok(())
}

/// Whether a process holds the sandbox of this directory.
pub(super) fn is_held(path: &Path) -> bool {
    let held = File::open(path.join(HELD));
    held.is_ok_and(|held| matches!(held.try_lock_shared(), Err(TryLockError::WouldBlock)))
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
pub(super) fn lock(path: &Path, alone: bool) -> Result<Option<File>, Error> {
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

/// The sandbox whose directory this would be.
pub(super) fn id_of(path: &Path) -> Option<SandboxId> {
    path.file_name()?.to_str()?.parse().ok()
}

pub(super) fn entries(above: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(above) {
        Ok(list) => Ok(list
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| id_of(path).is_some() && path.is_dir())
            // More than are ever made: what is there beyond is nobody's of ours.
            .take(MOST * 16)
            .collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file("reading", above)(error)),
    }
}

pub(super) fn remove(path: &Path) {
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

#[cfg(test)]
mod tests;
