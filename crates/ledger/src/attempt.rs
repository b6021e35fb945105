//! Attempts: a claimed job is started, checked and settled.

use crate::{
    error::{Error, Trouble},
    lease::{self, Lease, Subject},
    ledger::Ledger,
    park, pause, progress,
    queue::{self, Kind, Offer, Queue},
    read,
    sql::{Key, get, id, one, run, small},
    transition::{self, End, Told},
    writer::Verb,
};
use domain::{
    AttemptId, AttemptState, ChangeId, ChangeState, Failure, JobId, JobState, Reason, RequestId,
    SessionId, Timestamp,
    entity::{Attempt, ObjectName},
    event::Body,
    state::{AttemptCommand, JobCommand},
};

/// How often a job is claimed before its failure is final. A claim whose holder was lost does not
/// count.
pub const MAX_ATTEMPTS: u32 = 3;

/// What an attempt starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    /// The commit that its workspace starts from.
    pub base: ObjectName,
    /// The profile of its agent.
    pub agent: String,
    /// Its model, as asked for.
    pub model: Option<String>,
    /// The kind of its sandbox.
    pub sandbox: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The gate passed: there is a change.
    Passed {
        /// The commit that the gate passed, on top of the attempt's base.
        commit: ObjectName,
        /// Its tree.
        tree: ObjectName,
        /// What the agent said at the end.
        summary: String,
        /// Whether the repository's own checks ran on it.
        checked: bool,
    },
    /// There was nothing to change, as the job allows.
    Empty {
        /// What the agent said at the end.
        summary: String,
    },
    /// The gate did not pass, and no round is left.
    Rejected {
        /// Why.
        failure: Failure,
        /// The tree that did not pass.
        tree: Option<ObjectName>,
        /// What the agent said at the end.
        summary: String,
    },
    /// It ended with an error. Also for a claimed job whose attempt could not start.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// A provider has no quota for it until a time: the job sleeps with its attempt, wakes once, and
    /// goes on. That costs no claim.
    Parked {
        /// Why.
        failure: Failure,
        /// Until when.
        until: Timestamp,
    },
    /// It was resumed and cannot be gone on with: a new attempt may start.
    Lost {
        /// Why.
        failure: Failure,
    },
    /// Its holder cancelled it, and the job with it.
    Cancelled,
}

/// What came of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Where the job stands now: ready means that it will be tried again.
    pub job: JobState,
    /// The change that was made.
    pub change: Option<ChangeId>,
}

impl Ledger {
    /// Starts an attempt of a claimed job.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Illegal`] when it was started already.
    pub async fn start_attempt(&self, lease: &Lease, new: NewAttempt) -> Result<Attempt, Error> {
        let lease = lease.clone();
        self.write("start an attempt", move |verb| start(verb, &lease, &new))
            .await
    }

    /// The agent of an attempt starts, or goes on with findings of the gate.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Illegal`].
    pub async fn attempt_running(&self, lease: &Lease) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("note that an agent runs", move |verb| {
            let (job, held, attempt) = under_way(verb, &lease)?;
            // One that is claimed only has a suspended attempt, which is resumed.
            if held.state != JobState::Running {
                transition::job(verb, job, JobCommand::Revise, None)?;
            }
            transition::attempt_runs(verb, attempt)?;
            Ok(())
        })
        .await
    }

    /// The agent of an attempt has ended its turn; the gate looks at this tree.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Illegal`].
    pub async fn attempt_checking(&self, lease: &Lease, tree: ObjectName) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("note that a gate begins", move |verb| {
            let (job, _, attempt) = under_way(verb, &lease)?;
            transition::job(verb, job, JobCommand::Check, None)?;
            transition::attempt_checks(verb, attempt, tree)
        })
        .await
    }

    /// Settles an attempt and its job, and ends the lease. A failure of the environment or of a
    /// provider that may be tried again parks the job for a while, and then it is ready again,
    /// [`MAX_ATTEMPTS`] times at the most; any other is final. What follows for other jobs and the request is part of it.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Illegal`] when the state does not allow it: a change passes
    /// only from the gate.
    pub async fn settle_attempt(
        &self,
        lease: &Lease,
        settlement: Settlement,
    ) -> Result<Settled, Error> {
        let lease = lease.clone();
        self.write("settle an attempt", move |verb| {
            settle(verb, &lease, settlement)
        })
        .await
    }
}

/// A job as its holder has it.
pub(crate) struct HeldJob {
    pub(crate) state: JobState,
    pub(crate) request: RequestId,
    pub(crate) session: SessionId,
    pub(crate) account: i64,
    /// The attempt that is open.
    pub(crate) attempt: Option<AttemptId>,
    claims: u32,
    /// How many attempts were started.
    attempts: u32,
}

