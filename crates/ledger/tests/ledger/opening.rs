//! A data directory that cannot be used is refused, and stays as it is.

use crate::support::{Place, open, place};
use ledger::{Error, Fault, Ledger, Options};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Every file and directory below one, with its mode and content.
fn files(top: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut queue = vec![top.to_owned()];
    while let Some(path) = queue.pop() {
        let mode = std::fs::symlink_metadata(&path)
            .unwrap()
            .permissions()
            .mode();
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            queue.extend(entries.map(|entry| entry.unwrap().path()));
            found.insert(path, (mode, Vec::new()));
        } else {
            let content = std::fs::read(&path).unwrap();
            found.insert(path, (mode, content));
        }
    }
    found
}

/// A ledger that was closed, with a blob.
async fn closed() -> Place {
    let place = place().await;
    place.planned(&["a"]).await;
    place.ledger.put_blob("content").await.unwrap();
    place.ledger.close().await;
    place
}

async fn refused(directory: &Path) -> Error {
    let before = files(directory);
    let refused = Ledger::open(Options::new(directory)).await.unwrap_err();
    assert_eq!(files(directory), before, "nothing was touched");
    refused
}

#[tokio::test]
async fn a_ledger_whose_rows_were_emptied_or_removed_is_not_begun_anew() {
    let place = closed().await;
    let top = place.directory.path();
    let rows = std::fs::read(top.join("ledger.db")).unwrap();
    for left in ["blobs", "repositories", "workspaces", "ledger.db-wal"] {
        let other = tempfile::tempdir().unwrap();
        let place = other.path().join(left);
        match left {
            "ledger.db-wal" => std::fs::write(&place, "frames").unwrap(),
            "blobs" => std::fs::create_dir_all(place.join("ab")).unwrap(),
            _ => std::fs::create_dir_all(place.join("p-1")).unwrap(),
        }
        for emptied in [false, true] {
            let file = other.path().join("ledger.db");
            if emptied {
                std::fs::write(&file, "").unwrap();
            }
            let refused = refused(other.path()).await;
            assert!(matches!(refused, Error::RowsLost { .. }), "{refused:?}");
            assert!(refused.to_string().contains(left), "{refused}");
        }
    }
    std::fs::write(top.join("ledger.db"), "").unwrap();
    let error = refused(top).await;
    assert!(matches!(error, Error::RowsLost { .. }), "{error:?}");
    // With its rows it is what it was.
    std::fs::write(top.join("ledger.db"), rows).unwrap();
    let again = open(top, &place.clock).await;
    assert_eq!(again.requests(10, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_first_start_that_was_killed_at_any_step_is_begun_again() {
    let steps = ["", "run", "blobs/writing", "blobs/removing", "repositories"];
    let directory = tempfile::tempdir().unwrap();
    for step in steps {
        std::fs::create_dir_all(directory.path().join(step)).unwrap();
        let copy = tempfile::tempdir().unwrap();
        for made in steps.iter().take_while(|made| **made != step) {
            std::fs::create_dir_all(copy.path().join(made)).unwrap();
        }
        let ledger = Ledger::open(Options::new(copy.path())).await.unwrap();
        ledger.close().await;
    }
    let file = directory.path().join("ledger.db");
    std::fs::write(&file, "").unwrap();
    std::fs::write(directory.path().join("ledger.db-wal"), "").unwrap();
    let ledger = Ledger::open(Options::new(directory.path())).await.unwrap();
    ledger.session("work").await.unwrap();
    ledger.close().await;
    // SQLite has made the file, and the tables are not there yet.
    let directory = tempfile::tempdir().unwrap();
    let sql = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
    sql.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(sql);
    Ledger::open(Options::new(directory.path())).await.unwrap();
}

#[tokio::test]
async fn rows_that_no_skep_has_written_are_refused() {
    let place = closed().await;
    let file = place.directory.path().join("ledger.db");
    for version in [-1, i32::MIN, 0] {
        let sql = rusqlite::Connection::open(&file).unwrap();
        sql.pragma_update(None, "user_version", version).unwrap();
        drop(sql);
        let opened = Ledger::open(Options::new(place.directory.path())).await;
        let error = opened.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Storage {
                    kind: Fault::Damaged,
                    ..
                }
            ),
            "{version}: {error:?}"
        );
        let sql = rusqlite::Connection::open(&file).unwrap();
        let kept: i32 = sql
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(kept, version);
    }
    // An empty database in the place of the rows is no new ledger.
    std::fs::remove_file(&file).unwrap();
    let sql = rusqlite::Connection::open(&file).unwrap();
    sql.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(sql);
    let error = Ledger::open(Options::new(place.directory.path())).await;
    assert!(matches!(error, Err(Error::RowsLost { .. })), "{error:?}");
}

#[tokio::test]
async fn files_beside_the_rows_that_were_made_read_only_are_mended_with_the_rows() {
    let place = closed().await;
    let beside = ["ledger.db-wal", "ledger.db-shm"].map(|it| place.directory.path().join(it));
    for path in &beside {
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o400)).unwrap();
    }
    let ledger = open(place.directory.path(), &place.clock).await;
    for path in &beside {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o600, 0o600, "{}", path.display());
    }
    ledger.session("work").await.unwrap();
}
