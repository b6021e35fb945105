//! How the writing connection's log is written: all pages of a commit in one call to the kernel,
//! and synced by [`crate::durable`].
//!
//! SQLite writes each page of its log in two calls, which is most of what a commit costs besides
//! the sync. This stands between it and its own file system layer, for the log alone: what is
//! written one after the other is gathered, and goes to the file when SQLite syncs, which it does
//! once all of a commit is written and before anybody can see it (`synchronous=FULL`). That sync is
//! left to [`crate::durable`]. The others are done as they are asked for: that of the log's head
//! before its first page, and that of the log before it is copied into the database.
//!
//! The interface is <https://sqlite.org/vfs.html>.
#![expect(unsafe_code, reason = "SQLite takes a file system as C functions")]

use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_IOERR_WRITE, SQLITE_OK, SQLITE_OPEN_WAL, sqlite3_file,
    sqlite3_filename, sqlite3_initialize, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs,
    sqlite3_vfs_find, sqlite3_vfs_register,
};
use std::{
    cell::Cell,
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::OnceLock,
};

/// What it is called where a connection is opened.
pub(crate) const NAME: &CStr = c"skep";

/// The most bytes that are gathered.
const MOST: usize = 1 << 20;
/// The most that are written at once: the layer below takes less than 128 KiB.
const PART: usize = 1 << 16;

thread_local! {
    /// Counts the transactions of this thread.
    static TRANSACTION: Cell<u64> = const { Cell::new(0) };
}

/// A transaction begins in this thread, on a connection that only this thread uses. What was
/// gathered in an earlier one belongs to no commit: it must never get into the file, where another
/// process may have written meanwhile.
pub(crate) fn begin() {
    TRANSACTION.set(TRANSACTION.get().wrapping_add(1));
}

/// Makes it known to SQLite. Says whether it can be used.
pub(crate) fn is_registered() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        // SAFETY: these functions have no conditions; what `sqlite3_vfs_find` gives lives as long
        // as the process, and so does what is registered, since nothing takes it back.
        unsafe {
            if sqlite3_initialize() != SQLITE_OK {
                return false;
            }
            let Some(below) = sqlite3_vfs_find(c"unix".as_ptr()).as_mut() else {
                return false;
            };
            let own = Box::leak(Box::new(sqlite3_vfs {
                szOsFile: BEFORE + below.szOsFile,
                zName: NAME.as_ptr(),
                pNext: ptr::null_mut(),
                xOpen: Some(open),
                ..*below
            }));
            sqlite3_vfs_register(own, 0) == SQLITE_OK
        }
    })
}

/// The log's file as SQLite holds it; the file of the layer below comes right after it. Both are
/// aligned as pointers are, which is what SQLite's room for a file is.
#[repr(C)]
struct Log {
    /// Where SQLite looks for the functions below.
    head: sqlite3_file,
    /// What is gathered and not yet in the file.
    gathered: *mut Gathered,
}

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// Where in the file they begin.
    at: i64,
    /// Whether the log's head is among what was written since the last sync.
    has_head: bool,
    /// The transaction that they are of.
    transaction: u64,
}

impl Gathered {
    fn end(&self) -> i64 {
        self.at
            .saturating_add(i64::try_from(self.bytes.len()).unwrap_or(i64::MAX))
    }

    fn forget(&mut self) {
        self.bytes.clear();
        self.has_head = false;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "some words"
)]
const BEFORE: c_int = size_of::<Log>() as c_int;

/// The functions of the log's file.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Calls a function of the layer below.
macro_rules! below {
    ($file:expr, $function:ident $(, $argument:expr)*) => {{
        let file = below_of($file);
        // SAFETY: `open` has opened this file, which set its functions; they are those of a
        // version of at least one, and all of it are there.
        unsafe {
            match (*file).pMethods.as_ref().and_then(|methods| methods.$function) {
                Some(function) => function(file $(, $argument)*),
                None => SQLITE_IOERR_WRITE,
            }
        }
    }};
}

/// The file of the layer below.
fn below_of(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite gives as much room as `szOsFile` says, which is both of them.
    unsafe { file.byte_add(size_of::<Log>()) }
}

