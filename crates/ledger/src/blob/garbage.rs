//! Garbage: blobs that nothing names, removed a few at a time.
//!
//! Each batch is a transaction that writes, so no process records a name while it runs. A put may
//! run: it makes a file that is there young, and looks whether it is still in its place. So a file
//! is first put aside, then looked at again, and put back if it was touched.

use super::{blocking, directory, directory::Directory};
use crate::{
    error::{Error, Trouble},
    ledger::Ledger,
    schema,
    sql::{Sql, all, get, one, run},
    writer::Verb,
};
use domain::BlobId;
use rusqlite::Row;
use std::{
    fs::{File, TryLockError},
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The most files of one transaction; others wait for it some ten milliseconds.
const BATCH: usize = 500;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// How many blobs.
    pub blobs: u64,
    /// How long their files were.
    pub bytes: u64,
}

impl Ledger {
    /// Removes blobs that nothing names and that were last stored longer ago than this, by the
    /// clock of the system. Give it much more time than passes between a put and the verb that
    /// refers to it.
    ///
    /// # Errors
    /// [`Error::BackingUp`] while a backup is being made; [`Error::Storage`].
    pub async fn collect_garbage(&self, older_than: Duration) -> Result<Collected, Error> {
        let mut total = Collected::default();
        let Some(before) = SystemTime::now().checked_sub(older_than) else {
            return Ok(total);
        };
        self.write("put blobs back", put_back).await?;
        let mut after = Vec::new();
        loop {
            let (ids, last) = self
                .read("find blobs without a name", move |sql| {
                    let ids = all(
                        sql,
                        "SELECT id FROM blobs WHERE refs = 0 AND id > ?1 ORDER BY id LIMIT ?2",
                        (after, BATCH as i64),
                        |row| blob_id(row, 0),
                    )?;
                    let last = ids.last().map(|id| id.as_bytes().to_vec());
                    Ok((ids, last))
                })
                .await?;
            let Some(last) = last else { break };
            after = last;
            total = total.plus(self.collect(ids, before).await?);
        }
        // Files that no row was ever written for: what wanted to name them failed.
        let mut shelf = Some(0u8);
        while let Some(number) = shelf {
            let blobs = Arc::clone(self.blobs());
            let ids = blocking(move || {
                old_files(&blobs, number, before)
                    .map_err(|error| Error::file("list the blobs", error))
            })
            .await?;
            for batch in ids.chunks(BATCH) {
                total = total.plus(self.collect(batch.to_vec(), before).await?);
            }
            shelf = number.checked_add(1);
        }
        Ok(total)
    }

    async fn collect(&self, ids: Vec<BlobId>, before: SystemTime) -> Result<Collected, Error> {
        self.write("collect garbage", move |verb| {
            let _kept = lock_for_removal(&verb.context.run)?;
            // A file that is gone does not come back when this transaction is undone, nor after a
            // power cut. So a name that another verb of it has just taken away still counts, and
            // what was taken away before it is synced first.
            verb.durable.sync()?;
            let committed = Sql::from(schema::connect(&verb.context.directory, false)?);
            let mut collected = Collected::default();
            for id in ids {
                let refs = named(verb, id)?;
                if refs.unwrap_or(0) > 0 || named(&committed, id)?.unwrap_or(0) > 0 {
                    continue;
                }
                let removed = remove(&verb.context.blobs, id, before)
                    .map_err(|error| Error::file("remove a blob", error))?;
                let gone = match removed {
                    Removed::Yes(bytes) => {
                        collected = collected.plus(Collected { blobs: 1, bytes });
                        true
                    }
                    Removed::WasNot => true,
                    Removed::Young => false,
                };
                if gone && refs.is_some() {
                    run(verb, "DELETE FROM blobs WHERE id = ?1", [id.as_bytes()])?;
                }
            }
            Ok(collected)
        })
        .await
    }
}

impl Collected {
    fn plus(self, other: Self) -> Self {
        Self {
            blobs: self.blobs + other.blobs,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// How often a blob is named; none where it was never counted.
fn named(sql: &Sql, id: BlobId) -> Result<Option<i64>, Trouble> {
    one(
        sql,
        "SELECT refs FROM blobs WHERE id = ?1",
        [id.as_bytes()],
        |row| get(row, 0),
    )
}

/// The name of a blob from its column.
pub(crate) fn blob_id(row: &Row<'_>, column: usize) -> Result<BlobId, Trouble> {
    Ok(BlobId::from_sha256(get(row, column)?))
}

/// Held while blobs are removed; a backup holds it shared, so that none goes that it has to copy.
fn lock_for_removal(run: &Path) -> Result<File, Error> {
    let failed = |error| Error::file("lock the blobs", error);
    let lock = removal_lock(run).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::BackingUp),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The file that removal locks, and that a backup locks shared.
pub(crate) fn removal_lock(run: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(run.join("removal.lock"))
}

enum Removed {
    /// So many bytes.
    Yes(u64),
    /// There was no such file.
    WasNot,
    /// Somebody has just stored it.
    Young,
}

fn remove(blobs: &Directory, id: BlobId, before: SystemTime) -> io::Result<Removed> {
    let path = blobs.path(id);
    let is_young = |path: &Path| -> io::Result<Option<(bool, u64)>> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            found => {
                let found = found?;
                Ok(Some((found.modified()? >= before, found.len())))
            }
        }
    };
    match is_young(&path)? {
        None => return Ok(Removed::WasNot),
        Some((true, _)) => return Ok(Removed::Young),
        Some((false, _)) => {}
    }
    let aside = blobs.removing().join(id.to_string());
    std::fs::rename(&path, &aside)?;
    match is_young(&aside)? {
        Some((false, bytes)) => {
            std::fs::remove_file(&aside)?;
            Ok(Removed::Yes(bytes))
        }
        // Put back, over the same content where it was stored anew.
        Some((true, _)) => {
            directory::place(blobs.top(), &aside, id)?;
            Ok(Removed::Young)
        }
        None => Ok(Removed::WasNot),
    }
}

/// Puts back what a process had put aside when it died.
fn put_back(verb: &mut Verb<'_>) -> Result<(), Trouble> {
    let blobs = &verb.context.blobs;
    (|| {
        for entry in std::fs::read_dir(blobs.removing())? {
            let entry = entry?;
            match entry.file_name().to_string_lossy().parse::<BlobId>() {
                Ok(id) => directory::put_back(blobs.top(), &entry.path(), id)?,
                Err(error) => tracing::debug!(%error, "a file among the blobs is none"),
            }
        }
        Ok(())
    })()
    .map_err(|error| Error::file("put blobs back", error).into())
}

/// The blobs on a shelf that are old enough to go.
fn old_files(blobs: &Directory, shelf: u8, before: SystemTime) -> io::Result<Vec<BlobId>> {
    let entries = match std::fs::read_dir(blobs.top().join(format!("{shelf:02x}"))) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut old = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(id) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        match entry.metadata().and_then(|found| found.modified()) {
            Ok(changed) if changed < before => old.push(id),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(old)
}
