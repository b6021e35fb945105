//! Workspaces that are a copy of their base: making one.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use bstr::BString;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;

use crate::base::make_dir;
use crate::descent::{Descent, Trail};
use crate::dir::{Access, Dir, Id, Meta};
use crate::error::{Error, io, std_io};
use crate::manifest::{Entry, Manifest};
use crate::remove;
use crate::tree::{Listed, as_path, listing};

/// Files up to this size are copied through a buffer, which is quicker than asking the kernel to.
const SMALL: u64 = 256 * 1024;
/// The most files whose further names are recognised: what comes after is copied under each.
const MOST_TWICE: usize = 200_000;

/// Copies the trees of a base (nearest first) into the new directory `to`, as the one tree that they
/// make together: permissions and modification times of files are kept, so that what compares them
/// has little to read again. Never a hard link: an agent could write through it.
pub(crate) fn copy(trees: &[PathBuf], to: &Path) -> Result<Manifest, Error> {
    make_dir(to)?;
    let mut manifest = None;
    for base in trees.iter().rev() {
        manifest = Some(lay(base, to, manifest.is_some(), Others::Refused)?);
    }
    match manifest {
        Some(manifest) if trees.len() == 1 => Ok(manifest),
        // What lower trees had is gone in part.
        _ => scan(to),
    }
}

/// Copies a home into the new directory `to`, as [`copy`] does, so that the copy takes what the home
/// does: holes stay holes, and names of one file are names of one file. Sockets, pipes and devices are
/// of no use to whoever gets it, and are left out.
pub(crate) fn copy_home(home: &Path, to: &Path) -> Result<(), Error> {
    make_dir(to)?;
    lay(home, to, false, Others::LeftOut).map(drop)
}

/// What becomes of entries that are neither files, directories nor links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Refused,
    LeftOut,
}

/// Copies one tree; `over` what is there already, as an overlay would.
fn lay(base: &Path, to: &Path, over: bool, others: Others) -> Result<Manifest, Error> {
    let from_root = Dir::open(base).map_err(io("open", base))?;
    let to_root = Dir::open(to).map_err(io("open", to))?;
    let mut copier = Copier {
        trail: Trail::default(),
        entries: Vec::new(),
        clone: true,
        over,
        others,
        buffer: Vec::new(),
        twice: match others {
            Others::Refused => None,
            Others::LeftOut => Some(Twice {
                root: Dir::open(to).map_err(io("open", to))?,
                first: HashMap::new(),
            }),
        },
    };
    let names = copier.list(&from_root)?;
    let mut from = Descent::new(from_root, names);
    let mut into = Descent::new(to_root, None);
    while let (Some((source, names)), Some((target, index))) = (from.top(), into.top()) {
        if let Some(next) = names.pop() {
            if let Some((source, target)) = copier.entry(source, target, &next)? {
                let index = copier.entries.len().checked_sub(1);
                copier.trail.push(next.name.to_bytes());
                let names = copier.list(&source)?;
                from.push(source, names);
                into.push(target, index);
            }
        } else {
            let count = copier.entries.len();
            if let Some((index, entry)) =
                index.and_then(|index| Some((index, copier.entries.get_mut(index)?)))
            {
                entry.below = count - index - 1;
            }
            from.pop()
                .and_then(|_| into.pop())
                .map_err(io("leave", as_path(copier.trail.here())))?;
            copier.trail.pop();
        }
    }
    let git = Dir::open(to).map_err(io("open", to))?.birth(c".git");
    Ok(Manifest::new(copier.entries, git))
}

