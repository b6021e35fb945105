//! An index made from another one by changing some of its entries: what is the same is copied as bytes.
//!
//! Only indices that [`crate::index_file`] wrote are read here: version 2, no extended flags, a cache tree of which
//! every part is valid. Anything else is refused.

use std::io::{self, Write};

use bstr::{BString, ByteSlice};

use crate::checkout::DEPTH_LIMIT;
use crate::index_file::{self, CachedTree, IndexEntry};

/// Where entries begin.
const HEADER: usize = 12;
/// Where an entry's path begins.
const PATH: usize = 62;
/// Where an entry's flags are.
const FLAGS: usize = 60;
/// The length of an object's name, and of the sum at the end.
const ID: usize = 20;

/// An index that was read.
pub(crate) struct OldIndex {
    bytes: Vec<u8>,
    count: usize,
    /// Where the entries end.
    end: usize,
    pub(crate) root: CachedTree,
}

/// What becomes of the entries.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Entries that are there afterwards, in place of those with the same paths.
    pub(crate) put: Vec<IndexEntry>,
    /// Paths that are gone, with all that is below them.
    pub(crate) gone: Vec<BString>,
}

/// How many entries the beginning of an index announces.
pub(crate) fn count(header: &[u8]) -> Option<usize> {
    let rest = header.strip_prefix(b"DIRC\0\0\0\x02")?;
    usize::try_from(number(rest)?).ok()
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_be_bytes)
}

impl OldIndex {
    /// Reads an index; nothing if it is not one that this crate wrote.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<OldIndex> {
        let count = count(&bytes)?;
        let mut at = HEADER;
        for _ in 0..count {
            at += entry_at(&bytes, at)?.1;
        }
        let rest = bytes.get(at..)?.strip_prefix(b"TREE")?;
        let length = usize::try_from(number(rest)?).ok()?;
        let mut trees = rest.get(4..)?.get(..length)?;
        let root = tree(&mut trees)?;
        let whole = trees.is_empty() && rest.len() == 4 + length + ID;
        (whole && root.files == count).then_some(OldIndex {
            bytes,
            count,
            end: at,
            root,
        })
    }

    /// Writes the index with the edits made.
    pub(crate) fn write(
        &self,
        out: &mut dyn Write,
        mut edits: Edits,
        root: &CachedTree,
    ) -> io::Result<()> {
        edits.put.sort_by(|a, b| a.path.cmp(&b.path));
        // All that is at or below a path lies between these two in the index's order, but for what
        // merely begins with it, such as `a-b` for `a`: so both are looked at.
        edits.gone.sort();
        let mut puts = edits.put.iter().peekable();
        let mut gone = Gone {
            paths: &edits.gone,
            next: 0,
            open: Vec::new(),
        };
        let mut data = Vec::with_capacity(self.bytes.len() + edits.put.len() * 96);
        data.extend_from_slice(self.bytes.get(..HEADER).unwrap_or_default());
        let (mut at, mut kept_from, mut written) = (HEADER, HEADER, 0_usize);
        for _ in 0..self.count {
            let Some((path, length)) = entry_at(&self.bytes, at) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let mut replaced = gone.covers(path);
            while let Some(put) = puts.next_if(|put| put.path.as_slice() <= path) {
                data.extend_from_slice(self.bytes.get(kept_from..at).unwrap_or_default());
                kept_from = at;
                index_file::write_entry(&mut data, put);
                written += 1;
                replaced |= put.path == path;
            }
            if replaced {
                data.extend_from_slice(self.bytes.get(kept_from..at).unwrap_or_default());
                kept_from = at + length;
            } else {
                written += 1;
            }
            at += length;
        }
        data.extend_from_slice(self.bytes.get(kept_from..self.end).unwrap_or_default());
        for put in puts {
            index_file::write_entry(&mut data, put);
            written += 1;
        }
        if written != root.files {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let announced = u32::try_from(written).map_err(io::Error::other)?;
        if let Some(place) = data.get_mut(HEADER - 4..HEADER) {
            place.copy_from_slice(&announced.to_be_bytes());
        }
        index_file::finish(out, data, root)
    }
}

/// Paths that are gone, asked about in the index's order.
struct Gone<'a> {
    paths: &'a [BString],
    next: usize,
    /// Those that entries to come may still lie below: each begins with the one before it.
    open: Vec<&'a [u8]>,
}

impl Gone<'_> {
    fn covers(&mut self, path: &[u8]) -> bool {
        while let Some(gone) = self.paths.get(self.next)
            && gone.as_slice() <= path
        {
            self.next += 1;
            self.open.retain(|open| gone.starts_with(open));
            self.open.push(gone);
        }
        self.open.retain(|open| path.starts_with(open));
        self.open
            .iter()
            .any(|open| matches!(path.get(open.len()), None | Some(b'/')))
    }
}

