//! Disks that are full, read-only or damaged, and clocks that jump: a typed error, nothing that
//! was acknowledged is lost, and work goes on when it can.
//!
//! A disk that fills is a small file system in a mount namespace of its own, so no privilege is
//! needed: the test runs itself in it.

use crate::{
    processes::{Running, said},
    support::{Place, new_attempt, open, passed, place},
};
use domain::{JobState, RequestState, SessionId};
use ledger::{Depth, Error, Fault, Ledger, Options};
use std::{
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const DIRECTORY: &str = "SKEP_LEDGER_TEST_DISK";
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Runs a test of this program where `mount` has been done at the directory, as `$1`.
fn within(mount: &str, directory: &Path, test: &str) -> Running {
    let script = format!("{mount} && shift && exec \"$@\"");
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .args([script.as_str(), "sh"])
        .arg(directory)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`unshare` is there: install util-linux");
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    Running(child, output)
}

/// What the child does in its directory; without one this is not the child.
fn as_child(work: impl AsyncFnOnce(PathBuf)) {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work(directory.into()));
    println!("held what was promised");
}

fn is<T: std::fmt::Debug>(result: &Result<T, Error>, wanted: Fault) -> bool {
    matches!(result, Err(Error::Storage { kind, .. }) if *kind == wanted)
}

/// Content that does not compress.
fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(length);
    while content.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend(state.to_ne_bytes());
    }
    content
}

/// Notes until the disk is full; how many were acknowledged.
async fn fill(ledger: &Ledger, session: SessionId) -> u64 {
    let mut acknowledged = 0;
    loop {
        let note = ledger.note(session, None, "n".repeat(50_000)).await;
        match note {
            Ok(()) => acknowledged += 1,
            full => {
                assert!(is(&full, Fault::Full), "{full:?}");
                return acknowledged;
            }
        }
    }
}

async fn holds(ledger: &Ledger) {
    let violations = ledger.check_to(Depth::Blobs, |_| {}).await.unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn child_whose_disk_fills() {
    as_child(async |directory| {
        let ballast = directory.join("ballast");
        std::fs::write(&ballast, noise(0, 3 << 20)).unwrap();
        let data = directory.join("data");
        let ledger = Ledger::open(Options::new(&data)).await.unwrap();
        let session = ledger.session("work").await.unwrap();
        let acknowledged = fill(&ledger, session).await;
        assert!(acknowledged > 10, "{acknowledged}");
        // Blobs say it too, and leave nothing half-written.
        let mut stored = Vec::new();
        let full = loop {
            match ledger
                .put_blob(noise(stored.len() as u64 + 1, 20_000))
                .await
            {
                Ok(id) => stored.push(id),
                full => break full,
            }
        };
        assert!(is(&full, Fault::Full), "{full:?}");
        let writing = std::fs::read_dir(data.join("blobs/writing")).unwrap();
        assert_eq!(writing.count(), 0);
        let to = directory.join("backup");
        let backup = ledger.backup(&to, |_| {}).await;
        assert!(is(&backup, Fault::Full), "{backup:?}");
        // What was acknowledged can be read.
        assert_eq!(
            ledger.last_sequence(session).await.unwrap(),
            1 + acknowledged
        );
        for id in &stored {
            ledger.blob(*id, 1 << 20).await.unwrap();
        }
        let elsewhere = Ledger::open(Options::new(directory.join("other"))).await;
        assert!(is(&elsewhere, Fault::Full), "{elsewhere:?}");

        // With space again the same handle goes on.
        std::fs::remove_file(ballast).unwrap();
        ledger.note(session, None, "again").await.unwrap();
        ledger.put_blob(noise(0, 20_000)).await.unwrap();
        holds(&ledger).await;
        ledger.close().await;
        let again = Ledger::open(Options::new(&data)).await.unwrap();
        assert_eq!(
            again.last_sequence(session).await.unwrap(),
            2 + acknowledged
        );
        holds(&again).await;
        again.close().await;
    });
}

#[test]
fn a_full_disk_is_an_error_that_loses_nothing_and_ends_with_the_shortage() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = within(
        "mount -t tmpfs -o size=12m tmpfs \"$1\"",
        directory.path(),
        "disk::child_whose_disk_fills",
    );
    said(&mut child, "held what was promised");
}

