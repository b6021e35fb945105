//! `skep sandbox destroy`.

use super::{data, stop::each};
use crate::{context::Context, exit::Exit, report::Error};
use domain::SandboxId;
use server::standing::{self, Damaged, Held, list_all, take_away};
use std::path::Path;

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
    let (chosen, damaged) = chosen(&args, &data).map_err(server::Error::from)?;
    let mut destroyed = Vec::new();
    let mut tell = |id: SandboxId| {
        destroyed.push(id.to_string());
        match context.output.is_json() {
            true => Ok(()),
            false => context.output.say(&format!("{id}\n")),
        }
    };
    for held in chosen {
        let id = held.record.id;
        held.destroy(&data).await.map_err(server::Error::from)?;
        tell(id)?;
    }
    for Damaged { id, why } in damaged {
        let place = data.clone();
        let away = tokio::task::spawn_blocking(move || take_away(&place, id)).await;
        let away = away.map_err(|_| server::Error::Ended)?;
        // Its holder lives, and who that is stands in what cannot be read.
        if !away.map_err(server::Error::from)? {
            return Err(server::Error::from(why).into());
        }
        tell(id)?;
    }
    if context.output.is_json() {
        context.output.object(&Object { destroyed })?;
    }
    Ok(Exit::Done)
}

/// Those that are meant, each once. All are found before the first one ends: what is damaged, by its id.
fn chosen(args: &Args, data: &Path) -> Result<(Vec<Held>, Vec<Damaged>), standing::Error> {
    let (mut all, mut damaged) = list_all(data)?;
    if args.all {
        return Ok((all, damaged));
    }
    damaged.retain(|it| args.ids.contains(&it.id.to_string()));
    let is_damaged = |id: &&String| damaged.iter().any(|it| it.id.to_string() == **id);
    let whole = each(&mut all, args.ids.iter().filter(|id| !is_damaged(id)))?;
    Ok((whole, damaged))
}
