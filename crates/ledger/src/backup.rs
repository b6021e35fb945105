//! Backups: a directory with the rows of one moment and every blob that they name.
//!
//! A backup is made beside its place and moved there when it is whole and synced, so a directory
//! with its name is a whole backup. While it is made no blob is removed.

mod manifest;
mod mark;
mod restore;

pub use mark::Restoration;
pub use restore::Restored;

use crate::{
    blob::{blob_id, blocking, directory, removal_lock},
    error::{Error, Trouble},
    ledger::Ledger,
    schema,
    sql::Sql,
    sql::{all, get},
};
use domain::{BlobId, Timestamp};
use manifest::{Blobs, FORMAT, MANIFEST, Manifest};
use rusqlite::{
    Connection,
    types::{ToSqlOutput, ValueRef},
};
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

const DOING: &str = "make a backup";
/// How many blobs are copied between two reports of progress.
const PAGE: i64 = 1_000;

/// How far a backup or a restoration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The rows are copied.
    Rows,
    /// The blobs are copied.
    Blobs {
        /// So many were.
        done: u64,
        /// Of so many.
        total: u64,
    },
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// How long the file of the rows is.
    pub bytes: u64,
    /// How many blobs there are.
    pub blobs: u64,
    /// How long their files are.
    pub blob_bytes: u64,
    /// Blobs that rows name and that were not there: they had been lost before.
    pub missing: Vec<BlobId>,
}

impl Ledger {
    /// Copies the ledger into a directory that does not exist or is empty, while verbs go on.
    /// Every verb that has returned before this was called is in it. Blobs are linked where the
    /// file system allows it, else copied.
    ///
    /// # Errors
    /// [`Error::NotEmpty`]; [`Error::Storage`]. Then there is no directory.
    pub async fn backup(
        &self,
        to: &Path,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Backup, Error> {
        let work = Work {
            data: self.directory().to_owned(),
            run: self.context().run.clone(),
            to: to.to_owned(),
            bits: self.context().ids.bits(),
            now: self.now(),
        };
        blocking(move || work.make(progress)).await
    }
}

struct Work {
    data: PathBuf,
    run: PathBuf,
    to: PathBuf,
    bits: u64,
    now: Timestamp,
}

impl Work {
    fn make(&self, mut progress: impl FnMut(Progress)) -> Result<Backup, Error> {
        aside(&self.to, self.bits, DOING, |aside| {
            let lock = removal_lock(&self.run).map_err(failed)?;
            lock.lock_shared().map_err(failed)?;
            progress(Progress::Rows);
            let file = aside.join(schema::FILE);
            copy_rows(&self.data, &file).map_err(|trouble| trouble.during(DOING))?;
            let ledger = manifest::Content::of(&file).map_err(failed)?;
            let mut backup = Backup {
                bytes: ledger.bytes,
                blobs: 0,
                blob_bytes: 0,
                missing: Vec::new(),
            };
            let blobs = aside.join("blobs");
            directory::make_directory(&blobs).map_err(failed)?;
            let from = self.data.join("blobs");
            each_blob(&file, &mut progress, |id| {
                match link_or_copy(&from, &blobs, id)? {
                    Some(bytes) => {
                        backup.blobs += 1;
                        backup.blob_bytes += bytes;
                    }
                    None => backup.missing.push(id),
                }
                Ok(())
            })?;

            Manifest {
                format: FORMAT,
                version: schema::VERSION,
                taken: self.now,
                ledger,
                blobs: Blobs {
                    count: backup.blobs,
                    bytes: backup.blob_bytes,
                    missing: backup.missing.clone(),
                },
            }
            .write(&aside.join(MANIFEST))
            .map_err(failed)?;
            Ok(backup)
        })
    }
}

fn failed(error: io::Error) -> Error {
    Error::file(DOING, error)
}

/// Copies the rows as of now into one file. It reads as a reader does and keeps nobody.
fn copy_rows(data: &Path, to: &Path) -> Result<(), Trouble> {
    let sql = schema::connect(data, false)?;
    // It writes another file than the one that is only read.
    sql.pragma_update(None, "query_only", false)?;
    let name = ToSqlOutput::Borrowed(ValueRef::Text(to.as_os_str().as_bytes()));
    sql.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}

/// Goes through the blobs that the rows of a copy name, in the order of their names.
fn each_blob(
    file: &Path,
    progress: &mut dyn FnMut(Progress),
    mut work: impl FnMut(BlobId) -> Result<(), Error>,
) -> Result<(), Error> {
    let damaged = |trouble: Trouble| trouble.during("read the rows of a backup");
    let sql = Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map(Sql::from)
        .map_err(|error| damaged(error.into()))?;
    let total = sql
        .query_row("SELECT COUNT(*) FROM blobs WHERE refs > 0", [], |row| {
            row.get::<_, i64>(0)
        })
        .map_err(|error| damaged(error.into()))?
        .unsigned_abs();
    let (mut done, mut after) = (0, Vec::new());
    loop {
        let page = all(
            &sql,
            "SELECT id, refs FROM blobs WHERE id > ?1 ORDER BY id LIMIT ?2",
            (&after, PAGE),
            |row| Ok((blob_id(row, 0)?, get::<i64>(row, 1)?)),
        )
        .map_err(damaged)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = last.as_bytes().to_vec();
        for (id, _) in page.into_iter().filter(|(_, refs)| *refs > 0) {
            work(id)?;
            done += 1;
        }
        progress(Progress::Blobs { done, total });
    }
}

/// Puts a blob into a copy. Says how long its file is; none where it is not there.
fn link_or_copy(from: &Path, to: &Path, id: BlobId) -> Result<Option<u64>, Error> {
    (|| {
        let source = directory::path(from, id);
        let bytes = match std::fs::metadata(&source) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?.len(),
        };
        let target = directory::path(to, id);
        make_shelf(&target)?;
        // A file of a blob is never written again, so both may have the same one.
        if std::fs::hard_link(&source, &target).is_err() {
            std::fs::copy(&source, &target)?;
        }
        Ok(Some(bytes))
    })()
    .map_err(failed)
}

