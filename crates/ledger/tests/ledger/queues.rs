//! In which order work is claimed, and how much of it at once.

use crate::support::{Place, new_attempt, place, plan};
use domain::{
    Failure, JobState, Reason, RequestId,
    entity::{Ask, Placement, Priority},
};
use ledger::{Admission, Error, Ledger, Limited, Options, SHARE, Seek, Settlement};
use std::time::Duration;

/// A request of this user and priority, in this repository, with these jobs.
async fn asked(
    place: &Place,
    repository: &str,
    placement: Placement,
    jobs: &[&str],
    change: impl FnOnce(&mut Ask),
) -> RequestId {
    let ledger = &place.ledger;
    let mut ask = place.ask().await;
    ask.repository = ledger.repository(repository).await.unwrap();
    ask.placement = placement;
    change(&mut ask);
    let request = ledger.submit(place.session, ask, None).await.unwrap();
    let seek = Seek {
        only: Some(request),
        worker: Some("any".into()),
        ..Seek::default()
    };
    let claimed = ledger.claim_request(&place.owner, seek).await.unwrap();
    ledger
        .plan_request(&claimed.unwrap().lease, plan(jobs), None)
        .await
        .unwrap();
    request
}

fn of(priority: Priority) -> Placement {
    Placement {
        priority,
        ..Placement::default()
    }
}

fn by(user: &str) -> Placement {
    Placement {
        user: user.into(),
        ..Placement::default()
    }
}

