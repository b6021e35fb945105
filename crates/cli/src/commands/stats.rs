//! `skep stats`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{format, text},
};
use domain::time::parse_duration;
use ledger::{Quantiles, Statistics};
use std::time::Duration;

/// Say how jobs ended, how long they waited and ran, and what waits now
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep stats\n  skep stats --since 1h\n  skep stats --since 30d --json"
)]
pub(crate) struct Args {
    /// Since so long ago, to the hour
    #[arg(long, value_name = "SPAN", default_value = "7d", value_parser = since)]
    since: Duration,
}

fn since(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => {
            Err("nothing can have happened in no time: write `1h`, `7d` or `30d`".into())
        }
        span => Ok(span),
    }
}

#[derive(serde::Serialize)]
struct Object {
    since_seconds: u64,
    delivered: u64,
    nothing_to_do: u64,
    dead: u64,
    cancelled: u64,
    timed_out: u64,
    success_rate: Option<f64>,
    timeout_rate: Option<f64>,
    wait: Spans,
    run: Spans,
    requests_waiting: u64,
    jobs_waiting: u64,
    jobs_held: u64,
    changes_waiting: u64,
}

#[derive(serde::Serialize)]
struct Spans {
    count: u64,
    p50_ms: u128,
    p95_ms: u128,
}

impl From<Quantiles> for Spans {
    fn from(quantiles: Quantiles) -> Self {
        Self {
            count: quantiles.count,
            p50_ms: quantiles.p50.as_millis(),
            p95_ms: quantiles.p95.as_millis(),
        }
    }
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let told = ledger.statistics(args.since).await?;
    ledger.close().await;
    if context.output.is_json() {
        context.output.object(&Object {
            since_seconds: args.since.as_secs(),
            delivered: told.delivered,
            nothing_to_do: told.nothing_to_do,
            dead: told.dead,
            cancelled: told.cancelled,
            timed_out: told.timed_out,
            success_rate: told.success_rate(),
            timeout_rate: told.timeout_rate(),
            wait: told.wait.into(),
            run: told.run.into(),
            requests_waiting: told.requests_waiting,
            jobs_waiting: told.jobs_waiting,
            jobs_held: told.jobs_held,
            changes_waiting: told.changes_waiting,
        })?;
    } else {
        context.output.say(&render(&told, args.since))?;
    }
    Ok(Exit::Done)
}

fn render(told: &Statistics, since: Duration) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let percent = |rate: Option<f64>| {
        rate.map_or_else(
            || "none ended".to_owned(),
            |rate| format!("{:.0} %", rate * 100.0),
        )
    };
    rows.push((
        "ended well",
        format!(
            "{}  ({} delivered, {} with nothing to do, {} dead, {} cancelled)",
            percent(told.success_rate()),
            told.delivered,
            told.nothing_to_do,
            told.dead,
            told.cancelled
        ),
    ));
    rows.push(("took too long", percent(told.timeout_rate())));
    rows.push(("waited", spans(told.wait)));
    rows.push(("ran", spans(told.run)));
    rows.push((
        "now",
        format!(
            "{} to plan, {} to do, {} under way, {} to merge",
            told.requests_waiting, told.jobs_waiting, told.jobs_held, told.changes_waiting
        ),
    ));
    const DAY: u64 = 24 * 3_600;
    let since = match since.as_secs() {
        whole if whole >= DAY && whole % DAY == 0 => {
            format::count(usize::try_from(whole / DAY).unwrap_or(usize::MAX), "day")
        }
        _ => format::span(since),
    };
    let mut out = format!("Jobs in the last {since}\n");
    for (name, value) in rows {
        out.push_str(&format!("  {}  {value}\n", text::pad(name, 13)));
    }
    out
}

fn spans(quantiles: Quantiles) -> String {
    match quantiles.count {
        0 => "nothing was measured".into(),
        count => format!(
            "p50 {}, p95 {} of {count}",
            format::span(quantiles.p50),
            format::span(quantiles.p95)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_waited_and_ran_is_said() {
        let told = Statistics {
            delivered: 3,
            dead: 1,
            timed_out: 1,
            run: Quantiles {
                count: 4,
                p50: Duration::from_secs(30),
                p95: Duration::from_secs(90),
            },
            jobs_waiting: 2,
            ..Statistics::default()
        };
        insta::assert_snapshot!(render(&told, Duration::from_secs(3_600)), @r"
        Jobs in the last 1h00m
          ended well     75 %  (3 delivered, 0 with nothing to do, 1 dead, 0 cancelled)
          took too long  25 %
          waited         nothing was measured
          ran            p50 30s, p95 1m30s of 4
          now            0 to plan, 2 to do, 0 under way, 0 to merge
        ");
        let nothing = render(&Statistics::default(), Duration::from_secs(60));
        assert!(nothing.contains("none ended"), "{nothing}");
        let week = render(&Statistics::default(), Duration::from_secs(7 * 24 * 3_600));
        assert!(week.starts_with("Jobs in the last 7 days\n"), "{week}");
    }
}
