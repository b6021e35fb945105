//! Fetching, and packs that hold exactly the history of one commit.
//!
//! For every commit that was fetched or checked out, `skep/history/<commit>` names packs that together hold all that
//! the commit reaches **and nothing else**. So a base's object store is made of hard links to them, and fetching a
//! commit that has such a record is one look at the file system. A later commit costs one more pack with what is new
//! since the nearest ancestor that has a record. Packs are never rewritten; a record whose packs are many is replaced
//! by one pack.
//!
//! A record is written after its packs, under the mirror's lock, in one step.

use std::collections::{BinaryHeap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::ids::CommitId;
use crate::mirror::Mirror;
use crate::objects::{CommitParts, Objects, Reader};
use crate::process::Call;
use crate::references::write_replacing;
use crate::source::{Source, read_shallow};

/// A history in more packs than this is packed anew into one.
const MAX_PACKS: usize = 40;
/// How many commits are looked at for an ancestor with a record.
const ANCESTOR_SEARCH: usize = 5_000;
/// How many commits a shallow history may have.
const SHALLOW_WALK: usize = 10_000_000;

/// Where the objects of one commit's history are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Names of packs in `objects/pack`, without an ending.
    pub(crate) packs: Vec<String>,
    /// Commits in it whose parents are not there.
    pub(crate) shallow: Vec<CommitId>,
}

impl Mirror {
    /// Makes a commit of the user's repository and its whole history present here, and keeps it. Does nothing, without
    /// a process, when that was done before and can still be read; what of the mirror cannot be read is fetched again. The
    /// user's repository is only read, and git does not run in it.
    ///
    /// # Errors
    /// [`Error::Missing`] when the repository does not have the commit; [`Error::Damaged`] when the mirror cannot be
    /// mended.
    pub fn fetch(&self, source: &Source, commit: CommitId) -> Result<(), Error> {
        let is_damaged = match self.history(commit, Some(source)) {
            Ok(history) => !self.is_whole(&history)? || !self.can_read(commit),
            Err(error) if error.is_damage() => true,
            Err(error) => return Err(error),
        };
        if !is_damaged {
            return Ok(());
        }
        self.mend()?;
        match self.history(commit, Some(source)) {
            Ok(_) if self.can_read(commit) => Ok(()),
            Ok(_) => Err(self.explained(Error::Missing { id: commit.into() })),
            // The user's repository does not have it, and that is not the mirror's fault.
            Err(Error::Missing { id }) if id == commit.into() => Err(Error::Missing { id }),
            Err(error) => Err(self.explained(error)),
        }
    }

    /// Whether a commit and its history were fetched or packed before, so that a checkout starts at once.
    pub fn has_history(&self, commit: CommitId) -> bool {
        self.history_path(commit).is_file()
    }

    /// The packs with the history of `commit`; made when there are none.
    pub(crate) fn history(
        &self,
        commit: CommitId,
        source: Option<&Source>,
    ) -> Result<History, Error> {
        if let Some(found) = self.recorded(commit, source)? {
            return Ok(found);
        }
        let _lock = self.lock()?;
        if let Some(found) = self.recorded(commit, source)? {
            return Ok(found);
        }
        if let Some(source) = source {
            self.adopt_shallow(source)?;
        }
        let mut objects = Both::new(self.objects(), source.map(Source::objects));
        objects.commit(commit)?;
        let before = self.nearest_recorded(commit, &mut objects)?;
        let mut history = before
            .as_ref()
            .map(|(_, history)| history.clone())
            .unwrap_or_default();
        let mut exclude = before.map(|(id, _)| id);
        if history.packs.len() >= MAX_PACKS {
            history = History::default();
            exclude = None;
        }
        history.packs.extend(self.pack(commit, exclude, source)?);
        history.shallow = self.shallow_within(commit, &mut objects)?;
        let mut text: String = history
            .packs
            .iter()
            .map(|pack| format!("pack {pack}\n"))
            .collect();
        text.extend(history.shallow.iter().map(|id| format!("shallow {id}\n")));
        write_replacing(
            &self.directory().join(format!("refs/skep/history/{commit}")),
            format!("{commit}\n").as_bytes(),
            false,
        )?;
        write_replacing(&self.history_path(commit), text.as_bytes(), true)?;
        Ok(history)
    }

