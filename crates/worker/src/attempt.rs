//! One attempt: site, agent, gate, and the one transaction that settles it.

use crate::{
    again::Taker,
    gate::storage,
    redact, rounds,
    worker::{Ready, Worker},
};
use domain::{
    AttemptId, Failure, JobId, Reason,
    egress::Part,
    entity::{Job, Request},
    machine::Machine,
};
use git::{CommitId, Mirror};
use ledger::{ClaimedJob, Lease, Ledger, NewAttempt, Settlement};
use site::{Site, Sites, Stocked, Wanted};
use std::collections::HashSet;
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
    let stocked = worker.sites.stocked(&request.ask).await;
    let stocked = stocked.map_err(|error| error.failure())?;
    let mirror = stocked.mirror.clone();
    let wanted = async |attempt: AttemptId, base: CommitId, ready: &Ready| {
        let mut wanted = Wanted::new(&worker.ledger, request, attempt.to_string(), base)
            .await
            .map_err(|error| error.failure())?;
        wanted.programs = ready.programs.clone();
        wanted.channel = !ready.is_trusted_loop;
        wanted.part = Part::Agent;
        wanted.outlet = worker.gateway.outlet(
            &worker.ledger,
            lease,
            attempt,
            &request.ask.policy.egress,
            cancel,
        );
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
            let base = base(worker, request, job, &stocked).await?;
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
            let site = opened.site.insert(site);
            tell_setup(&worker.ledger, lease, attempt, Part::Agent, site).await?;
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
    let site = opened.site.as_ref();
    let done = rounds::rounds(&place, &ready, site, model, again, cancel).await;
    if let Some(site) = site {
        site.seal().await;
    }
    done
}

/// Records how the setup of a site went, if it has one.
pub(crate) async fn tell_setup(
    ledger: &Ledger,
    lease: &Lease,
    attempt: AttemptId,
    part: Part,
    site: &Site,
) -> Result<(), Failure> {
    let Some(set_up) = site.set_up() else {
        return Ok(());
    };
    let body = set_up.event(attempt, part);
    ledger.record(lease, vec![body]).await.map_err(storage)
}

fn commit_named(name: &str) -> Result<CommitId, Failure> {
    name.parse()
        .map_err(|_| Failure::new(Reason::Bug, format!("`{name}` is not the name of a commit")))
}

/// The commit that the attempt starts from: the tip of the integration branch if the job builds on
/// others, else what the request starts from.
async fn base(
    worker: &Worker,
    request: &Request,
    job: &Job,
    stocked: &Stocked,
) -> Result<CommitId, Failure> {
    let of_request = || commit_named(&request.ask.base);
    if job.after.is_empty() {
        return of_request();
    }
    let jobs = worker.ledger.jobs(request.id).await.map_err(storage)?;
    let changes = worker.ledger.changes_of(request.id).await;
    let builds_on = builds_on(job, &jobs);
    let needed = changes
        .map_err(storage)?
        .iter()
        .filter(|change| change.state.is_integrated() && builds_on.contains(&change.job))
        .filter_map(|change| change.integrated.as_deref())
        .map(commit_named)
        .collect::<Result<Vec<_>, _>>()?;
    let tip = stocked.tip(needed).await.map_err(|error| error.failure())?;
    tip.map_or_else(of_request, Ok)
}

/// The jobs that a job waits for, and those that they wait for.
fn builds_on(job: &Job, jobs: &[Job]) -> HashSet<JobId> {
    let mut found = HashSet::new();
    let mut open = job.after.clone();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            let of = jobs.iter().find(|job| job.id == id);
            open.extend(of.into_iter().flat_map(|job| &job.after));
        }
    }
    found
}
