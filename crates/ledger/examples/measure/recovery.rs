//! A start after a death.

use crate::{Failed, again, figure, fill};
use skep_ledger::{Ledger, Options};
use std::time::Instant;

/// How many jobs are finished, and how many a dead process held.
const FINISHED: usize = 100_000;
const INTERRUPTED: usize = 50;

/// From the opening until the first of the interrupted jobs is claimed again.
pub(crate) async fn measure() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    fill::finished(directory.path(), FINISHED).await?;
    let path = directory.path().to_str().ok_or("a path that is no text")?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let mut child = again(&["interrupted", path])?.spawn()?;
        if child.wait().await?.code().is_some() {
            return Err("the process that should die by a signal ended by itself".into());
        }
        let begun = Instant::now();
        let ledger = Ledger::open(Options::new(directory.path())).await?;
        let owner = ledger.owner().await?;
        let claimed = ledger.claim_job(&owner, None).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        claimed.ok_or("no interrupted job is ready")?;
        let mut claimed = 1;
        while ledger.claim_job(&owner, None).await?.is_some() {
            claimed += 1;
        }
        if claimed < INTERRUPTED {
            return Err(format!("only {claimed} interrupted jobs are ready").into());
        }
        drop(owner);
        ledger.close().await;
    }
    figure("resume_ready_ms", "ms", &times)
}

/// Starts attempts of jobs and dies.
pub(crate) async fn other(directory: &str) -> Result<(), Failed> {
    let ledger = Ledger::open(Options::new(directory)).await?;
    let owner = ledger.owner().await?;
    fill::planned(&ledger, &owner, INTERRUPTED).await?;
    for _ in 0..INTERRUPTED {
        fill::started(&ledger, &owner).await?;
    }
    std::process::abort()
}
