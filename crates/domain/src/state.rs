//! The four machines: requests, jobs, attempts and changes.

use crate::machine::Machine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$state_doc:meta])* $state:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$state_doc])* #[serde(rename = $text)] $state,)* }

        impl $name {
            /// The word for it, as it is stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$state => $text,)* } }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = UnknownState;
            fn from_str(text: &str) -> Result<Self, UnknownState> {
                match text { $($text => Ok(Self::$state),)* _ => Err(UnknownState(text.into())) }
            }
        }
    };
}

macro_rules! commands {
    ($(#[$doc:meta])* $name:ident { $($(#[$command_doc:meta])* $command:ident = $words:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$command_doc])* $command,)* }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$command,)*];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$command => $words,)* })
            }
        }
    };
}

/// A word that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a state")]
pub struct UnknownState(String);

states! {
    /// Where a request stands.
    RequestState {
        /// Nobody has planned it yet.
        Queued = "queued",
        /// A planner is at work.
        Planning = "planning",
        /// Jobs are under way.
        Working = "working",
        /// All jobs have settled; changes are being merged.
        Integrating = "integrating",
        /// A person must answer.
        Waiting = "waiting",
        /// A person paused it.
        Paused = "paused",
        /// Every job delivered or had nothing to do, and every change is integrated.
        Done = "done",
        /// Some of it is integrated.
        Partial = "partial",
        /// None of it is integrated.
        Failed = "failed",
        /// A person cancelled it.
        Cancelled = "cancelled",
    }
}

commands! {
    /// What may be asked of a request.
    RequestCommand {
        /// A planner has claimed it.
        Plan = "planned",
        /// The planner was lost, or gives it back.
        Requeue = "queued again",
        /// The plan and its jobs are there.
        Work = "worked on",
        /// All jobs have settled and changes are still to be merged.
        Integrate = "integrated",
        /// A person must answer.
        Ask = "put to a person",
        /// Stop for now.
        Pause = "paused",
        /// Go on; it has no plan yet.
        ResumeQueued = "resumed",
        /// Go on; it has its jobs.
        ResumeWorking = "resumed",
        /// All of it is integrated.
        Finish = "finished",
        /// It ends with some of it integrated.
        FinishPartly = "finished in part",
        /// It ends with nothing integrated.
        Fail = "failed",
        /// A person cancels it.
        Cancel = "cancelled",
    }
}

impl Machine for RequestState {
    type Command = RequestCommand;
    const NAME: &'static str = "request";
    const STATES: &'static [Self] = &[
        Self::Queued,
        Self::Planning,
        Self::Working,
        Self::Integrating,
        Self::Waiting,
        Self::Paused,
        Self::Done,
        Self::Partial,
        Self::Failed,
        Self::Cancelled,
    ];
    const COMMANDS: &'static [RequestCommand] = RequestCommand::ALL;

    fn next(self, command: RequestCommand) -> Option<Self> {
        use RequestCommand as C;
        use RequestState as S;
        if self.is_terminal() {
            return None;
        }
        Some(match (self, command) {
            (S::Queued, C::Plan) => S::Planning,
            (S::Planning, C::Requeue) => S::Queued,
            (S::Planning, C::Work) => S::Working,
            (S::Working, C::Integrate) => S::Integrating,
            (S::Planning | S::Working | S::Integrating, C::Ask) => S::Waiting,
            (S::Queued | S::Planning | S::Working | S::Integrating | S::Waiting, C::Pause) => {
                S::Paused
            }
            (S::Waiting | S::Paused, C::ResumeQueued) => S::Queued,
            (S::Waiting | S::Paused, C::ResumeWorking) => S::Working,
            (S::Working | S::Integrating, C::Finish) => S::Done,
            (S::Working | S::Integrating, C::FinishPartly) => S::Partial,
            (S::Planning | S::Working | S::Integrating, C::Fail) => S::Failed,
            (_, C::Cancel) => S::Cancelled,
            _ => return None,
        })
    }

    fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Done | Self::Partial | Self::Failed | Self::Cancelled
        )
    }
}

