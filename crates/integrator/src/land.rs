//! Landing one change.

mod check;

use bstr::ByteSlice;
use domain::{
    Failure, Reason, RequestId, RequestState,
    entity::{Change, Request},
};
use gateway::Gateway;
use git::{
    CommitId, IntegrationBranch, Merged, Mirror, NewCommit, Published, Signature, Source, Standing,
};
use ledger::{ChangeOutcome, ClaimedChange, Lease, Ledger, Owner};
use site::{Sites, Stocked};
use std::{path::Path, sync::Arc};
use tokio_util::sync::CancellationToken;

/// How often a publication begins anew because that of another request was quicker.
const PUBLICATIONS: usize = 10;
/// How often a landing begins anew because the tip moved meanwhile.
const TRIES: usize = 5;

/// What an integrator works with.
#[derive(Clone)]
pub struct Options {
    /// The durable truth.
    pub ledger: Ledger,
    /// Where the merged tree is checked.
    pub sites: Sites,
}

/// Takes changes to the integration branch. Cheap to clone.
#[derive(Clone)]
pub struct Integrator {
    ledger: Ledger,
    sites: Sites,
    redact: Redact,
    gateway: Option<Gateway>,
}

/// Takes what is secret out of a text.
type Redact = Arc<dyn Fn(String) -> String + Send + Sync>;

/// Why an integrator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be used.
    #[error("the integrator cannot use the ledger")]
    Ledger(#[from] ledger::Error),
}

/// Why one change does not land.
enum Halt {
    /// It does not merge.
    Conflicted(Vec<String>),
    /// It is rejected.
    Rejected(Failure),
    /// The machine has a fault that may pass: it is tried again after a while.
    Postponed(Failure),
    /// Somebody else moved the branch each time: it is tried again after a while.
    Moved,
    /// The lease is gone, or the process ends: the next integrator begins anew.
    Lost,
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        if failure.reason.may_pass() {
            Self::Postponed(failure)
        } else {
            Self::Rejected(failure)
        }
    }
}

impl From<git::Error> for Halt {
    fn from(error: git::Error) -> Self {
        match error {
            git::Error::Diverged { files, .. } => Self::Conflicted(files),
            other if other.may_pass() => Self::Postponed(Failure::caused(Reason::Storage, &other)),
            other => Self::Rejected(Failure::caused(Reason::Repository, &other)),
        }
    }
}

impl From<ledger::Error> for Halt {
    fn from(error: ledger::Error) -> Self {
        match error {
            ledger::Error::LeaseLost(_) | ledger::Error::Closed => Self::Lost,
            other if other.may_pass() => Self::Postponed(Failure::caused(Reason::Storage, &other)),
            other => Self::Rejected(Failure::caused(Reason::Storage, &other)),
        }
    }
}

impl From<Halt> for ChangeOutcome {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Conflicted(files) => Self::Conflicted { files },
            Halt::Rejected(failure) => Self::Rejected { failure },
            Halt::Postponed(failure) => Self::Postponed {
                failure,
                may_have_landed: true,
            },
            Halt::Moved => Self::Postponed {
                failure: Failure::new(
                    Reason::Repository,
                    format!("the integration branch was moved {TRIES} times by somebody else"),
                ),
                may_have_landed: false,
            },
            Halt::Lost => Self::Requeued,
        }
    }
}

