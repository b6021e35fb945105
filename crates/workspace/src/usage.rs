//! What a tree takes on disk.

use std::ffi::CString;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::descent::Descent;
use crate::dir::{Access, Dir, Listing, Meta};
use crate::error::{Error, io};

/// What files take on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes. A file with several names counts once, as long as all of them are in the tree.
    pub bytes: u64,
    /// Names of files, directories and whatever else there is; each takes an inode, but for further
    /// names of one file.
    pub files: u64,
}

impl Taken {
    /// Both together, at most what fits.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }
}

/// The bytes that a tree takes on disk.
pub(crate) fn bytes(root: &Path) -> Result<u64, Error> {
    taken(root).map(|taken| taken.bytes)
}

/// What a tree takes on disk, its root included. What vanishes while it is counted does not count;
/// what cannot be opened counts without its content.
pub(crate) fn taken(root: &Path) -> Result<Taken, Error> {
    measure(root).map_err(io("measure", root))
}

/// The bytes that a directory takes on disk with all below it, no link followed.
///
/// # Errors
/// [`Error::Io`].
pub fn disk_bytes(directory: &Path) -> Result<u64, Error> {
    bytes(directory)
}

fn measure(root: &Path) -> Result<Taken, Errno> {
    let root = Dir::open(root)?;
    let mut total = Taken {
        bytes: root.meta().allocated,
        files: 1,
    };
    let below = directories(&root, &mut total)?;
    let mut descent = Descent::new(root, below);
    while let Some((dir, below)) = descent.top() {
        match below.pop() {
            Some(name) => match dir.subdir(&name, Access::Read) {
                Ok(child) => {
                    let next = directories(&child, &mut total)?;
                    descent.push(child, next);
                }
                Err(
                    Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::LOOP
                    | Errno::XDEV
                    | Errno::ACCESS
                    | Errno::PERM,
                ) => {}
                Err(errno) => return Err(errno),
            },
            None => {
                descent.pop()?;
            }
        }
    }
    Ok(total)
}

/// Adds up what is in one directory; returns the names of the directories in it.
fn directories(dir: &Dir, total: &mut Taken) -> Result<Vec<CString>, Errno> {
    let mut below = Vec::new();
    dir.list(|name, _| {
        match dir.look(name) {
            Ok(meta) => {
                *total = total.and(Taken {
                    bytes: share(&meta),
                    files: 1,
                });
                if meta.kind() == FileType::Directory {
                    below.push(name.to_owned());
                }
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        Ok(Listing::Continue)
    })?;
    Ok(below)
}

/// One name's part of what its inode takes.
fn share(meta: &Meta) -> u64 {
    match meta.kind() {
        FileType::Directory => meta.allocated,
        _ => meta.allocated / meta.links.max(1),
    }
}
