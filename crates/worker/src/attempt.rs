//! One attempt: site, agent, gate, and the one transaction that settles it.

use crate::{
    again::Taker,
    gate::storage,
    redact, rounds,
    worker::{Ready, Worker},
};
use domain::{
    AttemptId, Failure, Reason,
    entity::{Job, Request},
    machine::Machine,
};
use git::{CommitId, Mirror};
use ledger::{ClaimedJob, Lease, Ledger, NewAttempt, Settlement};
use site::{Site, Sites, Stocked, Wanted};
use tokio_util::sync::CancellationToken;

/// Where an attempt happens.
pub(crate) struct Place<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) ledger: &'a Ledger,
    pub(crate) sites: &'a Sites,
    pub(crate) lease: &'a Lease,
    pub(crate) request: &'a Request,
    pub(crate) job: &'a Job,
    pub(crate) attempt: AttemptId,
    pub(crate) mirror: &'a Mirror,
    pub(crate) wanted: Wanted,
}

/// Works on a claimed job until it is settled, or until the lease is lost.
pub(crate) async fn work(worker: &Worker, claimed: ClaimedJob, cancel: &CancellationToken) {
    let mut opened = Opened::default();
    let settlement = match prepare(worker, &claimed, &mut opened, cancel).await {
        Ok(settlement) => settlement,
        Err(failure) if failure.reason == Reason::Cancelled => Settlement::Cancelled,
        Err(failure) => Settlement::Failed { failure },
    };
    let settlement = redact::settlement(&worker.gateway, settlement);
    let ClaimedJob { lease, job, .. } = claimed;
    // Whoever cancels a job takes its lease. With the lease still held nobody did: this process is
    // told to stop, and the next one goes on.
    let stopped =
        settlement == Settlement::Cancelled && worker.ledger.standing(&lease).await.is_ok();
    if !stopped {
        match worker.ledger.settle_attempt(&lease, settlement).await {
            // Whoever took the lease has settled the attempt already, or goes on with it.
            Ok(_) | Err(ledger::Error::LeaseLost(_)) => {}
            Err(error) => {
                tracing::error!(%error, job = %job.id, "an attempt could not be settled");
            }
        }
    }
    opened.close(worker).await;
}

/// The site of an attempt, once there is one.
#[derive(Default)]
struct Opened {
    attempt: Option<AttemptId>,
    site: Option<Site>,
}

impl Opened {
    /// Ends the site. Its workspace goes with an attempt that has ended, and stays with any other.
    async fn close(self, worker: &Worker) {
        let Some(attempt) = self.attempt else {
            return;
        };
        let has_ended = match worker.ledger.attempt(attempt).await {
            Ok(attempt) => attempt.state.is_terminal(),
            Err(_) => false,
        };
        let closed = match self.site {
            Some(site) if has_ended => site.close().await,
            Some(site) => site.leave().await,
            // A workspace that could not be opened again, while its gate needed only the tree.
            None => worker.sites.sweep(&worker.ledger).await,
        };
        if let Err(error) = closed {
            tracing::warn!(%error, %attempt, "the site of an attempt did not end well");
        }
    }
}

async fn prepare(
    worker: &Worker,
    claimed: &ClaimedJob,
    opened: &mut Opened,
    cancel: &CancellationToken,
) -> Result<Settlement, Failure> {
    let ClaimedJob {
        lease,
        job,
        request,
        attempt: open,
    } = claimed;
    let name = job.spec.agent.as_deref().unwrap_or(&request.ask.agent);
    let model = job.spec.model.as_deref().or(request.ask.model.as_deref());
    let ready = worker.agents.find(name);
    let Stocked { mirror, shown } = worker
        .sites
        .stocked(&request.ask)
        .await
        .map_err(|error| error.failure())?;
    let wanted = async |attempt: AttemptId, base: CommitId, ready: &Ready| {
        let mut wanted = Wanted::new(&worker.ledger, request, attempt.to_string(), base)
            .await
            .map_err(|error| error.failure())?;
        wanted.programs = ready.programs.clone();
        wanted.channel = !ready.is_trusted_loop;
        Ok::<_, Failure>(wanted)
    };
    let mut taken = None;
    if let Some(open) = open {
        let ready = ready.clone()?;
        let base = commit_named(&open.attempt.base)?;
        let wanted = wanted(open.attempt.id, base, &ready).await?;
        let taker = Taker {
            worker,
            lease,
            request,
            ready: &ready,
            mirror: &mirror,
            cancel,
        };
        let again = taker.take_up(open, wanted.clone()).await?;
        taken = again.map(|(again, site)| (open.attempt.id, wanted, again, site));
    }
    let (attempt, ready, wanted, again) = match taken {
        Some((attempt, wanted, again, site)) => {
            opened.attempt = Some(attempt);
            opened.site = site;
            (attempt, ready?, wanted, Some(again))
        }
        None => {
            let base = base(request, job, &mirror, shown)?;
            let new = NewAttempt {
                base: base.to_string(),
                agent: name.to_owned(),
                model: model.map(str::to_owned),
                sandbox: worker.sites.kind().to_string(),
            };
            let started = worker.ledger.start_attempt(lease, new).await;
            let attempt = started.map_err(storage)?.id;
            let ready = ready?;
            let wanted = wanted(attempt, base, &ready).await?;
            let mut site = tokio::select! {
                site = worker.sites.site(&mirror, wanted.clone()) => {
                    site.map_err(|error| error.failure())?
                }
                () = cancel.cancelled() => return Ok(Settlement::Cancelled),
            };
            site.outlive();
            opened.attempt = Some(attempt);
            opened.site = Some(site);
            (attempt, ready, wanted, None)
        }
    };
    let place = Place {
        worker,
        ledger: &worker.ledger,
        sites: &worker.sites,
        lease,
        request,
        job,
        attempt,
        mirror: &mirror,
        wanted,
    };
    rounds::rounds(&place, &ready, opened.site.as_ref(), model, again, cancel).await
}

fn commit_named(name: &str) -> Result<CommitId, Failure> {
    name.parse()
        .map_err(|_| Failure::new(Reason::Bug, format!("`{name}` is not the name of a commit")))
}

/// The commit that the attempt starts from: the tip of the integration branch if the job builds on
/// others, else what the request starts from. A mirror that was made again does not know the tip:
/// there, the user's branch is all that is left of it.
fn base(
    request: &Request,
    job: &Job,
    mirror: &Mirror,
    shown: Option<CommitId>,
) -> Result<CommitId, Failure> {
    let of_request = || commit_named(&request.ask.base);
    if job.after.is_empty() {
        return of_request();
    }
    let branch = &request.ask.policy.integration.branch;
    let tip = git::IntegrationBranch::new(mirror.clone(), branch)
        .recorded()
        .map_err(|error| Failure::caused(Reason::Repository, &error))?;
    tip.or(shown).map_or_else(of_request, Ok)
}