impl HeldJob {
    /// Whether another claim is allowed.
    pub(crate) fn may_retry(&self) -> bool {
        self.claims < MAX_ATTEMPTS
    }
}

pub(crate) fn held(verb: &Verb<'_>, job: JobId) -> Result<HeldJob, Trouble> {
    one(
        verb,
        "SELECT j.state, j.request, r.session, j.account, j.attempt, j.claims, j.attempts \
         FROM jobs j JOIN requests r ON r.id = j.request WHERE j.id = ?1",
        [job.key()],
        |row| {
            Ok(HeldJob {
                state: crate::sql::word(row, 0)?,
                request: id(row, 1)?,
                session: id(row, 2)?,
                account: get(row, 3)?,
                attempt: get::<Option<i64>>(row, 4)?.map(Key::read),
                claims: small(row, 5)?,
                attempts: small(row, 6)?,
            })
        },
    )?
    .ok_or_else(|| Error::missing("job", job).into())
}

/// The job and the attempt that are under way under this lease.
pub(crate) fn under_way(
    verb: &Verb<'_>,
    lease: &Lease,
) -> Result<(JobId, HeldJob, AttemptId), Trouble> {
    lease::verify(verb, lease)?;
    let job = lease.job()?;
    let held = held(verb, job)?;
    let attempt = held
        .attempt
        .ok_or_else(|| Error::missing("open attempt of job", job))?;
    Ok((job, held, attempt))
}

fn start(verb: &mut Verb<'_>, lease: &Lease, new: &NewAttempt) -> Result<Attempt, Trouble> {
    lease::verify(verb, lease)?;
    let job = lease.job()?;
    transition::job(verb, job, JobCommand::Start, None)?;
    let held = held(verb, job)?;
    if let Some(open) = held.attempt {
        return Err(Error::Invalid(format!(
            "the job {job} has the open attempt {open}: resume it, or lose it"
        ))
        .into());
    }
    let attempt: AttemptId = verb.id();
    let number = held.attempts + 1;
    run(
        verb,
        "UPDATE jobs SET attempts = ?3, attempt = ?2 WHERE id = ?1",
        (job.key(), attempt.key(), number),
    )?;
    run(
        verb,
        "INSERT INTO attempts (id, job, request, number, base, agent, model, sandbox, state, \
         summary, tokens, money, wall, iterations, created) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, '', 0, 0, 0, 0, ?10)",
        (
            attempt.key(),
            job.key(),
            held.request.key(),
            number,
            &new.base,
            &new.agent,
            &new.model,
            &new.sandbox,
            AttemptState::Preparing.as_str(),
            verb.now.0,
        ),
    )?;
    verb.event(
        held.session,
        Some(held.request),
        Body::AttemptStarted {
            attempt,
            job,
            number,
            base: new.base.clone(),
            agent: new.agent.clone(),
            model: new.model.clone(),
            sandbox: new.sandbox.clone(),
        },
    );
    read::attempt(verb, attempt)
}

fn settle(verb: &mut Verb<'_>, lease: &Lease, settlement: Settlement) -> Result<Settled, Trouble> {
    let job = lease.job()?;
    // Its grants close first: what they had reserved is spent by this attempt.
    lease::end(verb, lease)?;
    let held = held(verb, job)?;
    let end = End::at(verb.now);
    let mut change = None;
    let state = match settlement {
        Settlement::Passed {
            commit,
            tree,
            summary,
            checked,
        } => {
            let end = End {
                summary,
                tree: Some(tree),
                ..end
            };
            if let Some(attempt) = held.attempt {
                transition::end_attempt(verb, attempt, AttemptCommand::Pass, end)?;
                change = Some(make_change(verb, &held, job, attempt, &commit, checked)?);
            }
            transition::job(verb, job, JobCommand::Deliver, None)?
        }
        Settlement::Empty { summary } => {
            if let Some(attempt) = held.attempt {
                let end = End { summary, ..end };
                transition::end_attempt(verb, attempt, AttemptCommand::Pass, end)?;
            }
            transition::job(verb, job, JobCommand::SettleEmpty, None)?
        }
        Settlement::Rejected {
            failure,
            tree,
            summary,
        } => {
            let end = End {
                failure: Some(failure.clone()),
                summary,
                tree,
                ..end
            };
            if let Some(attempt) = held.attempt {
                transition::end_attempt(verb, attempt, AttemptCommand::Reject, end)?;
            }
            retry_or_die(verb, job, &held, failure)?
        }
        Settlement::Failed { failure } => {
            fail(verb, &held, failure.clone())?;
            retry_or_die(verb, job, &held, failure)?
        }
        Settlement::Parked { failure, until } => pause::park(verb, job, &held, failure, until)?,
        Settlement::Lost { failure } => {
            let end = End {
                failure: Some(failure.clone()),
                ..end
            };
            if let Some(attempt) = held.attempt {
                transition::end_attempt(verb, attempt, AttemptCommand::Lose, end)?;
            }
            let command = if held.may_retry() {
                JobCommand::Retry
            } else {
                JobCommand::Die
            };
            transition::job(verb, job, command, Some(failure))?
        }
        Settlement::Cancelled => {
            cancel(verb, job, &held)?;
            JobState::Cancelled
        }
    };
    progress::follow(verb, held.request)?;
    Ok(Settled { job: state, change })
}

