//! What a job or request waits for: the facts, in one look.

use crate::{
    account,
    error::{Error, Trouble},
    history::{self, Position},
    later,
    lease::Subject,
    ledger::Ledger,
    limit::{self, Limit},
    owner::{self, OwnerId},
    read,
    sql::{Key, Sql, all, get, id, maybe_time, one, time, word},
};
use domain::{
    ChangeId, ChangeState, JobId, JobState, RequestId, RequestState, Timestamp, budget::Account,
    entity::Job,
};
use std::path::Path;

/// Who holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process, where that is on this machine and still known.
    pub process: Option<u32>,
    /// Whether it is alive.
    pub alive: bool,
    /// When its lease ends, unless a heartbeat comes before.
    pub deadline: Timestamp,
}

/// A job that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// The job.
    pub job: JobId,
    /// Its name in the plan.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// Where its change stands.
    pub change: Option<(ChangeId, ChangeState)>,
}

/// What a job waits for, or what broke it.
#[derive(Debug, Clone)]
pub struct JobWaits {
    /// The job; its failure says what broke it.
    pub job: Job,
    /// What it has left to spend.
    pub account: Account,
    /// The jobs it waits for whose changes are not integrated.
    pub unmet: Vec<Unmet>,
    /// Where it stands in the queue, if it is ready.
    pub position: Option<Position>,
    /// The limits that are reached, if it is ready.
    pub limits: Vec<Limit>,
    /// Whether its request has as many jobs under way as it allows.
    pub request_is_full: bool,
    /// Until when it is parked, and after what.
    pub until: Option<Timestamp>,
    /// Who works on it.
    pub holder: Option<Holder>,
    /// When something of it was recorded last.
    pub last: Option<Timestamp>,
    /// Its change.
    pub change: Option<(ChangeId, ChangeState)>,
    /// Until when its change waits, after a fault of the machine has put it back.
    pub change_until: Option<Timestamp>,
}

/// What a request waits for.
#[derive(Debug, Clone)]
pub struct RequestWaits {
    /// Where it stands.
    pub state: RequestState,
    /// Before which time it does not begin, while that is still to come.
    pub not_before: Option<Timestamp>,
    /// Until when it waits, after a fault of the machine has put it back.
    pub until: Option<Timestamp>,
    /// Where it stands in the queue of those that wait to be planned.
    pub position: Option<Position>,
    /// Who plans it.
    pub planner: Option<Holder>,
    /// Its account.
    pub account: Account,
    /// Its jobs, in the order of the plan.
    pub jobs: Vec<JobWaits>,
    /// Changes of other requests that are merged before its own, on the same branch.
    pub changes_ahead: u64,
    /// Who merges a change of it.
    pub integrator: Option<Holder>,
}

impl Ledger {
    /// What a job waits for, or what broke it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_waits(&self, job: JobId) -> Result<JobWaits, Error> {
        let (run, since) = (self.context().run.clone(), history::week_before(self.now()));
        self.read("look at what a job waits for", move |sql| {
            job_waits(sql, &run, job, since)
        })
        .await
    }

    /// What a request waits for.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn request_waits(&self, request: RequestId) -> Result<RequestWaits, Error> {
        let (run, since) = (self.context().run.clone(), history::week_before(self.now()));
        self.read("look at what a request waits for", move |sql| {
            request_waits(sql, &run, request, since)
        })
        .await
    }
}

fn request_waits(
    sql: &Sql,
    run: &Path,
    request: RequestId,
    since: i64,
) -> Result<RequestWaits, Trouble> {
    let (state, account, until) = one(
        sql,
        "SELECT state, account, until FROM requests WHERE id = ?1",
        [request.key()],
        |row| {
            Ok((
                word::<RequestState>(row, 0)?,
                get::<i64>(row, 1)?,
                maybe_time(row, 2)?,
            ))
        },
    )?
    .ok_or_else(|| Error::missing("request", request))?;
    let ids: Vec<JobId> = all(
        sql,
        "SELECT id FROM jobs WHERE request = ?1 ORDER BY n",
        [request.key()],
        |row| id(row, 0),
    )?;
    let merging: Option<ChangeId> = one(
        sql,
        "SELECT id FROM changes WHERE request = ?1 AND state IN ('merging', 'checking')",
        [request.key()],
        |row| id(row, 0),
    )?;
    let changes_ahead = one(
        sql,
        "SELECT COUNT(*) FROM offers o JOIN offers own ON own.queue = o.queue \
         AND own.request = ?1 AND own.kind = 2 WHERE o.request <> ?1 AND o.place < own.place",
        [request.key()],
        |row| crate::sql::count(row, 0),
    )?;
    Ok(RequestWaits {
        state,
        not_before: later::waits_until(sql, request)?,
        until,
        position: history::request_position(sql, request, since)?,
        planner: holder(sql, run, Subject::Request(request))?,
        account: account::load(sql, account)?,
        jobs: ids
            .into_iter()
            .map(|job| job_waits(sql, run, job, since))
            .collect::<Result<_, _>>()?,
        changes_ahead: changes_ahead.unwrap_or(0),
        integrator: match merging {
            Some(change) => holder(sql, run, Subject::Change(change))?,
            None => None,
        },
    })
}