impl Integrator {
    /// An integrator.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options { ledger, sites } = options;
        Self {
            ledger,
            sites,
            redact: Arc::new(|text| text),
            gateway: None,
        }
    }

    /// Takes what is secret out of the evidence of merges and of why one does not land, as the
    /// gateway does for attempts.
    #[must_use]
    pub fn redacting(mut self, redact: impl Fn(String) -> String + Send + Sync + 'static) -> Self {
        self.redact = Arc::new(redact);
        self
    }

    /// Lets out of the sandboxes of its checks what the policy grants.
    #[must_use]
    pub fn letting_out(mut self, gateway: Gateway) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// Claims one change, of this request if one is named, and lands it or says why not. False if
    /// there is none.
    ///
    /// # Errors
    /// When the ledger cannot be used. A change that does not land is no error.
    pub async fn step(
        &self,
        owner: &Owner,
        only: Option<RequestId>,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        let Some(claimed) = self.ledger.claim_change(owner, only).await? else {
            return Ok(false);
        };
        let lost = cancel.child_token();
        let lease = claimed.lease.clone();
        ledger::held(&self.ledger, &lease, &lost, self.settle(claimed, &lost)).await;
        Ok(true)
    }

    async fn settle(&self, claimed: ClaimedChange, cancel: &CancellationToken) {
        let landing = match self.open(&claimed).await {
            Ok(landing) => landing,
            Err(halt) => return self.say(&claimed, halt.into()).await,
        };
        match landing.land(cancel).await {
            Ok(commit) => {
                let outcome = ChangeOutcome::Integrated {
                    commit: commit.to_string(),
                };
                self.say(&claimed, outcome).await;
                landing.publish().await;
            }
            Err(halt) => self.say(&claimed, halt.into()).await,
        }
    }

    async fn say(&self, claimed: &ClaimedChange, outcome: ChangeOutcome) {
        let ClaimedChange { lease, change, .. } = claimed;
        let clean = |text: String| (self.redact)(text);
        let clean_failure =
            |failure: Failure| Failure::new(failure.reason, (self.redact)(failure.detail));
        let outcome = match outcome {
            ChangeOutcome::Conflicted { files } => ChangeOutcome::Conflicted {
                files: files.into_iter().map(clean).collect(),
            },
            ChangeOutcome::Rejected { failure } => ChangeOutcome::Rejected {
                failure: clean_failure(failure),
            },
            ChangeOutcome::Postponed {
                failure,
                may_have_landed,
            } => ChangeOutcome::Postponed {
                failure: clean_failure(failure),
                may_have_landed,
            },
            other => other,
        };
        match self.ledger.settle_change(lease, outcome).await {
            Ok(_) | Err(ledger::Error::LeaseLost(_)) => {}
            Err(error) => {
                tracing::error!(%error, change = %change.id, "a change could not be settled")
            }
        }
    }

    async fn open<'a>(&'a self, claimed: &'a ClaimedChange) -> Result<Landing<'a>, Halt> {
        let ClaimedChange {
            lease,
            change,
            request,
            given_up,
        } = claimed;
        let stocked = self.sites.stocked(&request.ask).await;
        let stocked = stocked.map_err(|error| error.failure())?;
        let mirror = stocked.mirror.clone();
        let policy = &request.ask.policy;
        let source = Source::discover(
            Path::new(&request.ask.repository_path),
            self.sites.git().clone(),
        )?;
        Ok(Landing {
            integrator: self,
            lease,
            change,
            request,
            given_up: given_up.as_ref(),
            branch: IntegrationBranch::new(mirror.clone(), &policy.integration.branch),
            mirror,
            stocked,
            source,
            who: Signature::new(
                &policy.commit.name,
                &policy.commit.email,
                self.ledger.now().seconds(),
            ),
        })
    }
}

/// One change on its way to the branch.
struct Landing<'a> {
    integrator: &'a Integrator,
    lease: &'a Lease,
    change: &'a Change,
    request: &'a Request,
    /// Why it is only looked for, if it is.
    given_up: Option<&'a Failure>,
    branch: IntegrationBranch,
    mirror: Mirror,
    stocked: Stocked,
    source: Source,
    who: Signature,
}

