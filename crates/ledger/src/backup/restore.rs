//! Restoration: a backup becomes a data directory, after all of it was found to be whole.

use super::{
    Progress, aside, each_blob, make_shelf,
    manifest::{Content, FORMAT, MANIFEST, Manifest},
    mark::{self, Restoration},
};
use crate::{
    blob::{blocking, directory},
    error::{Error, Trouble},
    ledger::Ledger,
    options::{Ids, RandomIds},
    schema,
    sql::Sql,
};
use domain::{BlobId, Timestamp};
use rusqlite::{Connection, OpenFlags};
use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    path::Path,
};

const DOING: &str = "restore a backup";

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// When the backup was made.
    pub taken: Timestamp,
    /// How many requests had not ended then. Where there are any, nothing of the ledger is done until
    /// [`Ledger::take_over`].
    pub open: u64,
    /// How many blobs there are.
    pub blobs: u64,
    /// Blobs that had been lost before the backup was made.
    pub missing: Vec<BlobId>,
}

impl Ledger {
    /// Makes a data directory of a backup, where there is none or an empty one. All of the backup
    /// is read and compared with what it says of itself. Leases that were held when it was made
    /// end when the directory is first opened. Where requests have not ended, the ledger that was
    /// backed up may still work on them: this one can be looked at, and does nothing until
    /// [`Ledger::take_over`].
    ///
    /// # Errors
    /// [`Error::NotEmpty`]; [`Error::NewerVersion`]; [`Error::BackupDamaged`]; [`Error::Storage`].
    /// Then there is no directory.
    pub async fn restore(
        backup: &Path,
        to: &Path,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Restored, Error> {
        let (backup, to) = (backup.to_owned(), to.to_owned());
        blocking(move || restore(&backup, &to, progress)).await
    }
}

fn failed(error: io::Error) -> Error {
    Error::file(DOING, error)
}

fn damaged(what: impl Into<String>) -> Error {
    Error::BackupDamaged(what.into())
}

fn restore(
    backup: &Path,
    to: &Path,
    mut progress: impl FnMut(Progress),
) -> Result<Restored, Error> {
    let manifest = Manifest::read(&backup.join(MANIFEST)).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            damaged(format!("`{}` has no {MANIFEST}", backup.display()))
        }
        ErrorKind::InvalidData => damaged(format!("its {MANIFEST} makes no sense: {error}")),
        _ => failed(error),
    })?;
    if manifest.version > schema::VERSION || manifest.format > FORMAT {
        return Err(Error::NewerVersion {
            found: manifest.version,
            known: schema::VERSION,
        });
    }
    aside(to, RandomIds::default().bits(), DOING, |aside| {
        progress(Progress::Rows);
        let file = aside.join(schema::FILE);
        std::fs::copy(backup.join(schema::FILE), &file).map_err(|error| match error.kind() {
            ErrorKind::NotFound => damaged(format!("{} is missing", schema::FILE)),
            _ => failed(error),
        })?;
        if Content::of(&file).map_err(failed)? != manifest.ledger {
            return Err(damaged(format!("{} is not what it was", schema::FILE)));
        }
        let blobs = aside.join("blobs");
        directory::make_directory(&blobs).map_err(failed)?;
        let missing: BTreeSet<BlobId> = manifest.blobs.missing.iter().copied().collect();
        let mut count = 0;
        each_blob(&file, &mut progress, |id| {
            if missing.contains(&id) {
                return Ok(());
            }
            count += 1;
            copy_blob(&backup.join("blobs"), &blobs, id)
        })?;
        let (taken, open) = (manifest.taken, count_open(&file)?);
        if open > 0 {
            mark::write(
                aside,
                Restoration {
                    taken: Some(taken),
                    open,
                },
            )
            .map_err(failed)?;
        }
        Ok(Restored {
            taken,
            open,
            blobs: count,
            missing: manifest.blobs.missing,
        })
    })
}

/// How many requests in this file have not ended.
fn count_open(file: &Path) -> Result<u64, Error> {
    Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map(Sql::from)
        .map_err(Trouble::from)
        .and_then(|sql| mark::count_open(&sql))
        .map_err(|trouble| trouble.during(DOING))
}

/// Copies a blob and reads the copy.
fn copy_blob(from: &Path, to: &Path, id: BlobId) -> Result<(), Error> {
    let (source, target) = (directory::path(from, id), directory::path(to, id));
    let copied = make_shelf(&target)
        .and_then(|()| std::fs::copy(&source, &target))
        .and_then(|_| directory::open_blob(to, id))
        .and_then(|blob| blob.map_or(Ok(()), |blob| blob.verify()));
    copied.map_err(|error| match error.kind() {
        ErrorKind::NotFound => damaged(format!("the blob {id} is missing")),
        ErrorKind::InvalidData => damaged(error.to_string()),
        _ => failed(error),
    })
}