states! {
    /// Where a job stands.
    JobState {
        /// It waits for changes of other jobs to be integrated.
        Blocked = "blocked",
        /// A worker may claim it.
        Ready = "ready",
        /// A worker has claimed it.
        Leased = "leased",
        /// Its agent is at work.
        Running = "running",
        /// The gate looks at what its agent made.
        Checking = "checking",
        /// It sleeps until a time: a quota.
        Parked = "parked",
        /// A person must answer.
        Waiting = "waiting",
        /// A person paused it.
        Paused = "paused",
        /// Its change passed the gate.
        Delivered = "delivered",
        /// There was nothing to change, as the job allows.
        NothingToDo = "nothing_to_do",
        /// It failed for good.
        Dead = "dead",
        /// A person cancelled it, or its request.
        Cancelled = "cancelled",
    }
}

commands! {
    /// What may be asked of a job.
    JobCommand {
        /// All it waits for is integrated.
        Unblock = "unblocked",
        /// A worker claims it.
        Claim = "claimed",
        /// Its agent starts.
        Start = "started",
        /// The agent has ended its turn; the gate begins.
        Check = "checked",
        /// The gate's findings go back to the agent.
        Revise = "revised",
        /// Another attempt may begin.
        Retry = "tried again",
        /// Sleep until a time.
        Park = "parked",
        /// The time has come.
        Wake = "woken",
        /// A person must answer.
        Ask = "put to a person",
        /// The person has answered.
        Answer = "answered",
        /// Stop for now.
        Pause = "paused",
        /// Go on; what it waits for is integrated.
        ResumeReady = "resumed",
        /// Go on; it still waits for other jobs.
        ResumeBlocked = "resumed",
        /// The gate passed.
        Deliver = "delivered",
        /// The gate saw that there was nothing to change.
        SettleEmpty = "settled with nothing to do",
        /// It failed for good.
        Die = "given up",
        /// A person cancels it.
        Cancel = "cancelled",
    }
}

impl Machine for JobState {
    type Command = JobCommand;
    const NAME: &'static str = "job";
    const STATES: &'static [Self] = &[
        Self::Blocked,
        Self::Ready,
        Self::Leased,
        Self::Running,
        Self::Checking,
        Self::Parked,
        Self::Waiting,
        Self::Paused,
        Self::Delivered,
        Self::NothingToDo,
        Self::Dead,
        Self::Cancelled,
    ];
    const COMMANDS: &'static [JobCommand] = JobCommand::ALL;

    fn next(self, command: JobCommand) -> Option<Self> {
        use JobCommand as C;
        use JobState as S;
        if self.is_terminal() {
            return None;
        }
        Some(match (self, command) {
            (S::Blocked, C::Unblock) => S::Ready,
            (S::Ready, C::Claim) => S::Leased,
            (S::Leased, C::Start) | (S::Checking, C::Revise) => S::Running,
            (S::Running, C::Check) => S::Checking,
            (S::Leased | S::Running | S::Checking, C::Retry) => S::Ready,
            (S::Leased | S::Running | S::Checking, C::Park) => S::Parked,
            (S::Running | S::Checking, C::Ask) => S::Waiting,
            (S::Parked, C::Wake) | (S::Waiting, C::Answer) => S::Ready,
            (S::Paused, C::ResumeReady) => S::Ready,
            (S::Paused, C::ResumeBlocked) => S::Blocked,
            (state, C::Pause) if state != S::Paused => S::Paused,
            (S::Checking, C::Deliver) => S::Delivered,
            (S::Checking, C::SettleEmpty) => S::NothingToDo,
            (S::Blocked | S::Leased | S::Running | S::Checking, C::Die) => S::Dead,
            (_, C::Cancel) => S::Cancelled,
            _ => return None,
        })
    }

    fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Delivered | Self::NothingToDo | Self::Dead | Self::Cancelled
        )
    }
}

impl JobState {
    /// Whether a worker holds it.
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Leased | Self::Running | Self::Checking)
    }
}

states! {
    /// Where an attempt stands.
    AttemptState {
        /// Its workspace and sandbox are being made.
        Preparing = "preparing",
        /// Its agent is at work.
        Running = "running",
        /// It waits for a quota, or for another process where its own has ended; workspace and
        /// agent session are kept.
        Suspended = "suspended",
        /// The gate looks at what its agent made.
        Checking = "checking",
        /// The gate passed.
        Passed = "passed",
        /// The gate did not pass, and no round is left.
        Rejected = "rejected",
        /// It ended with an error.
        Failed = "failed",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// The process that did it ended, and it could not be gone on with.
        Lost = "lost",
    }
}

