//! The write-ahead log, kept longer than what is written to it.
//!
//! A commit that makes the file longer takes two or three times as long as one within it, for the
//! file system has to store its new length too. So zeros are written behind the log's end before
//! commits get there. SQLite goes round within the file from its first checkpoint on, and reads it
//! up to the first frame that was not committed: zeros are no frame, for there is no page nought.

use crate::{
    error::{Error, Trouble},
    schema,
    sql::{Sql, get, one, run},
};
use std::{
    fs::File,
    io::{Error as Io, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// How much longer the file becomes at once.
const STEP: u64 = 1 << 20;
/// How much of it is written at once.
const PART: u64 = 1 << 16;
/// A page and its head.
const FRAME: u64 = 4_096 + 24;
/// No longer than this: then SQLite has made a checkpoint, and begins again.
const LONGEST: u64 = schema::CHECKPOINT as u64 * FRAME;

/// The file, as the writer last saw it.
pub(crate) struct Log {
    path: PathBuf,
    /// How long it is; none where it cannot be made longer.
    length: Option<u64>,
}

impl Log {
    pub(crate) fn new(directory: &Path) -> Self {
        let path = directory.join(schema::FILE).with_extension("db-wal");
        let length = path.metadata().map_or(0, |found| found.len());
        Self {
            path,
            length: Some(length),
        }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file longer if commits come near its end; somewhat earlier where nobody waits.
    /// Whatever fails here fails no verb.
    pub(crate) fn keep_ahead(&mut self, sql: &Sql, idle: bool) {
        let Some(length) = self.length else { return };
        if length >= LONGEST {
            return;
        }
        let least = if idle { STEP / 2 } else { STEP / 8 };
        let grown = written(sql).and_then(|written| {
            if written + least < length {
                return Ok(length);
            }
            self.grow(sql, written + least)
        });
        self.length = match grown {
            Ok(length) => Some(length),
            Err(trouble) => {
                let error = trouble.during("make its log longer");
                tracing::debug!(%error, "the log of the ledger grows with each commit");
                None
            }
        };
    }

    /// Writes zeros behind the end, unless another process has made the file longer than this. Nobody
    /// else writes to it meanwhile: that takes a transaction that writes.
    fn grow(&self, sql: &Sql, least: u64) -> Result<u64, Trouble> {
        run(sql, "BEGIN IMMEDIATE", [])?;
        let grown =
            zeros(&self.path, least).map_err(|error| Error::file("make its log longer", error));
        run(sql, "ROLLBACK", [])?;
        Ok(grown?)
    }
}

/// How much of the file is written, in bytes.
fn written(sql: &Sql) -> Result<u64, Trouble> {
    let frames: Option<i64> = one(sql, "PRAGMA wal_checkpoint(NOOP)", [], |row| get(row, 1))?;
    Ok(u64::try_from(frames.unwrap_or(0)).unwrap_or(0) * FRAME)
}

fn zeros(path: &Path, least: u64) -> Result<u64, Io> {
    let mut file = File::options().write(true).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    if length > least {
        return Ok(length);
    }
    let written = (0..STEP / PART)
        .try_for_each(|_| file.write_all(&[0; PART as usize]))
        .and_then(|()| file.sync_data());
    if let Err(error) = written {
        // What is left of a full disk is for commits.
        file.set_len(length)?;
        return Err(error);
    }
    Ok(length + STEP)
}

#[cfg(test)]
mod tests {
    use crate::{Ledger, Options};

    #[tokio::test]
    async fn the_log_is_no_longer_for_how_often_the_ledger_was_opened() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Ledger::open(Options::new(directory.path()));
        let stays = open().await.unwrap();
        let session = stays.session("s").await.unwrap();
        let length = || {
            let log = directory.path().join("ledger.db-wal");
            log.metadata().unwrap().len()
        };
        stays.note(session, None, "first").await.unwrap();
        let before = length();
        for _ in 0..10 {
            let comes = open().await.unwrap();
            comes.note(session, None, "another").await.unwrap();
            comes.close().await;
        }
        assert!(
            length() <= before.max(1 << 20),
            "{before} then {}",
            length()
        );
        stays.close().await;
    }
}
