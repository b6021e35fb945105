//! The files of one attempt.

use std::path::{Path, PathBuf};

use rustix::fs;
use rustix::io::Errno;

use crate::base::{Base, make_dir};
use crate::change::{Change, Everything, Limits, Summary, Visitor};
use crate::copy;
use crate::dir::Dir;
use crate::error::{Error, io};
use crate::fold;
use crate::lock::{Hold, Lock};
use crate::manifest::Manifest;
use crate::overlay;
use crate::record::{self, Record};
use crate::store::{Layering, Store, check_name, rename_new};
use crate::turns::new_layer;
use crate::usage::{self, Taken};

/// The directory of a workspace that is a copy.
const TREE: &str = "tree";

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
    store: Store,
    dir: PathBuf,
}

impl Meter {
    /// What they take: the layers that make the change, the home and the temporary directory;
    /// never the base, nor what was frozen before the first turn. A plain copy counts whole. A directory
    /// that only its owner in the sandbox could open, and a file that has no name any more, are not
    /// counted.
    ///
    /// # Errors
    /// [`Error::Io`], also when the workspace is gone.
    pub fn taken(&self) -> Result<Taken, Error> {
        // Asked each time: layers come and go.
        let record = Record::read(&self.dir)?;
        let mut taken = Taken::default();
        for part in ["home", "tmp"] {
            taken = taken.and(usage::taken(&self.dir.join(part))?);
        }
        let layers = record.layers().skip(record.setup.len());
        for layer in layers {
            let own = self.dir.join(match record.kind {
                Layering::Overlay => Path::new("layers"),
                Layering::Copy => Path::new(""),
            });
            let places = [own.join(layer), self.store.layers().join(layer)];
            for place in places {
                match usage::taken(&place) {
                    // What was folded has a second name, which nobody asked for.
                    Ok(more) if record.is_fold(layer) => {
                        taken = taken.and(Taken { files: 0, ..more });
                    }
                    Ok(more) => taken = taken.and(more),
                    // It is in the other place, or was dropped meanwhile.
                    Err(Error::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(taken)
    }
}

/// The files of an attempt: layers over a base, a home and a temporary directory. While the handle
/// lives, no process sweeps it.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) store: Store,
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    /// The trees that it lies over, nearest first: what a setup left, then those of the base.
    base: Vec<PathBuf>,
    _lock: Lock,
}

impl Workspace {
    /// Fills the new directory `dir`: over a base, and over what a setup left where it has layers.
    pub(crate) fn build(
        dir: &Path,
        base: &Base,
        over: Option<&str>,
        kind: Layering,
    ) -> Result<(), Error> {
        Self::build_parts(dir)?;
        let upper = match kind {
            Layering::Overlay => new_layer(dir)?,
            Layering::Copy => {
                copy::copy(base.trees(), &dir.join(TREE))?.write(&dir.join("manifest"))?;
                TREE.to_owned()
            }
        };
        Record {
            kind,
            base: base.key().to_owned(),
            over: over.map(str::to_owned),
            boot: record::this_boot(),
            shared: false,
            setup: Vec::new(),
            old: Vec::new(),
            turns: Vec::new(),
            folds: Vec::new(),
            upper,
        }
        .write(dir)
    }

    /// The directories that every workspace has.
    pub(crate) fn build_parts(dir: &Path) -> Result<(), Error> {
        for part in ["home", "tmp", "layers", "work"] {
            make_dir(&dir.join(part))?;
        }
        Ok(())
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
        let trees = store.trees_under(&record)?;
        if trees.iter().any(|tree| fs::lstat(tree).is_err()) {
            return Err(Error::NoBase { key: record.base });
        }
        let lock = lock
            .share(&dir)?
            .ok_or_else(|| Error::NoWorkspace { id: id.to_owned() })?;
        let mut workspace = Self::held(store, id, lock)?;
        if workspace.record.kind == Layering::Overlay {
            workspace.renew_work()?;
        }
        Ok(workspace)
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
            base: store.trees_under(&record)?,
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

    /// Gives it another id. It may be mounted meanwhile: a mount holds directories, not their names.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Exists`], [`Error::Io`]: it is as it was.
    pub fn rename(&mut self, id: &str) -> Result<(), Error> {
        check_name("workspace", id)?;
        let place = self.store.workspace_dir(id);
        match rename_new(&self.dir, &place) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                return Err(Error::Exists { id: id.to_owned() });
            }
            renamed => renamed.map_err(io("rename", &self.dir))?,
        }
        self.dir = place;
        self.id = id.to_owned();
        Ok(())
    }

    /// What to mount, or use as it is.
    pub fn layers(&self) -> Layers {
        match self.record.kind {
            Layering::Overlay => Layers::Overlay {
                lowers: self.lowers(),
                upper: self.written(),
                work: self.dir.join("work").join(&self.record.upper),
            },
            Layering::Copy => Layers::Directory(self.written()),
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
        match self.record.kind {
            Layering::Overlay => {
                let frozen = self.record.frozen().map(|layer| self.layer(layer));
                let layers = [self.written()].into_iter().chain(frozen).collect();
                overlay::changes(layers, limits, visitor)
            }
            Layering::Copy => {
                let part = self.written();
                let root = Dir::open(&part).map_err(io("open", &part))?;
                let manifest = Manifest::read(&self.dir.join("manifest"))?;
                copy::changes(root, &manifest, limits, visitor)
            }
        }
    }

    /// Measures what the attempt's files take on disk; it does not keep the workspace.
    pub fn meter(&self) -> Meter {
        Meter {
            store: self.store.clone(),
            dir: self.dir.clone(),
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
                let mut record = self.record.clone();
                let frozen = std::mem::replace(&mut record.upper, new_layer(&self.dir)?);
                record.setup.push(frozen);
                record.write(&self.dir)?;
                self.record = record;
                Ok(())
            }
            Layering::Copy => copy::scan(&self.written())?.write(&self.dir.join("manifest")),
        }
    }

    /// The layers below the one that is written, topmost first.
    fn lowers(&self) -> Vec<PathBuf> {
        let setup = self.record.setup.iter().rev().map(String::as_str);
        let own = self.record.frozen().chain(setup);
        own.map(|layer| self.layer(layer))
            .chain(self.base.iter().cloned())
            .collect()
    }

    pub(crate) fn written(&self) -> PathBuf {
        match self.record.kind {
            Layering::Overlay => self.layer(&self.record.upper),
            Layering::Copy => self.dir.join(TREE),
        }
    }

    /// The nearest tree of the base.
    pub(crate) fn base_tree(&self) -> PathBuf {
        self.base.first().cloned().unwrap_or_default()
    }

    /// Gives an overlay that was mounted before a new scratch directory. In the old one the kernel left
    /// `incompat/volatile`, by which it refuses to mount the layers again: it cannot know whether they
    /// were written to the disk before the machine went down. Within one boot, what was written is
    /// there. What a killed process left half done goes with it.
    fn renew_work(&mut self) -> Result<(), Error> {
        let work = self.dir.join("work").join(&self.record.upper);
        self.store.discard(&work)?;
        self.store.discard(&fold::place(&self.dir))?;
        make_dir(&work)?;
        self.settle()
    }
}
