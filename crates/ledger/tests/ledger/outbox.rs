//! The outbox: what is told, to whom, how often, and when it is given up.

use crate::support::{Place, open, place};
use domain::{Amount, RequestState, event::Body};
use ledger::{ClaimedNotification, Error, MAX_TRIES, Unreached};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3_600);

async fn claim(place: &Place) -> Option<ClaimedNotification> {
    place.ledger.claim_notification(&place.owner).await.unwrap()
}

fn unreached(sink: &str, again: bool) -> Unreached {
    Unreached {
        sink: sink.into(),
        why: "it answered 503".into(),
        again,
    }
}

async fn notes(place: &Place) -> Vec<String> {
    let events = place.ledger.events(place.session, 0, 1_000).await.unwrap();
    events
        .into_iter()
        .filter_map(|event| match event.body {
            Body::Note { text } => Some(text),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_request_that_has_ended_is_told_once_with_what_it_was_about() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    assert!(claim(&place).await.is_none(), "nothing has ended");
    assert!(!place.ledger.is_untold(request).await.unwrap());
    place.ledger.cancel_request(request).await.unwrap();
    assert!(place.ledger.is_untold(request).await.unwrap());

    let told = claim(&place).await.unwrap();
    assert_eq!(told.request, request);
    assert_eq!(told.title, "Mend the parser");
    assert_eq!(told.state, RequestState::Cancelled);
    assert_eq!(told.spent, Amount::ZERO);
    assert_eq!(told.sinks, None, "it goes to all");
    let events = place.ledger.request_events(request, 0, 100).await.unwrap();
    assert!(events.contains(&told.event));
    place.holds().await;
    assert!(claim(&place).await.is_none(), "it is held");

    place
        .ledger
        .settle_notification(&told.lease, vec![])
        .await
        .unwrap();
    place.clock.advance(LONG);
    assert!(claim(&place).await.is_none());
    assert!(!place.ledger.is_untold(request).await.unwrap());
    let again = place.ledger.settle_notification(&told.lease, vec![]).await;
    assert!(matches!(again, Err(Error::LeaseLost(_))), "{again:?}");
    place.holds().await;
}

#[tokio::test]
async fn a_request_of_one_job_that_is_integrated_is_told_as_done() {
    let place = place().await;
    let request = place.planned(&["a"]).await;
    place.deliver().await;
    let change = place.claim_change().await.unwrap();
    place.ledger.change_checking(&change.lease).await.unwrap();
    let commit = ledger::ChangeOutcome::Integrated {
        commit: "e".repeat(40),
    };
    place
        .ledger
        .settle_change(&change.lease, commit)
        .await
        .unwrap();
    let told = claim(&place).await.unwrap();
    assert_eq!((told.request, told.state), (request, RequestState::Done));
    place.holds().await;
}

#[tokio::test]
async fn only_the_sinks_that_were_not_reached_are_tried_again_and_later_each_time() {
    let place = place().await;
    let request = place.submit().await;
    place.ledger.cancel_request(request).await.unwrap();
    let first = claim(&place).await.unwrap();
    place
        .ledger
        .settle_notification(&first.lease, vec![unreached("hook", true)])
        .await
        .unwrap();
    assert!(claim(&place).await.is_none(), "it waits");
    let due = place.ledger.next_notification().await.unwrap().unwrap();
    let wait = due.since(place.ledger.now());
    assert!(wait >= Duration::from_secs(1) && wait < Duration::from_secs(2));
    place.clock.advance(wait);

    let second = claim(&place).await.unwrap();
    assert_eq!(second.event, first.event, "it has the same id");
    assert_eq!(second.sinks, Some(vec!["hook".into()]));
    let other = place
        .ledger
        .settle_notification(&second.lease, vec![unreached("other", true)])
        .await;
    assert!(matches!(other, Err(Error::Invalid(_))), "{other:?}");
    place
        .ledger
        .settle_notification(&second.lease, vec![unreached("hook", true)])
        .await
        .unwrap();
    let due = place.ledger.next_notification().await.unwrap().unwrap();
    let wait = due.since(place.ledger.now());
    assert!(wait >= Duration::from_secs(2) && wait < Duration::from_secs(4));
    assert!(notes(&place).await.is_empty());
    place.holds().await;
}

#[tokio::test]
async fn a_sink_that_is_given_up_is_said_with_its_reason() {
    let place = place().await;
    let request = place.submit().await;
    place.ledger.cancel_request(request).await.unwrap();
    for tries in 1..=MAX_TRIES {
        let told = claim(&place).await.expect("it is tried again");
        let lasting = vec![unreached("slow", true), unreached("gone", false)];
        let left = if tries == 1 {
            lasting
        } else {
            lasting[..1].to_vec()
        };
        place
            .ledger
            .settle_notification(&told.lease, left)
            .await
            .unwrap();
        place.holds().await;
        place.clock.advance(LONG);
    }
    assert!(claim(&place).await.is_none());
    assert_eq!(
        notes(&place).await,
        ["gone", "slow"].map(|sink| format!(
            "{sink} was not told of this request and will not be: it answered 503"
        ))
    );
    place.holds().await;
}

#[tokio::test]
async fn a_notification_whose_holder_is_lost_is_told_again_but_not_for_ever() {
    let place = place().await;
    let request = place.submit().await;
    place.ledger.cancel_request(request).await.unwrap();
    let mut ids = vec![];
    for _ in 0..MAX_TRIES {
        let told = claim(&place).await.expect("it is told again");
        ids.push(told.event.id);
        place.lose_and_wait().await;
        place.holds().await;
        let late = place.ledger.settle_notification(&told.lease, vec![]).await;
        assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "it is one notification");
    assert!(claim(&place).await.is_none());
    let notes = notes(&place).await;
    assert!(notes[0].contains("ended 10 times"), "{notes:?}");
    place.holds().await;
}

#[tokio::test]
async fn the_next_process_tells_what_is_left() {
    let place = place().await;
    let request = place.submit().await;
    place.ledger.cancel_request(request).await.unwrap();
    let held = claim(&place).await.unwrap();
    let Place {
        ledger,
        owner,
        directory,
        clock,
        ..
    } = place;
    drop(owner);
    ledger.close().await;
    let ledger = open(directory.path(), &clock).await;
    let owner = ledger.owner().await.unwrap();
    let told = ledger.claim_notification(&owner).await.unwrap().unwrap();
    assert_eq!(told.event, held.event);
}
