//! `skep sandbox destroy`.

use super::{
    data,
    outcomes::{Outcomes, flat},
    stop::each,
};
use crate::{context::Context, exit::Exit, report::Error, signals::Signals};
use server::standing::{self, Damaged, Held, list_all};
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
    outcomes: Outcomes,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let (chosen, damaged) = chosen(&args, &data).map_err(server::Error::from)?;
    let mut outcomes = Outcomes::default();
    let mut signals = Signals::listen()?;
    for held in chosen {
        let of = (held.record.id, held.record.name.clone());
        let gone = signals.or(held.destroy(&data)).await;
        if !outcomes.note(context, of, flat(gone)) {
            return told(context, outcomes);
        }
    }
    for damaged in damaged {
        let of = (damaged.id, None);
        let gone = signals.or(damaged.destroy(&data)).await;
        if !outcomes.note(context, of, flat(gone)) {
            break;
        }
    }
    told(context, outcomes)
}

fn told(context: &Context, mut outcomes: Outcomes) -> Result<Exit, Error> {
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

/// Those that are meant, each once. All are found before the first one ends: what is damaged, by its id.
fn chosen(args: &Args, data: &Path) -> Result<(Vec<Held>, Vec<Damaged>), standing::Error> {
    let (mut all, mut damaged) = list_all(data)?;
    if args.all {
        return Ok((all, damaged));
    }
    damaged.retain(|it| args.ids.contains(&it.id.to_string()));
    let is_damaged = |id: &&String| damaged.iter().any(|it| it.id.to_string() == **id);
    let whole = args.ids.iter().filter(|id| !is_damaged(id));
    let whole = each(&mut all, &mut Vec::new(), whole)?;
    Ok((whole, damaged))
}
