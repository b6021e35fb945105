//! One attempt: site, agent, gate, and the one transaction that settles it.

use crate::{
    ROUNDS,
    events::Recorder,
    exec::SandboxExec,
    failure,
    gate::{gate, storage},
    message::{Facts, message},
    model::GrantModel,
    task,
    worker::{Ready, Worker},
};
use agents::{Context, Input, Outcome, Session, Task};
use domain::{
    AttemptId, Failure, Reason,
    entity::{Evidence, Job, Request, Verdict},
    event::Agent,
    policy::Policy,
};
use gateway::{Grant, GrantSpec, LedgerFunds, Served};
use git::{CommitId, Mirror, NewCommit, Signature, TreeId};
use ledger::{ClaimedJob, Lease, Ledger, NewAttempt, Settlement, Spender};
use site::{Site, Sites, Wanted};
use std::sync::Arc;
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
    let ClaimedJob {
        lease,
        job,
        request,
        attempt: open,
    } = claimed;
    if open.is_some() {
        let why = Failure::new(Reason::OwnerLost, "");
        if let Err(error) = worker.ledger.lose_attempt(&lease, why).await {
            tracing::error!(%error, job = %job.id, "a lost attempt could not be given up");
            return;
        }
    }
    let settlement = match prepare(worker, &lease, &request, &job, cancel).await {
        Ok(settlement) => settlement,
        Err(failure) if failure.reason == Reason::Cancelled => Settlement::Cancelled,
        Err(failure) => Settlement::Failed { failure },
    };
    match worker.ledger.settle_attempt(&lease, settlement).await {
        // Whoever took the lease has settled the attempt already.
        Ok(_) | Err(ledger::Error::LeaseLost(_)) => {}
        Err(error) => tracing::error!(%error, job = %job.id, "an attempt could not be settled"),
    }
}

async fn prepare(
    worker: &Worker,
    lease: &Lease,
    request: &Request,
    job: &Job,
    cancel: &CancellationToken,
) -> Result<Settlement, Failure> {
    let name = job.spec.agent.as_deref().unwrap_or(&request.ask.agent);
    let model = job.spec.model.as_deref().or(request.ask.model.as_deref());
    let ready = worker.agents.find(name);
    let mirror = worker
        .sites
        .mirror(&request.ask.repository.to_string())
        .await
        .map_err(|error| error.failure())?;
    let base = base(request, job, &mirror)?;
    let new = NewAttempt {
        base: base.to_string(),
        agent: name.to_owned(),
        model: model.map(str::to_owned),
        sandbox: worker.sites.kind().to_string(),
    };
    let attempt = worker
        .ledger
        .start_attempt(lease, new)
        .await
        .map_err(storage)?;
    let ready = ready?;
    let mut wanted = Wanted::new(&worker.ledger, request, attempt.id.to_string(), base)
        .await
        .map_err(|error| error.failure())?;
    wanted.programs = ready.programs.clone();
    wanted.channel = !ready.is_trusted_loop;
    let place = Place {
        worker,
        ledger: &worker.ledger,
        sites: &worker.sites,
        lease,
        request,
        job,
        attempt: attempt.id,
        mirror: &mirror,
        wanted,
    };
    let site = tokio::select! {
        site = worker.sites.site(&mirror, place.wanted.clone()) => site.map_err(|error| error.failure())?,
        () = cancel.cancelled() => return Ok(Settlement::Cancelled),
    };
    let done = rounds(&place, &ready, &site, model, cancel).await;
    if let Err(error) = site.close().await {
        tracing::warn!(%error, attempt = %attempt.id, "the site of an attempt did not end well");
    }
    done
}

/// The commit that the attempt starts from: the tip of the integration branch if the job builds on
/// others, else what the request starts from.
fn base(request: &Request, job: &Job, mirror: &Mirror) -> Result<CommitId, Failure> {
    let of_request = || {
        request.ask.base.parse::<CommitId>().map_err(|error| {
            Failure::new(
                Reason::Bug,
                format!("the request's base cannot be read: {error}"),
            )
        })
    };
    if job.after.is_empty() {
        return of_request();
    }
    let branch = &request.ask.policy.integration.branch;
    let tip = git::IntegrationBranch::new(mirror.clone(), branch)
        .recorded()
        .map_err(|error| Failure::caused(Reason::Repository, &error))?;
    tip.map_or_else(of_request, Ok)
}

/// The way to a model, for as long as the attempt lasts.
struct Line {
    grant: Grant,
    served: Option<Served>,
}

