//! The mirror of a request's repository with all that its work starts from.

use crate::{
    error::Error,
    open::{Sites, blocking},
};
use domain::entity::Ask;
use git::{CommitId, IntegrationBranch, Mirror, Source};
use std::path::Path;

/// A mirror that work can go on with.
pub struct Stocked {
    /// The mirror.
    pub mirror: Mirror,
    branch: IntegrationBranch,
    /// The user's repository, if it is where it was.
    source: Option<Source>,
    /// Where the integration branch is in it, which the mirror has too.
    users: Option<CommitId>,
}

impl Stocked {
    /// Where work starts that builds on these commits, which were integrated: nothing if nothing is
    /// integrated any more, because a person took it away.
    ///
    /// # Errors
    /// [`git::Error::WorkLost`] when one of them is lost; [`git::Error::WorkOutOfReach`] when the
    /// mirror has lost one and the user's repository cannot be asked.
    pub async fn tip(&self, needed: Vec<CommitId>) -> Result<Option<CommitId>, Error> {
        let (branch, source, users) = (self.branch.clone(), self.source.clone(), self.users);
        blocking(move || Ok(branch.start(source.as_ref(), users, &needed)?)).await
    }

    /// Whether a commit that was integrated is still to be had: whatever [`Stocked::tip`] finds.
    ///
    /// # Errors
    /// When that cannot be known.
    pub async fn keeps(&self, commit: CommitId) -> Result<bool, Error> {
        match self.tip(vec![commit]).await {
            Ok(_) => Ok(true),
            Err(Error::Git(git::Error::WorkLost { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Sites {
    /// The mirror of the repository of a request, with the commit that the request starts from and the
    /// integration branch: both are fetched where the mirror was lost since, or is damaged.
    ///
    /// # Errors
    /// When that commit is neither in the mirror nor in the user's repository, or one of the two
    /// cannot be read.
    pub async fn stocked(&self, ask: &Ask) -> Result<Stocked, Error> {
        let mirror = self.mirror(&ask.repository.to_string()).await?;
        let branch = IntegrationBranch::new(mirror.clone(), &ask.policy.integration.branch);
        let mut stocked = Stocked {
            mirror,
            branch,
            source: None,
            users: None,
        };
        let Ok(base) = ask.base.parse::<CommitId>() else {
            return Ok(stocked);
        };
        let program = self.git().clone();
        let top = ask.repository_path.clone();
        let dirty = ask.dirty;
        blocking(move || {
            let source = match Source::discover(Path::new(&top), program) {
                Ok(source) => source,
                // Moved away: what the mirror has is enough until the work is to be published.
                Err(_) if stocked.mirror.has_history(base) => return Ok(stocked),
                Err(error) => return Err(error.into()),
            };
            stocked.users = match stocked.branch.stock(&source, base) {
                Ok(users) => users,
                Err(git::Error::Missing { id }) if id == base.into() => {
                    return Err(Error::BaseLost {
                        commit: base,
                        again: if dirty {
                            "what was uncommitted then is lost: give the work again with `skep run`"
                        } else {
                            "`skep retry` starts from what the repository has now"
                        },
                    });
                }
                Err(error) => return Err(error.into()),
            };
            stocked.source = Some(source);
            Ok(stocked)
        })
        .await
    }
}
