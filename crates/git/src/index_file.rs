//! Git's index, written from what a checkout has just made.
//!
//! The format is version 2 of `gitformat-index(5)` with the cache tree extension, so that the first `git status`
//! compares neither content nor trees.

use std::io::{self, Write};

use bstr::BString;

use crate::objects::HASH;

/// A file as the index remembers it.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) path: BString,
    /// Git's mode, as in `0o100644`.
    pub(crate) mode: u32,
    pub(crate) id: gix::ObjectId,
    pub(crate) stat: FileStat,
}

/// What the index remembers of a file to see that it did not change. All zero for a submodule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub(crate) ctime: (u32, u32),
    pub(crate) mtime: (u32, u32),
    pub(crate) dev: u32,
    pub(crate) ino: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u32,
}

impl FileStat {
    /// The fields, cut to 32 bits as git does.
    pub(crate) fn of(stat: &rustix::fs::Stat) -> FileStat {
        FileStat {
            ctime: (stat.st_ctime as u32, stat.st_ctime_nsec as u32),
            mtime: (stat.st_mtime as u32, stat.st_mtime_nsec as u32),
            dev: stat.st_dev as u32,
            ino: stat.st_ino as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u32,
        }
    }
}

/// A directory of the commit, for the cache tree.
#[derive(Clone, Debug)]
pub(crate) struct CachedTree {
    /// The last component; empty for the root.
    pub(crate) name: BString,
    pub(crate) id: gix::ObjectId,
    /// Files below it, at any depth.
    pub(crate) files: usize,
    pub(crate) children: Vec<CachedTree>,
}

impl CachedTree {
    /// The cache of no tree.
    pub(crate) fn none() -> CachedTree {
        CachedTree {
            name: BString::default(),
            id: gix::ObjectId::null(HASH),
            files: 0,
            children: Vec::new(),
        }
    }
}

/// Writes an index with `entries` in the order of their paths.
pub(crate) fn write(
    out: &mut dyn Write,
    entries: &[IndexEntry],
    root: &CachedTree,
) -> io::Result<()> {
    let mut data = Vec::with_capacity(entries.len() * 96 + 4096);
    data.extend_from_slice(b"DIRC");
    data.extend_from_slice(&2_u32.to_be_bytes());
    data.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    for entry in entries {
        write_entry(&mut data, entry);
    }
    finish(out, data, root)
}

/// Adds an entry.
pub(crate) fn write_entry(data: &mut Vec<u8>, entry: &IndexEntry) {
    let start = data.len();
    let stat = &entry.stat;
    for field in [
        stat.ctime.0,
        stat.ctime.1,
        stat.mtime.0,
        stat.mtime.1,
        stat.dev,
        stat.ino,
        entry.mode,
        stat.uid,
        stat.gid,
        stat.size,
    ] {
        data.extend_from_slice(&field.to_be_bytes());
    }
    data.extend_from_slice(entry.id.as_slice());
    data.extend_from_slice(&(entry.path.len().min(0xFFF) as u16).to_be_bytes());
    data.extend_from_slice(&entry.path);
    let length = data.len() - start;
    data.resize(start + (length + 8) / 8 * 8, 0);
}

/// Adds what comes after the entries, and writes all of it.
pub(crate) fn finish(out: &mut dyn Write, mut data: Vec<u8>, root: &CachedTree) -> io::Result<()> {
    let mut trees = Vec::new();
    write_tree(&mut trees, root);
    data.extend_from_slice(b"TREE");
    data.extend_from_slice(&(trees.len() as u32).to_be_bytes());
    data.extend_from_slice(&trees);
    let mut hasher = gix::hash::hasher(HASH);
    hasher.update(&data);
    let checksum = hasher.try_finalize().map_err(io::Error::other)?;
    data.extend_from_slice(checksum.as_slice());
    out.write_all(&data)
}

/// Directories within each other take little of the stack: only this calls itself.
fn write_tree(out: &mut Vec<u8>, tree: &CachedTree) {
    write_node(out, tree);
    for child in &tree.children {
        write_tree(out, child);
    }
}

fn write_node(out: &mut Vec<u8>, tree: &CachedTree) {
    out.extend_from_slice(&tree.name);
    out.extend_from_slice(format!("\0{} {}\n", tree.files, tree.children.len()).as_bytes());
    out.extend_from_slice(tree.id.as_slice());
}
