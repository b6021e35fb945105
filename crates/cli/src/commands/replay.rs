//! `skep replay`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    signals::Signals,
    view::{
        format,
        paint::{BAD, GOOD, paint},
        text,
    },
};
use ledger::Found;
use server::{Node, Replayed};
use tokio_util::sync::CancellationToken;

/// Run an attempt again from its recording, offline and without cost
///
/// The model's answers come from the recording; the tools run for real, in a new sandbox. It is
/// the same if every call asks what was recorded, and the same tree comes out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep replay a-3fd\n  skep replay a-3fd --times 20 --json")]
pub(crate) struct Args {
    /// The attempt, by its id or the beginning of it
    attempt: String,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,
}

#[derive(serde::Serialize)]
struct Object<'a> {
    attempt: String,
    times: u32,
    calls: usize,
    tree: &'a str,
    same_tree: bool,
    differing_outputs: &'a [String],
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let mut signals = Signals::listen()?;
    let node = Node::open(settings.options).await?;
    let attempt = match node.ledger().find(&args.attempt).await? {
        Found::Attempt(id) => id,
        other => return Err(super::wrong_kind(other, "replay", "an attempt")),
    };
    let cancel = CancellationToken::new();
    let mut last: Option<Replayed> = None;
    let mut times = 0;
    while times < args.times && last.as_ref().is_none_or(|last| last.same_tree) {
        let mut playing = Box::pin(node.replay(attempt, &cancel));
        let played = tokio::select! {
            exit = signals.next() => {
                cancel.cancel();
                drop(playing.await);
                node.close().await;
                return Ok(exit);
            }
            played = &mut playing => played?,
        };
        times += 1;
        last = Some(played);
    }
    node.close().await;
    let Some(last) = last else {
        return Err(Error::Internal("nothing was replayed".into()));
    };
    if context.output.is_json() {
        context.output.object(&Object {
            attempt: attempt.to_string(),
            times,
            calls: last.calls,
            tree: &last.tree,
            same_tree: last.same_tree,
            differing_outputs: &last.differing_outputs,
        })?;
    } else {
        let text = render(&attempt.to_string(), times, &last);
        context.output.say(&text)?;
    }
    Ok(if last.same_tree {
        Exit::Done
    } else {
        Exit::Diverged
    })
}

fn render(attempt: &str, times: u32, last: &Replayed) -> String {
    let tree = format::short(&last.tree);
    let mut out = if last.same_tree {
        format!(
            "{attempt} replayed {}: {}, {}, tree {tree}\n",
            format::count(times as usize, "time"),
            format::count(last.calls, "call"),
            paint(GOOD, "no difference"),
        )
    } else {
        format!(
            "{attempt}: every call was as recorded, but {} came out: {tree}\n",
            paint(BAD, "another tree"),
        )
    };
    if !last.differing_outputs.is_empty() {
        let ids: Vec<String> = last
            .differing_outputs
            .iter()
            .map(|id| text::line(id))
            .collect();
        out.push_str(&format!(
            "  {} printed something else than recorded ({}); the model was told what was recorded\n",
            format::count(ids.len(), "command"),
            ids.join(", ")
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn a_replay_says_whether_it_was_the_same() {
        let mut replayed = Replayed {
            calls: 6,
            tree: "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432".into(),
            same_tree: true,
            differing_outputs: vec!["call_3".into()],
        };
        assert_eq!(
            plain(&render("a-1", 20, &replayed)),
            "a-1 replayed 20 times: 6 calls, no difference, tree 9f8e7d6c5b\n  1 command printed something else than recorded (call_3); the model was told what was recorded\n"
        );
        replayed.same_tree = false;
        assert!(plain(&render("a-1", 1, &replayed)).contains("another tree"));
    }
}
