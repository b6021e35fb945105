//! `skep ledger take-over`.

use crate::{context::Context, exit::Exit, report::Error, view::format};
use ledger::Restoration;

/// Let a restored ledger go on in the place of the one that was backed up
///
/// A ledger that was restored with requests that had not ended does nothing by itself: the one that
/// was backed up may still work on them, and both would land the same work. Say this when that one
/// is gone, or will not be used any more.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep ledger take-over && skep resume\n  skep --data /srv/skep ledger take-over"
)]
pub(super) struct Args {}

#[derive(serde::Serialize)]
struct Object {
    taken_over: bool,
    open: u64,
}

pub(super) async fn run(_: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let waited = ledger.take_over().await;
    ledger.close().await;
    let waited = waited?;
    if context.output.is_json() {
        context.output.object(&Object {
            taken_over: waited.is_some(),
            open: waited.map_or(0, |it| it.open),
        })?;
    } else {
        context.output.say(&render(waited))?;
    }
    Ok(Exit::Done)
}

fn render(waited: Option<Restoration>) -> String {
    match waited {
        Some(Restoration { open, .. }) => format!(
            "This ledger has taken over. `skep resume` goes on with what has not ended; \
             when the backup was made, that was {}.\n",
            format::count(usize::try_from(open).unwrap_or(usize::MAX), "request")
        ),
        None => "This ledger does not wait for that: nothing was to be done.\n".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_over_says_how_to_go_on() {
        let waited = Restoration {
            taken: Some(domain::Timestamp(0)),
            open: 2,
        };
        assert!(render(Some(waited)).contains("when the backup was made, that was 2 requests"));
        assert!(render(None).contains("nothing was to be done"));
    }
}
