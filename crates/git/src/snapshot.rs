//! `HEAD` plus what is uncommitted, as a commit in the mirror.
//!
//! `git add` runs as the user, for their ignore rules and clean filters, with an index and an object directory of our
//! own: the repository itself is not written, nor are its objects read (git would renew their times). What is staged
//! already comes when the snapshot is fetched. Hooks and the file system monitor are off. A clean filter is the user's
//! own program; Git LFS is told to keep its objects with ours.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use bstr::{BString, ByteSlice};

use crate::commit::{NewCommit, Signature};
use crate::error::Error;
use crate::ids::{CommitId, TreeId};
use crate::mirror::Mirror;
use crate::process::Call;
use crate::source::Source;

impl Mirror {
    /// A commit on `HEAD` with all that is uncommitted and not ignored; `HEAD` itself when there is nothing. It is
    /// fetched too: a checkout can follow. `who` is its author; the same content at the same time gives the same id.
    ///
    /// # Errors
    /// [`Error::Unmerged`] where a merge left conflicts: what git wrote into those files is nobody's work.
    pub fn snapshot_uncommitted(
        &self,
        source: &Source,
        who: &Signature,
    ) -> Result<CommitId, Error> {
        let head = source.head().commit;
        self.fetch(source, head)?;
        if source.copy_of().is_some() {
            return Ok(head);
        }
        let head_tree = self.tree_of(head)?;
        let tree = self.uncommitted_tree(source)?;
        if tree == head_tree {
            return Ok(head);
        }
        let message = "Uncommitted changes\n";
        let commit = NewCommit {
            tree,
            parents: &[head],
            author: who,
            committer: who,
            message: message.into(),
        };
        // The tree may be only in the user's repository, if its index was written before.
        let id = self.commit_unchecked(&commit)?;
        self.fetch(source, id)?;
        Ok(id)
    }

    fn uncommitted_tree(&self, source: &Source) -> Result<TreeId, Error> {
        let scratch = self.scratch()?;
        let index = scratch.path().join("index");
        copy_index(&source.git_dir().join("index"), &index)?;
        let git = |doing: &'static str, args: &[&str]| {
            let mut command = source.program().as_user_reading(source.top())?;
            command.env("GIT_INDEX_FILE", &index);
            command.env("GIT_OBJECT_DIRECTORY", self.objects().directory());
            let mut storage = OsString::from("lfs.storage=");
            storage.push(scratch.path().join("lfs"));
            command.arg("-c").arg(storage);
            for setting in [
                "core.splitIndex=false",
                "core.safecrlf=false",
                "advice.addEmbeddedRepo=false",
            ] {
                command.arg("-c").arg(setting);
            }
            command.args(args);
            source
                .program()
                .execute(Call::new(doing, command))?
                .success(doing)
        };
        let doing = "looking for conflicts";
        let unmerged = unmerged(&git(doing, &["ls-files", "--unmerged", "-z"])?.stdout);
        if !unmerged.is_empty() {
            return Err(Error::Unmerged { files: unmerged });
        }
        git("reading uncommitted changes", &["add", "--all", "--", "."])?;
        let doing = "writing uncommitted changes";
        let output = git(doing, &["write-tree", "--missing-ok"])?;
        output
            .stdout
            .trim()
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(Error::Output { doing })
    }
}

/// The paths in the output of `git ls-files --unmerged -z`, where each stands up to three times, after its mode,
/// object and stage.
fn unmerged(listed: &[u8]) -> Vec<BString> {
    let mut files: Vec<BString> = listed
        .split(|b| *b == 0)
        .filter_map(|record| record.split_once_str("\t"))
        .map(|(_, path)| path.into())
        .collect();
    files.dedup();
    files
}

/// Copies the index with its time, by which git knows which entries may have changed in the moment it was written.
fn copy_index(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |e| Error::io("copying", from, e);
    match fs::copy(from, to) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    }
    let modified = fs::metadata(from)
        .and_then(|meta| meta.modified())
        .map_err(failed)?;
    File::options()
        .write(true)
        .open(to)
        .and_then(|file| file.set_modified(modified))
        .map_err(failed)
}
