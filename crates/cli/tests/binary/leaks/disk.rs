//! What a data directory takes on disk, and what of it is meant to stay.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What was recorded of requests.
const RECORDED: [&str; 4] = ["blobs", "ledger.db", "ledger.db-shm", "ledger.db-wal"];
/// What else is kept on purpose: the histories of repositories. Everything else in a data directory is
/// there for work that goes on.
const KEPT: [&str; 3] = ["layering", "repositories", "run/open.lock"];

/// What a data directory takes.
#[derive(Debug, Default)]
pub struct Disk {
    /// What was recorded, in bytes on the disk.
    pub recorded: u64,
    /// What else is kept on purpose, in bytes on the disk.
    pub kept: u64,
    /// The files, links and sockets besides, by their paths in the data directory.
    pub others: Vec<PathBuf>,
}

impl Disk {
    /// Looks at a data directory on which nobody works.
    pub fn of(data: &Path) -> Disk {
        let mut disk = Disk::default();
        let mut queue = vec![data.to_owned()];
        while let Some(dir) = queue.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let found = path.symlink_metadata().unwrap();
                let place = path.strip_prefix(data).unwrap().to_owned();
                let is_of = |places: &[&str]| places.iter().any(|it| place.starts_with(it));
                let (is_recorded, is_kept) = (is_of(&RECORDED), is_of(&KEPT));
                let bytes = found.blocks() * 512;
                if is_recorded {
                    disk.recorded += bytes;
                } else if is_kept {
                    disk.kept += bytes;
                }
                let is_file = !found.file_type().is_socket() && !found.file_type().is_fifo();
                if found.is_dir() {
                    queue.push(path);
                } else if !(is_file && (is_recorded || is_kept)) {
                    disk.others.push(place);
                }
            }
        }
        disk.others.sort();
        disk
    }
}