/// Ends what was claimed, so that only the order matters.
async fn done(place: &Place, claimed: &ledger::ClaimedJob) {
    let ledger = &place.ledger;
    ledger
        .start_attempt(&claimed.lease, new_attempt())
        .await
        .unwrap();
    let failure = Failure::new(Reason::Stuck, "");
    ledger
        .settle_attempt(&claimed.lease, Settlement::Failed { failure })
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_person_waits_for_goes_first_and_what_can_wait_goes_last() {
    let place = place().await;
    let last = asked(&place, "/r", of(Priority::Background), &["a"], |_| {}).await;
    let middle = asked(&place, "/r", of(Priority::Normal), &["a"], |_| {}).await;
    let first = asked(&place, "/r", of(Priority::Interactive), &["a"], |_| {}).await;
    for expected in [first, middle, last] {
        let claimed = place.claim().await;
        assert_eq!(claimed.request.id, expected);
        done(&place, &claimed).await;
    }
    place.holds().await;
}

#[tokio::test]
async fn work_that_can_wait_is_overtaken_for_an_hour_and_no_longer() {
    let place = place().await;
    let patient = asked(&place, "/r", of(Priority::Background), &["a"], |_| {}).await;
    let hour = Priority::Background.patience();
    for minutes in 0..59 {
        let urgent = asked(&place, "/r", of(Priority::Interactive), &["a"], |_| {}).await;
        let claimed = place.claim().await;
        assert_eq!(claimed.request.id, urgent, "after {minutes} minutes");
        done(&place, &claimed).await;
        place.clock.advance(hour / 60);
    }
    place.clock.advance(hour / 30);
    asked(&place, "/r", of(Priority::Interactive), &["a"], |_| {}).await;
    assert_eq!(place.claim().await.request.id, patient);
    place.holds().await;
}

#[tokio::test]
async fn users_take_turns_however_much_one_of_them_asks_for() {
    let place = place().await;
    for _ in 0..6 {
        asked(&place, "/r", by("many"), &["a", "b"], |_| {}).await;
    }
    place.clock.advance(Duration::from_secs(1));
    asked(&place, "/r", by("few"), &["a", "b"], |_| {}).await;
    let mut users = Vec::new();
    for _ in 0..4 {
        users.push(place.claim().await.request.ask.placement.user);
    }
    assert_eq!(users, ["many", "few", "many", "few"]);
    place.holds().await;
}

#[tokio::test]
async fn users_and_repositories_have_no_more_turns_for_having_many_queues() {
    let place = place().await;
    for (repository, user, agent) in [
        ("/r", "many", "one"),
        ("/r", "many", "two"),
        ("/s", "many", "three"),
        ("/s", "many", "four"),
    ] {
        let agent = |ask: &mut Ask| ask.agent = agent.into();
        asked(&place, repository, by(user), &["a", "b"], agent).await;
    }
    place.clock.advance(Duration::from_secs(1));
    asked(&place, "/t", by("few"), &["a", "b"], |_| {}).await;
    let mut users = Vec::new();
    for _ in 0..4 {
        users.push(place.claim().await.request.ask.placement.user);
    }
    assert_eq!(users[..2], ["many", "few"], "{users:?}");
    assert_eq!(users.iter().filter(|user| *user == "few").count(), 2);
    place.holds().await;
}

#[tokio::test]
async fn repositories_take_turns_too() {
    let place = place().await;
    asked(&place, "/large", by(""), &["a", "b", "c", "d"], |_| {}).await;
    place.clock.advance(SHARE / 2);
    let small = asked(&place, "/small", by(""), &["a"], |_| {}).await;
    place.claim().await;
    assert_eq!(place.claim().await.request.id, small);
    place.holds().await;
}

#[tokio::test]
async fn no_more_jobs_of_a_repository_agent_or_provider_are_under_way_than_its_limit() {
    let place = place().await;
    let ledger = &place.ledger;
    let repository = ledger.repository("/r").await.unwrap();
    let model = |ask: &mut Ask| ask.model = Some("acme/large".into());
    for (limit, most) in [
        (Limited::Repository(repository), 2),
        (Limited::Agent("built-in".into()), 1),
        (Limited::Provider("acme".into()), 3),
    ] {
        ledger.set_limit(limit.clone(), Some(most)).await.unwrap();
        let request = asked(&place, "/r", by(""), &["a", "b", "c", "d"], model).await;
        let mut held = Vec::new();
        while let Some(claimed) = place.try_claim().await {
            held.push(claimed);
        }
        assert_eq!(held.len(), most as usize, "{limit:?}");
        // Another repository, agent and provider are not concerned.
        let other = |ask: &mut Ask| ask.agent = "another".into();
        let free = asked(&place, "/s", by(""), &["a"], other).await;
        assert_eq!(place.claim().await.request.id, free);
        // One that ends makes room for one more.
        done(&place, &held.remove(0)).await;
        assert_eq!(place.claim().await.request.id, request);
        assert!(place.try_claim().await.is_none());
        place.holds().await;
        for request in [request, free] {
            ledger.cancel_request(request).await.unwrap();
        }
        ledger.set_limit(limit, None).await.unwrap();
        assert!(ledger.limits().await.unwrap().is_empty());
    }
    place.holds().await;
}

#[tokio::test]
async fn a_job_goes_only_to_a_worker_that_can_do_it_and_that_it_is_meant_for() {
    let place = place().await;
    let placement = Placement {
        needs: vec!["gpu".into()],
        ..Placement::default()
    };
    let needy = asked(&place, "/r", placement, &["a"], |_| {}).await;
    let placement = Placement {
        pin: Some("any".into()),
        ..Placement::default()
    };
    let pinned = asked(&place, "/r", placement, &["a"], |_| {}).await;
    assert!(place.try_claim().await.is_none());
    let able = Seek {
        capabilities: ["gpu".to_owned(), "x".to_owned()].into(),
        ..Seek::default()
    };
    let named = Seek {
        worker: Some("any".into()),
        ..Seek::default()
    };
    for (seek, expected) in [(able, needy), (named, pinned)] {
        let claimed = place.ledger.claim_job(&place.owner, seek).await.unwrap();
        assert_eq!(claimed.unwrap().request.id, expected);
    }
    place.holds().await;
}

#[tokio::test]
async fn a_job_that_failed_for_a_reason_from_outside_sleeps_and_is_woken_once() {
    let place = place().await;
    place.planned(&["a"]).await;
    let claimed = place.running().await;
    let failure = Failure::new(Reason::RateLimited, "status 429");
    let settled = place
        .ledger
        .settle_attempt(&claimed.lease, Settlement::Failed { failure })
        .await
        .unwrap();
    assert_eq!(settled.job, JobState::Parked);
    assert!(place.try_claim().await.is_none());
    place.holds().await;
    place.clock.advance(Duration::from_secs(2));
    assert_eq!(place.claim().await.job.id, claimed.job.id);
    assert!(place.try_claim().await.is_none());
    place.holds().await;
}

#[tokio::test]
async fn a_laptop_that_slept_gives_live_holders_one_heartbeat_and_ends_those_that_give_none() {
    let place = place().await;
    place.planned(&["a", "b"]).await;
    let (alive, silent) = (place.running().await, place.running().await);
    place.clock.advance(Duration::from_secs(8 * 3_600));
    place.look().await;
    place.ledger.standing(&alive.lease).await.unwrap();
    place.ledger.standing(&silent.lease).await.unwrap();
    place.ledger.heartbeat(&alive.lease).await.unwrap();
    place.clock.advance(Duration::from_secs(30));
    place.look().await;
    place.ledger.standing(&alive.lease).await.unwrap();
    assert!(matches!(
        place.ledger.standing(&silent.lease).await,
        Err(Error::LeaseLost(_))
    ));
    place.holds().await;
}

#[tokio::test]
async fn too_many_or_too_fast_submissions_are_refused_with_when_to_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Options {
        admission: Admission {
            waiting: 3,
            per_minute: Some(2),
        },
        ..Options::new(directory.path())
    })
    .await
    .unwrap();
    let session = ledger.session("s").await.unwrap();
    let helper = place().await;
    let mut ask = helper.ask().await;
    ask.repository = ledger.repository("/r").await.unwrap();
    let submit = |user: &str| {
        let mut ask = ask.clone();
        ask.placement.user = user.into();
        let ledger = ledger.clone();
        async move { ledger.submit(session, ask, None).await }
    };
    submit("one").await.unwrap();
    submit("one").await.unwrap();
    let refused = submit("one").await.unwrap_err();
    let Error::Busy { retry_after, .. } = refused else {
        panic!("{refused:?}");
    };
    assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(30));
    submit("two").await.unwrap();
    let refused = submit("two").await.unwrap_err();
    assert!(
        refused.to_string().contains("wait to be planned"),
        "{refused}"
    );
    assert_eq!(ledger.requests(10, None).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_key_answers_with_its_request_even_when_nothing_more_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let admission = Admission {
        waiting: 1,
        per_minute: None,
    };
    let ledger = Ledger::open(Options {
        admission,
        ..Options::new(directory.path())
    })
    .await
    .unwrap();
    let session = ledger.session("s").await.unwrap();
    let mut ask = place().await.ask().await;
    ask.repository = ledger.repository("/r").await.unwrap();
    let first = ledger
        .submit(session, ask.clone(), Some("k"))
        .await
        .unwrap();
    assert!(ledger.submit(session, ask.clone(), None).await.is_err());
    assert_eq!(ledger.submit(session, ask, Some("k")).await.unwrap(), first);
}

