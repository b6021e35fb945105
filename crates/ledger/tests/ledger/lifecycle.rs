//! From a request to its end.

use crate::support::{new_attempt, passed, place, plan};
use domain::{
    ChangeState, Failure, JobState, Reason, RequestState,
    event::{self, Body},
    state::AttemptState,
};
use ledger::{ChangeOutcome, Error, Settlement};
use std::time::Duration;

#[tokio::test]
async fn a_request_goes_from_its_submission_to_done() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.submit().await;
    let claimed = ledger
        .claim_request(&place.owner, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(claimed.request.id, request);
    assert_eq!(claimed.request.state, RequestState::Planning);
    let jobs = ledger
        .plan_request(&claimed.lease, plan(&["one"]), Some("one job".into()))
        .await
        .unwrap();

    let claimed = place.claim().await;
    assert_eq!(claimed.job.id, jobs[0]);
    assert_eq!(claimed.job.spec.title, "do one");
    assert_eq!(claimed.request.state, RequestState::Working);
    let lease = &claimed.lease;
    let attempt = ledger.start_attempt(lease, new_attempt()).await.unwrap();
    assert_eq!(
        (attempt.number, attempt.state),
        (1, AttemptState::Preparing)
    );
    ledger.attempt_running(lease).await.unwrap();
    ledger
        .attempt_checking(lease, "1".repeat(40))
        .await
        .unwrap();
    // The gate's findings go back once.
    ledger.attempt_running(lease).await.unwrap();
    assert_eq!(ledger.job(jobs[0]).await.unwrap().state, JobState::Running);
    ledger
        .attempt_checking(lease, "2".repeat(40))
        .await
        .unwrap();
    place.clock.advance(Duration::from_millis(250));
    let settled = ledger.settle_attempt(lease, passed()).await.unwrap();
    assert_eq!(settled.job, JobState::Delivered);
    let change = settled.change.unwrap();
    assert_eq!(
        ledger.request(request).await.unwrap().state,
        RequestState::Integrating
    );

    let claimed = place.claim_change().await.unwrap();
    assert_eq!(claimed.change.id, change);
    assert_eq!(claimed.change.integrated, None);
    ledger.change_checking(&claimed.lease).await.unwrap();
    ledger
        .land_change(&claimed.lease, "e".repeat(40))
        .await
        .unwrap();
    ledger
        .settle_change(
            &claimed.lease,
            ChangeOutcome::Integrated {
                commit: "e".repeat(40),
            },
        )
        .await
        .unwrap();
    ledger
        .published(request, "skep/integration".into(), "e".repeat(40), None)
        .await
        .unwrap();

    let ended = ledger.request(request).await.unwrap();
    assert_eq!(ended.state, RequestState::Done);
    assert!(ended.ended.is_some());
    let change = ledger.change(change).await.unwrap();
    assert_eq!(change.state, ChangeState::Integrated);
    assert_eq!(change.integrated, Some("e".repeat(40)));
    let attempt = ledger.attempt(attempt.id).await.unwrap();
    assert_eq!(attempt.state, AttemptState::Passed);
    assert_eq!(attempt.spent.wall_ms, 250);
    assert_eq!(ledger.change_of(attempt.id).await.unwrap(), Some(change));
    let kinds: Vec<&str> = ledger
        .request_events(request, 0, 100)
        .await
        .unwrap()
        .iter()
        .map(|envelope| envelope.body.kind())
        .collect();
    assert_eq!(
        kinds,
        [
            "request_submitted",
            "request_changed",
            "planned",
            "request_changed",
            "job_changed",
            "job_changed",
            "attempt_started",
            "attempt_changed",
            "job_changed",
            "attempt_changed",
            "job_changed",
            "attempt_changed",
            "job_changed",
            "attempt_changed",
            "attempt_changed",
            "change_made",
            "job_changed",
            "request_changed",
            "change_changed",
            "change_changed",
            "change_changed",
            "request_changed",
            "published",
        ]
    );
    place.holds().await;
}