impl Landing<'_> {
    /// Puts the change on top of the tip, and says which commit holds it.
    async fn land(&self, cancel: &CancellationToken) -> Result<CommitId, Halt> {
        let ledger = &self.integrator.ledger;
        // From here on an integrator that was lost, and still runs, lands nothing any more: what is
        // seen below stays as it is seen.
        self.hold().await?;
        if let Some(intended) = &self.change.integrated {
            let intended = parse(intended)?;
            let branch = self.branch.clone();
            if blocking(move || branch.holds(intended)).await? {
                return Ok(intended);
            }
        }
        if let Some(failure) = self.given_up {
            return Err(Halt::Rejected(failure.clone()));
        }
        if ledger.request(self.request.id).await?.state == RequestState::Cancelled {
            return Err(Halt::Rejected(Failure::new(
                Reason::Cancelled,
                "the request was cancelled",
            )));
        }
        let others = self.find_others().await?;
        let own = parse(&self.change.commit)?;
        let base = parse(&self.request.ask.base)?;
        let mut is_noted = false;
        for _ in 0..TRIES {
            if cancel.is_cancelled() {
                return Err(Halt::Lost);
            }
            let (branch, source, who) = self.parts();
            let others = others.clone();
            let standing = blocking(move || {
                let base = branch.base_with(&source, base, &others, &who)?;
                branch.standing(&source, base, &who)
            });
            let standing = standing.await?;
            let recorded = standing.recorded;
            let commit = self.place(own, standing, &mut is_noted, cancel).await?;
            ledger.land_change(self.lease, commit.to_string()).await?;
            let (branch, token) = (self.branch.clone(), self.lease.token);
            let advanced = blocking(move || match branch.land(recorded, commit, token) {
                Ok(()) => Ok(true),
                Err(git::Error::Moved { .. } | git::Error::Fenced { .. }) => Ok(false),
                // Written for all that, if the branch says so.
                Err(other) => match branch.holds(commit) {
                    Ok(true) => Ok(true),
                    _ => Err(other),
                },
            });
            if advanced.await? {
                return Ok(commit);
            }
            // One that was late to see that it is lost may have taken over in between.
            self.hold().await?;
        }
        Err(Halt::Moved)
    }

    /// Finds what the request has integrated before. Without it the request would end as if all of it
    /// was on the branch.
    async fn find_others(&self) -> Result<Vec<CommitId>, Halt> {
        let changes = self.integrator.ledger.changes_of(self.request.id).await?;
        let integrated = changes.iter().filter(|it| it.state.is_integrated());
        let needed = integrated
            .filter_map(|it| it.integrated.as_deref())
            .map(parse)
            .collect::<Result<Vec<_>, _>>()?;
        match self.stocked.tip(needed.clone()).await {
            Ok(_) => Ok(needed),
            Err(error) => Err(error.failure().into()),
        }
    }

    /// Keeps everybody else from landing on the branch.
    async fn hold(&self) -> Result<(), Halt> {
        let (branch, token) = (self.branch.clone(), self.lease.token);
        blocking(move || branch.hold(token)).await
    }

    /// The commit for the change on this tip: the change itself where it starts from it, else its
    /// merge, that has passed the gate again. That it is checked is noted the first time.
    async fn place(
        &self,
        own: CommitId,
        standing: Standing,
        is_noted: &mut bool,
        cancel: &CancellationToken,
    ) -> Result<CommitId, Halt> {
        let mirror = self.mirror.clone();
        let info = blocking(move || mirror.candidate_info(own)).await?;
        if info.parents == [standing.tip] {
            return Ok(own);
        }
        let (mirror, tip) = (self.mirror.clone(), standing.tip);
        let picked = blocking(move || {
            let merged = mirror.cherry_pick(own, tip)?;
            Ok((merged, mirror.tree_of(tip)?))
        });
        let (merged, tip_tree) = picked.await?;
        let tree = match merged {
            Merged::Clean { tree } => tree,
            Merged::Conflicted { files, .. } => {
                let names = files.iter().map(|file| file.to_str_lossy().into_owned());
                return Err(Halt::Conflicted(names.collect()));
            }
        };
        if tree == tip_tree {
            // Somebody else made the same change: the tip holds it already.
            return Ok(standing.tip);
        }
        if !*is_noted {
            self.integrator.ledger.change_checking(self.lease).await?;
            *is_noted = true;
        }
        // The commands have passed on this very tree already, if it is the change's own.
        let again = tree != info.tree;
        self.check(tree, standing.tip, again, cancel).await?;
        let (mirror, who) = (self.mirror.clone(), self.who.clone());
        blocking(move || {
            mirror.commit(&NewCommit {
                tree,
                parents: &[tip],
                author: &info.author,
                committer: &who,
                message: info.message.as_ref(),
            })
        })
        .await
    }

    /// Moves the user's branch to the tip, or says why it stays.
    async fn publish(&self) {
        let refused = match self.try_publish().await {
            Ok(Published::Done) => None,
            Ok(Published::CheckedOut { location }) => Some(format!(
                "it is checked out in {}: switch to another branch, and the next change moves it",
                location.display()
            )),
            Ok(Published::Moved { .. }) => {
                Some("it was moved meanwhile: the next change moves it on from there".to_owned())
            }
            Err(Halt::Rejected(failure) | Halt::Postponed(failure)) => Some(failure.detail),
            Err(Halt::Conflicted(files)) => Some(format!("it conflicts in {}", files.join(", "))),
            Err(Halt::Lost | Halt::Moved) => return,
        };
        let commit = match self.branch.recorded() {
            Ok(Some(tip)) => tip.to_string(),
            _ => return,
        };
        let branch = self.request.ask.policy.integration.branch.clone();
        let refused = refused.map(|why| (self.integrator.redact)(why));
        let said = self
            .integrator
            .ledger
            .published(self.request.id, branch, commit, refused)
            .await;
        if let Err(error) = said {
            tracing::error!(%error, "the publication could not be recorded");
        }
    }

    async fn try_publish(&self) -> Result<Published, Halt> {
        let name = self.request.ask.policy.integration.branch.clone();
        let (branch, source, who) = self.parts();
        blocking(move || {
            let mut moved = None;
            for _ in 0..PUBLICATIONS {
                let Some(tip) = branch.recorded()? else {
                    return Ok(Published::Done);
                };
                let seen = source.branch(&name)?;
                if seen == Some(tip) {
                    return Ok(Published::Done);
                }
                match branch.publish(&source, seen, tip, &who)? {
                    // Another request's change was published just now. A person's move is left.
                    Published::Moved { actual } if actual == branch.published()? => {
                        moved = actual;
                    }
                    ended => return Ok(ended),
                }
            }
            Ok(Published::Moved { actual: moved })
        })
        .await
    }

    fn parts(&self) -> (IntegrationBranch, Source, Signature) {
        (self.branch.clone(), self.source.clone(), self.who.clone())
    }
}