#[tokio::test]
async fn a_place_in_the_queue_counts_what_is_claimed_before() {
    let place = place().await;
    let ledger = &place.ledger;
    let first = place.planned(&["a", "b"]).await;
    place.clock.advance(Duration::from_secs(1));
    let second = place.planned(&["c"]).await;
    let job = ledger.jobs(second).await.unwrap()[0].id;
    let found = ledger.job_position(job).await.unwrap().unwrap();
    assert_eq!((found.ahead, found.wait), (2, None));
    place.clock.advance(Duration::from_secs(59));
    let claimed = place.running().await;
    assert_eq!(claimed.request.id, first);
    place.clock.advance(Duration::from_secs(10));
    let failure = Failure::new(Reason::TimedOut, "");
    ledger
        .settle_attempt(&claimed.lease, Settlement::Failed { failure })
        .await
        .unwrap();
    let found = ledger.job_position(job).await.unwrap().unwrap();
    assert_eq!(found.ahead, 1);
    let wait = found.wait.unwrap().as_secs_f64();
    assert!((8.7..11.3).contains(&wait), "{wait}");
    let told = ledger.statistics(Duration::from_secs(60)).await.unwrap();
    assert_eq!((told.dead, told.timed_out, told.jobs_waiting), (1, 1, 2));
    assert_eq!(told.success_rate(), Some(0.0));
    let waited = told.wait.p50.as_secs_f64();
    assert!((53.0..68.0).contains(&waited), "{waited}");
    assert_eq!(told.run.count, 1);
}

#[tokio::test]
async fn what_died_is_listed_with_its_reason() {
    let place = place().await;
    assert!(
        place
            .ledger
            .dead_letters(10, None)
            .await
            .unwrap()
            .jobs
            .is_empty()
    );
    place.planned(&["a", "b a"]).await;
    let claimed = place.claim().await;
    done(&place, &claimed).await;
    let dead = place.ledger.dead_letters(10, None).await.unwrap().jobs;
    let said: Vec<_> = dead
        .iter()
        .map(|job| (job.spec.name.as_str(), job.failure.as_ref().unwrap().reason))
        .collect();
    assert_eq!(
        said,
        [("b", Reason::DependencyFailed), ("a", Reason::Stuck)]
    );
    let other = place.ledger.repository("/other").await.unwrap();
    assert!(
        place
            .ledger
            .dead_letters(10, Some(other))
            .await
            .unwrap()
            .jobs
            .is_empty()
    );
}

#[tokio::test]
async fn a_budget_that_is_added_to_reaches_the_jobs_that_are_left() {
    let place = place().await;
    let ledger = &place.ledger;
    let request = place.planned(&["a", "b"]).await;
    let jobs = ledger.jobs(request).await.unwrap();
    let more = crate::support::tokens(100);
    let before = ledger.job_account(jobs[0].id).await.unwrap();
    ledger.top_up(request, more, None).await.unwrap();
    for job in &jobs {
        let after = ledger.job_account(job.id).await.unwrap();
        assert_eq!(after.total.tokens, before.total.tokens + 50);
        assert_eq!(after.free.tokens, before.free.tokens + 50);
    }
    let account = ledger.account(request).await.unwrap();
    assert_eq!(account.total.tokens, 1_100);
    place.holds().await;
    ledger.cancel_request(request).await.unwrap();
    assert!(matches!(
        ledger.top_up(request, more, None).await,
        Err(Error::Ended { .. })
    ));
    place.holds().await;
}
