//! A grant that spends from the ledger and is recorded there.

use std::{path::Path, sync::Arc};

use dialects::Dialect;
use domain::{
    Amount, Reason,
    entity::{Ask, Attempt, Planning},
    event::Body,
    plan::Plan,
    policy::Policy,
};
use ledger::{Lease, Ledger, NewAttempt, Options, Spender};
use skep_gateway::{
    Call, CassetteError, Diverged, Error, Gateway, Grant, GrantSpec, LedgerFunds, Mode, cassette,
};
use tokio_util::sync::CancellationToken;

use crate::{
    fixture::{MESSAGE, gateway, messages_body, messages_stream},
    upstream::{Step, Upstream, chunks, json, stream, stream_head},
};

/// Largest part of a recording in these tests.
const MAX: u64 = 1 << 20;

struct Work {
    ledger: Ledger,
    lease: Lease,
    attempt: Attempt,
    _owner: ledger::Owner,
}

/// A ledger with one request, whose one job is under way.
async fn work(directory: &Path, tokens: u64) -> Work {
    let ledger = Ledger::open(Options::new(directory)).await.unwrap();
    let session = ledger.session("test").await.unwrap();
    let repository = ledger.repository("/repository").await.unwrap();
    let ask = Ask {
        repository,
        repository_path: "/repository".into(),
        base: "0".repeat(40),
        dirty: false,
        prompt: "mend it".into(),
        planning: Planning::None,
        plan: None,
        agent: "builtin".into(),
        model: None,
        budget: Amount {
            tokens,
            ..Amount::unbounded()
        },
        policy: Policy::default(),
        parallel: 1,
        placement: domain::entity::Placement::default(),
        retry_of: None,
        included: Default::default(),
        sources: Default::default(),
        sandbox: None,
    };
    let request = ledger.submit(session, ask, None).await.unwrap();
    let owner = ledger.owner().await.unwrap();
    let claimed = ledger.claim_request(&owner, None).await.unwrap().unwrap();
    let plan = Plan::single("mend it");
    ledger
        .plan_request(&claimed.lease, plan, None)
        .await
        .unwrap();
    let claimed = ledger
        .claim_job(&owner, Some(request))
        .await
        .unwrap()
        .unwrap();
    let new = NewAttempt {
        base: "0".repeat(40),
        agent: "builtin".into(),
        model: None,
        sandbox: "namespace".into(),
    };
    let attempt = ledger.start_attempt(&claimed.lease, new).await.unwrap();
    Work {
        ledger,
        lease: claimed.lease,
        attempt,
        _owner: owner,
    }
}

impl Work {
    async fn grant(&self, gateway: &Gateway, mode: Mode) -> (Grant, LedgerFunds) {
        let spender = Spender::Attempt(&self.lease, self.attempt.id);
        let funds = LedgerFunds::open(&self.ledger, spender).await.unwrap();
        let route = gateway.providers().route(None, &Dialect::ALL).unwrap();
        let spec = GrantSpec {
            mode,
            ..GrantSpec::new(Arc::new(funds.clone()), route, CancellationToken::new())
        };
        (gateway.grant(spec), funds)
    }

    async fn calls(&self) -> Vec<Body> {
        let events = self
            .ledger
            .request_events(self.attempt.request, 0, 1_000)
            .await;
        let bodies = events.unwrap().into_iter().map(|event| event.body);
        bodies
            .filter(|body| body.kind() == "model_called")
            .collect()
    }
}

