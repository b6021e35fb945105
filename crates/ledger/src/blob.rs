//! Blobs: bulk content under the name of its digest, durable before anything refers to it.

use crate::{error::Error, ledger::Ledger, options::Ids};
use domain::BlobId;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The longest blob, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;
/// A level that keeps up with the disk.
const LEVEL: i32 = 3;
/// A file that was being written this long ago has no writer any more.
const ABANDONED: Duration = Duration::from_secs(24 * 3_600);

/// Where blobs are.
#[async_trait::async_trait]
pub(crate) trait Blobs: Send + Sync {
    /// Stores the content. When this returns it is durable.
    async fn put(self: Arc<Self>, content: Vec<u8>) -> Result<BlobId, Error>;
    /// The content, verified; none where there is no such blob.
    async fn get(self: Arc<Self>, id: BlobId, max: u64) -> Result<Option<Vec<u8>>, Error>;
}

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
        Arc::clone(self.blobs()).put(content).await
    }

    /// The content of a blob of at most `max` bytes, verified.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::BlobCorrupt`]; [`Error::BlobTooLong`]; [`Error::Storage`].
    pub async fn blob(&self, id: BlobId, max: u64) -> Result<Vec<u8>, Error> {
        Arc::clone(self.blobs())
            .get(id, max)
            .await?
            .ok_or_else(|| Error::missing("blob", id))
    }
}

/// Blobs as compressed files: `ab/abcd…`.
pub(crate) struct Directory {
    top: PathBuf,
    ids: Arc<dyn Ids>,
}

#[async_trait::async_trait]
impl Blobs for Directory {
    async fn put(self: Arc<Self>, content: Vec<u8>) -> Result<BlobId, Error> {
        tokio::task::spawn_blocking(move || self.write(&content))
            .await
            .map_err(|_| Error::Closed)?
    }

    async fn get(self: Arc<Self>, id: BlobId, max: u64) -> Result<Option<Vec<u8>>, Error> {
        tokio::task::spawn_blocking(move || self.read(id, max.min(MAX_BYTES)))
            .await
            .map_err(|_| Error::Closed)?
    }
}

impl Directory {
    pub(crate) fn open(top: PathBuf, ids: Arc<dyn Ids>) -> Result<Self, Error> {
        let writing = top.join("writing");
        make_directory(&writing)
            .and_then(|()| remove_abandoned(&writing))
            .map_err(|error| Error::file("make the directory of blobs", error))?;
        Ok(Self { top, ids })
    }

    fn path(&self, id: BlobId) -> (PathBuf, PathBuf) {
        let name = id.to_string();
        let (shelf, _) = name.split_at(2);
        let shelf = self.top.join(shelf);
        let path = shelf.join(&name);
        (shelf, path)
    }

    fn write(&self, content: &[u8]) -> Result<BlobId, Error> {
        const DOING: &str = "store a blob";
        let id = BlobId::from_sha256(Sha256::digest(content).into());
        let (shelf, path) = self.path(id);
        // One that is there is only believed when it can be read; a damaged one is replaced.
        if matches!(self.read(id, MAX_BYTES), Ok(Some(_))) {
            return sync_directory(&shelf)
                .map(|()| id)
                .map_err(|error| Error::file(DOING, error));
        }
        let unfinished = self
            .top
            .join("writing")
            .join(format!("{:016x}", self.ids.bits()));
        let outcome = (|| {
            if !shelf.is_dir() {
                make_directory(&shelf)?;
                sync_directory(&self.top)?;
            }
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .open(&unfinished)?;
            file.write_all(&zstd::bulk::compress(content, LEVEL)?)?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &path)?;
            sync_directory(&shelf)
        })();
        if let Err(error) = outcome {
            if let Err(error) = std::fs::remove_file(&unfinished)
                && error.kind() != ErrorKind::NotFound
            {
                tracing::debug!(%error, "an unfinished blob stays until the ledger is opened");
            }
            return Err(Error::file(DOING, error));
        }
        Ok(id)
    }

    fn read(&self, id: BlobId, max: u64) -> Result<Option<Vec<u8>>, Error> {
        const DOING: &str = "read a blob";
        let (_, path) = self.path(id);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(DOING, error)),
        };
        let corrupt = |_| Error::BlobCorrupt { id };
        let mut content = Vec::new();
        let decoder = zstd::Decoder::new(file).map_err(corrupt)?;
        decoder
            .take(max.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(corrupt)?;
        if content.len() as u64 > max {
            return Err(Error::BlobTooLong {
                bytes: content.len() as u64,
                max,
            });
        }
        let digest: [u8; 32] = Sha256::digest(&content).into();
        if digest != *id.as_bytes() {
            return Err(Error::BlobCorrupt { id });
        }
        Ok(Some(content))
    }
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove_abandoned(writing: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(writing)? {
        let entry = entry?;
        let old = entry
            .metadata()
            .and_then(|found| found.modified())
            .is_ok_and(|changed| {
                SystemTime::now()
                    .duration_since(changed)
                    .is_ok_and(|age| age > ABANDONED)
            });
        if old && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::debug!(%error, "an unfinished blob stays");
        }
    }
    Ok(())
}
