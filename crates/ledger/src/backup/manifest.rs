//! What a backup says of itself: the file `manifest.json` in it, written last.

use domain::{BlobId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

/// The name of the file.
pub(super) const MANIFEST: &str = "manifest.json";
/// The way that backups are laid out.
pub(super) const FORMAT: u32 = 1;
/// The longest manifest that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// How much of a file is held at once.
const PIECE: usize = 256 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// The version of the rows.
    pub(super) version: u32,
    /// When it was made.
    pub(super) taken: Timestamp,
    pub(super) ledger: Content,
    pub(super) blobs: Blobs,
}

/// A file, exactly.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) bytes: u64,
    sha256: BlobId,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Blobs {
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// Named by rows, and lost before the backup was made.
    pub(super) missing: Vec<BlobId>,
}

impl Content {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece)?;
            let read = piece.get(..read).unwrap_or_default();
            if read.is_empty() {
                break;
            }
            digest.update(read);
            bytes += read.len() as u64;
        }
        Ok(Self {
            bytes,
            sha256: BlobId::from_sha256(digest.finalize().into()),
        })
    }
}

impl Manifest {
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let mut file = File::options().write(true).create_new(true).open(path)?;
        file.write_all(&text)?;
        file.sync_all()
    }

    /// Reads it; what is wrong with it is [`io::ErrorKind::InvalidData`].
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
        serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
