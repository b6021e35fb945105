//! The one branch in the user's repository that is ours to move.
//!
//! No process is started: objects are written as files, blobs before trees before commits, and the reference is moved
//! with git's own lock files, so no hook runs and nothing else is written: not the index, the working tree, the
//! configuration, `FETCH_HEAD`, other references or their logs.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use gix::refs::{FullName, Target};

use crate::commit::Signature;
use crate::durable::{NewObjects, sync_loose};
use crate::error::Error;
use crate::ids::CommitId;
use crate::mirror::Mirror;
use crate::process::Call;
use crate::source::Source;

/// More objects than this travel as a pack.
const LOOSE_LIMIT: usize = 400;
/// How long another process's lock on the reference is waited for.
const LOCK_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

/// How publishing ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The branch is at the new commit.
    Done,
    /// The branch is checked out (or being rebased or bisected) in this working tree; nothing was moved.
    CheckedOut {
        /// The working tree's git directory.
        location: PathBuf,
    },
    /// The branch is not where it was expected; nothing was moved.
    Moved {
        /// Where it is.
        actual: Option<CommitId>,
    },
}

/// How dropping the branch ended.
pub type Dropped = Published;

impl Source {
    /// Brings `new` and what it needs into the repository and moves the branch (`skep/integration`) to it, from
    /// `expected` (nothing: it does not exist). `who` stands in the branch's log.
    ///
    /// # Errors
    /// [`Error::Reference`] when another process holds the branch, or its name is taken by a directory of branches.
    pub fn publish(
        &self,
        mirror: &Mirror,
        branch: &str,
        new: CommitId,
        expected: Option<CommitId>,
        who: &Signature,
    ) -> Result<Published, Error> {
        let name = branch_name(branch)?;
        if let Some(location) = self.checked_out(&name)? {
            return Ok(Published::CheckedOut { location });
        }
        self.receive(mirror, new)?;
        let expected_value = match expected {
            Some(id) => PreviousValue::MustExistAndMatch(Target::Object(id.0)),
            None => PreviousValue::MustNotExist,
        };
        let log = LogChange {
            mode: RefLog::AndReference,
            force_create_reflog: false,
            message: "skep: publish".into(),
        };
        let change = Change::Update {
            log,
            expected: expected_value,
            new: Target::Object(new.0),
        };
        self.move_branch(branch, name, change, Some(new), expected, who)
    }

    /// The git directory of a working tree that is on the branch, or is rebasing or bisecting it.
    ///
    /// # Errors
    /// When the working trees cannot be read, or the name is none of a branch.
    pub fn checked_out_in(&self, branch: &str) -> Result<Option<PathBuf>, Error> {
        self.checked_out(&branch_name(branch)?)
    }

    /// Removes the branch, when it is at `expected`.
    pub fn drop_branch(
        &self,
        branch: &str,
        expected: CommitId,
        who: &Signature,
    ) -> Result<Dropped, Error> {
        let name = branch_name(branch)?;
        let expected_value = PreviousValue::MustExistAndMatch(Target::Object(expected.0));
        let change = Change::Delete {
            expected: expected_value,
            log: RefLog::AndReference,
        };
        self.move_branch(branch, name, change, None, Some(expected), who)
    }

    fn move_branch(
        &self,
        branch: &str,
        name: FullName,
        change: Change,
        new: Option<CommitId>,
        expected: Option<CommitId>,
        who: &Signature,
    ) -> Result<Published, Error> {
        let actual = self.branch(branch)?;
        if actual != expected {
            return Ok(Published::Moved { actual });
        }
        if actual == new {
            return Ok(Published::Done);
        }
        let failed = |source: gix::Error| Error::Reference {
            name: name.as_bstr().to_string(),
            path: self.common_dir().to_owned(),
            source: source.into(),
        };
        let encoded = who.encode();
        let committer =
            gix::actor::SignatureRef::from_bytes(&encoded).map_err(|_| Error::BadReference {
                name: String::from_utf8_lossy(&encoded).into_owned(),
            })?;
        let repository = self.repository();
        let wait = gix::lock::acquire::Fail::AfterDurationWithBackoff(LOCK_WAIT);
        let edit = RefEdit::new(name.clone(), change);
        let prepared = match repository.refs.transaction().prepare([edit], wait, wait) {
            Ok(prepared) => prepared,
            Err(source) => {
                let actual = self.branch(branch)?;
                return if actual == expected {
                    Err(failed(source))
                } else {
                    Ok(Published::Moved { actual })
                };
            }
        };
        // Looked at again while the reference is locked.
        if let Some(location) = self.checked_out(&name)? {
            prepared.rollback();
            return Ok(Published::CheckedOut { location });
        }
        prepared.commit(committer).map_err(failed)?;
        Ok(Published::Done)
    }