#[test]
fn child_whose_disk_has_no_room_for_the_index_of_the_log() {
    as_child(async |directory| {
        let data = directory.join("data");
        let ledger = Ledger::open(Options::new(&data)).await.unwrap();
        let session = ledger.session("work").await.unwrap();
        ledger.close().await;
        let ballast = directory.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&noise(1, 4_096)).is_ok() {}
        let full = file.metadata().unwrap().len();
        // Up to seven pages, where the index takes eight.
        for free in [0, 1, 7] {
            file.set_len(full - free * 4_096).unwrap();
            let opened = Ledger::open(Options::new(&data)).await;
            assert!(is(&opened, Fault::Full), "{free}: {opened:?}");
        }
        drop(file);
        std::fs::remove_file(ballast).unwrap();
        let ledger = Ledger::open(Options::new(&data)).await.unwrap();
        assert_eq!(ledger.last_sequence(session).await.unwrap(), 1);
        holds(&ledger).await;
    });
}

#[test]
fn a_ledger_that_cannot_be_opened_for_want_of_space_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = within(
        "mount -t tmpfs -o size=4m tmpfs \"$1\"",
        directory.path(),
        "disk::child_whose_disk_has_no_room_for_the_index_of_the_log",
    );
    said(&mut child, "held what was promised");
}

#[test]
fn child_that_may_only_read() {
    as_child(async |directory| {
        let opened = Ledger::open(Options::new(&directory)).await;
        assert!(is(&opened, Fault::ReadOnly), "{opened:?}");
        let new = Ledger::open(Options::new(directory.join("new"))).await;
        assert!(is(&new, Fault::ReadOnly), "{new:?}");
    });
}

#[tokio::test]
async fn a_directory_that_is_read_only_says_so_and_keeps_what_it_has() {
    let place = place().await;
    place.planned(&["a"]).await;
    let last = place.ledger.last_sequence(place.session).await.unwrap();
    let mut child = within(
        "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\"",
        place.directory.path(),
        "disk::child_that_may_only_read",
    );
    said(&mut child, "held what was promised");
    assert_eq!(
        place.ledger.last_sequence(place.session).await.unwrap(),
        last
    );
    place.holds().await;
}

/// The files of a ledger as a power cut would leave them now.
fn cut(place: &Place) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    for name in ["ledger.db", "ledger.db-wal"] {
        let from = place.directory.path().join(name);
        std::fs::copy(from, left.path().join(name)).unwrap();
    }
    left
}

#[tokio::test]
async fn a_write_ahead_log_that_ends_in_the_middle_leaves_whole_verbs_only() {
    let place = place().await;
    for _ in 0..20 {
        place.planned(&["a", "b a"]).await;
    }
    place.running().await;
    let last = place.ledger.last_sequence(place.session).await.unwrap();
    let length = place.directory.path().join("ledger.db-wal");
    let length = std::fs::metadata(length).unwrap().len();

    // What was being written and not acknowledged is nothing.
    let left = cut(&place);
    let log = left.path().join("ledger.db-wal");
    let mut file = std::fs::File::options().append(true).open(&log).unwrap();
    file.write_all(&noise(1, 3_000)).unwrap();
    drop(file);
    let ledger = open(left.path(), &place.clock).await;
    assert!(ledger.last_sequence(place.session).await.unwrap() >= last);
    holds(&ledger).await;
    ledger.close().await;

    // Where the disk has lost the end of it, what is left is as it was at some earlier moment.
    for parts in 1..16 {
        let left = cut(&place);
        let log = left.path().join("ledger.db-wal");
        let file = std::fs::File::options().write(true).open(&log).unwrap();
        file.set_len(length * parts / 16).unwrap();
        drop(file);
        let ledger = open(left.path(), &place.clock).await;
        if let Ok(kept) = ledger.events(place.session, 0, 10_000).await {
            let before = place.ledger.events(place.session, 0, kept.len()).await;
            let before = before.unwrap();
            // Opening it ended the leases of owners that are not there.
            let same = kept
                .iter()
                .zip(&before)
                .take_while(|(kept, before)| kept == before)
                .count();
            assert!(same + 3 >= kept.len(), "{same} of {}", kept.len());
        }
        holds(&ledger).await;
        ledger.close().await;
    }
}

