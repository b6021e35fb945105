//! `skep egress`: what may leave a sandbox, and what did.

mod explain;

use crate::{context::Context, exit::Exit, report::Error};

/// Say what may leave a sandbox, and what did
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  skep egress explain https://api.example.com/v1 --for agent\n  skep egress explain r-7k2"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Explain(explain::Args),
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    match args.command {
        Command::Explain(args) => explain::run(args, context).await,
    }
}
