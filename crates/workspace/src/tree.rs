//! Sorted listings, and paths as the system wants them.

use std::ffi::{CStr, CString, OsStr};
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
pub(crate) fn listing(
    dir: &Dir,
    failed: impl FnOnce(Errno) -> Error,
) -> Result<Vec<Listed>, Error> {
    chosen(dir, failed, |_, _, _| Ok(true))
}

/// The names of a directory that `take` wants, in the order of [`listing`]. It is asked with each name
/// and how many there are already.
pub(crate) fn chosen<E: From<Error>>(
    dir: &Dir,
    failed: impl FnOnce(Errno) -> Error,
    mut take: impl FnMut(&CStr, FileType, usize) -> Result<bool, E>,
) -> Result<Vec<Listed>, E> {
    enum Stop<E> {
        System(Errno),
        Asked(E),
    }
    impl<E> From<Errno> for Stop<E> {
        fn from(errno: Errno) -> Self {
            Stop::System(errno)
        }
    }
    let mut names = Vec::new();
    let listed = dir.list(|name, kind| {
        if take(name, kind, names.len()).map_err(Stop::Asked)? {
            names.push(Listed {
                name: name.to_owned(),
                kind,
            });
        }
        Ok(Listing::Continue)
    });
    match listed {
        Ok(()) => {}
        Err(Stop::System(errno)) => return Err(failed(errno).into()),
        Err(Stop::Asked(error)) => return Err(error),
    }
    names.sort_unstable_by(|a, b| b.name.cmp(&a.name));
    Ok(names)
}

pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
