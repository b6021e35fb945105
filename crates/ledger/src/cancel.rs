//! Cancellation: one transaction ends everything that is open.

use crate::{
    attempt,
    error::{Error, Trouble},
    lease::{self, Subject},
    ledger::Ledger,
    progress,
    sql::{Key, all, id, word},
    transition::{self, Landing},
    writer::Verb,
};
use domain::{
    ChangeId, Failure, JobId, JobState, Reason, RequestId,
    machine::Machine,
    state::{ChangeCommand, RequestCommand},
};

impl Ledger {
    /// Cancels a request with all its jobs, attempts, grants and leases. Changes that wait or are
    /// being merged are rejected, except one that an integrator was about to land: its commit may
    /// be on the branch already, so it is left to be settled as it is found.
    ///
    /// Holders learn of it by [`Ledger::standing`] after a change of [`Ledger::changes`].
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Illegal`] when the request has ended.
    pub async fn cancel_request(&self, request: RequestId) -> Result<(), Error> {
        self.write("cancel a request", move |verb| {
            cancel_request(verb, request)
        })
        .await
    }

    /// Cancels a job with its attempt, grants and lease. Jobs that wait for it die.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Illegal`] when the job has ended.
    pub async fn cancel_job(&self, job: JobId) -> Result<(), Error> {
        self.write("cancel a job", move |verb| {
            let held = attempt::held(verb, job)?;
            attempt::cancel(verb, job, &held)?;
            progress::follow(verb, held.request)
        })
        .await
    }
}

fn cancel_request(verb: &mut Verb<'_>, request: RequestId) -> Result<(), Trouble> {
    lease::revoke(verb, Subject::Request(request))?;
    let jobs: Vec<(JobId, JobState)> = all(
        verb,
        "SELECT id, state FROM jobs WHERE request = ?1 ORDER BY n",
        [request.key()],
        |row| Ok((id(row, 0)?, word(row, 1)?)),
    )?;
    for (job, _) in jobs.iter().filter(|(_, state)| !state.is_terminal()) {
        let held = attempt::held(verb, *job)?;
        attempt::cancel(verb, *job, &held)?;
    }
    let changes: Vec<ChangeId> = all(
        verb,
        "SELECT id FROM changes WHERE request = ?1 AND integrated IS NULL \
         AND state IN ('queued', 'merging', 'checking') ORDER BY n",
        [request.key()],
        |row| id(row, 0),
    )?;
    for change in changes {
        lease::revoke(verb, Subject::Change(change))?;
        let landing = Landing {
            failure: Some(Failure::new(Reason::Cancelled, "")),
            ..Landing::default()
        };
        transition::change(verb, change, ChangeCommand::Reject, landing)?;
    }
    let failure = Failure::new(Reason::Cancelled, "");
    transition::request(verb, request, RequestCommand::Cancel, Some(failure))?;
    Ok(())
}
