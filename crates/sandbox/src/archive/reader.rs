//! Reading an archive that somebody else wrote.

use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::records::Records;
use super::tar::{self, BLOCK, Header};
use super::{Bounds, Entry, Error, Most, Other, Progress, What};

/// What is read at once.
const BUFFER: usize = 128 << 10;
/// Bytes of the records of one entry.
const MOST_RECORDS: u64 = 1 << 20;
/// Headers that are about the next entry.
const MOST_BEFORE: usize = 16;

/// An archive, entry by entry.
#[derive(Debug)]
pub struct Reader<R> {
    from: BufReader<R>,
    bounds: Bounds,
    progress: Progress,
    entries: u64,
    bytes: u64,
    /// Of the content that is being read, and what fills its last block.
    left: u64,
    filling: usize,
    over: bool,
}

/// Whether the contents of files are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    Follow,
    LeftOut,
}

/// An entry of a listing, which has no contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The entry.
    pub entry: Entry,
    /// The number of its inode.
    pub inode: u64,
    /// Its kind and permissions, as the kernel has them.
    pub mode: u32,
    /// Its size, whatever it is.
    pub size: u64,
    /// When it was modified: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// When anything of it was changed; no owner can set that.
    pub changed: (i64, u32),
    /// When it was made, where its file system keeps that.
    pub born: Option<(i64, u32)>,
}

impl<R: Read> Reader<R> {
    /// Reads from the beginning.
    pub fn new(from: R, bounds: Bounds) -> Self {
        Self {
            from: BufReader::with_capacity(BUFFER, from),
            bounds,
            progress: Progress::default(),
            entries: 0,
            bytes: 0,
            left: 0,
            filling: 0,
            over: false,
        }
    }

