//! Dead letters: what is given up can be listed, looked at and done again.

use crate::support::{Place, open, place};
use domain::{EventId, Failure, Reason, RequestId, RequestState, event::Body};
use ledger::{
    ChangeOutcome, ClaimedNotification, Delivery, Error, Found, GivenUp, MAX_TRIES, Settlement,
    Undelivered, Unreached,
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3_600);

async fn claim(place: &Place) -> Option<ClaimedNotification> {
    place.ledger.claim_notification(&place.owner).await.unwrap()
}

async fn settle(place: &Place, told: &ClaimedNotification, unreached: Vec<Unreached>) {
    place
        .ledger
        .settle_notification(&told.lease, unreached)
        .await
        .unwrap();
}

fn unreached(sink: &str, again: bool) -> Unreached {
    Unreached {
        sink: sink.into(),
        why: "it answered 404".into(),
        again,
    }
}

fn given_up(sink: &str) -> GivenUp {
    GivenUp {
        sink: Some(sink.into()),
        why: "it answered 404".into(),
    }
}

async fn undelivered(place: &Place) -> Vec<Undelivered> {
    let dead = place.ledger.dead_letters(10, None).await.unwrap();
    dead.notifications
}

/// A notification of a request that was cancelled, given up for one of two sinks.
async fn lost_for_one_sink(place: &Place) -> (RequestId, EventId) {
    let request = place.submit().await;
    place.ledger.cancel_request(request).await.unwrap();
    let told = claim(place).await.unwrap();
    settle(place, &told, vec![unreached("hook", false)]).await;
    (request, told.event.id)
}

#[tokio::test]
async fn a_notification_that_was_given_up_is_told_again_only_to_whom_it_did_not_reach() {
    let place = place().await;
    let (request, id) = lost_for_one_sink(&place).await;
    place.holds().await;
    assert!(claim(&place).await.is_none());
    let dead = undelivered(&place).await;
    assert_eq!(dead[0].event, id);
    assert_eq!(
        (dead[0].request, &*dead[0].title),
        (request, "Mend the parser")
    );
    assert_eq!(dead[0].time, place.ledger.now());
    assert_eq!(dead[0].unreached, [given_up("hook")]);
    let stands = place.ledger.delivery(id).await.unwrap();
    assert_eq!(stands, Delivery::GivenUp(dead[0].clone()));
    let named = place.ledger.find(&id.to_string()[..6]).await.unwrap();
    assert_eq!(named, Found::Notification(id));

    assert!(place.ledger.tell_again(id).await.unwrap());
    place.holds().await;
    assert!(undelivered(&place).await.is_empty());
    assert_eq!(place.ledger.delivery(id).await.unwrap(), Delivery::Waits);
    assert!(
        !place.ledger.tell_again(id).await.unwrap(),
        "once is enough"
    );
    let named = place.ledger.find(&id.to_string()).await.unwrap();
    assert_eq!(named, Found::Notification(id));

    let told = claim(&place).await.unwrap();
    assert_eq!((told.event.id, told.state), (id, RequestState::Cancelled));
    assert_eq!(told.sinks, Some(vec!["hook".into()]));
    assert!(
        !place.ledger.tell_again(id).await.unwrap(),
        "it is being told"
    );
    settle(&place, &told, vec![]).await;
    place.holds().await;
    assert!(claim(&place).await.is_none(), "it was told once");
    assert_eq!(place.ledger.delivery(id).await.unwrap(), Delivery::Over);
    let again = place.ledger.tell_again(id).await;
    assert!(matches!(again, Err(Error::NotFound { .. })), "{again:?}");
    let events = place.ledger.request_events(request, 0, 100).await.unwrap();
    let notes: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Note { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        notes,
        [
            "hook was not told of this request and will not be: it answered 404",
            "hook is told of this request again"
        ]
    );
}

#[tokio::test]
async fn what_is_told_again_is_tried_as_often_as_a_new_one_and_can_be_given_up_again() {
    let place = place().await;
    let (_, id) = lost_for_one_sink(&place).await;
    place.ledger.tell_again(id).await.unwrap();
    for _ in 0..MAX_TRIES {
        let told = claim(&place).await.expect("it is tried again");
        settle(&place, &told, vec![unreached("hook", true)]).await;
        place.holds().await;
        place.clock.advance(LONG);
    }
    assert!(claim(&place).await.is_none());
    assert_eq!(undelivered(&place).await[0].unreached, [given_up("hook")]);
    place.holds().await;
}

#[tokio::test]
async fn a_notification_that_still_waits_for_one_sink_is_told_again_to_both() {
    let place = place().await;
    let request = place.submit().await;
    place.ledger.cancel_request(request).await.unwrap();
    let first = claim(&place).await.unwrap();
    let id = first.event.id;
    let left = vec![unreached("slow", true), unreached("gone", false)];
    settle(&place, &first, left).await;
    place.holds().await;
    place.clock.advance(LONG);

    let second = claim(&place).await.unwrap();
    let refused = place.ledger.tell_again(id).await;
    assert!(matches!(refused, Err(Error::InHand { .. })), "{refused:?}");
    settle(&place, &second, vec![unreached("slow", true)]).await;
    assert!(place.ledger.tell_again(id).await.unwrap());
    place.holds().await;
    let third = claim(&place).await.expect("it is due at once");
    let mut sinks = third.sinks.clone().unwrap();
    sinks.sort();
    assert_eq!(sinks, ["gone", "slow"]);
    // Given up at different times, it is one dead letter.
    let left = vec![unreached("slow", true), unreached("gone", false)];
    settle(&place, &third, left).await;
    place.clock.advance(LONG);
    let fourth = claim(&place).await.unwrap();
    settle(&place, &fourth, vec![unreached("slow", false)]).await;
    place.holds().await;
    let dead = undelivered(&place).await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].unreached, [given_up("gone"), given_up("slow")]);
}

