//! The files of one attempt.

use std::path::{Path, PathBuf};

use rustix::fs;
use rustix::io::Errno;

use crate::base::{Base, make_dir};
use crate::change::{Change, Everything, Limits, Summary, Visitor};
use crate::copy;
use crate::differs;
use crate::dir::Dir;
use crate::error::{Error, io};
use crate::fold;
use crate::lock::{Hold, Lock};
use crate::manifest::Manifest;
use crate::meter::Meter;
use crate::overlay;
use crate::record::{self, Record, Stack};
use crate::store::{Layering, Store, check_name, rename_new};
use crate::turns::{new_layer, work};

/// The directory of a workspace that is a copy, and what it was when it was made.
const TREE: &str = "tree";
const MANIFEST: &str = "manifest";

/// What a further repository has in the place of this.
fn beside(part: &str, name: Option<&str>) -> String {
    name.map_or_else(|| part.to_owned(), |name| format!("{part}.{name}"))
}

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

/// The files of an attempt: layers over a base, a home and a temporary directory; where further
/// repositories are written in it, layers over a base for each of them. While the handle lives, no
/// process sweeps it.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) store: Store,
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    /// The trees that each of its repositories lies over, nearest first: what a setup left, then those
    /// of the base.
    pub(crate) under: Vec<Vec<PathBuf>>,
    /// Whether its record is to survive a crash of the machine.
    durable: bool,
    _lock: Lock,
}

impl Workspace {
    /// Fills the new directory `dir`: over a base, and over what a setup left where it has layers;
    /// further repositories over bases of their own.
    pub(crate) fn build(
        dir: &Path,
        base: &Base,
        over: Option<&str>,
        also: &[(String, Base)],
        kind: Layering,
    ) -> Result<(), Error> {
        Self::build_parts(dir)?;
        let stack = |base: &Base, name: Option<&str>| {
            let upper = match kind {
                Layering::Overlay => new_layer(dir)?,
                Layering::Copy => {
                    let tree = beside(TREE, name);
                    let manifest = dir.join(beside(MANIFEST, name));
                    copy::copy(base.trees(), &dir.join(&tree))?.write(&manifest)?;
                    tree
                }
            };
            Ok::<_, Error>(Stack {
                upper,
                ..Stack::over(base.key().to_owned())
            })
        };
        let further = also
            .iter()
            .map(|(name, base)| Ok((name.clone(), stack(base, Some(name))?)));
        Record {
            kind,
            boot: record::this_boot(),
            shared: false,
            own: Stack {
                over: over.map(str::to_owned),
                ..stack(base, None)?
            },
            also: further.collect::<Result<_, Error>>()?,
        }
        .write(dir)
    }

    /// The directories that every workspace has.
    pub(crate) fn build_parts(dir: &Path) -> Result<(), Error> {
        make_dir(&dir.join("home"))?;
        make_dir(&dir.join("tmp"))
    }

