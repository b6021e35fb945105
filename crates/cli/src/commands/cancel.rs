//! `skep cancel`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        paint::{LOOK, paint},
        text,
    },
};
use ledger::Found;

/// Cancel a request or a job
///
/// What was kept so that it could go on is removed. A process that works on it stops what it has
/// running, and cleans up itself.
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
    let (config, _) = context.config()?;
    let data = context.data(&config)?;
    let ledger = context.ledger().await?;
    let found = ledger.find(&args.id).await?;
    match found {
        Found::Request(id) => ledger.cancel_request(id).await?,
        Found::Job(id) => ledger.cancel_job(id).await?,
        other => return Err(super::wrong_kind(other, "cancel", "a request or a job")),
    }
    if context.output.is_json() {
        context.output.object(&Cancelled {
            cancelled: found.to_string(),
        })?;
    } else {
        context.output.say(&format!(
            "{found} is cancelled. What ran for it is being stopped.\n"
        ))?;
    }
    // It is cancelled whatever becomes of its files.
    if let Err(error) = server::sweep(&ledger, &data).await {
        context.output.aside(&format!(
            "{} its workspace is still there: {}; the next `skep run` removes it\n",
            paint(LOOK, "note:"),
            text::line(&domain::failure::chain(&error))
        ));
    }
    ledger.close().await;
    Ok(Exit::Done)
}
