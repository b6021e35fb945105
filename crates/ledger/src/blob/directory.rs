//! The files of blobs: compressed, `ab/abcd…`, each written once and moved into its place.

use super::{BlobReader, MAX_BYTES, MAX_STREAM};
use crate::{error::Error, options::Ids};
use domain::BlobId;
use sha2::{Digest, Sha256};
use std::{
    fs::{File, FileTimes},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A level that keeps up with the disk.
const LEVEL: i32 = 3;
/// A file that was being written this long ago has no writer any more.
const ABANDONED: Duration = Duration::from_secs(24 * 3_600);
/// How much of a stream is held at once.
const PIECE: usize = 64 << 10;
/// Where blobs are written.
const WRITING: &str = "writing";
/// Where a blob is put aside before it is removed.
const REMOVING: &str = "removing";

/// The directory of blobs.
pub(crate) struct Directory {
    top: PathBuf,
    ids: Arc<dyn Ids>,
}

impl Directory {
    pub(crate) fn open(top: PathBuf, ids: Arc<dyn Ids>) -> Result<Self, Error> {
        let writing = top.join(WRITING);
        make_directory(&writing)
            .and_then(|()| make_directory(&top.join(REMOVING)))
            .and_then(|()| remove_abandoned(&writing))
            .map_err(|error| Error::file("make the directory of blobs", error))?;
        Ok(Self { top, ids })
    }

    pub(crate) fn top(&self) -> &Path {
        &self.top
    }

    /// Where a blob is put aside before it is removed.
    pub(crate) fn removing(&self) -> PathBuf {
        self.top.join(REMOVING)
    }

    pub(crate) fn path(&self, id: BlobId) -> PathBuf {
        path(&self.top, id)
    }

    /// How long the file of a blob is; none where there is none.
    pub(crate) fn stored(&self, id: BlobId) -> io::Result<Option<u64>> {
        stored(&self.top, id)
    }

    pub(crate) fn write(&self, content: &[u8]) -> Result<BlobId, Error> {
        let id = BlobId::from_sha256(Sha256::digest(content).into());
        // One that is there is only believed when it can be read; a damaged one is replaced.
        let believed = matches!(self.read(id, MAX_BYTES), Ok(Some(_)));
        let kept = believed && self.touch(id).map_err(doing("store a blob"))?;
        if kept {
            return sync_shelf(&self.path(id))
                .map(|()| id)
                .map_err(doing("store a blob"));
        }
        self.write_from(content)
    }

    pub(crate) fn write_from(&self, mut content: impl Read) -> Result<BlobId, Error> {
        const DOING: &str = "store a blob";
        let name = format!("{:016x}", self.ids.bits());
        let unfinished = self.top.join(WRITING).join(name);
        let outcome = write_file(&unfinished, &mut content).and_then(|(id, bytes)| {
            if bytes > MAX_STREAM {
                return Err(Error::BlobTooLong {
                    bytes,
                    max: MAX_STREAM,
                });
            }
            place(&self.top, &unfinished, id)
                .map(|()| id)
                .map_err(doing(DOING))
        });
        if outcome.is_err()
            && let Err(error) = std::fs::remove_file(&unfinished)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(%error, "an unfinished blob stays until the ledger is opened");
        }
        outcome
    }

    /// Makes a blob as young as a new one. False where it was removed meanwhile.
    ///
    /// Whoever removes one looks at its time once it is out of its place, so one that is still in
    /// its place after it was touched stays there.
    fn touch(&self, id: BlobId) -> io::Result<bool> {
        let path = self.path(id);
        let file = match File::options().write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
        let touched = file.metadata()?;
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            found => Ok(found?.ino() == touched.ino()),
        }
    }

    pub(crate) fn open_blob(&self, id: BlobId) -> Result<Option<BlobReader>, Error> {
        open_blob(&self.top, id).map_err(doing("read a blob"))
    }

    pub(crate) fn read(&self, id: BlobId, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(reader) = self.open_blob(id)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        let mut reader = reader.take(max);
        let damaged = |_| Error::BlobCorrupt { id };
        reader.read_to_end(&mut content).map_err(damaged)?;
        // The reader verifies at its end, so the end must be read too.
        let more = reader.into_inner().read(&mut [0]).map_err(damaged)?;
        if more > 0 {
            return Err(Error::BlobTooLong {
                bytes: max.saturating_add(1),
                max,
            });
        }
        Ok(Some(content))
    }
}

/// Where a blob's file is.
pub(crate) fn path(top: &Path, id: BlobId) -> PathBuf {
    let name = id.to_string();
    let (shelf, _) = name.split_at(2);
    top.join(shelf).join(&name)
}

/// How long the file of a blob is; none where there is none.
pub(crate) fn stored(top: &Path, id: BlobId) -> io::Result<Option<u64>> {
    match std::fs::metadata(path(top, id)) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A blob's content; none where there is no such file.
pub(crate) fn open_blob(top: &Path, id: BlobId) -> io::Result<Option<BlobReader>> {
    match File::open(path(top, id)) {
        Ok(file) => BlobReader::new(id, file).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the compressed content and syncs it; says its name and its length. It stops beyond
/// [`MAX_STREAM`].
fn write_file(file: &Path, content: &mut impl Read) -> Result<(BlobId, u64), Error> {
    const DOING: &str = "store a blob";
    (|| {
        let file = File::options().write(true).create_new(true).open(file)?;
        let mut encoder = zstd::Encoder::new(file, LEVEL)?;
        let mut digest = Sha256::new();
        let mut bytes = 0u64;
        let mut piece = vec![0; PIECE];
        loop {
            let read = match content.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            bytes += read as u64;
            let read = piece.get(..read).unwrap_or_default();
            if read.is_empty() || bytes > MAX_STREAM {
                break;
            }
            digest.update(read);
            encoder.write_all(read)?;
        }
        encoder.finish()?.sync_all()?;
        Ok((BlobId::from_sha256(digest.finalize().into()), bytes))
    })()
    .map_err(doing(DOING))
}

/// Moves a finished file into the place of its name, durably.
pub(crate) fn place(top: &Path, finished: &Path, id: BlobId) -> io::Result<()> {
    let path = path(top, id);
    make_shelf(top, &path)?;
    std::fs::rename(finished, &path)?;
    sync_shelf(&path)
}

/// Puts back what was put aside to be removed, unless it was stored anew meanwhile: what is in its
/// place is younger, and whoever stored it counts on that.
pub(crate) fn put_back(top: &Path, aside: &Path, id: BlobId) -> io::Result<()> {
    let path = path(top, id);
    make_shelf(top, &path)?;
    match std::fs::hard_link(aside, &path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        linked => {
            linked?;
            sync_shelf(&path)?;
        }
    }
    std::fs::remove_file(aside)
}

fn make_shelf(top: &Path, path: &Path) -> io::Result<()> {
    if let Some(shelf) = path.parent()
        && !shelf.is_dir()
    {
        make_directory(shelf)?;
        sync_directory(top)?;
    }
    Ok(())
}

fn sync_shelf(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

fn doing(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::file(doing, error)
}

pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove_abandoned(writing: &Path) -> io::Result<()> {
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
