//! An object directory, read and written with `gix`: kept open, shared by threads, no process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::objs::tree::{EntryKind, name_order};
use gix::objs::{CommitRef, Kind, TreeRefIter};
use gix::odb::pack::cache::lru::MemoryCappedHashmap;
use gix::prelude::{Find, Header as _, Write as _};

use crate::error::Error;
use crate::ids::{CommitId, ObjectId, TreeId};

/// What a reader keeps of unpacked objects, so that a chain of deltas is not walked again: bytes.
const PACK_CACHE: usize = 16 << 20;

pub(crate) const HASH: gix::hash::Kind = gix::hash::Kind::Sha1;
/// Commits and trees above this are refused: git itself has none near it.
const STRUCTURE_LIMIT: u64 = 256 * 1024 * 1024;

/// An object directory with its alternates.
#[derive(Clone)]
pub(crate) struct Objects {
    store: Arc<gix::odb::Store>,
    directory: PathBuf,
}

/// A reader for one thread.
pub(crate) struct Reader {
    handle: gix::odb::HandleArc,
    /// The same, but a miss does not make it look for new packs.
    quick: gix::odb::HandleArc,
    buffer: Vec<u8>,
}

/// What a walk over history needs of a commit.
pub(crate) struct CommitParts {
    pub(crate) tree: TreeId,
    pub(crate) parents: Vec<CommitId>,
    pub(crate) seconds: i64,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeItem {
    pub(crate) name: bstr::BString,
    pub(crate) kind: EntryKind,
    pub(crate) id: gix::ObjectId,
}

impl Objects {
    /// Opens the object directory. `slots`: how many packs it may come to have while it is open.
    pub(crate) fn open(directory: &Path, slots: usize) -> Result<Objects, Error> {
        let options = gix::odb::store::init::Options {
            slots: gix::odb::store::init::Slots::AsNeededByDiskState {
                multiplier: 1.5,
                minimum: slots,
            },
            ..Default::default()
        };
        let store =
            gix::odb::Store::at_opts(directory.to_owned(), HASH, &mut std::iter::empty(), options)
                .map_err(|source| Error::io("opening the objects in", directory, source))?;
        Ok(Objects {
            store: Arc::new(store),
            directory: directory.to_owned(),
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn reader(&self) -> Reader {
        let mut handle = self.store.to_cache_arc();
        handle.set_pack_cache(|| Box::new(MemoryCappedHashmap::new(PACK_CACHE)));
        let mut quick = self.store.to_cache_arc();
        quick.refresh_never();
        Reader {
            handle,
            quick,
            buffer: Vec::new(),
        }
    }

    /// The file of an object, if it is or becomes a loose one.
    pub(crate) fn loose_path(&self, id: &gix::oid) -> PathBuf {
        let hex = id.to_hex().to_string();
        let (dir, file) = hex.split_at(2);
        self.directory.join(dir).join(file)
    }
}

impl Reader {
    /// Whether the object is there.
    pub(crate) fn contains(&self, id: &gix::oid) -> bool {
        gix::objs::Exists::exists(&self.handle, id)
    }

    /// As [`Reader::contains`], without looking for packs that came since the last miss: for objects that are probably
    /// new, where a wrong "no" costs a duplicate at most.
    pub(crate) fn contains_quick(&self, id: &gix::oid) -> bool {
        gix::objs::Exists::exists(&self.quick, id)
    }

    /// Kind and size without the content.
    pub(crate) fn header(&self, id: &gix::oid) -> Result<Option<(Kind, u64)>, Error> {
        match self.handle.try_header(id) {
            Ok(found) => Ok(found.map(|header| (header.kind(), header.size()))),
            Err(source) => Err(Error::object("reading", id.to_owned(), source)),
        }
    }

    /// The content of an object, in the reader's buffer.
    pub(crate) fn read(&mut self, id: &gix::oid) -> Result<Option<(Kind, &[u8])>, Error> {
        match self.handle.try_find(id, &mut self.buffer) {
            Ok(found) => Ok(found.map(|data| (data.kind, data.data))),
            Err(source) => Err(Error::object("reading", id.to_owned(), source)),
        }
    }

    fn read_kind(
        &mut self,
        id: &gix::oid,
        kind: Kind,
        expected: &'static str,
    ) -> Result<&[u8], Error> {
        if kind != Kind::Blob
            && let Some((_, size)) = self.header(id)?
            && size > STRUCTURE_LIMIT
        {
            return Err(Error::TooLarge {
                what: format!("git object {id}"),
                limit: STRUCTURE_LIMIT,
            });
        }
        match self.read(id)? {
            None => Err(Error::Missing {
                id: ObjectId(id.to_owned()),
            }),
            Some((found, data)) if found == kind => Ok(data),
            Some(_) => Err(Error::Malformed {
                id: ObjectId(id.to_owned()),
                expected,
            }),
        }
    }

    /// The content of a blob, whatever its size.
    pub(crate) fn blob(&mut self, id: &gix::oid) -> Result<&[u8], Error> {
        self.read_kind(id, Kind::Blob, "file")
    }

    /// The content of a blob of at most `limit` bytes.
    pub(crate) fn blob_within(&mut self, id: &gix::oid, limit: u64) -> Result<Vec<u8>, Error> {
        match self.header(id)? {
            None => Err(Error::Missing {
                id: ObjectId(id.to_owned()),
            }),
            Some((_, size)) if size > limit => Err(Error::TooLarge {
                what: format!("git object {id}"),
                limit,
            }),
            Some(_) => Ok(self.blob(id)?.to_vec()),
        }
    }

    /// The raw content of a commit.
    pub(crate) fn commit_data(&mut self, id: CommitId) -> Result<&[u8], Error> {
        self.read_kind(&id.0, Kind::Commit, "commit")
    }

    /// Tree, parents and committer time of a commit.
    pub(crate) fn commit(&mut self, id: CommitId) -> Result<CommitParts, Error> {
        let data = self.commit_data(id)?;
        let malformed = || Error::Malformed {
            id: id.into(),
            expected: "commit",
        };
        let commit = CommitRef::from_bytes(data, HASH).map_err(|_| malformed())?;
        let seconds = commit.time().map(|time| time.seconds).unwrap_or_default();
        Ok(CommitParts {
            tree: TreeId(commit.tree()),
            parents: commit.parents().map(CommitId).collect(),
            seconds,
        })
    }

    /// The entries of a tree in git's order.
    pub(crate) fn tree(&mut self, id: &gix::oid) -> Result<Vec<TreeItem>, Error> {
        if *id == *gix::ObjectId::empty_tree(HASH) {
            return Ok(Vec::new());
        }
        let data = self.read_kind(id, Kind::Tree, "tree")?;
        let mut items = Vec::new();
        for entry in TreeRefIter::from_bytes(data, HASH) {
            let entry = entry.map_err(|_| Error::Malformed {
                id: ObjectId(id.to_owned()),
                expected: "tree",
            })?;
            items.push(TreeItem {
                name: entry.filename.to_owned(),
                kind: entry.mode.kind(),
                id: entry.oid.to_owned(),
            });
        }
        Ok(items)
    }

    /// Writes an object if it is not there; says whether it was written.
    pub(crate) fn write(
        &mut self,
        kind: Kind,
        data: &[u8],
    ) -> Result<(gix::ObjectId, bool), Error> {
        let id = gix::objs::compute_hash(HASH, kind, data)
            .map_err(|source| Error::object("naming", gix::ObjectId::null(HASH), source))?;
        if self.contains_quick(&id) {
            return Ok((id, false));
        }
        self.handle
            .write_buf_with_known_id(kind, data, id)
            .map_err(|source| Error::object("writing", id, source))?;
        Ok((id, true))
    }

    /// Writes a blob from a stream of exactly `len` bytes.
    pub(crate) fn write_blob_stream(
        &mut self,
        len: u64,
        from: &mut dyn std::io::Read,
    ) -> Result<gix::ObjectId, gix::Error> {
        self.handle.write_stream(Kind::Blob, len, from)
    }

    /// The handle for functions of `gix`.
    pub(crate) fn handle(&self) -> &gix::odb::HandleArc {
        &self.handle
    }
}

/// Puts entries into git's order.
pub(crate) fn sort_tree(items: &mut [TreeItem]) {
    items.sort_by(|a, b| {
        name_order(
            &a.name,
            a.kind == EntryKind::Tree,
            &b.name,
            b.kind == EntryKind::Tree,
        )
    });
}

/// The content of a tree object; the entries are in git's order.
pub(crate) fn encode_tree(items: &[TreeItem]) -> Vec<u8> {
    let mut data = Vec::with_capacity(items.len() * 48);
    for item in items {
        data.extend_from_slice(item.kind.as_octal_str());
        data.push(b' ');
        data.extend_from_slice(&item.name);
        data.push(0);
        data.extend_from_slice(item.id.as_slice());
    }
    data
}
