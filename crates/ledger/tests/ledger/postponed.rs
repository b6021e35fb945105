//! What the machine hinders for now: it waits, is tried again, and not for ever.

use crate::support::{Place, place, plan};
use domain::{ChangeState, Failure, Reason, RequestState};
use ledger::{ChangeOutcome, ClaimedRequest, MAX_POSTPONED};
use std::time::Duration;

fn full() -> Failure {
    Failure::new(Reason::Storage, "the disk is full")
}

async fn request(place: &Place) -> Option<ClaimedRequest> {
    place
        .ledger
        .claim_request(&place.owner, None)
        .await
        .unwrap()
}

/// Waits as long as it may have to after so many faults, and says that it was not there before.
fn waits(postponed: u32) -> (Duration, Duration) {
    let span = Duration::from_secs(1 << (postponed - 1)).min(Duration::from_secs(300));
    (
        span - Duration::from_millis(1),
        span / 2 + Duration::from_millis(1),
    )
}

async fn put_back(place: &Place, may_have_landed: bool) {
    let claimed = place.claim_change().await.unwrap();
    if may_have_landed {
        let integrated = "e".repeat(40);
        place
            .ledger
            .land_change(&claimed.lease, integrated)
            .await
            .unwrap();
    }
    let outcome = ChangeOutcome::Postponed {
        failure: full(),
        may_have_landed,
    };
    place
        .ledger
        .settle_change(&claimed.lease, outcome)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_that_a_fault_hinders_waits_longer_each_time_and_is_rejected_at_last() {
    let place = place().await;
    place.planned(&["a"]).await;
    let change = place.deliver().await.change.unwrap();
    for postponed in 1..MAX_POSTPONED {
        put_back(&place, false).await;
        let stored = place.ledger.change(change).await.unwrap();
        assert_eq!(stored.state, ChangeState::Queued);
        let (least, more) = waits(postponed);
        let told = place.ledger.job_waits(stored.job).await.unwrap();
        let left = told.change_until.unwrap().since(place.ledger.now());
        assert!(
            least < left && left <= least + more,
            "{postponed}: {left:?}"
        );
        assert!(place.claim_change().await.is_none());
        place.clock.advance(least);
        assert!(place.claim_change().await.is_none(), "{postponed}");
        place.holds().await;
        place.clock.advance(more);
    }
    put_back(&place, false).await;
    let stored = place.ledger.change(change).await.unwrap();
    assert_eq!(stored.state, ChangeState::Rejected);
    assert_eq!(stored.failure, Some(full()));
    assert!(place.claim_change().await.is_none());
    place.holds().await;
}

#[tokio::test]
async fn while_one_change_waits_the_next_one_of_its_branch_lands() {
    let place = place().await;
    place.planned(&["a", "b"]).await;
    let first = place.deliver().await.change.unwrap();
    let second = place.deliver().await.change.unwrap();
    put_back(&place, false).await;
    let next = place.claim_change().await.unwrap();
    assert_eq!(next.change.id, second);
    let landed = ChangeOutcome::Integrated {
        commit: "e".repeat(40),
    };
    place
        .ledger
        .settle_change(&next.lease, landed)
        .await
        .unwrap();
    place.clock.advance(Duration::from_secs(2));
    assert_eq!(place.claim_change().await.unwrap().change.id, first);
    place.holds().await;
}

#[tokio::test]
async fn a_change_that_may_have_landed_when_a_fault_came_is_looked_for_the_next_time() {
    let place = place().await;
    place.planned(&["a"]).await;
    place.deliver().await;
    put_back(&place, true).await;
    place.clock.advance(Duration::from_secs(2));
    let next = place.claim_change().await.unwrap();
    assert_eq!(next.change.integrated, Some("e".repeat(40)));
    place.holds().await;
}

#[tokio::test]
async fn a_change_that_waits_is_rejected_with_its_request() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    let change = place.deliver().await.change.unwrap();
    put_back(&place, false).await;
    place.ledger.cancel_request(request).await.unwrap();
    let stored = place.ledger.change(change).await.unwrap();
    assert_eq!(stored.state, ChangeState::Rejected);
    place.clock.advance(Duration::from_secs(2));
    assert!(place.claim_change().await.is_none());
    place.holds().await;
}

#[tokio::test]
async fn a_request_that_a_fault_hinders_waits_and_is_planned_when_it_has_passed() {
    let place = place().await;
    let id = place.submit().await;
    for postponed in 1..MAX_POSTPONED {
        let claimed = request(&place).await.unwrap();
        place
            .ledger
            .postpone_request(&claimed.lease, full())
            .await
            .unwrap();
        let (least, more) = waits(postponed);
        let until = place.ledger.request_waits(id).await.unwrap().until;
        let left = until.unwrap().since(place.ledger.now());
        assert!(
            least < left && left <= least + more,
            "{postponed}: {left:?}"
        );
        place.clock.advance(least);
        assert!(request(&place).await.is_none(), "{postponed}");
        place.holds().await;
        place.clock.advance(more);
    }
    let claimed = request(&place).await.unwrap();
    place
        .ledger
        .plan_request(&claimed.lease, plan(&["a"]), None)
        .await
        .unwrap();
    let stored = place.ledger.request(id).await.unwrap();
    assert_eq!(
        (stored.state, stored.failure),
        (RequestState::Working, None)
    );
    place.holds().await;
}

#[tokio::test]
async fn a_request_that_a_fault_hinders_for_too_long_fails_for_it() {
    let place = place().await;
    let id = place.submit().await;
    for _ in 0..MAX_POSTPONED {
        let claimed = request(&place).await.unwrap();
        place
            .ledger
            .postpone_request(&claimed.lease, full())
            .await
            .unwrap();
        place.clock.advance(Duration::from_secs(451));
    }
    assert!(request(&place).await.is_none());
    let stored = place.ledger.request(id).await.unwrap();
    assert_eq!(stored.state, RequestState::Failed);
    assert_eq!(stored.failure, Some(full()));
    place.holds().await;
}

#[tokio::test]
async fn a_request_that_waits_can_be_paused_and_goes_on_when_it_is_resumed() {
    let place = place().await;
    let id = place.submit().await;
    let claimed = request(&place).await.unwrap();
    let lease = &claimed.lease;
    place.ledger.postpone_request(lease, full()).await.unwrap();
    place.ledger.pause_request(id).await.unwrap();
    place.clock.advance(Duration::from_secs(2));
    assert!(request(&place).await.is_none());
    place.holds().await;
    place.ledger.resume_request(id).await.unwrap();
    assert_eq!(request(&place).await.unwrap().request.id, id);
    place.holds().await;
}