fn make_shelf(target: &Path) -> io::Result<()> {
    match target.parent() {
        Some(shelf) if !shelf.is_dir() => directory::make_directory(shelf),
        _ => Ok(()),
    }
}

/// Makes everything in a directory durable: its whole file system, which for many files is much
/// faster than one after the other.
fn sync_all(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(directory)?)?)
}

/// Makes a directory beside its place and moves it there when it is whole; removes it when that
/// fails.
fn aside<T>(
    to: &Path,
    bits: u64,
    doing: &'static str,
    fill: impl FnOnce(&Path) -> Result<T, Error>,
) -> Result<T, Error> {
    let failed = |error| Error::file(doing, error);
    let to = std::path::absolute(to).map_err(failed)?;
    let name = to.file_name().ok_or_else(|| Error::NotEmpty(to.clone()))?;
    let above = to.parent().unwrap_or(Path::new("/"));
    is_free(&to)
        .map_err(failed)?
        .then_some(())
        .ok_or_else(|| Error::NotEmpty(to.clone()))?;
    let mut beginning = std::ffi::OsString::from(".");
    beginning.push(name);
    beginning.push(".");
    sweep(above, &beginning);
    let mut partial = beginning;
    partial.push(format!("{bits:016x}{PARTIAL}"));
    let partial = above.join(partial);
    let outcome = directory::make_directory(&partial)
        .and_then(|()| hold(&partial))
        .map_err(failed)
        .and_then(|held| Ok((held, fill(&partial)?)))
        .and_then(|(_held, made)| {
            sync_all(&partial).map_err(failed)?;
            match std::fs::rename(&partial, &to) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                    return Err(Error::NotEmpty(to.clone()));
                }
                moved => moved.map_err(failed)?,
            }
            directory::sync_directory(above).map_err(failed)?;
            Ok(made)
        });
    if outcome.is_err()
        && let Err(error) = std::fs::remove_dir_all(&partial)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %partial.display(), "what was made stays");
    }
    outcome
}

/// What is older was made by a process that holds it, or that has ended.
const NEW: std::time::Duration = std::time::Duration::from_secs(60);
/// How the name of what is not whole yet ends.
const PARTIAL: &str = ".partial";

/// Holds a directory that is being made, as long as the answer is kept: then nobody sweeps it away.
fn hold(partial: &Path) -> io::Result<File> {
    let held = File::open(partial)?;
    held.lock()?;
    Ok(held)
}

/// Removes what killed processes left that made the same. What cannot be removed is only in the
/// way of nobody.
fn sweep(above: &Path, beginning: &std::ffi::OsStr) {
    let Ok(entries) = std::fs::read_dir(above) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let (name, beginning) = (name.as_encoded_bytes(), beginning.as_encoded_bytes());
        let is_partial = name.strip_prefix(beginning).is_some_and(|rest| {
            rest.len() == 16 + PARTIAL.len() && rest.ends_with(PARTIAL.as_bytes())
        });
        // One that was just made may not be held yet.
        let is_left = || {
            let left = File::open(entry.path())?;
            let age = left.metadata()?.modified()?.elapsed().unwrap_or_default();
            Ok::<bool, io::Error>(age > NEW && left.try_lock().is_ok())
        };
        if is_partial
            && is_left().unwrap_or(false)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "what a killed process left stays");
        }
    }
}

/// Whether something may be put there.
fn is_free(to: &Path) -> io::Result<bool> {
    match std::fs::read_dir(to) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        // A file; where something above it is one, the error is the better answer.
        Err(_) if to.symlink_metadata().is_ok() => Ok(false),
        Err(error) => Err(error),
    }
}
