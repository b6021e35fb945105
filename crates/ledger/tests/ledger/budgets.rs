//! Budgets: what is spent was reserved before, is counted once, and adds up.

use crate::support::{BUDGET, Place, passed, place, plan, tokens};
use domain::{
    Amount, Failure, GrantId, Micros, Reason,
    amount::Measure,
    budget::{Account, Refused},
    event::Body,
};
use ledger::{ChangeOutcome, ClaimedJob, Error, Exchange, Settlement, Spender};
use proptest::prelude::*;
use std::time::Duration;

fn called(attempt: Option<domain::AttemptId>, call: u64, spent: Amount) -> Body {
    Body::ModelCalled {
        attempt,
        model: "test/model".into(),
        call,
        spent,
        metered: true,
        priced: true,
        status: Some(200),
        duration_ms: 5,
    }
}

async fn grant(place: &Place, claimed: &ClaimedJob) -> (GrantId, domain::AttemptId) {
    let attempts = place.ledger.attempts(claimed.job.id).await.unwrap();
    let attempt = attempts.last().unwrap().id;
    let grant = place
        .ledger
        .open_grant(Spender::Attempt(&claimed.lease, attempt))
        .await
        .unwrap();
    (grant, attempt)
}

#[tokio::test]
async fn jobs_share_what_the_planner_left_and_what_nobody_asks_for() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.submit().await;
    let claimed = ledger
        .claim_request(&place.owner, None)
        .await
        .unwrap()
        .unwrap();
    let grant = ledger
        .open_grant(Spender::Plan(&claimed.lease))
        .await
        .unwrap();
    ledger.reserve(grant, 1, tokens(150)).await.unwrap();
    ledger
        .settle(grant, called(None, 1, tokens(100)), None)
        .await
        .unwrap();
    let mut asked = plan(&["a", "b", "c"]);
    asked.jobs[0].tokens = Some(901);
    let refused = ledger
        .plan_request(&claimed.lease, asked.clone(), None)
        .await;
    assert!(
        matches!(
            refused,
            Err(Error::Refused(Refused::Exhausted(Measure::Tokens)))
        ),
        "{refused:?}"
    );
    asked.jobs[0].tokens = Some(500);
    let jobs = ledger
        .plan_request(&claimed.lease, asked, None)
        .await
        .unwrap();
    let mut totals = Vec::new();
    for job in jobs {
        totals.push(ledger.job_account(job).await.unwrap().total);
    }
    let share = Amount {
        tokens: 200,
        money: Micros(333),
        wall_ms: 333_333,
        iterations: 333,
    };
    assert_eq!(
        totals,
        [
            Amount {
                tokens: 500,
                ..share
            },
            share,
            share
        ]
    );
    let account = ledger.account(request).await.unwrap();
    assert_eq!(account.committed, tokens(100));
    assert_eq!(account.reserved.tokens, 900);
    assert_eq!(ledger.spent(request).await.unwrap(), tokens(100));
    place.holds().await;
}

#[tokio::test]
async fn a_call_is_settled_once_with_its_event_and_its_exchange() {
    let place = place().await;
    let ledger = &place.ledger;
    place.planned(&["a"]).await;
    let claimed = place.running().await;
    let (grant, attempt) = grant(&place, &claimed).await;
    ledger.reserve(grant, 1, tokens(100)).await.unwrap();
    let blob = ledger.put_blob("{}").await.unwrap();
    let exchange = Exchange {
        call: 1,
        endpoint: "/v1/messages".into(),
        request: blob,
        digest: "x".into(),
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
        response: blob,
    };
    let event = called(Some(attempt), 1, tokens(40));
    for _ in 0..2 {
        ledger
            .settle(grant, event.clone(), Some(exchange.clone()))
            .await
            .unwrap();
    }
    let otherwise = ledger.settle(grant, event.clone(), None).await;
    assert!(
        matches!(otherwise, Err(Error::CallTaken { call: 1, .. })),
        "{otherwise:?}"
    );
    let other = called(Some(attempt), 2, tokens(1));
    let never = ledger.settle(grant, other, None).await;
    assert!(
        matches!(never, Err(Error::Refused(Refused::NotReserved))),
        "{never:?}"
    );
    assert_eq!(ledger.exchanges(attempt).await.unwrap(), [exchange]);
    assert_eq!(
        ledger.attempt(attempt).await.unwrap().spent,
        tokens(40),
        "what was spent, not what was reserved"
    );
    let events = ledger
        .request_events(claimed.request.id, 0, 100)
        .await
        .unwrap();
    let recorded = events.iter().filter(|envelope| envelope.body == event);
    assert_eq!(recorded.count(), 1);
    // The rest may be reserved again; more may not.
    ledger.reserve(grant, 2, tokens(900)).await.unwrap();
    ledger.reserve(grant, 3, tokens(60)).await.unwrap();
    let refused = ledger.reserve(grant, 4, tokens(1)).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    ledger.unreserve(grant, 2).await.unwrap();
    ledger.close_grant(grant).await.unwrap();
    ledger.close_grant(grant).await.unwrap();
    assert_eq!(ledger.attempt(attempt).await.unwrap().spent, tokens(100));
    place.holds().await;
}

