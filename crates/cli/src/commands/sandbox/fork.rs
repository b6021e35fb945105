//! `skep sandbox fork`.

use super::{
    data,
    holder::{self, Wanted},
    span,
};
use crate::{
    context::Context,
    exit::Exit,
    more::{Secrets, Wishes},
    report::Error,
    signals::Signals,
};
use server::standing::{MOST, Order, Record, find};
use std::time::Duration;

/// Make sandboxes of their own with the files of one, and print their ids
///
/// They share what was written until then, at no cost, and go their own ways: each is held by a process
/// of its own and outlives its source. Home and temporary directory are new; devices, dotfiles and
/// `--nested` are those of the source, and secrets are none but those that are named here. Without
/// `--at` a snapshot is taken first; nothing may run inside for that.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sandbox fork try\n  skep sandbox fork try --at s2 -n 4 --name idea"
)]
pub(super) struct Args {
    /// The sandbox, by its id or name or the beginning of one
    id: String,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MOST as u64))]
    number: u64,
    /// The snapshot that they begin with: `skep sandbox inspect` lists them [default: a new one]
    #[arg(long, value_name = "SNAPSHOT")]
    at: Option<String>,
    #[command(flatten)]
    secrets: Secrets,
    /// A name for it; with several, NAME-1, NAME-2, …
    #[arg(long)]
    name: Option<String>,
    /// How long each stays: a number with `s`, `m`, `h` or `d` behind it, 30d at most
    #[arg(long = "for", value_name = "TIME", value_parser = span, default_value = "12h")]
    lasts: Duration,
}

#[derive(serde::Serialize)]
struct Object {
    /// The sandbox that they are forks of.
    id: String,
    snapshot: String,
    forks: Vec<Record>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let held = find(&data, &args.id).map_err(server::Error::from)?;
    let id = held.record.id.to_string();
    let wishes = Wishes::of(&held.record.given);
    let fetches = wishes.check(context)?;
    let secrets = args.secrets.read(context, true)?;
    let (kind, image) = (held.record.kind.name(), held.record.image.clone());
    let names: Vec<Option<String>> = (1..=args.number)
        .map(|number| match (&args.name, args.number) {
            (Some(name), 1) => Some(name.clone()),
            (Some(name), _) => Some(format!("{name}-{number}")),
            (None, _) => None,
        })
        .collect();
    for name in &names {
        let order = Order {
            name: name.clone(),
            lasts: Some(args.lasts),
        };
        order.check(&data).map_err(server::Error::from)?;
    }
    let (snapshot, lent) = match args.at {
        Some(name) => (name, None),
        None => {
            // It goes when nothing comes of the forks, or this process is killed.
            let lent = held.lend().await.map_err(server::Error::from)?;
            (lent.snapshot.clone(), Some(lent))
        }
    };
    let wanted: Vec<Wanted> = names
        .into_iter()
        .map(|name| Wanted {
            stopped: None,
            name,
            lasts: Some(args.lasts),
            // Whatever is configured by now: what it is of has its root, and programs that work there.
            of: [
                format!("--fork-of={id}"),
                format!("--at={snapshot}"),
                format!("--kind={kind}"),
            ]
            .into_iter()
            .chain(image.iter().map(|image| format!("--image={image}")))
            .chain(wishes.words())
            .map(Into::into)
            .collect(),
            secrets: secrets.clone(),
            without: args.secrets.variables(),
            fetches,
        })
        .collect();
    let forks = holder::start(context, &data, &wanted, &mut Signals::listen()?).await?;
    // The forks stand whatever becomes of the snapshot: they are told first.
    let kept = match lent {
        Some(lent) => lent.keep().await.map_err(server::Error::from),
        None => Ok(()),
    };
    if context.output.is_json() {
        context.output.object(&Object {
            id,
            snapshot,
            forks,
        })?;
    } else {
        let ids: String = forks.iter().map(|fork| format!("{}\n", fork.id)).collect();
        context.output.say(&ids)?;
    }
    kept?;
    Ok(Exit::Done)
}