impl Line {
    async fn close(self) {
        if let Some(served) = self.served {
            served.close().await;
        }
        self.grant.close().await;
    }
}

async fn line(
    place: &Place<'_>,
    ready: &Ready,
    site: &Site,
    model: Option<&str>,
    cancel: &CancellationToken,
) -> Result<(Option<Line>, Option<agents::Gateway>), Failure> {
    if ready.dialects.is_empty() {
        return Ok((None, None));
    }
    let route = match place
        .worker
        .gateway
        .providers()
        .route(model, &ready.dialects)
    {
        Ok(route) => route,
        Err(_) if !ready.needs_model => return Ok((None, None)),
        Err(error) => return Err(Failure::caused(Reason::ModelNotFound, &error)),
    };
    let spender = Spender::Attempt(place.lease, place.attempt);
    let funds = LedgerFunds::open(place.ledger, spender)
        .await
        .map_err(storage)?;
    let name = route.model.clone();
    let spec = GrantSpec::new(Arc::new(funds), route, cancel.child_token());
    let grant = place.worker.gateway.grant(spec);
    let Some(channel) = site.take_channel() else {
        return Ok((
            Some(Line {
                grant,
                served: None,
            }),
            None,
        ));
    };
    let url = format!("http://127.0.0.1:{}", channel.port);
    let served = grant
        .serve(channel.listener)
        .map_err(|error| Failure::new(Reason::SandboxUnavailable, error.to_string()))?;
    let line = Line {
        grant,
        served: Some(served),
    };
    Ok((Some(line), Some(agents::Gateway { url, model: name })))
}

async fn rounds(
    place: &Place<'_>,
    ready: &Ready,
    site: &Site,
    model: Option<&str>,
    cancel: &CancellationToken,
) -> Result<Settlement, Failure> {
    let (line, gateway) = line(place, ready, site, model, cancel).await?;
    let task = task(place, site).await?;
    let done = {
        let recorder = Recorder::new(place.ledger, place.lease, place.attempt);
        let exec = SandboxExec(site.sandbox().map_err(|error| error.failure())?);
        let granted = line.as_ref().map(|line| GrantModel::new(&line.grant));
        let context = Context {
            exec: &exec,
            model: granted
                .as_ref()
                .filter(|_| ready.is_trusted_loop)
                .map(|model| model as _),
            observer: &recorder,
            recorded: None,
            cancel: cancel.child_token(),
            env: site.environment().to_vec(),
            gateway,
        };
        let mut session = ready.agent.start(task);
        converse(
            place,
            site,
            &mut *session,
            &context,
            &recorder,
            line.as_ref().map(|line| &line.grant),
        )
        .await
    };
    if let Some(line) = line {
        line.close().await;
    }
    done
}

async fn task(place: &Place<'_>, site: &Site) -> Result<Task, Failure> {
    let (mirror, base, inside) = (place.mirror.clone(), place.wanted.base, site.inside());
    let (request, job) = (place.request.clone(), place.job.clone());
    tokio::task::spawn_blocking(move || task::task(&request, &job, &mirror, base, inside))
        .await
        .map_err(|_| Failure::new(Reason::Bug, "the task could not be written"))
}

/// Lets the agent work and asks the gate, for as many rounds as there are.
async fn converse(
    place: &Place<'_>,
    site: &Site,
    session: &mut dyn Session,
    context: &Context<'_>,
    recorder: &Recorder<'_>,
    granted: Option<&Grant>,
) -> Result<Settlement, Failure> {
    let mut input = Input::Task;
    let mut feedback = None;
    let base_tree = tree_of(place)?;
    for round in 1..=ROUNDS {
        place
            .ledger
            .attempt_running(place.lease)
            .await
            .map_err(storage)?;
        recorder
            .events(vec![Agent::Turn { round, feedback }])
            .await
            .map_err(storage)?;
        let Outcome {
            summary, stopped, ..
        } = session.turn(input, context).await;
        recorder.flush().await.map_err(storage)?;
        let seen = granted.and_then(Grant::last_failure);
        if let Some(failure) = failure::of(&stopped, seen) {
            if failure::leaves_work(&stopped) {
                salvage(place, site, base_tree, &summary).await;
            }
            return Err(failure);
        }
        let extracted = site.extract().await.map_err(|error| error.failure())?;
        let tree = extracted.tree;
        place
            .ledger
            .attempt_checking(place.lease, tree.to_string())
            .await
            .map_err(storage)?;
        if !extracted.not_taken.is_empty() {
            let text = format!(
                "Not taken from the workspace:\n{}",
                extracted.not_taken.join("\n")
            );
            recorder
                .events(vec![Agent::Error { text }])
                .await
                .map_err(storage)?;
        }
        if tree == base_tree && place.job.spec.may_change_nothing {
            return Ok(Settlement::Empty { summary });
        }
        let evidence = gate(place, tree, round, &context.cancel).await?;
        if checks::passed(&evidence) {
            let commit = commit(place, tree, &summary).await?;
            let checked = is_checked(&place.request.ask.policy, &evidence);
            return Ok(Settlement::Passed {
                commit: commit.to_string(),
                tree: tree.to_string(),
                summary,
                checked,
            });
        }
        if round == ROUNDS || context.cancel.is_cancelled() {
            keep(place, tree, &summary).await;
            let reason = if tree == base_tree {
                Reason::NothingChanged
            } else {
                Reason::ChecksFailed
            };
            let failure = Failure::new(reason, checks::failed(&evidence));
            return Ok(Settlement::Rejected {
                failure,
                tree: Some(tree.to_string()),
                summary,
            });
        }
        let text = checks::feedback(&evidence);
        let blob = place
            .ledger
            .put_blob(text.clone().into_bytes())
            .await
            .map_err(storage)?;
        feedback = Some(blob);
        input = Input::Feedback(text);
    }
    Err(Failure::new(
        Reason::Bug,
        "the rounds of an attempt ended without an outcome",
    ))
}