#[tokio::test]
async fn what_is_reserved_settled_or_given_back_again_is_counted_once() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a"]).await;
    let claimed = place.running().await;
    let (grant, attempt) = grant(&place, &claimed).await;
    let reserved = async || ledger.job_account(claimed.job.id).await.unwrap().reserved;
    for _ in 0..3 {
        ledger.reserve(grant, 1, tokens(100)).await.unwrap();
    }
    ledger.reserve(grant, 2, tokens(50)).await.unwrap();
    assert_eq!(reserved().await, tokens(150));
    let otherwise = ledger.reserve(grant, 1, tokens(99)).await;
    assert!(
        matches!(otherwise, Err(Error::CallTaken { call: 1, .. })),
        "{otherwise:?}"
    );
    for skipped in [0, 4] {
        let refused = ledger.reserve(grant, skipped, tokens(1)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }

    let event = called(Some(attempt), 1, tokens(40));
    ledger.settle(grant, event.clone(), None).await.unwrap();
    for _ in 0..2 {
        ledger.unreserve(grant, 2).await.unwrap();
    }
    assert_eq!(reserved().await, Amount::ZERO);
    // What comes late changes nothing, though the reservation is over.
    for call in [1, 2] {
        let late = ledger.reserve(grant, call, tokens(100)).await;
        assert!(matches!(late, Err(Error::Settled { .. })), "{late:?}");
    }
    let late = ledger.unreserve(grant, 1).await;
    assert!(
        matches!(late, Err(Error::Settled { call: 1, .. })),
        "{late:?}"
    );
    let never = ledger.unreserve(grant, 3).await;
    assert!(
        matches!(never, Err(Error::Refused(Refused::NotReserved))),
        "{never:?}"
    );
    let given_back = called(Some(attempt), 2, tokens(1));
    let late = ledger.settle(grant, given_back, None).await;
    assert!(
        matches!(late, Err(Error::Refused(Refused::NotReserved))),
        "{late:?}"
    );
    ledger.close_grant(grant).await.unwrap();
    ledger.settle(grant, event, None).await.unwrap();
    assert_eq!(ledger.spent(request).await.unwrap(), tokens(40));
    place.holds().await;
}

#[tokio::test]
async fn a_budget_is_topped_up_once_under_a_key_also_when_the_request_has_ended() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.submit().await;
    let total = async || ledger.account(request).await.unwrap().total.tokens;
    for _ in 0..2 {
        ledger.top_up(request, tokens(5), None).await.unwrap();
        let keyed = ledger.top_up(request, tokens(100), Some("more"));
        keyed.await.unwrap();
    }
    assert_eq!(total().await, BUDGET.tokens + 110);
    let other = ledger.top_up(request, tokens(101), Some("more")).await;
    assert!(matches!(other, Err(Error::KeyTaken { .. })), "{other:?}");
    let ask = place.ask().await;
    let other = ledger.submit(place.session, ask, Some("more")).await;
    assert!(matches!(other, Err(Error::KeyTaken { .. })), "{other:?}");
    ledger.cancel_request(request).await.unwrap();
    let again = ledger.top_up(request, tokens(100), Some("more")).await;
    again.unwrap();
    let new = ledger.top_up(request, tokens(100), Some("new")).await;
    assert!(matches!(new, Err(Error::Ended { .. })), "{new:?}");
    let none = ledger.top_up(request, tokens(1), Some("")).await;
    assert!(matches!(none, Err(Error::Invalid(_))), "{none:?}");
    assert_eq!(total().await, BUDGET.tokens + 110);
    place.holds().await;
}

