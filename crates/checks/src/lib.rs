//! The gate: rules on a tree, and commands on it in a fresh sandbox, with the evidence of each.
//!
//! It looks at the tree that was extracted and never at what the agent says. It never merges.
//!
//! - [`Candidate`] is a tree on its base, with the scope and the policy that it must keep to.
//! - [`rules`] are the checks that need no process.
//! - [`commands`] run in a [`site::Site`] that no agent ever ran in; [`Found`] is what each found.

mod commands;
mod keep;
mod markers;
mod rules;
mod secrets;

pub use commands::{Command, OUTPUT_IN_FINDINGS, commands, not_needed, wanted};
pub use keep::{Kept, keep};
pub use rules::{Candidate, rules};

use domain::{
    Failure,
    entity::{Evidence, Verdict},
};

/// The evidence of a check, and the whole output of its command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What is kept.
    pub evidence: Evidence,
    /// What the command wrote; empty for a rule.
    pub output: Vec<u8>,
    /// Why the command could not be run at all, which says nothing of the change.
    pub unrun: Option<Failure>,
}

/// Whether a gate with this evidence has passed: something was checked, and nothing failed.
#[must_use]
pub fn passed<'a>(evidence: impl IntoIterator<Item = &'a Evidence>) -> bool {
    let mut any = false;
    evidence.into_iter().all(|evidence| {
        any = true;
        matches!(evidence.verdict, Verdict::Passed | Verdict::NotNeeded)
    }) && any
}

/// The names of the checks that did not pass.
#[must_use]
pub fn failed<'a>(evidence: impl IntoIterator<Item = &'a Evidence>) -> String {
    let failed = evidence
        .into_iter()
        .filter(|one| matches!(one.verdict, Verdict::Failed | Verdict::Broken));
    failed
        .map(|one| one.check.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// What an agent is told of the checks that did not pass.
#[must_use]
pub fn feedback<'a>(evidence: impl IntoIterator<Item = &'a Evidence>) -> String {
    let mut text = String::from(
        "Your change was extracted and checked. It does not pass yet. Mend what is wrong below, in \
         the same workspace; the checks then run again.\n",
    );
    for evidence in evidence {
        if matches!(evidence.verdict, Verdict::Passed | Verdict::NotNeeded) {
            continue;
        }
        text.push_str(&format!("\n## {}\n", evidence.check));
        if let Some(command) = &evidence.command {
            text.push_str(&format!("command: {command}\n"));
        }
        if let Some(code) = evidence.exit_code {
            text.push_str(&format!("exit code: {code}\n"));
        }
        text.push_str(evidence.findings.trim_end());
        text.push('\n');
    }
    text
}

/// Why the gate cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree cannot be read.
    #[error("the candidate cannot be read from the mirror")]
    Git(#[from] git::Error),
    /// A scope or policy has a glob that cannot be read.
    #[error("a scope cannot be read")]
    Scope(#[from] domain::scope::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(verdict: Verdict) -> Evidence {
        Evidence {
            check: "test".into(),
            verdict,
            command: Some("make test".into()),
            exit_code: Some(2),
            findings: "1 failed\n".into(),
            output: None,
            duration_ms: 5,
            tree: "t".into(),
        }
    }

    #[test]
    fn a_gate_passes_only_when_something_was_checked_and_nothing_failed() {
        assert!(!passed([]));
        assert!(passed([
            &evidence(Verdict::Passed),
            &evidence(Verdict::NotNeeded)
        ]));
        assert!(!passed([
            &evidence(Verdict::Passed),
            &evidence(Verdict::Failed)
        ]));
        assert!(!passed([&evidence(Verdict::Broken)]));
    }

    #[test]
    fn an_agent_is_told_only_of_what_did_not_pass() {
        let text = feedback([&evidence(Verdict::Passed), &evidence(Verdict::Failed)]);
        assert_eq!(text.matches("## test").count(), 1);
        assert!(text.contains("exit code: 2\n1 failed\n"), "{text}");
    }
}