/// Whether one of the repository's own checks has passed, which a job's commands are not.
fn is_checked(policy: &Policy, evidence: &[Evidence]) -> bool {
    evidence.iter().any(|one| {
        one.verdict == Verdict::Passed
            && policy.checks.iter().any(|check| {
                check.name == one.check && Some(&check.command) == one.command.as_ref()
            })
    })
}

/// Keeps what an agent made until a limit ended it, so that a person can look at it and adopt it.
async fn salvage(place: &Place<'_>, site: &Site, base: TreeId, summary: &str) {
    let tree = match site.extract().await {
        Ok(extracted) => extracted.tree,
        Err(error) => {
            tracing::warn!(%error, attempt = %place.attempt, "the work of an attempt that met a limit could not be read");
            return;
        }
    };
    if tree == base {
        return;
    }
    let noted = place
        .ledger
        .attempt_checking(place.lease, tree.to_string())
        .await;
    match noted {
        Ok(()) => keep(place, tree, summary).await,
        Err(error) => {
            tracing::warn!(%error, attempt = %place.attempt, "the work of an attempt that met a limit could not be kept");
        }
    }
}

fn tree_of(place: &Place<'_>) -> Result<TreeId, Failure> {
    place
        .mirror
        .tree_of(place.wanted.base)
        .map_err(|error| Failure::caused(Reason::Repository, &error))
}

/// Writes the change as one commit on its base, and keeps it in the mirror.
async fn commit(place: &Place<'_>, tree: TreeId, summary: &str) -> Result<CommitId, Failure> {
    let policy = &place.request.ask.policy.commit;
    let attempt = place.attempt.to_string();
    let facts = Facts {
        title: &place.job.spec.title,
        summary,
        request: place.request.id.to_string(),
        job: place.job.id.to_string(),
        attempt: attempt.clone(),
        agent: place
            .job
            .spec
            .agent
            .as_deref()
            .unwrap_or(&place.request.ask.agent),
        model: place
            .job
            .spec
            .model
            .as_deref()
            .or(place.request.ask.model.as_deref())
            .unwrap_or("default"),
    };
    let text = message(policy, &facts);
    let who = Signature::new(&policy.name, &policy.email, place.ledger.now().seconds());
    let (mirror, base) = (place.mirror.clone(), place.wanted.base);
    let written = tokio::task::spawn_blocking(move || {
        let commit = mirror.commit(&NewCommit {
            tree,
            parents: &[base],
            author: &who,
            committer: &who,
            message: text.as_str().into(),
        })?;
        let name = format!("refs/skep/attempts/{attempt}");
        mirror.update_ref(&name, Some(commit), mirror.read_ref(&name)?)?;
        Ok::<_, git::Error>(commit)
    });
    written
        .await
        .map_err(|_| Failure::new(Reason::Bug, "the commit was not written"))?
        .map_err(|error| Failure::caused(Reason::Storage, &error))
}

/// Keeps a candidate that did not pass, so that a person can look at it and adopt it.
async fn keep(place: &Place<'_>, tree: TreeId, summary: &str) {
    if let Err(failure) = commit(place, tree, summary).await {
        tracing::warn!(%failure, attempt = %place.attempt, "a candidate could not be kept");
    }
}
