//! Blobs: bulk content under the name of its digest, durable before anything refers to it.
//!
//! A blob is a file. The rows that name it are counted in the transaction that records them, and
//! that transaction fails where the file is not there: nothing refers to what is not durable.

pub(crate) mod directory;
mod garbage;
mod reader;
pub(crate) mod references;

pub use garbage::Collected;
pub(crate) use garbage::{blob_id, removal_lock};
pub use reader::BlobReader;

use crate::{error::Error, ledger::Ledger};
use domain::BlobId;
use std::{io::Read, sync::Arc};

/// The longest blob that is held in memory, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;
/// The longest blob that is streamed, in bytes.
pub const MAX_STREAM: u64 = 16 << 30;

impl Ledger {
    /// Stores a blob. When this returns it is durable, and a verb may refer to it.
    ///
    /// # Errors
    /// [`Error::BlobTooLong`]; [`Error::Storage`].
    pub async fn put_blob(&self, content: impl Into<Vec<u8>>) -> Result<BlobId, Error> {
        let content = content.into();
        if content.len() as u64 > MAX_BYTES {
            return Err(Error::BlobTooLong {
                bytes: content.len() as u64,
                max: MAX_BYTES,
            });
        }
        let blobs = Arc::clone(self.blobs());
        blocking(move || blobs.write(&content)).await
    }

    /// Stores a blob of up to [`MAX_STREAM`] bytes as it is read, in little memory. When this
    /// returns it is durable, and a verb may refer to it.
    ///
    /// # Errors
    /// [`Error::BlobTooLong`]; [`Error::Storage`], also when the reading fails.
    pub async fn put_blob_from(
        &self,
        content: impl Read + Send + 'static,
    ) -> Result<BlobId, Error> {
        let blobs = Arc::clone(self.blobs());
        blocking(move || blobs.write_from(content)).await
    }

    /// The content of a blob of at most `max` bytes, verified.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::BlobCorrupt`]; [`Error::BlobTooLong`]; [`Error::Storage`].
    pub async fn blob(&self, id: BlobId, max: u64) -> Result<Vec<u8>, Error> {
        let blobs = Arc::clone(self.blobs());
        blocking(move || blobs.read(id, max.min(MAX_BYTES)))
            .await?
            .ok_or_else(|| Error::missing("blob", id))
    }

    /// The content of a blob, to be read a piece at a time where waiting for the disk is allowed.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Storage`]. That the content is not what was stored is known
    /// at its end, and is then an error of the reading.
    pub async fn blob_reader(&self, id: BlobId) -> Result<BlobReader, Error> {
        let blobs = Arc::clone(self.blobs());
        blocking(move || blobs.open_blob(id))
            .await?
            .ok_or_else(|| Error::missing("blob", id))
    }
}

/// Work that waits for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Closed)?
}
