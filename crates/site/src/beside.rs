//! Further repositories that a site shows, and that nobody changes.

use crate::{
    error::Error,
    open::{Sites, base_key, blocking},
};
use git::{CommitId, Mirror, Source};
use std::path::{Path, PathBuf};
use workspace::Base;

/// The directory inside that holds the workspace, and further repositories beside it.
pub const SHOWN_IN: &str = sandbox::WORKSPACE_PARENT;

/// A further repository at one commit.
#[derive(Debug, Clone)]
pub struct Beside {
    /// The name of its directory, beside the workspace.
    pub name: String,
    /// The repository, as part of a base's name.
    pub repository: String,
    /// The commit.
    pub commit: CommitId,
    /// Where the repository is, should the mirror have lost it.
    pub place: PathBuf,
}

/// A further repository that is checked out: a base, which nobody writes to. It stays while this
/// value lives.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    name: String,
    tree: PathBuf,
    _base: Base,
}

impl Shown {
    /// Shows it beside the workspace, read-only.
    pub(crate) fn mount(&self) -> sandbox::Mount {
        let target = Path::new(SHOWN_IN).join(&self.name);
        sandbox::Mount::read_only(&self.tree, target)
    }
}

impl Sites {
    /// The checked-out commits of these repositories, made unless they are there.
    ///
    /// # Errors
    /// When one of them cannot be checked out: neither the mirror nor the repository has it any more.
    pub(crate) async fn shown(&self, beside: &[Beside]) -> Result<Vec<Shown>, Error> {
        let mut shown = Vec::with_capacity(beside.len());
        for one in beside {
            let mirror = self.mirror(&one.repository).await?;
            let source = if mirror.has_history(one.commit) {
                None
            } else {
                let (place, program) = (one.place.clone(), self.git().clone());
                Some(blocking(move || Ok(Source::discover(&place, program)?)).await?)
            };
            let base = self
                .whole_base(&one.repository, &mirror, one.commit, source)
                .await?;
            shown.push(Shown {
                name: one.name.clone(),
                tree: base.trees().first().cloned().ok_or(Error::Ended)?,
                _base: base,
            });
        }
        Ok(shown)
    }

    /// The directories in which these repositories are checked out, for whoever reads them at once.
    ///
    /// # Errors
    /// When one of them cannot be checked out.
    pub async fn checked_out(&self, beside: &[Beside]) -> Result<Vec<PathBuf>, Error> {
        let shown = self.shown(beside).await?;
        Ok(shown.into_iter().map(|one| one.tree).collect())
    }

    /// Checks a further repository out, so that sandboxes show it at once.
    ///
    /// # Errors
    /// When the commit cannot be checked out.
    pub async fn check_out_beside(
        &self,
        repository: &str,
        commit: CommitId,
        source: Source,
    ) -> Result<(), Error> {
        let mirror = self.mirror(repository).await?;
        self.whole_base(repository, &mirror, commit, Some(source))
            .await
            .map(drop)
    }

    /// A base of one directory: what is mounted as it is can be no layer over another.
    async fn whole_base(
        &self,
        repository: &str,
        mirror: &Mirror,
        commit: CommitId,
        source: Option<Source>,
    ) -> Result<Base, Error> {
        let (store, mirror) = (self.store().clone(), mirror.clone());
        let key = base_key(&format!("beside-{repository}"), commit);
        blocking(move || {
            store.base::<Error>(&key, |directory| {
                Ok(mirror.checkout(commit, directory, source.as_ref())?)
            })
        })
        .await
    }
}
