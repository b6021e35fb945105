//! A copy whose files are not on this machine: what it holds is a listing that came as a stream, and
//! what changed is found by comparing two of them. Contents are fetched when they are asked for.
//!
//! Whoever made the listings may be hostile. What they can say is what the workspace could hold: the same
//! walk with the same limits reads them as reads a copy on this disk.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;

use bstr::{BStr, BString, ByteSlice};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::change::{Limits, Summary, Visitor};
use crate::differs::{self, Way};
use crate::dir::Meta;
use crate::error::Error;
use crate::manifest::{Entry, Manifest, Time};
use crate::tree::Listed;

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it is, below the top: names with `/` between them.
    pub path: BString,
    /// The number of its inode.
    pub inode: u64,
    /// Its kind and permissions, as the kernel has them.
    pub mode: u32,
    /// Its size.
    pub size: u64,
    /// When it was modified: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// When anything of it was changed, which its owner cannot set.
    pub changed: (i64, u32),
    /// When it was made, where that is known.
    pub born: Option<(i64, u32)>,
    /// Where it points, if it is a link.
    pub target: Option<BString>,
}

/// All that a copy holds at a moment.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    top: Node,
}

#[derive(Debug, Clone, Default)]
struct Node {
    meta: Option<Meta>,
    born: Option<Time>,
    target: Option<BString>,
    below: BTreeMap<CString, Node>,
}

impl Listing {
    /// Adds an entry; each comes after the directory that it is in. One that is refused changes nothing.
    ///
    /// # Errors
    /// [`Error::Listing`] where its path cannot be one, comes twice, or is below what is no directory.
    pub fn add(&mut self, seen: Seen) -> Result<(), Error> {
        let refused = || Error::Listing {
            path: seen.path.clone(),
        };
        let (above, name) = match seen.path.rfind_byte(b'/') {
            Some(at) => {
                let (above, name) = seen.path.split_at(at);
                (Some(above), name.get(1..).unwrap_or_default())
            }
            None => (None, seen.path.as_slice()),
        };
        let mut node = &mut self.top;
        for part in above.into_iter().flat_map(|it| it.split_str(b"/")) {
            let part = CString::new(part).map_err(|_| refused())?;
            node = node.below.get_mut(&part).ok_or_else(refused)?;
        }
        let is_directory = |meta: &Meta| meta.kind() == FileType::Directory;
        let ordinary = !name.is_empty() && name != b"." && name != b"..";
        if !ordinary || !node.meta.as_ref().is_none_or(is_directory) {
            return Err(refused());
        }
        let name = CString::new(name).map_err(|_| refused())?;
        let new = Node {
            meta: Some(Meta {
                id: (0, seen.inode),
                mode: seen.mode,
                links: 1,
                device: 0,
                size: seen.size,
                allocated: 0,
                mtime: seen.modified,
                ctime: seen.changed,
            }),
            born: seen.born,
            target: seen.target.clone(),
            below: BTreeMap::new(),
        };
        match node.below.entry(name) {
            Place::Vacant(place) => {
                place.insert(new);
                Ok(())
            }
            Place::Occupied(_) => Err(refused()),
        }
    }

    fn manifest(&self) -> Manifest {
        let mut entries = Vec::new();
        add_below(&self.top, &mut entries);
        let git = self.top.below.get(c".git");
        Manifest::at_once(entries, git.and_then(|git| git.born))
    }
}

/// As deep as paths are long, which whoever reads the listing bounds.
fn add_below(node: &Node, entries: &mut Vec<Entry>) {
    for (name, below) in &node.below {
        let Some(meta) = &below.meta else { continue };
        let index = entries.len();
        entries.push(Entry::of(name.to_bytes(), meta));
        add_below(below, entries);
        let count = entries.len();
        if let Some(entry) = entries.get_mut(index) {
            entry.below = count - index - 1;
        }
    }
}

/// A file that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// Its content, at its start.
    pub content: File,
    /// Its length.
    pub len: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// Who has the contents of files that are elsewhere.
