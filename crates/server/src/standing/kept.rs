//! What is written down of a sandbox, so that it outlives the process that holds it.
//!
//! The record is there from the moment in which the sandbox is whole until it is to go, and is replaced
//! as a whole. It is on the disk before anything happens that relies on it: whoever is killed, and when
//! the machine goes down, the sandbox is absent, or it is stopped with the files that it had.

use super::{
    berth::{LONGEST_RECORD, Record},
    error::Error,
    moments::Origin,
};
use domain::{SandboxId, Timestamp};
use serde::{Deserialize, Serialize};
use site::KEPT_RECORD as RECORD;
use std::{
    fmt,
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::{SystemTime, UNIX_EPOCH},
};
use workspace::{Layering, Store};

/// The names of snapshots that go unless whoever asked for them says that they stay.
const LENT: &str = "lent.json";
/// By how much the next record may be longer than the one before it, in bytes, and of how many a file
/// takes at least.
const LONGER: usize = 1 << 10;
const BLOCK: usize = 4 << 10;

/// Whether anything can run in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A process holds it.
    Running,
    /// It was stopped, and a process is about to hold it again.
    Starting,
    /// Nothing runs in it; its files are there.
    Stopped,
}

/// Why a sandbox is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// By `skep sandbox stop`.
    Asked,
    /// Its holder was told to end.
    Told,
    /// Its holder ended without a word.
    Killed,
    /// The machine was restarted.
    Restarted,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "by `skep sandbox stop`",
            Self::Told => "its holder was told to end",
            Self::Killed => "its holder was killed",
            Self::Restarted => "the machine was restarted",
        })
    }
}

/// How a sandbox stands, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Whether anything can run in it.
    pub status: Status,
    /// Since when: where its holder was killed, since that was noticed.
    pub since: Timestamp,
    /// Why it is stopped.
    pub why: Option<Why>,
}

/// What the last process that had to do with a sandbox wrote down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// It is whole, and whoever asked for it does not know yet: it goes with its holder.
    Made,
    /// It is held.
    #[default]
    Running,
    /// It was stopped.
    Stopped,
}

/// A sandbox as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(flatten)]
    pub(super) record: Record,
    #[serde(default)]
    pub(super) phase: Phase,
    #[serde(default)]
    pub(super) since: Timestamp,
    #[serde(default)]
    pub(super) why: Option<Why>,
    /// The start of the machine in which it ran last.
    #[serde(default)]
    pub(super) boot: Option<String>,
    /// What it takes to start it again. One that an earlier version held has none, and cannot be.
    #[serde(default)]
    pub(super) origin: Option<Origin>,
}

impl Kept {
    /// How it stands: by what is written, and by whether a process holds it.
    pub(super) fn standing(&self, is_held: bool) -> Standing {
        let (status, why) = match (self.phase, is_held) {
            (Phase::Running, true) => (Status::Running, None),
            (_, true) => (Status::Starting, self.why),
            (Phase::Stopped, false) => (Status::Stopped, self.why),
            // Nobody has written it down yet.
            (_, false) => (Status::Stopped, Some(self.why_ended())),
        };
        Standing {
            status,
            since: self.since,
            why,
        }
    }

    /// Why it is not held any more, where its holder has not written it down.
    fn why_ended(&self) -> Why {
        let is_this = self.boot.is_some() && self.boot == workspace::this_boot();
        match is_this {
            true => Why::Killed,
            false => Why::Restarted,
        }
    }

    /// The same, held by this process from now on.
    pub(super) fn held(mut self, now: Timestamp) -> Self {
        self.phase = Phase::Running;
        self.since = now;
        self.why = None;
        self.boot = workspace::this_boot();
        self.record.pid = std::process::id();
        self
    }

    /// The same, stopped.
    pub(super) fn stopped(mut self, why: Why, now: Timestamp) -> Self {
        self.phase = Phase::Stopped;
        self.since = now;
        self.why = Some(why);
        self
    }

