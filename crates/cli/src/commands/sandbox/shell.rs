//! `skep sandbox shell`.

use super::exec;
use crate::{context::Context, exit::Exit, relay, report::Error};
use server::standing::Run;

/// Open a shell in a sandbox; leaving it leaves the sandbox as it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep sandbox shell try")]
pub(super) struct Args {
    /// The sandbox, by its id or name or the beginning of one
    id: String,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let run = Run {
        argv: Vec::new(),
        env: relay::env(context),
        terminal: relay::terminal(),
        stdin: true,
        timeout: None,
        keep_background: false,
    };
    exec::begin(&args.id, run, context).await
}
