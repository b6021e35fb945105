//! `skep completions`.

use crate::{cli::Cli, context::Context, exit::Exit, report::Error};
use clap::CommandFactory as _;

/// Print the completions for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep completions bash > ~/.local/share/bash-completion/completions/skep\n  skep completions fish > ~/.config/fish/completions/skep.fish"
)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Error> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "skep", &mut text);
    context.output.raw(&text)?;
    Ok(Exit::Done)
}
