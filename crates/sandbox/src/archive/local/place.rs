//! Putting what an archive holds on this machine, below the one place that was named.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{LeftOut, name_of};
use crate::archive::{Entry, Error, Reader, What};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Where an archive is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// As `cp -r` does: into the directory at the path, or else under that name.
    Named,
    /// Into the directory at the path, which is made where there is none.
    Inside,
}

/// What was put there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Put {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What was not carried.
    pub left_out: LeftOut,
}

/// Puts all that is still in an archive at a path, and nothing anywhere else. A file or a link is
/// replaced, a directory stays with what it has; no link is followed but in the path itself. Of modes
/// only that a file may be executed is kept.
///
/// # Errors
/// What cannot be written, and what an archive may not hold.
pub fn put<R: Read>(from: &mut Reader<R>, path: &Path, place: Where) -> Result<Put, Error> {
    let (root, name) = open(path, place)?;
    let mut target = Target { root, name };
    let mut put = Put::default();
    while let Some(entry) = from.next_entry()? {
        match &entry.what {
            What::Other(other) => {
                put.left_out.add(&entry.path, *other);
                continue;
            }
            What::File { len, .. } => put.bytes = put.bytes.saturating_add(*len),
            What::Directory | What::Link { .. } => {}
        }
        put.entries = put.entries.saturating_add(1);
        target.entry(&entry, from)?;
    }
    Ok(put)
}

/// The directory to write below, and the name that the first one of each path gives way to.
fn open(path: &Path, place: Where) -> Result<(OwnedFd, Option<OsString>), Error> {
    let failed = |doing| move |error: Errno| Error::local(doing, path)(error.into());
    let opened = rustix::fs::open(path, DIRECTORY, Mode::empty());
    match (opened, place) {
        (Ok(directory), _) => Ok((directory, None)),
        (Err(Errno::NOENT), Where::Inside) => {
            rustix::fs::mkdir(path, Mode::from_raw_mode(0o777)).map_err(failed("make"))?;
            let made = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(failed("open"))?;
            Ok((made, None))
        }
        (Err(Errno::NOENT | Errno::NOTDIR), Where::Named) if !ends_with_slash(path) => {
            let Some(name) = name_of(path) else {
                return Err(failed("open")(Errno::NOTDIR));
            };
            let above = match path.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            let directory = rustix::fs::open(above, DIRECTORY, Mode::empty());
            let directory = directory.map_err(|error| Error::local("open", above)(error.into()))?;
            Ok((directory, Some(name.to_owned())))
        }
        (Err(error), _) => Err(failed("open")(error)),
    }
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

struct Target {
    root: OwnedFd,
    name: Option<OsString>,
}

impl Target {
    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        let path = self.renamed(&entry.path);
        let failed = |doing| {
            let path = path.clone();
            move |error: Errno| Error::local(doing, path)(error.into())
        };
        let Some(name) = path.file_name() else {
            // The directory that all is in.
            return Ok(());
        };
        let above = path.parent().unwrap_or(Path::new(""));
        let held = self.enter(above).map_err(failed("open the directory of"))?;
        let directory = held.as_ref().unwrap_or(&self.root).as_fd();
        match &entry.what {
            What::Directory => drop(enter(directory, name).map_err(failed("make"))?),
            What::File { executable, len } => {
                give_way(directory, name).map_err(failed("replace"))?;
                let mode = if *executable { 0o777 } else { 0o666 };
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(mode));
                let mut file = File::from(file.map_err(failed("make"))?);
                copy(content, &mut file, *len, &path)?;
            }
            What::Link { target } => {
                give_way(directory, name).map_err(failed("replace"))?;
                rustix::fs::symlinkat(target, directory, name).map_err(failed("make"))?;
            }
            What::Other(_) => {}
        }
        Ok(())
    }

    fn renamed(&self, path: &Path) -> PathBuf {
        let Some(name) = &self.name else {
            return path.to_owned();
        };
        let rest: PathBuf = path.components().skip(1).collect();
        match rest.as_os_str().is_empty() {
            true => name.into(),
            false => Path::new(name).join(rest),
        }
    }

    /// The directory at a path below the root; none if it is the root. Those that are not there are made.
    fn enter(&self, path: &Path) -> Result<Option<OwnedFd>, Errno> {
        let mut held: Option<OwnedFd> = None;
        for name in path.components() {
            let above = held.as_ref().unwrap_or(&self.root).as_fd();
            held = Some(enter(above, name.as_os_str())?);
        }
        Ok(held)
    }
}

fn enter(above: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let open = || rustix::fs::openat(above, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => open(),
        Err(error) => Err(error),
    }
}

/// Removes what has this name, so that nothing is written through it.
fn give_way(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
            Err(Errno::ISDIR)
        }
        Ok(_) => rustix::fs::unlinkat(directory, name, AtFlags::empty()),
    }
}

/// What cannot be read is told as such, and what cannot be written with its path.
fn copy(content: &mut dyn Read, file: &mut File, len: u64, path: &Path) -> Result<(), Error> {
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(128 << 10)];
    let mut left = len;
    while left > 0 {
        let count = match content.read(&mut buffer) {
            Ok(0) => return Err(Error::Ended),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::stream(error)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        std::io::Write::write_all(file, bytes).map_err(Error::local("write", path))?;
        left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok(())
}
