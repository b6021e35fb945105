//! The gate on a merged tree.

use super::{Halt, Integrator, Landing, blocking, parse};
use checks::{Candidate, Found, Kept};
use domain::{Failure, Reason, egress::Part, event::Body};
use git::{CommitId, TreeId};
use site::Wanted;
use tokio_util::sync::CancellationToken;

impl Landing<'_> {
    /// Asks the gate about the merged tree: the rules on all that differs from the tip, then, with
    /// `again`, the repository's and the job's commands.
    ///
    /// A merge follows renames, so that what lands can be elsewhere than what passed the gate: an edit
    /// of a file that was moved below a protected directory meanwhile is an edit there.
    pub(super) async fn check(
        &self,
        tree: TreeId,
        tip: CommitId,
        again: bool,
        cancel: &CancellationToken,
    ) -> Result<(), Halt> {
        let job = self.integrator.ledger.job(self.change.job).await?;
        let policy = self.request.ask.policy.clone();
        let (mirror, scope) = (self.mirror.clone(), job.spec.scope.clone());
        let asked = blocking(move || {
            Ok(checks::rules(&Candidate {
                mirror: &mirror,
                base: tip,
                tree,
                scope: &scope,
                policy: &policy,
            }))
        });
        let (found, touched) = asked.await?.map_err(|error| match error {
            checks::Error::Git(error) => Halt::from(error),
            checks::Error::Scope(_) => {
                Halt::Rejected(Failure::caused(Reason::PolicyInvalid, &error))
            }
        })?;
        self.judge(found).await?;
        if !again {
            return Ok(());
        }
        let commands = checks::wanted(&self.request.ask.policy, &job.spec, &touched)
            .map_err(|error| Halt::Rejected(Failure::caused(Reason::PolicyInvalid, &error)))?;
        if commands.iter().any(|command| command.needed) {
            let found = self.run(tree, &commands, cancel).await?;
            self.judge(found).await?;
        }
        Ok(())
    }

    /// Runs the commands on the merged tree, in a site of its own.
    async fn run(
        &self,
        tree: TreeId,
        commands: &[checks::Command],
        cancel: &CancellationToken,
    ) -> Result<Vec<Found>, Halt> {
        let Integrator { ledger, sites, .. } = self.integrator;
        let id = format!("{}-merge-{}", self.change.id, self.lease.token);
        let base = parse(&self.request.ask.base)?;
        let mut wanted = Wanted::new(ledger, self.request, id, base)
            .await
            .map_err(|error| error.failure())?;
        wanted.tree = Some(tree);
        wanted.outlet = self.integrator.gateway.as_ref().and_then(|gateway| {
            let asked = &self.request.ask.policy.egress;
            gateway.outlet(ledger, self.lease, self.change.attempt, asked, cancel)
        });
        let site = tokio::select! {
            site = sites.site(&self.mirror, wanted) => {
                site.map_err(|error| error.failure())?
            }
            () = cancel.cancelled() => return Err(Halt::Lost),
        };
        if let Some(set_up) = site.set_up() {
            let told = set_up.event(self.change.attempt, Part::Checks);
            ledger.record(self.lease, vec![told]).await?;
        }
        let name = tree.to_string();
        let found = tokio::select! {
            found = checks::commands(&site, commands, &name) => Some(found),
            () = cancel.cancelled() => None,
        };
        if let Err(error) = site.close().await {
            tracing::warn!(%error, "the site of a merge's checks did not end well");
        }
        found.ok_or(Halt::Lost)
    }

    /// Records what was found, and rejects the change unless all of it passed.
    async fn judge(&self, found: Vec<Found>) -> Result<(), Halt> {
        let Integrator { ledger, redact, .. } = self.integrator;
        let Kept { evidence, unrun } = checks::keep(ledger, found, |text| redact(text)).await?;
        let bodies = evidence.iter().map(|one| Body::Checked {
            attempt: self.change.attempt,
            change: Some(self.change.id),
            round: 0,
            evidence: one.clone(),
        });
        ledger.record(self.lease, bodies.collect()).await?;
        if let Some(failure) = unrun {
            return Err(failure.into());
        }
        if checks::passed(&evidence) {
            return Ok(());
        }
        let failed = checks::failed(&evidence);
        let detail = format!("on top of what was integrated before it: {failed}");
        Err(Halt::Rejected(Failure::new(Reason::ChecksFailed, detail)))
    }
}
