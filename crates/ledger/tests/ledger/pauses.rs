//! Work that stops for now, for a person or for want of a quota, and goes on where it was.

use crate::support::{Place, new_attempt, passed, place};
use domain::{AttemptState, Failure, JobState, Reason, RequestState};
use ledger::{Error, Settlement};
use std::time::Duration;

/// The one attempt of the one job.
async fn attempt(place: &Place, request: domain::RequestId) -> domain::entity::Attempt {
    let job = place.ledger.jobs(request).await.unwrap()[0].id;
    let mut all = place.ledger.attempts(job).await.unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[tokio::test]
async fn a_paused_request_gives_up_nothing_and_goes_on_with_the_same_attempt() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a", "b a"]).await;
    let held = place.checking().await;
    place.clock.advance(Duration::from_secs(5));
    ledger.pause_request(request).await.unwrap();
    place.holds().await;
    assert!(matches!(
        ledger.standing(&held.lease).await,
        Err(Error::LeaseLost(_))
    ));
    assert_eq!(
        attempt(&place, request).await.state,
        AttemptState::Suspended
    );
    assert!(place.try_claim().await.is_none());
    assert!(ledger.interrupted().await.unwrap().is_empty());
    assert!(matches!(
        ledger.pause_request(request).await,
        Err(Error::Illegal(_))
    ));
    // However long it is: that time is nobody's.
    place.clock.advance(Duration::from_secs(3_600));
    ledger.resume_request(request).await.unwrap();
    place.holds().await;
    let again = place.claim().await;
    let open = again.attempt.as_ref().unwrap();
    assert!(open.checking);
    ledger.resume_attempt(&again.lease).await.unwrap();
    ledger.settle_attempt(&again.lease, passed()).await.unwrap();
    let ended = attempt(&place, request).await;
    assert_eq!((ended.state, ended.number), (AttemptState::Passed, 1));
    assert_eq!(ended.spent.wall_ms, 5_000);
    place.holds().await;
}

#[tokio::test]
async fn a_request_that_is_paused_before_it_is_planned_is_planned_afterwards() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.submit().await;
    let planner = ledger.claim_request(&place.owner, None).await.unwrap();
    ledger.pause_request(request).await.unwrap();
    let lease = planner.unwrap().lease;
    assert!(matches!(
        ledger.heartbeat(&lease).await,
        Err(Error::LeaseLost(_))
    ));
    assert!(
        ledger
            .claim_request(&place.owner, None)
            .await
            .unwrap()
            .is_none()
    );
    ledger.resume_request(request).await.unwrap();
    assert!(
        ledger
            .claim_request(&place.owner, None)
            .await
            .unwrap()
            .is_some()
    );
    place.holds().await;
}

#[tokio::test]
async fn a_paused_job_leaves_the_others_alone_and_waits_for_what_it_waited_for() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a", "b", "c a"]).await;
    let jobs = ledger.jobs(request).await.unwrap();
    ledger.pause_job(jobs[0].id).await.unwrap();
    ledger.pause_job(jobs[2].id).await.unwrap();
    assert_eq!(place.running().await.job.id, jobs[1].id);
    assert!(place.try_claim().await.is_none());
    place.holds().await;
    for job in [&jobs[0], &jobs[2]] {
        ledger.resume_job(job.id).await.unwrap();
    }
    let states: Vec<JobState> = ledger
        .jobs(request)
        .await
        .unwrap()
        .iter()
        .map(|job| job.state)
        .collect();
    assert_eq!(
        states,
        [JobState::Ready, JobState::Running, JobState::Blocked]
    );
    place.holds().await;
}

#[tokio::test]
async fn what_is_paused_can_be_cancelled() {
    let place = place().await;
    let request = place.planned(&["a", "b"]).await;
    place.running().await;
    place.ledger.pause_request(request).await.unwrap();
    place.ledger.cancel_request(request).await.unwrap();
    let ended = place.ledger.request(request).await.unwrap();
    assert_eq!(ended.state, RequestState::Cancelled);
    place.holds().await;
}

#[tokio::test]
async fn a_job_without_a_quota_sleeps_until_the_reset_and_goes_on_once_at_no_cost() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a"]).await;
    for _ in 0..2 * ledger::MAX_ATTEMPTS {
        let claimed = place.claim().await;
        match claimed.attempt {
            Some(_) => drop(ledger.resume_attempt(&claimed.lease).await.unwrap()),
            None => {
                let new = new_attempt();
                ledger.start_attempt(&claimed.lease, new).await.unwrap();
                ledger.attempt_running(&claimed.lease).await.unwrap();
            }
        }
        let settlement = Settlement::Parked {
            failure: Failure::new(Reason::RateLimited, "the weekly limit"),
            until: ledger.now().plus(Duration::from_secs(3 * 3_600)),
        };
        let settled = ledger.settle_attempt(&claimed.lease, settlement).await;
        assert_eq!(settled.unwrap().job, JobState::Parked);
        place.clock.advance(Duration::from_secs(3 * 3_600 - 1));
        assert!(place.try_claim().await.is_none());
        place.holds().await;
        place.clock.advance(Duration::from_secs(1));
    }
    let last = place.claim().await;
    assert!(place.try_claim().await.is_none(), "it is woken once");
    ledger.resume_attempt(&last.lease).await.unwrap();
    ledger
        .attempt_checking(&last.lease, "d".repeat(40))
        .await
        .unwrap();
    ledger.settle_attempt(&last.lease, passed()).await.unwrap();
    assert_eq!(attempt(&place, request).await.state, AttemptState::Passed);
    place.holds().await;
}
