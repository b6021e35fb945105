//! Merges in memory, without a checkout: by ourselves where changes lie apart, else by `git merge-tree --write-tree`
//! in the mirror.

use bstr::{BString, ByteSlice};

use crate::commit::{NewCommit, Signature};
use crate::error::Error;
use crate::ids::{CommitId, TreeId};
use crate::mirror::Mirror;
use crate::process::Call;
use crate::program::Version;

/// How a merge ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Without conflict.
    Clean {
        /// The result.
        tree: TreeId,
    },
    /// With conflicts.
    Conflicted {
        /// The files that conflict, each once, in the order of their paths.
        files: Vec<BString>,
        /// What git made of it, with conflict markers in the files. Never to be landed.
        tree: TreeId,
    },
}

/// From this version git can be told where to read attributes in a bare repository.
const ATTRIBUTE_SOURCE: Version = Version {
    major: 2,
    minor: 41,
};

impl Mirror {
    /// Merges `theirs` into `ours`. With `base`, that commit is taken for the common ancestor, whatever the history
    /// says; without, git finds it (none is an empty one). Nothing but objects is written.
    pub fn merge(
        &self,
        ours: CommitId,
        theirs: CommitId,
        base: Option<CommitId>,
    ) -> Result<Merged, Error> {
        let mut reader = self.objects().reader();
        let (our, their) = (reader.commit(ours)?, reader.commit(theirs)?);
        match base {
            Some(base) => self.merge_trees(reader.commit(base)?.tree, our.tree, their.tree),
            None if their.parents.contains(&ours) || our.tree == their.tree => {
                Ok(Merged::Clean { tree: their.tree })
            }
            None if our.parents.contains(&theirs) => Ok(Merged::Clean { tree: our.tree }),
            None => self.run_merge(ours, theirs),
        }
    }

    /// Applies what `commit` changed over its first parent to `onto`.
    pub fn cherry_pick(&self, commit: CommitId, onto: CommitId) -> Result<Merged, Error> {
        let mut reader = self.objects().reader();
        let picked = reader.commit(commit)?;
        let base = match picked.parents.first() {
            Some(parent) => reader.commit(*parent)?.tree,
            None => TreeId::empty(),
        };
        self.merge_trees(base, reader.commit(onto)?.tree, picked.tree)
    }

    /// Merges two trees over a third.
    pub fn merge_trees(&self, base: TreeId, ours: TreeId, theirs: TreeId) -> Result<Merged, Error> {
        if ours == base || ours == theirs {
            return Ok(Merged::Clean { tree: theirs });
        }
        if theirs == base {
            return Ok(Merged::Clean { tree: ours });
        }
        if let Some(tree) = self.merge_apart(base, ours, theirs)? {
            return Ok(Merged::Clean { tree });
        }
        // `--merge-base` came with git 2.40; commits made for the purpose say the same to all versions.
        let nobody = Signature::new("skep", "skep@skep.invalid", 0);
        let made = |tree, parents: &[CommitId]| {
            self.commit(&NewCommit {
                tree,
                parents,
                author: &nobody,
                committer: &nobody,
                message: "".into(),
            })
        };
        let root = made(base, &[])?;
        self.run_merge(made(ours, &[root])?, made(theirs, &[root])?)
    }

    /// The best common ancestor of two commits, or nothing when they share no history.
    pub fn merge_base(&self, one: CommitId, other: CommitId) -> Result<Option<CommitId>, Error> {
        let doing = "looking for a common ancestor";
        let mut command = self.program().trusted(self.directory())?;
        command
            .arg("merge-base")
            .arg(one.to_string())
            .arg(other.to_string());
        let output = self.program().execute(Call::new(doing, command))?;
        match output.code {
            Some(0) => output
                .stdout
                .trim()
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Some)
                .ok_or(Error::Output { doing }),
            Some(1) => Ok(None),
            _ => Err(output.failure(doing)),
        }
    }

    fn run_merge(&self, ours: CommitId, theirs: CommitId) -> Result<Merged, Error> {
        let doing = "merging";
        let mut command = self.program().trusted(self.directory())?;
        if self.program().version()? >= ATTRIBUTE_SOURCE {
            // `merge=union` and the like count as they do in a checkout of ours. Drivers need settings: there are none.
            command.env("GIT_ATTR_SOURCE", ours.to_string());
        }
        command.args([
            "merge-tree",
            "--write-tree",
            "-z",
            "--name-only",
            "--no-messages",
            "--allow-unrelated-histories",
        ]);
        command.arg(ours.to_string()).arg(theirs.to_string());
        let output = self.program().execute(Call::new(doing, command))?;
        if !matches!(output.code, Some(0 | 1)) {
            return Err(output.failure(doing));
        }
        // <tree> NUL (<path> NUL)*
        let mut fields = output.stdout.split(|b| *b == 0);
        let tree = fields
            .next()
            .and_then(|field| field.to_str().ok()?.parse().ok())
            .ok_or(Error::Output { doing })?;
        if output.code == Some(0) {
            return Ok(Merged::Clean { tree });
        }
        let mut files: Vec<BString> = fields
            .take_while(|field| !field.is_empty())
            .map(BString::from)
            .collect();
        files.sort();
        files.dedup();
        Ok(Merged::Conflicted { files, tree })
    }
}
