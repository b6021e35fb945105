//! What happened to a request, folded from its events.

use domain::{
    Amount, AttemptId, AttemptState, ChangeId, ChangeState, Failure, JobId, JobState, RequestId,
    RequestState, Timestamp,
    egress::Part,
    entity::Evidence,
    event::{Agent, Body, Envelope},
    machine::Machine,
};

/// A request as its events tell it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Story {
    request: Option<RequestId>,
    /// Its first line.
    pub(crate) title: String,
    /// The commit that it starts from.
    pub(crate) base: String,
    /// The most that it may spend.
    pub(crate) budget: Amount,
    /// Where it stands.
    pub(crate) state: Option<RequestState>,
    /// Why it failed.
    pub(crate) failure: Option<Failure>,
    /// When it was accepted.
    pub(crate) started: Timestamp,
    /// When it ended.
    pub(crate) ended: Option<Timestamp>,
    /// Its jobs, as planned.
    pub(crate) jobs: Vec<JobStory>,
    /// What calls outside of attempts cost: the planner's.
    pub(crate) planner: Spending,
    /// Where the integration branch was moved to, last.
    pub(crate) published: Option<Published>,
    /// What a person should know, in order.
    pub(crate) notes: Vec<String>,
}

/// The user's integration branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// Its name.
    pub(crate) branch: String,
    /// Where it points.
    pub(crate) commit: String,
    /// Why it was not moved.
    pub(crate) refused: Option<String>,
}

/// What model calls cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spending {
    /// Tokens and money.
    pub(crate) amount: Amount,
    /// How many calls.
    pub(crate) calls: u64,
    /// How many of them had no known price.
    unpriced: u64,
    /// How many of them were counted as what was reserved.
    pub(crate) unmetered: u64,
}

impl Spending {
    /// Whether all of it has a known price.
    pub(crate) const fn is_priced(self) -> bool {
        self.unpriced == 0
    }

    fn plus(self, other: Self) -> Self {
        Self {
            amount: self.amount.plus(other.amount),
            calls: self.calls + other.calls,
            unpriced: self.unpriced + other.unpriced,
            unmetered: self.unmetered + other.unmetered,
        }
    }
}

/// A job.
#[derive(Debug, Clone)]
pub(crate) struct JobStory {
    /// Its id.
    pub(crate) id: JobId,
    /// Its name in the plan.
    pub(crate) name: String,
    /// What it is about.
    pub(crate) title: String,
    /// The jobs that it waits for.
    pub(crate) after: Vec<JobId>,
    /// Where it stands.
    pub(crate) state: JobState,
    /// Why it died, or went back.
    pub(crate) failure: Option<Failure>,
    /// When it was first claimed.
    pub(crate) started: Option<Timestamp>,
    /// When it came to its end: its change settled, or it ended without one.
    pub(crate) ended: Option<Timestamp>,
    /// Its attempts, in order.
    pub(crate) attempts: Vec<AttemptStory>,
    /// What it, or its agent, did last.
    pub(crate) action: String,
}

/// An attempt.
#[derive(Debug, Clone)]
pub(crate) struct AttemptStory {
    /// Its id.
    pub(crate) id: AttemptId,
    /// Its place among the attempts of the job.
    pub(crate) number: u32,
    /// Where it stands.
    pub(crate) state: AttemptState,
    /// Whether it is made in a sandbox.
    pub(crate) sealed: bool,
    /// The round that it is in, from one.
    pub(crate) round: u32,
    /// How the setup of its workspace went.
    pub(crate) set_up: Option<String>,
    /// What its checks found.
    pub(crate) checks: Vec<Checked>,
    /// What it spent.
    pub(crate) spending: Spending,
    /// What the agent said at the end.
    pub(crate) summary: String,
    /// Why it did not pass.
    pub(crate) failure: Option<Failure>,
    /// Its change.
    pub(crate) change: Option<ChangeStory>,
}