/// What this transaction has gathered for a file that is open. Nothing else may be called with the
/// file while this is used.
fn gathered<'a>(file: *mut sqlite3_file) -> Option<&'a mut Gathered> {
    // SAFETY: only a file that `open` has set up has these functions, and a connection uses its
    // file in one thread at a time.
    let gathered = unsafe { (*file.cast::<Log>()).gathered.as_mut() }?;
    let transaction = TRANSACTION.get();
    if gathered.transaction != transaction {
        gathered.forget();
        gathered.transaction = transaction;
    }
    Some(gathered)
}

/// Writes what is gathered.
fn flush(file: *mut sqlite3_file) -> c_int {
    let Some(gathered) = gathered(file) else {
        return SQLITE_IOERR_WRITE;
    };
    let mut at = gathered.at;
    let mut outcome = SQLITE_OK;
    for part in gathered.bytes.chunks(PART) {
        // A part is shorter than that.
        let length = c_int::try_from(part.len()).unwrap_or(c_int::MAX);
        outcome = below!(file, xWrite, part.as_ptr().cast::<c_void>(), length, at);
        if outcome != SQLITE_OK {
            break;
        }
        at += i64::from(length);
    }
    // Where that failed the commit fails, and nobody looks for its pages.
    gathered.bytes.clear();
    outcome
}

/// Opens a file: the log as one of these, any other as the layer below does.
unsafe extern "C" fn open(
    _own: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    opened: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this as its interface says: `file` has room for both, and the layer
    // below is called as SQLite would call it.
    unsafe {
        let below = sqlite3_vfs_find(c"unix".as_ptr());
        let Some(below_open) = below.as_ref().and_then(|below| below.xOpen) else {
            return SQLITE_CANTOPEN;
        };
        if flags & SQLITE_OPEN_WAL == 0 {
            return below_open(below, name, file, flags, opened);
        }
        let log = file.cast::<Log>();
        log.write(Log {
            head: sqlite3_file {
                pMethods: ptr::null(),
            },
            gathered: ptr::null_mut(),
        });
        let outcome = below_open(below, name, below_of(file), flags, opened);
        if outcome == SQLITE_OK {
            (*log).gathered = Box::into_raw(Box::default());
            (*log).head.pMethods = &raw const METHODS;
        }
        outcome
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // What is still here belongs to no commit.
    let outcome = below!(file, xClose);
    // SAFETY: `open` made it, and SQLite uses a file no more that it has closed.
    unsafe {
        let log = file.cast::<Log>();
        let gathered = std::mem::replace(&mut (*log).gathered, ptr::null_mut());
        if !gathered.is_null() {
            drop(Box::from_raw(gathered));
        }
    }
    outcome
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    at: sqlite3_int64,
) -> c_int {
    let (Some(before), Ok(length)) = (gathered(file), usize::try_from(length)) else {
        return SQLITE_IOERR_WRITE;
    };
    if before.end() != at || before.bytes.len() + length > MOST {
        let outcome = flush(file);
        if outcome != SQLITE_OK {
            return outcome;
        }
    }
    let Some(gathered) = gathered(file) else {
        return SQLITE_IOERR_WRITE;
    };
    if gathered.bytes.is_empty() {
        gathered.at = at;
    }
    gathered.has_head |= at == 0;
    // SAFETY: SQLite gives as many bytes as it says.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
    gathered.bytes.extend_from_slice(bytes);
    SQLITE_OK
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let Some(gathered) = gathered(file) else {
        return SQLITE_IOERR_WRITE;
    };
    let is_commit = !gathered.bytes.is_empty() && !std::mem::take(&mut gathered.has_head);
    match flush(file) {
        SQLITE_OK if is_commit => SQLITE_OK,
        SQLITE_OK => below!(file, xSync, flags),
        failed => failed,
    }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    length: c_int,
    at: sqlite3_int64,
) -> c_int {
    let Some(gathered) = gathered(file) else {
        return SQLITE_IOERR_WRITE;
    };
    // A transaction that reads what it has just written wants it in the file.
    let is_apart = at.saturating_add(i64::from(length)) <= gathered.at || at >= gathered.end();
    if !is_apart {
        let outcome = flush(file);
        if outcome != SQLITE_OK {
            return outcome;
        }
    }
    below!(file, xRead, into, length, at)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    match flush(file) {
        SQLITE_OK => below!(file, xTruncate, size),
        failed => failed,
    }
}

unsafe extern "C" fn size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    match flush(file) {
        SQLITE_OK => below!(file, xFileSize, size),
        failed => failed,
    }
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    below!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    below!(file, xUnlock, level)
}

