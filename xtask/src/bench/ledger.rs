//! `cargo xtask bench ledger`: what the ledger can do, beside a bare loop and two queues.
//!
//! The measuring itself is an example of the ledger's crate, built with optimisation: it prints
//! samples, and the marks are here.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::{
    Options, build,
    figure::{Figure, Report, Samples},
    peers,
};

/// What is promised of a figure on two cores.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    AtLeast(f64),
    AtMost(f64),
}

/// The groups in the order in which they are measured.
pub(crate) const GROUPS: &[&str] = &[
    "lifecycles",
    "verbs",
    "full",
    "claim",
    "processes",
    "wake",
    "replay",
    "live",
    "size",
    "resume",
    "peers",
];

fn mark(name: &str) -> Option<Mark> {
    use Mark::{AtLeast, AtMost};
    Some(match name {
        "sqlite_lifecycles_32" => AtLeast(7_500.0),
        "sqlite_lifecycles_128" => AtLeast(9_000.0),
        "sqlite_verb_p50_us" => AtMost(250.0),
        "sqlite_lifecycles_1m_part" => AtLeast(0.85),
        "claim_p99_ratio_1m" => AtMost(2.0),
        "two_process_part" => AtLeast(0.5),
        "wake_p50_us" => AtMost(1_000.0),
        "wake_other_p50_us" => AtMost(5_000.0),
        "events_replay_per_s" => AtLeast(500_000.0),
        "live_1000_p99_ms" => AtMost(20.0),
        "db_bytes_ratio" => AtMost(1.5),
        "resume_ready_ms" => AtMost(2_000.0),
        _ => return None,
    })
}

/// Which figure is printed beside which.
fn peer(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "sqlite_lifecycles_32" => ("bare_lifecycles_32", "bare loop"),
        "sqlite_lifecycles_128" => ("bare_lifecycles_128", "bare loop"),
        "sqlite_verb_p50_us" => ("bare_verb_p50_us", "bare loop"),
        _ => return None,
    })
}

/// Measures the groups that are wanted.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut report = Report::new(options.json);
    let binary = build::example("skep-ledger", "measure")?;
    // What is compared with is printed last of its group.
    let mut known = BTreeMap::new();
    for group in GROUPS.iter().filter(|group| options.wants(group)) {
        report.doing(group);
        if *group == "peers" {
            peers::measure(&mut report)?;
            continue;
        }
        let mut child = Command::new(&binary)
            .arg(group)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", binary.display()))?;
        let out = child.stdout.take().ok_or("the measurement has no output")?;
        let mut figures = Vec::new();
        for line in BufReader::new(out).lines() {
            let line = line.map_err(|error| format!("cannot read figures: {error}"))?;
            figures.push(parse(&line)?);
        }
        let status = child
            .wait()
            .map_err(|error| format!("cannot wait for {group}: {error}"))?;
        if !status.success() {
            return Err(format!("the measurement `{group}` failed: {status}"));
        }
        for (name, _, samples) in &figures {
            known.insert(name.clone(), samples.median());
        }
        for (name, unit, samples) in figures {
            let mut figure = Figure::median(&name, unit, &samples);
            figure = match mark(&name) {
                Some(Mark::AtMost(mark)) => figure.mark(Some(mark)),
                Some(Mark::AtLeast(mark)) => figure.at_least(mark),
                None => figure,
            };
            if let Some((of, shown)) = peer(&name)
                && let Some(value) = known.get(of)
            {
                figure = figure.peer(shown, *value);
            }
            report.add(figure);
        }
    }
    report.finish();
    Ok(())
}

/// A line of the measurement: `figure NAME UNIT SAMPLE...`.
pub(crate) fn parse(line: &str) -> Result<(String, &'static str, Samples), String> {
    let wrong = || format!("this is not a figure: {line}");
    let mut words = line.split(' ');
    let (Some("figure"), Some(name), Some(unit)) = (words.next(), words.next(), words.next())
    else {
        return Err(wrong());
    };
    let unit = match unit {
        "1/s" => "/s",
        "us" => "µs",
        "ms" => "ms",
        "x" => "×",
        _ => return Err(wrong()),
    };
    let mut samples = Samples::default();
    for word in words {
        samples.push(word.parse().map_err(|_| wrong())?);
    }
    Ok((name.to_owned(), unit, samples))
}
