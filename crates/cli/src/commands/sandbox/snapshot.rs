//! `skep sandbox snapshot`.

use super::{data, undo::Object};
use crate::{context::Context, exit::Exit, report::Error};
use server::standing::find;

/// Keep the files of a sandbox as they are now, and print the snapshot's name
///
/// It costs what was written since the last one. Home and temporary directory are no part of it.
/// Nothing may run inside meanwhile.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sandbox snapshot try\n  skep sandbox snapshot try --name before-upgrade"
)]
pub(super) struct Args {
    /// The sandbox, by its id or name or the beginning of one
    id: String,
    /// The snapshot's name [default: the next of s1, s2, …]
    #[arg(long)]
    name: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let held = find(&data(context)?, &args.id).map_err(server::Error::from)?;
    let id = held.record.id.to_string();
    let kept = held.snapshot(args.name).await;
    let kept = kept.map_err(server::Error::from)?;
    if context.output.is_json() {
        context.output.object(&Object { id, moments: kept })?;
    } else {
        let name = kept.snapshot.unwrap_or_default();
        context.output.say(&format!("{name}\n"))?;
    }
    Ok(Exit::Done)
}