unsafe extern "C" fn is_reserved(file: *mut sqlite3_file, answer: *mut c_int) -> c_int {
    below!(file, xCheckReservedLock, answer)
}

unsafe extern "C" fn control(file: *mut sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    below!(file, xFileControl, what, argument)
}

unsafe extern "C" fn sector(file: *mut sqlite3_file) -> c_int {
    below!(file, xSectorSize)
}

unsafe extern "C" fn characteristics(file: *mut sqlite3_file) -> c_int {
    below!(file, xDeviceCharacteristics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::{Connection, OpenFlags};

    fn rows(sql: &Connection) -> Vec<(i64, Vec<u8>)> {
        let mut all = sql.prepare("SELECT n, body FROM t ORDER BY n").unwrap();
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn what_is_written_through_it_is_what_sqlite_writes_by_itself() {
        assert!(is_registered());
        let directory = tempfile::tempdir().unwrap();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let (own, plain) = (directory.path().join("own"), directory.path().join("plain"));
        let both = [
            Connection::open_with_flags_and_vfs(&own, flags, NAME).unwrap(),
            Connection::open_with_flags(&plain, flags).unwrap(),
        ];
        for sql in &both {
            sql.pragma_update(None, "journal_mode", "WAL").unwrap();
            // So small that pages are written in the middle of transactions and read again.
            sql.pragma_update(None, "cache_size", 10).unwrap();
            sql.pragma_update(None, "wal_autocheckpoint", 300).unwrap();
            sql.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)")
                .unwrap();
        }
        let reader = Connection::open(&own).unwrap();
        for round in 0..60i64 {
            for sql in &both {
                sql.execute_batch("BEGIN IMMEDIATE").unwrap();
                for row in 0..40 {
                    let size = (round * 977 + row * 131) % 9_000;
                    sql.execute("INSERT INTO t (body) VALUES (zeroblob(?1))", [size])
                        .unwrap();
                }
                sql.execute(
                    "UPDATE t SET body = zeroblob(7) WHERE n % 7 = ?1",
                    [round % 7],
                )
                .unwrap();
                sql.execute_batch("SAVEPOINT s").unwrap();
                sql.execute("DELETE FROM t WHERE n % 3 = 0", []).unwrap();
                sql.execute_batch("ROLLBACK TO s; RELEASE s").unwrap();
                let end = if round % 5 == 4 { "ROLLBACK" } else { "COMMIT" };
                sql.execute_batch(end).unwrap();
            }
            // Another connection sees each commit as soon as it is made.
            assert_eq!(rows(&reader), rows(&both[1]), "round {round}");
        }
        for sql in &both {
            let sound: String = sql
                .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                .unwrap();
            assert_eq!(sound, "ok");
        }
    }

    /// What a transaction that was undone had gathered must not come into the file later, over
    /// what another connection has written there.
    #[test]
    fn what_was_undone_is_never_written() {
        assert!(is_registered());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let own = Connection::open_with_flags_and_vfs(&path, flags, NAME).unwrap();
        own.pragma_update(None, "journal_mode", "WAL").unwrap();
        own.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)")
            .unwrap();
        // Pages are written in the middle of the transaction.
        own.pragma_update(None, "cache_size", 10).unwrap();
        let other = Connection::open(&path).unwrap();
        for round in 0..20 {
            own.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
                .unwrap();
            begin();
            own.execute_batch("BEGIN IMMEDIATE").unwrap();
            for _ in 0..50 + round {
                own.execute("INSERT INTO t (body) VALUES (zeroblob(3000))", [])
                    .unwrap();
            }
            own.execute_batch("ROLLBACK").unwrap();
            let before = rows(&other).len();
            other.execute_batch("BEGIN").unwrap();
            for _ in 0..30 {
                other
                    .execute("INSERT INTO t (body) VALUES (randomblob(2000))", [])
                    .unwrap();
            }
            other.execute_batch("COMMIT").unwrap();
            begin();
            let version: i64 = own
                .query_row("PRAGMA data_version", [], |row| row.get(0))
                .unwrap();
            assert!(version > 0);
            assert_eq!(rows(&own).len(), before + 30, "round {round}");
            let third = Connection::open(&path).unwrap();
            assert_eq!(rows(&third).len(), before + 30, "round {round}");
            let sound: String = third
                .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                .unwrap();
            assert_eq!(sound, "ok", "round {round}");
        }
    }
}
