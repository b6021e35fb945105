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
    /// Where the integration branch is in the user's repository, which the mirror has too.
    pub shown: Option<CommitId>,
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
        let Ok(base) = ask.base.parse::<CommitId>() else {
            return Ok(Stocked {
                mirror,
                shown: None,
            });
        };
        let program = self.git().clone();
        let top = ask.repository_path.clone();
        let branch = IntegrationBranch::new(mirror.clone(), &ask.policy.integration.branch);
        let dirty = ask.dirty;
        blocking(move || {
            let source = match Source::discover(Path::new(&top), program) {
                Ok(source) => source,
                // Moved away: what the mirror has is enough until the work is to be published.
                Err(_) if mirror.has_history(base) => {
                    return Ok(Stocked {
                        mirror,
                        shown: None,
                    });
                }
                Err(error) => return Err(error.into()),
            };
            match branch.stock(&source, base) {
                Ok(shown) => Ok(Stocked { mirror, shown }),
                Err(git::Error::Missing { id }) if id == base.into() => Err(Error::BaseLost {
                    commit: base,
                    again: if dirty {
                        "what was uncommitted then is lost: give the work again with `skep run`"
                    } else {
                        "`skep retry` starts from what the repository has now"
                    },
                }),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}