    /// Opens a workspace whose processes were killed, to be mounted again; where `kept`, one that was made
    /// to survive a restart of the machine.
    pub(crate) fn reopen(store: &Store, id: &str, kept: bool) -> Result<Workspace, Error> {
        let dir = store.workspace_dir(id);
        match fs::lstat(&dir) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Err(Error::NoWorkspace { id: id.to_owned() }),
            Err(errno) => return Err(io("look at", &dir)(errno)),
        }
        let lock = Lock::directory(&dir, Hold::Alone)?
            .ok_or_else(|| Error::WorkspaceInUse { id: id.to_owned() })?;
        let record = Record::read(&dir)?;
        if !kept && (record.boot.is_none() || record.boot != record::this_boot()) {
            return Err(Error::OtherBoot { id: id.to_owned() });
        }
        for stack in record.stacks() {
            let trees = store.trees_under(stack)?;
            if trees.iter().any(|tree| fs::lstat(tree).is_err()) {
                let key = stack.base.clone();
                return Err(Error::NoBase { key });
            }
        }
        let lock = lock
            .share(&dir)?
            .ok_or_else(|| Error::NoWorkspace { id: id.to_owned() })?;
        let mut workspace = Self::held(store, id, lock)?;
        workspace.durable = kept;
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
            under: record
                .stacks()
                .map(|stack| store.trees_under(stack))
                .collect::<Result<_, _>>()?,
            record,
            dir,
            durable: false,
            _lock: lock,
        })
    }

    /// The id under which it was created.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key of the base that it lies over.
    pub fn base_key(&self) -> &str {
        &self.record.own.base
    }

    /// The keys of the bases that further repositories lie over, each with the repository's name.
    pub fn also_base_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let also = self.record.also.iter();
        also.map(|(name, stack)| (name.as_str(), stack.base.as_str()))
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

    /// What to mount, or use as it is, for its own repository.
    pub fn layers(&self) -> Layers {
        let trees = self.under.first().map_or(&[][..], Vec::as_slice);
        self.layers_of(&self.record.own, trees)
    }

    /// The same for each further repository, with its name.
    pub fn also_layers(&self) -> Vec<(String, Layers)> {
        let also = self.record.also.iter().zip(self.under.iter().skip(1));
        let also = also.map(|((name, stack), trees)| (name.clone(), self.layers_of(stack, trees)));
        also.collect()
    }

    fn layers_of(&self, stack: &Stack, trees: &[PathBuf]) -> Layers {
        match self.record.kind {
            Layering::Overlay => {
                let setup = stack.setup.iter().rev().map(String::as_str);
                let own = stack.frozen().chain(setup).map(|layer| self.layer(layer));
                Layers::Overlay {
                    lowers: own.chain(trees.iter().cloned()).collect(),
                    upper: self.written_in(stack),
                    work: work(&self.dir, &stack.upper),
                }
            }
            Layering::Copy => Layers::Directory(self.written_in(stack)),
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
        self.changes_in(&self.record.own, None, limits, visitor)
    }

    /// As [`Workspace::wanted_changes`], of a further repository.
    ///
    /// # Errors
    /// The same; [`Error::NoRepository`] when there is none of this name.
    pub fn wanted_changes_of<E: From<Error>>(
        &self,
        name: &str,
        limits: &Limits,
        visitor: &mut dyn Visitor<E>,
    ) -> Result<Summary, E> {
        self.changes_in(self.also(name)?, Some(name), limits, visitor)
    }

    fn also(&self, name: &str) -> Result<&Stack, Error> {
        let found = self.record.also.iter().find(|(known, _)| known == name);
        let found = found.ok_or_else(|| Error::NoRepository {
            id: self.id.clone(),
            name: name.to_owned(),
        });
        found.map(|(_, stack)| stack)
    }

    fn changes_in<E: From<Error>>(
        &self,
        stack: &Stack,
        name: Option<&str>,
        limits: &Limits,
        visitor: &mut dyn Visitor<E>,
    ) -> Result<Summary, E> {
        match self.record.kind {
            Layering::Overlay => {
                let frozen = stack.frozen().map(|layer| self.layer(layer));
                let written = [self.written_in(stack)].into_iter();
                overlay::changes(written.chain(frozen).collect(), limits, visitor)
            }
            Layering::Copy => {
                let part = self.written_in(stack);
                let root = Dir::open(&part).map_err(io("open", &part))?;
                let manifest = Manifest::read(&self.dir.join(beside(MANIFEST, name)))?;
                differs::of_copy(root, &manifest, limits, visitor)
            }
        }
    }

    /// Measures what the attempt's files take on disk; it does not keep the workspace.
    pub fn meter(&self) -> Meter {
        Meter::new(&self.store, &self.dir)
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
                for stack in record.stacks_mut() {
                    let frozen = std::mem::replace(&mut stack.upper, new_layer(&self.dir)?);
                    stack.setup.push(frozen);
                }
                self.put(&record)?;
                self.record = record;
                Ok(())
            }
            Layering::Copy => {
                let also = self.record.also.iter();
                let also = also.map(|(name, stack)| (Some(name.as_str()), stack));
                for (name, stack) in [(None, &self.record.own)].into_iter().chain(also) {
                    let manifest = self.dir.join(beside(MANIFEST, name));
                    copy::scan(&self.written_in(stack))?.write(&manifest)?;
                }
                Ok(())
            }
        }
    }

    /// From now on what it is made of survives a crash of the machine: what it says of itself is on the
    /// disk before anybody relies on it. What is written in it is there when the kernel wrote it, at the
    /// latest after [`Workspace::sync`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep(&mut self) -> Result<(), Error> {
        self.durable = true;
        self.put(&self.record)?;
        record::sync_directory(&self.store.workspace_dir(""))
    }

    /// Waits until all that was written in it is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<(), Error> {
        let failed = || io("write to the disk", &self.dir);
        let flags = fs::OFlags::RDONLY | fs::OFlags::DIRECTORY | fs::OFlags::CLOEXEC;
        let dir = fs::open(&self.dir, flags, fs::Mode::empty()).map_err(failed())?;
        fs::syncfs(dir).map_err(failed())
    }

    /// Puts this record in the place of the one that is there.
    pub(crate) fn put(&self, record: &Record) -> Result<(), Error> {
        match self.durable {
            true => record.write_durably(&self.dir),
            false => record.write(&self.dir),
        }
    }

    /// The layers that are written, of all repositories.
    pub(crate) fn uppers(&self) -> Vec<&str> {
        let stacks = self.record.stacks();
        stacks.map(|stack| stack.upper.as_str()).collect()
    }

    /// Where its own repository is written.
    pub(crate) fn written(&self) -> PathBuf {
        self.written_in(&self.record.own)
    }

    /// Where a further repository is written.
    pub(crate) fn written_also(&self, name: &str) -> Result<PathBuf, Error> {
        Ok(self.written_in(self.also(name)?))
    }

    fn written_in(&self, stack: &Stack) -> PathBuf {
        self.layer(&stack.upper)
    }

    /// Gives an overlay that was mounted before a new scratch directory. In the old one the kernel left
    /// `incompat/volatile`, by which it refuses to mount the layers again: it cannot know whether they
    /// were written to the disk before the machine went down. Within one boot, what was written is
    /// there. Of what is kept over a restart, the last of it may be cut short, and whoever starts it is
    /// told. What a killed process left half done goes with it.
    fn renew_work(&mut self) -> Result<(), Error> {
        for upper in self.uppers() {
            let work = work(&self.dir, upper);
            self.store.discard(&work)?;
            make_dir(&work)?;
        }
        self.store.discard(&fold::place(&self.dir))?;
        self.settle()
    }
}
