//! Data of every earlier version is brought to this one, with all that was in it.

use crate::support::{BUDGET, plan};
use domain::{BlobId, RequestState};
use ledger::{Ledger, Options};
use rusqlite::{Connection, types::Value};
use std::{collections::BTreeMap, path::Path};

/// A dump of a ledger of each earlier version, with rows in every table.
const DUMPS: &[&str] = &[
    include_str!("../versions/0001.sql"),
    include_str!("../versions/0002.sql"),
    include_str!("../versions/0003.sql"),
    include_str!("../versions/0004.sql"),
    include_str!("../versions/0005.sql"),
    include_str!("../versions/0006.sql"),
    include_str!("../versions/0007.sql"),
    include_str!("../versions/0008.sql"),
    include_str!("../versions/0009.sql"),
    include_str!("../versions/0010.sql"),
];

/// What was stored in blobs when the dumps were made.
const CONTENTS: [&str; 4] = [
    "an included file",
    "what was sent",
    "what came back",
    "a whole output",
];

/// A directory with the ledger of a dump, as its version left it.
fn written_by(dump: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let file = Connection::open(directory.path().join("ledger.db")).unwrap();
    file.execute_batch(dump).unwrap();
    file.pragma_update(None, "journal_mode", "WAL").unwrap();
    directory
}

fn raw(directory: &Path) -> Connection {
    Connection::open(directory.join("ledger.db")).unwrap()
}

/// Every row of every table, by the names of its columns.
fn rows(file: &Connection) -> BTreeMap<String, Vec<BTreeMap<String, Value>>> {
    let mut names = file
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        .unwrap();
    let names: Vec<String> = names
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    names
        .into_iter()
        .map(|table| {
            let mut all = file.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns: Vec<String> = all.column_names().map(str::to_owned).collect();
            let found = all
                .query_map([], |row| {
                    let value =
                        |(place, name): (usize, &String)| Ok((name.clone(), row.get(place)?));
                    columns.iter().enumerate().map(value).collect()
                })
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            (table, found)
        })
        .collect()
}

#[tokio::test]
async fn data_of_every_earlier_version_comes_with_all_that_was_in_it() {
    assert_eq!(DUMPS.len() + 1, ledger::VERSION as usize);
    for (version, dump) in (1..).zip(DUMPS) {
        println!("version {version}");
        let directory = written_by(dump);
        let found =
            raw(directory.path()).pragma_query_value(None, "user_version", |row| row.get(0));
        assert_eq!(found, Ok(version));
        let before = rows(&raw(directory.path()));
        for (table, rows) in &before {
            assert!(!rows.is_empty(), "the dump has no {table}");
        }
        let ledger = Ledger::open(Options::new(directory.path())).await.unwrap();
        let after = rows(&raw(directory.path()));
        // The leases of owners that are gone end when it is opened, and what they held goes back.
        let changes = [
            "accounts", "attempts", "changes", "grants", "jobs", "leases", "queues", "requests",
            "sessions",
        ];
        for (table, before) in before {
            let after = &after[&table];
            if changes.contains(&table.as_str()) {
                assert!(after.len() == before.len() || table == "leases", "{table}");
                continue;
            }
            for mut row in before {
                if table == "outbox" {
                    // Its id; the row of the request is there now, and it is claimed below.
                    row.remove("request");
                }
                let kept = after.iter().any(|found| {
                    row.iter()
                        .all(|(column, value)| found.get(column) == Some(value))
                });
                assert!(kept, "{table} has lost {row:?}");
            }
        }
        let violations = ledger.check().await.unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
        // What was to be told is told, and nothing of what had ended before there was an outbox.
        let owner = ledger.owner().await.unwrap();
        let untold = ledger.claim_notification(&owner).await.unwrap();
        let untold = untold.map(|told| (told.request, told.event.request));
        let request = "r-hvqd8xs5g69c".parse().unwrap();
        let wanted = dump.contains("outbox").then_some((request, Some(request)));
        assert_eq!(untold, wanted);
        // It is not only read: work goes on.
        let requests = ledger.requests(100, None).await.unwrap();
        let request = requests
            .into_iter()
            .find(|request| request.state == RequestState::Queued)
            .unwrap();
        assert_eq!(request.ask.budget, BUDGET);
        let claimed = ledger
            .claim_request(&owner, Some(request.id))
            .await
            .unwrap()
            .unwrap();
        ledger
            .plan_request(&claimed.lease, plan(&["a"]), None)
            .await
            .unwrap();
        let violations = ledger.check().await.unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
        ledger.close().await;
        Ledger::open(Options::new(directory.path())).await.unwrap();
    }
}

#[tokio::test]
async fn names_of_blobs_in_old_rows_are_counted() {
    let directory = written_by(DUMPS[0]);
    // One of them was lost before names were counted.
    let source = tempfile::tempdir().unwrap();
    let other = Ledger::open(Options::new(source.path())).await.unwrap();
    let mut ids: Vec<BlobId> = Vec::new();
    for content in CONTENTS {
        ids.push(other.put_blob(content).await.unwrap());
    }
    other.close().await;
    std::fs::rename(source.path().join("blobs"), directory.path().join("blobs")).unwrap();
    let lost = ids[3].to_string();
    std::fs::remove_file(directory.path().join("blobs").join(&lost[..2]).join(&lost)).unwrap();

    let ledger = Ledger::open(Options::new(directory.path())).await.unwrap();
    let counted = |id: BlobId| {
        raw(directory.path())
            .query_row(
                "SELECT refs, bytes > 0 FROM blobs WHERE id = ?1",
                [id.as_bytes()],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)),
            )
            .unwrap()
    };
    // Three requests include it; two attempts have an exchange each, and three events each.
    let expected = [(3, true), (2, true), (2, true), (6, false)];
    assert_eq!(
        ids.iter().map(|id| counted(*id)).collect::<Vec<_>>(),
        expected
    );
    let none = ledger.collect_garbage(std::time::Duration::ZERO).await;
    assert_eq!(none.unwrap().blobs, 0);
    for (content, id) in CONTENTS.iter().zip(&ids).take(3) {
        let read = ledger.blob(*id, 100).await.unwrap();
        assert_eq!(read, content.as_bytes());
    }
}
