//! A checkout as a layer over another one: only what differs, as the kernel's overlay wants it.
//!
//! What is gone is a character device 0:0, a *whiteout*, which any user may make since Linux 5.8 (`mknod(2)`). It is
//! written only in directories that the lower layers have too: in others the overlay would show it. No directory is
//! ever made opaque, so that no extended attribute is needed: a file or a whiteout above a directory hides all of it,
//! and a directory above a file ends the search below it.
//!
//! The index is that of the checkout below with the changed entries replaced. What did not change keeps its size and
//! times through an overlay, so the index stays valid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bstr::{BStr, BString};
use gix::objs::tree::EntryKind;
use rustix::fs::{FileType, Mode, makedev, mkdirat, mknodat};

use crate::checkout::{
    DEPTH_LIMIT, FILE_LIMIT, INDEX, PACKS, SHALLOW, Writer, at, check_path, file_time,
    link_or_copy, open_directory, repository_texts, shallow_text, write_index,
};
use crate::error::Error;
use crate::history::{Both, History};
use crate::ids::{CommitId, TreeId};
use crate::index_edit::{self, Edits, OldIndex};
use crate::index_file::{CachedTree, FileStat, IndexEntry};
use crate::mirror::Mirror;
use crate::objects::TreeItem;
use crate::source::Source;

/// An index above this is not that of a checkout.
const INDEX_LIMIT: u64 = 4 << 30;

