//! An attempt of the built-in agent, run again from its recording: no model, no network, no money.
//!
//! The tools run for real in a site of their own, so that the tree comes about again. What the model
//! was told of them is taken from the record, so that a duration in an output is no divergence; each
//! request is compared with the recorded one, field by field.

use crate::{
    exec::SandboxExec,
    model::GrantModel,
    story::{MAX_BODY, Story},
    task,
    worker::{Ready, Worker},
};
use agents::{
    Context, Input, Limits,
    event::{AgentEvent, Halt, Observer},
};
use async_trait::async_trait;
use domain::{
    Amount, AttemptId, Failure, Reason,
    entity::{Attempt, Job, Request},
};
use gateway::{Cassette, Diverged, FundsError, GrantSpec, Mode, Settlement};
use git::CommitId;
use site::Wanted;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// How many calls of the model were played.
    pub calls: usize,
    /// The tree that came out.
    pub tree: String,
    /// Whether it is the recorded one.
    pub same_tree: bool,
    /// Tool calls whose output was another one than recorded, by their ids.
    pub differing_outputs: Vec<String>,
}

/// Why an attempt cannot be replayed, or was not the same.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be read.
    #[error("the recording cannot be read")]
    Ledger(#[from] ledger::Error),
    /// Its agent runs inside the sandbox, and holds a state that is not recorded.
    #[error(
        "the attempt {attempt} was made by `{agent}`: only attempts of the built-in agent can be replayed"
    )]
    NotReplayable {
        /// The attempt.
        attempt: AttemptId,
        /// Its agent.
        agent: String,
    },
    /// Nothing was recorded.
    #[error("nothing is recorded of the attempt {0}")]
    NotRecorded(AttemptId),
    /// Its calls cannot be read.
    #[error(transparent)]
    Cassette(gateway::CassetteError),
    /// It is not what was recorded.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// It could not be run.
    #[error("the replay could not be run: {0}")]
    Failed(Failure),
}

impl From<gateway::CassetteError> for Error {
    fn from(error: gateway::CassetteError) -> Self {
        match error {
            // A recording that was changed is a divergence, whoever finds it first.
            gateway::CassetteError::Diverged(diverged) => Self::Diverged(diverged),
            error => Self::Cassette(error),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs the attempt again.
///
/// # Errors
/// [`Error::Diverged`] names the call and the field that are not what was recorded.
pub async fn replay(
    worker: &Worker,
    attempt: AttemptId,
    cancel: &CancellationToken,
) -> Result<Replayed, Error> {
    let attempt = worker.ledger.attempt(attempt).await?;
    let job = worker.ledger.job(attempt.job).await?;
    let request = worker.ledger.request(attempt.request).await?;
    let ready = worker.agents.find(&attempt.agent)?;
    if !ready.is_trusted_loop {
        return Err(Error::NotReplayable {
            attempt: attempt.id,
            agent: attempt.agent,
        });
    }
    let cassette = gateway::cassette(&worker.ledger, attempt.id, MAX_BODY)
        .await?
        .without_refused();
    if cassette.is_empty() {
        return Err(Error::NotRecorded(attempt.id));
    }
    let story = Story::read(worker, &request, attempt.id).await?;
    if story.rounds.is_empty() {
        return Err(Error::NotRecorded(attempt.id));
    }
    let again = Again {
        worker,
        attempt: &attempt,
        job: &job,
        request: &request,
        ready: &ready,
    };
    let tree = again.play(&cassette, &story, cancel).await?;
    cassette.finish()?;
    Ok(Replayed {
        calls: cassette.len(),
        same_tree: attempt.tree.as_ref() == Some(&tree),
        tree,
        differing_outputs: story.differing(),
    })
}

struct Again<'a> {
    worker: &'a Worker,
    attempt: &'a Attempt,
    job: &'a Job,
    request: &'a Request,
    ready: &'a Ready,
}

impl Again<'_> {
    async fn play(
        &self,
        cassette: &Cassette,
        story: &Story,
        cancel: &CancellationToken,
    ) -> Result<String, Error> {
        let Self {
            worker,
            attempt,
            job,
            request,
            ready,
        } = *self;
        let mirror = worker
            .sites
            .stocked(&request.ask)
            .await
            .map_err(|error| error.failure())?
            .mirror;
        let base: CommitId = attempt.base.parse().map_err(|_| {
            Failure::new(
                Reason::Bug,
                format!("`{}` is not the name of a commit", attempt.base),
            )
        })?;
        let id = format!("{}-replay-{:x}", attempt.id, worker.ledger.now().0);
        let mut wanted = Wanted::new(&worker.ledger, request, id, base)
            .await
            .map_err(|error| error.failure())?;
        wanted.programs = ready.programs.clone();
        let site = worker
            .sites
            .site(&mirror, wanted)
            .await
            .map_err(|error| error.failure())?;
        let route = cassette.route().ok_or(Error::NotRecorded(attempt.id))?;
        let mut spec = GrantSpec::new(Arc::new(Nothing), route, cancel.child_token());
        spec.mode = Mode::Replay(cassette.clone());
        let grant = worker.gateway.grant(spec);
        let mut task = task::task(request, job, &mirror, base, site.inside());
        task.limits.turns = match &attempt.failure {
            // It ends where it ended.
            Some(failure) if failure.reason == Reason::TurnLimit => story.answers,
            _ => Limits::default().turns,
        };
        let outcome = {
            let exec = SandboxExec(site.sandbox().map_err(|error| error.failure())?);
            let granted = GrantModel::new(&grant);
            let context = Context {
                exec: &exec,
                model: Some(&granted),
                observer: &Unheard,
                recorded: Some(story),
                cancel: cancel.child_token(),
                env: site.environment().to_vec(),
                gateway: None,
            };
            let mut session = ready.agent.start(task);
            let mut outcome = Ok(());
            for round in &story.rounds {
                let input = round.clone().map_or(Input::Task, Input::Feedback);
                let ended = session.turn(input, &context).await;
                if let agents::Stopped::Failed(error) = &ended.stopped {
                    outcome = Err(Failure::caused(Reason::AgentFailed, error));
                    break;
                }
            }
            outcome
        };
        grant.close().await;
        cassette.finish()?;
        outcome?;
        let extracted = site.extract().await.map_err(|error| error.failure())?;
        site.close().await.map_err(|error| error.failure())?;
        Ok(extracted.tree.to_string())
    }
}

/// A replay spends nothing.
struct Nothing;

#[async_trait]
impl gateway::Funds for Nothing {
    async fn reserve(&self, _: u64, _: Amount) -> Result<(), FundsError> {
        Ok(())
    }

    async fn settle(&self, _: Settlement) -> Result<(), FundsError> {
        Ok(())
    }
}

/// A replay records nothing.
struct Unheard;

#[async_trait]
impl Observer for Unheard {
    async fn record(&self, _: AgentEvent) -> Result<(), Halt> {
        Ok(())
    }
}