#[tokio::test]
async fn a_job_starts_when_the_change_it_waits_for_is_integrated_and_not_before() {
    let place = place().await;
    let request = place.planned(&["first", "second first"]).await;
    place.deliver().await;
    assert!(place.try_claim().await.is_none(), "its change is queued");
    let claimed = place.claim_change().await.unwrap();
    assert!(place.try_claim().await.is_none(), "its change is merging");
    place
        .ledger
        .settle_change(
            &claimed.lease,
            ChangeOutcome::Integrated {
                commit: "e".repeat(40),
            },
        )
        .await
        .unwrap();
    let claimed = place.claim().await;
    assert_eq!(claimed.job.spec.name, "second");
    assert_eq!(claimed.job.after.len(), 1);
    assert_eq!(claimed.job.request, request);
    place.holds().await;
}

#[tokio::test]
async fn jobs_whose_dependency_failed_die_with_all_that_wait_for_them() {
    let place = place().await;
    let request = place
        .planned(&["root", "free", "child root", "grandchild child"])
        .await;
    let claimed = place.checking().await;
    let failure = Failure::new(Reason::ChecksFailed, "make test");
    place
        .ledger
        .settle_attempt(
            &claimed.lease,
            Settlement::Rejected {
                failure: failure.clone(),
                tree: None,
                summary: "I tried".into(),
            },
        )
        .await
        .unwrap();
    let jobs = place.ledger.jobs(request).await.unwrap();
    let ends: Vec<_> = jobs
        .iter()
        .map(|job| {
            (
                job.state,
                job.failure.as_ref().map(|failure| failure.reason),
            )
        })
        .collect();
    assert_eq!(
        ends,
        [
            (JobState::Dead, Some(Reason::ChecksFailed)),
            (JobState::Ready, None),
            (JobState::Dead, Some(Reason::DependencyFailed)),
            (JobState::Dead, Some(Reason::DependencyFailed)),
        ]
    );
    assert_eq!(
        jobs[3].failure.as_ref().unwrap().detail,
        jobs[2].id.to_string()
    );
    // The job that stands alone goes on; the request ends with what it delivers.
    place.deliver().await;
    let claimed = place.claim_change().await.unwrap();
    let conflict = ChangeOutcome::Conflicted {
        files: vec!["src/a.rs".into()],
    };
    place
        .ledger
        .settle_change(&claimed.lease, conflict)
        .await
        .unwrap();
    let ended = place.ledger.request(request).await.unwrap();
    assert_eq!(ended.state, RequestState::Failed);
    assert_eq!(ended.failure, Some(failure));
    let change = &place.ledger.changes_of(request).await.unwrap()[0];
    assert_eq!(change.conflicts, ["src/a.rs"]);
    place.holds().await;
}

#[tokio::test]
async fn a_failure_from_outside_is_tried_again_three_times_and_one_of_the_agent_is_not() {
    let place = place().await;
    let request = place.planned(&["one", "two"]).await;
    for (round, expected) in [
        (1, JobState::Parked),
        (2, JobState::Parked),
        (3, JobState::Dead),
    ] {
        let claimed = place.running().await;
        assert_eq!(claimed.job.spec.name, "one");
        let settled = place
            .ledger
            .settle_attempt(
                &claimed.lease,
                Settlement::Failed {
                    failure: Failure::new(Reason::ProviderFailed, "status 529"),
                },
            )
            .await
            .unwrap();
        assert_eq!(settled.job, expected, "round {round}");
        // It sleeps a second, then two, and up to half as much again.
        place.clock.advance(Duration::from_secs(4));
    }
    let claimed = place.running().await;
    let settled = place
        .ledger
        .settle_attempt(
            &claimed.lease,
            Settlement::Failed {
                failure: Failure::new(Reason::Stuck, ""),
            },
        )
        .await
        .unwrap();
    assert_eq!(settled.job, JobState::Dead);
    let jobs = place.ledger.jobs(request).await.unwrap();
    let attempts = place.ledger.attempts(jobs[0].id).await.unwrap();
    let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(jobs[0].attempts, 3);
    assert_eq!(jobs[1].attempts, 1);
    place.holds().await;
}