/// Runs work on a repository on a thread that may block, so that the lease stays alive meanwhile.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, git::Error> + Send + 'static,
) -> Result<T, Halt> {
    let done = tokio::task::spawn_blocking(work).await;
    let ended = |_| {
        Halt::Rejected(Failure::new(
            Reason::Bug,
            "work on the repository ended early",
        ))
    };
    Ok(done.map_err(ended)??)
}

fn parse(name: &str) -> Result<CommitId, Halt> {
    name.parse().map_err(|_| {
        Halt::Rejected(Failure::new(
            Reason::Bug,
            format!("`{name}` is not the name of a commit"),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_put_back(halt: impl Into<Halt>) -> bool {
        matches!(
            ChangeOutcome::from(halt.into()),
            ChangeOutcome::Postponed { .. }
        )
    }

    #[test]
    fn what_may_pass_puts_a_change_back_and_all_else_ends_it() {
        let full = git::Error::Io {
            doing: "writing",
            path: "/mirror".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let busy = ledger::Error::Busy {
            what: "there is too much".into(),
            retry_after: std::time::Duration::from_secs(1),
        };
        let closed: Halt = ledger::Error::Closed.into();
        assert!(is_put_back(full) && is_put_back(busy) && is_put_back(Halt::Moved));
        assert!(is_put_back(Failure::new(Reason::Storage, "")));
        assert!(!is_put_back(Failure::new(Reason::SandboxUnavailable, "")));
        assert!(!is_put_back(Failure::new(Reason::ChecksFailed, "")));
        assert!(!is_put_back(git::Error::ProgramMissing));
        assert!(!is_put_back(ledger::Error::BackingUp));
        assert_eq!(ChangeOutcome::from(closed), ChangeOutcome::Requeued);
    }
}
