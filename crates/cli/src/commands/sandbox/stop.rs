//! `skep sandbox stop`.

use super::{
    data,
    outcomes::{Outcomes, flat},
};
use crate::{context::Context, exit::Exit, report::Error, signals::Signals};
use server::standing::{self, Damaged, Held, list_all, take_whole};
use std::path::Path;

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
    outcomes: Outcomes,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let chosen = chosen(&data, &args.ids)?;
    let mut outcomes = Outcomes::default();
    let mut signals = Signals::listen()?;
    for held in chosen {
        let of = (held.record.id, held.record.name.clone());
        let stopped = signals.or(held.stop(&data)).await;
        if !outcomes.note(context, of, flat(stopped).map(drop)) {
            break;
        }
    }
    let exit = outcomes.exit()?;
    if context.output.is_json() {
        let stopped = outcomes.done();
        context.output.object(&Object { stopped, outcomes })?;
    }
    Ok(exit)
}

/// The sandboxes that are named, each once. All are found before anything is done to the first.
pub(super) fn chosen(data: &Path, ids: &[String]) -> Result<Vec<Held>, Error> {
    let found =
        list_all(data).and_then(|(mut all, mut damaged)| each(&mut all, &mut damaged, ids.iter()));
    Ok(found.map_err(server::Error::from)?)
}

/// Of these, those that are named, each once.
pub(super) fn each<'a>(
    all: &mut Vec<Held>,
    damaged: &mut Vec<Damaged>,
    ids: impl Iterator<Item = &'a String>,
) -> Result<Vec<Held>, standing::Error> {
    let mut chosen: Vec<Held> = Vec::new();
    for id in ids {
        if !chosen.iter().any(|held| held.is_called(id)) {
            chosen.push(take_whole(all, damaged, id)?);
        }
    }
    Ok(chosen)
}
