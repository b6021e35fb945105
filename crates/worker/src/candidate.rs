//! What an agent made, as a commit in the mirror.

use crate::{
    attempt::Place,
    message::{Facts, message},
};
use domain::{
    Failure, Reason,
    entity::{Evidence, Verdict},
    policy::Policy,
};
use git::{CommitId, NewCommit, Signature, TreeId};
use site::Site;

/// Whether one of the repository's own checks has passed, which a job's commands are not.
pub(crate) fn is_checked(policy: &Policy, evidence: &[Evidence]) -> bool {
    evidence.iter().any(|one| {
        one.verdict == Verdict::Passed
            && policy.checks.iter().any(|check| {
                check.name == one.check && Some(&check.command) == one.command.as_ref()
            })
    })
}

/// Keeps what an agent made until a limit ended it, so that a person can look at it and adopt it.
pub(crate) async fn salvage(place: &Place<'_>, site: &Site, base: TreeId, summary: &str) {
    let tree = match site.extract().await {
        Ok(extracted) => extracted.tree,
        Err(error) => {
            tracing::warn!(%error, attempt = %place.attempt, "the work of an attempt that met a limit could not be read");
            return;
        }
    };
    if tree == base {
        return;
    }
    let noted = place
        .ledger
        .attempt_checking(place.lease, tree.to_string())
        .await;
    match noted {
        Ok(()) => keep(place, tree, summary).await,
        Err(error) => {
            tracing::warn!(%error, attempt = %place.attempt, "the work of an attempt that met a limit could not be kept");
        }
    }
}

pub(crate) fn tree_of(place: &Place<'_>) -> Result<TreeId, Failure> {
    place
        .mirror
        .tree_of(place.wanted.base)
        .map_err(|error| Failure::caused(Reason::Repository, &error))
}

/// Writes the change as one commit on its base, and keeps it in the mirror.
pub(crate) async fn commit(
    place: &Place<'_>,
    tree: TreeId,
    summary: &str,
) -> Result<CommitId, Failure> {
    let policy = &place.request.ask.policy.commit;
    let attempt = place.attempt.to_string();
    let facts = Facts {
        title: &place.job.spec.title,
        summary,
        request: place.request.id.to_string(),
        job: place.job.id.to_string(),
        attempt: attempt.clone(),
        agent: place
            .job
            .spec
            .agent
            .as_deref()
            .unwrap_or(&place.request.ask.agent),
        model: place
            .job
            .spec
            .model
            .as_deref()
            .or(place.request.ask.model.as_deref())
            .unwrap_or("default"),
    };
    let text = message(policy, &facts);
    let who = Signature::new(&policy.name, &policy.email, place.ledger.now().seconds());
    let (mirror, base) = (place.mirror.clone(), place.wanted.base);
    let written = tokio::task::spawn_blocking(move || {
        let commit = mirror.commit(&NewCommit {
            tree,
            parents: &[base],
            author: &who,
            committer: &who,
            message: text.as_str().into(),
        })?;
        let name = format!("refs/skep/attempts/{attempt}");
        mirror.update_ref(&name, Some(commit), mirror.read_ref(&name)?)?;
        Ok::<_, git::Error>(commit)
    });
    written
        .await
        .map_err(|_| Failure::new(Reason::Bug, "the commit was not written"))?
        .map_err(|error| Failure::caused(Reason::Storage, &error))
}

/// Keeps a candidate that did not pass, so that a person can look at it and adopt it.
pub(crate) async fn keep(place: &Place<'_>, tree: TreeId, summary: &str) {
    if let Err(failure) = commit(place, tree, summary).await {
        tracing::warn!(%failure, attempt = %place.attempt, "a candidate could not be kept");
    }
}
