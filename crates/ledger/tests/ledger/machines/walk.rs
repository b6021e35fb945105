//! A sequence of verbs, with a look after each one whether both are where they should be.

mod changes;
mod jobs;
mod requests;

use super::{
    draw::{Case, ChangeEnd, End, Opening, Step},
    model::Model,
};
use crate::support::Place;
use domain::{
    AttemptState, ChangeState, JobId, RequestId, Timestamp, event::Envelope, machine::Machine,
};
use ledger::{ClaimedChange, ClaimedJob, Error, Lease};
use std::time::Duration;

/// How long a request is not to begin, at first.
const LATER: Duration = Duration::from_secs(90);
/// How long holders go on without saying that they live: shorter than a lease.
const STRIDE: Duration = Duration::from_secs(20);
/// How many steps are tried after all has ended: they are refused.
const AFTERWARDS: usize = 8;

struct Walk<'a> {
    place: &'a Place,
    request: RequestId,
    after: Vec<Vec<usize>>,
    model: Model,
    /// The jobs, in the order of the plan.
    ids: Vec<JobId>,
    planner: Option<Lease>,
    held: Vec<(usize, ClaimedJob)>,
    merging: Option<(usize, ClaimedChange)>,
    /// A lease that has ended, without its holder.
    late: Option<Lease>,
}

/// Takes a request through a case and to its end, in a ledger in which nothing else is open. The
/// answer is what was told of it.
pub(super) async fn walk(place: &Place, case: Case) -> Vec<Envelope> {
    let mut ask = place.ask().await;
    let now = place.ledger.now();
    let not_before = (case.opening == Opening::Later).then(|| now.plus(LATER));
    ask.placement.not_before = not_before;
    let submitted = place.ledger.submit(place.session, ask, None).await;
    let mut walk = Walk {
        place,
        request: submitted.unwrap(),
        after: case.after,
        model: Model::new(now, not_before),
        ids: Vec::new(),
        planner: None,
        held: Vec::new(),
        merging: None,
        late: None,
    };
    if case.opening == Opening::Planned {
        walk.claim_request().await;
        walk.plan().await;
    }
    let mut afterwards = 0;
    for step in case.sequence {
        walk.take(step).await;
        walk.agrees(step).await;
        afterwards += usize::from(walk.is_over());
        if afterwards > AFTERWARDS {
            break;
        }
    }
    walk.end().await;
    let told = place.ledger.request_events(walk.request, 0, 10_000);
    told.await.unwrap()
}

