//! Lifecycles: submit, claim, two heartbeats, two events, settle with a blob's name.

use crate::{Failed, again, figure, fill, floor, part};
use domain::{
    Amount, BlobId, Failure, Reason, RepositoryId, SessionId,
    entity::{Ask, Planning},
    event::Body,
    policy::Policy,
};
use skep_ledger::{Ledger, Options, Owner};
use std::{io::Write, path::Path, time::Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// How often each caller goes round before it is measured, and then.
const WARM: usize = 20;
const ROUNDS: usize = 300;
/// How often each is measured, in turn with what it is compared with.
const TURNS: usize = 3;
/// How many finished jobs are there in the largest measurements.
const MANY: usize = 1_000_000;

/// What is asked for.
pub(crate) fn ask(repository: RepositoryId, parallel: u32) -> Ask {
    Ask {
        repository,
        repository_path: "/r".into(),
        base: "a".repeat(40),
        prompt: "Mend the parser".into(),
        planning: Planning::None,
        plan: None,
        agent: "built-in".into(),
        model: None,
        budget: Amount::unbounded(),
        policy: Policy::default(),
        parallel,
        retry_of: None,
        included: Vec::new(),
        sources: Default::default(),
        sandbox: None,
        dirty: Default::default(),
        placement: Default::default(),
    }
}

/// A caller with a session of its own, that awaits each verb.
struct Caller {
    ledger: Ledger,
    session: SessionId,
    owner: Owner,
    ask: Ask,
    blob: BlobId,
}

impl Caller {
    async fn new(ledger: &Ledger, name: &str) -> Result<Self, Failed> {
        Ok(Self {
            session: ledger.session(name).await?,
            owner: ledger.owner().await?,
            ask: ask(ledger.repository("/r").await?, 1),
            blob: ledger.put_blob("a result").await?,
            ledger: ledger.clone(),
        })
    }

    /// One lifecycle; `seen` is told after each verb.
    async fn round(&self, mut seen: impl FnMut()) -> Result<(), Failed> {
        let ledger = &self.ledger;
        let request = ledger.submit(self.session, self.ask.clone(), None).await?;
        seen();
        let claimed = ledger.claim_request(&self.owner, Some(request)).await?;
        let claimed = claimed.ok_or("a request that was just accepted is not there")?;
        seen();
        for text in ["one", "two"] {
            ledger.heartbeat(&claimed.lease).await?;
            seen();
            let note = Body::Note { text: text.into() };
            ledger.record(&claimed.lease, vec![note]).await?;
            seen();
        }
        let failure = Failure::new(Reason::Cancelled, self.blob.to_string());
        ledger.fail_request(&claimed.lease, failure).await?;
        seen();
        Ok(())
    }

    async fn rounds(&self, rounds: usize) -> Result<(), Failed> {
        for _ in 0..rounds {
            self.round(|| ()).await?;
        }
        Ok(())
    }
}

struct Callers(Vec<std::sync::Arc<Caller>>);

impl Callers {
    async fn new(ledger: &Ledger, name: &str, count: usize) -> Result<Self, Failed> {
        let mut callers = Vec::with_capacity(count);
        for number in 0..count {
            let name = format!("{name} {number}");
            callers.push(std::sync::Arc::new(Caller::new(ledger, &name).await?));
        }
        let callers = Self(callers);
        callers.rate(WARM).await?;
        Ok(callers)
    }

    /// Lifecycles a second.
    async fn rate(&self, rounds: usize) -> Result<f64, Failed> {
        let begun = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for caller in &self.0 {
            let caller = caller.clone();
            all.spawn(async move { caller.rounds(rounds).await });
        }
        while let Some(one) = all.join_next().await {
            one??;
        }
        Ok((self.0.len() * rounds) as f64 / begun.elapsed().as_secs_f64())
    }
}

async fn rate_in(directory: &Path, callers: usize, rounds: usize) -> Result<f64, Failed> {
    let ledger = Ledger::open(Options::new(directory)).await?;
    let rate = Callers::new(&ledger, "caller", callers)
        .await?
        .rate(rounds)
        .await?;
    ledger.close().await;
    Ok(rate)
}

/// 32 and 128 callers, each in turn with the bare loop.
pub(crate) async fn lifecycles() -> Result<(), Failed> {
    for (callers, rounds) in [(32, ROUNDS), (128, ROUNDS / 2)] {
        let (mut rates, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let directory = tempfile::tempdir()?;
            rates.push(rate_in(directory.path(), callers, rounds).await?);
            bare.push(floor::lifecycles(callers, rounds).await?);
        }
        figure(&format!("sqlite_lifecycles_{callers}"), "1/s", &rates)?;
        figure(&format!("bare_lifecycles_{callers}"), "1/s", &bare)?;
    }
    Ok(())
}

/// One caller: how long each verb takes.
pub(crate) async fn verbs() -> Result<(), Failed> {
    let (mut verbs, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let directory = tempfile::tempdir()?;
        let ledger = Ledger::open(Options::new(directory.path())).await?;
        let caller = Caller::new(&ledger, "caller").await?;
        caller.rounds(WARM * 10).await?;
        let mut times = Vec::new();
        let mut last = Instant::now();
        for _ in 0..ROUNDS {
            caller
                .round(|| {
                    times.push(last.elapsed().as_secs_f64() * 1e6);
                    last = Instant::now();
                })
                .await?;
        }
        ledger.close().await;
        verbs.push(part(times, 0.5));
        bare.push(part(floor::verbs(ROUNDS).await?, 0.5));
    }
    figure("sqlite_verb_p50_us", "us", &verbs)?;
    figure("bare_verb_p50_us", "us", &bare)
}

/// 32 callers with a million finished jobs in the tables, in turn with an empty ledger.
pub(crate) async fn full() -> Result<(), Failed> {
    let large = tempfile::tempdir()?;
    fill::finished(large.path(), MANY).await?;
    let (mut rates, mut parts) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let small = tempfile::tempdir()?;
        let empty = rate_in(small.path(), 32, ROUNDS).await?;
        let full = rate_in(large.path(), 32, ROUNDS).await?;
        rates.push(full);
        parts.push(full / empty);
    }
    figure("sqlite_lifecycles_1m", "1/s", &rates)?;
    figure("sqlite_lifecycles_1m_part", "x", &parts)
}

