//! Bad input and bad storage: typed errors, and nothing changes.

use crate::support::{Place, new_attempt, place, plan};
use domain::{
    Amount, GrantId, JobId, RepositoryId, RequestId, SessionId, Timestamp,
    event::{self, Body},
};
use ledger::{Error, Fault, Found, Ids, Ledger, Options};
use rusqlite::Connection;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

macro_rules! assert_error {
    ($result:expr, $pattern:pat) => {
        let result = $result;
        assert!(matches!(result, Err($pattern)), "{result:?}");
    };
}

#[tokio::test]
async fn a_verb_that_fails_takes_nothing_of_those_in_the_same_commit_with_it() {
    let place = place().await;
    let ask = place.ask().await;
    let mut verbs = tokio::task::JoinSet::new();
    for number in 0..60 {
        let (ledger, ask) = (place.ledger.clone(), ask.clone());
        // Every third one is found to be in no session when it has written already.
        let session = match number % 3 {
            0 => SessionId::from_bits(1),
            _ => place.session,
        };
        verbs.spawn(async move { ledger.submit(session, ask, None).await });
    }
    let (accepted, refused): (Vec<_>, Vec<_>) =
        verbs.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (40, 20));
    for refused in refused {
        assert_error!(refused, Error::NotFound { .. });
    }
    for accepted in accepted {
        place.ledger.request(accepted.unwrap()).await.unwrap();
    }
    assert_eq!(place.ledger.requests(100, None).await.unwrap().len(), 40);
    place.holds().await;
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let place = place().await;
    let ledger = &place.ledger;
    let (session, request, job) = (
        SessionId::from_bits(1),
        RequestId::from_bits(1),
        JobId::from_bits(1),
    );
    let error = ledger.request(request).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no request `r-000000000001`");
    assert_error!(ledger.job(job).await, Error::NotFound { .. });
    assert_error!(ledger.events(session, 0, 1).await, Error::NotFound { .. });
    assert_error!(ledger.subscribe(session, 0).await, Error::NotFound { .. });
    assert_error!(
        ledger.note(session, None, "x").await,
        Error::NotFound { .. }
    );
    assert_error!(ledger.cancel_request(request).await, Error::NotFound { .. });
    assert_error!(ledger.cancel_job(job).await, Error::NotFound { .. });
    assert_error!(ledger.account(request).await, Error::NotFound { .. });
    let grant = GrantId::from_bits(1);
    assert_error!(
        ledger.reserve(grant, 1, Amount::ZERO).await,
        Error::NotFound { .. }
    );
    let mut ask = place.ask().await;
    assert_error!(
        ledger.submit(session, ask.clone(), None).await,
        Error::NotFound { .. }
    );
    ask.repository = RepositoryId::from_bits(1);
    assert_error!(
        ledger.submit(place.session, ask, None).await,
        Error::NotFound { .. }
    );
    assert!(ledger.requests(10, None).await.unwrap().is_empty());
    place.holds().await;
}

