//! Owners: who holds leases, and how others learn that it has ended.

use crate::{error::Error, ledger::Ledger, writer::Message};
use std::{
    fmt,
    fs::{File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::mpsc;

/// The number of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OwnerId(pub(crate) i64);

/// Somebody who holds leases: a role in a process.
///
/// It holds a locked file for as long as it lives. When its process ends in whatever way, or the
/// last clone of it is dropped, the lock is free and its leases end.
#[derive(Clone)]
pub struct Owner(Arc<Held>);

struct Held {
    id: OwnerId,
    path: PathBuf,
    writer: mpsc::WeakSender<Message>,
    /// Open and locked; it closes last.
    _lock: File,
}

impl Owner {
    pub(crate) fn id(&self) -> OwnerId {
        self.0.id
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({:016x})", self.0.id.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the lock of an owner was removed by another process");
        }
        // Without the file its leases end; the sweep makes it now instead of in a second.
        if let Some(writer) = self.writer.upgrade() {
            drop(writer.try_send(Message::Sweep));
        }
    }
}

impl Ledger {
    /// A new owner of leases. Its leases end when it is dropped or its process ends.
    ///
    /// # Errors
    /// When its lock cannot be made.
    pub async fn owner(&self) -> Result<Owner, Error> {
        // Making and locking an empty file takes microseconds.
        let id = OwnerId((self.context().ids.bits() >> 1).cast_signed());
        let path = lock_path(&self.context().run, id);
        let lock = make(&path).map_err(|error| Error::file("make the lock of an owner", error))?;
        Ok(Owner(Arc::new(Held {
            id,
            path,
            writer: self.weak_writer(),
            _lock: lock,
        })))
    }
}

fn lock_path(run: &Path, id: OwnerId) -> PathBuf {
    run.join(format!("owner-{:016x}.lock", id.0))
}

fn make(path: &Path) -> std::io::Result<File> {
    let mut file = File::options().create_new(true).write(true).open(path)?;
    file.try_lock()?;
    // For a person who wonders whose it is.
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The process of an owner, as it has written it into its lock.
pub(crate) fn process(run: &Path, id: OwnerId) -> Option<u32> {
    let text = std::fs::read_to_string(lock_path(run, id)).ok()?;
    text.trim().parse().ok()
}

/// Whether the owner lives, as far as this machine can tell. Unlike [`is_dead`] it leaves the
/// lock as it is.
pub(crate) fn is_alive(run: &Path, id: OwnerId) -> bool {
    File::options()
        .read(true)
        .open(lock_path(run, id))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether the owner has ended: its lock is gone or free. The file of a dead owner is removed.
pub(crate) fn is_dead(run: &Path, id: OwnerId) -> bool {
    let path = lock_path(run, id);
    let file = match File::options().read(true).open(&path) {
        Ok(file) => file,
        Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
    };
    match file.try_lock() {
        Ok(()) => {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(%error, "the lock of a dead owner stays");
            }
            true
        }
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "the lock of an owner cannot be tested");
            false
        }
    }
}