/// Claims of a job: a million of which ten thousand are ready, in turn with a thousand.
pub(crate) async fn claim() -> Result<(), Failed> {
    const READY: usize = 10_000;
    const FEW: usize = 1_000;
    let (large, small) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fill::finished(large.path(), MANY - READY).await?;
    let many = Ledger::open(Options::new(large.path())).await?;
    let few = Ledger::open(Options::new(small.path())).await?;
    fill::ready(&many, READY).await?;
    fill::ready(&few, FEW).await?;
    let (many_owner, few_owner) = (many.owner().await?, few.owner().await?);
    let (mut many_times, mut few_times) = (Vec::new(), Vec::new());
    for _ in 0..FEW {
        for (ledger, owner, times) in [
            (&many, &many_owner, &mut many_times),
            (&few, &few_owner, &mut few_times),
        ] {
            let begun = Instant::now();
            let claimed = ledger.claim_job(owner, None).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            claimed.ok_or("there are fewer ready jobs than were planned")?;
        }
    }
    many.close().await;
    few.close().await;
    let (many, few) = (part(many_times, 0.99), part(few_times, 0.99));
    figure("claim_p99_us_1m", "us", &[many])?;
    figure("claim_p99_us_1k", "us", &[few])?;
    figure("claim_p99_ratio_1m", "x", &[many / few])
}

/// Two processes with 16 callers each, in turn with one with 32.
pub(crate) async fn two_processes() -> Result<(), Failed> {
    let (mut rates, mut parts) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let alone = tempfile::tempdir()?;
        let one = rate_in(alone.path(), 32, ROUNDS).await?;
        let shared = tempfile::tempdir()?;
        let path = shared.path().to_str().ok_or("a path that is no text")?;
        let mut others = Vec::new();
        for name in ["first", "second"] {
            let mut child = again(&["load", path, name])?.spawn()?;
            let out = child.stdout.take().ok_or("no output")?;
            let mut out = BufReader::new(out);
            // It is warm.
            out.read_line(&mut String::new()).await?;
            others.push((child, out));
        }
        let begun = Instant::now();
        for (child, _) in &mut others {
            let input = child.stdin.as_mut().ok_or("no input")?;
            input.write_all(b"go\n").await?;
        }
        for (_, out) in &mut others {
            out.read_to_string(&mut String::new()).await?;
        }
        let two = (32 * ROUNDS) as f64 / begun.elapsed().as_secs_f64();
        for (mut child, _) in others {
            if !child.wait().await?.success() {
                return Err("another process failed".into());
            }
        }
        rates.push(two);
        parts.push(two / one);
    }
    figure("two_process_lifecycles", "1/s", &rates)?;
    figure("two_process_part", "x", &parts)
}

/// One of the two processes.
pub(crate) async fn other(directory: &str, name: &str) -> Result<(), Failed> {
    let ledger = Ledger::open(Options::new(directory)).await?;
    let callers = Callers::new(&ledger, name, 16).await?;
    writeln!(std::io::stdout(), "warm")?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    callers.rate(ROUNDS).await?;
    ledger.close().await;
    Ok(())
}
