//! `cargo xtask bench workspace`: what workspaces cost, beside the worktrees of git.

use std::collections::BTreeMap;

use super::{
    Options, build,
    example::{Known, Mark},
    figure::Report,
};

/// The groups in the order in which they are measured.
pub(crate) const GROUPS: &[&str] = &["delta", "status", "extract", "disk", "delete"];

fn mark(name: &str) -> Option<Mark> {
    use Mark::AtMost;
    Some(match name {
        "workspace_delete_p50_ms" => AtMost(2.0),
        "git_status_first_ms" => AtMost(300.0),
        "delta_base_ms" => AtMost(60.0),
        "extract_p50_ms" => AtMost(10.0),
        "disk_kb" => AtMost(1_000.0),
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

/// Measures the groups that are wanted. They share a repository and its base, so that one process
/// measures all.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut report = Report::new(options.json);
    let binary = build::example("skep-site", "workspaces")?;
    let mut known = Known {
        mark,
        peer,
        medians: BTreeMap::new(),
    };
    let groups: Vec<&str> = GROUPS
        .iter()
        .copied()
        .filter(|group| options.wants(group))
        .collect();
    if groups.is_empty() {
        return Err(format!("the groups are {}", GROUPS.join(", ")));
    }
    report.doing("workspaces of 90,000 files: some minutes");
    known.measure(&binary, &groups, &mut report)?;
    report.finish();
    Ok(())
}
