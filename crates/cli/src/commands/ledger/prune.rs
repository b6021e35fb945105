//! `skep ledger prune`.

use super::Line;
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{format, result},
};
use domain::Timestamp;
use ledger::{Collected, Pruned};
use std::time::Duration;

/// Blobs that were stored so lately may be about to be named by work that goes on.
const YOUNG: Duration = Duration::from_secs(24 * 3_600);

/// Remove old requests with their events, recordings and outputs
///
/// From each session goes the longest run of its oldest events whose requests had all ended
/// before that time, with those requests. What is under way stays, and all that came after its
/// beginning. Changes that are in a repository stay there. Counts of how long things took go with
/// the time, but for those of the last week. Then what nothing needs any more is removed: blobs,
/// empty queues, allowances that are full again.
///
/// It needs some MB of free space itself: on a full disk, free those first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep ledger prune --older-than 30d --dry-run\n  skep ledger prune --older-than 12w"
)]
pub(super) struct Args {
    /// How long ago it must have ended: a number with `h`, `d` or `w` behind it
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Duration,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(serde::Serialize)]
struct Object {
    dry_run: bool,
    requests: u64,
    events: u64,
    bytes: u64,
    rows: u64,
    blobs: Option<u64>,
    blob_bytes: Option<u64>,
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not an age: write `12h`, `30d` or `8w`");
    let hours = [("h", 1), ("d", 24), ("w", 7 * 24)]
        .into_iter()
        .find_map(|(unit, hours)| Some((text.strip_suffix(unit)?, hours)))
        .and_then(|(number, hours)| number.parse::<u32>().ok()?.checked_mul(hours))
        .ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(hours) * 3_600))
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let micros = i64::try_from(args.older_than.as_micros()).unwrap_or(i64::MAX);
    let before = Timestamp(ledger.now().0.saturating_sub(micros));
    let line = Line::new(context.output);
    line.begin(if args.dry_run {
        "looking for old requests"
    } else {
        "removing old requests"
    });
    let (pruned, collected) = if args.dry_run {
        (ledger.would_prune(before).await, Ok(None))
    } else {
        let pruned = ledger.prune(before).await;
        line.begin("removing blobs");
        let collected = match ledger.collect_garbage(YOUNG).await {
            Err(ledger::Error::BackingUp) => Ok(None),
            other => other.map(Some),
        };
        (pruned, collected)
    };
    line.clear();
    ledger.close().await;
    let (pruned, collected) = (pruned?, collected?);
    if context.output.is_json() {
        context.output.object(&Object {
            dry_run: args.dry_run,
            requests: pruned.requests,
            events: pruned.events,
            bytes: pruned.bytes,
            rows: pruned.rows,
            blobs: collected.map(|it| it.blobs),
            blob_bytes: collected.map(|it| it.bytes),
        })?;
    } else {
        let text = render(pruned, collected, args.dry_run);
        context.output.say(&text)?;
    }
    Ok(Exit::Done)
}

fn render(pruned: Pruned, collected: Option<Collected>, dry_run: bool) -> String {
    let count =
        |number: u64, noun| format::count(usize::try_from(number).unwrap_or(usize::MAX), noun);
    let what = format!(
        "{} and {} ({})",
        count(pruned.requests, "request"),
        count(pruned.events, "event"),
        format::bytes(pruned.bytes)
    );
    let rows = format!(
        "{} of counts, queues and allowances",
        count(pruned.rows, "row")
    );
    if dry_run {
        let remove =
            || result::commands(&[("skep ledger prune --older-than AGE".into(), "remove them")]);
        return match (pruned.events, pruned.rows) {
            (0, 0) => "Nothing is that old: nothing would be removed.\n".into(),
            (0, _) => format!("{rows} would be removed.\n\n{}", remove()),
            (_, 0) => format!(
                "{what} would be removed, and the blobs that only they name.\n\n{}",
                remove()
            ),
            _ => format!(
                "{what} would be removed, the blobs that only they name, and {rows}.\n\n{}",
                remove()
            ),
        };
    }
    let mut out = match pruned.events {
        0 => "Nothing is that old: no request was removed.\n".to_owned(),
        _ => format!("Removed {what}.\n"),
    };
    if pruned.rows > 0 {
        out.push_str(&format!("Removed {rows} that nothing needs.\n"));
    }
    out.push_str(&match collected {
        Some(Collected { blobs: 0, .. }) => String::new(),
        Some(Collected { blobs, bytes }) => format!(
            "Removed {} that nothing names ({}).\n",
            count(blobs, "blob"),
            format::bytes(bytes)
        ),
        None => "A backup is being made, so no blob was removed: run this again later.\n".into(),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn what_is_removed_is_said_with_its_size() {
        let pruned = Pruned {
            requests: 3,
            events: 1_207,
            bytes: 3 << 20,
            rows: 0,
        };
        let more = Pruned { rows: 12, ..pruned };
        let collected = Collected {
            blobs: 40,
            bytes: 9 << 20,
        };
        let nothing = Pruned::default();
        let all = [
            render(pruned, Some(collected), false),
            render(pruned, None, false),
            render(pruned, None, true),
            render(nothing, Some(Collected::default()), false),
            render(nothing, None, true),
            render(more, Some(collected), false),
            render(more, None, true),
            render(Pruned { rows: 1, ..nothing }, None, true),
        ];
        insta::assert_snapshot!(plain(&all.join("---\n")));
    }

    #[test]
    fn an_age_is_a_number_of_hours_days_or_weeks() {
        let hours = |hours: u64| Ok(Duration::from_secs(hours * 3_600));
        assert_eq!(age("12h"), hours(12));
        assert_eq!(age("30d"), hours(720));
        assert_eq!(age("2w"), hours(336));
        for wrong in ["", "30", "d", "-1d", "1.5d", "5000000000h", "99999999w"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
