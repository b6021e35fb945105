//! Persons: at any moment they pause requests and jobs, let them go on, and change their minds.

use super::{
    actor::{Actor, Heard, View},
    call::Call,
};
use domain::{JobId, RequestId};

#[derive(Default)]
pub(crate) struct Person {
    /// What it has paused.
    requests: Vec<RequestId>,
    jobs: Vec<JobId>,
}

impl Actor for Person {
    fn next(&mut self, view: &mut View<'_>) -> Option<Call> {
        if view.ending {
            return None;
        }
        Some(match view.random.below(100) {
            0..15 => Call::PauseRequest(*view.random.pick(view.requests)?),
            15..30 => Call::ResumeRequest(*view.random.pick(view.requests)?),
            30..45 => Call::ResumeRequest(*view.random.pick(&self.requests)?),
            45..60 => Call::PauseJob(*view.random.pick(view.jobs)?),
            60..70 => Call::ResumeJob(*view.random.pick(view.jobs)?),
            70..85 => Call::ResumeJob(*view.random.pick(&self.jobs)?),
            85..91 => Call::CancelRequest(*view.random.pick(view.requests)?),
            _ => Call::CancelJob(*view.random.pick(view.jobs)?),
        })
    }

    fn hear(&mut self, _: &mut View<'_>, call: &Call, _: Heard) {
        match call {
            Call::PauseRequest(request) => self.requests.push(*request),
            Call::ResumeRequest(request) => self.requests.retain(|known| known != request),
            Call::PauseJob(job) => self.jobs.push(*job),
            Call::ResumeJob(job) => self.jobs.retain(|known| known != job),
            _ => {}
        }
    }

    fn is_idle(&self) -> bool {
        true
    }
}