commands! {
    /// What may be asked of an attempt.
    AttemptCommand {
        /// The agent starts, or goes on with findings.
        Run = "run",
        /// Wait for a quota, or for another process.
        Suspend = "suspended",
        /// The agent has ended its turn; the gate begins.
        Check = "checked",
        /// The gate passed.
        Pass = "passed",
        /// The gate did not pass, and no round is left.
        Reject = "rejected",
        /// It ended with an error.
        Fail = "failed",
        /// It is cancelled.
        Cancel = "cancelled",
        /// The process that did it ended, and it cannot be gone on with.
        Lose = "lost",
    }
}

impl Machine for AttemptState {
    type Command = AttemptCommand;
    const NAME: &'static str = "attempt";
    const STATES: &'static [Self] = &[
        Self::Preparing,
        Self::Running,
        Self::Suspended,
        Self::Checking,
        Self::Passed,
        Self::Rejected,
        Self::Failed,
        Self::Cancelled,
        Self::Lost,
    ];
    const COMMANDS: &'static [AttemptCommand] = AttemptCommand::ALL;

    fn next(self, command: AttemptCommand) -> Option<Self> {
        use AttemptCommand as C;
        use AttemptState as S;
        if self.is_terminal() {
            return None;
        }
        Some(match (self, command) {
            (S::Preparing | S::Suspended | S::Checking, C::Run) => S::Running,
            (S::Running | S::Checking, C::Suspend) => S::Suspended,
            (S::Running | S::Suspended, C::Check) => S::Checking,
            (S::Checking, C::Pass) => S::Passed,
            (S::Checking, C::Reject) => S::Rejected,
            (_, C::Fail) => S::Failed,
            (_, C::Cancel) => S::Cancelled,
            (_, C::Lose) => S::Lost,
            _ => return None,
        })
    }

    fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Passed | Self::Rejected | Self::Failed | Self::Cancelled | Self::Lost
        )
    }
}

states! {
    /// Where a change stands.
    ChangeState {
        /// It waits for its turn to be merged.
        Queued = "queued",
        /// An integrator merges it.
        Merging = "merging",
        /// The merged tree is checked.
        Checking = "checking",
        /// It is on the integration branch.
        Integrated = "integrated",
        /// It was pushed to where the world sees it.
        Promoted = "promoted",
        /// It touches the same lines as integrated work; its candidate is kept.
        Conflicted = "conflicted",
        /// The merged tree did not pass, or it was withdrawn; its candidate is kept.
        Rejected = "rejected",
        /// It was taken back from the integration branch.
        Reverted = "reverted",
    }
}

commands! {
    /// What may be asked of a change.
    ChangeCommand {
        /// An integrator claims it.
        Merge = "merged",
        /// The merge worked; the merged tree is checked.
        Check = "checked",
        /// The integrator was lost, or the tip moved.
        Requeue = "queued again",
        /// It is on the integration branch.
        Integrate = "integrated",
        /// It was pushed.
        Promote = "promoted",
        /// It does not merge.
        Conflict = "set aside as a conflict",
        /// The merged tree did not pass, or it is withdrawn.
        Reject = "rejected",
        /// It was taken back.
        Revert = "reverted",
    }
}

impl Machine for ChangeState {
    type Command = ChangeCommand;
    const NAME: &'static str = "change";
    const STATES: &'static [Self] = &[
        Self::Queued,
        Self::Merging,
        Self::Checking,
        Self::Integrated,
        Self::Promoted,
        Self::Conflicted,
        Self::Rejected,
        Self::Reverted,
    ];
    const COMMANDS: &'static [ChangeCommand] = ChangeCommand::ALL;

    fn next(self, command: ChangeCommand) -> Option<Self> {
        use ChangeCommand as C;
        use ChangeState as S;
        Some(match (self, command) {
            (S::Queued, C::Merge) => S::Merging,
            (S::Merging, C::Check) => S::Checking,
            (S::Merging | S::Checking, C::Requeue) => S::Queued,
            (S::Merging | S::Checking, C::Integrate) => S::Integrated,
            (S::Merging | S::Checking, C::Conflict) => S::Conflicted,
            (S::Queued | S::Merging | S::Checking, C::Reject) => S::Rejected,
            (S::Integrated, C::Promote) => S::Promoted,
            (S::Integrated, C::Revert) => S::Reverted,
            _ => return None,
        })
    }

    fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Promoted | Self::Conflicted | Self::Rejected | Self::Reverted
        )
    }
}