fn job_waits(sql: &Sql, run: &Path, job: JobId, since: i64) -> Result<JobWaits, Trouble> {
    let found = read::job(sql, job)?;
    let (account, full, until) = one(
        sql,
        "SELECT j.account, r.held >= r.parallel, j.until FROM jobs j \
         JOIN requests r ON r.id = j.request WHERE j.id = ?1",
        [job.key()],
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<bool>(row, 1)?,
                maybe_time(row, 2)?,
            ))
        },
    )?
    .ok_or_else(|| Error::missing("job", job))?;
    let ready = found.state == JobState::Ready;
    Ok(JobWaits {
        account: account::load(sql, account)?,
        unmet: if found.state == JobState::Blocked {
            unmet(sql, job)?
        } else {
            Vec::new()
        },
        position: history::job_position(sql, job, since)?,
        limits: if ready {
            limit::reached(sql, job)?
        } else {
            Vec::new()
        },
        request_is_full: ready && full,
        until,
        holder: holder(sql, run, Subject::Job(job))?,
        last: last(sql, &found)?,
        change: change(sql, job)?,
        change_until: change_until(sql, job)?,
        job: found,
    })
}

fn change(sql: &Sql, job: JobId) -> Result<Option<(ChangeId, ChangeState)>, Trouble> {
    one(
        sql,
        "SELECT id, state FROM changes WHERE job = ?1",
        [job.key()],
        |row| Ok((id(row, 0)?, word(row, 1)?)),
    )
}

fn change_until(sql: &Sql, job: JobId) -> Result<Option<Timestamp>, Trouble> {
    let until = one(
        sql,
        "SELECT until FROM changes WHERE job = ?1",
        [job.key()],
        |row| maybe_time(row, 0),
    )?;
    Ok(until.flatten())
}

fn unmet(sql: &Sql, job: JobId) -> Result<Vec<Unmet>, Trouble> {
    let needs: Vec<JobId> = all(
        sql,
        "SELECT needs FROM dependencies WHERE job = ?1 ORDER BY place",
        [job.key()],
        |row| id(row, 0),
    )?;
    let mut unmet = Vec::new();
    for job in needs {
        let found = read::job(sql, job)?;
        let change = change(sql, job)?;
        let settled = domain::progress::Settled {
            job: found.state,
            change: change.map(|(_, state)| state),
        };
        if settled.as_dependency() != domain::progress::Dependency::Satisfied {
            unmet.push(Unmet {
                job,
                name: found.spec.name,
                state: found.state,
                change,
            });
        }
    }
    Ok(unmet)
}

/// When an event of the job's request was recorded last, if the job is under way.
fn last(sql: &Sql, job: &Job) -> Result<Option<Timestamp>, Trouble> {
    if !job.state.is_held() {
        return Ok(None);
    }
    one(
        sql,
        "SELECT time FROM events WHERE request_row = (SELECT n FROM requests WHERE id = ?1) \
         ORDER BY sequence DESC LIMIT 1",
        [job.request.key()],
        |row| time(row, 0),
    )
}

fn holder(sql: &Sql, run: &Path, subject: Subject) -> Result<Option<Holder>, Trouble> {
    let (kind, key) = subject.columns();
    let found = one(
        sql,
        "SELECT owner, deadline FROM leases WHERE kind = ?1 AND subject = ?2",
        (kind, key),
        |row| Ok((OwnerId(get(row, 0)?), time(row, 1)?)),
    )?;
    Ok(found.map(|(owner, deadline)| Holder {
        process: owner::process(run, owner),
        alive: owner::is_alive(run, owner),
        deadline,
    }))
}
