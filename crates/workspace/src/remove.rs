//! Deletion of trees that nobody can be trusted to have left in order.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::{BString, ByteSlice};
use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use crate::change::{as_u64, moved};
use crate::descent::{Descent, Trail};
use crate::dir::{Access, Dir, Listing};
use crate::error::{Error, io};
use crate::tree::as_path;

/// What [`crate::Store::empty_trash`] did.
#[derive(Debug, Default)]
pub struct Emptied {
    /// Workspaces and bases that are gone.
    pub removed: u64,
    /// Those that could not be deleted, by their name in the trash, and why.
    pub failed: Vec<(String, Error)>,
}

/// Names of subdirectories kept at once; the directory is read again for more.
const BATCH: usize = 1_024;
/// How often one directory is read again before it counts as being filled.
const PASSES: u32 = 1_000_000;
/// How often a tree is begun again when names came in, or its directories were moved, meanwhile.
const AGAIN: usize = 3;

/// Deletes all that is in the trash; `progress` is told how many are done, of how many.
pub(crate) fn empty(
    trash: &Path,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Emptied, Error> {
    let mut emptied = Emptied::default();
    let root = Dir::open(trash).map_err(io("open", trash))?;
    let mut names = Vec::new();
    root.list(|name, _| {
        names.push(name.to_owned());
        Ok::<_, Errno>(Listing::Continue)
    })
    .map_err(io("list", trash))?;
    let total = as_u64(names.len());
    for (done, name) in (0..).zip(names) {
        progress(done, total);
        let mut deleted = tree(&root, &name, stop);
        for _ in 0..AGAIN {
            if matches!(deleted, Err(Error::Filling { .. } | Error::Changed { .. })) {
                deleted = tree(&root, &name, stop);
            }
        }
        match deleted {
            Ok(()) => emptied.removed += 1,
            Err(Error::Stopped) => return Err(Error::Stopped),
            Err(error) => {
                tracing::warn!(name = ?name, %error, "something in the trash could not be deleted");
                emptied
                    .failed
                    .push((name.to_string_lossy().into_owned(), error));
            }
        }
    }
    Ok(emptied)
}

struct Level {
    name: CString,
    below: Vec<CString>,
    passes: u32,
}

impl Level {
    fn of(name: &CStr) -> Level {
        Level {
            name: name.to_owned(),
            below: Vec::new(),
            passes: 0,
        }
    }
}

/// Deletes one name of `root`, and all below it if it is a directory.
pub(crate) fn tree(root: &Dir, name: &CStr, stop: &AtomicBool) -> Result<(), Error> {
    let mut trail = Trail::default();
    trail.push(name.to_bytes());
    let Some(top) = enter(root, name).map_err(io("open", as_path(trail.here())))? else {
        return Ok(());
    };
    let mut descent = Descent::new(top, Level::of(name));
    while let Some((dir, level)) = descent.top() {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        if let Some(next) = level.below.pop() {
            trail.push(next.to_bytes());
            match enter(dir, &next).map_err(io("open", as_path(trail.here())))? {
                Some(child) => descent.push(child, Level::of(&next)),
                None => trail.pop(),
            }
            continue;
        }
        level.passes += 1;
        if level.passes > PASSES {
            return Err(Error::Filling {
                path: trail.here().clone(),
            });
        }
        match clear(dir, &mut level.below, stop) {
            // Where it is gone, somebody else deleted it.
            Ok(()) | Err(Clear::System(Errno::NOENT, _)) => {}
            Err(Clear::Stopped) => return Err(Error::Stopped),
            Err(Clear::System(errno, name)) => {
                return Err(io("delete", as_path(&trail.join(&name)))(errno));
            }
        }
        if !level.below.is_empty() {
            continue;
        }
        let path = trail.here().clone();
        let left = descent.pop().map_err(moved("leave", &path))?;
        trail.pop();
        let Some(left) = left else { break };
        let (above, last) = match descent.top() {
            Some((dir, _)) => (dir, false),
            None => (root, true),
        };
        match fs::unlinkat(above, &left.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if last => return Err(Error::Filling { path }),
            // Something came in since: the directory above is read again and finds it.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) if !last => {}
            Err(errno) => return Err(io("delete", as_path(&path))(errno)),
        }
    }
    Ok(())
}

/// Opens a directory to delete what is in it; what is not a directory is deleted here. `None` if
/// nothing is left to do.
fn enter(above: &Dir, name: &CStr) -> Result<Option<Dir>, Errno> {
    match above.subdir(name, Access::Write) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => match fs::unlinkat(above, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

enum Clear {
    Stopped,
    System(Errno, BString),
}

impl From<Errno> for Clear {
    fn from(errno: Errno) -> Self {
        Clear::System(errno, BString::default())
    }
}

/// Deletes what is not a directory, and notes the first directories.
fn clear(dir: &Dir, below: &mut Vec<CString>, stop: &AtomicBool) -> Result<(), Clear> {
    dir.list(|name, kind| {
        if stop.load(Ordering::Relaxed) {
            return Err(Clear::Stopped);
        }
        if kind == FileType::Directory {
            below.push(name.to_owned());
        } else {
            match fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => below.push(name.to_owned()),
                Err(errno) => {
                    return Err(Clear::System(errno, name.to_bytes().as_bstr().to_owned()));
                }
            }
        }
        Ok(if below.len() < BATCH {
            Listing::Continue
        } else {
            Listing::Stop
        })
    })
}