#[tokio::test]
async fn what_a_provider_takes_beyond_the_budget_is_recorded_and_ends_the_spending() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a", "b"]).await;
    let claimed = place.checking().await;
    let (first, attempt) = grant(&place, &claimed).await;
    ledger.reserve(first, 1, tokens(500)).await.unwrap();
    let event = called(Some(attempt), 1, tokens(1_700));
    ledger.settle(first, event, None).await.unwrap();
    let refused = ledger.reserve(first, 2, Amount::ZERO).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refused::Closed))),
        "{refused:?}"
    );
    place.holds().await;
    ledger
        .settle_attempt(&claimed.lease, passed())
        .await
        .unwrap();
    // The request pays for it, and its other job spends nothing more either.
    let account = ledger.account(request).await.unwrap();
    assert_eq!(account.committed.tokens, 1_700);
    assert_eq!(account.overdraft.tokens, 1_200);
    assert!(account.closed);
    let other = place.running().await;
    let (second, _) = grant(&place, &other).await;
    let refused = ledger.reserve(second, 1, tokens(1)).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refused::Closed))),
        "{refused:?}"
    );
    place.holds().await;
}

#[tokio::test]
async fn a_job_that_ends_gives_back_what_it_did_not_spend() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a", "b"]).await;
    let claimed = place.checking().await;
    place.clock.advance(Duration::from_secs(7));
    ledger
        .settle_attempt(&claimed.lease, passed())
        .await
        .unwrap();
    let account = ledger.account(request).await.unwrap();
    assert_eq!(
        account.committed,
        Amount {
            wall_ms: 7_000,
            ..Amount::ZERO
        }
    );
    assert_eq!(account.free.tokens, 500);
    place.holds().await;
}

#[derive(Debug, Clone)]
enum Step {
    Claim,
    Grant(usize),
    Reserve(usize, Amount),
    Settle(usize, Amount),
    Unreserve(usize),
    Close(usize),
    End(usize, bool),
    Wait(u64),
    Lose,
    Integrate,
    Cancel,
}

