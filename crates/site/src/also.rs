//! Further repositories that are written in a site, each over a base of its own.

use crate::{
    beside::Beside,
    error::Error,
    open::{Sites, blocking},
};
use git::{CommitId, Mirror, Source, TreeId};
use std::path::PathBuf;
use workspace::Base;

/// A further repository that is written, from one commit on.
#[derive(Debug, Clone)]
pub struct Also {
    /// The name of its directory, beside the workspace's own.
    pub name: String,
    /// The repository, as part of a base's name.
    pub repository: String,
    /// The commit that is checked out.
    pub commit: CommitId,
    /// The tree whose content is wanted instead of the commit's, for checks.
    pub tree: Option<TreeId>,
    /// Where the repository is, should the mirror have lost it.
    pub place: PathBuf,
}

impl Also {
    /// The same to be shown only: for a setup, which is of the first repository.
    pub(crate) fn shown(&self) -> Beside {
        Beside {
            name: self.name.clone(),
            repository: self.repository.clone(),
            commit: self.commit,
            place: self.place.clone(),
        }
    }
}

/// What is known of a further repository that a site writes.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) mirror: Mirror,
    /// The tree of its commit.
    pub(crate) base: TreeId,
    /// The tree that is wanted in its place.
    pub(crate) tree: Option<TreeId>,
}

impl Sites {
    /// Checks a further repository out, so that sandboxes write over it at once.
    ///
    /// # Errors
    /// When the commit cannot be checked out.
    pub async fn check_out_also(
        &self,
        repository: &str,
        commit: CommitId,
        source: Source,
    ) -> Result<(), Error> {
        let mirror = self.mirror(repository).await?;
        self.base(repository, &mirror, commit, Some(source))
            .await
            .map(drop)
    }

    /// The mirrors of these repositories, with their commits.
    ///
    /// # Errors
    /// When neither the mirror nor the repository has one of the commits any more.
    pub(crate) async fn written(&self, also: &[Also]) -> Result<Vec<Written>, Error> {
        let mut all = Vec::with_capacity(also.len());
        for one in also {
            let mirror = self.mirror(&one.repository).await?;
            let (place, program) = (one.place.clone(), self.git().clone());
            let (commit, held) = (one.commit, mirror.clone());
            let base = blocking(move || {
                if !held.has_history(commit) {
                    held.fetch(&Source::discover(&place, program)?, commit)?;
                }
                Ok(held.tree_of(commit)?)
            })
            .await?;
            all.push(Written {
                name: one.name.clone(),
                mirror,
                base,
                tree: one.tree,
            });
        }
        Ok(all)
    }

    /// The bases that they lie over, made unless they are there.
    ///
    /// # Errors
    /// When one of them cannot be checked out.
    pub(crate) async fn also_bases(
        &self,
        also: &[Also],
        written: &[Written],
    ) -> Result<Vec<(String, Base)>, Error> {
        let mut bases = Vec::with_capacity(also.len());
        for (one, known) in also.iter().zip(written) {
            let base = self
                .base(&one.repository, &known.mirror, one.commit, None)
                .await?;
            bases.push((one.name.clone(), base));
        }
        Ok(bases)
    }
}
