//! `skep pause`.

use crate::{context::Context, exit::Exit, report::Error};
use ledger::Found;

/// Stop a request or a job for now; `skep resume` goes on with it
///
/// Agents that are at work are stopped, and their workspaces and conversations are kept. What has
/// passed its checks still lands.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep pause r-7k2\n  skep pause j-01h")]
pub(crate) struct Args {
    /// The request or job, by its id or the beginning of it
    id: String,
}

#[derive(serde::Serialize)]
struct Paused {
    paused: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let found = ledger.find(&args.id).await?;
    match found {
        Found::Request(id) => ledger.pause_request(id).await?,
        Found::Job(id) => ledger.pause_job(id).await?,
        other => return Err(super::wrong_kind(other, "pause", "a request or a job")),
    }
    ledger.close().await;
    if context.output.is_json() {
        context.output.object(&Paused {
            paused: found.to_string(),
        })?;
    } else {
        context.output.say(&format!(
            "{found} is paused. `skep resume {found}` goes on with it.\n"
        ))?;
    }
    Ok(Exit::Done)
}
