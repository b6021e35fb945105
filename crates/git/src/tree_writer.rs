//! A tree from a base tree and a stream of entries: what `git add -A` and `git write-tree` would make of the same
//! files, without a working tree. Only the directories on the way to a change are read and written.

use std::collections::BTreeMap;
use std::io::Read;

use bstr::{BStr, BString, ByteSlice};
use gix::objs::Kind;
use gix::objs::tree::EntryKind;

use crate::entry_names;
use crate::error::Error;
use crate::ids::TreeId;
use crate::mirror::Mirror;
use crate::objects::{Reader, TreeItem, encode_tree, sort_tree};

/// Files up to this size are named before they are written, so that known content costs no write.
const IN_MEMORY: u64 = 4 * 1024 * 1024;

/// Builds a tree. Later calls win over earlier ones; the order is otherwise free. Nothing refers to what it wrote
/// until a commit does.
pub struct TreeWriter {
    reader: Reader,
    base: TreeId,
    root: Node,
}

/// What [`TreeWriter::finish`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The tree.
    pub tree: TreeId,
    /// Files that were put below a submodule of the base, where git tracks none: they are not in the tree.
    pub below_submodules: Vec<BString>,
}

enum Change {
    Put(EntryKind, gix::ObjectId),
    Removed,
    Inside(Node),
}

#[derive(Default)]
struct Node {
    /// Nothing of the base's directory stays.
    cleared: bool,
    /// Whatever the base had of this name, a submodule too, was removed or overwritten before.
    replaced: bool,
    /// Something was put below, so it is a directory, whatever the base has.
    made: bool,
    children: BTreeMap<BString, Change>,
}

impl Mirror {
    /// A writer that starts from `base` ([`TreeId::empty`] for nothing).
    pub fn tree_writer(&self, base: TreeId) -> TreeWriter {
        let reader = self.objects().reader();
        TreeWriter {
            reader,
            base,
            root: Node::default(),
        }
    }
}

impl TreeWriter {
    /// Puts a file with the `len` bytes of `content`, in the place of whatever is there.
    ///
    /// # Errors
    /// [`Error::BadPath`] for a path that may not be in a tree, [`Error::LengthChanged`] when `content` is not `len`
    /// bytes long; the writer is as before then.
    pub fn put_file(
        &mut self,
        path: &BStr,
        executable: bool,
        content: &mut dyn Read,
        len: u64,
    ) -> Result<(), Error> {
        let parts = entry_names::components(path, false)?;
        let id = self.write_blob(path, content, len)?;
        let kind = if executable {
            EntryKind::BlobExecutable
        } else {
            EntryKind::Blob
        };
        put(&mut self.root, &parts, Change::Put(kind, id));
        Ok(())
    }

    /// Puts a symbolic link. The target is data: it may point anywhere.
    pub fn put_link(&mut self, path: &BStr, target: &BStr) -> Result<(), Error> {
        let parts = entry_names::components(path, true)?;
        if target.is_empty()
            || target.len() > entry_names::PATH_LIMIT
            || target.find_byte(0).is_some()
        {
            return Err(Error::BadPath {
                path: path.to_owned(),
                why: "it is a link whose target no system accepts",
            });
        }
        let id = self.write(Kind::Blob, target)?;
        put(&mut self.root, &parts, Change::Put(EntryKind::Link, id));
        Ok(())
    }

    /// Removes a file, or a directory with all that is in it. What is not there stays so.
    pub fn remove(&mut self, path: &BStr) -> Result<(), Error> {
        let parts = entry_names::components(path, false)?;
        let Some((last, parents)) = parts.split_last() else {
            return Ok(());
        };
        let mut node = &mut self.root;
        for part in parents {
            match node
                .children
                .entry((*part).to_owned())
                .or_insert_with(|| Change::Inside(Node::default()))
            {
                Change::Inside(inside) => node = inside,
                // Overwritten or removed already: there is nothing below.
                Change::Put(..) | Change::Removed => return Ok(()),
            }
        }
        node.children.insert((*last).to_owned(), Change::Removed);
        Ok(())
    }

    /// Makes a directory that hides all that the base has below it (an opaque directory of an overlay). Files put
    /// there afterwards stay. An empty `path` is the top.
    pub fn clear(&mut self, path: &BStr) -> Result<(), Error> {
        if path.is_empty() {
            self.root = Node {
                cleared: true,
                ..Node::default()
            };
            return Ok(());
        }
        let parts = entry_names::components(path, false)?;
        put(
            &mut self.root,
            &parts,
            Change::Inside(Node {
                cleared: true,
                ..Node::default()
            }),
        );
        Ok(())
    }

    /// Writes the trees. Directories without files are not in them, as in git.
    pub fn finish(mut self) -> Result<Written, Error> {
        let root = std::mem::take(&mut self.root);
        let mut below = Vec::new();
        let base = self.base.0;
        let tree = match self.build(Some(base), &root, &BString::default(), &mut below)? {
            Some(id) => TreeId(id),
            None => TreeId(self.write(Kind::Tree, b"")?),
        };
        Ok(Written {
            tree,
            below_submodules: below,
        })
    }

