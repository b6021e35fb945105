//! Which objects a commit brings, and making them survive a power failure.
//!
//! Objects are written without waiting for the disk. Before a reference moves to a commit, everything that the commit
//! brings over what was settled before is found again by comparing trees, whoever wrote it and in whatever process,
//! and synced at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gix::objs::tree::EntryKind;

use crate::error::Error;
use crate::ids::CommitId;
use crate::mirror::Mirror;
use crate::objects::{Objects, Reader, TreeItem};

/// Commits that may be new at once.
const COMMIT_LIMIT: usize = 1_000_000;
/// Files that are synced at the same time: the file system's journal takes them together.
const SYNC_THREADS: usize = 16;

impl Mirror {
    /// Makes a commit and all that it reaches survive a power failure.
    pub(crate) fn settle(&self, commit: CommitId) -> Result<(), Error> {
        let new = NewObjects {
            has_all_of: &|id| Ok(self.is_settled(id) || self.has_history(id)),
            has: &|_| false,
        }
        .collect(self, commit)?;
        sync_loose(self.objects(), &new)?;
        self.note_settled(commit);
        Ok(())
    }
}

/// Finds the objects that a commit brings to a place.
pub(crate) struct NewObjects<'a> {
    /// Whether the place has a commit with all that it reaches.
    pub(crate) has_all_of: &'a dyn Fn(CommitId) -> Result<bool, Error>,
    /// Whether the place has one object.
    pub(crate) has: &'a dyn Fn(&gix::oid) -> bool,
}

impl NewObjects<'_> {
    /// The objects, each after those that it needs.
    pub(crate) fn collect(
        &self,
        mirror: &Mirror,
        commit: CommitId,
    ) -> Result<Vec<gix::ObjectId>, Error> {
        let mut here = mirror.objects().reader();
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        // Depth first, a commit after its parents: (commit, whether its parents are done).
        let mut open = vec![(commit, false)];
        while let Some((id, ready)) = open.pop() {
            if ready {
                order.push(id);
                continue;
            }
            if (self.has_all_of)(id)? || !seen.insert(id) {
                continue;
            }
            if seen.len() > COMMIT_LIMIT {
                return Err(Error::TooLarge {
                    what: "the list of new commits".into(),
                    limit: COMMIT_LIMIT as u64,
                });
            }
            mirror.program().cancel().check("collecting new objects")?;
            open.push((id, true));
            open.extend(
                here.commit(id)?
                    .parents
                    .into_iter()
                    .map(|parent| (parent, false)),
            );
        }
        let mut walk = Walk {
            here,
            has: self.has,
            seen: HashSet::new(),
            found: Vec::new(),
        };
        for id in order {
            let commit = walk.here.commit(id)?;
            let before = match commit.parents.first() {
                Some(parent) => Some(walk.here.commit(*parent)?.tree.0),
                None => None,
            };
            walk.tree(before, commit.tree.0)?;
            walk.found.push(id.0);
        }
        Ok(walk.found)
    }
}

struct Walk<'a> {
    here: Reader,
    has: &'a dyn Fn(&gix::oid) -> bool,
    seen: HashSet<gix::ObjectId>,
    found: Vec<gix::ObjectId>,
}

impl Walk<'_> {
    /// Adds what a tree has and `before`, which the place has, does not.
    fn tree(&mut self, before: Option<gix::ObjectId>, id: gix::ObjectId) -> Result<(), Error> {
        if before == Some(id) || !self.seen.insert(id) {
            return Ok(());
        }
        let old: Vec<TreeItem> = match before {
            Some(before) => self.here.tree(&before)?,
            None => Vec::new(),
        };
        let old: HashMap<_, _> = old
            .into_iter()
            .map(|item| (item.name, (item.kind, item.id)))
            .collect();
        for item in self.here.tree(&id)? {
            let was = old.get(&item.name).copied();
            if was.is_some_and(|(_, id)| id == item.id) {
                continue;
            }
            match item.kind {
                EntryKind::Commit => {}
                EntryKind::Tree => {
                    let before = was
                        .filter(|(kind, _)| *kind == EntryKind::Tree)
                        .map(|(_, id)| id);
                    self.tree(before, item.id)?;
                }
                _ if self.seen.insert(item.id) && !(self.has)(&item.id) => self.found.push(item.id),
                _ => {}
            }
        }
        if !(self.has)(&id) {
            self.found.push(id);
        }
        Ok(())
    }
}

/// Makes loose objects, and the directories that name them, durable. Packs are so from the start.
pub(crate) fn sync_loose(objects: &Objects, ids: &[gix::ObjectId]) -> Result<(), Error> {
    let files: Vec<PathBuf> = ids.iter().map(|id| objects.loose_path(id)).collect();
    let directories: BTreeSet<&Path> = files.iter().filter_map(|path| path.parent()).collect();
    sync_all(&files)?;
    sync_all(
        &directories
            .into_iter()
            .map(Path::to_owned)
            .collect::<Vec<_>>(),
    )
}

fn sync_all(paths: &[PathBuf]) -> Result<(), Error> {
    let sync = |path: &PathBuf| match File::open(path).and_then(|file| file.sync_all()) {
        // In a pack, not loose.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|e| Error::io("writing", path, e)),
    };
    let each = paths.len().div_ceil(SYNC_THREADS).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = paths
            .chunks(each)
            .map(|part| scope.spawn(move || part.iter().try_for_each(sync)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}
