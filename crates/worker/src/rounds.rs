//! The rounds of an attempt: the agent works, the gate looks, and the findings go back.

use crate::{
    ROUNDS,
    again::Again,
    attempt::Place,
    candidate::{commit, is_checked, keep, salvage, tree_of},
    events::{Recorder, let_end},
    exec::SandboxExec,
    failure,
    gate::{gate, storage},
    model::GrantModel,
    story::Journal,
    task,
    worker::Ready,
};
use agents::{Context, Input, Outcome, Recovery, Session, Stopped, Task, ToolResults};
use domain::{Failure, Reason, event::Agent};
use gateway::{Grant, GrantSpec, LedgerFunds, Mode, Served};
use git::TreeId;
use ledger::{Settlement, Spender};
use site::Site;
use std::{ffi::OsString, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The way to a model, and what else leads out of the sandbox, for as long as the attempt lasts.
struct Line {
    grant: Option<Grant>,
    served: Option<Served>,
    gateway: Option<agents::Gateway>,
    /// What programs inside need so that they find what else leads out.
    environment: Vec<(OsString, OsString)>,
}

impl Line {
    async fn close(self) {
        if let Some(served) = self.served {
            served.close().await;
        }
        if let Some(grant) = self.grant {
            grant.close().await;
        }
    }
}

async fn line(
    place: &Place<'_>,
    ready: &Ready,
    site: &Site,
    model: Option<&str>,
    again: Option<&Again>,
    cancel: &CancellationToken,
) -> Result<Line, Failure> {
    let grant = grant(place, ready, model, again, cancel).await?;
    let mut line = Line {
        grant,
        served: None,
        gateway: None,
        environment: Vec::new(),
    };
    // There is one where the agent calls its model itself; else the site serves its own.
    if !place.wanted.channel {
        return Ok(line);
    }
    let outlet = place.wanted.outlet.as_ref();
    let mut egress = outlet.and_then(|outlet| outlet.egress(place.wanted.part));
    if line.grant.is_none() && egress.is_none() {
        return Ok(line);
    }
    let Some(channel) = site.take_channel() else {
        return Ok(line);
    };
    if let Some(egress) = &egress {
        let sandbox = site.sandbox().map_err(|error| error.failure())?;
        let environment = site::environment_of(egress, sandbox, channel.port).await;
        line.environment = environment.map_err(|error| error.failure())?;
    }
    // Where nothing is granted, what is asked for all the same is recorded.
    if egress.is_none() {
        egress = outlet.map(|outlet| outlet.any(place.wanted.part));
    }
    let admits = channel
        .guard
        .map(|guard| Arc::new(move |peer| guard.admits(peer)) as gateway::Admits);
    let served = Served::start(line.grant.clone(), egress, channel.listener, admits);
    let served =
        served.map_err(|error| Failure::new(Reason::SandboxUnavailable, error.to_string()))?;
    line.served = Some(served);
    line.gateway = line.grant.as_ref().map(|grant| agents::Gateway {
        url: format!("http://127.0.0.1:{}", channel.port),
        model: grant.route().model.clone(),
    });
    Ok(line)
}

/// What the attempt may spend on its model; none where it needs no model and there is none.
async fn grant(
    place: &Place<'_>,
    ready: &Ready,
    model: Option<&str>,
    again: Option<&Again>,
    cancel: &CancellationToken,
) -> Result<Option<Grant>, Failure> {
    if ready.dialects.is_empty() {
        return Ok(None);
    }
    let route = match place
        .worker
        .gateway
        .providers()
        .route(model, &ready.dialects)
    {
        Ok(route) => route,
        Err(_) if !ready.needs_model => return Ok(None),
        Err(error) => return Err(Failure::caused(Reason::ModelNotFound, &error)),
    };
    let spender = Spender::Attempt(place.lease, place.attempt);
    let funds = LedgerFunds::open(place.ledger, spender)
        .await
        .map_err(storage)?;
    let mut spec = GrantSpec::new(Arc::new(funds), route, cancel.child_token());
    if let Some(cassette) = again.and_then(|again| again.cassette.as_ref()) {
        spec.mode = Mode::Continue(cassette.clone());
    }
    Ok(Some(place.worker.gateway.grant(spec)))
}

/// Where the rounds of an attempt begin.
struct Start {
    /// The turns that have ended already, which an agent that goes on by its journal makes again.
    past: Vec<Input>,
    /// The first round whose turn is to be made or to be ended.
    round: u32,
    /// What its turn begins with.
    input: Input,
    /// What it was told of its work so far.
    feedback: Option<domain::BlobId>,
    /// Whether the attempt is known to be running.
    is_running: bool,
    /// Whether the turn is recorded to have begun.
    is_begun: bool,
}

impl Start {
    fn anew() -> Self {
        Self {
            past: Vec::new(),
            round: 1,
            input: Input::Task,
            feedback: None,
            is_running: false,
            is_begun: false,
        }
    }

    /// In the turn that was under way.
    fn within(again: &Again) -> Self {
        let mut past = again.story.rounds.clone();
        let Some(last) = past.pop() else {
            return Self {
                is_running: true,
                ..Self::anew()
            };
        };
        let round = u32::try_from(past.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let (past, input) = match again.recovery {
            Recovery::Journal => (past.into_iter().map(said).collect(), said(last)),
            Recovery::Memory | Recovery::Nothing => (Vec::new(), Input::Interrupted(last)),
        };
        Self {
            past,
            round,
            input,
            feedback: None,
            is_running: true,
            is_begun: true,
        }
    }

    /// After the turn that had ended, with what its gate found.
    fn after(again: &Again, round: u32, found: Found) -> Self {
        let past = match again.recovery {
            Recovery::Journal => again.story.rounds.iter().cloned().map(said).collect(),
            Recovery::Memory | Recovery::Nothing => Vec::new(),
        };
        Self {
            past,
            round: round.saturating_add(1),
            input: Input::Feedback(found.text),
            feedback: Some(found.blob),
            ..Self::anew()
        }
    }
}

fn said(feedback: Option<String>) -> Input {
    feedback.map_or(Input::Task, Input::Feedback)
}

/// Lets the agent work and asks the gate, for as many rounds as there are, from where the attempt is.
pub(crate) async fn rounds(
    place: &Place<'_>,
    ready: &Ready,
    site: Option<&Site>,
    model: Option<&str>,
    again: Option<Again>,
    cancel: &CancellationToken,
) -> Result<Settlement, Failure> {
    let again = again.as_ref();
    let ended = again.and_then(|again| Some((again, again.tree.as_ref()?)));
    let start = match (again, ended) {
        (_, Some((again, tree))) => {
            let tree = named(tree)?;
            let round = u32::try_from(again.story.rounds.len()).unwrap_or(u32::MAX);
            let summary = again.story.summary.clone();
            match judge(place, tree, round, summary, cancel).await? {
                Judged::Settled(settlement) => return Ok(settlement),
                Judged::Again(found) => Start::after(again, round, found),
            }
        }
        (Some(again), None) => Start::within(again),
        (None, None) => Start::anew(),
    };
    let Some(site) = site else {
        return Ok(lost("its workspace is gone"));
    };
    let line = line(place, ready, site, model, again, cancel).await?;
    let mut task = task(place, site).await?;
    let account = place.ledger.job_account(place.job.id).await;
    let past = again.map_or(0, |again| match again.recovery {
        Recovery::Journal => again.iterations,
        Recovery::Memory | Recovery::Nothing => 0,
    });
    task.limits = task::limits(account.map_err(storage)?.free, past);
    // What ends the conversation, and not the attempt.
    let stop = cancel.child_token();
    let done = {
        let mut recorder = Recorder::new(place);
        let journal = again.and_then(|again| {
            let (story, cassette) = (&again.story, again.cassette.as_ref()?);
            Some(Journal { story, cassette })
        });
        if let Some(journal) = &journal {
            recorder = recorder.after(&journal.story.marks, journal.cassette);
        }
        let exec = SandboxExec(site.sandbox().map_err(|error| error.failure())?);
        let granted = line.grant.as_ref().map(GrantModel::new);
        let environment = site.environment().iter().chain(&line.environment);
        let context = Context {
            exec: &exec,
            model: granted
                .as_ref()
                .filter(|_| ready.is_trusted_loop)
                .map(|model| model as _),
            observer: &recorder,
            recorded: journal.as_ref().map(|journal| journal as &dyn ToolResults),
            cancel: stop.clone(),
            env: environment.cloned().collect(),
            gateway: line.gateway.clone(),
        };
        let mut session = match again {
            Some(again) => ready.agent.recover(task, again.story.session.as_deref()),
            None => ready.agent.start(task),
        };
        let talk = Talk {
            place,
            site,
            context: &context,
            recorder: &recorder,
            granted: line.grant.as_ref(),
            again,
        };
        let conversation = async {
            let conversation = talk.converse(&mut *session, start);
            let talked = recorder.beside(conversation, &stop).await;
            talked.map_err(storage)?
        };
        tokio::pin!(conversation);
        tokio::select! {
            done = &mut conversation => done,
            // What it ran is ended; it goes on to its end so that all it did is on record.
            full = site.until_full() => {
                stop.cancel();
                let_end(conversation).await;
                Err(full.failure())
            }
        }
    };
    line.close().await;
    done
}

fn lost(why: impl Into<String>) -> Settlement {
    Settlement::Lost {
        failure: Failure::new(Reason::OwnerLost, why),
    }
}

fn named(tree: &str) -> Result<TreeId, Failure> {
    tree.parse()
        .map_err(|_| Failure::new(Reason::Bug, format!("`{tree}` is not the name of a tree")))
}

async fn task(place: &Place<'_>, site: &Site) -> Result<Task, Failure> {
    let (mirror, base, inside) = (place.mirror.clone(), place.wanted.base, site.inside());
    let (request, job) = (place.request.clone(), place.job.clone());
    tokio::task::spawn_blocking(move || task::task(&request, &job, &mirror, base, inside))
        .await
        .map_err(|_| Failure::new(Reason::Bug, "the task could not be written"))
}

/// What came of the gate.
enum Judged {
    /// The attempt ends.
    Settled(Settlement),
    /// The agent gets the findings.
    Again(Found),
}

/// What a gate found, for the agent.
struct Found {
    text: String,
    blob: domain::BlobId,
}

/// Asks the gate about the tree of a round.
async fn judge(
    place: &Place<'_>,
    tree: TreeId,
    round: u32,
    summary: String,
    cancel: &CancellationToken,
) -> Result<Judged, Failure> {
    let base_tree = tree_of(place)?;
    if tree == base_tree && place.job.spec.may_change_nothing {
        return Ok(Judged::Settled(Settlement::Empty { summary }));
    }
    let evidence = gate(place, tree, round, cancel).await?;
    if checks::passed(&evidence) {
        let commit = commit(place, tree, &summary).await?;
        let checked = is_checked(&place.request.ask.policy, &evidence);
        return Ok(Judged::Settled(Settlement::Passed {
            commit: commit.to_string(),
            tree: tree.to_string(),
            summary,
            checked,
        }));
    }
    if round >= ROUNDS || cancel.is_cancelled() {
        keep(place, tree, &summary).await;
        let reason = if tree == base_tree {
            Reason::NothingChanged
        } else {
            Reason::ChecksFailed
        };
        let failure = Failure::new(reason, checks::failed(&evidence));
        return Ok(Judged::Settled(Settlement::Rejected {
            failure,
            tree: Some(tree.to_string()),
            summary,
        }));
    }
    let text = checks::feedback(&evidence);
    let blob = place.ledger.put_blob(text.clone().into_bytes()).await;
    Ok(Judged::Again(Found {
        text,
        blob: blob.map_err(storage)?,
    }))
}

/// What a conversation with an agent needs.
struct Talk<'a> {
    place: &'a Place<'a>,
    site: &'a Site,
    context: &'a Context<'a>,
    recorder: &'a Recorder<'a>,
    granted: Option<&'a Grant>,
    again: Option<&'a Again>,
}

impl Talk<'_> {
    /// Lets the agent work and asks the gate, for as many rounds as there are.
    async fn converse(
        &self,
        session: &mut dyn Session,
        start: Start,
    ) -> Result<Settlement, Failure> {
        for input in start.past {
            if let Some(settlement) = self.make_again(session, input).await? {
                return Ok(settlement);
            }
        }
        let (mut input, mut feedback) = (start.input, start.feedback);
        let (mut is_running, mut is_begun) = (start.is_running, start.is_begun);
        for round in start.round..=ROUNDS {
            if !std::mem::take(&mut is_running) {
                let running = self.place.ledger.attempt_running(self.place.lease).await;
                running.map_err(storage)?;
            }
            if !std::mem::take(&mut is_begun) {
                let turn = Agent::Turn { round, feedback };
                self.recorder.events(vec![turn]).await.map_err(storage)?;
            }
            let (tree, summary) = match self.turn(session, input).await? {
                Turned::Ended { tree, summary } => (tree, summary),
                Turned::Over(settlement) => return Ok(settlement),
            };
            match judge(self.place, tree, round, summary, &self.context.cancel).await? {
                Judged::Settled(settlement) => return Ok(settlement),
                Judged::Again(found) => {
                    feedback = Some(found.blob);
                    input = Input::Feedback(found.text);
                }
            }
        }
        Err(Failure::new(
            Reason::Bug,
            "the rounds of an attempt ended without an outcome",
        ))
    }

    /// Makes a turn again that has ended: its calls and tools are all in the journal.
    async fn make_again(
        &self,
        session: &mut dyn Session,
        input: Input,
    ) -> Result<Option<Settlement>, Failure> {
        let outcome = session.turn(input, self.context).await;
        let cassette = self.again.and_then(|again| again.cassette.as_ref());
        Ok(match outcome.stopped {
            Stopped::Completed if !cassette.is_some_and(gateway::Cassette::is_passed) => None,
            Stopped::Cancelled => return Err(Failure::new(Reason::Cancelled, "")),
            Stopped::Failed(error) => Some(lost(domain::failure::chain(&error))),
            _ => Some(lost("a turn that had ended did not end in the same way")),
        })
    }

    /// How long to sleep where the provider has no quota left and says when it will.
    fn quota(&self, failure: &Failure) -> Option<Duration> {
        if failure.reason != Reason::RateLimited {
            return None;
        }
        let wait = self.granted.and_then(Grant::last_retry_after)?;
        (wait > QUOTA).then_some(wait.min(LONGEST_SLEEP))
    }

    /// Lets the agent make a turn, and reads what it left.
    async fn turn(&self, session: &mut dyn Session, input: Input) -> Result<Turned, Failure> {
        let Self { place, site, .. } = *self;
        let Outcome {
            summary, stopped, ..
        } = session.turn(input, self.context).await;
        // It becomes the message of a commit, too.
        let summary = place.worker.gateway.redact(summary);
        self.recorder.flush().await.map_err(storage)?;
        let seen = self.granted.and_then(Grant::last_failure);
        if self.again.is_some() && failure::is_divergence(&stopped, seen.as_ref()) {
            let failed = failure::of(&stopped, None);
            let why = failed.map(|failure| failure.detail).unwrap_or_default();
            return Ok(Turned::Over(lost(why)));
        }
        if let Some(failure) = failure::of(&stopped, seen) {
            if let Some(wait) = self.quota(&failure) {
                let until = place.ledger.now().plus(wait);
                return Ok(Turned::Over(Settlement::Parked { failure, until }));
            }
            if failure::leaves_work(&stopped) {
                salvage(place, site, tree_of(place)?, &summary).await;
            }
            return Err(failure);
        }
        let extracted = site.extract().await.map_err(|error| error.failure())?;
        let tree = extracted.tree;
        if !extracted.not_taken.is_empty() {
            let text = format!(
                "Not taken from the workspace:\n{}",
                extracted.not_taken.join("\n")
            );
            // The names of files are an agent's words.
            let text = place.worker.gateway.redact(text);
            let event = Agent::Error { text };
            self.recorder.events(vec![event]).await.map_err(storage)?;
        }
        place
            .ledger
            .attempt_checking(place.lease, tree.to_string())
            .await
            .map_err(storage)?;
        Ok(Turned::Ended { tree, summary })
    }
}

/// Who asks for a longer wait than this has no quota left; shorter ones are waited for by agents.
const QUOTA: Duration = Duration::from_secs(90);
/// A job that sleeps is asked again after so long at the most: a provider's quotas are by the week
/// at the longest.
const LONGEST_SLEEP: Duration = Duration::from_secs(8 * 24 * 3_600);

/// What came of a turn.
enum Turned {
    /// The agent has ended it, and left this.
    Ended { tree: TreeId, summary: String },
    /// The attempt does not go on with it now: it is lost, or waits for a quota.
    Over(Settlement),
}