#[tokio::test]
async fn a_job_that_cannot_even_start_is_not_tried_for_ever() {
    let place = place().await;
    place.planned(&["one"]).await;
    let mut rounds = 0;
    while let Some(claimed) = place.try_claim().await {
        rounds += 1;
        place
            .ledger
            .settle_attempt(
                &claimed.lease,
                Settlement::Failed {
                    failure: Failure::new(Reason::Storage, "no space"),
                },
            )
            .await
            .unwrap();
        place.clock.advance(Duration::from_secs(4));
    }
    assert_eq!(rounds, ledger::MAX_ATTEMPTS);
    place.holds().await;
}

#[tokio::test]
async fn nothing_to_do_is_an_end_that_satisfies_what_waits() {
    let place = place().await;
    let request = place.planned(&["one", "two one"]).await;
    for _ in 0..2 {
        let claimed = place.checking().await;
        place
            .ledger
            .settle_attempt(
                &claimed.lease,
                Settlement::Empty {
                    summary: "it was right already".into(),
                },
            )
            .await
            .unwrap();
    }
    let ended = place.ledger.request(request).await.unwrap();
    assert_eq!(ended.state, RequestState::Done);
    place.holds().await;
}

#[tokio::test]
async fn no_more_jobs_of_a_request_are_under_way_than_it_allows() {
    let place = place().await;
    let mut ask = place.ask().await;
    ask.parallel = 2;
    let ledger = &place.ledger;
    let request = ledger.submit(place.session, ask, None).await.unwrap();
    let claimed = ledger
        .claim_request(&place.owner, None)
        .await
        .unwrap()
        .unwrap();
    ledger
        .plan_request(&claimed.lease, plan(&["a", "b", "c"]), None)
        .await
        .unwrap();
    let first = place.running().await;
    let _second = place.running().await;
    assert!(place.try_claim().await.is_none());
    // Another request's job does not wait for it.
    place.planned(&["other"]).await;
    assert_eq!(place.claim().await.job.spec.name, "other");
    ledger
        .settle_attempt(
            &first.lease,
            Settlement::Failed {
                failure: Failure::new(Reason::Stuck, ""),
            },
        )
        .await
        .unwrap();
    let third = ledger
        .claim_job(&place.owner, Some(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(third.job.spec.name, "c");
    place.holds().await;
}

#[tokio::test]
async fn changes_of_one_branch_are_merged_one_at_a_time_in_their_order() {
    let place = place().await;
    let one = place.planned(&["a"]).await;
    let two = place.planned(&["b"]).await;
    let first = place.deliver().await.change.unwrap();
    let second = place.deliver().await.change.unwrap();
    // A request on another repository has a queue of its own.
    let mut ask = place.ask().await;
    ask.repository = place.ledger.repository("/other").await.unwrap();
    let other = place.ledger.submit(place.session, ask, None).await.unwrap();
    let claimed = place
        .ledger
        .claim_request(&place.owner, Some(other))
        .await
        .unwrap()
        .unwrap();
    place
        .ledger
        .plan_request(&claimed.lease, plan(&["c"]), None)
        .await
        .unwrap();
    let elsewhere = place.deliver().await.change.unwrap();

    let merging = place.claim_change().await.unwrap();
    assert_eq!(merging.change.id, first);
    assert_eq!(place.claim_change().await.unwrap().change.id, elsewhere);
    assert!(place.claim_change().await.is_none());
    let only = place.ledger.claim_change(&place.owner, Some(two)).await;
    assert!(only.unwrap().is_none());
    place
        .ledger
        .settle_change(&merging.lease, ChangeOutcome::Requeued)
        .await
        .unwrap();
    let only = place.ledger.claim_change(&place.owner, Some(two)).await;
    assert_eq!(only.unwrap().unwrap().change.id, second);
    assert_eq!(merging.request.id, one);
    place.holds().await;
}

#[tokio::test]
async fn what_a_lost_integrator_was_about_to_land_is_seen_by_the_next_one() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    place.deliver().await;
    let lost = place.claim_change().await.unwrap();
    place
        .ledger
        .land_change(&lost.lease, "e".repeat(40))
        .await
        .unwrap();
    place.lose().await;
    let next = place.claim_change().await.unwrap();
    assert_eq!(next.change.id, lost.change.id);
    assert_eq!(next.change.integrated, Some("e".repeat(40)));
    assert!(next.lease.token > lost.lease.token);
    let late = place
        .ledger
        .settle_change(&lost.lease, ChangeOutcome::Requeued)
        .await;
    assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
    // A change that waits again by the integrator's word has no such intent.
    place
        .ledger
        .settle_change(&next.lease, ChangeOutcome::Requeued)
        .await
        .unwrap();
    let again = place.claim_change().await.unwrap();
    assert_eq!(again.change.integrated, None);
    assert_eq!(again.request.id, request);
    place.holds().await;
}

#[tokio::test]
async fn to_cancel_a_request_ends_all_that_is_open_and_holders_learn_of_it() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a", "b", "c", "d a", "e"]).await;
    place.deliver().await;
    let merging = place.claim_change().await.unwrap();
    place.deliver().await;
    let mut changes = ledger.changes();
    let running = place.running().await;
    let leased = place.claim().await;
    changes.mark_unchanged();
    ledger.cancel_request(request).await.unwrap();

    changes.changed().await.unwrap();
    for lease in [&merging.lease, &running.lease, &leased.lease] {
        let standing = ledger.standing(lease).await;
        assert!(matches!(standing, Err(Error::LeaseLost(_))), "{standing:?}");
    }
    let ended = ledger.request(request).await.unwrap();
    assert_eq!(ended.state, RequestState::Cancelled);
    let states: Vec<JobState> = ledger
        .jobs(request)
        .await
        .unwrap()
        .iter()
        .map(|job| job.state)
        .collect();
    assert_eq!(
        states,
        [
            JobState::Delivered,
            JobState::Delivered,
            JobState::Cancelled,
            JobState::Cancelled,
            JobState::Cancelled,
        ]
    );
    let attempts = ledger.attempts(running.job.id).await.unwrap();
    assert_eq!(attempts[0].state, AttemptState::Cancelled);
    for change in ledger.changes_of(request).await.unwrap() {
        assert_eq!(change.state, ChangeState::Rejected);
        assert_eq!(change.failure.unwrap().reason, Reason::Cancelled);
    }
    let account = ledger.account(request).await.unwrap();
    assert!(account.closed && account.reserved == domain::Amount::ZERO);
    let again = ledger.cancel_request(request).await;
    assert!(matches!(again, Err(Error::Illegal(_))), "{again:?}");
    assert!(place.try_claim().await.is_none());
    place.holds().await;
}

