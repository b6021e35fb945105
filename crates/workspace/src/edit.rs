//! Writing into a workspace from the trusted side, before anything runs in it: files that are taken
//! along, and the content of a tree that is to be checked.
//!
//! One name at a time in held directories, no link followed, as everywhere in this crate.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use bstr::{BStr, ByteSlice};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use crate::dir::{Access, Dir};
use crate::error::{Error, io, std_io};
use crate::fold::{hide as hide_below, make_whiteout};
use crate::names::is_git_directory;
use crate::remove;
use crate::store::Layering;
use crate::workspace::Workspace;

/// Writes into one repository of a workspace.
#[derive(Debug)]
pub struct Edit {
    /// Where it is written.
    root: PathBuf,
    layering: Layering,
}

impl Workspace {
    /// Writes into its own repository.
    pub fn edit(&self) -> Edit {
        Edit {
            root: self.written(),
            layering: self.layering(),
        }
    }

    /// Writes into a further repository.
    ///
    /// # Errors
    /// [`Error::NoRepository`].
    pub fn edit_also(&self, name: &str) -> Result<Edit, Error> {
        Ok(Edit {
            root: self.written_also(name)?,
            layering: self.layering(),
        })
    }
}

impl Edit {
    /// Writes a file, with the directories above it, in place of whatever is there.
    ///
    /// # Errors
    /// [`Error::EditPath`] for a path that may not be written; [`Error::Io`].
    pub fn write(&self, path: &BStr, executable: bool, content: &[u8]) -> Result<(), Error> {
        let (parent, name) = self.cleared_place(path)?;
        let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = io("make", shown(path));
        let mut file = fs::openat(&parent, name.as_c_str(), flags, mode)
            .and_then(|file| fs::fchmod(&file, mode).map(|()| File::from(file)))
            .map_err(failed)?;
        file.write_all(content)
            .map_err(std_io("write", shown(path)))
    }

    /// Makes a symbolic link in place of whatever is there. The target is data.
    ///
    /// # Errors
    /// As [`Edit::write`].
    pub fn link(&self, path: &BStr, target: &BStr) -> Result<(), Error> {
        let (parent, name) = self.cleared_place(path)?;
        let target = OsStr::from_bytes(target);
        fs::symlinkat(target, &parent, name.as_c_str()).map_err(io("make the link", shown(path)))
    }

    /// Makes a directory, empty where it is new.
    ///
    /// # Errors
    /// As [`Edit::write`].
    pub fn directory(&self, path: &BStr) -> Result<(), Error> {
        self.enter(path).map(drop)
    }

    /// Removes what is at the path, with all below it. What is not there stays so.
    ///
    /// # Errors
    /// As [`Edit::write`].
    pub fn remove(&self, path: &BStr) -> Result<(), Error> {
        let Some((parent, name)) = self.existing_parent(path)? else {
            return Ok(());
        };
        discard(&parent, &name, path)?;
        if self.layering == Layering::Overlay {
            make_whiteout(&parent, &name).map_err(io("remove", shown(path)))?;
        }
        Ok(())
    }

    /// The directory that holds the path, with nothing at its last name.
    fn cleared_place(&self, path: &BStr) -> Result<(Dir, CString), Error> {
        let (above, name) = split(path)?;
        let parent = self.enter(above)?;
        discard(&parent, &name, path)?;
        Ok((parent, name))
    }

    /// Opens the directory at the path, making it and those above it; what is no directory on the
    /// way gives way.
    fn enter(&self, path: &BStr) -> Result<Dir, Error> {
        let root = &self.root;
        let mut dir = Dir::open(root).map_err(io("open", root))?;
        for name in components(path)? {
            dir = match dir.subdir(&name, Access::Write) {
                Ok(below) => below,
                Err(Errno::NOENT) => make(&dir, &name, false).map_err(io("make", shown(path)))?,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    discard(&dir, &name, path)?;
                    let hide = self.layering == Layering::Overlay;
                    make(&dir, &name, hide).map_err(io("make", shown(path)))?
                }
                Err(errno) => return Err(io("open", shown(path))(errno)),
            };
        }
        Ok(dir)
    }

    /// The directory in which the path's last name can be removed: none if something other than a
    /// directory stands above it, for then there is nothing to remove.
    fn existing_parent(&self, path: &BStr) -> Result<Option<(Dir, CString)>, Error> {
        let (above, name) = split(path)?;
        let root = &self.root;
        let mut dir = Dir::open(root).map_err(io("open", root))?;
        for part in components(above)? {
            dir = match dir.subdir(&part, Access::Write) {
                Ok(below) => below,
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(Errno::NOENT) if self.layering == Layering::Copy => return Ok(None),
                Err(Errno::NOENT) => make(&dir, &part, false).map_err(io("make", shown(path)))?,
                Err(errno) => return Err(io("open", shown(path))(errno)),
            };
        }
        Ok(Some((dir, name)))
    }
}

/// Makes a directory; `hide` hides what lower layers have at its place.
fn make(above: &Dir, name: &CString, hide: bool) -> Result<Dir, Errno> {
    let mode = Mode::from_raw_mode(0o755);
    fs::mkdirat(above, name.as_c_str(), mode)?;
    let dir = above.subdir(name, Access::Write)?;
    fs::fchmod(&dir, mode)?;
    if hide {
        hide_below(&dir)?;
    }
    Ok(dir)
}

/// Deletes what is at a name, if anything.
fn discard(above: &Dir, name: &CString, path: &BStr) -> Result<(), Error> {
    match above.look(name) {
        Ok(_) => remove::tree(above, name, &AtomicBool::new(false)),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(io("look at", shown(path))(errno)),
    }
}

fn split(path: &BStr) -> Result<(&BStr, CString), Error> {
    if path.starts_with(b"/") {
        return Err(Error::EditPath {
            path: path.to_owned(),
        });
    }
    let (above, name) = match path.rfind_byte(b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"".as_slice(), path.as_bytes()),
    };
    Ok((above.as_bstr(), component(path, name)?))
}

fn components(path: &BStr) -> Result<Vec<CString>, Error> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split(|&byte| byte == b'/')
        .map(|name| component(path, name))
        .collect()
}

fn component(path: &BStr, name: &[u8]) -> Result<CString, Error> {
    let refused = || Error::EditPath {
        path: path.to_owned(),
    };
    if name.is_empty() || name == b"." || name == b".." || is_git_directory(name) {
        return Err(refused());
    }
    CString::new(name).map_err(|_| refused())
}

fn shown(path: &BStr) -> &Path {
    Path::new(OsStr::from_bytes(path))
}
