//! What changed in a copy, by comparing it with what it held when it was made. Where its directories
//! are is for a [`Way`] to know: on this disk, or elsewhere.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;

use bstr::BStr;
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::change::{Emitter, GitDir, Limits, Summary, Visitor, Why, moved};
use crate::descent::{Descent, Trail};
use crate::dir::{Access, Dir, Meta};
use crate::error::{Error, io};
use crate::manifest::{Entry, Manifest, Time};
use crate::names::is_git_directory;
use crate::tree::{self, Listed, as_path};

/// A way down the directories of a copy. All names are of the directory where it stands.
pub(crate) trait Way {
    /// The names that `take` wants, the last in the order of bytes first. It is asked with each name and
    /// how many there are already.
    fn chosen<E: From<Error>>(
        &mut self,
        failed: impl FnOnce(Errno) -> Error,
        take: impl FnMut(&CStr, FileType, usize) -> Result<bool, E>,
    ) -> Result<Vec<Listed>, E>;

    /// What has this name.
    fn look(&mut self, name: &CStr) -> Result<Meta, Errno>;

    /// When it was made, where that is known.
    fn birth(&mut self, name: &CStr) -> Option<Time>;

    /// Goes down to a directory. `XDEV` if it is of another file system.
    fn enter(&mut self, name: &CStr) -> Result<(), Errno>;

    /// Goes up again, from the uppermost directory to the end.
    fn leave(&mut self) -> Result<(), Errno>;

    /// How many directories lie above the one where it stands.
    fn depth(&self) -> usize;

    /// Opens a regular file, whose whole path is given besides. `XDEV` as for a directory.
    fn file(&mut self, name: &CStr, path: &BStr) -> Result<(File, Meta), Errno>;

    /// Where a link points.
    fn link(&mut self, name: &CStr) -> Result<Vec<u8>, Errno>;
}

/// A way on this disk.
impl Way for Descent<()> {
    fn chosen<E: From<Error>>(
        &mut self,
        failed: impl FnOnce(Errno) -> Error,
        take: impl FnMut(&CStr, FileType, usize) -> Result<bool, E>,
    ) -> Result<Vec<Listed>, E> {
        match here(self) {
            Ok(dir) => tree::chosen(dir, failed, take),
            Err(errno) => Err(failed(errno).into()),
        }
    }

    fn look(&mut self, name: &CStr) -> Result<Meta, Errno> {
        here(self)?.look(name)
    }

    fn birth(&mut self, name: &CStr) -> Option<Time> {
        here(self).ok()?.birth(name)
    }

    fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let below = here(self)?.subdir(name, Access::Read)?;
        self.push(below, ());
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Errno> {
        self.pop().map(drop)
    }

    fn depth(&self) -> usize {
        Descent::depth(self)
    }

    fn file(&mut self, name: &CStr, _: &BStr) -> Result<(File, Meta), Errno> {
        let (content, meta, _) = here(self)?.file(name)?;
        Ok((content, meta))
    }

    fn link(&mut self, name: &CStr) -> Result<Vec<u8>, Errno> {
        here(self)?.link(name)
    }
}

fn here(descent: &mut Descent<()>) -> Result<&Dir, Errno> {
    let (dir, ()) = descent.top().ok_or(Errno::NOENT)?;
    Ok(dir)
}

/// Visits how the copy at `root` differs from its manifest.
pub(crate) fn of_copy<E: From<Error>>(
    root: Dir,
    manifest: &Manifest,
    limits: &Limits,
    visitor: &mut dyn Visitor<E>,
) -> Result<Summary, E> {
    changes(&mut Descent::new(root, ()), manifest, limits, visitor)
}

/// Visits how what is on the way differs from a manifest.
pub(crate) fn changes<E: From<Error>>(
    way: &mut impl Way,
    manifest: &Manifest,
    limits: &Limits,
    visitor: &mut dyn Visitor<E>,
) -> Result<Summary, E> {
    let mut walk = Walk {
        out: Emitter::new(limits, visitor),
        trail: Trail::default(),
        manifest,
    };
    let mut levels = vec![walk.level(way, Some((0, manifest.len())))?];
    while let Some(level) = levels.last_mut() {
        let known = level.known.and_then(|(next, end)| {
            if next < end {
                manifest.get(next).map(|e| (next, e))
            } else {
                None
            }
        });
        let order = match (level.names.last(), known) {
            (Some(listed), Some((_, entry))) => listed.name.to_bytes().cmp(&entry.name),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => {
                levels.pop();
                way.leave().map_err(moved("leave", walk.trail.here()))?;
                walk.trail.pop();
                continue;
            }
        };
        // The manifest's entry that this step uses up.
        let known = known.filter(|_| order.is_ge());
        if let (Some((index, entry)), Some((_, end))) = (known, level.known) {
            level.known = Some((index + 1 + entry.below, end));
        }
        if order.is_gt() {
            if let Some((_, entry)) = known {
                walk.gone(entry)?;
            }
        } else if let Some(listed) = level.names.pop()
            && let Some(below) = walk.entry(way, &listed, known)?
        {
            walk.trail.push(listed.name.to_bytes());
            walk.out.enter(walk.trail.here(), way.depth())?;
            levels.push(walk.level(way, below)?);
        }
    }
    Ok(walk.out.summary)
}