    fn checked_out(&self, name: &FullName) -> Result<Option<PathBuf>, Error> {
        let full = name.as_bstr().to_string();
        let short = full.trim_start_matches("refs/heads/").to_owned();
        for git_dir in self.heads()? {
            let says = |file: &str, texts: &[&str]| -> Result<bool, Error> {
                let path = git_dir.join(file);
                match fs::read(&path) {
                    Ok(content) => Ok(texts.iter().any(|t| content.trim_ascii() == t.as_bytes())),
                    Err(e)
                        if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
                    {
                        Ok(false)
                    }
                    Err(e) => Err(Error::io("reading", path, e)),
                }
            };
            if says("HEAD", &[&format!("ref: {full}")])?
                || says("rebase-merge/head-name", &[&full])?
                || says("rebase-apply/head-name", &[&full])?
                || says("BISECT_START", &[&full, &short])?
            {
                return Ok(Some(git_dir));
            }
        }
        Ok(None)
    }

    /// Writes the objects that `commit` needs and the repository lacks.
    pub(crate) fn receive(&self, mirror: &Mirror, commit: CommitId) -> Result<(), Error> {
        let mut there = self.objects().reader();
        let missing = NewObjects {
            has_all_of: &|id| Ok(there.contains(&id.0)),
            has: &|id| there.contains_quick(id),
        }
        .collect(mirror, commit)?;
        if missing.len() > LOOSE_LIMIT {
            return self.receive_pack(mirror, &missing);
        }
        let mut here = mirror.objects().reader();
        let mut written = Vec::new();
        for id in missing {
            mirror.program().cancel().check("publishing")?;
            let Some((kind, data)) = here.read(&id)? else {
                return Err(Error::Missing { id: id.into() });
            };
            let (written_id, is_new) = there.write(kind, data)?;
            if written_id != id {
                return Err(Error::Malformed {
                    id: id.into(),
                    expected: "object",
                });
            }
            if is_new {
                written.push(id);
            }
        }
        sync_loose(self.objects(), &written)
    }

    fn receive_pack(&self, mirror: &Mirror, ids: &[gix::ObjectId]) -> Result<(), Error> {
        let doing = "packing what is published";
        let scratch = mirror.scratch()?;
        let base = scratch.path().join("pack");
        let mut command = mirror.program().trusted(mirror.directory())?;
        command.args([
            "-c",
            "pack.writeReverseIndex=false",
            "pack-objects",
            "--quiet",
            "--delta-base-offset",
            "--window=0",
        ]);
        command.arg(&base);
        let input: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let call = Call::new(doing, command)
            .stdin(input.as_bytes())
            .limit(4096);
        let output = mirror.program().execute(call)?.success(doing)?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let packs = self.objects().directory().join("pack");
        fs::create_dir_all(&packs).map_err(|e| Error::io("creating", &packs, e))?;
        for ending in ["pack", "idx"] {
            let from = scratch.path().join(format!("pack-{name}.{ending}"));
            // Git clears leftovers that begin with `tmp_`.
            let staged = packs.join(format!("tmp_skep_{}_{name}.{ending}", std::process::id()));
            copy_durably(&from, &staged)?;
            let to = packs.join(format!("pack-{name}.{ending}"));
            fs::rename(&staged, &to).map_err(|e| Error::io("writing", to, e))?;
        }
        File::open(&packs)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| Error::io("writing", packs, e))
    }
}

fn copy_durably(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map_err(|e| Error::io("copying", from, e))?;
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io("writing", to, e))
}

fn branch_name(branch: &str) -> Result<FullName, Error> {
    let bad = || Error::BadReference {
        name: branch.to_owned(),
    };
    if branch.is_empty() || branch.starts_with('-') || branch == "HEAD" {
        return Err(bad());
    }
    FullName::try_from(format!("refs/heads/{branch}")).map_err(|_| bad())
}
