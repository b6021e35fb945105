//! `skep sandbox ssh`.

use super::{data, ssh_config::PREFIX};
use crate::{context::Context, exit::Exit, report::Error, ssh};
use server::standing::find;
use std::io::{self, IsTerminal as _};

/// Speak SSH on standard input and output, as `ProxyCommand` of ssh: `ssh-config` prints the lines for it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ssh -o ProxyCommand='skep sandbox ssh try' try\n  skep sandbox ssh-config > ~/.ssh/skep"
)]
pub(super) struct Args {
    /// The sandbox, by its id or name or the beginning of one
    id: String,
    /// The id is the name of a host, with `skep-` before it
    #[arg(long)]
    host: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        return Err(Error::Refused {
            message: "`skep sandbox ssh` speaks with an SSH client, and not with a person".into(),
            hint: format!(
                "put what `skep sandbox ssh-config` prints at the top of ~/.ssh/config, then `ssh {PREFIX}{}`; or `skep sandbox shell {}`",
                args.id, args.id
            ),
        });
    }
    let data = data(context)?;
    let name = match args.host {
        true => args.id.strip_prefix(PREFIX).unwrap_or(&args.id),
        false => &args.id,
    };
    let held = find(&data, name).map_err(server::Error::from)?;
    ssh::serve(held, &data).await
}
