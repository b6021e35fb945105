//! Taking up an attempt whose last holder was lost.

use crate::{
    gate::storage,
    redact,
    story::{MAX_BODY, Story},
    worker::{Ready, Worker},
};
use agents::Recovery;
use domain::{Failure, Reason, entity::Request, failure::chain};
use gateway::Cassette;
use git::{Mirror, TreeId};
use ledger::{Lease, OpenAttempt};
use site::{Site, Wanted};
use tokio_util::sync::CancellationToken;

/// An attempt that goes on.
pub(crate) struct Again {
    /// What happened in it so far.
    pub(crate) story: Story,
    /// How its agent goes on.
    pub(crate) recovery: Recovery,
    /// The calls of its model so far, where the agent goes on by its journal.
    pub(crate) cassette: Option<Cassette>,
    /// The tree that its gate looks at, where the agent had ended its turn.
    pub(crate) tree: Option<String>,
    /// The calls that it has paid.
    pub(crate) iterations: u64,
}

/// Who takes an attempt up.
pub(crate) struct Taker<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) lease: &'a Lease,
    pub(crate) request: &'a Request,
    pub(crate) ready: &'a Ready,
    pub(crate) mirror: &'a Mirror,
    pub(crate) cancel: &'a CancellationToken,
}

/// Why an attempt is not taken up.
enum Unable {
    /// It cannot be gone on with.
    Lost(String),
    /// What is wrong is not of this attempt.
    Failed(Failure),
}

impl Taker<'_> {
    /// Opens the workspace of the attempt again and resumes it. Where that cannot be, the attempt is
    /// lost, and the claim is free for a new one: none.
    pub(crate) async fn take_up(
        &self,
        open: &OpenAttempt,
        wanted: Wanted,
    ) -> Result<Option<(Again, Option<Site>)>, Failure> {
        // What its last holder left besides, such as the site of its checks.
        let sweep = async || {
            if let Err(error) = self.worker.sites.sweep(&self.worker.ledger).await {
                tracing::warn!(%error, "what a lost process left could not be swept");
            }
        };
        sweep().await;
        match self.try_take_up(open, wanted).await {
            Ok(again) => Ok(Some(again)),
            Err(Unable::Failed(failure)) => Err(failure),
            Err(Unable::Lost(why)) => {
                let failure = Failure::new(Reason::OwnerLost, why);
                let failure = redact::failure(&self.worker.gateway, failure);
                let why = &failure.detail;
                tracing::info!(attempt = %open.attempt.id, why, "an attempt cannot be gone on with");
                let ledger = &self.worker.ledger;
                ledger
                    .lose_attempt(self.lease, failure)
                    .await
                    .map_err(storage)?;
                sweep().await;
                Ok(None)
            }
        }
    }

    /// Whether the mirror still has what the attempt had made.
    async fn has_made(&self, wanted: &Wanted, tree: &str) -> bool {
        let Ok(tree) = tree.parse::<TreeId>() else {
            return false;
        };
        let (mirror, base) = (self.mirror.clone(), wanted.base);
        let read = tokio::task::spawn_blocking(move || {
            let base = mirror.tree_of(base);
            base.is_ok_and(|base| mirror.holds_change(base, tree))
        });
        read.await.unwrap_or_default()
    }

    async fn try_take_up(
        &self,
        open: &OpenAttempt,
        wanted: Wanted,
    ) -> Result<(Again, Option<Site>), Unable> {
        let lost = |error: &dyn std::error::Error| Unable::Lost(chain(error));
        let attempt = &open.attempt;
        let story = Story::read(self.worker, self.request, attempt.id)
            .await
            .map_err(|error| lost(&error))?;
        let tree = match (open.checking || story.ended, &attempt.tree) {
            (true, Some(tree)) => Some(tree.clone()),
            (true, None) => return Err(Unable::Lost("its tree is not recorded".into())),
            (false, _) => None,
        };
        let kind = self.worker.sites.kind().to_string();
        // What the agent has done was done in the sandbox that the attempt is labelled with.
        if tree.is_none() && attempt.sandbox != kind {
            let why = format!(
                "it ran in a sandbox of the kind {}, and this one is {kind}",
                attempt.sandbox
            );
            return Err(Unable::Lost(why));
        }
        if let Some(tree) = &tree
            && !self.has_made(&wanted, tree).await
        {
            let why =
                "what it had made is lost: the mirror of the repository was removed or is damaged";
            return Err(Unable::Lost(why.into()));
        }
        let recovery = self.ready.agent.recovery();
        if tree.is_none() && !story.rounds.is_empty() {
            match recovery {
                Recovery::Nothing => {
                    let why = format!("`{}` cannot go on within its turn", attempt.agent);
                    return Err(Unable::Lost(why));
                }
                Recovery::Memory if story.session.is_none() => {
                    let why = format!("`{}` had not named its conversation yet", attempt.agent);
                    return Err(Unable::Lost(why));
                }
                Recovery::Memory | Recovery::Journal => {}
            }
        }
        let cassette = match recovery {
            Recovery::Journal => Some(
                gateway::cassette(&self.worker.ledger, attempt.id, MAX_BODY)
                    .await
                    .map_err(|error| lost(&error))?
                    .without_refused()
                    .without_cut_end(),
            ),
            _ => None,
        };
        let reopened = tokio::select! {
            reopened = self.worker.sites.reopen(self.mirror, wanted) => reopened,
            () = self.cancel.cancelled() => {
                return Err(Unable::Failed(Failure::new(Reason::Cancelled, "")));
            }
        };
        let site = match reopened {
            Ok(mut site) => {
                site.outlive();
                Some(site)
            }
            // The gate needs the tree alone, which is in the mirror.
            Err(error) if tree.is_some() => {
                tracing::info!(error = chain(&error), attempt = %attempt.id, "its workspace is gone");
                None
            }
            Err(error) => return Err(lost(&error)),
        };
        let resumed = async {
            let ledger = &self.worker.ledger;
            ledger.resume_attempt(self.lease).await?;
            if let Some(tree) = tree.as_ref().filter(|_| !open.checking) {
                // Its gate had sent findings back, and the next turn had not begun.
                ledger.attempt_checking(self.lease, tree.clone()).await?;
            }
            Ok(())
        };
        resumed
            .await
            .map_err(|error| Unable::Failed(storage(error)))?;
        let again = Again {
            story,
            recovery,
            cassette,
            tree,
            iterations: attempt.spent.iterations,
        };
        Ok((again, site))
    }
}
