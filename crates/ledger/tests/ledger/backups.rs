//! A backup is whole, whoever writes meanwhile, and comes back elsewhere.

use crate::support::{Place, place};
use domain::{
    BlobId, JobState, RequestId,
    event::{self, Body},
};
use ledger::{BackupProgress, Depth, Error, Ledger, Options, Owner};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

const WRITERS: usize = 8;
/// The most that each of them writes.
const MOST: usize = 60;

/// Where everything is whole, blobs too.
async fn is_whole(ledger: &Ledger) {
    let violations = ledger.check_to(Depth::Blobs, |_| {}).await.unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

async fn restored(backup: &Path, to: &Path) -> Ledger {
    Ledger::restore(backup, to, |_| {}).await.unwrap();
    Ledger::open(Options::new(to)).await.unwrap()
}

/// Writes what names a blob that is new, and says what it has written.
struct Writer {
    ledger: Ledger,
    lease: ledger::Lease,
    attempt: domain::AttemptId,
    _owner: Owner,
}

impl Writer {
    async fn new(place: &Place) -> Self {
        place.planned(&["a"]).await;
        let held = place.running().await;
        let attempts = place.ledger.attempts(held.job.id).await.unwrap();
        Self {
            ledger: place.ledger.clone(),
            attempt: attempts[0].id,
            lease: held.lease,
            _owner: place.owner.clone(),
        }
    }

    async fn write(&self, content: String) -> BlobId {
        let blob = self.ledger.put_blob(content).await.unwrap();
        let event = event::Agent::Turn {
            round: 1,
            feedback: Some(blob),
        };
        let body = Body::Agent {
            attempt: self.attempt,
            event,
        };
        self.ledger.record(&self.lease, vec![body]).await.unwrap();
        blob
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_holds_every_verb_that_was_done_before_it_while_others_write() {
    let place = place().await;
    let ledger = place.ledger.clone();
    let session = ledger.session("notes").await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let written: Arc<Mutex<Vec<BlobId>>> = Arc::default();
    let count = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let writer = Writer::new(&place).await;
        let (done, written, count) = (Arc::clone(&done), Arc::clone(&written), Arc::clone(&count));
        writers.push(tokio::spawn(async move {
            for _ in 0..MOST {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let next = count.fetch_add(1, Ordering::SeqCst);
                let blob = writer.write(format!("{number} {next}")).await;
                written.lock().unwrap().push(blob);
                writer.ledger.note(session, None, "n").await.unwrap();
            }
        }));
    }
    // Garbage is collected, and old notes go, as far as the backups allow it.
    let collector = tokio::spawn({
        let (ledger, done) = (ledger.clone(), Arc::clone(&done));
        let mut changes = ledger.changes();
        async move {
            while !done.load(Ordering::SeqCst) {
                ledger.put_blob("garbage").await.unwrap();
                changes.changed().await.unwrap();
                let hour = Duration::from_secs(3_600);
                match ledger.collect_garbage(hour).await {
                    Ok(_) | Err(Error::BackingUp) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    let mut changes = ledger.changes();
    for round in 0..3 {
        while written.lock().unwrap().len() < (round + 1) * 30 {
            changes.changed().await.unwrap();
        }
        let before = written.lock().unwrap().clone();
        let sequence = ledger.last_sequence(session).await.unwrap();
        let copies = tempfile::tempdir().unwrap();
        let backup = copies.path().join("backup");
        let told: Arc<Mutex<Vec<BackupProgress>>> = Arc::default();
        let tell = Arc::clone(&told);
        let made = ledger
            .backup(&backup, move |progress| tell.lock().unwrap().push(progress))
            .await
            .unwrap();
        assert!(made.missing.is_empty());
        assert!(made.blobs >= before.len() as u64);
        let last = *told.lock().unwrap().last().unwrap();
        assert!(
            matches!(last, BackupProgress::Blobs { done, total } if done == total),
            "{last:?}"
        );
        let other = restored(&backup, &copies.path().join("data")).await;
        assert!(other.last_sequence(session).await.unwrap() >= sequence);
        for blob in before {
            other.blob(blob, 100).await.unwrap();
        }
        is_whole(&other).await;
        other.close().await;
    }
    done.store(true, Ordering::SeqCst);
    ledger.note(session, None, "the end").await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    collector.await.unwrap();
    is_whole(&ledger).await;
}

/// A ledger with a held job, and its backup.
async fn backed_up(place: &Place) -> (RequestId, BlobId, PathBuf) {
    let request = place.planned(&["a"]).await;
    let held = place.running().await;
    let attempt = place.ledger.attempts(held.job.id).await.unwrap()[0].id;
    let blob = place.ledger.put_blob("content").await.unwrap();
    let event = event::Agent::Turn {
        round: 1,
        feedback: Some(blob),
    };
    place
        .ledger
        .record(&held.lease, vec![Body::Agent { attempt, event }])
        .await
        .unwrap();
    let to = place.directory.path().join("backup");
    place.ledger.backup(&to, |_| {}).await.unwrap();
    (request, blob, to)
}

fn blob_path(top: &Path, id: BlobId) -> PathBuf {
    let name = id.to_string();
    top.join("blobs").join(&name[..2]).join(name)
}

#[tokio::test]
async fn what_was_held_when_the_backup_was_made_is_free_where_it_is_restored() {
    let place = place().await;
    let (request, _, backup) = backed_up(&place).await;
    let to = place.directory.path().join("elsewhere");
    std::fs::create_dir(&to).unwrap();
    let other = restored(&backup, &to).await;
    assert_eq!(other.jobs(request).await.unwrap()[0].state, JobState::Ready);
    other.take_over().await.unwrap();
    let owner = other.owner().await.unwrap();
    let claimed = other.claim_job(&owner, None).await.unwrap();
    assert!(claimed.is_some());
    is_whole(&other).await;
    // Nothing of it is in the ledger that was backed up.
    assert_eq!(
        place.ledger.jobs(request).await.unwrap()[0].state,
        JobState::Running
    );
    place.holds().await;
}

#[tokio::test]
async fn what_has_not_ended_is_done_in_a_restored_ledger_only_when_it_is_taken_over() {
    let place = place().await;
    let (request, _, backup) = backed_up(&place).await;
    let to = place.directory.path().join("elsewhere");
    let made = Ledger::restore(&backup, &to, |_| {}).await.unwrap();
    assert_eq!(made.open, 1);
    let other = Ledger::open(Options::new(&to)).await.unwrap();
    // All of it can be looked at, by any process and at any time, and nobody can claim anything.
    assert_eq!(other.requests(10, None).await.unwrap()[0].id, request);
    is_whole(&other).await;
    let refused = other.owner().await.unwrap_err();
    assert!(
        matches!(refused, Error::NotTakenOver { open: 1 }),
        "{refused:?}"
    );
    other.close().await;
    let other = Ledger::open(Options::new(&to)).await.unwrap();
    assert!(other.owner().await.is_err());
    assert_eq!(other.restoration().await.unwrap().unwrap().open, 1);
    // A backup of it, restored, waits as well.
    let (second, third) = (to.join("../second"), to.join("../third"));
    other.backup(&second, |_| {}).await.unwrap();
    assert!(restored(&second, &third).await.owner().await.is_err());

    let waited = other.take_over().await.unwrap().unwrap();
    assert_eq!(waited.taken, Some(made.taken));
    other.owner().await.unwrap();
    assert_eq!(other.take_over().await.unwrap(), None);
    other.close().await;
    let other = Ledger::open(Options::new(&to)).await.unwrap();
    other.owner().await.unwrap();
    // The one that was backed up has gone on all the time.
    place.ledger.owner().await.unwrap();
}

#[tokio::test]
async fn a_restored_ledger_whose_mark_is_damaged_waits_and_can_be_taken_over() {
    let place = place().await;
    let (_, _, backup) = backed_up(&place).await;
    let to = place.directory.path().join("elsewhere");
    Ledger::restore(&backup, &to, |_| {}).await.unwrap();
    let mark = to.join("restored.json");
    let other = Ledger::open(Options::new(&to)).await.unwrap();
    let damages: [fn(&Path); 3] = [
        |mark| std::fs::write(mark, "").unwrap(),
        |mark| std::os::unix::fs::symlink("nowhere", mark).unwrap(),
        |mark| {
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, mark, rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        },
    ];
    for damage in damages {
        drop(std::fs::remove_file(&mark));
        damage(&mark);
        let refused = other.owner().await.unwrap_err();
        assert!(
            matches!(refused, Error::NotTakenOver { open: 1 }),
            "{refused:?}"
        );
        let waited = other.take_over().await.unwrap().unwrap();
        assert_eq!((waited.taken, waited.open), (None, 1));
        other.owner().await.unwrap();
    }
}

#[tokio::test]
async fn a_restored_ledger_in_which_everything_has_ended_waits_for_nothing() {
    let place = place().await;
    let (request, _, _) = backed_up(&place).await;
    place.ledger.cancel_request(request).await.unwrap();
    let backup = place.directory.path().join("second");
    place.ledger.backup(&backup, |_| {}).await.unwrap();
    let to = place.directory.path().join("elsewhere");
    let made = Ledger::restore(&backup, &to, |_| {}).await.unwrap();
    assert_eq!(made.open, 0);
    let other = Ledger::open(Options::new(&to)).await.unwrap();
    assert_eq!(other.restoration().await.unwrap(), None);
    other.owner().await.unwrap();
}

#[tokio::test]
async fn nothing_is_overwritten_by_a_backup_or_a_restoration() {
    let place = place().await;
    let (_, _, backup) = backed_up(&place).await;
    let again = place.ledger.backup(&backup, |_| {}).await;
    assert!(matches!(again, Err(Error::NotEmpty(_))), "{again:?}");
    let onto = Ledger::restore(&backup, place.directory.path(), |_| {}).await;
    assert!(matches!(onto, Err(Error::NotEmpty(_))), "{onto:?}");
    let file = place.directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let onto = place.ledger.backup(&file, |_| {}).await;
    assert!(matches!(onto, Err(Error::NotEmpty(_))), "{onto:?}");
    let nowhere = place.directory.path().join("no/such/place/of/it");
    std::fs::write(place.directory.path().join("no"), "").unwrap();
    let nowhere = place.ledger.backup(&nowhere, |_| {}).await;
    assert!(matches!(nowhere, Err(Error::Storage { .. })), "{nowhere:?}");
    place.holds().await;
}

#[tokio::test]
async fn a_backup_that_is_damaged_or_newer_is_not_restored_and_leaves_nothing() {
    let place = place().await;
    let (_, blob, backup) = backed_up(&place).await;
    let to = place.directory.path().join("elsewhere");
    let manifest = std::fs::read_to_string(backup.join("manifest.json")).unwrap();
    let rows = std::fs::read(backup.join("ledger.db")).unwrap();
    let content = std::fs::read(blob_path(&backup, blob)).unwrap();
    let mut other_rows = rows.clone();
    let middle = other_rows.len() / 2;
    other_rows[middle] ^= 1;
    let version = format!("\"version\": {}", ledger::VERSION);
    let newer = manifest.replace(&version, "\"version\": 99");
    assert_ne!(newer, manifest);
    let files = [
        (backup.join("manifest.json"), manifest.into_bytes()),
        (backup.join("ledger.db"), rows),
        (blob_path(&backup, blob), content.clone()),
    ];
    let half = content[..content.len() / 2].to_vec();
    for (file, damage) in [
        (0, None),
        (0, Some(b"{}".to_vec())),
        (0, Some(newer.into_bytes())),
        (1, None),
        (1, Some(other_rows)),
        (2, None),
        (2, Some(half)),
    ] {
        let is_newer = file == 0 && damage.as_ref().is_some_and(|damage| damage.len() > 10);
        let (path, whole) = &files[file];
        std::fs::remove_file(path).unwrap();
        if let Some(damage) = damage {
            std::fs::write(path, damage).unwrap();
        }
        let error = Ledger::restore(&backup, &to, |_| {}).await.unwrap_err();
        match error {
            Error::NewerVersion { found: 99, .. } => assert!(is_newer),
            Error::BackupDamaged(what) => assert!(!is_newer && !what.is_empty()),
            other => panic!("{other:?}"),
        }
        assert!(!to.exists());
        let left = std::fs::read_dir(place.directory.path()).unwrap();
        for entry in left {
            let name = entry.unwrap().file_name();
            assert!(!name.to_string_lossy().contains("partial"), "{name:?}");
        }
        drop(std::fs::remove_file(path));
        std::fs::write(path, whole).unwrap();
    }
    is_whole(&restored(&backup, &to).await).await;
    let none = Ledger::restore(Path::new("/no/such/backup"), &to, |_| {}).await;
    assert!(matches!(none, Err(Error::BackupDamaged(_))), "{none:?}");
}

#[tokio::test]
async fn a_blob_that_was_lost_is_named_and_hinders_no_backup() {
    let place = place().await;
    let (_, blob, _) = backed_up(&place).await;
    std::fs::remove_file(blob_path(place.directory.path(), blob)).unwrap();
    let to = place.directory.path().join("second");
    let made = place.ledger.backup(&to, |_| {}).await.unwrap();
    assert_eq!(made.missing, [blob]);
    let data = place.directory.path().join("elsewhere");
    let restored = Ledger::restore(&to, &data, |_| {}).await.unwrap();
    assert_eq!(restored.missing, [blob]);
    let other = Ledger::open(Options::new(&data)).await.unwrap();
    let violations = other.check_to(Depth::Blobs, |_| {}).await.unwrap();
    assert_eq!(violations.len(), 1);
    assert!(violations[0].to_string().contains("missing"));
}

#[tokio::test]
async fn what_killed_backups_left_goes_with_the_next_one_and_what_is_being_made_stays() {
    let place = place().await;
    let directory = tempfile::tempdir().unwrap();
    let left = |bits: &str| {
        let path = directory.path().join(format!(".bk.{bits}.partial"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("ledger.db"), "half").unwrap();
        let handle = std::fs::File::open(&path).unwrap();
        let hour = std::time::Duration::from_secs(3_600);
        handle
            .set_modified(std::time::SystemTime::now() - hour)
            .unwrap();
        (path, handle)
    };
    let (dead, handle) = left("0123456789abcdef");
    drop(handle);
    let (held, handle) = left("fedcba9876543210");
    handle.lock().unwrap();
    let other = directory.path().join(".bk.notes.partial");
    std::fs::create_dir(&other).unwrap();
    let to = directory.path().join("bk");
    place.ledger.backup(&to, |_| ()).await.unwrap();
    assert!(!dead.exists());
    assert!(held.exists() && other.exists() && to.exists());
}
