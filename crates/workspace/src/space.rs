//! What a store takes on disk, and which of its bases could go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, FileType};

use crate::base::BaseInfo;
use crate::error::{Error, io};
use crate::remove::Emptied;
use crate::store::{Store, names_in};
use crate::usage;

/// What a store takes on disk. Directories and what they hold count as the file system counts them; a
/// file with several names counts for each name in part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Space {
    /// Its bases, sorted by key.
    pub bases: Vec<BaseInfo>,
    /// Its workspaces, sorted by id.
    pub workspaces: Vec<WorkspaceInfo>,
    /// The layers that workspaces share, sorted by name.
    pub layers: Vec<LayerInfo>,
    /// What waits to be deleted, and what is being built.
    pub trash: TrashInfo,
}

/// A layer that a workspace and its forks share, as [`Store::space`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its name.
    pub name: String,
    /// What it takes on disk in bytes.
    pub bytes: u64,
    /// The workspaces whose records name it; where none does, it goes. Not known where a record cannot be
    /// read: then all stay.
    pub users: Option<Vec<String>>,
}

/// A workspace as [`Store::space`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceInfo {
    /// Its id.
    pub id: String,
    /// What it takes on disk in bytes, its base not counted.
    pub bytes: u64,
}

/// What waits to be deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrashInfo {
    /// Bases and workspaces.
    pub entries: usize,
    /// What they take on disk in bytes.
    pub bytes: u64,
}

impl Space {
    /// All of it, in bytes.
    pub fn bytes(&self) -> u64 {
        let bases = self.bases.iter().map(|base| base.bytes);
        let workspaces = self.workspaces.iter().map(|workspace| workspace.bytes);
        let layers = self.layers.iter().map(|layer| layer.bytes);
        bases
            .chain(workspaces)
            .chain(layers)
            .chain([self.trash.bytes])
            .fold(0, u64::saturating_add)
    }

    /// The bases that nobody uses, in the order in which they can be evicted: the longest unused
    /// first, but none before those that lie over it.
    pub fn spare_bases(&self) -> Vec<&BaseInfo> {
        let mut over: HashMap<&str, usize> = HashMap::new();
        for parent in self.bases.iter().filter_map(|base| base.parent.as_deref()) {
            *over.entry(parent).or_default() += 1;
        }
        let mut left: Vec<&BaseInfo> = self
            .bases
            .iter()
            .filter(|base| base.used_by.is_none())
            .collect();
        left.sort_by_key(|base| base.last_use);
        let mut spare = Vec::new();
        while let Some(next) = left
            .iter()
            .position(|base| over.get(base.key.as_str()).is_none_or(|count| *count == 0))
        {
            let base = left.remove(next);
            if let Some(count) = base.parent.as_deref().and_then(|key| over.get_mut(key)) {
                *count -= 1;
            }
            spare.push(base);
        }
        spare
    }
}

impl Store {
    /// Measures the store: a look at each file of its workspaces and of its trash, and of bases that
    /// were not measured before. What vanishes meanwhile does not count.
    ///
    /// # Errors
    /// [`Error::Stopped`] once `stop` is set; [`Error::Io`].
    pub fn space(&self, stop: &AtomicBool) -> Result<Space, Error> {
        let bases = self.bases()?;
        let mut workspaces = Vec::new();
        for id in self.list()? {
            check(stop)?;
            if let Some(bytes) = unless_gone(self.workspace_bytes(&id))? {
                workspaces.push(WorkspaceInfo { id, bytes });
            }
        }
        let mut layers = Vec::new();
        for (name, users) in self.shared_layers()? {
            check(stop)?;
            if let Some(bytes) = unless_gone(usage::bytes(&self.layers().join(&name)))? {
                layers.push(LayerInfo { name, bytes, users });
            }
        }
        let mut trash = TrashInfo::default();
        for part in [self.trash(), self.new_bases(), self.new_workspaces()] {
            check(stop)?;
            for name in names_in(&part)? {
                if let Some(bytes) = unless_gone(usage::bytes(&part.join(name)))? {
                    trash.entries += 1;
                    trash.bytes = trash.bytes.saturating_add(bytes);
                }
            }
        }
        Ok(Space {
            bases,
            workspaces,
            layers,
            trash,
        })
    }

    /// What a workspace takes. The kernel's scratch directories are left alone: they hold nothing that
    /// lasts, and belong to a mount that may be alive.
    fn workspace_bytes(&self, id: &str) -> Result<u64, Error> {
        let dir = self.workspace_dir(id);
        let mut bytes = 0_u64;
        for name in names_in(&dir)? {
            if name.starts_with("work") || name.starts_with("spent") {
                continue;
            }
            let part = dir.join(name);
            let found = fs::lstat(&part).map_err(io("look at", &part))?;
            bytes = bytes.saturating_add(match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => usage::bytes(&part)?,
                _ => u64::try_from(found.st_blocks)
                    .unwrap_or(0)
                    .saturating_mul(512),
            });
        }
        Ok(bytes)
    }

    /// As [`Store::empty_trash`], one after the other; `progress` is told how many are done, of how
    /// many.
    ///
    /// # Errors
    /// Those of [`Store::empty_trash`].
    pub fn empty_trash_telling(
        &self,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Emptied, Error> {
        crate::remove::empty(&self.trash(), stop, progress)
    }
}

fn check(stop: &AtomicBool) -> Result<(), Error> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Stopped);
    }
    Ok(())
}

/// What was measured, unless it was moved or deleted meanwhile.
fn unless_gone(measured: Result<u64, Error>) -> Result<Option<u64>, Error> {
    use rustix::io::Errno;
    match measured {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::Io { source, .. })
            if [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
                .iter()
                .any(|errno| source.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn base(key: &str, parent: Option<&str>, used_by: Option<&str>, age: u64) -> BaseInfo {
        BaseInfo {
            key: key.to_owned(),
            bytes: 1,
            parent: parent.map(str::to_owned),
            used_by: used_by.map(str::to_owned),
            last_use: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 - age),
        }
    }

    #[test]
    fn the_longest_unused_base_goes_first_and_none_before_what_lies_over_it() {
        let space = Space {
            bases: vec![
                base("a", None, None, 900),
                base("a1", Some("a"), None, 500),
                base("a2", Some("a1"), None, 400),
                base("b", None, None, 700),
                base("c", None, None, 800),
                base("c1", Some("c"), Some("a process"), 800),
                base("d", None, Some("workspace w"), 999),
            ],
            ..Space::default()
        };
        let keys: Vec<_> = space.spare_bases().iter().map(|it| &*it.key).collect();
        assert_eq!(keys, ["b", "a2", "a1", "a"]);
        assert_eq!(space.bytes(), 7);
    }
}