/// What a copy holds now.
pub(crate) fn scan(root: &Path) -> Result<Manifest, Error> {
    let dir = Dir::open(root).map_err(io("open", root))?;
    let git = dir.birth(c".git");
    let mut trail = Trail::default();
    let mut entries: Vec<Entry> = Vec::new();
    let names = listing(&dir, io("list", root))?;
    let mut descent = Descent::new(dir, (names, None::<usize>));
    while let Some((dir, (names, index))) = descent.top() {
        let Some(next) = names.pop() else {
            let count = entries.len();
            if let Some((index, entry)) =
                index.and_then(|index| Some((index, entries.get_mut(index)?)))
            {
                entry.below = count - index - 1;
            }
            descent.pop().map_err(io("leave", as_path(trail.here())))?;
            trail.pop();
            continue;
        };
        let name = next.name.as_c_str();
        let path = trail.join(name.to_bytes());
        let meta = dir.look(name).map_err(io("look at", as_path(&path)))?;
        entries.push(Entry::of(name.to_bytes(), &meta));
        if meta.kind() == FileType::Directory {
            let below = dir
                .subdir(name, Access::Read)
                .map_err(io("open", as_path(&path)))?;
            let names = listing(&below, io("list", as_path(&path)))?;
            let index = entries.len().checked_sub(1);
            trail.push(name.to_bytes());
            descent.push(below, (names, index));
        }
    }
    Ok(Manifest::new(entries, git))
}

struct Copier {
    trail: Trail,
    entries: Vec<Entry>,
    /// Whether the file system may still be asked to share blocks.
    clone: bool,
    /// Whether something may be in the target already.
    over: bool,
    others: Others,
    buffer: Vec<u8>,
    /// Where files with several names stay one file.
    twice: Option<Twice>,
}

/// Files with several names, and the first of each in the copy.
struct Twice {
    root: Dir,
    first: HashMap<Id, BString>,
}

impl Copier {
    fn list(&self, dir: &Dir) -> Result<Vec<Listed>, Error> {
        listing(dir, io("list", as_path(self.trail.here())))
    }

    fn entry(
        &mut self,
        source: &Dir,
        target: &Dir,
        listed: &Listed,
    ) -> Result<Option<(Dir, Dir)>, Error> {
        let name = listed.name.as_c_str();
        let path = self.trail.join(name.to_bytes());
        let kind = match listed.kind {
            FileType::Unknown => source
                .look(name)
                .map_err(io("look at", as_path(&path)))?
                .kind(),
            kind => kind,
        };
        let stays = self.over
            && kind == FileType::Directory
            && target
                .look(name)
                .is_ok_and(|meta| meta.kind() == FileType::Directory);
        if self.over && !stays {
            match target.look(name) {
                Ok(_) => remove::tree(target, name, &AtomicBool::new(false))?,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(io("look at", as_path(&path))(errno)),
            }
        }
        let copied = match kind {
            FileType::CharacterDevice if self.over => return Ok(None),
            FileType::Directory => {
                let below = source
                    .subdir(name, Access::Read)
                    .map_err(io("open", as_path(&path)))?;
                let mode = below.meta().permissions() | Mode::RWXU;
                let make = || match stays {
                    true => Ok(()),
                    false => fs::mkdirat(target, name, mode),
                };
                let made = make()
                    .and_then(|()| target.subdir(name, Access::Write))
                    .and_then(|dir| fs::fchmod(&dir, mode).map(|()| dir))
                    .map_err(io("make", as_path(&path)))?;
                self.entries.push(Entry::of(name.to_bytes(), made.meta()));
                return Ok(Some((below, made)));
            }
            FileType::RegularFile => self.file(source, target, name, &path)?,
            FileType::Symlink => {
                let point = || {
                    fs::symlinkat(source.link(name)?, target, name)?;
                    target.look(name)
                };
                point().map_err(io("copy the link", as_path(&path)))?
            }
            _ if self.others == Others::LeftOut => return Ok(None),
            _ => return Err(Error::BaseEntry { path }),
        };
        self.entries.push(Entry::of(name.to_bytes(), &copied));
        Ok(None)
    }