impl Mirror {
    /// How many entries a layer for the tree `after` over a checkout of `before` would hold; nothing if they are more
    /// than `limit`. No content is read, and no more trees than that allows.
    pub fn layer_size(
        &self,
        before: TreeId,
        after: TreeId,
        limit: usize,
    ) -> Result<Option<usize>, Error> {
        let mut objects = Both::new(self.objects(), None);
        let mut found = 0_usize;
        let mut open = vec![(Some(before.0), after.0)];
        while let Some((old, new)) = open.pop() {
            let old = match old {
                Some(id) if id == new => continue,
                Some(id) => by_name(objects.holding(&id).tree(&id)?),
                None => BTreeMap::new(),
            };
            let new = by_name(objects.holding(&new).tree(&new)?);
            // Each tree that is read is a directory or an entry of the layer.
            found += 1 + old.keys().filter(|name| !new.contains_key(*name)).count();
            for (name, item) in &new {
                let was = old.get(name);
                if was == Some(item) {
                    continue;
                }
                if item.kind == EntryKind::Tree {
                    let was = was.filter(|was| was.kind == EntryKind::Tree);
                    open.push((was.map(|was| was.id), item.id));
                } else {
                    found += 1;
                }
            }
            if found > limit {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// How many files the checkout with this tree on top has, by its index; nothing if it has none that can be read.
    pub fn checkout_len(&self, top: &Path) -> Option<usize> {
        let mut header = [0; 12];
        let mut file = File::open(top.join(INDEX)).ok()?;
        file.read_exact(&mut header).ok()?;
        index_edit::count(&header)
    }

    /// Writes into the empty directory `into` how `commit` differs from the checkout that the layers `below` make
    /// together (the nearest first). What is in it after a failure is for its owner to remove.
    ///
    /// # Errors
    /// [`Error::NotBelow`] where `below` is not a checkout that this crate wrote; those of [`Mirror::checkout`].
    pub fn checkout_over(
        &self,
        commit: CommitId,
        into: &Path,
        below: &[PathBuf],
        source: Option<&Source>,
    ) -> Result<(), Error> {
        let into = std::path::absolute(into).map_err(|e| Error::io("finding", into, e))?;
        self.mend_history(commit)?;
        let fetch = source.filter(|_| !self.has_history(commit));
        std::thread::scope(|scope| {
            let history = scope.spawn(|| self.history(commit, source));
            let files = self.write_layer(commit, &into, below, fetch);
            let history = match history.join() {
                Ok(history) => history?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            let files = files?;
            write_repository(self, commit, &into, below, &history)?;
            write_index(&into, |file| {
                files.index.write(file, files.edits, &files.root)
            })
        })
    }

    fn write_layer(
        &self,
        commit: CommitId,
        into: &Path,
        below: &[PathBuf],
        source: Option<&Source>,
    ) -> Result<Files, Error> {
        let not_below = || not_below(below);
        let index = read(&below.first().ok_or_else(not_below)?.join(INDEX))?;
        let mut index = index.and_then(OldIndex::parse).ok_or_else(not_below)?;
        let mut comparison = Comparison {
            mirror: self,
            commit,
            below,
            objects: Both::new(self.objects(), source.map(Source::objects)),
            layer: Layer::default(),
            edits: Edits::default(),
        };
        let tree = comparison.objects.commit(commit)?.tree;
        let old = std::mem::replace(&mut index.root, CachedTree::none());
        let root = comparison.tree(
            Some(old),
            tree.0,
            &BString::default(),
            BString::default(),
            0,
        )?;
        if root.files > FILE_LIMIT {
            let limit = FILE_LIMIT;
            return Err(Error::TooManyFiles { commit, limit });
        }
        let Comparison {
            layer, mut edits, ..
        } = comparison;

        let top = open_directory(into)?;
        for path in &layer.directories {
            directory(&top, into, path.as_ref())?;
        }
        for path in &layer.gone {
            whiteout(&top, into, path.as_ref())?;
        }
        let writer = Writer {
            mirror: self,
            theirs: source,
            staging: into,
            top: &top,
            time: file_time()?,
        };
        writer.write_all(&mut edits.put)?;
        Ok(Files { index, edits, root })
    }
}

/// What the index is made of.
struct Files {
    index: OldIndex,
    edits: Edits,
    root: CachedTree,
}

/// What is in the layer beside files and links.
#[derive(Default)]
struct Layer {
    /// Each after the one that it is in.
    directories: Vec<BString>,
    gone: Vec<BString>,
}

/// Compares a commit with the checkout below it.
struct Comparison<'a> {
    mirror: &'a Mirror,
    commit: CommitId,
    below: &'a [PathBuf],
    objects: Both,
    layer: Layer,
    edits: Edits,
}

impl Comparison<'_> {
    /// Notes how the tree `id` differs from what is in its place (`old`, where that is a directory).
    fn tree(
        &mut self,
        old: Option<CachedTree>,
        id: gix::ObjectId,
        prefix: &BString,
        name: BString,
        depth: usize,
    ) -> Result<CachedTree, Error> {
        self.mirror.program().cancel().check("comparing files")?;
        let too_many = || Error::TooManyFiles {
            commit: self.commit,
            limit: FILE_LIMIT,
        };
        let noted = self
            .edits
            .put
            .len()
            .saturating_add(self.layer.directories.len());
        if depth > DEPTH_LIMIT || noted > FILE_LIMIT {
            return Err(too_many());
        }
        let old = match old {
            Some(old) if old.id == id => return Ok(CachedTree { name, ..old }),
            old => old,
        };
        let was = match &old {
            Some(old) => by_name(self.objects.holding(&old.id).tree(&old.id)?),
            None => BTreeMap::new(),
        };
        let mut known: BTreeMap<BString, CachedTree> = old
            .into_iter()
            .flat_map(|old| old.children)
            .map(|child| (child.name.clone(), child))
            .collect();
        let items = self.objects.holding(&id).tree(&id)?;
        let mut tree = CachedTree {
            name,
            id,
            files: 0,
            children: Vec::new(),
        };
        let mut names = BTreeSet::new();
        for item in items {
            let path = joined(prefix, &item.name);
            let before = was.get(&item.name);
            if before.is_none_or(|before| *before != item) {
                check_path(&path, &item)?;
            }
            if item.kind == EntryKind::Tree {
                let child = self.directory(&path, before, &item, &mut known, depth)?;
                tree.files = tree.files.saturating_add(child.files);
                tree.children.push(child);
            } else {
                tree.files += 1;
                if before.is_none_or(|before| *before != item) {
                    self.file(path, before, &item)?;
                }
            }
            names.insert(item.name);
        }
        for name in was.into_keys().filter(|name| !names.contains(name)) {
            let path = joined(prefix, &name);
            self.layer.gone.push(path.clone());
            self.edits.gone.push(path);
        }
        Ok(tree)
    }

    /// A directory of the commit.
    fn directory(
        &mut self,
        path: &BString,
        before: Option<&TreeItem>,
        item: &TreeItem,
        known: &mut BTreeMap<BString, CachedTree>,
        depth: usize,
    ) -> Result<CachedTree, Error> {
        let was = before.filter(|before| before.kind == EntryKind::Tree);
        let old = was.and_then(|_| known.remove(&item.name));
        if was.is_some() && old.is_none() {
            return Err(not_below(self.below));
        }
        if was.is_none_or(|was| was.id != item.id) {
            self.layer.directories.push(path.clone());
            if before.is_some() && was.is_none() {
                self.edits.gone.push(path.clone());
            }
        }
        let mut prefix = path.clone();
        prefix.push(b'/');
        self.tree(old, item.id, &prefix, item.name.clone(), depth + 1)
    }

    /// A file, link or submodule of the commit that differs.
    fn file(
        &mut self,
        path: BString,
        before: Option<&TreeItem>,
        item: &TreeItem,
    ) -> Result<(), Error> {
        let was_directory = before.filter(|before| before.kind == EntryKind::Tree);
        if was_directory.is_some() {
            self.edits.gone.push(path.clone());
        }
        if item.kind == EntryKind::Commit {
            // A submodule is an empty directory.
            if before.is_none_or(|before| before.kind != EntryKind::Commit) {
                self.layer.directories.push(path.clone());
            }
            if let Some(was) = was_directory {
                for below in self.objects.holding(&was.id).tree(&was.id)? {
                    let mut path = path.clone();
                    path.push(b'/');
                    path.extend_from_slice(&below.name);
                    self.layer.gone.push(path);
                }
            }
        }
        self.edits.put.push(IndexEntry {
            path,
            mode: item.kind as u32,
            id: item.id,
            stat: FileStat::default(),
        });
        Ok(())
    }
}

fn not_below(below: &[PathBuf]) -> Error {
    Error::NotBelow {
        path: below.first().cloned().unwrap_or_default(),
    }
}

fn joined(prefix: &BString, name: &BString) -> BString {
    let mut path = prefix.clone();
    path.extend_from_slice(name);
    path
}

fn by_name(items: Vec<TreeItem>) -> BTreeMap<BString, TreeItem> {
    let named = items.into_iter().map(|item| (item.name.clone(), item));
    named.collect()
}

fn directory(top: &OwnedFd, into: &Path, path: &BStr) -> Result<(), Error> {
    mkdirat(top, path.as_ref() as &[u8], Mode::from_raw_mode(0o777))
        .map_err(|e| at("creating", into, path, e))
}

fn whiteout(top: &OwnedFd, into: &Path, path: &BStr) -> Result<(), Error> {
    let device = (FileType::CharacterDevice, Mode::empty(), makedev(0, 0));
    mknodat(top, path.as_ref() as &[u8], device.0, device.1, device.2)
        .map_err(|e| at("hiding what is gone at", into, path, e))
}

/// Writes what of `.git` differs, but for the index.
fn write_repository(
    mirror: &Mirror,
    commit: CommitId,
    into: &Path,
    below: &[PathBuf],
    history: &History,
) -> Result<(), Error> {
    for part in [PACKS, ".git/info", ".git/refs/heads/skep"] {
        let path = into.join(part);
        fs::create_dir_all(&path).map_err(|e| Error::io("creating", path, e))?;
    }
    let mut texts = Vec::from(repository_texts(commit));
    texts.push((SHALLOW.into(), shallow_text(history)));
    let top = open_directory(into)?;
    for (part, text) in texts {
        let was = text_below(below, &part)?;
        if text.is_empty() {
            if was.is_some() {
                whiteout(&top, into, part.as_str().into())?;
            }
        } else if was.as_deref() != Some(text.as_bytes()) {
            let path = into.join(&part);
            fs::write(&path, text).map_err(|e| Error::io("writing", path, e))?;
        }
    }
    let wanted: BTreeSet<String> = history
        .packs
        .iter()
        .flat_map(|pack| ["pack", "idx"].map(|ending| format!("{pack}.{ending}")))
        .collect();
    let present = packs_below(below)?;
    let packs = mirror.objects().directory().join("pack");
    for file in wanted.difference(&present) {
        link_or_copy(&packs.join(file), &into.join(PACKS).join(file))?;
    }
    for file in present.difference(&wanted) {
        whiteout(&top, into, format!("{PACKS}/{file}").as_str().into())?;
    }
    Ok(())
}

/// The content of a file of `.git` as the layers have it.
fn text_below(below: &[PathBuf], part: &str) -> Result<Option<Vec<u8>>, Error> {
    for layer in below {
        let path = layer.join(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if is_whiteout(&found) => return Ok(None),
            Ok(_) => return read(&path),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("reading", path, e)),
        }
    }
    Ok(None)
}

/// The names in the directory of packs as the layers have it.
fn packs_below(below: &[PathBuf]) -> Result<BTreeSet<String>, Error> {
    let mut names = BTreeSet::new();
    for layer in below.iter().rev() {
        let place = layer.join(PACKS);
        let failed = |e| Error::io("reading", &place, e);
        for entry in fs::read_dir(&place).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if is_whiteout(&entry.metadata().map_err(failed)?) {
                names.remove(&name);
            } else {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

fn is_whiteout(found: &fs::Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

/// The content of a file; nothing if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |e| Error::io("reading", path, e);
    let mut content = Vec::new();
    match File::open(path) {
        Ok(file) => file
            .take(INDEX_LIMIT)
            .read_to_end(&mut content)
            .map_err(failed)?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    Ok(Some(content))
}
