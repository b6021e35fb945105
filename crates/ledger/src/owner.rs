//! Owners: who holds leases, and how others learn that it has ended.

use crate::{error::Error, ledger::Ledger, writer::Message};
use std::{
    fmt,
    fs::{File, TryLockError},
    io::Write,
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::mpsc;

/// How often a lock is made when it is taken for a dead owner's each time.
const TRIES: usize = 16;
/// The most files that are looked at when the ledger is opened.
const MAX_TIDIED: usize = 4_096;

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
    /// [`Error::NotTakenOver`]: without an owner nothing can be claimed. When its lock cannot be
    /// made.
    pub async fn owner(&self) -> Result<Owner, Error> {
        self.may_work().await?;
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

/// Makes the locked file. Whoever tidies up may find it before it is locked; then it is made again.
fn make(path: &Path) -> std::io::Result<File> {
    for _ in 0..TRIES {
        let mut file = File::options().create_new(true).write(true).open(path)?;
        if file.try_lock().is_ok() && is_at(&file, path) {
            // For a person who wonders whose it is.
            writeln!(file, "{}", std::process::id())?;
            return Ok(file);
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Err(std::io::ErrorKind::ResourceBusy.into())
}

/// Whether the file is still what its path names. Once it is locked, nobody removes it.
fn is_at(file: &File, path: &Path) -> bool {
    let number = |found: std::fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(own), Ok(named)) => number(own) == number(named),
        _ => false,
    }
}

/// Removes what killed processes left in the directory: the locks of owners, also of those that
/// held no lease, and sockets that nobody listens on.
pub(crate) fn tidy(run: &Path) {
    let Ok(entries) = std::fs::read_dir(run) else {
        return;
    };
    let paths = entries.filter_map(|it| Some(it.ok()?.path()));
    for path in paths.take(MAX_TIDIED) {
        let ending = path.extension().and_then(|it| it.to_str());
        match ending {
            Some("lock") if is_owners(&path) => remove_if_free(&path),
            Some("wake") if is_deaf(&path) => remove(&path),
            _ => {}
        }
    }
}

fn is_owners(path: &Path) -> bool {
    let name = path.file_name().and_then(|it| it.to_str());
    name.is_some_and(|it| it.starts_with("owner-"))
}

/// The lock is held until the file is gone: its maker sees that then.
fn remove_if_free(path: &Path) {
    if let Ok(file) = File::options().read(true).open(path)
        && file.try_lock().is_ok()
    {
        remove(path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(%error, "what a killed process left stays");
    }
}

fn is_deaf(path: &Path) -> bool {
    let connected = UnixDatagram::unbound().and_then(|out| out.connect(path));
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_goes_and_what_the_living_hold_stays() {
        let run = tempfile::tempdir().unwrap();
        let run = run.path();
        let held = lock_path(run, OwnerId(1));
        let lock = make(&held).unwrap();
        let left = lock_path(run, OwnerId(2));
        drop(make(&left).unwrap());
        let (listening, deaf) = (run.join("1.wake"), run.join("2.wake"));
        let socket = UnixDatagram::bind(&listening).unwrap();
        drop(UnixDatagram::bind(&deaf).unwrap());
        let other = run.join("open.lock");
        std::fs::write(&other, "").unwrap();
        tidy(run);
        for path in [&held, &listening, &other] {
            assert!(path.exists(), "{}", path.display());
        }
        for path in [&left, &deaf] {
            assert!(!path.exists(), "{}", path.display());
        }
        drop((lock, socket));
    }
}
