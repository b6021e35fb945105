//! Events that are read: the past, the present, and how much room they take.

use crate::{Failed, figure, fill, part};
use domain::event::Body;
use skep_ledger::{Lease, Ledger, Options};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tokio::sync::mpsc;

/// How many events one verb records.
const AT_ONCE: usize = 1_000;

/// A lease under which events are recorded; it holds a job of the session `full`.
async fn holder(ledger: &Ledger) -> Result<(skep_ledger::Owner, Lease), Failed> {
    let owner = ledger.owner().await?;
    fill::planned(ledger, &owner, 1).await?;
    let lease = fill::started(ledger, &owner).await?;
    Ok((owner, lease))
}

async fn record(ledger: &Ledger, lease: &Lease, events: usize, bytes: usize) -> Result<(), Failed> {
    for begin in (0..events).step_by(AT_ONCE) {
        let note = |number| {
            let mut text = format!("{number} ");
            text.extend(
                "what an agent said "
                    .chars()
                    .cycle()
                    .take(bytes - text.len()),
            );
            Body::Note { text }
        };
        let notes = (begin..begin + AT_ONCE).map(note).collect();
        ledger.record(lease, notes).await?;
        ledger.heartbeat(lease).await?;
    }
    Ok(())
}

/// A subscriber reads half a million events from the first on.
pub(crate) async fn replay() -> Result<(), Failed> {
    const EVENTS: usize = 500_000;
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::open(Options::new(directory.path())).await?;
    let (owner, lease) = holder(&ledger).await?;
    record(&ledger, &lease, EVENTS, 100).await?;
    let session = ledger.session("full").await?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let mut events = ledger.subscribe(session, 0).await?;
        for sequence in 1..=EVENTS as u64 {
            if events.next().await?.sequence != sequence {
                return Err("an event is missing".into());
            }
        }
        rates.push(EVENTS as f64 / begun.elapsed().as_secs_f64());
    }
    drop(owner);
    ledger.close().await;
    figure("events_replay_per_s", "1/s", &rates)
}

/// From the call that records an event until each of a thousand subscribers has it.
pub(crate) async fn live() -> Result<(), Failed> {
    const SUBSCRIBERS: usize = 1_000;
    const EVENTS: usize = 100;
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::open(Options::new(directory.path())).await?;
    let session = ledger.session("watched").await?;
    let after = ledger.last_sequence(session).await?;
    let sent = Arc::new(Mutex::new(Instant::now()));
    let (seen, mut all_seen) = mpsc::channel(SUBSCRIBERS);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        let mut events = ledger.subscribe(session, after).await?;
        let (sent, seen) = (sent.clone(), seen.clone());
        tasks.spawn(async move {
            while events.next().await.is_ok() {
                let sent = *sent.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.send(sent.elapsed().as_secs_f64() * 1e3).await.is_err() {
                    break;
                }
            }
        });
    }
    let mut times = Vec::with_capacity(SUBSCRIBERS * EVENTS);
    for number in 0..EVENTS {
        *sent.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        ledger.note(session, None, format!("{number}")).await?;
        for _ in 0..SUBSCRIBERS {
            times.push(all_seen.recv().await.ok_or("a subscriber ended")?);
        }
    }
    tasks.shutdown().await;
    ledger.close().await;
    figure("live_1000_p99_ms", "ms", &[part(times, 0.99)])
}

/// A million events of a kilobyte: the files against what was said.
pub(crate) async fn size() -> Result<(), Failed> {
    const EVENTS: usize = 1_000_000;
    const BYTES: usize = 1_024;
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::open(Options::new(directory.path())).await?;
    let (owner, lease) = holder(&ledger).await?;
    record(&ledger, &lease, EVENTS, BYTES).await?;
    drop(owner);
    ledger.close().await;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory.path())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            bytes += entry.metadata()?.len();
        }
    }
    figure(
        "db_bytes_ratio",
        "x",
        &[bytes as f64 / (EVENTS * BYTES) as f64],
    )
}
