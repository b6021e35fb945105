//! However the events of sessions lie between each other, a reader gets those it asked for.

use crate::support::{Place, place};
use domain::{SessionId, Timestamp};
use ledger::Error;
use proptest::prelude::*;
use rusqlite::Connection;
use std::time::Duration;

const NAMES: [&str; 4] = ["work", "second", "third", "fourth"];
/// How far apart the events are that are found by their sequence.
const BLOCK: i64 = 64;

/// What is done before somebody reads.
#[derive(Debug, Clone, Copy)]
enum Write {
    /// Each of these sessions, a bit for each, gets so many events, in turns. The events of one
    /// alone are dense, those of all four are sparse.
    Turns { sessions: u8, each: usize },
    /// What was written before the last so many of them is removed.
    Prune { kept: usize },
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let turns = (1..16u8, 1..150usize);
    let write = prop_oneof![
        4 => turns.prop_map(|(sessions, each)| Write::Turns { sessions, each }),
        1 => (0..4usize).prop_map(|kept| Write::Prune { kept }),
    ];
    prop::collection::vec(write, 1..9)
}

/// A number at a multiple of a block, or beside it.
fn around_blocks(blocks: i64) -> impl Strategy<Value = i64> {
    (0..blocks, 0..5i64).prop_map(|(block, beside)| (block * BLOCK + beside - 2).max(0))
}

/// Of which session, after which sequence and how many.
fn reads() -> impl Strategy<Value = Vec<(usize, i64, i64)>> {
    let any = (0..600i64, 0..600i64);
    let places = prop_oneof![
        4 => (around_blocks(9), around_blocks(5)),
        1 => any,
    ];
    let read = (0..NAMES.len(), places).prop_map(|(at, (after, limit))| (at, after, limit));
    prop::collection::vec(read, 60)
}

/// An event, as it is stored and as it is delivered.
type Event = (i64, i64, serde_json::Value);

fn stored(file: &Connection, name: &str, after: i64, limit: i64) -> Vec<Event> {
    let mut all = file
        .prepare_cached(
            "SELECT sequence, time, body FROM events \
             WHERE session = (SELECT n FROM sessions WHERE name = ?) AND sequence > ? \
             ORDER BY sequence LIMIT ?",
        )
        .unwrap();
    let rows = all.query_map((name, after, limit), |row| {
        let body: String = row.get(2)?;
        let body = serde_json::from_str(&body).unwrap();
        Ok((row.get(0)?, row.get(1)?, body))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn first_kept(file: &Connection, name: &str) -> i64 {
    let text = "SELECT first FROM sessions WHERE name = ?";
    file.query_row(text, [name], |row| row.get(0)).unwrap()
}

async fn take_turns(place: &Place, sessions: &[SessionId], which: u8, each: usize) {
    let mut notes = tokio::task::JoinSet::new();
    for count in 0..each {
        for (at, &session) in sessions.iter().enumerate() {
            if which & (1 << at) != 0 {
                let ledger = place.ledger.clone();
                notes.spawn(async move { ledger.note(session, None, count.to_string()).await });
            }
        }
    }
    for noted in notes.join_all().await {
        noted.unwrap();
    }
}

async fn reads_agree(writes: Vec<Write>, reads: Vec<(usize, i64, i64)>) {
    let place = place().await;
    let mut sessions = Vec::new();
    for name in NAMES {
        sessions.push(place.ledger.session(name).await.unwrap());
    }
    let mut times: Vec<Timestamp> = vec![place.ledger.now()];
    for write in writes {
        match write {
            Write::Turns {
                sessions: which,
                each,
            } => {
                place.clock.advance(Duration::from_secs(60));
                times.push(place.ledger.now());
                take_turns(&place, &sessions, which, each).await;
            }
            Write::Prune { kept } => {
                let before = times[times.len().saturating_sub(kept + 1)];
                place.ledger.prune(before).await.unwrap();
            }
        }
    }
    let file = Connection::open(place.directory.path().join("ledger.db")).unwrap();
    for (at, after, limit) in reads {
        let name = NAMES[at];
        let read = place
            .ledger
            .events(sessions[at], after.cast_unsigned(), limit as usize);
        let first = first_kept(&file, name);
        let events = match read.await {
            Err(Error::CursorExpired { first: told, .. }) => {
                assert!(
                    after + 1 < first && told == first.cast_unsigned(),
                    "{name} after {after}"
                );
                continue;
            }
            read => read.unwrap(),
        };
        assert!(after + 1 >= first, "{name} after {after}");
        let events: Vec<Event> = events
            .into_iter()
            .map(|event| {
                let body = serde_json::to_value(event.body).unwrap();
                (event.sequence.cast_signed(), event.time.0, body)
            })
            .collect();
        let expected = stored(&file, name, after, limit);
        assert_eq!(events, expected, "{limit} events of {name} after {after}");
    }
    place.holds().await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_reader_gets_the_same_events_as_by_asking_the_rows_in_order(
        writes in writes(),
        reads in reads(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(reads_agree(writes, reads));
    }
}
