//! `skep ledger check`.

use super::Line;
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        format,
        paint::{BAD, GOOD, paint},
        text,
    },
};
use ledger::{CheckProgress, Depth};

/// Look whether everything that must hold holds
///
/// It reads every row: states against events, budgets against what was spent, sequences, leases,
/// names of blobs. Work goes on meanwhile. What does not hold is a mistake in Skep or in the
/// disk; at most a hundred such things are named.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep ledger check\n  skep ledger check --blobs --json\n\nIt exits with 1 when something does not hold."
)]
pub(super) struct Args {
    /// Also read every blob that is named, and compare it with its name
    #[arg(long)]
    blobs: bool,
}

#[derive(serde::Serialize)]
struct Object {
    holds: bool,
    violations: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let depth = if args.blobs {
        Depth::Blobs
    } else {
        Depth::Rows
    };
    let line = Line::new(context.output);
    let violations = ledger
        .check_to(depth, move |progress| match progress {
            CheckProgress::Requests { done, total } => line.say("looking at requests", done, total),
            CheckProgress::Blobs { done, total } => line.say("reading blobs", done, total),
        })
        .await;
    line.clear();
    ledger.close().await;
    let violations: Vec<String> = violations?.iter().map(ToString::to_string).collect();
    let holds = violations.is_empty();
    if context.output.is_json() {
        context.output.object(&Object { holds, violations })?;
    } else {
        context.output.say(&render(&violations))?;
    }
    Ok(if holds { Exit::Done } else { Exit::Failed })
}

fn render(violations: &[String]) -> String {
    if violations.is_empty() {
        return format!("{}\n", paint(GOOD, "Everything that must hold holds."));
    }
    let mut out = format!(
        "{}\n",
        paint(
            BAD,
            match violations.len() {
                1 => "One thing does not hold:".to_owned(),
                many => format!("{} do not hold:", format::count(many, "thing")),
            }
        )
    );
    for violation in violations {
        out.push_str(&format!("  {}\n", text::line(violation)));
    }
    out.push_str(
        "\nStop what works on this ledger, keep a copy of the data directory, and report it.\n\
         `skep ledger restore` brings a backup back.\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn what_does_not_hold_is_listed_with_what_to_do() {
        let violations = [
            "the sequence of a session has a gap: row 3".to_owned(),
            "the blob a5a5 is named and missing".to_owned(),
        ];
        insta::assert_snapshot!(plain(&render(&violations)), @"
        2 things do not hold:
          the sequence of a session has a gap: row 3
          the blob a5a5 is named and missing

        Stop what works on this ledger, keep a copy of the data directory, and report it.
        `skep ledger restore` brings a backup back.
        ");
        assert_eq!(plain(&render(&[])), "Everything that must hold holds.\n");
    }
}