/// One check that ran.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// The round, from one.
    pub(crate) round: u32,
    /// Whether it ran on the merged tree, before landing.
    pub(crate) merged: bool,
    /// What it found.
    pub(crate) evidence: Evidence,
}

/// A change.
#[derive(Debug, Clone)]
pub(crate) struct ChangeStory {
    /// Its id.
    pub(crate) id: ChangeId,
    /// Where it stands.
    pub(crate) state: ChangeState,
    /// The commit on the integration branch.
    pub(crate) integrated: Option<String>,
    /// Files that do not merge.
    pub(crate) conflicts: Vec<String>,
    /// Why it was rejected.
    pub(crate) failure: Option<Failure>,
}

impl JobStory {
    /// Its last attempt.
    pub(crate) fn attempt(&self) -> Option<&AttemptStory> {
        self.attempts.last()
    }

    /// Its change, if an attempt made one.
    pub(crate) fn change(&self) -> Option<&ChangeStory> {
        self.attempts
            .iter()
            .rev()
            .find_map(|attempt| attempt.change.as_ref())
    }

    /// What all its attempts spent.
    pub(crate) fn spending(&self) -> Spending {
        self.attempts
            .iter()
            .fold(Spending::default(), |sum, attempt| {
                sum.plus(attempt.spending)
            })
    }

    /// The word for where it stands: its own state, or its change's once it is delivered.
    pub(crate) fn standing(&self) -> &'static str {
        match (self.state, self.change()) {
            (JobState::Delivered, Some(change)) => change.state.as_str(),
            (JobState::NothingToDo, _) => "no change",
            (state, _) => state.as_str(),
        }
    }

    /// Whether all went well, or not, or is not known yet.
    pub(crate) fn outcome(&self) -> Option<bool> {
        match (self.state, self.change().map(|change| change.state)) {
            (JobState::NothingToDo, _)
            | (JobState::Delivered, Some(ChangeState::Integrated | ChangeState::Promoted)) => {
                Some(true)
            }
            (JobState::Dead | JobState::Cancelled, _)
            | (
                JobState::Delivered,
                Some(ChangeState::Conflicted | ChangeState::Rejected | ChangeState::Reverted),
            ) => Some(false),
            _ => None,
        }
    }
}

impl Story {
    /// The story of this request, before anything is known of it.
    pub(crate) fn new(request: RequestId) -> Self {
        Self {
            request: Some(request),
            ..Self::default()
        }
    }

