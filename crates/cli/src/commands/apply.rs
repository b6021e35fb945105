//! `skep apply`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    view::{
        format,
        paint::{LOOK, STRONG, paint},
        text,
    },
};
use ledger::Found;
use server::{Applied, ApplyMode, Node};

/// Take integrated work onto the branch that is checked out
///
/// Uncommitted work is never lost: if it is in the way, nothing happens. What a request took along
/// (`skep run --dirty`) and has not changed since becomes what was made of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep apply\n  skep apply --squash\n  skep apply c-9qd        # one change, even one that did not land"
)]
pub(crate) struct Args {
    /// One change instead of all, by its id or the beginning of it; it is cherry-picked
    change: Option<String>,
    /// Merge the integration branch, fast-forward where that is possible [default]
    #[arg(long, conflicts_with_all = ["squash", "cherry_pick", "change"])]
    merge: bool,
    /// Take all of it as one commit
    #[arg(long, conflicts_with_all = ["cherry_pick", "change"])]
    squash: bool,
    /// Take each commit by itself
    #[arg(long)]
    cherry_pick: bool,
}

#[derive(serde::Serialize)]
struct Object<'a> {
    from: &'a str,
    onto: Option<&'a str>,
    before: &'a str,
    after: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let mode = match (args.squash, args.cherry_pick) {
        (true, _) => ApplyMode::Squash,
        (_, true) => ApplyMode::CherryPick,
        _ => ApplyMode::Merge,
    };
    let settings = Settings::read(context, Flags::default())?;
    let node = Node::open(settings.options).await?;
    let change = match args.change {
        None => None,
        Some(id) => match node.ledger().find(&id).await? {
            Found::Change(id) => Some(id),
            other => return Err(super::wrong_kind(other, "apply", "a change")),
        },
    };
    let applied = node.apply(&context.directory, mode, change).await?;
    node.close().await;
    if context.output.is_json() {
        context.output.object(&Object {
            from: &applied.from,
            onto: applied.onto.as_deref(),
            before: &applied.before,
            after: &applied.after,
            warning: applied.warning.as_deref(),
        })?;
    } else {
        context.output.say(&render(&applied))?;
        if let Some(warning) = &applied.warning {
            let note = format!("{} {}\n", paint(LOOK, "note:"), text::line(warning));
            context.output.aside(&note);
        }
    }
    Ok(Exit::Done)
}

fn render(applied: &Applied) -> String {
    let onto = applied
        .onto
        .as_deref()
        .map_or_else(|| "the detached HEAD".to_owned(), text::line);
    let from = text::line(&applied.from);
    if applied.before == applied.after {
        return format!("{onto} has all of {from} already.\n");
    }
    format!(
        "{} is at {} with the work of {from}. Before, it was at {}: `git reset --keep {}` goes back.\n",
        paint(STRONG, onto),
        format::short(&applied.after),
        format::short(&applied.before),
        format::short(&applied.before),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn what_was_taken_is_said_with_the_way_back() {
        let mut applied = Applied {
            from: "skep/integration".into(),
            onto: Some("main".into()),
            before: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".into(),
            after: "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432".into(),
            warning: None,
        };
        assert_eq!(
            plain(&render(&applied)),
            "main is at 9f8e7d6c5b with the work of skep/integration. Before, it was at 1a2b3c4d5e: `git reset --keep 1a2b3c4d5e` goes back.\n"
        );
        applied.after.clone_from(&applied.before);
        assert_eq!(
            plain(&render(&applied)),
            "main has all of skep/integration already.\n"
        );
    }
}
