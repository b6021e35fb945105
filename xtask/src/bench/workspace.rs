//! `cargo xtask bench workspace`: what workspaces cost, beside the worktrees of git.

use std::collections::BTreeMap;

use super::{
    Options, build,
    example::{Known, Mark},
    figure::Report,
};

/// The groups in the order in which they are measured.
pub(crate) const GROUPS: &[&str] = &["delta", "status", "extract", "disk", "delete", SNAPSHOTS];

/// The group with a measurement of its own, over a repository of its own.
const SNAPSHOTS: &str = "snapshots";
/// How many turns it takes, and of how many files the repository is.
const TURNS: &str = "250";
const FILES: &str = "90000";

fn mark(name: &str) -> Option<Mark> {
    use Mark::{AtLeast, AtMost};
    Some(match name {
        "workspace_delete_p50_ms" => AtMost(2.0),
        "git_status_first_ms" => AtMost(300.0),
        "delta_base_ms" => AtMost(60.0),
        "extract_p50_ms" => AtMost(10.0),
        "disk_kb" => AtMost(1_000.0),
        "snapshot_p50_ms" => AtMost(10.0),
        "fork8_ms" => AtMost(60.0),
        "snapshots_max" => AtLeast(200.0),
        _ => return None,
    })
}

fn peer(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "workspace_delete_p50_ms" => ("git_worktree_remove_ms", "git worktree remove"),
        "git_status_first_ms" | "git_status_first_delta_ms" => {
            ("git_status_plain_ms", "in a plain checkout")
        }
        "delta_base_ms" | "whole_base_ms" => ("git_worktree_add_ms", "git worktree add"),
        _ => return None,
    })
}

/// Measures the groups that are wanted. All but one share a repository and its base, so that one process
/// measures them.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut report = Report::new(options.json);
    let mut known = Known {
        mark,
        peer,
        medians: BTreeMap::new(),
    };
    let (apart, groups): (Vec<&str>, Vec<&str>) = GROUPS
        .iter()
        .copied()
        .filter(|group| options.wants(group))
        .partition(|group| *group == SNAPSHOTS);
    if groups.is_empty() && apart.is_empty() {
        return Err(format!("the groups are {}", GROUPS.join(", ")));
    }
    if !groups.is_empty() {
        let binary = build::example("skep-site", "workspaces")?;
        report.doing("workspaces of 90,000 files: some minutes");
        known.measure(&binary, &groups, &mut report)?;
    }
    if !apart.is_empty() {
        let binary = build::example("skep-site", "snapshots")?;
        report.doing("snapshots and forks of 90,000 files: a minute");
        known.measure(&binary, &[TURNS, FILES], &mut report)?;
    }
    report.finish();
    Ok(())
}
