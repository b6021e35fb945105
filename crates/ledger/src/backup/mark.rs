//! The mark of a ledger that was restored from a backup in which something had not ended.
//!
//! The ledger that was backed up may still live, with the same requests and the same branches: what
//! both do lands twice. So nothing of the restored one is done until a person says that it takes the
//! place of the other. The mark is a file, so that it is there when the directory is, and a stranger
//! can see it.

use crate::{
    blob::{blocking, directory},
    error::{Cause, Error, Fault, Trouble, requests},
    ledger::Ledger,
    sql::{Sql, count, one},
};
use domain::Timestamp;
use rustix::{fs::OFlags, io::Errno};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The name of the file, in the data directory.
const MARK: &str = "restored.json";
/// The longest mark that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;
const DOING: &str = "see whether it was restored";

/// That a ledger was restored and nobody has said yet that it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// When the backup was made; none where the mark is damaged.
    pub taken: Option<Timestamp>,
    /// How many requests had not ended then; that have not ended now, where the mark is damaged.
    pub open: u64,
}

impl fmt::Display for Restoration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this ledger was restored from a backup and waits to be taken over: {} had not ended when \
             the backup was made",
            requests(self.open)
        )
    }
}

impl Restoration {
    /// That of the ledger in this data directory, which need not be open. There is none where
    /// nothing waits.
    ///
    /// # Errors
    /// When the mark cannot be read, or is damaged: an open ledger says how much waits then.
    pub async fn of(data: &Path) -> Result<Option<Self>, Error> {
        let data = data.to_owned();
        match blocking(move || read(&data)).await? {
            Mark::None => Ok(None),
            Mark::Says(restoration) => Ok(Some(restoration)),
            Mark::Damaged(source) => Err(Error::Storage {
                doing: DOING,
                kind: Fault::Damaged,
                source,
            }),
        }
    }
}

impl Ledger {
    /// That this ledger was restored with requests that have not ended, and has not been taken over.
    /// Nothing of it is done until then: [`Ledger::owner`] refuses.
    ///
    /// # Errors
    /// When the mark cannot be read.
    pub async fn restoration(&self) -> Result<Option<Restoration>, Error> {
        let data = self.directory().to_owned();
        match blocking(move || read(&data)).await? {
            Mark::None => Ok(None),
            Mark::Says(restoration) => Ok(Some(restoration)),
            // Whatever is in it, it says that the ledger waits.
            Mark::Damaged(_) => {
                let open = self.read("count what has not ended", count_open).await?;
                Ok(Some(Restoration { taken: None, open }))
            }
        }
    }

    /// That work may go on here. Whoever is about to do something that others see asks this first.
    ///
    /// # Errors
    /// [`Error::NotTakenOver`]; when the mark cannot be read.
    pub async fn may_work(&self) -> Result<(), Error> {
        match self.restoration().await? {
            Some(Restoration { open, .. }) => Err(Error::NotTakenOver { open }),
            None => Ok(()),
        }
    }

    /// Lets a restored ledger go on, in the place of the one that was backed up: that one must not
    /// work any more. Says what waited for it; none where nothing did.
    ///
    /// # Errors
    /// When the mark cannot be read or removed. Then the ledger waits still.
    pub async fn take_over(&self) -> Result<Option<Restoration>, Error> {
        let found = self.restoration().await?;
        if found.is_none() {
            return Ok(None);
        }
        let data = self.directory().to_owned();
        let removed = blocking(move || {
            match std::fs::remove_file(data.join(MARK)) {
                // Another process was told the same at this moment.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                removed => removed.and_then(|()| directory::sync_directory(&data)),
            }
            .map(|()| true)
            .map_err(|error| Error::file("take over from the ledger before it", error))
        })
        .await?;
        Ok(found.filter(|_| removed))
    }
}

/// What the file says.
enum Mark {
    None,
    Says(Restoration),
    Damaged(Cause),
}

fn read(data: &Path) -> Result<Mark, Error> {
    let mut text = Vec::new();
    // Whatever is there in place of a file is a mark all the same: it is not waited for, nor
    // followed.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let read = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(data.join(MARK))
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Mark::None),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            return Ok(Mark::Damaged(Cause::new(error)));
        }
        other => other.map_err(|error| Error::file(DOING, error))?,
    };
    Ok(serde_json::from_slice(&text)
        .map_or_else(|error| Mark::Damaged(Cause::new(error)), Mark::Says))
}

/// How many requests in these rows, of whatever version, have not ended.
pub(super) fn count_open(sql: &Sql) -> Result<u64, Trouble> {
    let open = one(
        sql,
        "SELECT COUNT(*) FROM requests \
         WHERE state NOT IN ('done', 'partial', 'failed', 'cancelled')",
        [],
        |row| count(row, 0),
    )?;
    Ok(open.unwrap_or_default())
}

pub(super) fn write(data: &Path, restoration: Restoration) -> io::Result<()> {
    let mut text = serde_json::to_vec(&restoration)?;
    text.push(b'\n');
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .open(data.join(MARK))?;
    file.write_all(&text)?;
    file.sync_all()
}
