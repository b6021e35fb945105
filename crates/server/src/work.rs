//! Running the roles until a request has ended.

use crate::{Error, Node, Room, submit::blocking};
use domain::{RequestId, entity::Request, machine::Machine};
use git::{IntegrationBranch, Signature};
use ledger::Owner;
use std::{collections::HashSet, future::Future, path::Path, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a role waits for a change in the ledger before it looks again by itself.
const FALLBACK: Duration = Duration::from_secs(2);
/// How long a cancelled request may take to clean up.
const CLEANUP: Duration = Duration::from_secs(30);
/// The most requests whose branches are looked at, the newest first.
const MAX_TIDIED: usize = 100;

impl Node {
    /// Runs planner, workers and integrator for this request until it has ended. When `cancel` is
    /// set, the request is cancelled and what it had running is cleaned up.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub async fn work(
        &self,
        request: RequestId,
        cancel: &CancellationToken,
    ) -> Result<Request, Error> {
        let parallel = self.ledger.request(request).await?.ask.parallel;
        self.work_within(request, &Room::new(parallel), cancel)
            .await
    }

    /// The same beside other requests that share this room: a job of this one begins when there is
    /// a place for it.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub async fn work_within(
        &self,
        request: RequestId,
        room: &Room,
        cancel: &CancellationToken,
    ) -> Result<Request, Error> {
        // Nothing is published from a ledger that is only looked at.
        let owner = self.ledger.owner().await?;
        self.sweep().await;
        self.publish_pending(request).await;
        let stop = CancellationToken::new();
        let mut roles = JoinSet::new();
        let parallel = self.ledger.request(request).await?.ask.parallel;
        for _ in 0..parallel {
            let room = room.clone();
            roles.spawn(self.clone().role(
                owner.clone(),
                stop.clone(),
                move |node, owner, stop| {
                    let room = room.clone();
                    async move {
                        // A job is claimed only when it can begin: others may take it until then.
                        let Some(_place) = room.place(&stop).await else {
                            return Ok(false);
                        };
                        let step = node.worker.step(&owner, Some(request), &stop).await;
                        step.map_err(|error| Error::of_role(&error))
                    }
                },
            ));
        }
        let planning = room.clone();
        roles.spawn(
            self.clone()
                .role(owner.clone(), stop.clone(), move |node, owner, stop| {
                    let room = planning.clone();
                    async move {
                        let Some(_place) = room.place(&stop).await else {
                            return Ok(false);
                        };
                        let step = node.planner.step(&owner, Some(request), &stop).await;
                        step.map_err(|error| Error::of_role(&error))
                    }
                }),
        );
        let telling = CancellationToken::new();
        let mut notifier = JoinSet::new();
        notifier.spawn(self.clone().tell(owner.clone(), telling.clone()));
        roles.spawn(
            self.clone()
                .role(owner, stop.clone(), move |node, owner, stop| async move {
                    let step = node.integrator.step(&owner, Some(request), &stop).await;
                    step.map_err(|error| Error::of_role(&error))
                }),
        );
        let ended = self.ended(request, cancel, &mut roles).await;
        if ended.is_err() {
            // What is under way must not be settled as cancelled, because nobody cancelled it: it is
            // dropped, its leases end with their owner, and it is tried again.
            roles.abort_all();
        }
        stop.cancel();
        let joined = tokio::time::timeout(CLEANUP, async {
            while let Some(role) = roles.join_next().await {
                if let Err(error) = role
                    && !error.is_cancelled()
                {
                    tracing::error!(%error, "a role ended badly");
                }
            }
        });
        if joined.await.is_err() {
            tracing::warn!("the roles did not end in time; their sandboxes end with this process");
        }
        ended?;
        // An attempt that was suspended when its request was cancelled left its workspace.
        self.sweep().await;
        self.publish_pending(request).await;
        self.told(request).await;
        telling.cancel();
        while let Some(ended) = notifier.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the role that tells people ended badly");
            }
        }
        Ok(self.ledger.request(request).await?)
    }

    /// Does what processes that were killed could not do any more for requests that have ended:
    /// takes away what they left behind, and publishes what is integrated.
    ///
    /// # Errors
    /// When the ledger cannot be read, or was restored and is not taken over.
    pub async fn tidy(&self) -> Result<(), Error> {
        self.ledger.may_work().await?;
        self.sweep().await;
        let mut seen = HashSet::new();
        for request in self.ledger.requests(MAX_TIDIED, None).await? {
            let branch = request.ask.policy.integration.branch.clone();
            if request.state.is_terminal() && seen.insert((request.ask.repository, branch)) {
                self.publish_pending(request.id).await;
            }
        }
        Ok(())
    }

    /// Takes away what nobody works in any more.
    pub(crate) async fn sweep(&self) {
        if let Err(error) = crate::standing::sweep(&self.options.data) {
            tracing::warn!(%error, "what an earlier holder left could not be swept");
        }
        if let Err(error) = self.sites.sweep(&self.ledger).await {
            tracing::warn!(%error, "what an earlier process left could not be swept");
        }
    }

    /// Publishes what is integrated and was not published, where a process ended in between.
    async fn publish_pending(&self, request: RequestId) {
        if let Err(error) = self.try_publish_pending(request).await {
            tracing::warn!(%error, "integrated work could not be published; the next run tries again");
        }
    }

    async fn try_publish_pending(&self, request: RequestId) -> Result<(), Error> {
        let ask = self.ledger.request(request).await?.ask;
        let mirror = self.sites.mirror(&ask.repository.to_string()).await?;
        let source = self.source(Path::new(&ask.repository_path)).await?;
        let name = ask.policy.integration.branch;
        let who = Signature::new("Skep", "skep@localhost", self.ledger.now().seconds());
        let branch = IntegrationBranch::new(mirror, &name);
        let published = blocking(move || Ok(branch.publish_pending(&source, &who)?)).await?;
        if let Some(commit) = published {
            let commit = commit.to_string();
            self.ledger.published(request, name, commit, None).await?;
        }
        Ok(())
    }

    /// Waits until the request has ended; cancels it when asked to.
    ///
    /// What wakes it: a commit in the ledger, the cancellation, or a role that fails.
    async fn ended(
        &self,
        request: RequestId,
        cancel: &CancellationToken,
        roles: &mut JoinSet<Result<(), Error>>,
    ) -> Result<(), Error> {
        let mut changes = self.ledger.changes();
        let mut cancelled = false;
        loop {
            if self.ledger.request(request).await?.state.is_terminal() {
                return Ok(());
            }
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Err(ledger::Error::Closed.into());
                    }
                }
                () = cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    let refused = self.ledger.cancel_request(request).await.err();
                    // It may have ended just now, which is as good.
                    if let Some(error) = refused
                        && !self.ledger.request(request).await?.state.is_terminal()
                    {
                        return Err(error.into());
                    }
                }
                Some(role) = roles.join_next() => match role {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(Error::Ended),
                },
                () = tokio::time::sleep(FALLBACK) => {}
            }
        }
    }

    /// Runs a step again and again while it finds something to do; else waits for a change.
    ///
    /// What wakes it: a commit in the ledger, of any process. It ends when `stop` is set.
    async fn role<F, S>(self, owner: Owner, stop: CancellationToken, step: S) -> Result<(), Error>
    where
        F: Future<Output = Result<bool, Error>> + Send,
        S: Fn(Node, Owner, CancellationToken) -> F + Send,
    {
        let mut changes = self.ledger.changes();
        while !stop.is_cancelled() {
            changes.mark_unchanged();
            if step(self.clone(), owner.clone(), stop.clone()).await? {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(FALLBACK) => {}
            }
        }
        Ok(())
    }
}
