//! `skep sandbox start`.

use super::{
    data,
    holder::{self, Wanted},
    outcomes::Outcomes,
    span,
    stop::chosen,
};
use crate::{
    context::Context,
    exit::Exit,
    more::{Secrets, Wishes},
    report::Error,
    signals::Signals,
    view::paint::{LOOK, paint},
};
use sandbox::Secret;
use server::standing::{Error as Unusable, Given, Record, Status, Why};
use std::time::Duration;

/// Bring sandboxes up again that were stopped, or whose holders were killed
///
/// Each has its id, name and kind, its files, home and snapshots, and ends when it would have ended; what
/// ran in it does not run any more. Secrets are kept nowhere: those that it had are given again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep sandbox start try\n  skep sandbox start try --for 4h")]
pub(super) struct Args {
    /// The sandboxes, by their ids or names, whole
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    secrets: Secrets,
    /// How long it stays from now on: a number with `s`, `m`, `h` or `d` behind it, 30d at most [default: until its time is over]
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    lasts: Option<Duration>,
}

#[derive(serde::Serialize)]
struct Object {
    started: Vec<Record>,
    outcomes: Outcomes,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let secrets = args.secrets.read(context, true)?;
    let chosen = chosen(&data, &args.ids)?;
    for held in &chosen {
        has_all(&held.record, &secrets)?;
        if held.standing.status != Status::Stopped {
            let id = held.record.id.to_string();
            return Err(server::Error::from(Unusable::Held { id }).into());
        }
    }
    if let (false, [one, _, ..]) = (secrets.is_empty(), chosen.as_slice()) {
        let other = chosen
            .iter()
            .find(|it| it.record.given.secrets != one.record.given.secrets);
        if let Some(other) = other {
            return Err(Error::Usage(format!(
                "{} and {} had other secrets each: start them one by one",
                one.record.id, other.record.id
            )));
        }
    }
    let mut signals = Signals::listen()?;
    let mut started = Vec::new();
    let mut outcomes = Outcomes::default();
    for held in chosen {
        if held.standing.why == Some(Why::Restarted) {
            context.output.aside(&format!(
                "{} the machine was restarted while {} ran: what was written shortly before may be cut \
                 short; `skep sandbox undo` goes back to a snapshot\n",
                paint(LOOK, "note:"),
                held.record.id
            ));
        }
        let record = held.record;
        let of = (record.id, record.name.clone());
        // Whatever is configured by now: its files are for this.
        let kind = format!("--kind={}", record.kind.name());
        let image = record.image.map(|image| format!("--image={image}"));
        // Its dotfiles are among its files.
        let wishes = Wishes::of(&Given {
            dotfiles: None,
            ..record.given
        });
        let wanted = Wanted {
            stopped: Some(record.id),
            name: None,
            lasts: args.lasts,
            of: [kind]
                .into_iter()
                .chain(image)
                .chain(wishes.words())
                .map(Into::into)
                .collect(),
            secrets: secrets.clone(),
            without: args.secrets.variables(),
            fetches: false,
        };
        let begun = holder::start(context, &data, &[wanted], &mut signals).await;
        let done = begun.map(|records| started.extend(records));
        if !outcomes.note(context, of, done) {
            break;
        }
    }
    let exit = outcomes.exit()?;
    if context.output.is_json() {
        context.output.object(&Object { started, outcomes })?;
    }
    Ok(exit)
}

/// That each secret that a sandbox had is given again.
fn has_all(record: &Record, secrets: &[Secret]) -> Result<(), Error> {
    let is_given = |name: &&String| secrets.iter().any(|it| it.name() == name.as_str());
    let missing: Vec<String> = record
        .given
        .secrets
        .iter()
        .filter(|name| !is_given(name))
        .map(|name| format!("`--secret {name}=FILE`"))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "the sandbox {} had secrets, which are kept nowhere: give them again with {}",
            record.id,
            missing.join(" and ")
        ))),
    }
}
