//! What is looked at before a data directory is opened, so that one which cannot be used stays as it
//! is.
//!
//! Nothing here opens the file of the rows: to close it again would end the locks that another
//! ledger in this process has on it.

use crate::{
    error::{Cause, Error, Fault},
    schema,
};
use rustix::fs::Access;
use std::{
    fs::{Metadata, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const DOING: &str = "look at its directory";
/// What its owner may do with a file that a ledger writes.
const READ_AND_WRITE: u32 = 0o600;
/// The files that SQLite keeps beside the rows.
const BESIDE: [&str; 2] = ["ledger.db-wal", "ledger.db-shm"];

/// That the directory holds a ledger that can be written, or none. SQLite gives the files beside the
/// rows the mode of the rows, so those of a ledger that could not be written for a while are mended.
///
/// # Errors
/// [`Error::RowsLost`]; [`Fault::ReadOnly`]; when the directory cannot be looked at.
pub(crate) fn look(directory: &Path) -> Result<(), Error> {
    let failed = |error| Error::file(DOING, error);
    // What others make comes after the rows: one that is just being made is not taken for lost.
    let left = left(directory)
        .and_then(|left| Ok(left.or(log(directory)?)))
        .map_err(failed)?;
    let file = directory.join(schema::FILE);
    let rows = found(&file).map_err(failed)?;
    let Some(rows) = rows.filter(|rows| rows.len() > 0) else {
        return left.map_or(Ok(()), |left| Err(Error::RowsLost { left }));
    };
    match rustix::fs::access(&file, Access::WRITE_OK).map_err(io::Error::from) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Error::Storage {
            doing: "write its file",
            kind: Fault::ReadOnly,
            source: Cause::new(error),
        }),
        other => other.map_err(failed),
    }?;
    for name in BESIDE {
        mend(&directory.join(name), &rows);
    }
    Ok(())
}

/// Something in the directory that only a ledger which had rows can have left.
pub(crate) fn left(directory: &Path) -> io::Result<Option<PathBuf>> {
    for name in ["repositories", "workspaces", "blobs"] {
        let place = directory.join(name);
        let entries = match std::fs::read_dir(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?.file_name();
            // The others of `blobs` are made before there are rows.
            let is_left = name != "blobs" || entry.len() == 2;
            if is_left {
                return Ok(Some(place));
            }
        }
    }
    Ok(None)
}

/// The log, if anything is in it.
fn log(directory: &Path) -> io::Result<Option<PathBuf>> {
    let [log, _] = BESIDE.map(|name| directory.join(name));
    Ok(found(&log)?.filter(|log| log.len() > 0).map(|_| log))
}

fn found(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Lets the owner of the rows write this, too. Where that cannot be done, opening it says so.
fn mend(path: &Path, rows: &Metadata) {
    let mode = |of: &Metadata| of.permissions().mode() & 0o777;
    let Ok(Some(beside)) = found(path) else {
        return;
    };
    let is_closed = mode(&beside) & READ_AND_WRITE != READ_AND_WRITE;
    if is_closed
        && mode(rows) & READ_AND_WRITE == READ_AND_WRITE
        && let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(mode(rows)))
    {
        tracing::debug!(%error, path = %path.display(), "its mode stays as it is");
    }
}