#[tokio::test]
async fn a_change_that_may_be_on_the_branch_already_survives_the_cancellation() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a"]).await;
    place.deliver().await;
    let merging = place.claim_change().await.unwrap();
    ledger
        .land_change(&merging.lease, "e".repeat(40))
        .await
        .unwrap();
    ledger.cancel_request(request).await.unwrap();
    ledger
        .settle_change(
            &merging.lease,
            ChangeOutcome::Integrated {
                commit: "e".repeat(40),
            },
        )
        .await
        .unwrap();
    let change = ledger.change(merging.change.id).await.unwrap();
    assert_eq!(change.state, ChangeState::Integrated);
    assert_eq!(
        ledger.request(request).await.unwrap().state,
        RequestState::Cancelled
    );
    place.holds().await;
}

#[tokio::test]
async fn to_cancel_a_job_kills_what_waits_for_it_and_spares_the_rest() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a", "b a", "c"]).await;
    let running = place.running().await;
    ledger.cancel_job(running.job.id).await.unwrap();
    assert!(ledger.standing(&running.lease).await.is_err());
    let states: Vec<JobState> = ledger
        .jobs(request)
        .await
        .unwrap()
        .iter()
        .map(|job| job.state)
        .collect();
    assert_eq!(
        states,
        [JobState::Cancelled, JobState::Dead, JobState::Ready]
    );
    // A holder may give up its own job in the same way.
    let running = place.running().await;
    let settled = ledger
        .settle_attempt(&running.lease, Settlement::Cancelled)
        .await
        .unwrap();
    assert_eq!(settled.job, JobState::Cancelled);
    assert_eq!(
        ledger.request(request).await.unwrap().state,
        RequestState::Failed
    );
    place.holds().await;
}