#[tokio::test]
async fn input_that_cannot_be_stored_is_refused_and_nothing_changes() {
    let place = place().await;
    let ledger = &place.ledger;
    for name in ["", "  ", "a\nb", &"x".repeat(201)] {
        assert_error!(ledger.session(name).await, Error::Invalid(_));
    }
    for path in ["", "relative", &format!("/{}", "x".repeat(5_000))] {
        assert_error!(ledger.repository(path).await, Error::Invalid(_));
    }
    let mut ask = place.ask().await;
    let key = "k".repeat(201);
    for key in ["", key.as_str()] {
        assert_error!(
            ledger.submit(place.session, ask.clone(), Some(key)).await,
            Error::Invalid(_)
        );
    }
    ask.prompt = "p".repeat(17 << 20);
    assert_error!(
        ledger.submit(place.session, ask, None).await,
        Error::Invalid(_)
    );
    let before = ledger.last_sequence(place.session).await.unwrap();
    assert_error!(
        ledger.note(place.session, None, "n".repeat(2 << 20)).await,
        Error::Invalid(_)
    );
    assert_eq!(ledger.last_sequence(place.session).await.unwrap(), before);

    let request = place.submit().await;
    let claimed = ledger
        .claim_request(&place.owner, Some(request))
        .await
        .unwrap()
        .unwrap();
    assert_error!(
        ledger
            .plan_request(&claimed.lease, plan(&["a b"]), None)
            .await,
        Error::Plan(_)
    );
    ledger
        .plan_request(&claimed.lease, plan(&["a"]), None)
        .await
        .unwrap();
    let held = place.running().await;
    assert_error!(
        ledger.start_attempt(&held.lease, new_attempt()).await,
        Error::Illegal(_)
    );
    // States are told by the verbs that make them, and another's attempt is not spoken for.
    let forged = Body::JobChanged {
        job: held.job.id,
        from: domain::JobState::Running,
        to: domain::JobState::Delivered,
        failure: None,
        until: None,
    };
    let another = Body::Agent {
        attempt: domain::AttemptId::from_bits(1),
        event: event::Agent::Text { text: "x".into() },
    };
    for body in [forged, another] {
        assert_error!(
            ledger.record(&held.lease, vec![body]).await,
            Error::Invalid(_)
        );
    }
    let many = vec![Body::Note { text: "x".into() }; 1_001];
    assert_error!(ledger.record(&held.lease, many).await, Error::Invalid(_));
    place.holds().await;
}

#[tokio::test]
async fn a_verb_that_fails_spoils_no_other_of_its_transaction() {
    let place = place().await;
    let ledger = &place.ledger;
    let calls: Vec<_> = (0..200)
        .map(|count| {
            let ledger = ledger.clone();
            let session = if count % 3 == 0 {
                SessionId::from_bits(9)
            } else {
                place.session
            };
            tokio::spawn(async move { ledger.note(session, None, "n").await.is_ok() })
        })
        .collect();
    let mut succeeded = 0;
    for call in calls {
        succeeded += u64::from(call.await.unwrap());
    }
    assert_eq!(succeeded, 133);
    let last = ledger.last_sequence(place.session).await.unwrap();
    assert_eq!(last, 1 + succeeded);
    place.holds().await;
}

/// Ids that begin alike.
struct Alike(AtomicU64);

impl Ids for Alike {
    fn bits(&self) -> u64 {
        (0b11111 << 55) | self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[tokio::test]
async fn an_id_is_found_by_its_beginning_when_that_is_enough() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Options {
        ids: Arc::new(Alike(AtomicU64::new(0))),
        ..Options::new(directory.path())
    })
    .await
    .unwrap();
    let one = ledger.session("one").await.unwrap();
    let two = ledger.session("two").await.unwrap();
    for name in [one.to_string(), one.to_string()[2..].to_owned()] {
        assert_eq!(ledger.find(&name).await.unwrap(), Found::Session(one));
        let shouted = name.to_uppercase();
        assert_eq!(ledger.find(&shouted).await.unwrap(), Found::Session(one));
    }
    let ambiguous = ledger.find("s-z").await.unwrap_err();
    let Error::Ambiguous { prefix, matches } = &ambiguous else {
        panic!("{ambiguous:?}");
    };
    assert_eq!(prefix, "s-z");
    assert_eq!(matches, &[Found::Session(one), Found::Session(two)]);
    assert!(ambiguous.to_string().contains(&two.to_string()));
    for missing in ["", "-", "r-z", "s-0", "zz-1", "s-ilou", &"0".repeat(40)] {
        assert_error!(ledger.find(missing).await, Error::NotFound { .. });
    }
}

async fn open(directory: &Path) -> Result<Ledger, Error> {
    Ledger::open(Options::new(directory)).await
}

#[tokio::test]
async fn the_data_of_a_newer_version_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).await.unwrap().close().await;
    let file = Connection::open(directory.path().join("ledger.db")).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    assert_error!(
        open(directory.path()).await,
        Error::NewerVersion {
            found: 99,
            known: ledger::VERSION
        }
    );
}

