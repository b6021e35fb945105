//! A clock that was ahead for a while, and is put right: nothing sleeps until it is there again.

use crate::support::{Place, open, place};
use domain::{Failure, JobState, Reason};
use ledger::{Admission, Clock, Error, Ledger, Options, Settlement, Unreached};
use std::{sync::Arc, time::Duration};

const DAY: Duration = Duration::from_secs(24 * 3_600);
const SECOND: Duration = Duration::from_secs(1);

/// Settles the next job like this while the clock is a day ahead, and puts the clock right.
async fn parked_ahead(place: &Place, settlement: impl FnOnce(&Ledger) -> Settlement) {
    place.planned(&["a"]).await;
    place.clock.advance(DAY);
    let claimed = place.running().await;
    let settlement = settlement(&place.ledger);
    let settled = place
        .ledger
        .settle_attempt(&claimed.lease, settlement)
        .await;
    assert_eq!(settled.unwrap().job, JobState::Parked);
    place.clock.turn_back(DAY);
}

#[tokio::test]
async fn a_job_that_failed_by_a_clock_that_was_ahead_sleeps_for_no_longer_than_its_back_off() {
    let place = place().await;
    let failure = Failure::new(Reason::RateLimited, "status 429");
    parked_ahead(&place, |_| Settlement::Failed { failure }).await;
    assert!(place.try_claim().await.is_none(), "it sleeps all the same");
    place.holds().await;
    place.clock.advance(2 * SECOND);
    place.claim().await;
    place.holds().await;
}

#[tokio::test]
async fn a_job_without_a_quota_sleeps_for_as_long_as_it_was_to() {
    let place = place().await;
    let wait = 3 * 3_600 * SECOND;
    parked_ahead(&place, |ledger| Settlement::Parked {
        failure: Failure::new(Reason::RateLimited, "the weekly limit"),
        until: ledger.now().plus(wait),
    })
    .await;
    place.look().await;
    place.clock.advance(wait - SECOND);
    assert!(place.try_claim().await.is_none());
    place.clock.advance(SECOND);
    place.claim().await;
    place.holds().await;
}

#[tokio::test]
async fn a_clock_that_is_put_right_while_no_process_runs_is_noticed_by_the_next() {
    let place = place().await;
    let failure = Failure::new(Reason::RateLimited, "status 429");
    parked_ahead(&place, |_| Settlement::Failed { failure }).await;
    place.ledger.close().await;
    let ledger = open(place.directory.path(), &place.clock).await;
    place.clock.advance(2 * SECOND);
    let owner = ledger.owner().await.unwrap();
    assert!(ledger.claim_job(&owner, None).await.unwrap().is_some());
}

#[tokio::test]
async fn a_notification_is_told_again_when_the_clock_that_was_ahead_is_put_right() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a"]).await;
    place.clock.advance(DAY);
    ledger.cancel_request(request).await.unwrap();
    let claim = || async { ledger.claim_notification(&place.owner).await.unwrap() };
    let told = claim().await.unwrap();
    let unreached = Unreached {
        sink: "lamp".into(),
        why: "it answered 503".into(),
        again: true,
    };
    ledger
        .settle_notification(&told.lease, vec![unreached])
        .await
        .unwrap();
    assert!(claim().await.is_none(), "not at once");
    place.clock.turn_back(DAY);
    assert_eq!(
        ledger.next_notification().await.unwrap(),
        Some(ledger.now())
    );
    let again = claim().await.unwrap();
    assert_eq!(again.sinks, Some(vec!["lamp".to_owned()]));
    place.holds().await;
}

#[tokio::test]
async fn a_user_who_used_up_an_allowance_by_a_clock_that_was_ahead_need_not_wait_for_it() {
    let place = place().await;
    place.ledger.close().await;
    let clock = Arc::clone(&place.clock);
    let ledger = Ledger::open(Options {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        admission: Admission {
            per_minute: Some(1),
            ..Admission::default()
        },
        ..Options::new(place.directory.path())
    })
    .await
    .unwrap();
    let ask = ledger_ask(&ledger).await;
    let submit = || ledger.submit(place.session, ask.clone(), None);
    clock.advance(DAY);
    submit().await.unwrap();
    clock.turn_back(SECOND);
    assert!(
        matches!(submit().await, Err(Error::Busy { .. })),
        "a little back fills nothing"
    );
    clock.turn_back(DAY);
    submit().await.unwrap();
    assert!(matches!(submit().await, Err(Error::Busy { .. })));
}

/// What is asked, of another ledger than that of the place.
async fn ledger_ask(ledger: &Ledger) -> domain::entity::Ask {
    let mut ask = place().await.ask().await;
    ask.repository = ledger.repository("/r").await.unwrap();
    ask
}