#[tokio::test]
async fn a_log_that_is_longer_than_what_was_written_to_it_loses_nothing_when_the_power_is_cut() {
    let place = place().await;
    let log = place.directory.path().join("ledger.db-wal");
    place.planned(&["a", "b a"]).await;
    // It is made longer after a commit, before the next one.
    place.planned(&["a"]).await;
    place.running().await;
    let whole = std::fs::read(&log).unwrap();
    assert_eq!(whole.len() % (1 << 20), 0, "a commit made it longer");
    assert!(whole.iter().rev().take(1 << 14).all(|byte| *byte == 0));
    let last = place.ledger.last_sequence(place.session).await.unwrap();
    let left = cut(&place);
    let ledger = open(left.path(), &place.clock).await;
    assert!(ledger.last_sequence(place.session).await.unwrap() >= last);
    let kept = ledger.events(place.session, 0, 10_000).await.unwrap();
    let before = place.ledger.events(place.session, 0, 10_000).await.unwrap();
    assert!(kept.starts_with(&before));
    holds(&ledger).await;
    ledger.close().await;
}

#[tokio::test]
async fn rows_that_are_damaged_are_an_error_and_not_another_answer() {
    let place = place().await;
    for _ in 0..20 {
        place.planned(&["a", "b a"]).await;
    }
    place.ledger.close().await;
    let path = place.directory.path().join("ledger.db");
    let length = std::fs::metadata(&path).unwrap().len();
    let whole = std::fs::read(&path).unwrap();
    for part in 1..8 {
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(length * part / 8)).unwrap();
        file.write_all(&noise(part, (length / 8) as usize)).unwrap();
        drop(file);
        let opened = Ledger::open(Options::new(place.directory.path())).await;
        let found = match opened {
            Ok(ledger) => {
                let checked = ledger.check().await;
                ledger.close().await;
                checked.map(|violations| violations.is_empty())
            }
            Err(error) => Err(error),
        };
        assert!(
            matches!(found, Ok(false)) || is(&found, Fault::Damaged),
            "{part}: {found:?}"
        );
        for end in ["-wal", "-shm"] {
            drop(std::fs::remove_file(
                place.directory.path().join(format!("ledger.db{end}")),
            ));
        }
        std::fs::write(&path, &whole).unwrap();
    }
    let ledger = open(place.directory.path(), &place.clock).await;
    holds(&ledger).await;
}

#[tokio::test]
async fn a_damaged_blob_is_named_by_a_deep_check_and_hinders_nothing_else() {
    let place = place().await;
    let mut ask = place.ask().await;
    let content = place.ledger.put_blob("included").await.unwrap();
    ask.included = vec![domain::entity::Included {
        path: ".env".into(),
        executable: false,
        content,
    }];
    place.ledger.submit(place.session, ask, None).await.unwrap();
    holds(&place.ledger).await;
    let name = content.to_string();
    let path = place.directory.path().join("blobs").join(&name[..2]);
    std::fs::write(path.join(&name), noise(1, 100)).unwrap();
    place.holds().await;
    let violations = place.ledger.check_to(Depth::Blobs, |_| {}).await.unwrap();
    assert_eq!(violations.len(), 1);
    assert!(violations[0].to_string().contains(&name));
    place.ledger.put_blob("included").await.unwrap();
    holds(&place.ledger).await;
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_back_and_forth_loses_no_work() {
    for jumps in [[true, false], [false, true], [true, true], [false, false]] {
        let place = place().await;
        place.clock.advance(DAY * 10);
        let request = place.planned(&["a"]).await;
        let jump = |forward| {
            if forward {
                place.clock.advance(DAY);
            } else {
                place.clock.turn_back(DAY);
            }
        };
        let mut held = place.running().await;
        jump(jumps[0]);
        // Its holder is told to stop, or goes on.
        match place.ledger.heartbeat(&held.lease).await {
            Ok(_) => {}
            Err(Error::LeaseLost(_)) => {
                held = place.claim().await;
                let attempt = place.ledger.start_attempt(&held.lease, new_attempt()).await;
                attempt.unwrap();
                place.ledger.attempt_running(&held.lease).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        place
            .ledger
            .attempt_checking(&held.lease, "d".repeat(40))
            .await
            .unwrap();
        let settled = place.ledger.settle_attempt(&held.lease, passed()).await;
        assert_eq!(settled.unwrap().job, JobState::Delivered);
        jump(jumps[1]);
        let change = place.claim_change().await.unwrap();
        let commit = "e".repeat(40);
        place
            .ledger
            .settle_change(&change.lease, ledger::ChangeOutcome::Integrated { commit })
            .await
            .unwrap();
        let ended = place.ledger.request(request).await.unwrap();
        assert_eq!(ended.state, RequestState::Done);
        place.holds().await;
    }
}
