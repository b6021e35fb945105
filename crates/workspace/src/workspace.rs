//! The files of one attempt.

use std::path::{Path, PathBuf};

use rustix::fs;
use rustix::io::Errno;

use crate::base::{Base, make_dir};
use crate::change::{Change, Everything, Limits, Summary, Visitor};
use crate::copy;
use crate::dir::Dir;
use crate::error::{Error, io, std_io};
use crate::lock::{Hold, Lock};
use crate::manifest::Manifest;
use crate::overlay;
use crate::record::{self, Record};
use crate::store::{Layering, Store, rename_new};
use crate::usage::{self, Taken};

/// How often a workspace is opened again.
const MAX_REOPENED: u32 = 1_000;

/// What has to be mounted, or used as it is, so that an attempt sees its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// An overlay, to be mounted with `userxattr`. A mount outside a user namespace must use it too:
    /// what an agent can forge depends on it.
    Overlay {
        /// The layers below, topmost first.
        lowers: Vec<PathBuf>,
        /// The layer that is written.
        upper: PathBuf,
        /// The kernel's scratch directory; never shown to the agent.
        work: PathBuf,
    },
    /// A directory of its own.
    Directory(PathBuf),
}

/// Measures what the files of an attempt take on disk.
#[derive(Debug, Clone)]
pub struct Meter {
    parts: [PathBuf; 3],
}

impl Meter {
    /// What they take: the layer that is written, the home and the temporary directory;
    /// never the base. A plain copy counts whole. A directory that only its owner in the sandbox
    /// could open, and a file that has no name any more, are not counted.
    ///
    /// # Errors
    /// [`Error::Io`], also when the workspace is gone.
    pub fn taken(&self) -> Result<Taken, Error> {
        let mut taken = Taken::default();
        for part in &self.parts {
            taken = taken.and(usage::taken(part)?);
        }
        Ok(taken)
    }
}

/// The files of an attempt: layers over a base, a home and a temporary directory. While the handle
/// lives, no process sweeps it.
#[derive(Debug)]
pub struct Workspace {
    store: Store,
    id: String,
    dir: PathBuf,
    record: Record,
    /// The trees of the base, nearest first.
    base: Vec<PathBuf>,
    _lock: Lock,
}

impl Workspace {
    /// Fills the new directory `dir`.
    pub(crate) fn build(dir: &Path, base: &Base, kind: Layering) -> Result<(), Error> {
        for part in ["home", "tmp"] {
            make_dir(&dir.join(part))?;
        }
        match kind {
            Layering::Overlay => {
                for part in ["upper", "work"] {
                    make_dir(&dir.join(part))?;
                }
            }
            Layering::Copy => {
                copy::copy(base.trees(), &dir.join("tree"))?.write(&dir.join("manifest"))?
            }
        }
        Record {
            kind,
            base: base.key().to_owned(),
            layers: 0,
            boot: record::this_boot(),
        }
        .write(dir)
    }

