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
    /// The boot of the machine in which its files were written, where that is known: they are not
    /// synced, so that only within this boot they are sure to be whole.
    pub(crate) boot: Option<String>,
}

/// The name of this boot of the machine; none where the kernel does not tell it.
pub(crate) fn this_boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = text.trim();
    is_plain(boot).then(|| boot.to_owned())
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
        let mut text = format!(
            "workspace {kind}\nbase {}\nlayers {}\n",
            self.base, self.layers
        );
        if let Some(boot) = &self.boot {
            text.push_str(&format!("boot {boot}\n"));
        }
        write(&dir.join(NAME), &text)
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
        let boot = match lines.next() {
            Some(line) => Some(line.strip_prefix("boot ").filter(|boot| is_plain(boot))?),
            None => None,
        };
        (is_plain(base) && lines.next().is_none()).then(|| Record {
            kind,
            base: base.to_owned(),
            layers,
            boot: boot.map(str::to_owned),
        })
    }
}

/// The name of the record in a base's directory; only a base that lies over another has one.
const BASE_NAME: &str = "record";
const PARENT: &str = "base over ";

/// The key of the base that the base in `dir` lies over, if it lies over one.
pub(crate) fn parent(dir: &Path) -> Result<Option<String>, Error> {
    let path = dir.join(BASE_NAME);
    match read(&path) {
        Ok(text) => {
            let key = text
                .strip_prefix(PARENT)
                .and_then(|key| key.strip_suffix('\n'));
            match key.filter(|key| is_plain(key)) {
                Some(key) => Ok(Some(key.to_owned())),
                None => Err(Error::Record { path }),
            }
        }
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn write_parent(dir: &Path, key: &str) -> Result<(), Error> {
    write(&dir.join(BASE_NAME), &format!("{PARENT}{key}\n"))
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
