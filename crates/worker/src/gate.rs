//! The gate on what an attempt made.

use crate::attempt::{Place, tell_setup};
use checks::{Candidate, Found, Kept};
use domain::{
    Failure, Reason,
    egress::Part,
    entity::{Evidence, Verdict},
    event::Body,
};
use git::TreeId;
use site::Wanted;
use tokio_util::sync::CancellationToken;

/// Asks the gate, records the evidence, and returns it. On cancellation the site of the checks is
/// closed at once, and nothing is recorded.
pub(crate) async fn gate(
    place: &Place<'_>,
    tree: TreeId,
    round: u32,
    cancel: &CancellationToken,
) -> Result<Vec<Evidence>, Failure> {
    let (mut found, touched) = rules(place, tree).await?;
    let empty = found
        .iter()
        .any(|found| found.evidence.verdict != Verdict::Passed)
        && touched.is_empty();
    if !empty {
        let policy = &place.request.ask.policy;
        let commands = checks::wanted(policy, &place.job.spec, &touched)
            .map_err(|error| Failure::new(Reason::PolicyInvalid, error.to_string()))?;
        if commands.iter().any(|command| command.needed) {
            let wanted = Wanted {
                // One that a killed holder left does not stand in the way.
                id: format!("{}-check-{round}-{}", place.attempt, place.lease.token),
                tree: Some(tree),
                channel: false,
                part: Part::Checks,
                programs: Vec::new(),
                ..place.wanted.clone()
            };
            let cancelled = || Failure::new(Reason::Cancelled, "");
            let site = tokio::select! {
                site = place.sites.site(place.mirror, wanted) => {
                    site.map_err(|error| error.failure())?
                }
                () = cancel.cancelled() => return Err(cancelled()),
            };
            let told = tell_setup(
                place.ledger,
                place.lease,
                place.attempt,
                Part::Checks,
                &site,
            );
            told.await?;
            let name = tree.to_string();
            let ran = tokio::select! {
                ran = checks::commands(&site, &commands, &name) => Some(ran),
                () = cancel.cancelled() => None,
            };
            if let Err(error) = site.close().await {
                tracing::warn!(%error, "the site of the checks did not end well");
            }
            found.extend(ran.ok_or_else(cancelled)?);
        } else {
            let none = commands.iter();
            found.extend(none.map(|command| checks::not_needed(command, &tree.to_string())));
        }
    }
    let redact = |text| place.worker.gateway.redact(text);
    let Kept { evidence, unrun } = checks::keep(place.ledger, found, redact)
        .await
        .map_err(storage)?;
    let bodies = evidence
        .iter()
        .map(|one| Body::Checked {
            attempt: place.attempt,
            change: None,
            round,
            evidence: one.clone(),
        })
        .collect();
    place
        .ledger
        .record(place.lease, bodies)
        .await
        .map_err(storage)?;
    match unrun {
        Some(failure) => Err(failure),
        None => Ok(evidence),
    }
}

async fn rules(
    place: &Place<'_>,
    tree: TreeId,
) -> Result<(Vec<Found>, Vec<bstr::BString>), Failure> {
    let (mirror, base) = (place.mirror.clone(), place.wanted.base);
    let (scope, policy) = (
        place.job.spec.scope.clone(),
        place.request.ask.policy.clone(),
    );
    let asked = tokio::task::spawn_blocking(move || {
        checks::rules(&Candidate {
            mirror: &mirror,
            base,
            tree,
            scope: &scope,
            policy: &policy,
        })
    });
    asked
        .await
        .map_err(|_| Failure::new(Reason::Bug, "the rules of the gate ended early"))?
        .map_err(|error| Failure::caused(Reason::Repository, &error))
}

pub(crate) fn storage(error: ledger::Error) -> Failure {
    match error {
        ledger::Error::LeaseLost(_) => Failure::new(Reason::Cancelled, error.to_string()),
        other => Failure::caused(Reason::Storage, &other),
    }
}