pub trait Fetch {
    /// Fetches a file, which was so long when it was listed.
    ///
    /// # Errors
    /// `NotFound` where it is no file any more.
    fn fetch(&mut self, path: &BStr, len: u64) -> io::Result<Fetched>;
}

/// Visits how a copy that is elsewhere differs from what it was, as
/// [`Workspace::wanted_changes`](crate::Workspace::wanted_changes) does for one on this disk.
///
/// # Errors
/// Those of the visitor; [`Error::Limit`] and [`Error::Changed`]; [`Error::Io`] where a content cannot be
/// fetched.
pub fn changes_elsewhere<E: From<Error>>(
    (before, now): (&Listing, &Listing),
    fetch: &mut dyn Fetch,
    limits: &Limits,
    visitor: &mut dyn Visitor<E>,
) -> Result<Summary, E> {
    let mut way = Remote {
        stack: vec![&now.top],
        fetch,
    };
    differs::changes(&mut way, &before.manifest(), limits, visitor)
}

/// A way down a listing.
struct Remote<'a> {
    stack: Vec<&'a Node>,
    fetch: &'a mut dyn Fetch,
}

impl<'a> Remote<'a> {
    fn node(&self, name: &CStr) -> Result<&'a Node, Errno> {
        let here = self.stack.last().ok_or(Errno::NOENT)?;
        here.below.get(name).ok_or(Errno::NOENT)
    }
}

impl Way for Remote<'_> {
    fn chosen<E: From<Error>>(
        &mut self,
        failed: impl FnOnce(Errno) -> Error,
        mut take: impl FnMut(&CStr, FileType, usize) -> Result<bool, E>,
    ) -> Result<Vec<Listed>, E> {
        let Some(here) = self.stack.last() else {
            return Err(failed(Errno::NOENT).into());
        };
        let mut names = Vec::new();
        for (name, node) in &here.below {
            let kind = node.meta.map_or(FileType::Unknown, |meta| meta.kind());
            if take(name, kind, names.len())? {
                let name = name.clone();
                names.push(Listed { name, kind });
            }
        }
        names.reverse();
        Ok(names)
    }

    fn look(&mut self, name: &CStr) -> Result<Meta, Errno> {
        self.node(name)?.meta.ok_or(Errno::NOENT)
    }

    fn birth(&mut self, name: &CStr) -> Option<Time> {
        self.node(name).ok()?.born
    }

    fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let node = self.node(name)?;
        self.stack.push(node);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Errno> {
        self.stack.pop();
        Ok(())
    }

    fn depth(&self) -> usize {
        self.stack.len().saturating_sub(1)
    }

    fn file(&mut self, name: &CStr, path: &BStr) -> Result<(File, Meta), Errno> {
        let meta = self.look(name)?;
        let fetched = self.fetch.fetch(path, meta.size).map_err(|error| {
            match (error.kind(), error.raw_os_error()) {
                (io::ErrorKind::NotFound, _) => Errno::NOENT,
                (_, Some(errno)) => Errno::from_raw_os_error(errno),
                _ => Errno::IO,
            }
        })?;
        let mode = match fetched.executable {
            true => meta.mode | 0o100,
            false => meta.mode & !0o100,
        };
        let size = fetched.len;
        Ok((fetched.content, Meta { size, mode, ..meta }))
    }

    fn link(&mut self, name: &CStr) -> Result<Vec<u8>, Errno> {
        let target = self.node(name)?.target.clone();
        target.map(Into::into).ok_or(Errno::INVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_changes_nothing_in_a_listing() {
        let seen = |path: &str, inode| Seen {
            path: path.into(),
            inode,
            mode: 0o100_644,
            size: 0,
            modified: (0, 0),
            changed: (0, 0),
            born: None,
            target: None,
        };
        let mut listing = Listing::default();
        listing.add(seen("file", 1)).unwrap();
        let was = format!("{listing:?}");
        for path in ["file", "file/below", "none/below", ""] {
            listing.add(seen(path, 2)).unwrap_err();
            assert_eq!(format!("{listing:?}"), was, "{path:?}");
        }
    }
}