impl Walk<'_> {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Go(at) => self.go(at).await,
            Step::ClaimRequest => self.claim_request().await,
            Step::Plan => self.plan().await,
            Step::FailRequest => self.fail_request().await,
            Step::PostponeRequest => self.postpone_request().await,
            Step::PauseRequest => self.pause_request().await,
            Step::ResumeRequest => self.resume_request().await,
            Step::CancelRequest => self.cancel_request().await,
            Step::PauseJob(at) => self.pause_job(at).await,
            Step::ResumeJob(at) => self.resume_job(at).await,
            Step::CancelJob(at) => self.cancel_job(at).await,
            Step::Claim => self.claim().await,
            Step::Merge => self.merge().await,
            Step::CheckChange => self.check_change().await,
            Step::Land => self.land().await,
            Step::SettleChange(end) => self.settle_change(end).await,
            Step::Lose => self.lose().await,
            Step::Sleep => self.sleep().await,
            Step::Late => self.come_late().await,
            Step::Start(at)
            | Step::Run(at)
            | Step::Check(at)
            | Step::Resume(at)
            | Step::GiveUp(at)
            | Step::Record(at)
            | Step::Settle(at, _) => {
                if !self.held.is_empty() {
                    self.holder(at % self.held.len(), step).await;
                }
            }
        }
    }

    /// Whatever comes next where nothing goes wrong.
    async fn go(&mut self, at: usize) {
        match (&self.planner, at % 3) {
            (Some(_), 0) => return self.plan().await,
            (Some(_), _) => return,
            (None, _) if self.ids.is_empty() => return self.claim_request().await,
            _ => {}
        }
        match (at % (self.held.len() + 2), &self.merging) {
            (0, None) => self.merge().await,
            (0, Some((job, _))) => match self.model.jobs[*job].change {
                Some(ChangeState::Merging) => self.check_change().await,
                _ => self.settle_change(ChangeEnd::Integrate).await,
            },
            (1, _) => self.claim().await,
            (held, _) => {
                let end = if at.is_multiple_of(5) {
                    End::Empty
                } else {
                    End::Pass
                };
                let at = held - 2;
                let step = match self.model.jobs[self.held[at].0].open() {
                    None => Step::Start(at),
                    Some(AttemptState::Suspended) => Step::Resume(at),
                    Some(AttemptState::Preparing) => Step::Run(at),
                    Some(AttemptState::Running) => Step::Check(at),
                    Some(_) => Step::Settle(at, end),
                };
                self.holder(at, step).await;
            }
        }
    }

    /// Nobody says that they live for so long that every lease ends.
    async fn lose(&mut self) {
        for _ in 0..2 {
            self.place.clock.advance(ledger::options::LEASE);
            self.place.look().await;
            self.model.pass(self.place.ledger.now());
        }
        if let Some(lease) = self.planner.take() {
            if self.model.lose_planner() {
                self.model.until = self.request_until().await;
            }
            self.late = Some(lease);
        }
        if let Some((job, claimed)) = self.merging.take() {
            if self.model.lose_integrator(job) {
                self.model.jobs[job].until = self.change_until(job).await;
            }
            self.late = Some(claimed.lease);
        }
        for (job, claimed) in std::mem::take(&mut self.held) {
            if self.model.lose(job) {
                self.model.jobs[job].parked = Some(self.job_until(job).await);
            }
            self.late = Some(claimed.lease);
        }
    }

    /// Until when the request waits, as the ledger tells: how long that is is left to chance.
    async fn request_until(&self) -> Option<Timestamp> {
        let waits = self.place.ledger.request_waits(self.request).await;
        let told = waits.unwrap().until;
        assert!(told > Some(self.model.now), "{told:?}");
        told
    }

    /// Until when a job's change waits.
    async fn change_until(&self, job: usize) -> Option<Timestamp> {
        let waits = self.place.ledger.job_waits(self.ids[job]).await;
        let told = waits.unwrap().change_until;
        assert!(told > Some(self.model.now), "{told:?}");
        told
    }

    /// Until when a job sleeps.
    async fn job_until(&self, job: usize) -> Timestamp {
        let waits = self.place.ledger.job_waits(self.ids[job]).await;
        let told = waits.unwrap().until.unwrap();
        assert!(told > self.model.now, "{told:?}");
        told
    }

    async fn sleep(&mut self) {
        let ledger = &self.place.ledger;
        loop {
            self.place.clock.advance(STRIDE);
            let jobs = self.held.iter().map(|(_, claimed)| &claimed.lease);
            let change = self.merging.iter().map(|(_, claimed)| &claimed.lease);
            for lease in jobs.chain(change).chain(&self.planner) {
                ledger.heartbeat(lease).await.unwrap();
            }
            self.place.look().await;
            self.model.pass(ledger.now());
            if self.model.last_wait().is_none() {
                break;
            }
        }
    }

    async fn come_late(&self) {
        if let Some(lease) = &self.late {
            let late = self.place.ledger.heartbeat(lease).await;
            assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
        }
    }

    /// Nothing can change any more.
    fn is_over(&self) -> bool {
        let mut changes = self.model.jobs.iter().filter_map(|job| job.change);
        self.model.request.is_terminal() && changes.all(ChangeState::is_settled)
    }

    /// Wherever it is, a person can end it; what may be on the branch is settled as it is found.
    async fn end(&mut self) {
        self.cancel_request().await;
        while !self.is_over() {
            if self.merging.is_none() {
                self.sleep().await;
                self.merge().await;
            }
            self.settle_change(ChangeEnd::Integrate).await;
        }
        self.agrees(Step::CancelRequest).await;
    }

    /// The ledger has what the model has.
    async fn agrees(&self, step: Step) {
        let (ledger, model) = (&self.place.ledger, &self.model);
        let stored = ledger.request(self.request).await.unwrap().state;
        assert_eq!(stored, model.request, "after {step:?}");
        let stored = ledger.jobs(self.request).await.unwrap();
        assert_eq!(stored.len(), model.jobs.len(), "after {step:?}");
        for ((at, known), stored) in model.jobs.iter().enumerate().zip(stored) {
            assert_eq!(stored.state, known.state, "job {at} after {step:?}");
            let attempts = ledger.attempts(stored.id).await.unwrap();
            let attempts: Vec<_> = attempts.iter().map(|attempt| attempt.state).collect();
            assert_eq!(attempts, known.attempts, "of job {at} after {step:?}");
        }
        let changes = ledger.changes_of(self.request).await.unwrap();
        let made = model.jobs.iter().filter(|job| job.change.is_some());
        assert_eq!(changes.len(), made.count(), "after {step:?}");
        for change in changes {
            let known = model.jobs[self.index(change.job)].change;
            assert_eq!(Some(change.state), known, "after {step:?}");
        }
    }

    fn index(&self, job: JobId) -> usize {
        self.ids.iter().position(|&known| known == job).unwrap()
    }

    /// A job is nobody's any more.
    fn drop_holder(&mut self, job: usize) {
        if let Some(at) = self.held.iter().position(|(known, _)| *known == job) {
            self.late = Some(self.held.remove(at).1.lease);
        }
    }
}

/// Both said the same of a verb.
fn agree<T: std::fmt::Debug>(result: &Result<T, Error>, allowed: bool, what: &str) {
    match result {
        Ok(_) => assert!(allowed, "{what} was done, and is not allowed"),
        Err(Error::Illegal(_) | Error::NotFound { .. } | Error::Invalid(_)) => {
            assert!(!allowed, "{what} is allowed: {result:?}");
        }
        Err(error) => panic!("{what}: {error:?}"),
    }
}
