//! How many lifecycles a second: `cargo run --release -p skep-ledger --example lifecycles`, with
//! other numbers of callers and rounds by `-- CALLERS ROUNDS`.
//!
//! Each caller has a session of its own and awaits each verb: submit, claim, two heartbeats, two
//! events, settle with a blob's name. Every acknowledged verb is durable.

use domain::{
    Amount, Failure, Reason,
    entity::{Ask, Planning},
    event::Body,
    policy::Policy,
};
use skep_ledger::{Error, Ledger, Options};
use std::{io::Write, time::Instant};

async fn caller(ledger: Ledger, name: usize, rounds: usize) -> Result<(), Error> {
    let session = ledger.session(&format!("caller {name}")).await?;
    let owner = ledger.owner().await?;
    let ask = Ask {
        repository: ledger.repository("/r").await?,
        repository_path: "/r".into(),
        base: "a".repeat(40),
        dirty: false,
        prompt: "Mend the parser".into(),
        planning: Planning::None,
        plan: None,
        agent: "built-in".into(),
        model: None,
        budget: Amount::unbounded(),
        policy: Policy::default(),
        parallel: 1,
        placement: domain::entity::Placement::default(),
        retry_of: None,
        included: Vec::new(),
        sources: Default::default(),
        sandbox: None,
    };
    let blob = ledger.put_blob("a result").await?;
    for _ in 0..rounds {
        let request = ledger.submit(session, ask.clone(), None).await?;
        let Some(claimed) = ledger.claim_request(&owner, Some(request)).await? else {
            continue;
        };
        for text in ["one", "two"] {
            ledger.heartbeat(&claimed.lease).await?;
            let note = Body::Note { text: text.into() };
            ledger.record(&claimed.lease, vec![note]).await?;
        }
        let failure = Failure::new(Reason::Cancelled, blob.to_string());
        ledger.fail_request(&claimed.lease, failure).await?;
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted: Vec<usize> = std::env::args()
        .skip(1)
        .map(|number| number.parse())
        .collect::<Result<_, _>>()?;
    let loads = match wanted.as_slice() {
        [callers, rounds] => vec![(*callers, *rounds)],
        _ => vec![(1, 300), (32, 500), (128, 200)],
    };
    for (callers, rounds) in loads {
        let directory = tempfile::tempdir()?;
        let ledger = Ledger::open(Options::new(directory.path())).await?;
        let begun = Instant::now();
        let all: Vec<_> = (0..callers)
            .map(|name| tokio::spawn(caller(ledger.clone(), name, rounds)))
            .collect();
        for one in all {
            one.await??;
        }
        let seconds = begun.elapsed().as_secs_f64();
        writeln!(
            std::io::stdout(),
            "{callers} callers: {:.0} lifecycles/s, {:.0} µs a verb",
            (callers * rounds) as f64 / seconds,
            seconds * 1e6 / (rounds * 7) as f64,
        )?;
        ledger.close().await;
    }
    Ok(())
}
