//! What follows from what has settled: which jobs may start, and when a request ends.

use crate::state::{ChangeState, JobState, RequestCommand, RequestState};

/// A job as far as the jobs after it are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Where the job stands.
    pub job: JobState,
    /// Where its change stands, once it has one.
    pub change: Option<ChangeState>,
}

/// What a dependency means for the jobs after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// Its change is integrated, or there was nothing to change.
    Satisfied,
    /// It will never be.
    Failed,
    /// It is under way.
    Open,
}

impl Settled {
    /// What this job means for the jobs after it: a dependency is satisfied when its change is
    /// integrated, not before.
    #[must_use]
    pub fn as_dependency(self) -> Dependency {
        match (self.job, self.change) {
            (JobState::NothingToDo, _) => Dependency::Satisfied,
            (JobState::Dead | JobState::Cancelled, _) => Dependency::Failed,
            (JobState::Delivered, Some(change)) if change.is_integrated() => Dependency::Satisfied,
            (JobState::Delivered, Some(change)) if change.is_terminal_for_dependents() => {
                Dependency::Failed
            }
            _ => Dependency::Open,
        }
    }
}

impl ChangeState {
    const fn is_terminal_for_dependents(self) -> bool {
        matches!(self, Self::Conflicted | Self::Rejected | Self::Reverted)
    }
}

/// What a request that is working or integrating should be told, given all its jobs.
///
/// None where it stays as it is.
#[must_use]
pub fn request_command(state: RequestState, jobs: &[Settled]) -> Option<RequestCommand> {
    if !matches!(state, RequestState::Working | RequestState::Integrating) {
        return None;
    }
    let of = |wanted: Dependency| {
        jobs.iter()
            .filter(|job| job.as_dependency() == wanted)
            .count()
    };
    let open_jobs = jobs.iter().any(|job| !is_terminal(job.job));
    match (open_jobs, of(Dependency::Open), of(Dependency::Failed)) {
        (false, 0, 0) => Some(RequestCommand::Finish),
        (false, 0, failed) if failed == jobs.len() => Some(RequestCommand::Fail),
        (false, 0, _) if !jobs.iter().any(is_integrated) => Some(RequestCommand::Fail),
        (false, 0, _) => Some(RequestCommand::FinishPartly),
        (false, _, _) if state == RequestState::Working => Some(RequestCommand::Integrate),
        _ => None,
    }
}

fn is_terminal(state: JobState) -> bool {
    crate::machine::Machine::is_terminal(state)
}

fn is_integrated(job: &Settled) -> bool {
    job.change.is_some_and(ChangeState::is_integrated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use proptest::prelude::*;

    fn job(job: JobState, change: Option<ChangeState>) -> Settled {
        Settled { job, change }
    }

    const INTEGRATED: Option<ChangeState> = Some(ChangeState::Integrated);

    #[test]
    fn a_delivered_job_satisfies_only_once_its_change_is_integrated() {
        use Dependency::{Failed, Open, Satisfied};
        for (change, expected) in [
            (None, Open),
            (Some(ChangeState::Queued), Open),
            (Some(ChangeState::Checking), Open),
            (INTEGRATED, Satisfied),
            (Some(ChangeState::Promoted), Satisfied),
            (Some(ChangeState::Conflicted), Failed),
            (Some(ChangeState::Rejected), Failed),
            (Some(ChangeState::Reverted), Failed),
        ] {
            assert_eq!(
                job(JobState::Delivered, change).as_dependency(),
                expected,
                "{change:?}"
            );
        }
    }

    #[test]
    fn a_request_ends_as_its_jobs_did() {
        let done = job(JobState::Delivered, INTEGRATED);
        let empty = job(JobState::NothingToDo, None);
        let dead = job(JobState::Dead, None);
        let conflicted = job(JobState::Delivered, Some(ChangeState::Conflicted));
        let queued = job(JobState::Delivered, Some(ChangeState::Queued));
        let ready = job(JobState::Ready, None);
        let command = |jobs: &[Settled]| request_command(RequestState::Working, jobs);
        assert_eq!(command(&[done, empty]), Some(RequestCommand::Finish));
        assert_eq!(command(&[done, dead]), Some(RequestCommand::FinishPartly));
        assert_eq!(command(&[dead, conflicted]), Some(RequestCommand::Fail));
        assert_eq!(command(&[dead, empty]), Some(RequestCommand::Fail));
        assert_eq!(command(&[done, queued]), Some(RequestCommand::Integrate));
        assert_eq!(command(&[done, ready]), None);
    }

    proptest! {
        #[test]
        fn a_request_whose_jobs_have_all_settled_ends(
            jobs in proptest::collection::vec((0..12usize, proptest::option::of(0..8usize)), 1..12),
        ) {
            let jobs: Vec<Settled> = jobs
                .into_iter()
                .map(|(state, change)| {
                    job(JobState::STATES[state], change.map(|index| ChangeState::STATES[index]))
                })
                .collect();
            let settled = jobs.iter().all(|job| job.as_dependency() != Dependency::Open);
            for state in [RequestState::Working, RequestState::Integrating] {
                let command = request_command(state, &jobs);
                if let Some(command) = command {
                    let next = state.apply(command).unwrap();
                    prop_assert_eq!(next.is_terminal(), settled, "{:?}", jobs);
                } else {
                    prop_assert!(!settled, "{jobs:?} has settled and {state} does not end");
                }
            }
        }
    }
}
