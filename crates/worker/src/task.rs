//! What an agent is told. The same job on the same base always gives the same words, so that an
//! attempt can be replayed.

use agents::{CheckNote, Limits, Task};
use domain::{
    Amount,
    egress::{Part, Rule},
    entity::{Job, Request},
    policy::FILE,
};
use git::{CommitId, Mirror};
use std::{path::PathBuf, time::Duration};

/// The files in which repositories speak to agents, the first that is there.
const INSTRUCTIONS: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];
/// The most bytes of them that are passed on.
const MAX_INSTRUCTIONS: u64 = 64 * 1024;

/// The task of a job.
pub(crate) fn task(
    request: &Request,
    job: &Job,
    mirror: &Mirror,
    base: CommitId,
    inside: PathBuf,
) -> Task {
    let mut task = Task::new(prompt(job), inside);
    for name in INSTRUCTIONS {
        if let Some(content) = mirror
            .read(base, name.into(), MAX_INSTRUCTIONS)
            .unwrap_or_default()
        {
            task.instructions = Some(String::from_utf8_lossy(&content).into_owned());
            break;
        }
    }
    let policy = &request.ask.policy;
    let own = job.spec.checks.iter().enumerate();
    task.checks = policy
        .checks
        .iter()
        .map(|check| CheckNote {
            name: check.name.clone(),
            command: check.command.clone(),
        })
        .chain(own.map(|(index, command)| CheckNote {
            name: format!("{} {}", job.spec.name, index + 1),
            command: command.clone(),
        }))
        .collect();
    task.rules = rules(request, job);
    // What the repository asks for, and not what the user grants of it: a replay gives the same words.
    let agents = |rule: &&Rule| rule.parts.contains(&Part::Agent);
    let reach = policy.egress.allow.iter().filter(agents);
    task.reach = reach
        .filter_map(|rule| rule.host.clone().or_else(|| rule.preset.clone()))
        .collect();
    task.rules.extend(request.ask.sources.notes(site::SHOWN_IN));
    task
}

/// What an agent may use: what is left in its job's account, and no more than is usual. A session
/// that goes on by its journal makes its `past` calls again, for nothing.
pub(crate) fn limits(free: Amount, past: u64) -> Limits {
    let usual = Limits::default();
    let turns = free.iterations.saturating_add(past);
    Limits {
        turns: u32::try_from(turns).unwrap_or(u32::MAX).min(usual.turns),
        wall: Duration::from_millis(free.wall_ms).min(usual.wall),
        ..usual
    }
}

fn prompt(job: &Job) -> String {
    let mut text = job.spec.prompt.trim().to_owned();
    if !job.spec.criteria.is_empty() {
        text.push_str("\n\nIt is done when:\n");
        for criterion in &job.spec.criteria {
            text.push_str(&format!("- {criterion}\n"));
        }
    }
    text
}

fn rules(request: &Request, job: &Job) -> Vec<String> {
    let scope = &job.spec.scope;
    let paths = &request.ask.policy.paths;
    let mut rules = vec![format!("Do not change `{FILE}`.")];
    let mut list = |words: &str, globs: &[String]| {
        if !globs.is_empty() {
            rules.push(format!("{words}: {}.", globs.join(", ")));
        }
    };
    list("Write only files that match", &scope.write);
    list("Do not write files that match", &scope.forbid);
    list("Do not change files that match", &paths.protected);
    list("Do not make files that match", &paths.forbidden);
    if let Some(most) = scope.max_files {
        rules.push(format!("Touch at most {most} files."));
    }
    rules
}