    fn history_path(&self, commit: CommitId) -> PathBuf {
        self.directory().join(format!("skep/history/{commit}"))
    }

    /// The record of a commit, unless it is of a shallow history and `source` has more of it now.
    pub(crate) fn recorded(
        &self,
        commit: CommitId,
        source: Option<&Source>,
    ) -> Result<Option<History>, Error> {
        let path = self.history_path(commit);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("reading", path, e)),
        };
        let mut history = History::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("pack", name)) => history.packs.push(name.to_owned()),
                Some(("shallow", id)) => history.shallow.extend(id.parse::<CommitId>()),
                _ => return Ok(None),
            }
        }
        if let Some(source) = source
            && !history.shallow.is_empty()
        {
            let now = source.shallow()?;
            let mut reader = source.objects().reader();
            let mut deepened = |id: &CommitId| !now.contains(id) && reader.commit_data(*id).is_ok();
            if history.shallow.iter().any(&mut deepened) {
                return Ok(None);
            }
        }
        Ok(Some(history))
    }

    /// The nearest ancestor with a record, newest first.
    fn nearest_recorded(
        &self,
        commit: CommitId,
        objects: &mut Both,
    ) -> Result<Option<(CommitId, History)>, Error> {
        let recorded = match fs::read_dir(self.directory().join("skep/history")) {
            Ok(entries) => entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse::<CommitId>().ok())
                .filter(|id| *id != commit)
                .collect::<HashSet<_>>(),
            Err(_) => HashSet::new(),
        };
        if recorded.is_empty() {
            return Ok(None);
        }
        let shallow = read_shallow(&self.directory().join("shallow"))?;
        let mut seen = HashSet::from([commit]);
        let mut open = BinaryHeap::from([(i64::MAX, commit)]);
        while let Some((_, id)) = open.pop() {
            if recorded.contains(&id)
                && let Some(history) = self.recorded(id, None)?
                && history.shallow.iter().all(|id| shallow.contains(id))
            {
                return Ok(Some((id, history)));
            }
            if seen.len() > ANCESTOR_SEARCH || shallow.contains(&id) {
                continue;
            }
            for parent in objects.commit(id)?.parents {
                if seen.insert(parent) {
                    let seconds = objects.commit(parent)?.seconds;
                    open.push((seconds, parent));
                }
            }
        }
        Ok(None)
    }

    /// Packs what `commit` reaches and `exclude` does not. Git runs in the mirror; the user's objects are an alternate
    /// for this one process.
    fn pack(
        &self,
        commit: CommitId,
        exclude: Option<CommitId>,
        source: Option<&Source>,
    ) -> Result<Option<String>, Error> {
        let doing = "collecting a commit's history";
        let mut command = self.program().trusted(self.directory())?;
        if let Some(source) = source {
            command.env(
                "GIT_ALTERNATE_OBJECT_DIRECTORIES",
                alternate(source.objects().directory()),
            );
        }
        // Deltas that exist are taken over; new ones cost more time than the disk space is worth.
        command.args([
            "-c",
            "pack.compression=1",
            "-c",
            "pack.writeReverseIndex=false",
            "pack-objects",
        ]);
        command.args([
            "--revs",
            "--quiet",
            "--delta-base-offset",
            "--window=0",
            "--threads=1",
            "--non-empty",
        ]);
        if source.is_some_and(Source::is_partial) {
            command.arg("--missing=allow-any");
        }
        command.arg("objects/pack/pack");
        let mut input = format!("{commit}\n");
        if let Some(exclude) = exclude {
            input.push_str(&format!("^{exclude}\n"));
        }
        let output = self
            .program()
            .execute(
                Call::new(doing, command)
                    .stdin(input.as_bytes())
                    .limit(4096),
            )?
            .success(doing)?;
        let text = String::from_utf8(output.stdout).map_err(|_| Error::Output { doing })?;
        let name = text.trim();
        if name.is_empty() {
            return Ok(None);
        }
        if name.len() != 40 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::Output { doing });
        }
        Ok(Some(format!("pack-{name}")))
    }

    /// Takes over where the user's repository is shallow, and forgets where it no longer is.
    fn adopt_shallow(&self, source: &Source) -> Result<(), Error> {
        let path = self.directory().join("shallow");
        let ours = read_shallow(&path)?;
        let theirs = source.shallow()?;
        if ours.is_empty() && theirs.is_empty() {
            return Ok(());
        }
        let mut here = self.objects().reader();
        let mut there = source.objects().reader();
        let mut merged: Vec<CommitId> = Vec::new();
        for id in ours.union(&theirs) {
            let keep = if ours.contains(id) {
                // Deepened since: the user's repository has it and no longer calls it shallow.
                theirs.contains(id) || there.commit_data(*id).is_err()
            } else {
                // Fetched in full before, from a repository that was not shallow there.
                let whole = match here.commit(*id) {
                    Ok(commit) => commit.parents.iter().all(|parent| here.contains(&parent.0)),
                    Err(_) => false,
                };
                !whole
            };
            if keep {
                merged.push(*id);
            }
        }
        merged.sort();
        if merged.is_empty() {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("removing", path, e)),
                _ => Ok(()),
            };
        }
        let text: String = merged.iter().map(|id| format!("{id}\n")).collect();
        write_replacing(&path, text.as_bytes(), true)
    }

    /// The shallow commits of the mirror that `commit` reaches.
    fn shallow_within(&self, commit: CommitId, objects: &mut Both) -> Result<Vec<CommitId>, Error> {
        let shallow = read_shallow(&self.directory().join("shallow"))?;
        if shallow.is_empty() {
            return Ok(Vec::new());
        }
        let mut seen = HashSet::from([commit]);
        let mut open = vec![commit];
        let mut found = Vec::new();
        while let Some(id) = open.pop() {
            self.program()
                .cancel()
                .check("looking for the ends of a shallow history")?;
            if shallow.contains(&id) {
                found.push(id);
                continue;
            }
            for parent in objects.commit(id)?.parents {
                if seen.insert(parent) {
                    open.push(parent);
                }
            }
            if seen.len() > SHALLOW_WALK {
                return Err(Error::TooLarge {
                    what: "a shallow history".into(),
                    limit: SHALLOW_WALK as u64,
                });
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The mirror's objects, then the user's.
pub(crate) struct Both {
    ours: Reader,
    theirs: Option<Reader>,
}

impl Both {
    pub(crate) fn new(ours: &Objects, theirs: Option<&Objects>) -> Both {
        Both {
            ours: ours.reader(),
            theirs: theirs.map(Objects::reader),
        }
    }

    /// The reader that has the object; the mirror's when neither has.
    pub(crate) fn holding(&mut self, id: &gix::oid) -> &mut Reader {
        match &mut self.theirs {
            // The user's own objects are asked first without looking twice: a fresh mirror has nothing.
            Some(theirs) if !self.ours.contains_quick(id) && theirs.contains(id) => theirs,
            _ => &mut self.ours,
        }
    }

    pub(crate) fn commit(&mut self, id: CommitId) -> Result<CommitParts, Error> {
        self.holding(&id.0).commit(id)
    }
}

/// A path as one element of `GIT_ALTERNATE_OBJECT_DIRECTORIES`: quoted as git quotes in C's manner.
pub(crate) fn alternate(path: &Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut quoted = vec![b'"'];
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    std::ffi::OsString::from_vec(quoted)
}
