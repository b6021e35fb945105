//! What changed, read from an overlay's written layers as data: the one that is written, and those that
//! were frozen between turns, as the kernel would merge them.
//!
//! They are what the kernel's overlay file system writes when it is mounted with
//! `userxattr` (kernel documentation, *Overlay Filesystem*): a character device 0:0 is a whiteout, a
//! directory with `user.overlay.opaque` = `y` hides what is below it. The value `x` does not: it only
//! says that whiteouts may be empty files with `user.overlay.whiteout`, which are understood here too.
//!
//! An agent cannot forge these. Through the merged view it can neither make the device (the kernel
//! refuses `mknod` without `CAP_MKNOD` over the file system's own user namespace) nor set the
//! attributes: since Linux 6.7 a `user.overlay.NAME` that it sets is stored as
//! `user.overlay.overlay.NAME`, before that it was refused. Redirections and metadata-only files are
//! never written under `userxattr`; one that is found is refused. `user.overlay.origin`, `impure` and
//! `nlink` mean nothing to the content and are ignored. The `trusted.` forms are read too, for a layer
//! that real root mounted without `userxattr`; only real root can read or write them.

use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::change::{Emitter, GitDir, Limits, Summary, Visitor, Why, moved};
use crate::descent::Trail;
use crate::dir::{Dir, Meta, attribute};
use crate::error::{Error, io};
use crate::tree::as_path;
use crate::union::{Below, Named, Union};

/// Visits what the layers in `roots`, topmost first, change in what is below all of them.
pub(crate) fn changes<E: From<Error>>(
    roots: Vec<PathBuf>,
    limits: &Limits,
    visitor: &mut dyn Visitor<E>,
) -> Result<Summary, E> {
    let mut walk = Walk {
        out: Emitter::new(limits, visitor),
        trail: Trail::default(),
        union: Union::open(roots)?,
    };
    let mut levels = vec![walk.level()?];
    while let Some(names) = levels.last_mut() {
        if let Some(next) = names.pop() {
            if let Some(below) = walk.entry(&next)? {
                walk.trail.push(next.name.to_bytes());
                walk.out.enter(walk.trail.here(), walk.union.depth() + 1)?;
                walk.union.push(&next.name, below);
                levels.push(walk.level()?);
            }
        } else {
            levels.pop();
            walk.union.pop();
            walk.trail.pop();
        }
    }
    Ok(walk.out.summary)
}

struct Walk<'a, E> {
    out: Emitter<'a, E>,
    trail: Trail,
    union: Union,
}

impl<E: From<Error>> Walk<'_, E> {
    fn level(&mut self) -> Result<Vec<Named>, E> {
        let (out, trail) = (&mut self.out, &self.trail);
        self.union.names::<E>(
            |errno| moved("list", trail.here())(errno),
            |name, kind, count| {
                if !out.wants_listed(&trail.join(name.to_bytes()), kind)? {
                    return Ok(false);
                }
                out.check_listing(trail.here(), count + 1, 0)?;
                Ok(true)
            },
        )
    }

    /// Visits one name; returns the directory to walk next, if it is one.
    fn entry(&mut self, named: &Named) -> Result<Option<Below>, E> {
        let name = named.name.as_c_str();
        let path = self.trail.join(name.to_bytes());
        let dir = self
            .union
            .dir(named.part)
            .map_err(moved("open", self.trail.here()))?;
        let meta = dir.look(name).map_err(moved("look at", &path))?;
        let whiteout = is_whiteout(&meta);
        if !whiteout && !self.out.wants(&path, meta.kind())? {
            return Ok(None);
        }
        self.out.count(&path)?;
        if self.trail.here().is_empty() && name == c".git" {
            self.out.summary.git = git_dir(&mut self.union, named, &meta, whiteout);
            return Ok(None);
        }
        if whiteout {
            self.out.removed(path)?;
            return Ok(None);
        }
        if self.out.refuse_git(&path, name.to_bytes()) {
            return Ok(None);
        }
        match meta.kind() {
            FileType::Directory => {
                let below = match self.union.below(named) {
                    Err(Errno::XDEV) => {
                        self.out.refuse(path, Why::Mounted);
                        return Ok(None);
                    }
                    opened => opened.map_err(moved("open", &path))?,
                };
                if below.elsewhere {
                    self.out.refuse(path, Why::Elsewhere);
                    return Ok(None);
                }
                if below.hides {
                    self.out.cleared(path)?;
                }
                Ok(Some(below))
            }
            FileType::RegularFile => {
                let (content, meta, widened) = match dir.file(name) {
                    Err(Errno::XDEV) => {
                        self.out.refuse(path, Why::Mounted);
                        return Ok(None);
                    }
                    opened => opened.map_err(moved("open", &path))?,
                };
                let has = |attribute| {
                    overlay_attribute(&content, attribute)
                        .map_err(io("read attributes of", as_path(&path)))
                };
                if meta.size == 0 && has(Attribute::Whiteout)?.is_some() {
                    self.out.removed(path)?;
                } else if has(Attribute::Metacopy)?.is_some() {
                    self.out.refuse(path, Why::Elsewhere);
                } else {
                    drop(widened);
                    self.out.file(path, content, &meta)?;
                }
                Ok(None)
            }
            FileType::Symlink => {
                let target = dir.link(name).map_err(moved("read the link", &path))?;
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

/// Whether an entry is the sign of a deletion.
pub(crate) fn is_whiteout(meta: &Meta) -> bool {
    meta.kind() == FileType::CharacterDevice && meta.device == 0
}

/// What became of the top `.git`, without reading it. A directory that hides nothing only adds to the
/// base's.
fn git_dir(union: &mut Union, named: &Named, meta: &Meta, whiteout: bool) -> GitDir {
    if whiteout {
        return GitDir::Removed;
    }
    if meta.kind() != FileType::Directory {
        return GitDir::Replaced;
    }
    match union.below(named) {
        Ok(below) if !below.hides => GitDir::Kept,
        _ => GitDir::Replaced,
    }
}

#[derive(Debug, Clone, Copy)]
enum Attribute {
    Opaque,
    Whiteout,
    Metacopy,
    Redirect,
}

/// Whether a directory says that its content is elsewhere.
pub(crate) fn is_elsewhere(dir: &Dir) -> Result<bool, Errno> {
    Ok(overlay_attribute(dir, Attribute::Redirect)?.is_some())
}

/// Whether a directory hides what lower layers have at its place.
pub(crate) fn is_opaque(dir: &Dir) -> Result<bool, Errno> {
    Ok(overlay_attribute(dir, Attribute::Opaque)?.as_deref() == Some(b"y"))
}

fn overlay_attribute(fd: impl AsFd, which: Attribute) -> Result<Option<Vec<u8>>, Errno> {
    let (user, trusted) = match which {
        Attribute::Opaque => (c"user.overlay.opaque", c"trusted.overlay.opaque"),
        Attribute::Whiteout => (c"user.overlay.whiteout", c"trusted.overlay.whiteout"),
        Attribute::Metacopy => (c"user.overlay.metacopy", c"trusted.overlay.metacopy"),
        Attribute::Redirect => (c"user.overlay.redirect", c"trusted.overlay.redirect"),
    };
    match attribute(&fd, user)? {
        None => attribute(&fd, trusted),
        found => Ok(found),
    }
}
