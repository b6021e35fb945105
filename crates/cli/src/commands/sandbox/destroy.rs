//! `skep sandbox destroy`.

use super::data;
use crate::{context::Context, exit::Exit, report::Error};
use server::standing::{Held, find_whole, list};

/// End sandboxes, with all that runs in them and all that was changed, stopped ones too
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep sandbox destroy try\n  skep sandbox destroy --all")]
pub(super) struct Args {
    /// The sandboxes, by their ids or names, whole
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "ID"
    )]
    ids: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

#[derive(serde::Serialize)]
struct Object {
    destroyed: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let chosen: Vec<Held> = if args.all {
        list(&data).map_err(server::Error::from)?
    } else {
        // All are found before the first one ends.
        let found: Result<Vec<_>, _> = args.ids.iter().map(|id| find_whole(&data, id)).collect();
        found.map_err(server::Error::from)?
    };
    let mut destroyed = Vec::new();
    for held in chosen {
        let id = held.record.id.to_string();
        if destroyed.contains(&id) {
            continue;
        }
        held.destroy(&data).await.map_err(server::Error::from)?;
        if !context.output.is_json() {
            context.output.say(&format!("{id}\n"))?;
        }
        destroyed.push(id);
    }
    if context.output.is_json() {
        context.output.object(&Object { destroyed })?;
    }
    Ok(Exit::Done)
}
