//! Events with fixed ids and times, for the tests of what is shown.

use super::story::Story;
use domain::{
    Amount, AttemptId, AttemptState, ChangeId, ChangeState, EventId, Failure, JobId, JobState,
    Micros, Reason, RepositoryId, RequestId, RequestState, SessionId, Timestamp,
    entity::{Ask, Attempt, Change, Evidence, Job, Planning, Request, Verdict},
    event::{Agent, Body, Envelope, PlannedJob},
    plan,
    policy::{Check, Policy},
    scope::Scope,
};
use std::time::Duration;

pub(crate) const REQUEST: RequestId = RequestId::from_bits(0x1234_5678_9abc);
const BASE: &str = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";
const TIP: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";

pub(crate) fn job(number: u64) -> JobId {
    JobId::from_bits(number)
}

pub(crate) fn attempt(number: u64) -> AttemptId {
    AttemptId::from_bits(number)
}

pub(crate) fn change(number: u64) -> ChangeId {
    ChangeId::from_bits(number)
}

/// Events, one after the other.
#[derive(Default)]
pub(crate) struct Events(pub(crate) Vec<Envelope>);

impl Events {
    fn at(&mut self, millis: i64, body: Body) -> &mut Self {
        let sequence = self.0.len() as u64 + 1;
        self.0.push(Envelope::new(
            EventId::from_bits(sequence),
            SessionId::from_bits(1),
            sequence,
            Timestamp(1_700_000_000_000_000 + millis * 1_000),
            Some(REQUEST),
            body,
        ));
        self
    }

    fn job(&mut self, millis: i64, number: u64, from: JobState, to: JobState) -> &mut Self {
        self.at(
            millis,
            Body::JobChanged {
                job: job(number),
                from,
                to,
                failure: None,
                until: None,
            },
        )
    }

    fn agent(&mut self, millis: i64, number: u64, event: Agent) -> &mut Self {
        self.at(
            millis,
            Body::Agent {
                attempt: attempt(number),
                event,
            },
        )
    }

    fn call(&mut self, millis: i64, number: u64, tokens: u64, micros: u64) -> &mut Self {
        self.at(
            millis,
            Body::ModelCalled {
                attempt: Some(attempt(number)),
                model: "anthropic/claude-opus-5-5".into(),
                call: 1,
                spent: Amount {
                    tokens,
                    money: Micros(micros),
                    ..Amount::ZERO
                },
                metered: true,
                priced: true,
                status: Some(200),
                duration_ms: 1_200,
            },
        )
    }

    fn check(
        &mut self,
        millis: i64,
        number: u64,
        round: u32,
        merged: bool,
        exit: i32,
    ) -> &mut Self {
        self.at(
            millis,
            Body::Checked {
                attempt: attempt(number),
                change: merged.then(|| change(number)),
                round,
                evidence: evidence(exit),
            },
        )
    }

    fn change(
        &mut self,
        millis: i64,
        number: u64,
        from: ChangeState,
        to: ChangeState,
    ) -> &mut Self {
        self.at(
            millis,
            Body::ChangeChanged {
                change: change(number),
                from,
                to,
                integrated: (to == ChangeState::Integrated).then(|| TIP.into()),
                conflicts: if to == ChangeState::Conflicted {
                    vec!["src/report.py".into()]
                } else {
                    Vec::new()
                },
                failure: None,
            },
        )
    }

    fn start(&mut self, millis: i64, number: u64) -> &mut Self {
        self.job(millis, number, JobState::Ready, JobState::Leased)
            .at(
                millis + 2,
                Body::AttemptStarted {
                    attempt: attempt(number),
                    job: job(number),
                    number: 1,
                    base: BASE.into(),
                    agent: "builtin".into(),
                    model: Some("anthropic/claude-opus-5-5".into()),
                    sandbox: "namespace".into(),
                },
            )
            .job(millis + 5, number, JobState::Leased, JobState::Running)
            .agent(
                millis + 6,
                number,
                Agent::Turn {
                    round: 1,
                    feedback: None,
                },
            )
    }

