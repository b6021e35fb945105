//! `skep sandbox undo`.

use super::data;
use crate::{context::Context, exit::Exit, report::Error};
use server::standing::{Moments, find};

/// Take the files of a sandbox back to a snapshot
///
/// What was written since is gone, and so are later snapshots: `skep sandbox fork` keeps them. Home and
/// temporary directory stay as they are. Nothing may run inside meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep sandbox undo try s2\n  skep sandbox undo try --start")]
pub(super) struct Args {
    /// The sandbox, by its id or name or the beginning of one
    id: String,
    /// The snapshot: `skep sandbox inspect` lists them
    #[arg(required_unless_present = "start", conflicts_with = "start")]
    snapshot: Option<String>,
    /// To where the sandbox began, after its setup
    #[arg(long)]
    start: bool,
}

#[derive(serde::Serialize)]
pub(super) struct Object {
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) moments: Moments,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let held = find(&data(context)?, &args.id).map_err(server::Error::from)?;
    let id = held.record.id.to_string();
    let moments = held.undo(args.snapshot).await;
    let moments = moments.map_err(server::Error::from)?;
    if context.output.is_json() {
        context.output.object(&Object { id, moments })?;
    } else {
        context.output.say(&format!("{id}\n"))?;
    }
    Ok(Exit::Done)
}
