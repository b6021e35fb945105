//! `skep sandbox stop`.

use super::data;
use crate::{context::Context, exit::Exit, report::Error};
use server::standing::{Held, find_whole};

/// End what runs in sandboxes, and keep their files
///
/// Commands that run in them are ended. Files, home and snapshots stay, and `skep sandbox start` brings
/// them up again. Its time goes on counting. One that is stopped stays so.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep sandbox stop try")]
pub(super) struct Args {
    /// The sandboxes, by their ids or names, whole
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

#[derive(serde::Serialize)]
struct Object {
    stopped: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let mut stopped = Vec::new();
    for held in chosen(&data, &args.ids)? {
        let id = held.record.id.to_string();
        held.stop(&data).await.map_err(server::Error::from)?;
        if !context.output.is_json() {
            context.output.say(&format!("{id}\n"))?;
        }
        stopped.push(id);
    }
    if context.output.is_json() {
        context.output.object(&Object { stopped })?;
    }
    Ok(Exit::Done)
}

/// The sandboxes that are named, each once. All are found before anything is done to the first.
pub(super) fn chosen(data: &std::path::Path, ids: &[String]) -> Result<Vec<Held>, Error> {
    let mut chosen: Vec<Held> = Vec::new();
    for id in ids {
        let held = find_whole(data, id).map_err(server::Error::from)?;
        if chosen.iter().all(|it| it.record.id != held.record.id) {
            chosen.push(held);
        }
    }
    Ok(chosen)
}