struct Level {
    names: Vec<Listed>,
    /// The manifest's entries of this directory that are still to come: from, to.
    known: Option<(usize, usize)>,
}

struct Walk<'a, E> {
    out: Emitter<'a, E>,
    trail: Trail,
    manifest: &'a Manifest,
}

/// The manifest's entries below a directory that is walked next.
type Below = Option<(usize, usize)>;

impl<E: From<Error>> Walk<'_, E> {
    fn level(&mut self, way: &mut impl Way, known: Below) -> Result<Level, E> {
        let expected = known.map_or(0, |(from, to)| to.saturating_sub(from));
        // What the manifest knows stays in the listing: else it would be taken for deleted.
        let mut names = HashSet::new();
        let (mut next, end) = known.unwrap_or_default();
        while next < end
            && let Some(entry) = self.manifest.get(next)
        {
            names.insert(entry.name.as_slice());
            next += 1 + entry.below;
        }
        let (out, trail) = (&mut self.out, &self.trail);
        let names = way.chosen::<E>(io("list", as_path(trail.here())), |name, kind, count| {
            if !names.contains(name.to_bytes())
                && !out.wants_listed(&trail.join(name.to_bytes()), kind)?
            {
                return Ok(false);
            }
            out.check_listing(trail.here(), count + 1, expected)?;
            Ok(true)
        })?;
        Ok(Level { names, known })
    }

    /// An entry of the manifest whose name is not there any more.
    fn gone(&mut self, entry: &Entry) -> Result<(), E> {
        let path = self.trail.join(&entry.name);
        if self.trail.here().is_empty() && entry.name == b".git" {
            self.out.summary.git = GitDir::Removed;
            return Ok(());
        }
        if is_git_directory(&entry.name) {
            return Ok(());
        }
        self.out.count(&path)?;
        self.out.removed(path)
    }

    fn entry(
        &mut self,
        way: &mut impl Way,
        listed: &Listed,
        known: Option<(usize, &Entry)>,
    ) -> Result<Option<Below>, E> {
        let name = listed.name.as_c_str();
        let path = self.trail.join(name.to_bytes());
        let meta = way.look(name).map_err(moved("look at", &path))?;
        let entry = known.map(|(_, entry)| entry);
        if self.trail.here().is_empty() && name == c".git" {
            let born = way.birth(name);
            let same =
                entry.is_some_and(|entry| entry.is_inode(&meta)) && born == self.manifest.git_birth;
            self.out.summary.git = if same { GitDir::Kept } else { GitDir::Replaced };
            return Ok(None);
        }
        let same_kind = entry.is_some_and(|entry| entry.kind() == meta.kind());
        let walked = same_kind && meta.kind() == FileType::Directory;
        let untouched =
            walked || entry.is_some_and(|entry| self.manifest.is_untouched(entry, &meta));
        if (walked || !untouched) && !self.out.wants(&path, meta.kind())? {
            return Ok(None);
        }
        if !untouched {
            self.out.count(&path)?;
        }
        if self.out.refuse_git(&path, name.to_bytes()) {
            return Ok(None);
        }
        match meta.kind() {
            FileType::Directory => {
                match way.enter(name) {
                    Err(Errno::XDEV) => {
                        self.out.refuse(path, Why::Mounted);
                        return Ok(None);
                    }
                    opened => opened.map_err(moved("open", &path))?,
                }
                let below = known
                    .filter(|_| walked)
                    .map(|(index, entry)| (index + 1, index + 1 + entry.below));
                if below.is_none() && entry.is_some() {
                    self.out.cleared(path)?;
                }
                Ok(Some(below))
            }
            _ if untouched => Ok(None),
            FileType::RegularFile => {
                self.out.fits(&path, &meta)?;
                match way.file(name, path.as_ref()) {
                    Err(Errno::XDEV) => self.out.refuse(path, Why::Mounted),
                    opened => {
                        let (content, meta) = opened.map_err(moved("open", &path))?;
                        self.out.file(path, content, &meta)?;
                    }
                }
                Ok(None)
            }
            FileType::Symlink => {
                let target = way.link(name).map_err(moved("read the link", &path))?;
                self.out.link(path, target)?;
                Ok(None)
            }
            kind => {
                self.out.refuse_kind(path, kind);
                Ok(None)
            }
        }
    }
}