fn amounts() -> impl Strategy<Value = Amount> {
    (0..120u64, 0..120u64, 0..3u64).prop_map(|(tokens, money, iterations)| Amount {
        tokens,
        money: Micros(money),
        wall_ms: 0,
        iterations,
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    prop_oneof![
        6 => Just(Step::Claim),
        6 => any().prop_map(Step::Grant),
        12 => (any(), amounts()).prop_map(|(at, amount)| Step::Reserve(at, amount)),
        12 => (any(), amounts()).prop_map(|(at, amount)| Step::Settle(at, amount)),
        3 => any().prop_map(Step::Unreserve),
        2 => any().prop_map(Step::Close),
        4 => (any(), proptest::bool::ANY).prop_map(|(at, passes)| Step::End(at, passes)),
        4 => (0..400_000u64).prop_map(Step::Wait),
        1 => Just(Step::Lose),
        3 => Just(Step::Integrate),
        1 => Just(Step::Cancel),
    ]
}

/// A grant as the test knows it.
struct Known {
    id: GrantId,
    attempt: domain::AttemptId,
    reserved: Vec<u64>,
    calls: u64,
    /// What was acknowledged as spent.
    spent: Amount,
}

async fn spend(sequence: Vec<Step>) {
    let place = place().await;
    let ledger = &place.ledger;
    let mut ask = place.ask().await;
    ask.budget = Amount {
        tokens: 700,
        money: Micros(700),
        ..BUDGET
    };
    let request = ledger.submit(place.session, ask, None).await.unwrap();
    let claimed = ledger
        .claim_request(&place.owner, None)
        .await
        .unwrap()
        .unwrap();
    ledger
        .plan_request(&claimed.lease, plan(&["a", "b", "c a"]), None)
        .await
        .unwrap();
    let mut held: Vec<ClaimedJob> = Vec::new();
    let mut grants: Vec<Known> = Vec::new();
    for step in sequence {
        match step {
            Step::Claim => {
                if let Some(claimed) = place.try_claim().await {
                    let lease = &claimed.lease;
                    if claimed.attempt.is_some() {
                        ledger.resume_attempt(lease).await.unwrap();
                    } else {
                        let new = crate::support::new_attempt();
                        ledger.start_attempt(lease, new).await.unwrap();
                        ledger.attempt_running(lease).await.unwrap();
                        ledger.attempt_checking(lease, "d".into()).await.unwrap();
                    }
                    held.push(claimed);
                }
            }
            Step::Grant(at) if !held.is_empty() => {
                let claimed = &held[at % held.len()];
                let attempts = ledger.attempts(claimed.job.id).await.unwrap();
                let attempt = attempts.last().unwrap().id;
                if let Ok(id) = ledger
                    .open_grant(Spender::Attempt(&claimed.lease, attempt))
                    .await
                {
                    grants.push(Known {
                        id,
                        attempt,
                        reserved: Vec::new(),
                        calls: 0,
                        spent: Amount::ZERO,
                    });
                }
            }
            Step::Reserve(at, amount) if !grants.is_empty() => {
                let count = grants.len();
                let known = &mut grants[at % count];
                let call = known.calls + 1;
                if ledger.reserve(known.id, call, amount).await.is_ok() {
                    known.calls = call;
                    known.reserved.push(call);
                }
            }
            Step::Settle(at, spent) if !grants.is_empty() => {
                let count = grants.len();
                let known = &mut grants[at % count];
                let Some(call) = known.reserved.pop() else {
                    continue;
                };
                let event = called(Some(known.attempt), call, spent);
                if ledger.settle(known.id, event, None).await.is_ok() {
                    known.spent = known.spent.plus(spent);
                }
            }
            Step::Unreserve(at) if !grants.is_empty() => {
                let count = grants.len();
                let known = &mut grants[at % count];
                if let Some(call) = known.reserved.pop() {
                    ledger.unreserve(known.id, call).await.ok();
                }
            }
            Step::Close(at) if !grants.is_empty() => {
                ledger
                    .close_grant(grants[at % grants.len()].id)
                    .await
                    .unwrap();
            }
            Step::End(at, passes) if !held.is_empty() => {
                let claimed = held.remove(at % held.len());
                let settlement = if passes {
                    passed()
                } else {
                    Settlement::Failed {
                        failure: Failure::new(Reason::RateLimited, ""),
                    }
                };
                ledger.settle_attempt(&claimed.lease, settlement).await.ok();
            }
            Step::Wait(millis) => place.clock.advance(Duration::from_millis(millis / 20)),
            Step::Lose => {
                place.lose().await;
            }
            Step::Integrate => {
                if let Some(claimed) = place.claim_change().await {
                    let commit = "e".repeat(40);
                    ledger
                        .settle_change(&claimed.lease, ChangeOutcome::Integrated { commit })
                        .await
                        .unwrap();
                }
            }
            Step::Cancel => {
                ledger.cancel_request(request).await.ok();
            }
            _ => {}
        }
    }
    place.holds().await;
    // Whatever happened, all that was acknowledged as spent is counted.
    let acknowledged = grants
        .iter()
        .fold(Amount::ZERO, |sum, known| sum.plus(known.spent));
    let spent = ledger.spent(request).await.unwrap();
    assert!(spent.covers(acknowledged), "{spent:?} {acknowledged:?}");
    let account: Account = ledger.account(request).await.unwrap();
    assert!(account.conserves());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn budgets_conserve_under_every_sequence_of_verbs(
        sequence in proptest::collection::vec(steps(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(spend(sequence));
    }
}