    /// Reads what is written in a sandbox's directory; nothing where nothing is.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, Error> {
        read(&directory.join(RECORD))
    }

    /// Takes the room on the disk that the next record needs, so that how it ends can be written down
    /// also when the disk is full by then.
    pub(super) fn reserve(&self, directory: &Path) -> Result<(), Error> {
        let length = serde_json::to_vec(self).map_err(Error::Unreadable)?.len();
        let path = fresh(directory, RECORD);
        let blank = vec![b' '; length.saturating_add(LONGER).next_multiple_of(BLOCK)];
        open_new(&path)
            .and_then(|mut file| {
                file.write_all(&blank)?;
                file.sync_all()
            })
            .map_err(Error::file("writing", path))?;
        sync(directory)
    }

    /// Writes it down. What was written before is there until this is on the disk.
    pub(super) fn write(&self, directory: &Path) -> Result<(), Error> {
        write(directory, RECORD, self)?;
        if let Some(above) = directory.parent() {
            sync(above)?;
        }
        Ok(())
    }
}

/// Takes the record away: from now on there is no such sandbox, and its files go.
pub(super) fn strike(directory: &Path) -> Result<(), Error> {
    let path = directory.join(RECORD);
    match fs::remove_file(&path) {
        Ok(()) => sync(directory),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::file("removing", path)(error)),
    }
}

/// What became of a sandbox that no process has anything to do with. The caller keeps others from it.
/// One that cannot be started again, or is past its time, goes with its files.
pub(super) fn settle(data: &Path, directory: &Path) -> Result<Option<Kept>, Error> {
    let Some(kept) = Kept::read(directory)? else {
        return Ok(None);
    };
    let id = kept.record.id;
    let now = now();
    let goes = kept.phase == Phase::Made
        || kept.origin.is_none()
        || kept.record.ends <= now
        || !has_workspace(data, id)?;
    if goes {
        strike(directory)?;
        discard(data, id)?;
        return Ok(None);
    }
    if kept.phase == Phase::Stopped {
        return Ok(Some(kept));
    }
    let why = kept.why_ended();
    let kept = kept.stopped(why, now);
    // Where that cannot be written, on a full disk say, it is seen anew by whoever looks next.
    if let Err(error) = kept.write(directory) {
        tracing::debug!(%error, %id, "that a sandbox is stopped cannot be written down");
    }
    Ok(Some(kept))
}

/// Whether its files are there. What cannot be looked at is nothing to take away.
fn has_workspace(data: &Path, id: SandboxId) -> Result<bool, Error> {
    let path = workspace_of(data, id);
    path.try_exists().map_err(Error::file("looking at", path))
}

fn workspace_of(data: &Path, id: SandboxId) -> PathBuf {
    data.join("workspaces").join(id.to_string())
}

/// Moves the files of a sandbox that has no record to the trash, unless somebody holds them.
pub(super) fn discard(data: &Path, id: SandboxId) -> Result<(), Error> {
    if !has_workspace(data, id)? {
        return Ok(());
    }
    let id = id.to_string();
    let swept = store(data)?.sweep(|other| other != id);
    swept.map(drop).map_err(Error::Files)
}

/// Deletes what is in the trash.
pub(super) fn empty_trash(data: &Path) -> Result<(), Error> {
    let emptied = store(data)?.empty_trash(&AtomicBool::new(false));
    emptied.map(drop).map_err(Error::Files)
}

fn store(data: &Path) -> Result<Store, Error> {
    // How new workspaces would lie over their bases does not matter: none is made.
    Store::open(data, Layering::Copy).map_err(Error::Files)
}

/// The names of snapshots that go unless it is said that they stay.
pub(super) fn lent(directory: &Path) -> Result<Vec<String>, Error> {
    Ok(read(&directory.join(LENT))?.unwrap_or_default())
}

/// Writes them down, before the first of them is taken.
pub(super) fn write_lent(directory: &Path, names: &[String]) -> Result<(), Error> {
    write(directory, LENT, &names)
}

/// The file in which what is written is whole before it takes its place.
fn fresh(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.new"))
}

/// What is there stays, with the room that it has, until it is written over.
fn open_new(path: &Path) -> std::io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn write(directory: &Path, name: &str, what: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(what).map_err(Error::Unreadable)?;
    let fresh = fresh(directory, name);
    let path = directory.join(name);
    let written = open_new(&fresh)
        .and_then(|mut file| {
            file.write_all(&bytes)?;
            file.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, &path));
    written.map_err(Error::file("writing", path))?;
    sync(directory)
}

/// Waits until the names in a directory are on the disk.
fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::file("writing", directory))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_RECORD).read_to_end(&mut bytes));
    match read {
        Ok(_) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Record {
                path: path.to_owned(),
                source,
            }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("reading", path)(error)),
    }
}

/// The time, where no ledger tells it.
pub(super) fn now() -> Timestamp {
    let age = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(0).plus(age.unwrap_or_default())
}