    fn file(
        &mut self,
        source: &Dir,
        target: &Dir,
        name: &CStr,
        path: &BString,
    ) -> Result<Meta, Error> {
        let (mut from, meta, _) = source.file(name).map_err(io("open", as_path(path)))?;
        let several = self.twice.as_mut().filter(|_| meta.links > 1);
        if let Some(Twice { root, first }) = several {
            if let Some(known) = first.get(&meta.id) {
                let known = known.as_slice();
                let linked = fs::linkat(&*root, known, target, name, AtFlags::empty())
                    .and_then(|()| target.look(name));
                // It may lie too deep for one path, or have as many names as a file can have.
                if let Ok(linked) = linked {
                    return Ok(linked);
                }
            } else if first.len() < MOST_TWICE {
                first.insert(meta.id, path.clone());
            }
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut to = File::from(
            fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(io("make", as_path(path)))?,
        );
        if self.clone && meta.size > 0 {
            // A file system that cannot share blocks says so in one of several ways.
            self.clone = fs::ioctl_ficlone(&to, &from).is_ok();
        }
        if !self.clone || meta.size == 0 {
            let copied = if meta.size <= SMALL {
                self.buffer.clear();
                from.read_to_end(&mut self.buffer)
                    .and_then(|_| to.write_all(&self.buffer))
            } else {
                copy_data(&mut from, &mut to, meta.size)
            };
            copied.map_err(std_io("copy", as_path(path)))?;
        }
        let finish = || {
            fs::fchmod(&to, meta.permissions())?;
            let (seconds, nanoseconds) = meta.mtime;
            let mtime = Timespec {
                tv_sec: seconds,
                tv_nsec: nanoseconds.into(),
            };
            fs::futimens(
                &to,
                &Timestamps {
                    last_access: mtime,
                    last_modification: mtime,
                },
            )?;
            target.look(name)
        };
        finish().map_err(io("finish the copy of", as_path(path)))
    }
}

/// Copies what was written of a file of this size. What never was stays a hole.
fn copy_data(from: &mut File, to: &mut File, size: u64) -> std::io::Result<()> {
    let mut at = 0;
    while at < size {
        let start = match fs::seek(&*from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // There is nothing but a hole.
            Err(Errno::NXIO) => break,
            // The file system does not tell where its holes are.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno.into()),
        };
        let end = match fs::seek(&*from, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => size,
            Err(errno) => return Err(errno.into()),
        };
        fs::seek(&*from, SeekFrom::Start(start))?;
        fs::seek(&*to, SeekFrom::Start(start))?;
        let length = end.saturating_sub(start);
        if std::io::copy(&mut from.take(length), to)? < length {
            break;
        }
        at = end.max(start + 1);
    }
    to.set_len(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_home_with_holes_and_files_of_several_names_takes_no_more_when_it_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir_all(home.join("deep/er")).unwrap();
        let sparse = File::create(home.join("sparse")).unwrap();
        sparse.set_len(8 << 30).unwrap();
        sparse.write_all_at(b"in the middle", 3 << 30).unwrap();
        File::create(home.join("hole"))
            .unwrap()
            .set_len(8 << 30)
            .unwrap();
        let many = vec![7; 1 << 20];
        std::fs::write(home.join("deep/er/first"), &many).unwrap();
        for number in 0..20 {
            let name = home.join(format!("name{number}"));
            std::fs::hard_link(home.join("deep/er/first"), name).unwrap();
        }
        let copy = dir.path().join("copy");
        copy_home(&home, &copy).unwrap();
        let taken = |root: &Path| crate::usage::bytes(root).unwrap();
        assert!(taken(&copy) <= taken(&home) + (1 << 20), "{}", taken(&copy));
        let sparse = File::open(copy.join("sparse")).unwrap();
        assert_eq!(sparse.metadata().unwrap().len(), 8 << 30);
        let mut read = [0; 13];
        sparse.read_exact_at(&mut read, 3 << 30).unwrap();
        assert_eq!(&read, b"in the middle");
        assert_eq!(std::fs::metadata(copy.join("hole")).unwrap().len(), 8 << 30);
        let first = std::fs::metadata(copy.join("deep/er/first")).unwrap();
        assert_eq!((first.nlink(), first.len()), (21, 1 << 20));
        assert_eq!(std::fs::read(copy.join("name19")).unwrap(), many);
        // Nobody writes through them into the home.
        let original = std::fs::metadata(home.join("deep/er/first")).unwrap();
        assert_ne!(original.ino(), first.ino());
    }
}
