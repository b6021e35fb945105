//! How long things took and how they ended, over a window.

use crate::support::{Place, passed, place, plan};
use domain::{Failure, Reason};
use ledger::{ClaimedJob, Settlement};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

/// A request with so many jobs, all of which may be under way at once.
async fn asked(place: &Place, jobs: u32) -> domain::RequestId {
    let ledger = &place.ledger;
    let mut ask = place.ask().await;
    ask.parallel = jobs;
    let request = ledger.submit(place.session, ask, None).await.unwrap();
    let claimed = ledger.claim_request(&place.owner, Some(request)).await;
    let names: Vec<String> = (0..jobs).map(|n| format!("job{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ledger
        .plan_request(&claimed.unwrap().unwrap().lease, plan(&names), None)
        .await
        .unwrap();
    request
}

fn failed(reason: Reason) -> Settlement {
    Settlement::Failed {
        failure: Failure::new(reason, ""),
    }
}

/// Ends an attempt that runs.
async fn end(place: &Place, claimed: &ClaimedJob, settlement: Settlement) {
    let (ledger, lease) = (&place.ledger, &claimed.lease);
    if matches!(settlement, Settlement::Passed { .. }) {
        let checking = ledger.attempt_checking(lease, "d".repeat(40)).await;
        checking.unwrap();
    }
    ledger.settle_attempt(lease, settlement).await.unwrap();
}

/// A job that has waited and run for so long, and then failed.
async fn took(place: &Place, wait: Duration, run: Duration, reason: Reason) {
    asked(place, 1).await;
    place.clock.advance(wait);
    let claimed = place.running().await;
    place.clock.advance(run);
    end(place, &claimed, failed(reason)).await;
}

/// Whether a duration is what it should be, but for an eighth.
#[track_caller]
fn assert_near(found: Duration, wanted: u64) {
    let wanted = Duration::from_secs(wanted);
    assert!(found.abs_diff(wanted) <= wanted / 8, "{found:?}");
}

#[tokio::test]
async fn the_middle_and_the_slow_end_of_waiting_and_running_are_told_to_an_eighth() {
    let place = place().await;
    asked(&place, 20).await;
    let second = Duration::from_secs(1);
    let mut running = Vec::new();
    // They wait from 1 to 20 seconds, and run from 21 to 40.
    for _ in 1..=20 {
        place.clock.advance(second);
        running.push(place.running().await);
    }
    for claimed in &running {
        place.clock.advance(second * 2);
        end(&place, claimed, failed(Reason::Stuck)).await;
    }
    let told = place.ledger.statistics(HOUR).await.unwrap();
    assert_eq!((told.wait.count, told.run.count), (20, 20));
    assert_near(told.wait.p50, 10);
    assert_near(told.wait.p95, 19);
    assert_near(told.run.p50, 30);
    assert_near(told.run.p95, 39);
    place.holds().await;
}

#[tokio::test]
async fn rates_count_what_ended_and_leave_out_what_was_cancelled() {
    let place = place().await;
    let before = place.ledger.statistics(HOUR).await.unwrap();
    assert_eq!((before.success_rate(), before.timeout_rate()), (None, None));
    let request = asked(&place, 16).await;
    for n in 0..10 {
        let claimed = place.running().await;
        let settlement = match n {
            0..5 => passed(),
            5..8 => failed(Reason::Stuck),
            _ => failed(Reason::TimedOut),
        };
        end(&place, &claimed, settlement).await;
    }
    place.ledger.cancel_request(request).await.unwrap();
    let told = place.ledger.statistics(HOUR).await.unwrap();
    assert_eq!((told.delivered, told.dead, told.timed_out), (5, 5, 2));
    assert_eq!(told.cancelled, 6);
    assert_eq!(told.success_rate(), Some(0.5));
    assert_eq!(told.timeout_rate(), Some(0.2));
    place.holds().await;
}

#[tokio::test]
async fn a_window_leaves_out_what_is_older_to_the_hour() {
    let place = place().await;
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(100));
    took(&place, long, long, Reason::TimedOut).await;
    place.clock.advance(HOUR * 3);
    took(&place, short, short, Reason::Stuck).await;
    let recent = place.ledger.statistics(HOUR).await.unwrap();
    assert_eq!((recent.dead, recent.timed_out), (1, 0));
    assert_eq!(recent.timeout_rate(), Some(0.0));
    for measured in [recent.wait, recent.run] {
        assert_eq!(measured.count, 1);
        assert_near(measured.p95, 1);
    }
    // The hour in which a window begins counts as a whole.
    let all = place.ledger.statistics(HOUR * 3).await.unwrap();
    assert_eq!((all.dead, all.timed_out), (2, 1));
    assert_eq!(all.timeout_rate(), Some(0.5));
    for measured in [all.wait, all.run] {
        assert_eq!(measured.count, 2);
        assert_near(measured.p50, 1);
        assert_near(measured.p95, 100);
    }
    // Hours later there is nothing in it any more.
    place.clock.advance(HOUR * 2);
    let none = place.ledger.statistics(HOUR).await.unwrap();
    assert_eq!((none.dead, none.wait.count, none.run.count), (0, 0, 0));
    assert_eq!(none.success_rate(), None);
    place.holds().await;
}