/// The path of the entry that begins at `at`, and its length in bytes.
fn entry_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let entry = bytes.get(at..)?;
    let flags = u16::from_be_bytes(*entry.get(FLAGS..)?.first_chunk()?);
    if flags & !0xFFF != 0 {
        return None;
    }
    let rest = entry.get(PATH..)?;
    let length = match usize::from(flags) {
        0xFFF => rest.find_byte(0)?,
        length => length,
    };
    let whole = (PATH + length + 8) / 8 * 8;
    (rest.get(length) == Some(&0) && entry.len() >= whole).then_some((rest.get(..length)?, whole))
}

/// The cache tree: each directory before those below it. Without recursion: hostile repositories have
/// directories within each other, and threads little room.
fn tree(rest: &mut &[u8]) -> Option<CachedTree> {
    let (mut last, below) = node(rest)?;
    // Those around it, each with how many below it are still to come.
    let mut open: Vec<(CachedTree, usize)> = Vec::new();
    let mut left = below;
    loop {
        while left == 0 {
            let Some((mut above, more)) = open.pop() else {
                return Some(last);
            };
            above.children.push(last);
            (last, left) = (above, more);
        }
        if open.len() >= DEPTH_LIMIT {
            return None;
        }
        let (next, below) = node(rest)?;
        open.push((last, left - 1));
        (last, left) = (next, below);
    }
}

/// One directory of it, and how many are directly below.
fn node(rest: &mut &[u8]) -> Option<(CachedTree, usize)> {
    let (name, after) = rest.split_once_str(b"\0")?;
    let (counts, after) = after.split_once_str(b"\n")?;
    let (files, below) = counts.to_str().ok()?.split_once(' ')?;
    let (id, after) = after.split_at_checked(ID)?;
    *rest = after;
    let below: usize = below.parse().ok()?;
    if below > rest.len() {
        return None;
    }
    let found = CachedTree {
        name: name.into(),
        id: gix::ObjectId::try_from(id).ok()?,
        files: files.parse().ok()?,
        children: Vec::new(),
    };
    Some((found, below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered<'a>(gone: &[&str], paths: &[&'a str]) -> Vec<&'a str> {
        let gone: Vec<BString> = gone.iter().map(|path| (*path).into()).collect();
        let mut asked = Gone {
            paths: &gone,
            next: 0,
            open: Vec::new(),
        };
        let mut found = paths.to_vec();
        found.retain(|path| asked.covers(path.as_bytes()));
        found
    }

    #[test]
    fn a_path_that_is_gone_takes_along_what_is_below_it_and_nothing_that_begins_alike() {
        let paths = ["a", "a-b", "a.c", "a/b", "a/c/d", "a0", "b", "b-1/x", "b/x"];
        assert_eq!(covered(&["a"], &paths), ["a", "a/b", "a/c/d"]);
        assert_eq!(covered(&["a", "a-b"], &paths), ["a", "a-b", "a/b", "a/c/d"]);
        assert_eq!(covered(&["a/c", "b"], &paths), ["a/c/d", "b", "b/x"]);
        assert_eq!(covered(&["c", ""], &paths), [""; 0]);
    }

    /// An index of one file below so many directories.
    fn deep(levels: usize) -> Vec<u8> {
        let mut bytes = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
        let entry = IndexEntry {
            path: vec!["d"; levels + 1].join("/").into(),
            mode: 0o100_644,
            id: CachedTree::none().id,
            stat: index_file::FileStat::default(),
        };
        index_file::write_entry(&mut bytes, &entry);
        let mut trees = Vec::new();
        for level in 0..=levels {
            let name = if level == 0 { "" } else { "d" };
            let below = usize::from(level < levels);
            trees.extend_from_slice(format!("{name}\01 {below}\n").as_bytes());
            trees.extend_from_slice(entry.id.as_slice());
        }
        bytes.extend_from_slice(b"TREE");
        bytes.extend_from_slice(&(trees.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&trees);
        bytes.extend_from_slice(&[0; ID]);
        bytes
    }

    #[test]
    fn directories_within_each_other_are_read_and_written_on_any_thread_or_refused() {
        for levels in [0, 100, DEPTH_LIMIT, 100_000] {
            // What threads of a pool have.
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            let done = thread.spawn(move || {
                let mut bytes = deep(levels);
                let Some(index) = OldIndex::parse(bytes.clone()) else {
                    return false;
                };
                let mut again = Vec::new();
                index
                    .write(&mut again, Edits::default(), &index.root)
                    .unwrap();
                again.truncate(again.len() - ID);
                bytes.truncate(bytes.len() - ID);
                assert_eq!(again, bytes);
                true
            });
            let is_read = done.unwrap().join().unwrap();
            assert_eq!(is_read, levels <= DEPTH_LIMIT, "{levels}");
        }
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for bytes in [
            b"".as_slice(),
            b"DIRC",
            b"DIRC\0\0\0\x02\0\0\0\x01",
            b"DIRC\0\0\0\x02\xff\xff\xff\xff\0\0",
            b"DIRC\0\0\0\x03\0\0\0\0TREE\0\0\0\0",
        ] {
            assert!(OldIndex::parse(bytes.to_vec()).is_none(), "{bytes:?}");
        }
    }
}
