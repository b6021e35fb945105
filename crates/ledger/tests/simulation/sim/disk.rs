//! What is left on the disk when everything ends at once: the files as they are, and a
//! write-ahead log whose end was not written.

use super::random::Random;
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

/// The header of a write-ahead log, and that of each page in it, in bytes.
const HEADER: u64 = 32;
const FRAME: u64 = 24;

/// How far a write-ahead log is written: <https://www.sqlite.org/fileformat2.html#walformat>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Another number each time the log begins anew.
    salt: [u8; 8],
    /// Where the last commit ends.
    pub(crate) end: u64,
}

/// How far the log beside this ledger is written; none where there is none.
pub(crate) fn written(directory: &Path) -> Option<Written> {
    let mut file = File::open(directory.join("ledger.db-wal")).ok()?;
    let mut header = [0u8; HEADER as usize];
    file.read_exact(&mut header).ok()?;
    let page = u64::from(u32::from_be_bytes(header[8..12].try_into().unwrap()));
    let salt: [u8; 8] = header[16..24].try_into().unwrap();
    let (mut at, mut end) = (HEADER, HEADER);
    let mut frame = [0u8; FRAME as usize];
    while file.seek(SeekFrom::Start(at)).is_ok() && file.read_exact(&mut frame).is_ok() {
        if frame[8..16] != salt {
            break;
        }
        at += FRAME + page;
        // A page that ends a transaction says how long the file is after it.
        if frame[4..8] != [0; 4] {
            end = at;
        }
    }
    Some(Written { salt, end })
}

/// Copies a ledger's directory as a crash leaves it. Nobody writes meanwhile.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Cuts the log in what was written after `before` and up to `after`; says whether there was
/// anything. What comes behind the cut is gone, or is not what was written.
pub(crate) fn tear(
    directory: &Path,
    before: Option<Written>,
    after: Option<Written>,
    random: &mut Random,
) -> bool {
    let Some(after) = after else { return false };
    let start = match before {
        Some(before) if before.salt == after.salt => before.end,
        // The log began anew, which happens once the old one is in the database.
        _ => return false,
    };
    if after.end <= start {
        return false;
    }
    let cut = start + random.below(after.end - start);
    let file = File::options()
        .write(true)
        .open(directory.join("ledger.db-wal"))
        .unwrap();
    file.set_len(cut).unwrap();
    if random.chance(500) {
        let mut rest = vec![0u8; usize::try_from(after.end - cut).unwrap()];
        if random.chance(500) {
            rest.iter_mut()
                .for_each(|byte| *byte = random.bits().to_le_bytes()[0]);
        }
        let mut file = file;
        file.seek(SeekFrom::Start(cut)).unwrap();
        file.write_all(&rest).unwrap();
    }
    true
}

/// The database, to look at what no verb tells.
pub(crate) fn open(directory: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.join("ledger.db")).unwrap()
}
