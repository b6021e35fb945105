//! Blobs: content under the name of its digest.

use crate::support::{open, place};
use domain::BlobId;
use ledger::Error;
use std::path::PathBuf;

fn files(place: &crate::support::Place) -> Vec<PathBuf> {
    let blobs = place.directory.path().join("blobs");
    let mut found = Vec::new();
    for shelf in std::fs::read_dir(blobs).unwrap() {
        for file in std::fs::read_dir(shelf.unwrap().path()).unwrap() {
            found.push(file.unwrap().path());
        }
    }
    found
}

#[tokio::test]
async fn a_blob_comes_back_as_it_was_and_is_stored_once() {
    let place = place().await;
    let text = "the same line again\n".repeat(10_000);
    let id = place.ledger.put_blob(text.clone()).await.unwrap();
    assert_eq!(place.ledger.put_blob(text.clone()).await.unwrap(), id);
    let empty = place.ledger.put_blob(Vec::new()).await.unwrap();
    let again = open(place.directory.path(), &place.clock).await;
    assert_eq!(
        again.blob(id, 1 << 20).await.unwrap(),
        text.clone().into_bytes()
    );
    assert_eq!(again.blob(empty, 0).await.unwrap(), Vec::<u8>::new());
    let files = files(&place);
    assert_eq!(files.len(), 2);
    let bytes: u64 = files
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(bytes < text.len() as u64 / 50, "{bytes}");
}

#[tokio::test]
async fn a_blob_that_is_longer_than_the_reader_takes_is_not_read() {
    let place = place().await;
    // A small file that would fill the memory.
    let id = place.ledger.put_blob(vec![0u8; 4 << 20]).await.unwrap();
    let long = place.ledger.blob(id, 1_000).await;
    assert!(
        matches!(long, Err(Error::BlobTooLong { max: 1_000, .. })),
        "{long:?}"
    );
    let unknown = BlobId::from_sha256([7; 32]);
    let missing = place.ledger.blob(unknown, 10).await;
    assert!(
        matches!(missing, Err(Error::NotFound { .. })),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_damaged_blob_is_found_out_and_a_new_put_mends_it() {
    let place = place().await;
    let id = place.ledger.put_blob("content").await.unwrap();
    let other = place.ledger.put_blob("another content").await.unwrap();
    let path = |id: BlobId| {
        let name = id.to_string();
        files(&place)
            .into_iter()
            .find(|path| path.ends_with(&name))
            .unwrap()
    };
    let whole = std::fs::read(path(id)).unwrap();
    for damaged in [
        b"not a frame".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        std::fs::read(path(other)).unwrap(),
        Vec::new(),
    ] {
        std::fs::write(path(id), damaged).unwrap();
        let read = place.ledger.blob(id, 1_000).await;
        assert!(
            matches!(read, Err(Error::BlobCorrupt { id: found }) if found == id),
            "{read:?}"
        );
    }
    place.ledger.put_blob("content").await.unwrap();
    assert_eq!(place.ledger.blob(id, 1_000).await.unwrap(), b"content");
}