    /// The story that these events tell.
    #[cfg(test)]
    pub(crate) fn told<'a>(
        request: RequestId,
        events: impl IntoIterator<Item = &'a Envelope>,
    ) -> Self {
        let mut story = Self::new(request);
        for envelope in events {
            story.apply(envelope);
        }
        story
    }

    /// Whether it has come to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.state.is_some_and(Machine::is_terminal)
    }

    /// The job with this id.
    pub(crate) fn job(&self, id: JobId) -> Option<&JobStory> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// The job that this attempt is of.
    pub(crate) fn job_of(&self, attempt: AttemptId) -> Option<&JobStory> {
        self.jobs
            .iter()
            .find(|job| job.attempts.iter().any(|other| other.id == attempt))
    }

    /// The job whose change this is.
    pub(crate) fn job_of_change(&self, change: ChangeId) -> Option<&JobStory> {
        self.jobs.iter().find(|job| {
            job.attempts
                .iter()
                .filter_map(|attempt| attempt.change.as_ref())
                .any(|other| other.id == change)
        })
    }

    /// What all of it cost.
    pub(crate) fn spending(&self) -> Spending {
        self.jobs
            .iter()
            .fold(self.planner, |sum, job| sum.plus(job.spending()))
    }

    /// Whether the event is part of this story.
    fn concerns(&self, envelope: &Envelope) -> bool {
        envelope.request.is_none() || self.request.is_none() || envelope.request == self.request
    }

    /// Takes in what happened.
    pub(crate) fn apply(&mut self, envelope: &Envelope) {
        if !self.concerns(envelope) {
            return;
        }
        let time = envelope.time;
        match &envelope.body {
            Body::SessionCreated { .. } | Body::SessionRenamed { .. } => {}
            Body::RequestSubmitted {
                title,
                base,
                budget,
                ..
            } => {
                self.title.clone_from(title);
                self.base.clone_from(base);
                self.budget = *budget;
                self.started = time;
                self.state = Some(RequestState::Queued);
            }
            Body::RequestChanged { to, failure, .. } => {
                self.state = Some(*to);
                // Why it was put back is not why it ended.
                if failure.is_some() && *to != RequestState::Queued {
                    self.failure.clone_from(failure);
                }
                if to.is_terminal() {
                    self.ended = Some(time);
                }
            }
            Body::Planned { jobs, note, .. } => {
                self.jobs = jobs.iter().map(JobStory::planned).collect();
                self.notes.extend(note.clone());
            }
            Body::Note { text } => self.notes.push(text.clone()),
            Body::Published {
                branch,
                commit,
                refused,
                ..
            } => {
                self.published = Some(Published {
                    branch: branch.clone(),
                    commit: commit.clone(),
                    refused: refused.clone(),
                });
            }
            Body::ModelCalled {
                attempt,
                spent,
                metered,
                priced,
                ..
            } => {
                let cost = Spending {
                    amount: *spent,
                    calls: 1,
                    unpriced: u64::from(!priced),
                    unmetered: u64::from(!metered),
                };
                match attempt.and_then(|id| self.attempt_mut(id)) {
                    Some(attempt) => attempt.spending = attempt.spending.plus(cost),
                    None => self.planner = self.planner.plus(cost),
                }
            }
            Body::JobChanged { .. } => self.apply_to_job(time, &envelope.body),
            Body::AttemptStarted { .. }
            | Body::AttemptChanged { .. }
            | Body::Agent { .. }
            | Body::Checked { .. } => self.apply_to_attempt(&envelope.body),
            Body::SetUp {
                attempt,
                part: Part::Agent,
                cached,
                duration_ms,
                ..
            } => {
                if let Some(attempt) = self.attempt_mut(*attempt) {
                    attempt.set_up = Some(super::event::setup_words(*cached, *duration_ms));
                }
            }
            // That of checks is told by `skep log`.
            Body::SetUp { .. } => {}
            // What left a sandbox is told by `skep log` and `skep egress`.
            Body::Egress { .. } => {}
            Body::ChangeMade { .. } | Body::ChangeChanged { .. } => {
                self.apply_to_change(time, &envelope.body);
            }
        }
    }

    fn apply_to_job(&mut self, time: Timestamp, body: &Body) {
        let Body::JobChanged {
            job, to, failure, ..
        } = body
        else {
            return;
        };
        let Some(job) = self.jobs.iter_mut().find(|other| other.id == *job) else {
            return;
        };
        job.state = *to;
        if failure.is_some() {
            job.failure.clone_from(failure);
        }
        if *to == JobState::Leased && job.started.is_none() {
            job.started = Some(time);
        }
        if to.is_terminal() {
            job.ended = Some(time);
        }
        if let (JobState::Dead | JobState::Ready, Some(failure)) = (to, failure) {
            job.action = failure.to_string();
        } else if *to == JobState::Checking {
            job.action = "the checks begin".into();
        } else if *to == JobState::Delivered {
            job.failure = None;
        }
    }

    fn apply_to_attempt(&mut self, body: &Body) {
        match body {
            Body::AttemptStarted {
                attempt,
                job,
                number,
                sandbox,
                ..
            } => {
                if let Some(job) = self.jobs.iter_mut().find(|other| other.id == *job) {
                    job.action.clear();
                    job.attempts.push(AttemptStory {
                        id: *attempt,
                        number: *number,
                        state: AttemptState::Preparing,
                        sealed: domain::entity::is_sealed(sandbox),
                        round: 1,
                        set_up: None,
                        checks: Vec::new(),
                        spending: Spending::default(),
                        summary: String::new(),
                        failure: None,
                        change: None,
                    });
                }
            }
            Body::AttemptChanged {
                attempt,
                to,
                failure,
                ..
            } => {
                if let Some(attempt) = self.attempt_mut(*attempt) {
                    attempt.state = *to;
                    attempt.failure.clone_from(failure);
                }
            }
            Body::Agent { attempt, event } => {
                if let Some(action) = super::event::action(event) {
                    self.set_action(*attempt, action);
                }
                if let Some(attempt) = self.attempt_mut(*attempt) {
                    match event {
                        Agent::Turn { round, .. } => attempt.round = *round,
                        Agent::Finished { summary } => attempt.summary.clone_from(summary),
                        _ => {}
                    }
                }
            }
            Body::Checked {
                attempt,
                change,
                round,
                evidence,
            } => {
                if super::event::is_worth_a_line(evidence) {
                    self.set_action(*attempt, super::event::check_action(evidence));
                }
                if let Some(attempt) = self.attempt_mut(*attempt) {
                    attempt.checks.push(Checked {
                        round: *round,
                        merged: change.is_some(),
                        evidence: evidence.clone(),
                    });
                }
            }
            _ => {}
        }
    }

    fn apply_to_change(&mut self, time: Timestamp, body: &Body) {
        match body {
            Body::ChangeMade {
                change, attempt, ..
            } => {
                if let Some(attempt) = self.attempt_mut(*attempt) {
                    attempt.change = Some(ChangeStory {
                        id: *change,
                        state: ChangeState::Queued,
                        integrated: None,
                        conflicts: Vec::new(),
                        failure: None,
                    });
                }
            }
            Body::ChangeChanged {
                change: id,
                to,
                integrated,
                conflicts,
                failure,
                ..
            } => {
                let found = self.jobs.iter_mut().find_map(|job| {
                    let at = job
                        .attempts
                        .iter()
                        .position(|a| a.change.as_ref().is_some_and(|c| c.id == *id))?;
                    Some((job, at))
                });
                let Some((job, at)) = found else { return };
                if to.is_terminal() || to.is_integrated() {
                    job.ended = Some(time);
                }
                job.action = match to {
                    ChangeState::Integrated => format!(
                        "landed as {}",
                        super::format::short(integrated.as_deref().unwrap_or_default())
                    ),
                    ChangeState::Conflicted => format!("conflict in {}", conflicts.join(", ")),
                    ChangeState::Rejected => failure
                        .as_ref()
                        .map_or_else(|| "rejected".into(), ToString::to_string),
                    ChangeState::Queued => failure.as_ref().map_or_else(
                        || std::mem::take(&mut job.action),
                        |failure| format!("waits to be merged again: {failure}"),
                    ),
                    _ => std::mem::take(&mut job.action),
                };
                if let Some(change) = job.attempts.get_mut(at).and_then(|a| a.change.as_mut()) {
                    change.state = *to;
                    change.integrated.clone_from(integrated);
                    change.conflicts.clone_from(conflicts);
                    change.failure.clone_from(failure);
                }
            }
            _ => {}
        }
    }

    fn attempt_mut(&mut self, id: AttemptId) -> Option<&mut AttemptStory> {
        self.jobs
            .iter_mut()
            .flat_map(|job| job.attempts.iter_mut())
            .find(|attempt| attempt.id == id)
    }

    fn set_action(&mut self, attempt: AttemptId, action: String) {
        let job = self
            .jobs
            .iter_mut()
            .find(|job| job.attempts.iter().any(|other| other.id == attempt));
        if let Some(job) = job {
            job.action = action;
        }
    }
}

impl JobStory {
    fn planned(job: &domain::event::PlannedJob) -> Self {
        Self {
            id: job.job,
            name: job.name.clone(),
            title: job.title.clone(),
            after: job.after.clone(),
            state: if job.after.is_empty() {
                JobState::Ready
            } else {
                JobState::Blocked
            },
            failure: None,
            started: None,
            ended: None,
            attempts: Vec::new(),
            action: String::new(),
        }
    }
}
