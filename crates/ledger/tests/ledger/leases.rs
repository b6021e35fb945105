//! Leases: what is held, by whom, until when.

use crate::support::{new_attempt, open, passed, place, tokens};
use domain::{
    ChangeState, Failure, JobState, Reason, RequestState,
    event::{Agent, Body},
    state::AttemptState,
};
use ledger::{ChangeOutcome, Error, MAX_LOST, MAX_LOST_INTEGRATORS, Settlement, Spender};
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
    ledger.reserve(grant, 1, tokens(100)).await.unwrap();
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
    let refused = ledger.reserve(grant, 2, tokens(1)).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");

    let attempt = ledger.attempt(attempt).await.unwrap();
    assert_eq!(attempt.state, AttemptState::Suspended);
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
        place.lose_and_wait().await;
    }
    let next = ledger.claim_request(&place.owner, None).await.unwrap();
    assert!(next.is_none());
    let request = ledger.request(request).await.unwrap();
    assert_eq!(request.state, RequestState::Failed);
    assert_eq!(request.failure.unwrap().reason, Reason::OwnerLost);
    place.holds().await;
}

#[tokio::test]
async fn a_change_whose_integrators_are_lost_again_and_again_is_rejected_and_kept() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    let change = place.deliver().await.change.unwrap();
    for _ in 0..MAX_LOST_INTEGRATORS {
        let claimed = place.claim_change().await.unwrap();
        assert_eq!(claimed.given_up, None);
        place.lose_and_wait().await;
    }
    assert!(place.claim_change().await.is_none());
    let change = place.ledger.change(change).await.unwrap();
    assert_eq!(change.state, ChangeState::Rejected);
    assert_eq!(change.failure.unwrap().reason, Reason::OwnerLost);
    assert_eq!(change.commit, "c".repeat(40), "what was made is kept");
    let request = place.ledger.request(request).await.unwrap();
    assert_eq!(request.state, RequestState::Failed);
    place.holds().await;
}

#[tokio::test]
async fn an_integrator_that_lives_to_say_something_counts_those_that_were_lost_anew() {
    let place = place().await;
    place.planned(&["a"]).await;
    place.deliver().await;
    for _ in 0..2 {
        for _ in 1..MAX_LOST_INTEGRATORS {
            place.claim_change().await.unwrap();
            place.lose_and_wait().await;
        }
        let claimed = place.claim_change().await.unwrap();
        place
            .ledger
            .settle_change(&claimed.lease, ChangeOutcome::Requeued)
            .await
            .unwrap();
    }
    let claimed = place.claim_change().await.unwrap();
    assert_eq!(claimed.change.state, ChangeState::Merging);
    place.holds().await;
}

#[tokio::test]
async fn a_change_that_may_be_on_the_branch_is_looked_for_before_it_is_given_up() {
    let place = place().await;
    place.planned(&["a"]).await;
    let change = place.deliver().await.change.unwrap();
    for lost in 0..2 * MAX_LOST_INTEGRATORS {
        let claimed = place.claim_change().await.unwrap();
        let given_up = claimed.given_up.map(|failure| failure.reason);
        let expected = (lost >= MAX_LOST_INTEGRATORS).then_some(Reason::OwnerLost);
        assert_eq!(given_up, expected, "after {lost} losses");
        if lost == 0 {
            place
                .ledger
                .land_change(&claimed.lease, "e".repeat(40))
                .await
                .unwrap();
        }
        place.lose_and_wait().await;
    }
    // Where even to look ends the process each time, it ends too, and says where it may be.
    let change = place.ledger.change(change).await.unwrap();
    assert_eq!(change.state, ChangeState::Rejected);
    assert_eq!(change.integrated, Some("e".repeat(40)));
    place.holds().await;
}

#[tokio::test]
async fn an_attempt_whose_holder_is_lost_goes_on_with_the_next_one() {
    let place = place().await;
    let ledger = &place.ledger;
    place.planned(&["a", "b"]).await;
    let turn = place.running().await;
    let gate = place.checking().await;
    place.lose().await;

    let next = place.claim().await;
    assert_eq!(next.job.id, turn.job.id);
    let open = next.attempt.unwrap();
    assert!(!open.checking);
    assert_eq!(open.attempt.number, 1);
    let refused = ledger.start_attempt(&next.lease, new_attempt()).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    place.clock.advance(Duration::from_secs(5));
    let resumed = ledger.resume_attempt(&next.lease).await.unwrap();
    assert_eq!(resumed.state, AttemptState::Running);
    assert_eq!(resumed.id, open.attempt.id);

    let next_gate = place.claim().await;
    assert_eq!(next_gate.job.id, gate.job.id);
    assert!(next_gate.attempt.unwrap().checking);
    let resumed = ledger.resume_attempt(&next_gate.lease).await.unwrap();
    assert_eq!(resumed.state, AttemptState::Checking);
    assert_eq!(resumed.tree, Some("d".repeat(40)));
    place.holds().await;

    place.clock.advance(Duration::from_secs(7));
    ledger
        .settle_attempt(&next_gate.lease, passed())
        .await
        .unwrap();
    let settled = ledger.attempt(resumed.id).await.unwrap();
    assert_eq!(settled.state, AttemptState::Passed);
    assert_eq!(
        settled.spent.wall_ms, 67_000,
        "the lease and the seven seconds, and not the time between"
    );
    place.holds().await;
}

