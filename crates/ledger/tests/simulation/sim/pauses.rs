//! Pauses: while a person has paused something, nothing of it goes on.

use super::{Broken, model::Model};
use domain::{
    AttemptId, AttemptState, Class, JobId, JobState, Reason, RequestState,
    event::{Body, Envelope},
};
use skep_ledger::MAX_ATTEMPTS;

/// The job that an event shows at work.
enum AtWork {
    Job(JobId),
    Attempt(AttemptId),
    /// Of a plan, or of a planner.
    Request,
}

fn at_work(body: &Body) -> Option<AtWork> {
    use AttemptState as A;
    use JobState as J;
    match body {
        Body::Planned { .. } => Some(AtWork::Request),
        Body::ModelCalled { attempt, .. } => Some(attempt.map_or(AtWork::Request, AtWork::Attempt)),
        Body::AttemptStarted { job, .. } => Some(AtWork::Job(*job)),
        Body::JobChanged { job, to, .. } => matches!(
            to,
            J::Leased | J::Running | J::Checking | J::Delivered | J::NothingToDo
        )
        .then_some(AtWork::Job(*job)),
        Body::AttemptChanged { attempt, to, .. } => {
            matches!(to, A::Running | A::Checking | A::Passed | A::Rejected)
                .then_some(AtWork::Attempt(*attempt))
        }
        Body::Agent { attempt, .. } | Body::ChangeMade { attempt, .. } => {
            Some(AtWork::Attempt(*attempt))
        }
        _ => None,
    }
}

impl Model {
    /// What is paused makes no progress; what has passed its gate still lands.
    pub(crate) fn is_allowed(&self, envelope: &Envelope) -> Result<(), Broken> {
        let Some(work) = at_work(&envelope.body) else {
            return Ok(());
        };
        let request = envelope.request.and_then(|id| self.requests.get(&id));
        let job = match work {
            AtWork::Job(job) => Some(job),
            AtWork::Attempt(attempt) => self.attempts.get(&attempt).map(|(job, _)| *job),
            AtWork::Request => None,
        };
        let job = job.and_then(|job| self.jobs.get(&job));
        let paused = request == Some(&RequestState::Paused)
            || job.is_some_and(|(_, state)| *state == JobState::Paused);
        Broken::unless(!paused, || {
            format!("it is paused, and goes on: {:?}", envelope.body)
        })
    }

    /// To be paused, or to lose a holder, costs no claim: a job that dies of what may be tried
    /// again was tried as often as it may be.
    pub(crate) fn counts_failures(&mut self, body: &Body) -> Result<(), Broken> {
        let Body::JobChanged {
            job,
            to,
            failure: Some(failure),
            ..
        } = body
        else {
            return Ok(());
        };
        // Lost holders are counted by themselves.
        let outside = failure.reason != Reason::OwnerLost
            && matches!(failure.reason.class(), Class::Environment | Class::Provider);
        let settled = matches!(to, JobState::Parked | JobState::Dead);
        if !outside || !failure.reason.retry_is_safe() || !settled {
            return Ok(());
        }
        let failures = self.failures.entry(*job).or_default();
        *failures += 1;
        Broken::unless(*to != JobState::Dead || *failures >= MAX_ATTEMPTS, || {
            format!("{job} is dead after {failures} failures: {failure:?}")
        })
    }
}