async fn play(grant: &Grant, times: usize) -> Vec<Result<bytes::Bytes, Reason>> {
    let mut answers = Vec::new();
    for _ in 0..times {
        let call = Call::new(Dialect::Messages, messages_body());
        answers.push(match grant.call(call).await {
            Ok(response) => response.body.collect().await.map_err(|e| e.reason()),
            Err(error) => Err(error.reason()),
        });
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_paid_told_and_recorded_and_the_recording_plays_without_spending() {
    let directory = tempfile::tempdir().unwrap();
    let work = work(directory.path(), 10_000).await;
    let mut cut = vec![stream_head()];
    cut.extend(chunks(&messages_stream()[..200], 50));
    cut.push(Step::Close);
    let scripts = vec![stream(&messages_stream(), 20), cut, json(200, MESSAGE)];
    let upstream = Upstream::start(scripts).await;
    let gateway = gateway(&upstream);

    let (grant, funds) = work.grant(&gateway, Mode::Live).await;
    let mut live = play(&grant, 2).await;
    grant.close().await;
    funds.close().await.unwrap();
    // A second round of the same attempt has a grant of its own.
    let (grant, funds) = work.grant(&gateway, Mode::Live).await;
    live.extend(play(&grant, 1).await);
    grant.close().await;
    funds.close().await.unwrap();
    assert_eq!(live[0].as_deref(), Ok(messages_stream().as_slice()));
    assert_eq!(live[1], Err(Reason::ProviderFailed));

    let calls = work.calls().await;
    let mut sum = Amount::ZERO;
    for (body, expected) in calls.iter().zip([Some(25), None, Some(5)]) {
        let Body::ModelCalled {
            attempt,
            spent,
            metered,
            priced,
            status,
            ..
        } = body
        else {
            panic!("{body:?}")
        };
        assert_eq!(*attempt, Some(work.attempt.id));
        assert_eq!(*metered, expected.is_some());
        assert!(*priced && *status == Some(200));
        assert!(expected.is_none_or(|tokens| tokens == spent.tokens));
        sum = sum.plus(*spent);
    }
    assert_eq!(calls.len(), 3);
    assert_eq!(work.ledger.spent(work.attempt.request).await.unwrap(), sum);

    for _ in 0..3 {
        let tape = cassette(&work.ledger, work.attempt.id, MAX).await.unwrap();
        assert_eq!(tape.len(), 3);
        let (grant, _) = work.grant(&gateway, Mode::Replay(tape.clone())).await;
        assert_eq!(play(&grant, 3).await, live);
        assert_eq!(tape.finish(), Ok(()));
    }
    assert_eq!(work.ledger.spent(work.attempt.request).await.unwrap(), sum);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_the_same_time_are_numbered_without_a_gap_also_where_some_are_refused() {
    const CALLS: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let work = work(directory.path(), 160).await;
    let scripts = (0..CALLS).map(|_| json(200, MESSAGE)).collect();
    let upstream = Upstream::start(scripts).await;
    let gateway = gateway(&upstream);
    let (grant, funds) = work.grant(&gateway, Mode::Live).await;
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let grant = grant.clone();
            tokio::spawn(async move { play(&grant, 1).await.remove(0) })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    grant.close().await;
    funds.close().await.unwrap();
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((1..CALLS).contains(&answered), "{answers:?}");
    let mut numbers: Vec<u64> = work
        .calls()
        .await
        .iter()
        .filter_map(|body| match body {
            Body::ModelCalled { call, .. } => Some(*call),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=answered as u64).collect::<Vec<_>>());
    let tape = cassette(&work.ledger, work.attempt.id, MAX).await.unwrap();
    assert_eq!(tape.len(), answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_without_budget_calls_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let work = work(directory.path(), 60).await;
    let upstream = Upstream::answering(json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let (grant, funds) = work.grant(&gateway, Mode::Live).await;
    let call = || Call::new(Dialect::Messages, messages_body());
    let error = grant.call(call()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::BudgetExhausted, "{error:?}");
    funds.close().await.unwrap();
    let error = grant.call(call()).await.unwrap_err();
    assert!(matches!(error, Error::Funds(_)), "{error:?}");
    assert_eq!(upstream.connections(), 0);
    assert!(work.calls().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_was_edited_on_disk_is_refused_naming_call_and_part() {
    let directory = tempfile::tempdir().unwrap();
    let work = work(directory.path(), 10_000).await;
    let upstream = Upstream::answering(json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let (grant, _) = work.grant(&gateway, Mode::Live).await;
    play(&grant, 2).await;
    grant.close().await;
    let exchanges = work.ledger.exchanges(work.attempt.id).await.unwrap();

    let name = exchanges[0].response.to_string();
    let file = directory.path().join("blobs").join(&name[..2]).join(&name);
    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&file, content).unwrap();
    match cassette(&work.ledger, work.attempt.id, MAX)
        .await
        .unwrap_err()
    {
        CassetteError::Diverged(Diverged { call, field, .. }) => {
            assert_eq!((call, &*field), (1, "response"));
        }
        other => panic!("{other:?}"),
    }
}