    /// The tree that a node makes of a base; nothing when it is empty.
    fn build(
        &mut self,
        base: Option<gix::ObjectId>,
        node: &Node,
        prefix: &BString,
        below: &mut Vec<BString>,
    ) -> Result<Option<gix::ObjectId>, Error> {
        let kept = !(node.cleared || node.replaced);
        let before = match base {
            Some(id) if kept => self.reader.tree(&id)?,
            _ => Vec::new(),
        };
        let mut after = Vec::with_capacity(before.len() + node.children.len());
        let mut existing: BTreeMap<&BStr, &TreeItem> = BTreeMap::new();
        for item in &before {
            if node.children.contains_key(&item.name) {
                existing.insert(item.name.as_ref(), item);
            } else {
                after.push(item.clone());
            }
        }
        for (name, change) in &node.children {
            let item = existing.get(BStr::new(name)).copied();
            let made = match change {
                Change::Put(kind, id) => Some(TreeItem {
                    name: name.clone(),
                    kind: *kind,
                    id: *id,
                }),
                Change::Removed => None,
                Change::Inside(inside) => {
                    let mut path = prefix.clone();
                    path.extend_from_slice(name);
                    path.push(b'/');
                    self.build_inside(item, inside, name, &path, below)?
                }
            };
            after.extend(made);
        }
        if after.is_empty() {
            return Ok(None);
        }
        sort_tree(&mut after);
        if let Some(id) = base
            && kept
            && after == before
        {
            return Ok(Some(id));
        }
        let data = encode_tree(&after);
        self.write(Kind::Tree, &data).map(Some)
    }

    fn build_inside(
        &mut self,
        item: Option<&TreeItem>,
        inside: &Node,
        name: &BString,
        path: &BString,
        below: &mut Vec<BString>,
    ) -> Result<Option<TreeItem>, Error> {
        let tree = |id| TreeItem {
            name: name.clone(),
            kind: EntryKind::Tree,
            id,
        };
        match item {
            Some(item) if item.kind == EntryKind::Tree => {
                Ok(self.build(Some(item.id), inside, path, below)?.map(tree))
            }
            // A submodule's directory has no files of this repository, whatever is in it.
            Some(item) if item.kind == EntryKind::Commit && !inside.replaced => {
                collect_puts(inside, path, below);
                Ok(Some(item.clone()))
            }
            Some(item) => Ok(match self.build(None, inside, path, below)? {
                Some(id) => Some(tree(id)),
                None if inside.made || inside.cleared || inside.replaced => None,
                // Only removals below a file: there was nothing to remove.
                None => Some(item.clone()),
            }),
            None => Ok(self.build(None, inside, path, below)?.map(tree)),
        }
    }

    fn write_blob(
        &mut self,
        path: &BStr,
        content: &mut dyn Read,
        len: u64,
    ) -> Result<gix::ObjectId, Error> {
        let mismatch = |found| Error::LengthChanged {
            path: path.to_owned(),
            expected: len,
            found,
        };
        let failed = |source| Error::io("reading", path.to_str_lossy().into_owned(), source);
        if len <= IN_MEMORY {
            let mut data = Vec::with_capacity(len as usize);
            content
                .take(len + 1)
                .read_to_end(&mut data)
                .map_err(failed)?;
            if data.len() as u64 != len {
                return Err(mismatch(data.len() as u64));
            }
            return self.write(Kind::Blob, &data);
        }
        let mut counted = Exactly {
            content: &mut *content,
            left: len,
        };
        let outcome = self.reader.write_blob_stream(len, &mut counted);
        if counted.left != 0 {
            return Err(mismatch(len - counted.left));
        }
        let id = outcome.map_err(|source| {
            Error::object("writing", gix::ObjectId::null(crate::objects::HASH), source)
        })?;
        if content.read(&mut [0]).map_err(failed)? != 0 {
            return Err(mismatch(len + 1));
        }
        Ok(id)
    }

    fn write(&mut self, kind: Kind, data: &[u8]) -> Result<gix::ObjectId, Error> {
        self.reader.write(kind, data).map(|(id, _)| id)
    }
}

/// Sets a change at a path; directories on the way take the place of files that were put there.
fn put(root: &mut Node, parts: &[&BStr], change: Change) {
    let Some((last, parents)) = parts.split_last() else {
        return;
    };
    let mut node = root;
    for part in parents {
        let child = node
            .children
            .entry((*part).to_owned())
            .or_insert_with(|| Change::Inside(Node::default()));
        if !matches!(child, Change::Inside(_)) {
            *child = Change::Inside(Node {
                replaced: true,
                ..Node::default()
            });
        }
        let Change::Inside(inside) = child else {
            return;
        };
        inside.made = true;
        node = inside;
    }
    let change = match (change, node.children.get(BStr::new(last))) {
        (Change::Inside(new), Some(Change::Put(..) | Change::Removed)) => Change::Inside(Node {
            replaced: true,
            ..new
        }),
        (Change::Inside(new), Some(Change::Inside(old))) => Change::Inside(Node {
            replaced: old.replaced,
            ..new
        }),
        (change, _) => change,
    };
    node.children.insert((*last).to_owned(), change);
}

fn collect_puts(node: &Node, prefix: &BString, into: &mut Vec<BString>) {
    for (name, change) in &node.children {
        let mut path = prefix.clone();
        path.extend_from_slice(name);
        match change {
            Change::Put(..) => into.push(path),
            Change::Removed => {}
            Change::Inside(inside) => {
                path.push(b'/');
                collect_puts(inside, &path, into);
            }
        }
    }
}

/// Ends after `left` bytes, and fails when they do not come: a short object would be named wrongly.
struct Exactly<'a> {
    content: &'a mut dyn Read,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let want = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(part) = buffer.get_mut(..want) else {
            return Ok(0);
        };
        let n = self.content.read(part)?;
        if n == 0 && want > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}
