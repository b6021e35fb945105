//! Moments of a workspace: snapshots between turns, the way back to one, and forks of one.
//!
//! A snapshot freezes the layer that was written and puts a new one above it, so that it costs what was
//! written since the last one, and nothing is copied. All of this is work on directories and on the
//! record; whoever has the workspace mounted mounts [`Workspace::layers`] anew afterwards and says
//! whether that went well. The record names a layer before anything is written to it, and a layer that
//! no record names is not there: whatever is killed in between leaves what was before, or what was asked.
//!
//! A moment is one of all repositories that are written in the workspace. Only their files come back: home and temporary directory stay as they are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs;
use rustix::io::Errno;

use crate::apart::apart;
use crate::base::make_dir;
use crate::dir::Dir;
use crate::error::{Error, io};
use crate::fold;
use crate::lock::{Hold, Lock};
use crate::record::{Record, Stack, Turn};
use crate::store::{Layering, Store, check_name, names_in, rename_new, unique};
use crate::usage;
use crate::workspace::Workspace;

/// The most frozen layers of turns that are mounted one by one, when folding does not keep up; the
/// kernel takes 500 in all.
const MOST_UNFOLDED: usize = 200;
/// How many moments are kept; older ones, once folded, are thinned out.
const MOST_TURNS: usize = 256;
/// The most that are left of older ones.
const MOST_OLD: usize = 128;
/// How long to wait for whoever collects what several workspaces shared.
const SHARE_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at that lock.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a workspace was before a change of its layers that has not been mounted yet.
#[derive(Debug)]
#[must_use = "a change of layers is settled when they are mounted, or taken back"]
pub struct Before(Record);

impl Workspace {
    /// Whether [`Workspace::snapshot`] and all that belongs to it can be used: only where files lie in
    /// layers.
    pub fn has_snapshots(&self) -> bool {
        self.record.kind == Layering::Overlay
    }

    /// The names of the moments to which [`Workspace::undo`] leads, oldest first. At least the last 256
    /// are kept; of older ones, one in 32.
    pub fn snapshots(&self) -> Vec<String> {
        let own = &self.record.own;
        let turns = own.old.iter().chain(&own.turns);
        let named = turns.filter(|turn| !is_forgotten(&turn.name));
        named.map(|turn| turn.name.clone()).collect()
    }