    /// Says there how far it has come.
    #[must_use]
    pub fn watched(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// The next entry; nothing at the end. What is left of the content of the one before is passed over.
    ///
    /// # Errors
    /// Where it is damaged, has what is not carried, passes a bound, or stops before its end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let Some((entry, _)) = self.next_header(Contents::Follow)? else {
            return Ok(None);
        };
        if let What::File { len, .. } = entry.what {
            self.left = len;
            self.filling = tar::filling(len);
        }
        Ok(Some(entry))
    }

    /// The next entry of a listing; nothing at the end.
    ///
    /// # Errors
    /// As [`Reader::next_entry`].
    pub fn next_listed(&mut self) -> Result<Option<Listed>, Error> {
        let Some((entry, block)) = self.next_header(Contents::LeftOut)? else {
            return Ok(None);
        };
        let identity = tar::identity(&block).map_err(|_| Error::Malformed {
            what: "a listing has no identities",
        })?;
        Ok(Some(Listed {
            entry,
            inode: identity.number,
            mode: identity.mode,
            size: identity.size,
            modified: identity.modified,
            changed: identity.changed,
            born: Some(identity.born).filter(|born| *born != (0, 0)),
        }))
    }

    fn next_header(&mut self, contents: Contents) -> Result<Option<(Entry, [u8; BLOCK])>, Error> {
        self.pass_over()?;
        if self.over {
            return Ok(None);
        }
        let mut about = Records::default();
        for _ in 0..MOST_BEFORE {
            let mut block = [0; BLOCK];
            self.from.read_exact(&mut block).map_err(Error::stream)?;
            let damaged = |_| Error::Malformed {
                what: "a header makes no sense",
            };
            let Some(header) = Header::read(&block).map_err(damaged)? else {
                self.over = true;
                return Ok(None);
            };
            match header.kind {
                tar::LONG_NAME => about.path = Some(self.long(header.size)?),
                tar::LONG_TARGET => about.target = Some(self.long(header.size)?),
                tar::RECORDS => {
                    let bytes = self.whole(header.size, MOST_RECORDS)?;
                    let records = Records::read(&bytes)?;
                    about.path = records.path.or(about.path);
                    about.target = records.target.or(about.target);
                    about.size = records.size.or(about.size);
                    about.sparse |= records.sparse;
                }
                tar::GLOBAL_RECORDS => drop(self.whole(header.size, MOST_RECORDS)?),
                _ => {
                    let entry = self.entry(&header, about, contents)?;
                    return Ok(Some((entry, block)));
                }
            }
        }
        Err(Error::Malformed {
            what: "too many headers are about one entry",
        })
    }

    /// A text with a zero byte behind it.
    fn long(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let most = u64::try_from(self.bounds.path_bytes).unwrap_or(u64::MAX);
        let mut text = self.whole(size, most.saturating_add(1))?;
        while text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    /// All of a content.
    fn whole(&mut self, size: u64, most: u64) -> Result<Vec<u8>, Error> {
        if size > most {
            return Err(Error::TooMuch {
                path: PathBuf::new(),
                limit: Most::PathBytes,
                allowed: most,
            });
        }
        let mut bytes = Vec::new();
        let mut part = (&mut self.from).take(size);
        part.read_to_end(&mut bytes).map_err(Error::stream)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) < size {
            return Err(Error::Ended);
        }
        self.filling = tar::filling(size);
        self.pass_over()?;
        Ok(bytes)
    }

    /// Reads what is left of a content.
    fn pass_over(&mut self) -> Result<(), Error> {
        let filling = u64::try_from(self.filling).unwrap_or(u64::MAX);
        let left = self.left.saturating_add(filling);
        let mut rest = (&mut self.from).take(left);
        let passed = std::io::copy(&mut rest, &mut std::io::sink()).map_err(Error::stream)?;
        (self.left, self.filling) = (0, 0);
        match passed < left {
            true => Err(Error::Ended),
            false => Ok(()),
        }
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        about: Records,
        contents: Contents,
    ) -> Result<Entry, Error> {
        let raw = about
            .path
            .unwrap_or_else(|| match (header.prefix, contents) {
                // Listings have identities there, and part no names.
                (b"", _) | (_, Contents::LeftOut) => header.name.to_vec(),
                (prefix, Contents::Follow) => [prefix, b"/", header.name].concat(),
            });
        let path = self.path(&raw)?;
        if contents == Contents::LeftOut {
            // All of it is kept by whoever reads a listing.
            self.add(&path, u64::try_from(raw.len()).unwrap_or(u64::MAX))?;
        }
        let target = about.target.unwrap_or_else(|| header.target.to_vec());
        let size = about.size.unwrap_or(header.size);
        if about.sparse {
            return Err(refused(path, "a file with holes that are left out"));
        }
        let what = match header.kind {
            tar::DIRECTORY => What::Directory,
            // Some write directories as files whose name ends with a slash.
            tar::FILE if raw.last() == Some(&b'/') => What::Directory,
            tar::FILE | tar::CONTIGUOUS => {
                if contents == Contents::Follow {
                    self.exceeds(&path, Most::FileBytes, size, self.bounds.file_bytes)?;
                    self.add(&path, size)?;
                }
                What::File {
                    executable: header.mode & 0o100 != 0,
                    len: size,
                }
            }
            tar::LINK => What::Link {
                target: self.target(&path, target)?,
            },
            tar::CHARACTER_DEVICE | tar::BLOCK_DEVICE => What::Other(Other::Device),
            tar::PIPE => What::Other(Other::Pipe),
            tar::SOCKET => What::Other(Other::Socket),
            tar::HARD_LINK => return Err(refused(path, "a hard link")),
            _ => return Err(refused(path, "of a kind that nobody knows")),
        };
        if path.as_os_str().is_empty() && what != What::Directory {
            return Err(Error::Malformed {
                what: "an entry has no name",
            });
        }
        if !matches!(what, What::File { .. }) && size > 0 {
            return Err(Error::Malformed {
                what: "an entry has a content and is no file",
            });
        }
        self.entries = self.entries.saturating_add(1);
        self.exceeds(&path, Most::Entries, self.entries, self.bounds.entries)?;
        if !matches!(what, What::Other(_)) {
            self.progress.add(1, 0);
        }
        Ok(Entry { path, what })
    }

    /// A path of ordinary names.
    fn path(&self, raw: &[u8]) -> Result<PathBuf, Error> {
        let shown = || PathBuf::from(OsString::from_vec(raw.to_vec()));
        if raw.starts_with(b"/") || raw.contains(&0) {
            return Err(Error::Elsewhere { path: shown() });
        }
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let most = number(self.bounds.path_bytes);
        self.exceeds(Path::new(""), Most::PathBytes, number(raw.len()), most)?;
        let mut path = PathBuf::new();
        let mut depth = 0_usize;
        for name in raw.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return Err(Error::Elsewhere { path: shown() }),
                name => {
                    depth = depth.saturating_add(1);
                    path.push(OsString::from_vec(name.to_vec()));
                }
            }
        }
        let deepest = number(self.bounds.depth);
        self.exceeds(&path, Most::Depth, number(depth), deepest)?;
        Ok(path)
    }

    fn target(&mut self, path: &Path, target: Vec<u8>) -> Result<PathBuf, Error> {
        if target.is_empty() || target.contains(&0) {
            return Err(Error::Malformed {
                what: "a link leads nowhere",
            });
        }
        let length = u64::try_from(target.len()).unwrap_or(u64::MAX);
        let most = u64::try_from(self.bounds.path_bytes).unwrap_or(u64::MAX);
        self.exceeds(path, Most::PathBytes, length, most)?;
        self.add(path, length)?;
        Ok(OsString::from_vec(target).into())
    }

    fn add(&mut self, path: &Path, bytes: u64) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.exceeds(path, Most::TotalBytes, self.bytes, self.bounds.total_bytes)
    }

    fn exceeds(&self, path: &Path, limit: Most, value: u64, allowed: u64) -> Result<(), Error> {
        match value > allowed {
            true => Err(Error::TooMuch {
                path: path.to_owned(),
                limit,
                allowed,
            }),
            false => Ok(()),
        }
    }
}

