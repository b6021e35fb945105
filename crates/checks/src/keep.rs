//! From what was found to the evidence that is kept: redacted, with the output in the ledger.

use crate::Found;
use domain::{Failure, entity::Evidence};
use ledger::Ledger;

/// The evidence of a gate, as it may be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of each check.
    pub evidence: Vec<Evidence>,
    /// Why the first command could not be run at all that was not run.
    pub unrun: Option<Failure>,
}

/// Takes what is secret out of findings and outputs, and puts the outputs into the ledger.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn keep(
    ledger: &Ledger,
    found: Vec<Found>,
    redact: impl Fn(String) -> String,
) -> Result<Kept, ledger::Error> {
    let mut kept = Kept {
        evidence: Vec::with_capacity(found.len()),
        unrun: None,
    };
    for Found {
        mut evidence,
        output,
        unrun,
    } in found
    {
        evidence.findings = redact(evidence.findings);
        if !output.is_empty() {
            let output = redact(String::from_utf8_lossy(&output).into_owned());
            evidence.output = Some(ledger.put_blob(output.into_bytes()).await?);
        }
        if kept.unrun.is_none() {
            kept.unrun = unrun.map(|failure| Failure::new(failure.reason, redact(failure.detail)));
        }
        kept.evidence.push(evidence);
    }
    Ok(kept)
}
