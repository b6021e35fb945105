//! Requests that are not to begin before a time.

use crate::support::{Place, open, place, plan};
use domain::{
    RequestId, RequestState, Timestamp,
    entity::{Placement, Priority},
};
use ledger::{Error, Ledger};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

/// A request of this priority that is not to begin before so long from now.
async fn later(place: &Place, priority: Priority, span: Duration) -> Result<RequestId, Error> {
    let mut ask = place.ask().await;
    ask.placement = Placement {
        priority,
        not_before: Some(place.ledger.now().plus(span)),
        ..Placement::default()
    };
    place.ledger.submit(place.session, ask, None).await
}

async fn claimed(place: &Place, only: Option<RequestId>) -> Option<RequestId> {
    let claimed = place.ledger.claim_request(&place.owner, only).await;
    Some(claimed.unwrap()?.request.id)
}

async fn waits(ledger: &Ledger, request: RequestId) -> Option<Timestamp> {
    ledger.request_waits(request).await.unwrap().not_before
}

#[tokio::test]
async fn a_request_begins_at_its_time_and_not_before() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = later(&place, Priority::Interactive, HOUR).await.unwrap();
    let time = ledger.now().plus(HOUR);
    for only in [None, Some(request)] {
        assert_eq!(claimed(&place, only).await, None);
    }
    let found = ledger.request_waits(request).await.unwrap();
    assert_eq!(
        (found.state, found.not_before),
        (RequestState::Queued, Some(time))
    );
    assert!(found.position.is_none());
    place.holds().await;
    // Whatever is asked meanwhile goes on.
    let now = place.submit().await;
    assert_eq!(claimed(&place, None).await, Some(now));
    place.clock.advance(HOUR - Duration::from_micros(1));
    assert_eq!(claimed(&place, None).await, None);
    place.clock.advance(Duration::from_micros(1));
    assert_eq!(claimed(&place, Some(request)).await, Some(request));
    assert_eq!(waits(ledger, request).await, None);
    place.holds().await;
}

#[tokio::test]
async fn whoever_waits_for_work_is_woken_when_the_time_has_come() {
    let place = place().await;
    let request = later(&place, Priority::Normal, HOUR).await.unwrap();
    let mut changes = place.ledger.changes();
    changes.mark_unchanged();
    place.clock.advance(HOUR);
    changes.changed().await.unwrap();
    assert_eq!(waits(&place.ledger, request).await, None);
    assert_eq!(claimed(&place, None).await, Some(request));
}

#[tokio::test]
async fn its_place_is_that_of_what_became_claimable_at_its_time() {
    let place = place().await;
    let first = place.submit().await;
    let second = later(&place, Priority::Normal, HOUR).await.unwrap();
    place.clock.advance(HOUR + Duration::from_secs(1));
    let third = place.submit().await;
    for expected in [first, second, third] {
        assert_eq!(claimed(&place, None).await, Some(expected));
    }
    place.holds().await;
}

#[tokio::test]
async fn what_is_not_to_begin_yet_can_be_paused_resumed_and_cancelled() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = later(&place, Priority::Normal, HOUR).await.unwrap();
    ledger.pause_request(request).await.unwrap();
    place.holds().await;
    ledger.resume_request(request).await.unwrap();
    assert_eq!(claimed(&place, None).await, None, "its time is kept");
    place.holds().await;
    // What is paused does not begin at its time, and begins at once when it goes on after it.
    ledger.pause_request(request).await.unwrap();
    place.clock.advance(2 * HOUR);
    assert_eq!(claimed(&place, None).await, None);
    place.holds().await;
    ledger.resume_request(request).await.unwrap();
    assert_eq!(claimed(&place, None).await, Some(request));
    let other = later(&place, Priority::Normal, HOUR).await.unwrap();
    ledger.cancel_request(other).await.unwrap();
    place.clock.advance(2 * HOUR);
    assert_eq!(claimed(&place, Some(other)).await, None);
    place.holds().await;
}

#[tokio::test]
async fn its_time_is_kept_when_the_process_ends() {
    let place = place().await;
    let request = later(&place, Priority::Normal, HOUR).await.unwrap();
    place.ledger.close().await;
    let ledger = open(place.directory.path(), &place.clock).await;
    let owner = ledger.owner().await.unwrap();
    assert!(ledger.claim_request(&owner, None).await.unwrap().is_none());
    // Nothing was open when its time came.
    place.clock.advance(2 * HOUR);
    let claimed = ledger.claim_request(&owner, None).await.unwrap().unwrap();
    assert_eq!(claimed.request.id, request);
    ledger
        .plan_request(&claimed.lease, plan(&["a"]), None)
        .await
        .unwrap();
    assert!(ledger.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_time_that_is_past_is_now_and_one_in_years_is_refused() {
    let place = place().await;
    let mut ask = place.ask().await;
    ask.placement.not_before = Some(Timestamp(1));
    let request = place.ledger.submit(place.session, ask, None).await.unwrap();
    assert_eq!(claimed(&place, None).await, Some(request));
    let refused = later(&place, Priority::Normal, 2 * ledger::MOST_AHEAD).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    place.holds().await;
}
