//! A way down several layers at once: in each directory, the directories of the layers that make it
//! up, as the kernel's overlay would merge them.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::dir::{Access, Dir, Id, Listing, Meta};
use crate::error::{Error, io};
use crate::overlay::{is_elsewhere, is_opaque};

/// Directories whose descriptors are held at once; the usual limit of a process is 1,024.
const HELD: usize = 48;

/// The directories from the roots to where a walk stands. A directory whose descriptor was closed on
/// the way down is opened again from the root, one name at a time, and must be the one that was left:
/// one that was moved meanwhile ends the walk instead of leading it elsewhere.
#[derive(Debug)]
pub(crate) struct Union {
    /// The layers, topmost first.
    roots: Vec<PathBuf>,
    levels: Vec<Level>,
    held: usize,
}

#[derive(Debug)]
struct Level {
    /// The name of the directory in the one above; the roots have none.
    name: CString,
    /// Topmost first, never empty.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    layer: usize,
    id: Id,
    dir: Option<Dir>,
}

/// A name in a merged directory, and the topmost part that has it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: CString,
    pub(crate) part: usize,
}

/// A directory of one layer: which layer, what it is, and its descriptor unless too many are held.
type Opened = (usize, Meta, Option<Dir>);

/// What is below a name that is a directory in its topmost part.
#[derive(Default)]
pub(crate) struct Below {
    dirs: Vec<Opened>,
    /// Whether it hides what is below all layers of this walk.
    pub(crate) hides: bool,
    /// Whether the content of one of them is said to be elsewhere.
    pub(crate) elsewhere: bool,
}

impl Union {
    /// Stands in the roots of the layers, topmost first.
    pub(crate) fn open(roots: Vec<PathBuf>) -> Result<Union, Error> {
        let mut union = Union {
            roots,
            levels: Vec::new(),
            held: 0,
        };
        let mut dirs = Vec::new();
        for (layer, root) in union.roots.iter().enumerate() {
            let dir = Dir::open(root).map_err(io("open", root))?;
            dirs.push((layer, *dir.meta(), (layer < HELD).then_some(dir)));
        }
        union.enter(CString::default(), dirs);
        Ok(union)
    }

    fn enter(&mut self, name: CString, dirs: Vec<Opened>) {
        let parts = dirs.into_iter().map(|(layer, meta, dir)| {
            self.held += usize::from(dir.is_some());
            Part {
                layer,
                id: meta.id,
                dir,
            }
        });
        let parts = parts.collect();
        self.levels.push(Level { name, parts });
        self.release();
    }

    /// Closes the directories nearest the roots until no more are held than may be.
    fn release(&mut self) {
        let parts = self.levels.iter_mut().flat_map(|level| &mut level.parts);
        for part in parts {
            if self.held <= HELD {
                return;
            }
            if part.dir.take().is_some() {
                self.held -= 1;
            }
        }
    }

