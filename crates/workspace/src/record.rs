//! The small files that say what a directory of the store is.

use std::path::{Path, PathBuf};

use crate::error::{Error, std_io};
use crate::names::is_plain;
use crate::store::Layering;

/// What a workspace is: a kind, and the base it lies over. Lines of `word value`; a word that is not
/// known is an error, so that an older program never misreads a newer stack of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Layering,
    pub(crate) base: String,
    /// How many layers of its own lie frozen between the base and what is written.
    pub(crate) layers: u32,
}

/// The name of the record in a workspace's directory.
const NAME: &str = "record";
/// Larger than any record.
const LARGEST: u64 = 64 * 1024;

impl Record {
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let kind = match self.kind {
            Layering::Overlay => "overlay",
            Layering::Copy => "copy",
        };
        write(
            &dir.join(NAME),
            &format!(
                "workspace {kind}\nbase {}\nlayers {}\n",
                self.base, self.layers
            ),
        )
    }

    pub(crate) fn read(dir: &Path) -> Result<Record, Error> {
        let path = dir.join(NAME);
        Record::parse(&read(&path)?).ok_or(Error::Record { path })
    }

    fn parse(text: &str) -> Option<Record> {
        let mut lines = text.lines();
        let kind = match lines.next()? {
            "workspace overlay" => Layering::Overlay,
            "workspace copy" => Layering::Copy,
            _ => return None,
        };
        let base = lines.next()?.strip_prefix("base ")?;
        let layers = lines.next()?.strip_prefix("layers ")?.parse().ok()?;
        (is_plain(base) && lines.next().is_none()).then(|| Record {
            kind,
            base: base.to_owned(),
            layers,
        })
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let length = std::fs::metadata(path).map_err(std_io("read", path))?.len();
    if length > LARGEST {
        return Err(damaged(path));
    }
    std::fs::read_to_string(path).map_err(std_io("read", path))
}

/// A number in a file of its own, if the file is there.
pub(crate) fn read_number(path: &Path) -> Result<Option<u64>, Error> {
    match read(path) {
        // A size that was cut short by a crash is measured again.
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(std_io("write", path))
}

fn damaged(path: &Path) -> Error {
    Error::Record {
        path: PathBuf::from(path),
    }
}