/// Ends the open attempt of a job with a failure.
pub(crate) fn fail(verb: &mut Verb<'_>, held: &HeldJob, failure: Failure) -> Result<(), Trouble> {
    let Some(attempt) = held.attempt else {
        return Ok(());
    };
    let end = End {
        failure: Some(failure),
        ..End::at(verb.now)
    };
    transition::end_attempt(verb, attempt, AttemptCommand::Fail, end)?;
    Ok(())
}

fn retry_or_die(
    verb: &mut Verb<'_>,
    job: JobId,
    held: &HeldJob,
    failure: Failure,
) -> Result<JobState, Trouble> {
    if !(failure.reason.may_pass() && held.may_retry()) {
        return transition::job(verb, job, JobCommand::Die, Some(failure));
    }
    let until = verb
        .now
        .plus(park::back_off(held.claims, verb.context.ids.bits()));
    let told = Told {
        failure: Some(failure),
        until: Some(until),
    };
    transition::job(verb, job, JobCommand::Park, told)
}

/// Cancels a job with its open attempt and its lease. What follows is the caller's.
pub(crate) fn cancel(verb: &mut Verb<'_>, job: JobId, held: &HeldJob) -> Result<(), Trouble> {
    let deadline = lease::revoke(verb, Subject::Job(job))?;
    let failure = Failure::new(Reason::Cancelled, "");
    if let Some(attempt) = held.attempt {
        let until = deadline.map_or(verb.now, |deadline| verb.now.min(deadline));
        let end = End {
            failure: Some(failure.clone()),
            ..End::at(until)
        };
        transition::end_attempt(verb, attempt, AttemptCommand::Cancel, end)?;
    }
    transition::job(verb, job, JobCommand::Cancel, Some(failure))?;
    Ok(())
}

/// The queue of the changes of a branch.
pub(crate) fn change_queue(repository: i64, branch: &str) -> Queue<'_> {
    Queue {
        kind: Kind::Change,
        repository,
        branch,
        user: "",
        agent: "",
        provider: "",
        needs: "",
        pin: "",
    }
}

fn make_change(
    verb: &mut Verb<'_>,
    held: &HeldJob,
    job: JobId,
    attempt: AttemptId,
    commit: &ObjectName,
    checked: bool,
) -> Result<ChangeId, Trouble> {
    let change: ChangeId = verb.id();
    let (repository, branch, patience) = one(
        verb,
        "SELECT repository, branch, patience FROM requests WHERE id = ?1",
        [held.request.key()],
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<String>(row, 1)?,
                get::<i64>(row, 2)?,
            ))
        },
    )?
    .ok_or_else(|| Error::missing("request", held.request))?;
    let queue = change_queue(repository, &branch).row(verb)?;
    let place = queue::place(verb.now, patience);
    run(
        verb,
        "INSERT INTO changes (id, attempt, job, request, repository, branch, base, object, \
         state, conflicts, checked, created, queue, place) SELECT ?1, a.id, a.job, a.request, \
         ?7, ?8, a.base, ?3, ?4, '[]', ?5, ?6, ?9, ?10 FROM attempts a WHERE a.id = ?2",
        (
            change.key(),
            attempt.key(),
            commit,
            ChangeState::Queued.as_str(),
            checked,
            verb.now.0,
            repository,
            &branch,
            queue,
            place,
        ),
    )?;
    queue::insert(
        verb,
        Offer {
            kind: Kind::Change,
            queue,
            place,
            subject: verb.last_insert_rowid(),
            request: held.request.key(),
        },
    )?;
    verb.count(Kind::Change, queue, 1, 0);
    tracing::debug!(%job, %change, "a gate made a change");
    verb.event(
        held.session,
        Some(held.request),
        Body::ChangeMade {
            change,
            attempt,
            commit: commit.clone(),
        },
    );
    Ok(change)
}