    /// Opens a workspace whose processes were killed, to be mounted again.
    pub(crate) fn reopen(store: &Store, id: &str) -> Result<Workspace, Error> {
        let dir = store.workspace_dir(id);
        match fs::lstat(&dir) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Err(Error::NoWorkspace { id: id.to_owned() }),
            Err(errno) => return Err(io("look at", &dir)(errno)),
        }
        let lock = Lock::directory(&dir, Hold::Alone)?
            .ok_or_else(|| Error::WorkspaceInUse { id: id.to_owned() })?;
        let record = Record::read(&dir)?;
        if record.boot.is_none() || record.boot != record::this_boot() {
            return Err(Error::OtherBoot { id: id.to_owned() });
        }
        let trees = store.trees_of(&record.base)?;
        if trees.iter().any(|tree| fs::lstat(tree).is_err()) {
            return Err(Error::NoBase { key: record.base });
        }
        if record.kind == Layering::Overlay {
            renew_work(&dir)?;
        }
        let lock = lock
            .share(&dir)?
            .ok_or_else(|| Error::NoWorkspace { id: id.to_owned() })?;
        Self::held(store, id, lock)
    }

    pub(crate) fn open(store: &Store, id: &str) -> Result<Workspace, Error> {
        let dir = store.workspace_dir(id);
        match fs::lstat(&dir) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Err(Error::NoWorkspace { id: id.to_owned() }),
            Err(errno) => return Err(io("look at", &dir)(errno)),
        }
        // Held otherwise only by a sweep, which is about to take it away.
        let lock = Lock::directory(&dir, Hold::Shared)?
            .ok_or_else(|| Error::NoWorkspace { id: id.to_owned() })?;
        Self::held(store, id, lock)
    }

    /// The workspace `id`, whose directory the lock holds.
    pub(crate) fn held(store: &Store, id: &str, lock: Lock) -> Result<Workspace, Error> {
        let dir = store.workspace_dir(id);
        let record = Record::read(&dir)?;
        Ok(Workspace {
            store: store.clone(),
            id: id.to_owned(),
            base: store.trees_of(&record.base)?,
            record,
            dir,
            _lock: lock,
        })
    }

    /// The id under which it was created.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key of the base that it lies over.
    pub fn base_key(&self) -> &str {
        &self.record.base
    }

    /// How its files lie over the base.
    pub fn layering(&self) -> Layering {
        self.record.kind
    }

    /// What to mount, or use as it is.
    pub fn layers(&self) -> Layers {
        match self.record.kind {
            Layering::Overlay => Layers::Overlay {
                lowers: self.lowers(),
                upper: self.dir.join("upper"),
                work: self.dir.join("work"),
            },
            Layering::Copy => Layers::Directory(self.dir.join("tree")),
        }
    }

    /// The attempt's private home directory.
    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// The attempt's private temporary directory.
    pub fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Visits what the attempt changed, as data. The attempt's processes should be dead; where one is
    /// not, the worst that it can do is an [`Error::Changed`] or content of its own choice.
    ///
    /// Files and directories that their owner made unreadable are opened by widening their permissions
    /// for the moment; the permissions that are reported are those from before.
    ///
    /// # Errors
    /// Those of `visit`; [`Error::Limit`], [`Error::Changed`], [`Error::Record`], [`Error::Io`].
    pub fn changes<E: From<Error>>(
        &self,
        limits: &Limits,
        visit: &mut dyn FnMut(Change) -> Result<(), E>,
    ) -> Result<Summary, E> {
        self.wanted_changes(limits, &mut Everything(visit))
    }

    /// Visits those of the changes that the visitor wants; see [`Workspace::changes`].
    ///
    /// # Errors
    /// Those of the visitor and of [`Workspace::changes`].
    pub fn wanted_changes<E: From<Error>>(
        &self,
        limits: &Limits,
        visitor: &mut dyn Visitor<E>,
    ) -> Result<Summary, E> {
        let part = self.written();
        let root = Dir::open(&part).map_err(io("open", &part))?;
        match self.record.kind {
            Layering::Overlay => overlay::changes(root, limits, visitor),
            Layering::Copy => {
                let manifest = Manifest::read(&self.dir.join("manifest"))?;
                copy::changes(root, &manifest, limits, visitor)
            }
        }
    }

    /// Measures what the attempt's files take on disk; it does not keep the workspace.
    pub fn meter(&self) -> Meter {
        Meter {
            parts: [self.written(), self.home(), self.tmp()],
        }
    }

    /// What the attempt's files take on disk, in bytes; see [`Meter::taken`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn disk_bytes(&self) -> Result<u64, Error> {
        self.meter().taken().map(|taken| taken.bytes)
    }

    /// Moves the workspace to the trash: one rename, whatever its size. Unmount it first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn delete(self) -> Result<(), Error> {
        self.store.discard(&self.dir)
    }

    /// Makes what was written so far part of what the workspace lies over: it is no change any more.
    /// Nothing may run in the workspace, and no mount of it may be left.
    ///
    /// # Errors
    /// [`Error::Io`]; the workspace must then be thrown away.
    pub fn freeze(&mut self) -> Result<(), Error> {
        match self.record.kind {
            Layering::Overlay => {
                let layer = self.dir.join(format!("layer-{}", self.record.layers));
                let (upper, work) = (self.dir.join("upper"), self.dir.join("work"));
                std::fs::rename(&upper, &layer).map_err(std_io("freeze", &upper))?;
                // The kernel left its scratch there, closed even to its owner: the end of the
                // workspace deletes it.
                let spent = self.dir.join(format!("work-{}", self.record.layers));
                std::fs::rename(&work, &spent).map_err(std_io("move", &work))?;
                make_dir(&upper)?;
                make_dir(&work)?;
                self.record.layers += 1;
            }
            Layering::Copy => {
                copy::scan(&self.dir.join("tree"))?.write(&self.dir.join("manifest"))?;
            }
        }
        self.record.write(&self.dir)
    }

    /// The layers below the one that is written, topmost first.
    fn lowers(&self) -> Vec<PathBuf> {
        let own = (0..self.record.layers).rev();
        own.map(|index| self.dir.join(format!("layer-{index}")))
            .chain(self.base.iter().cloned())
            .collect()
    }

    pub(crate) fn written(&self) -> PathBuf {
        self.dir.join(match self.record.kind {
            Layering::Overlay => "upper",
            Layering::Copy => "tree",
        })
    }
}

/// Gives an overlay that was mounted before a new scratch directory. In the old one the kernel left
/// `incompat/volatile`, by which it refuses to mount the layers again: it cannot know whether they
/// were written to the disk before the machine went down. Within one boot, what was written is there.
fn renew_work(dir: &Path) -> Result<(), Error> {
    let work = dir.join("work");
    for number in 0..MAX_REOPENED {
        let spent = dir.join(format!("spent-{number}"));
        match rename_new(&work, &spent) {
            Ok(()) => return make_dir(&work),
            // An earlier call ended between its two steps.
            Err(Errno::NOENT) => return make_dir(&work),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(io("move", &work)(errno)),
        }
    }
    Err(io("move", &work)(Errno::EXIST))
}
