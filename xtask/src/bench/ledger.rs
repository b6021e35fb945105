//! `cargo xtask bench ledger`: what the ledger can do, beside a bare loop and two queues.
//!
//! The measuring itself is an example of the ledger's crate, built with optimisation: it prints
//! samples, and the marks are here.

use std::collections::BTreeMap;

use super::{
    Options, build,
    example::{Known, Mark},
    figure::Report,
    peers,
};

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
    let mut known = Known {
        mark,
        peer,
        medians: BTreeMap::new(),
    };
    for group in GROUPS.iter().filter(|group| options.wants(group)) {
        report.doing(group);
        if *group == "peers" {
            peers::measure(&mut report)?;
            continue;
        }
        known.measure(&binary, &[*group], &mut report)?;
    }
    report.finish();
    Ok(())
}