    fn deliver(&mut self, millis: i64, number: u64, round: u32) -> &mut Self {
        self.job(millis, number, JobState::Running, JobState::Checking)
            .check(millis + 200, number, round, false, 0)
            .at(
                millis + 201,
                Body::AttemptChanged {
                    attempt: attempt(number),
                    from: AttemptState::Checking,
                    to: AttemptState::Passed,
                    failure: None,
                    tree: None,
                },
            )
            .at(
                millis + 201,
                Body::ChangeMade {
                    change: change(number),
                    attempt: attempt(number),
                    commit: TIP.into(),
                },
            )
            .job(
                millis + 201,
                number,
                JobState::Checking,
                JobState::Delivered,
            )
    }
}

pub(crate) fn evidence(exit: i32) -> Evidence {
    Evidence {
        check: "test".into(),
        verdict: if exit == 0 {
            Verdict::Passed
        } else {
            Verdict::Failed
        },
        command: Some("python3 -m unittest".into()),
        exit_code: Some(exit),
        findings: "FAIL: test_left_over\nAssertionError: ValueError not raised\n\nRan 3 tests"
            .into(),
        output: None,
        duration_ms: 214,
        tree: TIP.into(),
    }
}

fn planned(number: u64, name: &str, title: &str, after: &[u64]) -> PlannedJob {
    PlannedJob {
        job: job(number),
        name: name.into(),
        title: title.into(),
        after: after.iter().map(|&n| job(n)).collect(),
    }
}

fn begun() -> Events {
    let mut events = Events::default();
    events
        .at(
            0,
            Body::RequestSubmitted {
                request: REQUEST,
                title: "Make the report right".into(),
                base: BASE.into(),
                budget: Amount {
                    tokens: 400_000,
                    money: Micros(4_000_000),
                    ..Amount::unbounded()
                },
            },
        )
        .at(
            10,
            Body::Planned {
                request: REQUEST,
                jobs: vec![
                    planned(1, "durations", "Read durations of two parts", &[]),
                    planned(2, "money", "Show cents with two digits", &[]),
                    planned(3, "summary", "Add up the week", &[1, 2]),
                ],
                note: None,
            },
        )
        .at(
            11,
            Body::RequestChanged {
                request: REQUEST,
                from: RequestState::Planning,
                to: RequestState::Working,
                failure: None,
            },
        );
    events
}

fn half_way() -> Events {
    let mut events = begun();
    events
        .start(20, 1)
        .start(21, 2)
        .call(900, 1, 4_100, 12_300)
        .call(950, 2, 3_900, 11_000)
        .agent(
            960,
            2,
            Agent::ToolCall {
                id: "1".into(),
                tool: "shell".into(),
                input: r#"{"command":"python3 -m unittest tests.test_money\n"}"#.into(),
            },
        )
        .job(1_000, 1, JobState::Running, JobState::Checking)
        .check(1_200, 1, 1, false, 1)
        .job(1_201, 1, JobState::Checking, JobState::Running)
        .agent(
            1_202,
            1,
            Agent::Turn {
                round: 2,
                feedback: None,
            },
        )
        .call(2_000, 1, 5_000, 14_000)
        .deliver(2_100, 1, 2)
        .change(2_400, 1, ChangeState::Queued, ChangeState::Merging)
        .change(2_700, 1, ChangeState::Checking, ChangeState::Integrated);
    events
}

/// A request that is under way, and the time it is then.
pub(crate) fn running() -> (Story, Timestamp) {
    let events = half_way();
    let now = Timestamp(1_700_000_000_000_000 + 3_500_000);
    (Story::told(REQUEST, &events.0), now)
}

/// A request that is done.
pub(crate) fn done() -> Story {
    Story::told(REQUEST, &done_events().0)
}

/// The events of a request that is done.
pub(crate) fn done_events() -> Events {
    let mut events = half_way();
    events
        .deliver(4_000, 2, 1)
        .check(4_300, 2, 1, true, 0)
        .change(4_400, 2, ChangeState::Checking, ChangeState::Integrated)
        .job(4_500, 3, JobState::Blocked, JobState::Ready)
        .start(4_510, 3)
        .call(5_000, 3, 2_000, 9_000)
        .deliver(5_100, 3, 1)
        .change(5_400, 3, ChangeState::Checking, ChangeState::Integrated);
    finish(&mut events, RequestState::Done);
    events
}

