//! The file of the ledger: its settings and its migrations.

use crate::{
    blob::references,
    error::{Error, Trouble},
    opening,
    sql::{Sql, get, one},
    vfs,
};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, config::DbConfig};
use std::{fs::File, path::Path, time::Duration};

/// What SQL alone cannot do, given the connection and the data directory.
type Step = fn(&Sql, &Path) -> Result<(), Trouble>;

/// What brings the data from the version before it to its own, in one transaction.
struct Migration {
    sql: &'static str,
    then: Step,
}

/// The migrations, counted from one.
const MIGRATIONS: &[Migration] = &[
    Migration {
        sql: include_str!("../migrations/0001.sql"),
        then: |_, _| Ok(()),
    },
    Migration {
        sql: include_str!("../migrations/0002.sql"),
        then: |sql, _| crate::requeue::everything(sql),
    },
    Migration {
        sql: include_str!("../migrations/0003.sql"),
        then: references::count_existing,
    },
    Migration {
        sql: include_str!("../migrations/0004.sql"),
        then: |_, _| Ok(()),
    },
    Migration {
        sql: include_str!("../migrations/0005.sql"),
        then: |_, _| Ok(()),
    },
    Migration {
        sql: include_str!("../migrations/0006.sql"),
        then: |_, _| Ok(()),
    },
    Migration {
        sql: include_str!("../migrations/0007.sql"),
        then: |_, _| Ok(()),
    },
    Migration {
        sql: include_str!("../migrations/0008.sql"),
        then: |_, _| Ok(()),
    },
    Migration {
        sql: include_str!("../migrations/0009.sql"),
        then: |_, _| Ok(()),
    },
    Migration {
        sql: include_str!("../migrations/0010.sql"),
        then: |_, _| Ok(()),
    },
    Migration {
        sql: include_str!("../migrations/0011.sql"),
        then: |_, _| Ok(()),
    },
];

/// The version that this program writes.
pub const VERSION: u32 = MIGRATIONS.len() as u32;

/// How long a process waits for another one's transaction.
const BUSY: Duration = Duration::from_secs(20);

/// How many pages of the log are written between two checkpoints.
pub(crate) const CHECKPOINT: u32 = 10_000;

/// The name of the file of the rows.
pub(crate) const FILE: &str = "ledger.db";

/// A connection with its settings. Writers sync at each commit; readers never write.
pub(crate) fn connect(directory: &Path, writer: bool) -> Result<Connection, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | if writer {
            OpenFlags::SQLITE_OPEN_CREATE
        } else {
            OpenFlags::empty()
        };
    set_up(
        Connection::open_with_flags(directory.join(FILE), flags)?,
        writer,
    )
}

/// The connection that writes. Its commits are made durable by [`crate::durable`], and by nobody
/// else.
pub(crate) fn connect_deferred(directory: &Path) -> Result<Connection, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path = directory.join(FILE);
    let sql = if vfs::is_registered() {
        Connection::open_with_flags_and_vfs(path, flags, vfs::NAME)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    // Nothing is written before the commit.
    sql.pragma_update(None, "cache_spill", false)?;
    set_up(sql, true)
}

fn set_up(sql: Connection, writer: bool) -> Result<Connection, Trouble> {
    sql.busy_timeout(BUSY)?;
    // Without this a statement is prepared anew whenever a value in a range changes.
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    sql.pragma_update(None, "synchronous", "FULL")?;
    sql.pragma_update(None, "temp_store", "MEMORY")?;
    sql.pragma_update(None, "cache_size", if writer { -32_768 } else { -8_192 })?;
    if writer {
        sql.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
    } else {
        sql.pragma_update(None, "query_only", true)?;
    }
    Ok(sql)
}

/// Brings the file to [`VERSION`]. One process does this at a time.
pub(crate) fn migrate(directory: &Path) -> Result<(), Error> {
    const DOING: &str = "bring its file to this version";
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join("run").join("open.lock"))
        .map_err(|error| Error::file(DOING, error))?;
    lock.lock().map_err(|error| Error::file(DOING, error))?;
    (|| {
        let sql = Sql::from(connect(directory, true)?);
        let found = version(&sql)?;
        if found == 0 {
            is_new(&sql, directory)?;
        }
        sql.pragma_update(None, "journal_mode", "WAL")?;
        for (index, migration) in MIGRATIONS.iter().enumerate().skip(found as usize) {
            let change = Transaction::new_unchecked(&sql, TransactionBehavior::Immediate)?;
            change.execute_batch(migration.sql)?;
            (migration.then)(&sql, directory)?;
            change.pragma_update(None, "user_version", index as u32 + 1)?;
            change.commit()?;
        }
        Ok(())
    })()
    .map_err(|trouble: Trouble| trouble.during(DOING))
}

/// Fails where a newer Skep has brought the data to its version since it was opened.
pub(crate) fn verify_version(sql: &Sql) -> Result<(), Trouble> {
    match version(sql)? {
        VERSION => Ok(()),
        // It was brought to this version when it was opened.
        found => Err(Trouble::Row(format!("its version is {found} again"))),
    }
}

/// The version of the data, which this program knows.
fn version(sql: &Sql) -> Result<u32, Trouble> {
    let found: i64 = one(sql, "PRAGMA user_version", [], |row| get(row, 0))?.unwrap_or_default();
    match u32::try_from(found) {
        Ok(found) if found > VERSION => Err(Error::NewerVersion {
            found,
            known: VERSION,
        }
        .into()),
        Ok(found) => Ok(found),
        Err(_) => Err(Trouble::Row(format!(
            "its version is {found}, which no Skep has written"
        ))),
    }
}

/// That a file without a version is one that was just made: not one of another program, nor one that
/// has come into the place of a ledger.
fn is_new(sql: &Sql, directory: &Path) -> Result<(), Trouble> {
    if one(sql, "SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(()))?.is_some() {
        let what = "it has no version and is not empty: another program has written it";
        return Err(Trouble::Row(what.into()));
    }
    let left =
        opening::left(directory).map_err(|error| Error::file("look at its directory", error))?;
    left.map_or(Ok(()), |left| Err(Error::RowsLost { left }.into()))
}
