//! Blobs: content under the name of its digest.

use crate::support::{Place, open, place};
use domain::{
    BlobId,
    entity::Included,
    event::{self, Body},
};
use ledger::{ClaimedJob, Collected, Error};
use std::{path::PathBuf, time::Duration};

fn files(place: &Place) -> Vec<PathBuf> {
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

/// Content that is made as it is read, and never held.
struct Made(u64);

impl std::io::Read for Made {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let length = self.0.min(out.len() as u64) as usize;
        for (place, byte) in out[..length].iter_mut().enumerate() {
            *byte = ((self.0 - place as u64) % 251) as u8;
        }
        self.0 -= length as u64;
        Ok(length)
    }
}

#[tokio::test]
async fn a_blob_longer_than_memory_should_hold_is_streamed_in_and_out() {
    let place = place().await;
    let long = 20 << 20;
    let id = place.ledger.put_blob_from(Made(long)).await.unwrap();
    let mut reader = place.ledger.blob_reader(id).await.unwrap();
    let read = std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    assert_eq!(read, long);
    // It has the name that it has as a whole.
    let mut whole = Vec::new();
    std::io::Read::read_to_end(&mut Made(long), &mut whole).unwrap();
    assert_eq!(place.ledger.put_blob(whole).await.unwrap(), id);
    assert_eq!(files(&place).len(), 1);

    let path = files(&place).remove(0);
    let mut damaged = std::fs::read(&path).unwrap();
    let middle = damaged.len() / 2;
    damaged.truncate(middle);
    std::fs::write(&path, damaged).unwrap();
    let mut reader = place.ledger.blob_reader(id).await.unwrap();
    let error = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    let unknown = place.ledger.blob_reader(BlobId::from_sha256([7; 32])).await;
    assert!(
        matches!(unknown, Err(Error::NotFound { .. })),
        "{unknown:?}"
    );
}

/// What an agent was told at the beginning of a turn, in this blob.
async fn names(place: &Place, held: &ClaimedJob, blob: BlobId) -> Result<(), Error> {
    let attempts = place.ledger.attempts(held.job.id).await.unwrap();
    let event = event::Agent::Turn {
        round: 1,
        feedback: Some(blob),
    };
    let attempt = attempts[0].id;
    place
        .ledger
        .record(&held.lease, vec![Body::Agent { attempt, event }])
        .await
}

#[tokio::test]
async fn nothing_can_name_a_blob_that_is_not_there() {
    let place = place().await;
    place.planned(&["a"]).await;
    let held = place.running().await;
    let before = place.ledger.last_sequence(place.session).await.unwrap();
    let unknown = BlobId::from_sha256([7; 32]);
    let refused = names(&place, &held, unknown).await;
    assert!(
        matches!(refused, Err(Error::BlobMissing { id }) if id == unknown),
        "{refused:?}"
    );
    let mut ask = place.ask().await;
    ask.included = vec![Included {
        path: ".env".into(),
        executable: false,
        content: unknown,
    }];
    let refused = place.ledger.submit(place.session, ask, None).await;
    assert!(
        matches!(refused, Err(Error::BlobMissing { .. })),
        "{refused:?}"
    );
    let after = place.ledger.last_sequence(place.session).await.unwrap();
    assert_eq!(after, before, "nothing was recorded");
    place.holds().await;
}

#[tokio::test]
async fn what_nothing_names_is_removed_and_what_something_names_stays() {
    let place = place().await;
    place.planned(&["a"]).await;
    let held = place.running().await;
    let kept = place.ledger.put_blob("named").await.unwrap();
    names(&place, &held, kept).await.unwrap();
    let garbage = place.ledger.put_blob("not named").await.unwrap();
    let young = place.ledger.collect_garbage(Duration::from_secs(60)).await;
    assert_eq!(young.unwrap(), Collected::default());
    let collected = place.ledger.collect_garbage(Duration::ZERO).await.unwrap();
    assert_eq!(collected.blobs, 1);
    assert!(collected.bytes > 0);
    assert_eq!(place.ledger.blob(kept, 100).await.unwrap(), b"named");
    let gone = place.ledger.blob(garbage, 100).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    // It comes back when it is stored again.
    place.ledger.put_blob("not named").await.unwrap();
    names(&place, &held, garbage).await.unwrap();
    place.ledger.collect_garbage(Duration::ZERO).await.unwrap();
    assert_eq!(place.ledger.blob(garbage, 100).await.unwrap(), b"not named");
    place.holds().await;
}

#[tokio::test]
async fn a_blob_that_a_dying_process_had_put_aside_is_still_there() {
    let place = place().await;
    place.planned(&["a"]).await;
    let held = place.running().await;
    for collects in [false, true] {
        let text = format!("put aside, and collected: {collects}");
        let id = place.ledger.put_blob(text.clone()).await.unwrap();
        let aside = place.directory.path().join("blobs/removing");
        let path = files(&place)
            .into_iter()
            .find(|path| path.ends_with(id.to_string()))
            .unwrap();
        std::fs::rename(path, aside.join(id.to_string())).unwrap();
        if collects {
            let hour = Duration::from_secs(3_600);
            place.ledger.collect_garbage(hour).await.unwrap();
        }
        names(&place, &held, id).await.unwrap();
        let read = place.ledger.blob(id, 100).await.unwrap();
        assert_eq!(read, text.into_bytes());
    }
}

#[tokio::test]
async fn what_is_stored_again_stays_also_where_a_removal_before_it_never_ended() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let place = place().await;
    let id = place.ledger.put_blob("again").await.unwrap();
    let path = files(&place).remove(0);
    let aside = place.directory.path().join("blobs/removing");
    let old = std::time::SystemTime::now() - DAY * 2;
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(old).unwrap();
    // Whoever removed it has died.
    std::fs::rename(&path, aside.join(id.to_string())).unwrap();
    place.ledger.put_blob("again").await.unwrap();
    let none = place.ledger.collect_garbage(DAY).await.unwrap();
    assert_eq!(none.blobs, 0);
    assert_eq!(place.ledger.blob(id, 100).await.unwrap(), b"again");
    assert_eq!(std::fs::read_dir(aside).unwrap().count(), 0);
}
