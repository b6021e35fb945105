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
pub enum Where<'a> {
    /// As `cp -r` does: into the directory at the path, or else under that name. It is what was asked for
    /// by this name: an archive that has anything else is refused.
    Named(&'a OsStr),
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
pub fn put<R: Read>(from: &mut Reader<R>, path: &Path, place: Where<'_>) -> Result<Put, Error> {
    let (root, name) = open(path, place)?;
    let mut target = Target { root, name };
    let mut put = Put::default();
    while let Some(entry) = from.next_entry()? {
        if let Where::Named(name) = place {
            entry.is_of(name)?;
        }
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
fn open(path: &Path, place: Where<'_>) -> Result<(OwnedFd, Option<OsString>), Error> {
    let failed = |doing| move |error: Errno| Error::local(doing, path)(error.into());
    let opened = rustix::fs::open(path, DIRECTORY, Mode::empty());
    match (opened, place) {
        (Ok(directory), _) => Ok((directory, None)),
        (Err(Errno::NOENT), Where::Inside) => {
            rustix::fs::mkdir(path, Mode::from_raw_mode(0o777)).map_err(failed("make"))?;
            let made = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(failed("open"))?;
            Ok((made, None))
        }
        (Err(Errno::NOENT | Errno::NOTDIR), Where::Named(_)) if !ends_with_slash(path) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Bounds, Writer};
    use std::fs;

    fn file(path: &str) -> Entry {
        let what = What::File {
            executable: false,
            len: 3,
        };
        Entry {
            path: path.into(),
            what,
        }
    }

    fn link(path: &str, target: &Path) -> Entry {
        let target = target.to_owned();
        Entry {
            path: path.into(),
            what: What::Link { target },
        }
    }

    /// Puts an archive of these entries, whose files hold `new`.
    fn put_all(entries: &[Entry], path: &Path, place: Where<'_>) -> Result<Put, Error> {
        let mut to = Writer::new(Vec::new());
        for entry in entries {
            to.entry(entry, &mut &b"new"[..]).unwrap();
        }
        let archive = to.finish().unwrap();
        let mut from = Reader::new(archive.as_slice(), Bounds::default());
        put(&mut from, path, place)
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let found = fs::read_dir(directory).unwrap();
        found.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn nothing_is_put_through_a_link_that_came_before_it() {
        let place = tempfile::tempdir().unwrap();
        let (target, to) = (place.path().join("target"), place.path().join("to"));
        fs::create_dir(&target).unwrap();
        fs::create_dir(&to).unwrap();
        let way = Where::Named(OsStr::new("way"));
        let entries = [link("way", &target), file("way/new")];
        // Into a directory that is there, under a new name, and of a directory's content.
        for (path, inside) in [(&to, way), (&to.join("other"), way), (&to, Where::Inside)] {
            let refused = put_all(&entries, path, inside);
            assert!(matches!(refused, Err(Error::Local { .. })), "{refused:?}");
        }
        assert!(names(&target).is_empty());
    }

    #[test]
    fn what_was_not_asked_for_is_refused_wherever_it_would_be_put() {
        let place = tempfile::tempdir().unwrap();
        let way = Where::Named(OsStr::new("way"));
        let there = place.path().join("there");
        let root = Entry {
            path: PathBuf::new(),
            what: What::Directory,
        };
        for foreign in [file(".profile"), file("wa/y"), file("way2"), root] {
            fs::create_dir(&there).unwrap();
            for path in [&there, &there.join("fresh")] {
                let refused = put_all(std::slice::from_ref(&foreign), path, way);
                let elsewhere = matches!(refused, Err(Error::Elsewhere { .. }));
                assert!(elsewhere, "{foreign:?}: {refused:?}");
            }
            assert!(names(&there).is_empty(), "{foreign:?}");
            fs::remove_dir(&there).unwrap();
        }
        // What came before it and was asked for stays.
        fs::create_dir(&there).unwrap();
        put_all(&[file("way"), file("other")], &there, way).unwrap_err();
        assert_eq!(names(&there), ["way"]);
    }

    #[test]
    fn a_link_that_is_there_gives_way_and_is_not_written_through() {
        let place = tempfile::tempdir().unwrap();
        let (kept, to) = (place.path().join("kept"), place.path().join("to"));
        fs::write(&kept, "old").unwrap();
        fs::create_dir(&to).unwrap();
        std::os::unix::fs::symlink(&kept, to.join("way")).unwrap();
        let entries = [link("way", &kept), file("way")];
        let put = put_all(&entries, &to, Where::Named(OsStr::new("way"))).unwrap();
        assert_eq!((put.entries, put.bytes), (2, 3));
        assert_eq!(fs::read_to_string(&kept).unwrap(), "old");
        assert_eq!(fs::read_to_string(to.join("way")).unwrap(), "new");
        assert!(fs::symlink_metadata(to.join("way")).unwrap().is_file());
    }

    #[test]
    fn what_is_in_a_directory_is_put_into_one_that_is_made_for_it() {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("made");
        put_all(&[file("a"), file("b")], &to, Where::Inside).unwrap();
        let mut found = names(&to);
        found.sort();
        assert_eq!(found, ["a", "b"]);
    }
}