    /// How many directories lie above the one where the walk stands.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    pub(crate) fn parts(&self) -> usize {
        self.levels.last().map_or(0, |level| level.parts.len())
    }

    /// A directory where the walk stands.
    ///
    /// # Errors
    /// `LOOP` if it is not the one that the walk came through.
    pub(crate) fn dir(&mut self, part: usize) -> Result<&Dir, Errno> {
        let level = self.levels.last().ok_or(Errno::NOENT)?;
        let found = level.parts.get(part).ok_or(Errno::NOENT)?;
        if found.dir.is_none() {
            let dir = self.again(found.layer, found.id)?;
            self.held += 1;
            if let Some(part) = self
                .levels
                .last_mut()
                .and_then(|level| level.parts.get_mut(part))
            {
                part.dir = Some(dir);
            }
            // The last level is released last; with one directory over the bound it may be this one.
            if self.held > HELD {
                self.release_but(part);
            }
        }
        let level = self.levels.last().ok_or(Errno::NOENT)?;
        let found = level.parts.get(part).and_then(|part| part.dir.as_ref());
        found.ok_or(Errno::NOENT)
    }

    fn release_but(&mut self, kept: usize) {
        let last = self.levels.len().saturating_sub(1);
        for (depth, level) in self.levels.iter_mut().enumerate() {
            for (index, part) in level.parts.iter_mut().enumerate() {
                if self.held <= HELD {
                    return;
                }
                if (depth, index) != (last, kept) && part.dir.take().is_some() {
                    self.held -= 1;
                }
            }
        }
    }

    /// Opens the directory of a layer where the walk stands once more.
    fn again(&self, layer: usize, id: Id) -> Result<Dir, Errno> {
        let root = self.roots.get(layer).ok_or(Errno::NOENT)?;
        let held = self
            .levels
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, level)| {
                let part = level.parts.iter().find(|part| part.layer == layer)?;
                Some((at, part.dir.as_ref()?))
            });
        let start = held.map_or(0, |(at, _)| at);
        let mut found = match held {
            Some(_) => None,
            None => Some(Dir::open(root)?),
        };
        for level in self.levels.iter().skip(start + 1) {
            let above = found.as_ref().or(held.map(|(_, dir)| dir));
            let below = above
                .ok_or(Errno::NOENT)?
                .subdir(&level.name, Access::Read)?;
            found = Some(below);
        }
        let dir = found.ok_or(Errno::NOENT)?;
        if dir.meta().id != id {
            return Err(Errno::LOOP);
        }
        Ok(dir)
    }

    /// The names where the walk stands, the last in the order of bytes first, so that `pop` gives the
    /// next one. `take` is asked about the topmost of each name, with how many there are already;
    /// what it does not want hides what is below all the same.
    pub(crate) fn names<E: From<Error>>(
        &mut self,
        failed: impl Fn(Errno) -> Error,
        mut take: impl FnMut(&CStr, FileType, usize) -> Result<bool, E>,
    ) -> Result<Vec<Named>, E> {
        enum Stop<E> {
            System(Errno),
            Asked(E),
        }
        impl<E> From<Errno> for Stop<E> {
            fn from(errno: Errno) -> Self {
                Stop::System(errno)
            }
        }
        let mut names: Vec<Named> = Vec::new();
        let hasher = RandomState::new();
        // Hashes, for they are bounded by nothing else: of files that are not wanted there may be many.
        let mut seen = HashSet::new();
        let parts = self.parts();
        for part in 0..parts {
            let dir = self.dir(part).map_err(&failed)?;
            let listed = dir.list(|name, kind| {
                if parts > 1 && !seen.insert(hasher.hash_one(name)) {
                    return Ok(Listing::Continue);
                }
                if take(name, kind, names.len()).map_err(Stop::Asked)? {
                    let name = name.to_owned();
                    names.push(Named { name, part });
                }
                Ok(Listing::Continue)
            });
            match listed {
                Ok(()) => {}
                Err(Stop::System(errno)) => return Err(failed(errno).into()),
                Err(Stop::Asked(error)) => return Err(error),
            }
        }
        names.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        Ok(names)
    }

    /// Opens a name that is a directory in its topmost part, with all that are merged into it.
    pub(crate) fn below(&mut self, named: &Named) -> Result<Below, Errno> {
        let mut below = Below::default();
        for part in named.part..self.parts() {
            let layer = self.layer(part)?;
            let dir = self.dir(part)?;
            if part > named.part {
                match dir.look(&named.name) {
                    Ok(meta) if meta.kind() == FileType::Directory => {}
                    // Not a directory: it hides what is below it, and is hidden itself.
                    Ok(_) => {
                        below.hides = true;
                        break;
                    }
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno),
                }
            }
            let found = dir.subdir(&named.name, Access::Read)?;
            let opaque = is_opaque(&found)?;
            below.elsewhere |= is_elsewhere(&found)?;
            let held = below.dirs.len() < HELD;
            below
                .dirs
                .push((layer, *found.meta(), held.then_some(found)));
            if opaque {
                below.hides = true;
                break;
            }
        }
        Ok(below)
    }

    fn layer(&self, part: usize) -> Result<usize, Errno> {
        let level = self.levels.last().ok_or(Errno::NOENT)?;
        level
            .parts
            .get(part)
            .map(|part| part.layer)
            .ok_or(Errno::NOENT)
    }

    /// Goes down.
    pub(crate) fn push(&mut self, name: &CStr, below: Below) {
        self.enter(name.to_owned(), below.dirs);
    }

    /// Goes up again.
    pub(crate) fn pop(&mut self) {
        if let Some(level) = self.levels.pop() {
            let held = level.parts.iter().filter(|part| part.dir.is_some());
            self.held -= held.count();
        }
    }

    /// Goes down in a union of one layer.
    pub(crate) fn push_one(&mut self, name: &CStr, dir: Dir) {
        let meta = *dir.meta();
        self.enter(name.to_owned(), vec![(0, meta, Some(dir))]);
    }
}