#[tokio::test]
async fn a_notification_whose_tellers_all_died_is_told_again_to_everybody() {
    let place = place().await;
    let request = place.submit().await;
    place.ledger.cancel_request(request).await.unwrap();
    let mut id = None;
    for _ in 0..MAX_TRIES {
        id = Some(claim(&place).await.unwrap().event.id);
        place.lose_and_wait().await;
    }
    assert!(claim(&place).await.is_none());
    place.holds().await;
    let dead = undelivered(&place).await;
    assert_eq!(dead[0].unreached[0].sink, None);
    assert!(dead[0].unreached[0].why.contains("ended 10 times"));
    place.ledger.tell_again(id.unwrap()).await.unwrap();
    let told = claim(&place).await.unwrap();
    assert_eq!(told.sinks, None, "it goes to all");
    place.holds().await;
}

#[tokio::test]
async fn what_was_given_up_outlives_its_process_and_goes_with_its_request() {
    let place = place().await;
    let (_, id) = lost_for_one_sink(&place).await;
    let Place {
        ledger,
        owner,
        session,
        directory,
        clock,
    } = place;
    drop(owner);
    ledger.close().await;
    let ledger = open(directory.path(), &clock).await;
    let place = Place {
        owner: ledger.owner().await.unwrap(),
        ledger,
        session,
        directory,
        clock,
    };
    assert_eq!(undelivered(&place).await[0].event, id);
    place.clock.advance(LONG);
    place.ledger.prune(place.ledger.now()).await.unwrap();
    assert!(undelivered(&place).await.is_empty());
    assert_eq!(place.ledger.delivery(id).await.unwrap(), Delivery::Over);
    place.holds().await;
}

#[tokio::test]
async fn a_check_finds_what_was_given_up_of_nothing() {
    let place = place().await;
    lost_for_one_sink(&place).await;
    let file = rusqlite::Connection::open(place.directory.path().join("ledger.db")).unwrap();
    for damage in [
        "INSERT INTO undelivered (event, session, request, time, unreached) \
         SELECT event, session, request, time, unreached FROM undelivered",
        "UPDATE undelivered SET request = 77",
        "UPDATE undelivered SET unreached = '[]'",
        "UPDATE undelivered SET unreached = 'nonsense'",
    ] {
        file.execute_batch(&format!("BEGIN; {damage}; COMMIT"))
            .unwrap();
        let violations = place.ledger.check().await.unwrap();
        assert!(
            violations[0].to_string().contains("given up"),
            "{violations:?}"
        );
    }
}

#[tokio::test]
async fn the_dead_of_every_queue_are_listed_the_newest_first_and_what_was_cancelled_is_not() {
    let place = place().await;
    let nothing = place.ledger.dead_letters(10, None).await.unwrap();
    assert!(nothing.jobs.is_empty() && nothing.requests.is_empty());
    assert!(nothing.changes.is_empty() && nothing.notifications.is_empty());
    // One whose change does not merge, two whose job fails, one that is cancelled half-way.
    let conflicted = place.planned(&["a"]).await;
    place.deliver().await;
    let change = place.claim_change().await.unwrap();
    let files = vec!["README".to_owned()];
    let outcome = ChangeOutcome::Conflicted { files };
    place
        .ledger
        .settle_change(&change.lease, outcome)
        .await
        .unwrap();
    let mut failed = Vec::new();
    for name in ["b", "c"] {
        place.clock.advance(Duration::from_secs(1));
        failed.push(place.planned(&[name]).await);
        let held = place.running().await;
        let failure = Failure::new(Reason::Stuck, "it read one file for ever");
        place
            .ledger
            .settle_attempt(&held.lease, Settlement::Failed { failure })
            .await
            .unwrap();
    }
    let cancelled = place.planned(&["d"]).await;
    place.deliver().await;
    place.ledger.cancel_request(cancelled).await.unwrap();

    let dead = place.ledger.dead_letters(10, None).await.unwrap();
    let names: Vec<_> = dead.jobs.iter().map(|job| &*job.spec.name).collect();
    assert_eq!(names, ["c", "b"]);
    let requests: Vec<_> = dead.requests.iter().map(|request| request.id).collect();
    assert_eq!(requests, [failed[1], failed[0], conflicted]);
    let changes: Vec<_> = dead.changes.iter().map(|change| change.request).collect();
    assert_eq!(changes, [conflicted]);
    let failure = dead.changes[0].failure.as_ref().unwrap();
    assert_eq!(
        failure.to_string(),
        "the change conflicts with integrated work: README"
    );

    let few = place.ledger.dead_letters(1, None).await.unwrap();
    assert_eq!((few.jobs.len(), few.requests.len()), (1, 1));
    assert_eq!(few.requests[0].id, failed[1]);
    let other = place.ledger.repository("/other").await.unwrap();
    let others = place.ledger.dead_letters(10, Some(other)).await.unwrap();
    assert!(others.jobs.is_empty() && others.requests.is_empty() && others.changes.is_empty());
}