fn refused(path: PathBuf, what: &'static str) -> Error {
    Error::Kind { path, what }
}

/// The content of the entry that was handed out last, to its end.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        if room.is_empty() {
            return Ok(0);
        }
        let count = self.from.read(room)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = u64::try_from(count).unwrap_or(u64::MAX);
        self.left = self.left.saturating_sub(bytes);
        self.progress.add(0, bytes);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, name: &[u8], target: &[u8]) -> Vec<u8> {
        let header = Header {
            kind,
            mode: 0o644,
            size: 0,
            prefix: b"",
            name,
            target,
        };
        header.write().to_vec()
    }

    fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
        [&entries.concat()[..], &[0; 2 * BLOCK]].concat()
    }

    #[test]
    fn a_pipe_beside_a_file_is_not_counted_as_copied() {
        let progress = Progress::default();
        let bytes = archive(&[
            header(tar::PIPE, b"pipe", b""),
            header(tar::FILE, b"file", b""),
        ]);
        let reader = Reader::new(bytes.as_slice(), Bounds::default());
        let mut reader = reader.watched(progress.clone());
        while reader.next_entry().unwrap().is_some() {}
        assert_eq!(progress.entries(), 1);
    }

    #[test]
    fn a_listing_is_bounded_by_the_bytes_of_its_paths_and_targets() {
        let bytes = archive(&[
            header(tar::FILE, b"four", b""),
            header(tar::LINK, b"to", b"two"),
        ]);
        let listed = |total_bytes| {
            let bounds = Bounds {
                total_bytes,
                ..Bounds::default()
            };
            let mut reader = Reader::new(bytes.as_slice(), bounds);
            while reader.next_listed()?.is_some() {}
            Ok::<_, Error>(())
        };
        listed(9).unwrap();
        for less in [8, 3] {
            let Err(Error::TooMuch { limit, allowed, .. }) = listed(less) else {
                panic!("{less} are too few");
            };
            assert_eq!((limit, allowed), (Most::TotalBytes, less));
        }
    }
}
