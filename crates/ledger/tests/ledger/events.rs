//! The order of events, and how they are followed.

use crate::support::{open, place};
use domain::event::Body;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sequences_have_no_gap_under_sixteen_callers_of_two_handles() {
    let place = place().await;
    let second = open(place.directory.path(), &place.clock).await;
    let other = place.ledger.session("other").await.unwrap();
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let ledger = if caller % 2 == 0 {
                place.ledger.clone()
            } else {
                second.clone()
            };
            let session = if caller % 4 < 2 { place.session } else { other };
            tokio::spawn(async move {
                for count in 0..25 {
                    ledger
                        .note(session, None, format!("{caller} {count}"))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    for session in [place.session, other] {
        let events = place.ledger.events(session, 0, 1_000).await.unwrap();
        let sequences: Vec<u64> = events.iter().map(|envelope| envelope.sequence).collect();
        assert_eq!(sequences, (1..=201).collect::<Vec<u64>>());
        assert_eq!(place.ledger.last_sequence(session).await.unwrap(), 201);
    }
    place.holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscription_joins_the_past_to_the_present_without_a_gap_or_a_duplicate() {
    const EVENTS: u64 = 3_000;
    let place = place().await;
    // It has a past of more than one page, and is written by this handle and by another.
    let second = open(place.directory.path(), &place.clock).await;
    let writers: Vec<_> = [place.ledger.clone(), second]
        .into_iter()
        .map(|ledger| {
            let session = place.session;
            tokio::spawn(async move {
                for _ in 0..(EVENTS / 2 / 50) {
                    let notes: Vec<_> = (0..50)
                        .map(|count: u64| {
                            let ledger = ledger.clone();
                            tokio::spawn(async move {
                                ledger.note(session, None, count.to_string()).await
                            })
                        })
                        .collect();
                    for note in notes {
                        note.await.unwrap().unwrap();
                    }
                }
            })
        })
        .collect();
    let mut readers = Vec::new();
    for after in [0, 1, 100, 700] {
        let ledger = place.ledger.clone();
        while ledger.last_sequence(place.session).await.unwrap() < after {
            ledger.changes().changed().await.unwrap();
        }
        let mut subscription = ledger.subscribe(place.session, after).await.unwrap();
        readers.push(tokio::spawn(async move {
            for expected in after + 1..=EVENTS + 1 {
                let envelope = tokio::time::timeout(DEADLINE, subscription.next())
                    .await
                    .expect("the next event comes")
                    .unwrap();
                assert_eq!(envelope.sequence, expected);
            }
        }));
    }
    for task in writers.into_iter().chain(readers) {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_subscription_that_is_not_waited_for_loses_nothing() {
    let place = place().await;
    let mut subscription = place.ledger.subscribe(place.session, 1).await.unwrap();
    let none = tokio::time::timeout(Duration::from_millis(20), subscription.next()).await;
    assert!(none.is_err(), "there is no event yet");
    place.ledger.note(place.session, None, "one").await.unwrap();
    let envelope = subscription.next().await.unwrap();
    assert_eq!(envelope.sequence, 2);
    assert_eq!(envelope.body, Body::Note { text: "one".into() });
    place.ledger.close().await;
    assert!(matches!(
        subscription.next().await,
        Err(ledger::Error::Closed)
    ));
}

#[tokio::test]
async fn a_directory_whose_path_is_too_long_for_a_socket_is_polled() {
    let place = place().await;
    let long = place.directory.path().join("d".repeat(120));
    let one = open(&long, &place.clock).await;
    let two = open(&long, &place.clock).await;
    let session = one.session("far").await.unwrap();
    let mut subscription = one.subscribe(session, 1).await.unwrap();
    two.note(session, None, "heard").await.unwrap();
    let envelope = tokio::time::timeout(DEADLINE, subscription.next())
        .await
        .expect("polling finds it")
        .unwrap();
    assert_eq!(envelope.sequence, 2);
}

#[tokio::test]
async fn a_claim_that_finds_nothing_wakes_nobody() {
    let place = place().await;
    place.ledger.note(place.session, None, "one").await.unwrap();
    let mut changes = place.ledger.changes();
    changes.mark_unchanged();
    for _ in 0..3 {
        assert!(place.try_claim().await.is_none());
    }
    let woken = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
    assert!(woken.is_err(), "a claimer that wakes claimers never rests");
}

#[tokio::test]
async fn many_subscribers_at_different_places_each_see_every_event_once() {
    const EVENTS: u64 = 1_300;
    let place = place().await;
    let first = place.ledger.last_sequence(place.session).await.unwrap();
    let last = first + EVENTS;
    let mut readers = tokio::task::JoinSet::new();
    let read = |after: u64| {
        let (ledger, session) = (place.ledger.clone(), place.session);
        async move {
            let mut events = ledger.subscribe(session, after).await.unwrap();
            for sequence in after + 1..=last {
                assert_eq!(events.next().await.unwrap().sequence, sequence);
            }
        }
    };
    for _ in 0..20 {
        readers.spawn(read(first));
    }
    for number in 0..EVENTS {
        let text = number.to_string();
        place.ledger.note(place.session, None, text).await.unwrap();
        if number % 100 == 0 {
            readers.spawn(read(0));
            readers.spawn(read(first + number));
        }
    }
    readers.join_all().await;
}
