//! Leases: what is held, by whom, until when.

use crate::support::{new_attempt, open, passed, place, tokens};
use domain::{JobState, Reason, RequestState, state::AttemptState};
use ledger::{Error, Spender};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3_600);

fn lost<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::LeaseLost(_))), "{result:?}");
}

#[tokio::test]
async fn a_holder_whose_lease_was_ended_can_change_nothing() {
    let place = place().await;
    let ledger = &place.ledger;
    place.planned(&["a"]).await;
    let stale = place.running().await;
    let attempt = ledger.attempts(stale.job.id).await.unwrap()[0].id;
    let grant = ledger
        .open_grant(Spender::Attempt(&stale.lease, attempt))
        .await
        .unwrap();
    ledger.reserve(grant, tokens(100)).await.unwrap();
    place.lose().await;
    let next = place.claim().await;
    assert_eq!(next.job.id, stale.job.id);
    assert!(next.lease.token > stale.lease.token);

    let lease = &stale.lease;
    lost(ledger.heartbeat(lease).await);
    lost(ledger.standing(lease).await);
    lost(ledger.record(lease, vec![]).await);
    lost(ledger.start_attempt(lease, new_attempt()).await);
    lost(ledger.attempt_running(lease).await);
    lost(ledger.attempt_checking(lease, "1".into()).await);
    lost(ledger.settle_attempt(lease, passed()).await);
    lost(ledger.open_grant(Spender::Attempt(lease, attempt)).await);
    let refused = ledger.reserve(grant, tokens(1)).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");

    let attempt = ledger.attempt(attempt).await.unwrap();
    assert_eq!(attempt.state, AttemptState::Lost);
    assert_eq!(attempt.failure.unwrap().reason, Reason::OwnerLost);
    assert_eq!(attempt.spent.tokens, 100, "it may have been spent");
    assert_eq!(
        attempt.spent.wall_ms, 60_000,
        "it is known to have worked for as long as its lease"
    );
    place.holds().await;
}

#[tokio::test]
async fn a_heartbeat_keeps_a_lease() {
    let place = place().await;
    place.planned(&["a"]).await;
    let held = place.running().await;
    for _ in 0..5 {
        place.clock.advance(Duration::from_secs(50));
        place.ledger.heartbeat(&held.lease).await.unwrap();
        assert!(place.try_claim().await.is_none());
    }
    // A holder that is late, and was not ended yet, still holds.
    place.clock.advance(LONG);
    place.ledger.standing(&held.lease).await.unwrap();
    place.ledger.heartbeat(&held.lease).await.unwrap();
    assert!(place.try_claim().await.is_none());
    place.holds().await;
}

#[tokio::test]
async fn an_expired_planner_gives_its_request_back() {
    let place = place().await;
    let request = place.submit().await;
    let ledger = &place.ledger;
    let stale = ledger
        .claim_request(&place.owner, None)
        .await
        .unwrap()
        .unwrap();
    assert!(
        ledger
            .claim_request(&place.owner, None)
            .await
            .unwrap()
            .is_none()
    );
    place.lose().await;
    let next = ledger
        .claim_request(&place.owner, Some(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.request.id, request);
    lost(
        ledger
            .plan_request(&stale.lease, crate::support::plan(&["a"]), None)
            .await,
    );
    place.holds().await;
}

#[tokio::test]
async fn a_request_whose_planners_are_lost_thrice_has_failed() {
    let place = place().await;
    let request = place.submit().await;
    let ledger = &place.ledger;
    for _ in 0..3 {
        let claimed = ledger.claim_request(&place.owner, None).await.unwrap();
        assert!(claimed.is_some());
        place.lose().await;
    }
    let next = ledger.claim_request(&place.owner, None).await.unwrap();
    assert!(next.is_none());
    let request = ledger.request(request).await.unwrap();
    assert_eq!(request.state, RequestState::Failed);
    assert_eq!(request.failure.unwrap().reason, Reason::OwnerLost);
    place.holds().await;
}

#[tokio::test]
async fn a_job_whose_holders_are_lost_thrice_is_dead() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    for _ in 0..ledger::MAX_ATTEMPTS {
        place.running().await;
        place.lose().await;
    }
    assert!(place.try_claim().await.is_none());
    let job = &place.ledger.jobs(request).await.unwrap()[0];
    assert_eq!(job.state, JobState::Dead);
    assert_eq!(job.failure.as_ref().unwrap().reason, Reason::OwnerLost);
    assert_eq!(
        place.ledger.request(request).await.unwrap().state,
        RequestState::Failed
    );
    place.holds().await;
}

#[tokio::test]
async fn an_owner_that_is_dropped_gives_back_what_it_held() {
    let mut place = place().await;
    place.planned(&["a"]).await;
    let held = place.running().await;
    let mut changes = place.ledger.changes();
    changes.mark_unchanged();
    let another = place.ledger.owner().await.unwrap();
    drop(std::mem::replace(&mut place.owner, another));
    changes.changed().await.unwrap();
    lost(place.ledger.standing(&held.lease).await);
    assert_eq!(place.claim().await.job.id, held.job.id);
    place.holds().await;
}

#[tokio::test]
async fn to_open_a_ledger_ends_the_leases_of_dead_owners_and_of_no_others() {
    let place = place().await;
    place.planned(&["a", "b"]).await;
    let mine = place.running().await;
    let second = open(place.directory.path(), &place.clock).await;
    place.ledger.standing(&mine.lease).await.unwrap();
    // An owner outlives the handle that it came from.
    let owner = second.owner().await.unwrap();
    let theirs = second.claim_job(&owner, None).await.unwrap().unwrap();
    second.close().await;
    place.ledger.standing(&theirs.lease).await.unwrap();
    drop(owner);
    let third = open(place.directory.path(), &place.clock).await;
    lost(third.standing(&theirs.lease).await);
    third.standing(&mine.lease).await.unwrap();
    place.holds().await;
}

#[tokio::test]
async fn a_lease_of_one_kind_is_not_one_of_another() {
    let place = place().await;
    place.planned(&["a"]).await;
    let held = place.running().await;
    let wrong = place.ledger.change_checking(&held.lease).await;
    assert!(matches!(wrong, Err(Error::Invalid(_))), "{wrong:?}");
    let mut forged = held.lease.clone();
    forged.token += 1;
    lost(place.ledger.heartbeat(&forged).await);
}
