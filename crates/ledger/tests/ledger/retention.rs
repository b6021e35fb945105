//! Old work goes, and what is kept stays whole.

use crate::support::{BUDGET, Place, place, plan, tokens};
use domain::{
    RequestId, Timestamp,
    entity::Included,
    event::{self, Body},
};
use ledger::{
    Admission, ChangeOutcome, Clock, Depth, Error, Exchange, Ledger, Options, Pruned, Spender,
};
use proptest::prelude::*;
use rusqlite::Connection;
use std::{sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_secs(3_600);

impl Place {
    fn time(&self) -> Timestamp {
        self.ledger.now()
    }

    fn rows(&self, table: &str) -> i64 {
        let file = Connection::open(self.directory.path().join("ledger.db")).unwrap();
        let text = format!("SELECT COUNT(*) FROM {table}");
        file.query_row(&text, [], |row| row.get(0)).unwrap()
    }

    /// Merges the next change.
    async fn merge(&self) {
        let claimed = self.claim_change().await.unwrap();
        let commit = "e".repeat(40);
        self.ledger
            .settle_change(&claimed.lease, ChangeOutcome::Integrated { commit })
            .await
            .unwrap();
    }

    /// A request that is done, with its whole way in rows and blobs.
    async fn done(&self, text: &str) -> RequestId {
        let mut ask = self.ask().await;
        ask.included = vec![Included {
            path: ".env".into(),
            executable: false,
            content: self
                .ledger
                .put_blob(format!("included {text}"))
                .await
                .unwrap(),
        }];
        let request = self
            .ledger
            .submit(self.session, ask, Some(text))
            .await
            .unwrap();
        let claimed = self
            .ledger
            .claim_request(&self.owner, Some(request))
            .await
            .unwrap()
            .unwrap();
        self.ledger
            .plan_request(&claimed.lease, plan(&["a", "b a"]), None)
            .await
            .unwrap();
        for _ in 0..2 {
            let held = self.running().await;
            let attempt = self.ledger.attempts(held.job.id).await.unwrap()[0].id;
            let told = self.ledger.put_blob(format!("told {text}")).await.unwrap();
            let event = event::Agent::Turn {
                round: 1,
                feedback: Some(told),
            };
            self.ledger
                .record(&held.lease, vec![Body::Agent { attempt, event }])
                .await
                .unwrap();
            let spender = Spender::Attempt(&held.lease, attempt);
            let grant = self.ledger.open_grant(spender).await.unwrap();
            self.ledger.reserve(grant, 1, tokens(10)).await.unwrap();
            let called = Body::ModelCalled {
                attempt: Some(attempt),
                model: "test/model".into(),
                call: 1,
                spent: tokens(10),
                metered: true,
                priced: true,
                status: Some(200),
                duration_ms: 1,
            };
            let exchange = Exchange {
                call: 1,
                endpoint: "/v1/messages".into(),
                request: self.ledger.put_blob(format!("sent {text}")).await.unwrap(),
                digest: String::new(),
                status: 200,
                headers: Vec::new(),
                response: self.ledger.put_blob(format!("came {text}")).await.unwrap(),
            };
            self.ledger
                .settle(grant, called, Some(exchange))
                .await
                .unwrap();
            self.ledger
                .attempt_checking(&held.lease, "d".repeat(40))
                .await
                .unwrap();
            self.ledger
                .settle_attempt(&held.lease, crate::support::passed())
                .await
                .unwrap();
            self.merge().await;
        }
        request
    }
}

#[tokio::test]
async fn old_requests_go_with_all_that_belongs_to_them_and_new_ones_stay() {
    let place = place().await;
    let ledger = &place.ledger;
    let old = place.done("old").await;
    place.clock.advance(HOUR);
    let between = place.time();
    let new = place.done("new").await;
    let before = ledger.events(place.session, 0, 1_000).await.unwrap();

    let would = ledger.would_prune(between).await.unwrap();
    let pruned = ledger.prune(between).await.unwrap();
    assert_eq!(would, pruned);
    assert_eq!(pruned.requests, 1);
    assert!(pruned.events > 10 && pruned.bytes > 1_000, "{pruned:?}");
    place.holds().await;
    let gone = ledger.request(old).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    assert_eq!(ledger.request(new).await.unwrap().ask.budget, BUDGET);
    for (table, left) in [
        ("requests", 1),
        ("asks", 1),
        ("submissions", 1),
        ("jobs", 2),
        ("specs", 2),
        ("dependencies", 1),
        ("attempts", 2),
        ("changes", 2),
        ("grants", 2),
        ("calls", 2),
        ("accounts", 3),
    ] {
        assert_eq!(place.rows(table), left, "{table}");
    }
    // Their blobs are garbage now, and the others' are not.
    let collected = ledger.collect_garbage(Duration::ZERO).await.unwrap();
    assert_eq!(collected.blobs, 4);
    assert_eq!(place.rows("blobs"), 4);
    place.holds().await;

    let first = 1 + pruned.events;
    let session = ledger.sessions(None, 10).await.unwrap().remove(0);
    assert_eq!(session.first, first);
    let kept = ledger
        .events(place.session, first - 1, 1_000)
        .await
        .unwrap();
    assert_eq!(kept, before[pruned.events as usize..]);
    assert_eq!(ledger.prune(between).await.unwrap(), Pruned::default());
    // The key is free again.
    let ask = place.ask().await;
    ledger
        .submit(place.session, ask, Some("old"))
        .await
        .unwrap();
}

#[tokio::test]
async fn whoever_was_behind_what_was_removed_is_told_where_to_go_on() {
    let place = place().await;
    let ledger = &place.ledger;
    let mut late = ledger.subscribe(place.session, 0).await.unwrap();
    for _ in 0..3 {
        ledger.note(place.session, None, "old").await.unwrap();
    }
    place.clock.advance(HOUR);
    let between = place.time();
    ledger.note(place.session, None, "new").await.unwrap();
    ledger.prune(between).await.unwrap();
    let session = place.session;
    for after in [0, 3] {
        let events = ledger.events(session, after, 10).await.unwrap_err();
        let subscribed = ledger.subscribe(session, after).await.unwrap_err();
        for error in [events, subscribed] {
            assert!(
                matches!(error, Error::CursorExpired { session: found, first: 5 } if found == session),
                "{error:?}"
            );
        }
    }
    let error = late.next().await.unwrap_err();
    assert!(
        matches!(error, Error::CursorExpired { first: 5, .. }),
        "{error:?}"
    );
    let mut again = ledger.subscribe(session, 4).await.unwrap();
    assert_eq!(again.next().await.unwrap().sequence, 5);
    // All may go; the next event has the next number.
    place.clock.advance(HOUR);
    ledger.prune(place.time()).await.unwrap();
    place.holds().await;
    ledger.note(session, None, "newer").await.unwrap();
    assert_eq!(again.next().await.unwrap().sequence, 6);
    place.holds().await;
}

#[tokio::test]
async fn a_request_that_goes_on_keeps_all_that_came_after_its_beginning() {
    let place = place().await;
    let ledger = &place.ledger;
    let early = place.planned(&["a"]).await;
    place.clock.advance(HOUR);
    // This one begins before the early one has ended, and goes on.
    let open = place.submit().await;
    place.deliver().await;
    place.merge().await;
    place.clock.advance(HOUR);
    let pruned = ledger.prune(place.time()).await.unwrap();
    assert_eq!(pruned.requests, 0);
    assert!(pruned.events > 0);
    place.holds().await;
    // The beginning of the early one is gone and its rows are there.
    let ended = ledger.request(early).await.unwrap();
    assert!(ended.ended.is_some());
    let kept = ledger.request_events(early, 0, 100).await.unwrap();
    assert_eq!(kept[0].body.kind(), "job_changed");
    let kept = ledger.request_events(open, 0, 100).await.unwrap();
    assert_eq!(kept[0].body.kind(), "request_submitted");
    // When the other one has ended too, both go.
    ledger.cancel_request(open).await.unwrap();
    place.clock.advance(HOUR);
    assert_eq!(ledger.prune(place.time()).await.unwrap().requests, 2);
    assert_eq!(place.rows("events") + place.rows("requests"), 0);
    place.holds().await;
}

#[tokio::test]
async fn a_long_past_goes_in_many_transactions() {
    let place = place().await;
    for _ in 0..3 {
        let notes = (0..400).map(|_| place.ledger.note(place.session, None, "n"));
        for note in notes {
            note.await.unwrap();
        }
        place.submit().await;
    }
    for request in place.ledger.requests(10, None).await.unwrap() {
        place.ledger.cancel_request(request.id).await.unwrap();
    }
    place.clock.advance(HOUR);
    let would = place.ledger.would_prune(place.time()).await.unwrap();
    let pruned = place.ledger.prune(place.time()).await.unwrap();
    assert_eq!(pruned, would);
    assert_eq!((pruned.requests, pruned.events), (3, 1_207));
    place.holds().await;
}

#[tokio::test]
async fn queues_of_which_nothing_is_left_go_and_come_back_when_they_are_needed() {
    let place = place().await;
    let ledger = &place.ledger;
    place.done("old").await;
    let mut ask = place.ask().await;
    ask.placement.user = "another".into();
    let open = ledger.submit(place.session, ask, None).await.unwrap();
    // Requests, jobs and changes of one user, and requests of another.
    assert_eq!(place.rows("queues"), 4);
    place.clock.advance(HOUR);
    let would = ledger.would_prune(place.time()).await.unwrap();
    let pruned = ledger.prune(place.time()).await.unwrap();
    assert_eq!(pruned, would);
    assert_eq!((pruned.requests, pruned.rows), (1, 3));
    assert_eq!(place.rows("queues"), 1, "that of the open request");
    place.holds().await;

    place.done("new").await;
    ledger.cancel_request(open).await.unwrap();
    assert_eq!(place.rows("queues"), 4);
    place.holds().await;
    // What goes with its requests is said before, too.
    place.clock.advance(HOUR);
    let would = ledger.would_prune(place.time()).await.unwrap();
    assert_eq!((would.requests, would.rows), (2, 4));
    assert_eq!(ledger.prune(place.time()).await.unwrap(), would);
    assert_eq!(place.rows("queues"), 0);
    place.holds().await;
}

#[tokio::test]
async fn counts_of_long_ago_go_and_those_of_the_last_week_stay() {
    let place = place().await;
    let ledger = &place.ledger;
    place.done("old").await;
    let month = 30 * 24 * HOUR;
    let counted = place.rows("history");
    assert!(counted > 1);
    place.clock.advance(6 * 24 * HOUR);
    place.done("new").await;
    let told = ledger.statistics(month).await.unwrap();
    // All of it is older, and there is no request any more.
    place.clock.advance(HOUR);
    assert_eq!(ledger.prune(place.time()).await.unwrap().requests, 2);
    assert_eq!(ledger.statistics(month).await.unwrap().run, told.run);
    // After the week, the counts go for which nobody asks.
    place.clock.advance(2 * 24 * HOUR);
    let long_ago = Timestamp(place.time().0 - 20 * 24 * 3_600_000_000);
    assert_eq!(ledger.prune(long_ago).await.unwrap(), Pruned::default());
    let would = ledger.would_prune(place.time()).await.unwrap();
    assert_eq!(i64::try_from(would.rows).unwrap(), counted);
    assert_eq!(ledger.prune(place.time()).await.unwrap(), would);
    let left = ledger.statistics(month).await.unwrap();
    assert_eq!((left.delivered, told.delivered), (2, 4));
    place.clock.advance(8 * 24 * HOUR);
    ledger.prune(place.time()).await.unwrap();
    assert_eq!(place.rows("history"), 0);
}

#[tokio::test]
async fn an_allowance_goes_once_it_is_full_and_not_before() {
    let place = place().await;
    let admission = Admission {
        per_minute: Some(2),
        ..Admission::default()
    };
    let ledger = Ledger::open(Options {
        admission,
        clock: Arc::clone(&place.clock) as Arc<dyn Clock>,
        ..Options::new(place.directory.path())
    })
    .await
    .unwrap();
    let ask = place.ask().await;
    for _ in 0..2 {
        ledger
            .submit(place.session, ask.clone(), None)
            .await
            .unwrap();
    }
    place.clock.advance(Duration::from_secs(20));
    assert_eq!(ledger.prune(place.time()).await.unwrap().rows, 0);
    assert!(
        ledger
            .submit(place.session, ask.clone(), None)
            .await
            .is_err(),
        "pruning makes nobody faster"
    );
    place.clock.advance(Duration::from_secs(40));
    assert_eq!(ledger.would_prune(place.time()).await.unwrap().rows, 1);
    assert_eq!(ledger.prune(place.time()).await.unwrap().rows, 1);
    assert_eq!(place.rows("rates"), 0);
    ledger.submit(place.session, ask, None).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whenever_old_work_is_removed_all_that_must_hold_holds(
        steps in prop::collection::vec((0..8u8, 0..5_400u64), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let place = place().await;
            for (place_in, (step, seconds)) in steps.into_iter().enumerate() {
                place.clock.advance(Duration::from_secs(seconds));
                match step {
                    0 => place.ledger.note(place.session, None, "n").await.unwrap(),
                    1 => drop(place.submit().await),
                    2 => drop(place.planned(&["a", "b a"]).await),
                    3 => drop(place.done(&format!("step {place_in}")).await),
                    4 => drop(place.try_claim().await),
                    5 => for request in place.ledger.requests(2, None).await.unwrap() {
                        if request.ended.is_none() {
                            place.ledger.cancel_request(request.id).await.unwrap();
                        }
                    },
                    _ => {
                        let before = Timestamp(place.time().0 - 3_600_000_000);
                        let would = place.ledger.would_prune(before).await.unwrap();
                        assert_eq!(place.ledger.prune(before).await.unwrap(), would);
                        place.ledger.collect_garbage(Duration::ZERO).await.unwrap();
                        place.holds().await;
                    }
                }
            }
            place.holds().await;
        });
    }
}

#[tokio::test]
async fn a_blob_stays_until_it_is_durable_that_nothing_names_it() {
    let place = place().await;
    let ledger = &place.ledger;
    for round in 0..20 {
        place.done(&format!("round {round}")).await;
        place.clock.advance(HOUR);
        // At once, so that both are in one transaction when they can be.
        let (pruned, collected) = tokio::join!(
            ledger.prune(place.time()),
            ledger.collect_garbage(Duration::ZERO)
        );
        assert_eq!(pruned.unwrap().requests, 1);
        collected.unwrap();
        let violations = ledger.check_to(Depth::Blobs, |_| {}).await.unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }
    ledger.collect_garbage(Duration::ZERO).await.unwrap();
    assert_eq!(place.rows("blobs"), 0);
}
