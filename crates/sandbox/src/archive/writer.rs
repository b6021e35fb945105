//! Writing an archive.

use std::io::{BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::tar::{self, BLOCK, Header};
use super::{Entry, Error, Other, Progress, What};

/// What is written at once.
const BUFFER: usize = 128 << 10;

/// An archive that is written, entry by entry. Dropped before [`Writer::finish`], it has no end, and
/// whoever reads it says so.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: BufWriter<W>,
    progress: Progress,
}

impl<W: Write> Writer<W> {
    /// Begins.
    pub fn new(to: W) -> Self {
        Self {
            to: BufWriter::with_capacity(BUFFER, to),
            progress: Progress::default(),
        }
    }

    /// Says there how far it has come.
    #[must_use]
    pub fn watched(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Writes an entry; of a file with so many bytes of `content`, which must have them.
    ///
    /// # Errors
    /// [`Error::Ended`] where nobody reads; others where the content cannot be read.
    pub fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        let path = &entry.path;
        let target = match &entry.what {
            What::Link { target } => target.as_os_str().as_bytes(),
            _ => b"",
        };
        let (kind, mode, size) = match entry.what {
            What::Directory => (tar::DIRECTORY, 0o755, 0),
            What::File { executable, len } => {
                (tar::FILE, if executable { 0o755 } else { 0o644 }, len)
            }
            What::Link { .. } => (tar::LINK, 0o777, 0),
            What::Other(Other::Device) => return Err(refused(path, "a device")),
            What::Other(Other::Pipe) => return Err(refused(path, "a named pipe")),
            What::Other(Other::Socket) => return Err(refused(path, "a socket")),
        };
        let name = match path.as_os_str().as_bytes() {
            b"" => b".",
            name => name,
        };
        self.long(tar::LONG_TARGET, target)?;
        self.long(tar::LONG_NAME, name)?;
        let header = Header {
            kind,
            mode,
            size,
            prefix: b"",
            name,
            target,
        };
        self.put(&header.write())?;
        self.progress.add(1, 0);
        self.content(path, size, content)
    }

    fn content(&mut self, path: &Path, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER))];
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let room = buffer.len().min(most);
            let room = buffer.get_mut(..room).unwrap_or_default();
            let count = match content.read(room) {
                Ok(0) => return Err(shorter(path)),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::local("read", path)(error)),
            };
            self.put(room.get(..count).unwrap_or_default())?;
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            left = left.saturating_sub(count);
            self.progress.add(0, count);
        }
        self.fill(tar::filling(size))
    }

    fn long(&mut self, kind: u8, text: &[u8]) -> Result<(), Error> {
        if text.len() <= tar::SHORT {
            return Ok(());
        }
        let size = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let size = size.saturating_add(1);
        let header = Header {
            kind,
            mode: 0o644,
            size,
            prefix: b"",
            name: b"././@LongLink",
            target: b"",
        };
        self.put(&header.write())?;
        self.put(text)?;
        self.fill(tar::filling(size).saturating_add(1))
    }

    fn fill(&mut self, bytes: usize) -> Result<(), Error> {
        self.put([0; BLOCK].get(..bytes).unwrap_or(&[0; BLOCK]))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.to.write_all(bytes).map_err(Error::stream)
    }

    /// Writes the end; gives back what it was written to.
    ///
    /// # Errors
    /// [`Error::Ended`] where nobody reads.
    pub fn finish(mut self) -> Result<W, Error> {
        self.put(&[0; 2 * BLOCK])?;
        self.to
            .into_inner()
            .map_err(|error| Error::stream(error.into_error()))
    }
}

fn refused(path: &Path, what: &'static str) -> Error {
    let path = path.to_owned();
    Error::Kind { path, what }
}

fn shorter(path: &Path) -> Error {
    let source = std::io::Error::other("it became shorter while it was read");
    Error::local("read", path)(source)
}
