//! A damaged mirror: what of it cannot be read is set aside, so that it is fetched again.
//!
//! A file that an object or a pack should be in and that cannot be read hides the same object in the
//! user's repository: git and `gix` ask the mirror first. Nothing is deleted: what is set aside lies
//! in `skep/damaged`, for whoever wants to look for what is in no other place.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use crate::commit::CommitInfo;
use crate::error::Error;
use crate::history::History;
use crate::ids::{CommitId, TreeId};
use crate::mirror::Mirror;

/// The bytes of a checksum.
const SUM: usize = 20;

impl Mirror {
    /// Whether everything that `after` has and `before` has not can be read, so that a change that was
    /// made before can be gone on with.
    #[must_use]
    pub fn holds_change(&self, before: TreeId, after: TreeId) -> bool {
        let mut reader = self.objects().reader();
        let Ok(changes) = self.changed_paths(before, after) else {
            return false;
        };
        changes.iter().filter_map(|change| change.after).all(|it| {
            use crate::diff::FileKind as Kind;
            match it.kind {
                Kind::File | Kind::Executable | Kind::Link => reader.blob(&it.id.0).is_ok(),
                // A submodule's commit is in another repository.
                Kind::Directory | Kind::Submodule => true,
            }
        })
    }

    /// A commit that was made here and is to land.
    ///
    /// # Errors
    /// [`Error::CandidateLost`] when the mirror does not have it any more.
    pub fn candidate_info(&self, commit: CommitId) -> Result<CommitInfo, Error> {
        let read = || {
            let mut reader = self.objects().reader();
            let tree = reader.commit(commit)?.tree;
            reader.tree(&tree.0)?;
            self.commit_info(commit)
        };
        read().map_err(|error| match error {
            lost if lost.is_damage() => Error::CandidateLost { commit },
            other => other,
        })
    }

    /// Whether a commit's own object and its tree can be read.
    pub(crate) fn can_read(&self, commit: CommitId) -> bool {
        let mut reader = self.objects().reader();
        let tree = reader.commit(commit).map(|commit| commit.tree);
        tree.is_ok_and(|tree| reader.tree(&tree.0).is_ok())
    }

    /// Whether the packs of a history are there to their ends.
    pub(crate) fn is_whole(&self, history: &History) -> Result<bool, Error> {
        for pack in &history.packs {
            if !is_whole(&self.directory().join("objects/pack").join(pack))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the history of a checkout, or what a layer has of it, is there to its end. Its packs are
    /// hard links to those of the mirror, so that a fault of the disk is in both.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn is_whole_checkout(&self, directory: &Path) -> Result<bool, Error> {
        let packs = directory.join(".git/objects/pack");
        for name in names(&packs)? {
            // In a layer a device hides a pack that the checkout below has.
            let hides = |metadata: fs::Metadata| metadata.file_type().is_char_device();
            if let Some(stem) = name.strip_suffix(".pack")
                && !fs::symlink_metadata(packs.join(&name)).is_ok_and(hides)
                && !is_whole(&packs.join(stem))?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Forgets the packs of a history if they are damaged, so that they are made again of what else
    /// there is of it.
    pub(crate) fn mend_history(&self, commit: CommitId) -> Result<(), Error> {
        match self.recorded(commit, None)? {
            Some(history) if !self.is_whole(&history)? => self.mend(),
            _ => Ok(()),
        }
    }

    /// Sets aside every pack and object that cannot be read, and forgets what was fetched with them.
    pub(crate) fn mend(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        let objects = self.directory().join("objects");
        let packs = objects.join("pack");
        for name in names(&packs)? {
            let Some(stem) = name
                .strip_suffix(".pack")
                .or_else(|| name.strip_suffix(".idx"))
            else {
                continue;
            };
            if !is_whole(&packs.join(stem))? {
                self.set_aside(&packs.join(&name), &name)?;
            }
        }
        let history = self.directory().join("skep/history");
        for name in names(&history)? {
            let path = history.join(&name);
            let text = fs::read_to_string(&path).map_err(|e| Error::io("reading", &path, e))?;
            let mut named = text.lines().filter_map(|line| line.strip_prefix("pack "));
            let is_there = |pack: &str| packs.join(format!("{pack}.pack")).is_file();
            if text.is_empty() || !named.all(is_there) {
                fs::remove_file(&path).map_err(|e| Error::io("removing", &path, e))?;
            }
        }
        for shelf in names(&objects)?.iter().filter(|name| name.len() == 2) {
            for name in names(&objects.join(shelf))? {
                let whole = format!("{shelf}{name}");
                let Ok(id) = gix::ObjectId::from_hex(whole.as_bytes()) else {
                    continue;
                };
                let path = objects.join(shelf).join(&name);
                // A file that the system cannot read now may be read later, and stays.
                fs::read(&path).map_err(|e| Error::io("reading", &path, e))?;
                match self.objects().reader().read(&id) {
                    Ok(Some(_)) => {}
                    Err(error) if error.may_pass() => return Err(error),
                    Ok(None) | Err(_) => self.set_aside(&path, &whole)?,
                }
            }
        }
        Ok(())
    }

    fn set_aside(&self, path: &Path, name: &str) -> Result<(), Error> {
        tracing::warn!(path = %path.display(), "a damaged file of a mirror is set aside");
        let place = self.directory().join("skep/damaged");
        fs::create_dir_all(&place).map_err(|e| Error::io("creating", &place, e))?;
        fs::rename(path, place.join(name)).map_err(|e| Error::io("moving", path, e))
    }

    /// The error with what can be done about it, where the mirror itself is at fault.
    pub(crate) fn explained(&self, error: Error) -> Error {
        if !error.is_damage() {
            return error;
        }
        Error::Damaged {
            path: self.directory().to_owned(),
            source: Box::new(error),
        }
    }
}

/// Whether a pack has its end: its checksum is also in its index, which has its own after it.
fn is_whole(stem: &Path) -> Result<bool, Error> {
    let pack = tail(&stem.with_added_extension("pack"), SUM)?;
    let index = tail(&stem.with_added_extension("idx"), 2 * SUM)?;
    let (Some(pack), Some(index)) = (pack, index) else {
        return Ok(false);
    };
    Ok(index.get(..SUM) == Some(pack.as_slice()))
}

/// The last bytes of a file; none if there is no such file, or it is shorter.
fn tail(path: &Path, bytes: usize) -> Result<Option<Vec<u8>>, Error> {
    let failed = |e| Error::io("reading", path, e);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let length = file.metadata().map_err(failed)?.len();
    let Some(start) = length.checked_sub(bytes as u64) else {
        return Ok(None);
    };
    let mut end = vec![0; bytes];
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    file.read_exact(&mut end).map_err(failed)?;
    Ok(Some(end))
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = |e| Error::io("reading", directory, e);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