#[tokio::test]
async fn an_attempt_that_cannot_be_gone_on_with_is_lost_and_a_new_one_starts() {
    let place = place().await;
    let ledger = &place.ledger;
    place.planned(&["a"]).await;
    place.running().await;
    place.lose_and_wait().await;
    let claimed = place.claim().await;
    let lost = claimed.attempt.unwrap().attempt.id;
    let why = Failure::new(Reason::OwnerLost, "its workspace is gone");
    ledger
        .lose_attempt(&claimed.lease, why.clone())
        .await
        .unwrap();
    place.holds().await;
    let next = ledger
        .start_attempt(&claimed.lease, new_attempt())
        .await
        .unwrap();
    assert_eq!(next.number, 2);
    let lost = ledger.attempt(lost).await.unwrap();
    assert_eq!(lost.state, AttemptState::Lost);
    assert_eq!(lost.failure, Some(why));
    // One that was resumed and diverged gives its job back.
    place.ledger.attempt_running(&claimed.lease).await.unwrap();
    place.lose_and_wait().await;
    let claimed = place.claim().await;
    ledger.resume_attempt(&claimed.lease).await.unwrap();
    let failure = Failure::new(Reason::OwnerLost, "it diverged");
    let settled = ledger
        .settle_attempt(&claimed.lease, Settlement::Lost { failure })
        .await
        .unwrap();
    assert_eq!(settled.job, JobState::Ready);
    assert!(place.claim().await.attempt.is_none());
    place.holds().await;
}

#[tokio::test]
async fn an_attempt_that_waits_for_its_next_holder_can_be_cancelled() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    let held = place.running().await;
    place.lose().await;
    assert_eq!(place.ledger.open_attempts().await.unwrap().len(), 1);
    place.holds().await;
    place.ledger.cancel_request(request).await.unwrap();
    let attempt = &place.ledger.attempts(held.job.id).await.unwrap()[0];
    assert_eq!(attempt.state, AttemptState::Cancelled);
    assert_eq!(attempt.spent.wall_ms, 60_000);
    assert!(place.ledger.open_attempts().await.unwrap().is_empty());
    place.holds().await;
}

#[tokio::test]
async fn a_job_that_goes_on_a_step_each_time_is_never_lost_too_often() {
    let place = place().await;
    place.planned(&["a"]).await;
    let first = place.running().await;
    for _ in 0..3 * ledger::MAX_LOST {
        place.lose().await;
        let claimed = place.claim().await;
        let attempt = claimed.attempt.unwrap().attempt.id;
        place.ledger.resume_attempt(&claimed.lease).await.unwrap();
        let event = Agent::ToolResult {
            id: "call".into(),
            output: String::new(),
            omitted: 0,
            ok: true,
            duration_ms: 0,
            full: None,
        };
        let body = Body::Agent { attempt, event };
        place
            .ledger
            .record(&claimed.lease, vec![body])
            .await
            .unwrap();
    }
    let attempts = place.ledger.attempts(first.job.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    place.holds().await;
}

#[tokio::test]
async fn a_job_whose_holders_are_lost_again_and_again_without_a_step_is_dead() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    place.running().await;
    place.lose_and_wait().await;
    for _ in 1..ledger::MAX_LOST {
        let claimed = place.claim().await;
        place.ledger.resume_attempt(&claimed.lease).await.unwrap();
        place.lose_and_wait().await;
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

#[tokio::test]
async fn what_is_lost_again_is_tried_later_each_time() {
    let place = place().await;
    place.planned(&["a"]).await;
    place.claim().await;
    place.lose().await;
    place.claim().await; // A process that was killed says nothing of its work.
    let mut waited = Duration::ZERO;
    for _ in 2..MAX_LOST {
        place.lose().await;
        let mut waits = Duration::ZERO;
        while place.try_claim().await.is_none() {
            place.clock.advance(Duration::from_millis(100));
            waits += Duration::from_millis(100);
        }
        assert!(waits > waited, "{waits:?} after {waited:?}");
        waited = waits;
    }
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    place.holds().await;
}
