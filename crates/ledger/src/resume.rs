//! An attempt outlives the process that worked on it: what becomes of a job whose holder is lost,
//! and how the next holder goes on.

use crate::{
    attempt::{self, HeldJob},
    error::{Error, Trouble},
    lease::Lease,
    ledger::Ledger,
    park, progress, read,
    sql::{Key, all, count, first, get, id, json, number, one, run, small},
    transition::{self, End, Told},
    writer::Verb,
};
use domain::{
    AttemptId, AttemptState, Failure, JobId, Reason, Timestamp,
    entity::Attempt,
    event::{Agent, Body},
    state::{AttemptCommand, JobCommand},
};

/// How often in a row the holder of a job may be lost without a step between, before the job dies:
/// what ends the process each time would do so for ever.
pub const MAX_LOST: u32 = 5;

/// An attempt whose last holder was lost: it waits for the next one to go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAttempt {
    /// The attempt, suspended.
    pub attempt: Attempt,
    /// Whether its agent had ended its turn: the gate goes on with [`Attempt::tree`].
    pub checking: bool,
}

impl Ledger {
    /// Goes on with the suspended attempt of a claimed job where it was: its agent runs, or its
    /// gate looks at the tree that was recorded.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::NotFound`] when the job has no open attempt;
    /// [`Error::Illegal`] when it goes on already.
    pub async fn resume_attempt(&self, lease: &Lease) -> Result<Attempt, Error> {
        let lease = lease.clone();
        self.write("go on with an attempt", move |verb| {
            let (job, _, attempt) = attempt::under_way(verb, &lease)?;
            transition::job(verb, job, JobCommand::Start, None)?;
            let state = transition::resume_attempt(verb, attempt)?;
            if state == AttemptState::Checking {
                transition::job(verb, job, JobCommand::Check, None)?;
            }
            read::attempt(verb, attempt)
        })
        .await
    }

    /// Gives up the suspended attempt of a claimed job, which cannot be gone on with. The claim
    /// holds: [`Ledger::start_attempt`] starts the next one.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::NotFound`] when the job has no open attempt;
    /// [`Error::Invalid`] when the attempt goes on: settle it.
    pub async fn lose_attempt(&self, lease: &Lease, failure: Failure) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("give up an attempt", move |verb| {
            let (job, _, attempt) = attempt::under_way(verb, &lease)?;
            if read::attempt(verb, attempt)?.state != AttemptState::Suspended {
                return Err(Error::Invalid(format!(
                    "the attempt {attempt} is under way: settle it"
                ))
                .into());
            }
            let end = End {
                failure: Some(failure),
                ..End::at(verb.now)
            };
            transition::end_attempt(verb, attempt, AttemptCommand::Lose, end)?;
            run(
                verb,
                "UPDATE jobs SET attempt = NULL WHERE id = ?1",
                [job.key()],
            )?;
            Ok(())
        })
        .await
    }

    /// The attempts that are under way or that the next holder may go on with: their workspaces
    /// must be kept.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn open_attempts(&self) -> Result<Vec<AttemptId>, Error> {
        self.read("list open attempts", |sql| {
            all(
                sql,
                "SELECT attempt FROM jobs INDEXED BY jobs_open WHERE attempt IS NOT NULL",
                [],
                |row| id(row, 0),
            )
        })
        .await
    }
}

/// The attempt that the next holder of a job may go on with.
pub(crate) fn open_attempt(verb: &Verb<'_>, job: JobId) -> Result<Option<OpenAttempt>, Trouble> {
    let found: Option<(AttemptId, bool)> = one(
        verb,
        "SELECT t.id, t.was IS 'checking' FROM jobs j JOIN attempts t ON t.id = j.attempt \
         WHERE j.id = ?1",
        [job.key()],
        |row| Ok((id(row, 0)?, get(row, 1)?)),
    )?;
    let Some((attempt, checking)) = found else {
        return Ok(None);
    };
    Ok(Some(OpenAttempt {
        attempt: read::attempt(verb, attempt)?,
        checking,
    }))
}

/// Gives back a job whose holder is lost. An attempt whose agent or gate was at work is kept for
/// the next holder; one that was still being prepared is lost. The lease and its grants must have
/// ended already.
pub(crate) fn lose_holder(
    verb: &mut Verb<'_>,
    job: JobId,
    until: Timestamp,
) -> Result<(), Trouble> {
    let failure = Failure::new(Reason::OwnerLost, "");
    let held = attempt::held(verb, job)?;
    let lost = count_loss(verb, job, &held)?;
    let may_go_on = lost < MAX_LOST;
    if let Some(attempt) = held.attempt {
        match read::attempt(verb, attempt)?.state {
            AttemptState::Suspended if may_go_on => {}
            AttemptState::Running | AttemptState::Checking if may_go_on => {
                transition::suspend_attempt(verb, attempt, until, Some(failure.clone()))?;
            }
            _ => {
                let end = End {
                    failure: Some(failure.clone()),
                    ..End::at(until)
                };
                transition::end_attempt(verb, attempt, AttemptCommand::Lose, end)?;
            }
        }
    }
    let until = park::after_losses(verb, lost);
    let command = match until {
        _ if !may_go_on => JobCommand::Die,
        Some(_) => JobCommand::Park,
        None => JobCommand::Retry,
    };
    let told = Told {
        failure: Some(failure),
        until: until.filter(|_| may_go_on),
    };
    transition::job(verb, job, command, told)?;
    progress::follow(verb, held.request)
}

/// Counts that a holder was lost; how many were in a row without a step between. A claim whose
/// holder was lost is not one of those that the job has.
fn count_loss(verb: &Verb<'_>, job: JobId, held: &HeldJob) -> Result<u32, Trouble> {
    let stepped = match held.attempt {
        Some(attempt) => made_a_step(verb, job, held, attempt)?,
        None => false,
    };
    one(
        verb,
        "UPDATE jobs SET claims = MAX(claims - 1, 0), \
         lost = CASE WHEN ?2 THEN 0 ELSE lost + 1 END WHERE id = ?1 RETURNING lost",
        (job.key(), stepped),
        |row| small(row, 0),
    )?
    .ok_or_else(|| Error::missing("job", job).into())
}

/// The most events that are looked through for a step; more than those are steps of somebody.
const MAX_LOOKED: i64 = 10_000;

/// Whether anything was done since the claim that the next holder need not do again: a call that
/// is paid, a tool that has run, a turn or a check that has ended. Words alone are none.
fn made_a_step(
    verb: &Verb<'_>,
    job: JobId,
    held: &HeldJob,
    attempt: AttemptId,
) -> Result<bool, Trouble> {
    let mark: u64 = one(
        verb,
        "SELECT mark FROM jobs WHERE id = ?1",
        [job.key()],
        |row| count(row, 0),
    )?
    .unwrap_or_default();
    let step = first(
        verb,
        "SELECT body FROM events INDEXED BY events_of_request \
         WHERE request_row = (SELECT n FROM requests WHERE id = ?1) AND sequence > ?2 \
         ORDER BY sequence DESC LIMIT ?3",
        (held.request.key(), number(mark), MAX_LOOKED),
        |row| {
            let is_step = match json::<Body>(row, 0)? {
                Body::ModelCalled { attempt: of, .. } => of == Some(attempt),
                Body::Checked { attempt: of, .. } => of == attempt,
                Body::Agent { attempt: of, event } => {
                    of == attempt
                        && matches!(event, Agent::ToolResult { .. } | Agent::Finished { .. })
                }
                _ => false,
            };
            Ok(is_step.then_some(()))
        },
    )?;
    Ok(step.is_some())
}
