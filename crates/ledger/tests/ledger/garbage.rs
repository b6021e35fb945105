//! Blobs are stored, named and removed at the same time by many, and nothing that is named goes.

use crate::{
    processes::{as_child, child, holds, said, submit},
    support::new_attempt,
};
use domain::{
    BlobId,
    event::{self, Body},
};
use ledger::{Error, Ledger, Options};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const WORKERS: u64 = 3;
const ROUNDS: u64 = 60;
/// How often one worker stores a blob again because it was removed before it was named.
const TRIES: u64 = 500;

/// Stores what others store at the same time and names every other one, while it is collected.
async fn churn(ledger: &Ledger) -> BTreeSet<BlobId> {
    submit(ledger, &["a"]).await;
    let owner = ledger.owner().await.unwrap();
    let held = ledger.claim_job(&owner, None).await.unwrap().unwrap();
    let attempt = ledger
        .start_attempt(&held.lease, new_attempt())
        .await
        .unwrap()
        .id;
    let done = Arc::new(AtomicBool::new(false));
    let collector = tokio::spawn({
        let (ledger, done) = (ledger.clone(), Arc::clone(&done));
        async move {
            while !done.load(Ordering::SeqCst) {
                ledger.collect_garbage(Duration::ZERO).await.unwrap();
            }
        }
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (ledger, lease) = (ledger.clone(), held.lease.clone());
            tokio::spawn(async move {
                let mut named = BTreeSet::new();
                for round in 0..ROUNDS {
                    let names = round % 2 == worker % 2;
                    // Now and then another content, and each from every worker of each process.
                    let content = format!("content {}", round / 3);
                    for _ in 0..TRIES {
                        let blob = ledger.put_blob(content.clone()).await.unwrap();
                        // In the meantime it may be removed.
                        let other = format!("of {worker} {round} {}", std::process::id());
                        ledger.put_blob(other).await.unwrap();
                        if !names {
                            break;
                        }
                        let event = event::Agent::Turn {
                            round: 1,
                            feedback: Some(blob),
                        };
                        let body = Body::Agent { attempt, event };
                        match ledger.record(&lease, vec![body]).await {
                            Ok(()) => {
                                assert!(ledger.blob(blob, 100).await.is_ok(), "{blob} is named");
                                named.insert(blob);
                                break;
                            }
                            Err(Error::BlobMissing { id }) => assert_eq!(id, blob),
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                named
            })
        })
        .collect();
    let mut named = BTreeSet::new();
    for worker in workers {
        named.extend(worker.await.unwrap());
    }
    done.store(true, Ordering::SeqCst);
    collector.await.unwrap();
    named
}

/// How many blobs have a file.
fn stored(directory: &Path) -> usize {
    let shelves = std::fs::read_dir(directory.join("blobs")).unwrap();
    shelves
        .map(|shelf| std::fs::read_dir(shelf.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn child_that_stores_names_and_removes() {
    as_child(async |ledger| {
        for blob in churn(&ledger).await {
            println!("named {blob}");
        }
        println!("named all");
        ledger.close().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_blob_is_never_missing_whoever_stores_names_and_removes_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Options::new(directory.path())).await.unwrap();
    let mut other = child(
        "garbage::child_that_stores_names_and_removes",
        directory.path(),
    );
    let mut named = churn(&ledger).await;
    loop {
        let said = said(&mut other, "named ");
        if said == "all" {
            break;
        }
        named.insert(said.parse().unwrap());
    }
    assert!(named.len() > 10);
    ledger.collect_garbage(Duration::ZERO).await.unwrap();
    assert_eq!(
        stored(directory.path()),
        named.len(),
        "nothing else is left"
    );
    for blob in named {
        let read = ledger.blob(blob, 100).await;
        assert!(read.is_ok(), "{blob}: {read:?}");
    }
    holds(&ledger).await;
}
