//! `skep cancel`.

use crate::{context::Context, exit::Exit, report::Error};
use ledger::Found;

/// Cancel a request or a job
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep cancel r-7k2\n  skep cancel j-01h")]
pub(crate) struct Args {
    /// The request or job, by its id or the beginning of it
    id: String,
}

#[derive(serde::Serialize)]
struct Cancelled {
    cancelled: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let found = ledger.find(&args.id).await?;
    match found {
        Found::Request(id) => ledger.cancel_request(id).await?,
        Found::Job(id) => ledger.cancel_job(id).await?,
        other => return Err(super::wrong_kind(other, "cancel", "a request or a job")),
    }
    ledger.close().await;
    if context.output.is_json() {
        context.output.object(&Cancelled {
            cancelled: found.to_string(),
        })?;
    } else {
        context.output.say(&format!(
            "{found} is cancelled. What ran for it is being stopped.\n"
        ))?;
    }
    Ok(Exit::Done)
}
