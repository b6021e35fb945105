//! What is drawn: a request, and a sequence of verbs on it and what it becomes.

use proptest::{bool::ANY, prelude::*};
use std::ops::Range;

/// One case.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// How far it is when the sequence begins.
    pub(super) opening: Opening,
    /// The jobs of its plan, each after these of those before it.
    pub(super) after: Vec<Vec<usize>>,
    pub(super) sequence: Vec<Step>,
}

/// How far a request is at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It has its jobs.
    Planned,
    /// Nobody has planned it.
    Queued,
    /// It is not to begin yet.
    Later,
}

/// A verb, or time that passes. A number chooses among what the verb can be told of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Whatever comes next where nothing goes wrong.
    Go(usize),
    ClaimRequest,
    Plan,
    FailRequest,
    PostponeRequest,
    PauseRequest,
    ResumeRequest,
    CancelRequest,
    PauseJob(usize),
    ResumeJob(usize),
    CancelJob(usize),
    Claim,
    Start(usize),
    Run(usize),
    Check(usize),
    Resume(usize),
    GiveUp(usize),
    Record(usize),
    Settle(usize, End),
    Merge,
    CheckChange,
    Land,
    SettleChange(ChangeEnd),
    /// Nobody says that they live.
    Lose,
    /// Holders say that they live until all that waits for a time has waited.
    Sleep,
    /// Somebody whose lease has ended says that they live.
    Late,
}

/// How a holder settles its attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Pass,
    Empty,
    Reject,
    /// Whether the failure is one that may pass.
    Fail {
        outside: bool,
    },
    /// There is no quota for a while.
    Park,
    Lost,
    Cancel,
}

/// How an integrator settles its change.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChangeEnd {
    Integrate,
    Conflict,
    Reject,
    Requeue,
    Postpone { may_have_landed: bool },
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Pass),
        3 => Just(End::Empty),
        1 => Just(End::Reject),
        4 => ANY.prop_map(|outside| End::Fail { outside }),
        4 => Just(End::Park),
        3 => Just(End::Lost),
        1 => Just(End::Cancel),
    ]
}

fn change_ends() -> impl Strategy<Value = ChangeEnd> {
    prop_oneof![
        2 => Just(ChangeEnd::Integrate),
        2 => Just(ChangeEnd::Conflict),
        2 => Just(ChangeEnd::Reject),
        2 => Just(ChangeEnd::Requeue),
        3 => ANY.prop_map(|may_have_landed| ChangeEnd::Postpone { may_have_landed }),
    ]
}

fn of_requests() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    prop_oneof![
        4 => Just(Step::ClaimRequest),
        4 => Just(Step::Plan),
        3 => Just(Step::FailRequest),
        4 => Just(Step::PostponeRequest),
        5 => Just(Step::PauseRequest),
        12 => Just(Step::ResumeRequest),
        2 => Just(Step::CancelRequest),
        6 => any().prop_map(Step::PauseJob),
        12 => any().prop_map(Step::ResumeJob),
        1 => any().prop_map(Step::CancelJob),
    ]
}

fn of_holders() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    prop_oneof![
        4 => Just(Step::Claim),
        2 => any().prop_map(Step::Start),
        4 => any().prop_map(Step::Run),
        3 => any().prop_map(Step::Check),
        2 => any().prop_map(Step::Resume),
        2 => any().prop_map(Step::GiveUp),
        3 => any().prop_map(Step::Record),
        6 => (any(), ends()).prop_map(|(at, end)| Step::Settle(at, end)),
        4 => Just(Step::Merge),
        3 => Just(Step::CheckChange),
        3 => Just(Step::Land),
        9 => change_ends().prop_map(Step::SettleChange),
        2 => Just(Step::Lose),
        5 => Just(Step::Sleep),
        1 => Just(Step::Late),
    ]
}

/// Up to six jobs, each after some of those before it.
fn dags() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let jobs = prop_oneof![2 => 1..4usize, 1 => 4..7usize];
    jobs.prop_flat_map(|jobs| {
        (0..jobs)
            .map(|job| {
                proptest::collection::btree_set(0..job.max(1), 0..=job.min(2))
                    .prop_map(move |after| after.into_iter().filter(|&at| at < job).collect())
            })
            .collect::<Vec<_>>()
    })
}

/// A request and a sequence of so many steps.
pub(super) fn cases(length: Range<usize>) -> impl Strategy<Value = Case> {
    let opening = prop_oneof![
        5 => Just(Opening::Planned),
        3 => Just(Opening::Queued),
        2 => Just(Opening::Later),
    ];
    let step = prop_oneof![
        2 => of_requests(),
        5 => of_holders(),
        6 => any::<usize>().prop_map(Step::Go),
    ];
    let sequence = proptest::collection::vec(step, length);
    (opening, dags(), sequence).prop_map(|(opening, after, sequence)| Case {
        opening,
        after,
        sequence,
    })
}