#[tokio::test]
async fn a_request_that_cannot_be_planned_fails_with_its_reason() {
    let place = place().await;
    let request = place.submit().await;
    let claimed = place
        .ledger
        .claim_request(&place.owner, Some(request))
        .await
        .unwrap()
        .unwrap();
    let failure = Failure::new(Reason::PlanInvalid, "no jobs");
    place
        .ledger
        .fail_request(&claimed.lease, failure.clone())
        .await
        .unwrap();
    let ended = place.ledger.request(request).await.unwrap();
    assert_eq!(ended.state, RequestState::Failed);
    assert_eq!(ended.failure, Some(failure));
    place.holds().await;
}

#[tokio::test]
async fn what_an_agent_says_and_what_checks_find_is_kept_with_its_attempt() {
    let place = place().await;
    let ledger = &place.ledger;
    place.planned(&["a"]).await;
    let claimed = place.checking().await;
    let attempt = ledger.attempts(claimed.job.id).await.unwrap()[0].id;
    let output = ledger.put_blob("all of the output").await.unwrap();
    let checked = Body::Checked {
        attempt,
        change: None,
        round: 1,
        evidence: domain::entity::Evidence {
            check: "test".into(),
            verdict: domain::entity::Verdict::Passed,
            command: Some("make test".into()),
            exit_code: Some(0),
            findings: "ok".into(),
            output: Some(output),
            duration_ms: 12,
            tree: "d".repeat(40),
        },
    };
    let said = Body::Agent {
        attempt,
        event: event::Agent::Text {
            text: "done".into(),
        },
    };
    ledger
        .record(&claimed.lease, vec![said.clone(), checked.clone()])
        .await
        .unwrap();
    assert_eq!(ledger.evidence(attempt).await.unwrap(), [checked]);
    let events = ledger
        .request_events(claimed.request.id, 0, 100)
        .await
        .unwrap();
    assert!(events.iter().any(|envelope| envelope.body == said));
    place.holds().await;
}

#[tokio::test]
async fn the_same_key_and_ask_are_one_request() {
    let place = place().await;
    let ledger = &place.ledger;
    let ask = place.ask().await;
    let first = ledger
        .submit(place.session, ask.clone(), Some("k"))
        .await
        .unwrap();
    let again = ledger
        .submit(place.session, ask.clone(), Some("k"))
        .await
        .unwrap();
    assert_eq!(first, again);
    let mut other = ask.clone();
    other.prompt = "something else".into();
    let taken = ledger.submit(place.session, other, Some("k")).await;
    assert!(matches!(taken, Err(Error::KeyTaken { .. })), "{taken:?}");
    let elsewhere = ledger.session("elsewhere").await.unwrap();
    let taken = ledger.submit(elsewhere, ask.clone(), Some("k")).await;
    assert!(matches!(taken, Err(Error::KeyTaken { .. })), "{taken:?}");
    let fresh = ledger.submit(place.session, ask, None).await.unwrap();
    assert_ne!(first, fresh);
    assert_eq!(ledger.requests(10, None).await.unwrap().len(), 2);
    place.holds().await;
}

#[tokio::test]
async fn everything_is_there_after_the_ledger_is_opened_again() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    let before = place.ledger.events(place.session, 0, 100).await.unwrap();
    place.ledger.close().await;
    let again = crate::support::open(place.directory.path(), &place.clock).await;
    assert_eq!(again.events(place.session, 0, 100).await.unwrap(), before);
    assert_eq!(again.session("work").await.unwrap(), place.session);
    assert_eq!(
        again.request(request).await.unwrap().state,
        RequestState::Working
    );
    let sessions = again.sessions(None, 10).await.unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].sequence, before.len() as u64);
    let repository = again.request(request).await.unwrap().ask.repository;
    assert_eq!(again.repository_path(repository).await.unwrap(), "/r");
    assert_eq!(again.requests(10, Some(repository)).await.unwrap().len(), 1);
}