/// A request of which two jobs did not land: one conflicts, one waits for it.
pub(crate) fn partial() -> Story {
    let mut events = half_way();
    events
        .deliver(4_000, 2, 1)
        .change(4_400, 2, ChangeState::Merging, ChangeState::Conflicted);
    events.at(
        4_500,
        Body::JobChanged {
            job: job(3),
            from: JobState::Blocked,
            to: JobState::Dead,
            failure: Some(Failure::new(Reason::DependencyFailed, "job `money`")),
            until: None,
        },
    );
    finish(&mut events, RequestState::Partial);
    Story::told(REQUEST, &events.0)
}

fn finish(events: &mut Events, to: RequestState) {
    events
        .at(
            5_500,
            Body::Published {
                request: REQUEST,
                branch: "skep/integration".into(),
                commit: TIP.into(),
                refused: None,
            },
        )
        .at(
            6_200,
            Body::RequestChanged {
                request: REQUEST,
                from: RequestState::Integrating,
                to,
                failure: None,
            },
        );
}

const START: i64 = 1_700_000_000_000_000;

/// A request as the ledger knows it.
pub(crate) fn request(state: RequestState) -> Request {
    Request {
        id: REQUEST,
        session: SessionId::from_bits(1),
        ask: Ask {
            repository: RepositoryId::from_bits(9),
            repository_path: "/home/ann/worklog".into(),
            base: BASE.into(),
            dirty: false,
            prompt: "Make the report right\n\nAll of it.".into(),
            planning: Planning::Auto,
            plan: None,
            agent: "builtin".into(),
            model: Some("anthropic/claude-opus-5-5".into()),
            budget: Amount {
                tokens: 400_000,
                money: Micros(4_000_000),
                ..Amount::unbounded()
            },
            policy: Policy {
                checks: vec![Check {
                    name: "test".into(),
                    command: "python3 -m unittest".into(),
                    when: Vec::new(),
                    timeout: Duration::from_secs(60),
                }],
                ..Policy::default()
            },
            parallel: 3,
            placement: domain::entity::Placement::default(),
            retry_of: None,
            included: Vec::new(),
            sources: Default::default(),
            sandbox: None,
        },
        state,
        failure: (state == RequestState::Failed)
            .then(|| Failure::new(Reason::ChecksFailed, "job `money`")),
        created: Timestamp(START),
        ended: Some(Timestamp(START + 6_200_000)),
    }
}

/// A job as the ledger knows it.
pub(crate) fn job_entity(number: u64) -> Job {
    Job {
        id: job(number),
        request: REQUEST,
        spec: plan::Job {
            name: "durations".into(),
            title: "Read durations of two parts".into(),
            prompt: "Read durations of two parts, such as 1h30m.".into(),
            scope: Scope {
                write: vec!["src/**".into()],
                forbid: Vec::new(),
                max_files: None,
            },
            criteria: vec!["`1h30m` is 90".into()],
            ..plan::Job::default()
        },
        after: Vec::new(),
        state: JobState::Delivered,
        attempts: 1,
        failure: None,
        created: Timestamp(START),
        ended: Some(Timestamp(START + 2_700_000)),
    }
}

/// An attempt as the ledger knows it.
pub(crate) fn attempt_entity(number: u64) -> Attempt {
    Attempt {
        id: attempt(number),
        job: job(number),
        request: REQUEST,
        number: 1,
        base: BASE.into(),
        agent: "builtin".into(),
        model: Some("anthropic/claude-opus-5-5".into()),
        sandbox: "namespace".into(),
        state: AttemptState::Passed,
        failure: None,
        summary: "It adds up all parts.\nThe tests pass.".into(),
        tree: Some(TIP.into()),
        spent: Amount {
            tokens: 9_100,
            money: Micros(26_300),
            ..Amount::ZERO
        },
        created: Timestamp(START),
        ended: Some(Timestamp(START + 2_300_000)),
    }
}

/// A change as the ledger knows it.
pub(crate) fn change_entity(number: u64, state: ChangeState) -> Change {
    Change {
        id: change(number),
        attempt: attempt(number),
        job: job(number),
        request: REQUEST,
        repository: RepositoryId::from_bits(9),
        base: BASE.into(),
        commit: TIP.into(),
        state,
        integrated: (state == ChangeState::Integrated).then(|| TIP.into()),
        conflicts: if state == ChangeState::Conflicted {
            vec!["src/report.py".into()]
        } else {
            Vec::new()
        },
        failure: None,
        checked: true,
        sealed: true,
        created: Timestamp(START),
        ended: Some(Timestamp(START + 2_700_000)),
    }
}