#[tokio::test]
async fn a_newer_version_that_comes_while_it_is_open_is_not_touched_either() {
    let place = place().await;
    let last = place.ledger.last_sequence(place.session).await.unwrap();
    let file = Connection::open(place.directory.path().join("ledger.db")).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    let newer = |outcome: Result<u64, Error>| {
        assert_error!(
            outcome,
            Error::NewerVersion {
                found: 99,
                known: ledger::VERSION
            }
        );
    };
    newer(place.ledger.last_sequence(place.session).await);
    let noted = place.ledger.note(place.session, None, "n").await;
    newer(noted.map(|()| 0));
    let kept: i64 = file
        .query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept.unsigned_abs(), last);
}

#[tokio::test]
async fn a_place_that_cannot_hold_a_ledger_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_error!(
        open(&file).await,
        Error::Storage {
            kind: Fault::Io,
            ..
        }
    );
    let damaged = directory.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("ledger.db"), vec![b'x'; 10_000]).unwrap();
    assert_error!(
        open(&damaged).await,
        Error::Storage {
            kind: Fault::Damaged,
            ..
        }
    );
}

#[tokio::test]
async fn a_closed_ledger_finishes_what_it_was_given_and_takes_nothing_more() {
    let place = place().await;
    let ledger = &place.ledger;
    let given: Vec<_> = (0..50)
        .map(|_| {
            let (ledger, session) = (ledger.clone(), place.session);
            tokio::spawn(async move { ledger.note(session, None, "n").await })
        })
        .collect();
    tokio::task::yield_now().await;
    ledger.close().await;
    ledger.close().await;
    let mut done = 0;
    for call in given {
        match call.await.unwrap() {
            Ok(()) => done += 1,
            Err(error) => assert!(matches!(error, Error::Closed), "{error:?}"),
        }
    }
    assert_error!(ledger.note(place.session, None, "n").await, Error::Closed);
    assert_error!(ledger.sessions(None, 1).await, Error::Closed);
    let again = open(place.directory.path()).await.unwrap();
    assert_eq!(again.last_sequence(place.session).await.unwrap(), 1 + done);
}

#[tokio::test]
async fn a_closed_ledger_is_one_file_without_a_log() {
    let place = place().await;
    place.ledger.close().await;
    let log = place.directory.path().join("ledger.db-wal");
    for _ in 0..50 {
        let ledger = open(place.directory.path()).await.unwrap();
        ledger.note(place.session, None, "n").await.unwrap();
        ledger.sessions(None, 1).await.unwrap();
        assert!(log.exists());
        ledger.close().await;
        assert!(!log.exists());
    }
}

/// What the check says after this was done behind the ledger's back.
async fn tampered(place: &Place, statement: &str) -> String {
    let file = Connection::open(place.directory.path().join("ledger.db")).unwrap();
    file.execute_batch(&format!("BEGIN; {statement}")).unwrap();
    file.execute_batch("COMMIT").unwrap();
    let violations = place.ledger.check().await.unwrap();
    let said: Vec<String> = violations.iter().map(ToString::to_string).collect();
    said.join("\n")
}

#[tokio::test]
async fn the_check_finds_what_must_not_be() {
    for (statement, expected) in [
        (
            "UPDATE accounts SET free_tokens = free_tokens + 1",
            "conserve",
        ),
        (
            "UPDATE accounts SET free_tokens = free_tokens - 1, \
             reserved_tokens = reserved_tokens + 1 WHERE parent IS NULL",
            "reserved",
        ),
        ("DELETE FROM events WHERE sequence = 3", "gap"),
        ("DELETE FROM leases", "without a lease"),
        ("UPDATE jobs SET state = 'dead'", "its events say"),
        ("UPDATE requests SET held = held + 1", "held"),
        ("UPDATE sessions SET sequence = sequence + 1", "gap"),
        ("UPDATE attempts SET tokens = 5", "committed"),
    ] {
        let place = place().await;
        place.planned(&["a"]).await;
        place.running().await;
        place.holds().await;
        let said = tampered(&place, statement).await;
        assert!(said.contains(expected), "{statement}: {said}");
    }
}

#[test]
fn times_of_the_system_are_after_the_beginning_of_this_program() {
    use ledger::Clock;
    let now = ledger::options::SystemClock.now();
    assert!(now > Timestamp(1_700_000_000_000_000), "{now:?}");
}
