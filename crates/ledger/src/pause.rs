//! Pause and resume: a person stops work for now, and nothing of it is lost.
//!
//! What runs is let go of: its lease ends, its attempt is suspended with its workspace, and the
//! next claim after the pause goes on with it. That costs no claim. What has passed its gate still
//! lands.

use crate::{
    attempt::{self, HeldJob},
    error::{Error, Trouble},
    lease::{self, Subject},
    ledger::Ledger,
    progress, read,
    sql::{Key, all, get, id, one, run, small},
    transition::{self, End},
    writer::Verb,
};
use domain::{
    AttemptState, Failure, JobId, Reason, RequestId, Timestamp,
    state::{AttemptCommand, JobCommand, RequestCommand},
};

impl Ledger {
    /// Stops a request for now: nothing of it is planned or done until it is resumed.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Illegal`] when it has ended or is paused already.
    pub async fn pause_request(&self, request: RequestId) -> Result<(), Error> {
        self.write("pause a request", move |verb| {
            lease::revoke(verb, Subject::Request(request))?;
            transition::request(verb, request, RequestCommand::Pause, None)?;
            let held: Vec<JobId> = all(
                verb,
                "SELECT id FROM jobs WHERE request = ?1 \
                 AND state IN ('leased', 'running', 'checking') ORDER BY n",
                [request.key()],
                |row| id(row, 0),
            )?;
            for job in held {
                let held = attempt::held(verb, job)?;
                let_go(verb, job, &held, None)?;
                transition::job(verb, job, JobCommand::Retry, None)?;
            }
            Ok(())
        })
        .await
    }

    /// Lets a paused request go on where it was.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Illegal`] when it is not paused.
    pub async fn resume_request(&self, request: RequestId) -> Result<(), Error> {
        self.write("resume a request", move |verb| {
            let planned = one(
                verb,
                "SELECT EXISTS (SELECT 1 FROM jobs WHERE request = ?1)",
                [request.key()],
                |row| get::<bool>(row, 0),
            )?
            .unwrap_or(false);
            let command = if planned {
                RequestCommand::ResumeWorking
            } else {
                RequestCommand::ResumeQueued
            };
            transition::request(verb, request, command, None)?;
            progress::follow(verb, request)
        })
        .await
    }

    /// Stops a job for now.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Illegal`] when it has ended or is paused already.
    pub async fn pause_job(&self, job: JobId) -> Result<(), Error> {
        self.write("pause a job", move |verb| {
            let held = attempt::held(verb, job)?;
            if held.state.is_held() {
                let_go(verb, job, &held, None)?;
            }
            transition::job(verb, job, JobCommand::Pause, None)?;
            progress::follow(verb, held.request)
        })
        .await
    }

    /// Lets a paused job go on where it was.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Illegal`] when it is not paused.
    pub async fn resume_job(&self, job: JobId) -> Result<(), Error> {
        self.write("resume a job", move |verb| {
            let request = read::job(verb, job)?.request;
            // What it waited for may have been settled meanwhile: that follows.
            let command = if one(
                verb,
                "SELECT 1 FROM dependencies WHERE job = ?1 LIMIT 1",
                [job.key()],
                |_| Ok(()),
            )?
            .is_some()
            {
                JobCommand::ResumeBlocked
            } else {
                JobCommand::ResumeReady
            };
            transition::job(verb, job, command, None)?;
            progress::follow(verb, request)
        })
        .await
    }
}

/// How often a job may sleep for want of a quota before that is its end.
const MAX_PARKS: u32 = 50;

/// Parks a held job until a time: it sleeps with its attempt, wakes once, and that costs no claim.
/// The lease must have ended.
pub(crate) fn park(
    verb: &mut Verb<'_>,
    job: JobId,
    held: &HeldJob,
    failure: Failure,
    until: Timestamp,
) -> Result<domain::JobState, Trouble> {
    let parks = one(
        verb,
        "UPDATE jobs SET parks = parks + 1 WHERE id = ?1 RETURNING parks",
        [job.key()],
        |row| small(row, 0),
    )?
    .ok_or_else(|| Error::missing("job", job))?;
    if parks > MAX_PARKS {
        attempt::fail(verb, held, failure.clone())?;
        return transition::job(verb, job, JobCommand::Die, Some(failure));
    }
    suspend(verb, job, held, verb.now, Some(failure.clone()))?;
    let told = transition::Told {
        failure: Some(failure),
        until: Some(until.max(verb.now)),
    };
    transition::job(verb, job, JobCommand::Park, told)
}

/// Ends the lease on a held job and keeps its attempt for the next holder.
fn let_go(
    verb: &mut Verb<'_>,
    job: JobId,
    held: &HeldJob,
    failure: Option<Failure>,
) -> Result<(), Trouble> {
    let deadline = lease::revoke(verb, Subject::Job(job))?;
    let until = deadline.map_or(verb.now, |deadline| verb.now.min(deadline));
    suspend(verb, job, held, until, failure)
}

fn suspend(
    verb: &mut Verb<'_>,
    job: JobId,
    held: &HeldJob,
    until: Timestamp,
    failure: Option<Failure>,
) -> Result<(), Trouble> {
    run(
        verb,
        "UPDATE jobs SET claims = MAX(claims - 1, 0) WHERE id = ?1",
        [job.key()],
    )?;
    let Some(attempt) = held.attempt else {
        return Ok(());
    };
    match read::attempt(verb, attempt)?.state {
        AttemptState::Running | AttemptState::Checking => {
            transition::suspend_attempt(verb, attempt, until, failure)
        }
        AttemptState::Suspended => Ok(()),
        // Nothing was done in it yet.
        _ => {
            let end = End {
                failure: failure.or_else(|| Some(Failure::new(Reason::Cancelled, "paused"))),
                ..End::at(until)
            };
            transition::end_attempt(verb, attempt, AttemptCommand::Lose, end)?;
            Ok(())
        }
    }
}
