//! Sorted listings, and paths as the system wants them.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::dir::{Dir, Listing};
use crate::error::Error;

/// One name of a directory and what the listing says it is, which is a hint.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: CString,
    pub(crate) kind: FileType,
}

/// All names of a directory, the last in the order of bytes first, so that `pop` gives the next one.
/// `bound` is asked with each count before the next name is kept.
pub(crate) fn listing(
    dir: &Dir,
    failed: impl FnOnce(Errno) -> Error,
    mut bound: impl FnMut(usize) -> Result<(), Error>,
) -> Result<Vec<Listed>, Error> {
    enum Stop {
        System(Errno),
        Bound(Error),
    }
    impl From<Errno> for Stop {
        fn from(errno: Errno) -> Self {
            Stop::System(errno)
        }
    }
    let mut names = Vec::new();
    let listed = dir.list(|name, kind| {
        bound(names.len() + 1).map_err(Stop::Bound)?;
        names.push(Listed {
            name: name.to_owned(),
            kind,
        });
        Ok(Listing::Continue)
    });
    match listed {
        Ok(()) => {}
        Err(Stop::System(errno)) => return Err(failed(errno)),
        Err(Stop::Bound(error)) => return Err(error),
    }
    names.sort_unstable_by(|a, b| b.name.cmp(&a.name));
    Ok(names)
}

pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
