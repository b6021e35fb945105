//! `cargo xtask bench sandbox`: what sandboxes cost, beside bubblewrap, and containers beside Podman.
//!
//! Figures of further kinds get a group here and in the example, and a line in each of the two
//! tables below.

use std::collections::BTreeMap;

use super::{
    Options, build,
    example::{Known, Mark},
    figure::Report,
};

/// The groups in the order in which they are measured.
pub(crate) const GROUPS: &[&str] = &["cycle", "exec", "rate", "idle", "user", CONTAINER];
/// The one that another example measures.
const CONTAINER: &str = "container";

fn mark(name: &str) -> Option<Mark> {
    use Mark::{AtLeast, AtMost};
    // An ordinary user's figures have the same marks.
    Some(match name.strip_suffix("_user").unwrap_or(name) {
        "sandbox_cycle_p50_ms" => AtMost(6.0),
        "sandbox_cycle_ratio" | "sandbox_bare_ratio" => AtMost(1.3),
        "sandbox_ready_p50_ms" => AtMost(4.0),
        "exec_p50_ms" => AtMost(1.5),
        "idle_kb" => AtMost(1_000.0),
        "cycles_per_s" => AtLeast(250.0),
        "container_ready_ratio" => AtMost(1.1),
        "container_exec_p50_ms" => AtMost(3.0),
        "container_warm_p50_ms" => AtMost(10.0),
        _ => return None,
    })
}

fn peer(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "sandbox_cycle_p50_ms" | "sandbox_bare_p50_ms" => ("bwrap_p50_ms", "bwrap"),
        "sandbox_cycle_p50_ms_user" | "sandbox_bare_p50_ms_user" => ("bwrap_p50_ms_user", "bwrap"),
        "exec_p50_ms" => ("spawn_p50_ms", "no sandbox"),
        "exec_p50_ms_user" => ("spawn_p50_ms_user", "no sandbox"),
        "container_ready_p50_ms" => ("podman_run_p50_ms", "podman run"),
        "container_exec_p50_ms" => ("podman_exec_p50_ms", "podman exec"),
        _ => return None,
    })
}

/// Measures the groups that are wanted. Those of `namespace` share a repository and its base, so that
/// one process measures all.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut report = Report::new(options.json);
    let groups: Vec<&str> = GROUPS
        .iter()
        .copied()
        .filter(|group| options.wants(group))
        .collect();
    if groups.is_empty() {
        return Err(format!("the groups are {}", GROUPS.join(", ")));
    }
    let (contained, own): (Vec<&str>, Vec<&str>) =
        groups.into_iter().partition(|group| *group == CONTAINER);
    let mut known = Known {
        mark,
        peer,
        medians: BTreeMap::new(),
    };
    if !own.is_empty() {
        let binary = build::example("skep-site", "sandboxes")?;
        report.doing("sandboxes over 90,000 files: a minute");
        known.measure(&binary, &own, &mut report)?;
    }
    if !contained.is_empty() {
        let binary = build::example("skep-site", "contained")?;
        report.doing("containers beside `podman run`: a minute");
        known.measure(&binary, &contained, &mut report)?;
    }
    report.finish();
    Ok(())
}
