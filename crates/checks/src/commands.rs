//! The repository's and the job's own commands, run on the candidate in a site of its own.

use crate::Found;
use bstr::BString;
use domain::{
    Failure,
    entity::{Evidence, Verdict},
    plan,
    policy::{CHECK_TIMEOUT, Policy},
    scope::{self, Globs},
};
use site::{Ran, Site};
use std::time::Duration;

/// How much of a command's output is told to the agent: its end, in bytes.
pub const OUTPUT_IN_FINDINGS: usize = 6_000;

/// A command that must pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it is called.
    pub name: String,
    /// What runs, with `sh -c`.
    pub command: String,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether the change touches what it is about.
    pub needed: bool,
}

/// The commands for a change that touches these paths: the policy's, then the job's.
///
/// # Errors
/// When a glob is not valid.
pub fn wanted(
    policy: &Policy,
    job: &plan::Job,
    touched: &[BString],
) -> Result<Vec<Command>, scope::Error> {
    let mut commands = Vec::new();
    for check in &policy.checks {
        let when = Globs::new(&check.when)?;
        commands.push(Command {
            name: check.name.clone(),
            command: check.command.clone(),
            timeout: check.timeout,
            needed: when.is_empty() || touched.iter().any(|path| when.matches(path)),
        });
    }
    commands.extend(
        job.checks
            .iter()
            .enumerate()
            .map(|(index, command)| Command {
                name: format!("{} {}", job.name, index + 1),
                command: command.clone(),
                timeout: CHECK_TIMEOUT,
                needed: true,
            }),
    );
    Ok(commands)
}

/// Runs the commands one after the other in the site, all of them, so that an agent learns of
/// every failure at once.
///
/// A command that could not be run to its end is [`Verdict::Broken`]: nothing passes for want of an
/// answer. One that could not be run at all says so in [`Found::unrun`]: that is the sandbox's
/// failure and not the change's.
pub async fn commands(site: &Site, commands: &[Command], tree: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for command in commands {
        let Found {
            mut evidence,
            mut output,
            mut unrun,
        } = not_needed(command, tree);
        if command.needed {
            match site.run(&command.command, command.timeout).await {
                Ok(ran) => {
                    judge(&mut evidence, &ran, command.timeout);
                    output = ran.output;
                }
                Err(error) => {
                    let Failure { reason, detail } = error.failure();
                    evidence.verdict = Verdict::Broken;
                    evidence.findings = format!("the command could not be run: {detail}");
                    let text = format!("the check `{}` could not be run: {detail}", command.name);
                    unrun = Some(Failure::new(reason, text));
                }
            }
        }
        found.push(Found {
            evidence,
            output,
            unrun,
        });
    }
    found
}

/// What is kept of a command that need not run.
#[must_use]
pub fn not_needed(command: &Command, tree: &str) -> Found {
    Found {
        evidence: Evidence {
            check: command.name.clone(),
            verdict: Verdict::NotNeeded,
            command: Some(command.command.clone()),
            exit_code: None,
            findings: "the change touches none of its paths".into(),
            output: None,
            duration_ms: 0,
            tree: tree.into(),
        },
        output: Vec::new(),
        unrun: None,
    }
}

fn judge(evidence: &mut Evidence, ran: &Ran, timeout: Duration) {
    evidence.exit_code = ran.exit.code;
    evidence.duration_ms = u64::try_from(ran.duration.as_millis()).unwrap_or(u64::MAX);
    evidence.findings = ran.tail(OUTPUT_IN_FINDINGS);
    evidence.verdict = if ran.exit.success() {
        Verdict::Passed
    } else if ran.exit.timed_out {
        evidence
            .findings
            .push_str(&format!("\nit did not end within {} s", timeout.as_secs()));
        Verdict::Broken
    } else if let Some(limit) = ran.exit.limit {
        evidence
            .findings
            .push_str(&format!("\nthe {limit} of the sandbox was reached"));
        Verdict::Broken
    } else {
        if let Some(why) = ran.exit.why() {
            evidence.findings.push_str(&format!("\n{why}"));
        }
        Verdict::Failed
    };
}
