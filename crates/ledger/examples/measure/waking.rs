//! From a submission until an idle worker has claimed it.

use crate::{Failed, again, figure, load::ask};
use domain::{Failure, Reason};
use skep_ledger::{Ledger, Options};
use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::mpsc,
};

const SAMPLES: usize = 300;

/// By the clock that both processes see, in microseconds.
fn now() -> Result<f64, Failed> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e6)
}

/// Claims what comes, and says when; says too when it finds nothing and waits.
async fn work(
    ledger: Ledger,
    mut say: impl FnMut(String) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let owner = ledger.owner().await?;
    let mut changes = ledger.changes();
    loop {
        changes.mark_unchanged();
        match ledger.claim_request(&owner, None).await? {
            Some(claimed) => {
                say(now()?.to_string())?;
                let failure = Failure::new(Reason::Cancelled, "measured");
                ledger.fail_request(&claimed.lease, failure).await?;
            }
            None => {
                say("idle".into())?;
                changes.changed().await?;
            }
        }
    }
}

/// Submits, again and again, to a worker that says one line when it claims and one when it waits.
async fn submit(
    ledger: &Ledger,
    mut said: impl AsyncFnMut() -> Result<String, Failed>,
) -> Result<Vec<f64>, Failed> {
    let session = ledger.session("wake").await?;
    let repository = ledger.repository("/r").await?;
    let mut times = Vec::with_capacity(SAMPLES);
    said().await?;
    while times.len() < SAMPLES {
        let begun = now()?;
        ledger.submit(session, ask(repository, 1), None).await?;
        loop {
            // What came before it woke to other commits is passed over.
            if let Ok(claimed) = said().await?.trim().parse::<f64>() {
                times.push(claimed - begun);
                break;
            }
        }
        said().await?;
    }
    Ok(times)
}

pub(crate) async fn measure() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::open(Options::new(directory.path())).await?;
    let (say, mut said) = mpsc::unbounded_channel();
    let worker = tokio::spawn(work(ledger.clone(), move |line| Ok(say.send(line)?)));
    let times = submit(&ledger, async || {
        said.recv().await.ok_or_else(|| "the worker ended".into())
    });
    figure("wake_p50_us", "us", &times.await?)?;
    worker.abort();

    let path = directory.path().to_str().ok_or("a path that is no text")?;
    let mut child = again(&["worker", path])?.spawn()?;
    let mut out = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let times = submit(&ledger, async || {
        let line = out.next_line().await?;
        line.ok_or_else(|| "the worker ended".into())
    });
    figure("wake_other_p50_us", "us", &times.await?)?;
    child.kill().await?;
    ledger.close().await;
    Ok(())
}

/// The idle worker of another process.
pub(crate) async fn other(directory: &str) -> Result<(), Failed> {
    let ledger = Ledger::open(Options::new(directory)).await?;
    work(ledger, |line| Ok(writeln!(std::io::stdout(), "{line}")?)).await
}
