//! `skep sandbox destroy`.

use super::{data, outcomes::Outcomes, stop::each};
use crate::{context::Context, exit::Exit, report::Error};
use domain::SandboxId;
use server::standing::{self, Damaged, Held, list_all, take_away};
use std::path::{Path, PathBuf};

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
    outcomes: Outcomes,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let (chosen, damaged) = chosen(&args, &data).map_err(server::Error::from)?;
    let mut outcomes = Outcomes::default();
    let mut goes_on = true;
    for held in chosen {
        if !goes_on {
            break;
        }
        let of = (held.record.id, held.record.name.clone());
        let gone = held.destroy(&data).await;
        let gone = gone.map_err(|error| server::Error::from(error).into());
        goes_on = outcomes.note(context, of, gone);
    }
    for Damaged { id, why } in damaged {
        if !goes_on {
            break;
        }
        let gone = take_damaged(data.clone(), id, why).await;
        goes_on = outcomes.note(context, (id, None), gone.map_err(Into::into));
    }
    let exit = outcomes.exit()?;
    if context.output.is_json() {
        let destroyed = outcomes.done();
        context.output.object(&Object {
            destroyed,
            outcomes,
        })?;
    }
    Ok(exit)
}

async fn take_damaged(
    data: PathBuf,
    id: SandboxId,
    why: standing::Error,
) -> Result<(), server::Error> {
    let away = tokio::task::spawn_blocking(move || take_away(&data, id)).await;
    match away.map_err(|_| server::Error::Ended)?? {
        true => Ok(()),
        // Its holder lives, and who that is stands in what cannot be read.
        false => Err(why.into()),
    }
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