impl ChangeState {
    /// Whether nothing more happens to it without a person: it is integrated or at an end.
    #[must_use]
    pub fn is_settled(self) -> bool {
        self.is_terminal() || self == Self::Integrated
    }

    /// Whether its content is on the integration branch.
    #[must_use]
    pub const fn is_integrated(self) -> bool {
        matches!(self, Self::Integrated | Self::Promoted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn reachable<M: Machine + std::hash::Hash>(from: M) -> HashSet<M> {
        let mut seen = HashSet::from([from]);
        let mut open = vec![from];
        while let Some(state) = open.pop() {
            for &command in M::COMMANDS {
                if let Some(next) = state.next(command)
                    && seen.insert(next)
                {
                    open.push(next);
                }
            }
        }
        seen
    }

    fn holds<M: Machine + std::hash::Hash>(start: M) {
        let from_start = reachable(start);
        for &state in M::STATES {
            assert!(
                from_start.contains(&state),
                "{} {state} cannot be reached",
                M::NAME
            );
            if state.is_terminal() {
                assert_eq!(
                    reachable(state).len(),
                    1,
                    "{} {state} is not terminal",
                    M::NAME
                );
            } else {
                assert!(
                    reachable(state).iter().any(|state| state.is_terminal()),
                    "{} {state} has no way to an end",
                    M::NAME
                );
            }
        }
        for &command in M::COMMANDS {
            assert!(
                M::STATES.iter().any(|state| state.next(command).is_some()),
                "{} never allows {command:?}",
                M::NAME
            );
        }
    }

    #[test]
    fn every_state_is_reachable_and_every_other_than_a_terminal_one_has_a_way_to_an_end() {
        holds(RequestState::Queued);
        holds(JobState::Blocked);
        holds(AttemptState::Preparing);
        holds(ChangeState::Queued);
    }

    #[test]
    fn only_a_job_whose_gate_ran_can_be_delivered() {
        for &state in JobState::STATES {
            let delivered = state.next(JobCommand::Deliver) == Some(JobState::Delivered);
            assert_eq!(delivered, state == JobState::Checking, "{state}");
        }
    }

    #[test]
    fn everything_that_has_not_ended_can_be_cancelled() {
        for &state in RequestState::STATES {
            assert_eq!(
                state.next(RequestCommand::Cancel).is_some(),
                !state.is_terminal()
            );
        }
        for &state in JobState::STATES {
            assert_eq!(
                state.next(JobCommand::Cancel).is_some(),
                !state.is_terminal()
            );
        }
        for &state in AttemptState::STATES {
            assert_eq!(
                state.next(AttemptCommand::Cancel).is_some(),
                !state.is_terminal()
            );
        }
    }

    #[test]
    fn an_illegal_command_says_what_was_asked_of_what() {
        let error = RequestState::Paused.apply(RequestCommand::Pause);
        assert_eq!(
            error.unwrap_err().to_string(),
            "the request is paused already"
        );
        let error = JobState::Ready.apply(JobCommand::Deliver).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the job is ready and cannot be delivered"
        );
    }

    fn walk<M: Machine>(start: M, choices: &[usize]) -> Result<(), TestCaseError> {
        let mut state = start;
        for &choice in choices {
            let Some(&command) = M::COMMANDS.get(choice % M::COMMANDS.len()) else {
                continue;
            };
            match state.apply(command) {
                Ok(next) => {
                    prop_assert!(
                        !state.is_terminal(),
                        "{state} is terminal and became {next}"
                    );
                    prop_assert!(M::STATES.contains(&next));
                    state = next;
                }
                Err(refused) => prop_assert_eq!(refused.machine, M::NAME),
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_sequence_of_commands_reaches_an_illegal_state(
            choices in proptest::collection::vec(0..64usize, 0..80),
        ) {
            walk(RequestState::Queued, &choices)?;
            walk(JobState::Blocked, &choices)?;
            walk(AttemptState::Preparing, &choices)?;
            walk(ChangeState::Queued, &choices)?;
        }

        #[test]
        fn a_state_reads_back_from_its_word(index in 0..64usize) {
            let state = JobState::STATES[index % JobState::STATES.len()];
            prop_assert_eq!(state.as_str().parse::<JobState>().unwrap(), state);
        }
    }
}
