//! Reading a blob a piece at a time.

use super::MAX_STREAM;
use domain::BlobId;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, BufReader, Read},
};

/// The content of a blob. Its end is only told when all of it was what was stored; else the last
/// reading fails with [`io::ErrorKind::InvalidData`].
pub struct BlobReader {
    id: BlobId,
    /// One byte more than is allowed, so that a longer one is noticed.
    decoder: io::Take<zstd::Decoder<'static, BufReader<File>>>,
    digest: Sha256,
    bytes: u64,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({})", self.id)
    }
}

impl BlobReader {
    pub(crate) fn new(id: BlobId, file: File) -> io::Result<Self> {
        Ok(Self {
            id,
            decoder: zstd::Decoder::new(file)?.take(MAX_STREAM + 1),
            digest: Sha256::new(),
            bytes: 0,
        })
    }

    /// Reads to the end and forgets it: says whether it is what was stored.
    pub(crate) fn verify(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink()).map(drop)
    }
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let damaged = |what: &str| {
            let text = format!("the blob {} is damaged: {what}", self.id);
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        if out.is_empty() {
            return Ok(0);
        }
        let read = self
            .decoder
            .read(out)
            .map_err(|error| damaged(&error.to_string()))?;
        self.bytes += read as u64;
        if self.bytes > MAX_STREAM {
            return Err(damaged("it is longer than any blob may be"));
        }
        if read == 0 {
            let found: [u8; 32] = self.digest.clone().finalize().into();
            if found != *self.id.as_bytes() {
                return Err(damaged("its content is not what was stored"));
            }
        }
        self.digest.update(out.get(..read).unwrap_or_default());
        Ok(read)
    }
}