    /// Takes a moment's name away: nothing leads to it any more. What was written until then stays, as if
    /// it had been written on. That there is no such moment is no error.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget(&mut self, name: &str) -> Result<(), Error> {
        let mut record = self.record.clone();
        let fresh = unique(FORGOTTEN.trim_end_matches('.'));
        let mut found = false;
        for stack in record.stacks_mut() {
            let turns = stack.old.iter_mut().chain(&mut stack.turns);
            for turn in turns.filter(|turn| turn.name == name) {
                turn.name.clone_from(&fresh);
                found = true;
            }
        }
        if found {
            self.put(&record)?;
            self.record = record;
        }
        Ok(())
    }

    /// What was written between a moment and the one before it, in bytes on disk.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::Io`].
    pub fn snapshot_bytes(&self, name: &str) -> Result<u64, Error> {
        let mut bytes = 0_u64;
        for stack in self.record.stacks() {
            let turns: Vec<&Turn> = stack.old.iter().chain(&stack.turns).collect();
            let at = turns.iter().position(|turn| turn.name == name);
            let at = at.filter(|_| !is_forgotten(name));
            let at = at.ok_or_else(|| self.no_snapshot(name))?;
            let before = turns.get(..at).unwrap_or_default().iter().rev();
            let nameless = before.take_while(|turn| is_forgotten(&turn.name));
            for turn in nameless.chain(turns.get(at)) {
                bytes = bytes.saturating_add(usage::bytes(&self.layer(&turn.layer))?);
            }
        }
        Ok(bytes)
    }

    /// Freezes what was written under a name. Nothing may run in the workspace until it is mounted
    /// anew; then [`Workspace::settle`] it, or [`Workspace::take_back`] where that failed.
    ///
    /// # Errors
    /// [`Error::NoSnapshots`] in a copy; [`Error::Name`], [`Error::SnapshotExists`],
    /// [`Error::TooManySnapshots`], [`Error::Io`].
    pub fn snapshot(&mut self, name: &str) -> Result<Before, Error> {
        self.check_layered()?;
        check_name("snapshot", name)?;
        if is_forgotten(name) {
            return Err(Error::Name {
                what: "snapshot",
                name: name.to_owned(),
            });
        }
        if self.snapshots().iter().any(|known| known == name) {
            return Err(Error::SnapshotExists {
                id: self.id.clone(),
                name: name.to_owned(),
            });
        }
        let mut record = self.record.clone();
        let unfolded = record.own.turns.len() - record.own.folded();
        if unfolded >= MOST_UNFOLDED || record.own.old.len() >= MOST_OLD {
            return Err(Error::TooManySnapshots {
                id: self.id.clone(),
            });
        }
        for stack in record.stacks_mut() {
            let layer = std::mem::take(&mut stack.upper);
            stack.upper = self.new_layer(&self.layer(&layer))?;
            stack.turns.push(Turn {
                name: name.to_owned(),
                layer,
            });
            thin_out(stack);
        }
        self.change(record)
    }

    /// Takes the workspace back to a moment, or without a name to the beginning of its first turn. What
    /// was written since, and all moments after that one, are gone once it is settled: [`Workspace::fork`]
    /// keeps them. Nothing may run in the workspace until it is mounted anew, as with a snapshot.
    ///
    /// # Errors
    /// [`Error::NoSnapshots`] in a copy; [`Error::NoSnapshot`], [`Error::Io`].
    pub fn undo(&mut self, to: Option<&str>) -> Result<Before, Error> {
        self.check_layered()?;
        let mut record = self.at(to)?;
        let below = self.below(&record);
        for (stack, below) in record.stacks_mut().zip(&below) {
            stack.upper = self.new_layer(below)?;
        }
        self.change(record)
    }

    /// What the written layer of each repository lies over, by this record of it.
    fn below(&self, record: &Record) -> Vec<PathBuf> {
        let stacks = record.stacks().zip(&self.under);
        let below = stacks.map(|(stack, trees)| match stack.below() {
            Some(layer) => self.layer(layer),
            None => trees.first().cloned().unwrap_or_default(),
        });
        below.collect()
    }

    /// The record as it would be if nothing had happened since a moment, still with this upper layer.
    fn at(&self, moment: Option<&str>) -> Result<Record, Error> {
        let mut record = self.record.clone();
        for stack in record.stacks_mut() {
            let all = stack.old.len() + stack.turns.len();
            let kept = match moment {
                None => 0,
                Some(name) => {
                    let mut turns = stack.old.iter().chain(&stack.turns);
                    let found = turns.position(|turn| turn.name == name && !is_forgotten(name));
                    found.ok_or_else(|| self.no_snapshot(name))? + 1
                }
            };
            let turns = kept.saturating_sub(stack.old.len());
            stack.old.truncate(kept.min(all));
            stack.turns.truncate(turns);
            // A fold that holds a later turn holds too much.
            while stack.folded() > stack.turns.len() {
                stack.folds.pop();
            }
        }
        Ok(record)
    }

    fn no_snapshot(&self, name: &str) -> Error {
        Error::NoSnapshot {
            id: self.id.clone(),
            name: name.to_owned(),
        }
    }

    fn check_layered(&self) -> Result<(), Error> {
        if self.has_snapshots() {
            Ok(())
        } else {
            Err(Error::NoSnapshots {
                id: self.id.clone(),
            })
        }
    }

    fn change(&mut self, record: Record) -> Result<Before, Error> {
        self.put(&record)?;
        Ok(Before(std::mem::replace(&mut self.record, record)))
    }

    /// The layers could not be mounted: everything is as before.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn take_back(&mut self, before: Before) -> Result<(), Error> {
        let Before(mut record) = before;
        // A fork may have moved layers since.
        record.shared |= self.record.shared;
        self.put(&record)?;
        self.record = record;
        self.settle()
    }

    /// The layers are mounted: what they do not need any more goes to the trash.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn settle(&mut self) -> Result<(), Error> {
        let mut kept: Vec<String> = self.record.layers().map(str::to_owned).collect();
        kept.extend(self.uppers().into_iter().map(work_name));
        for name in names_in(&self.dir)? {
            if is_of_layers(&name) && !kept.contains(&name) {
                self.store.discard(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Makes an empty layer that can be written above `below`, with a scratch directory for the kernel.
    pub(crate) fn new_layer(&self, below: &Path) -> Result<String, Error> {
        // A workspace of many turns makes and drops as many layers as many workspaces do.
        apart(&self.dir);
        let name = new_layer(&self.dir)?;
        // The top of the merged tree is the upper layer's: without this, what the agent set there would
        // change with each snapshot.
        let (from, to) = (self.dir.join(&name), below);
        fold::copy_attributes(&open(to)?, &open(&from)?).map_err(io("prepare", &from))?;
        Ok(name)
    }

    /// Where a layer is: here, or with those that are shared.
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        let own = self.dir.join(name);
        if self.record.shared {
            let shared = self.store.layers().join(name);
            if fs::lstat(&shared).is_ok() {
                return shared;
            }
        }
        own
    }

    /// Makes the workspace `id` from this one as it was at a moment, or without a name at the beginning
    /// of its first turn. What they have in common they share, and nobody writes it; home and temporary
    /// directory are new and empty. This one may be mounted and run meanwhile.
    ///
    /// # Errors
    /// [`Error::NoSnapshots`] in a copy; [`Error::NoSnapshot`], [`Error::Name`], [`Error::Exists`],
    /// [`Error::SharedBusy`], [`Error::Io`].
    pub fn fork(&mut self, moment: Option<&str>, id: &str) -> Result<Workspace, Error> {
        self.check_layered()?;
        check_name("workspace", id)?;
        let mut record = self.at(moment)?;
        // Nobody collects what is shared until the record of the new workspace is in place.
        let _lock = self.store.share()?;
        if !self.record.shared {
            let mut own = self.record.clone();
            own.shared = true;
            self.put(&own)?;
            self.record = own;
        }
        record.shared = true;
        for stack in record.stacks_mut() {
            stack.upper.clear();
        }
        let shared: HashSet<&str> = record.layers().collect();
        // What is not here is shared already.
        for layer in names_in(&self.dir)? {
            if !shared.contains(layer.as_str()) {
                continue;
            }
            let own = self.dir.join(&layer);
            match rename_new(&own, &self.store.layers().join(&layer)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(io("share", &own)(errno)),
            }
        }
        let below = self.below(&record);
        self.store.make(id, |dir| {
            Workspace::build_parts(dir)?;
            for (stack, below) in record.stacks_mut().zip(&below) {
                stack.upper = new_layer(dir)?;
                let upper = dir.join(&stack.upper);
                fold::copy_attributes(&open(below)?, &open(&upper)?)
                    .map_err(io("prepare", &upper))?;
            }
            record.write(dir)
        })
    }
}

/// How the name of a moment begins that nobody is led to any more.
const FORGOTTEN: &str = "forgotten.";

fn is_forgotten(name: &str) -> bool {
    name.starts_with(FORGOTTEN)
}

/// What is older than is kept gives way to what it was folded into.
fn thin_out(stack: &mut Stack) {
    while let Some(first) = stack.folds.first().cloned()
        && stack.turns.len() >= first.turns.saturating_add(MOST_TURNS)
    {
        stack.folds.remove(0);
        let mut turns = stack.turns.drain(..first.turns.min(stack.turns.len()));
        if let Some(last) = turns.next_back() {
            stack.old.push(Turn {
                name: last.name,
                layer: first.layer,
            });
        }
    }
}

/// What the names of layers begin with, of folds, and of the kernel's scratch directories.
const LAYER: &str = "layer";
pub(crate) const FOLD: &str = "fold";
const WORK: &str = "work";

/// An empty layer in a workspace's directory, under a name that no other layer has.
pub(crate) fn new_layer(dir: &Path) -> Result<String, Error> {
    let name = unique(LAYER);
    make_dir(&dir.join(&name))?;
    make_dir(&work(dir, &name))?;
    Ok(name)
}

/// The kernel's scratch directory for a layer that is written.
pub(crate) fn work(dir: &Path, layer: &str) -> PathBuf {
    dir.join(work_name(layer))
}

fn work_name(layer: &str) -> String {
    format!("{WORK}.{layer}")
}

/// Whether something in a workspace's directory belongs to a layer.
fn is_of_layers(name: &str) -> bool {
    name.split_once('.')
        .is_some_and(|(word, _)| [LAYER, FOLD, WORK].contains(&word))
}

fn open(dir: &Path) -> Result<Dir, Error> {
    Dir::open(dir).map_err(io("open", dir))
}

/// A layer, and the workspaces that share it, where that is known.
type SharedLayer = (String, Option<Vec<String>>);

impl Store {
    /// Holds what several workspaces share.
    fn share(&self) -> Result<Lock, Error> {
        let path = self.layers().join(".lock");
        let start = Instant::now();
        loop {
            if let Some(lock) = Lock::file(&path, Hold::Shared)? {
                return Ok(lock);
            }
            if start.elapsed() > SHARE_WAIT {
                return Err(Error::SharedBusy {
                    waited: start.elapsed(),
                });
            }
            // The kernel tells nobody when a lock is released, and a blocking lock has no deadline.
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// The layers that workspaces share, each with the workspaces whose records name it: nobody knows of
    /// any layer where one of the records cannot be read.
    pub(crate) fn shared_layers(&self) -> Result<Vec<SharedLayer>, Error> {
        let shared = names_in(&self.layers())?;
        if shared.is_empty() {
            return Ok(Vec::new());
        }
        let mut users = std::collections::HashMap::<String, Vec<String>>::new();
        for id in self.list()? {
            match Record::read(&self.workspace_dir(&id)) {
                Ok(record) => {
                    for layer in record.layers() {
                        users.entry(layer.to_owned()).or_default().push(id.clone());
                    }
                }
                // It was deleted meanwhile.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, "shared layers stay: who uses them is not known");
                    return Ok(shared.into_iter().map(|layer| (layer, None)).collect());
                }
            }
        }
        let with_users = shared.into_iter().map(|layer| {
            let users = users.remove(&layer).unwrap_or_default();
            (layer, Some(users))
        });
        Ok(with_users.collect())
    }

    /// Moves shared layers that no workspace's record names to the trash; returns how many. Where a
    /// fork is being made, or a record cannot be read, they stay for the next time.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn collect_layers(&self) -> Result<u64, Error> {
        if names_in(&self.layers())?.is_empty() {
            return Ok(0);
        }
        let Some(_lock) = Lock::file(&self.layers().join(".lock"), Hold::Alone)? else {
            return Ok(0);
        };
        let mut collected = 0;
        for (layer, users) in self.shared_layers()? {
            if users.is_some_and(|users| users.is_empty()) {
                self.discard(&self.layers().join(layer))?;
                collected += 1;
            }
        }
        Ok(collected)
    }
}
