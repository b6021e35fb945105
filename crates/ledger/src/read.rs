//! Questions: entities as they stand.

use crate::{
    account,
    error::{Error, Trouble},
    ledger::Ledger,
    sql::{
        Key, Sql, all, from_json, get, id, json, maybe_json, maybe_time, number, one, small, time,
        word,
    },
};
use domain::{
    AttemptId, ChangeId, Failure, JobId, RepositoryId, RequestId, RequestState, SessionId,
    Timestamp,
    entity::{Attempt, Change, Job, Request, UNSEALED, is_sealed},
};
use rusqlite::Row;

/// The most requests of one answer.
pub(crate) const MAX_REQUESTS: usize = 10_000;

impl Ledger {
    /// A request.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn request(&self, id: RequestId) -> Result<Request, Error> {
        self.read("read a request", move |sql| request(sql, id))
            .await
    }

    /// The newest requests, of all repositories or of one.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn requests(
        &self,
        limit: usize,
        repository: Option<RepositoryId>,
    ) -> Result<Vec<Request>, Error> {
        let limit = number(limit.min(MAX_REQUESTS) as u64);
        self.read("list requests", move |sql| match repository {
            Some(repository) => all(
                sql,
                "SELECT r.id, r.session, a.body, r.state, r.failure, r.created, r.ended \
                 FROM requests r JOIN asks a ON a.request = r.n \
                 WHERE r.repository = ?1 ORDER BY r.n DESC LIMIT ?2",
                (repository.key(), limit),
                request_row,
            ),
            None => all(
                sql,
                "SELECT r.id, r.session, a.body, r.state, r.failure, r.created, r.ended \
                 FROM requests r JOIN asks a ON a.request = r.n ORDER BY r.n DESC LIMIT ?1",
                [limit],
                request_row,
            ),
        })
        .await
    }

    /// The paths of the repositories of which a request has not ended.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn open_repositories(&self) -> Result<Vec<String>, Error> {
        self.read("list open repositories", |sql| {
            all(
                sql,
                "SELECT DISTINCT p.path FROM requests r INDEXED BY requests_open \
                 JOIN repositories p ON p.id = r.repository WHERE r.ended IS NULL",
                [],
                |row| get(row, 0),
            )
        })
        .await
    }

    /// Requests that have not ended and that nobody holds a part of, the oldest first: what is
    /// there to go on with. Whoever dies is noticed when the ledger is opened.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn interrupted(&self) -> Result<Vec<Request>, Error> {
        self.read("list interrupted requests", |sql| {
            all(
                sql,
                "SELECT r.id, r.session, a.body, r.state, r.failure, r.created, r.ended \
                 FROM requests r INDEXED BY requests_open JOIN asks a ON a.request = r.n \
                 WHERE r.ended IS NULL AND r.state <> 'paused' AND r.held = 0 AND NOT EXISTS (SELECT 1 FROM leases l \
                 WHERE (l.kind = 'request' AND l.subject = r.id) OR (l.kind = 'change' AND \
                 l.subject IN (SELECT id FROM changes c WHERE c.request = r.id))) \
                 ORDER BY r.n LIMIT ?1",
                [number(MAX_REQUESTS as u64)],
                request_row,
            )
        })
        .await
    }

    /// The jobs of a request, in the order of its plan.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn jobs(&self, request: RequestId) -> Result<Vec<Job>, Error> {
        self.read("read jobs", move |sql| {
            let mut jobs = all(
                sql,
                "SELECT j.id, j.request, s.body, j.state, j.attempts, j.failure, j.created, \
                 j.ended FROM jobs j JOIN specs s ON s.job = j.n WHERE j.request = ?1 ORDER BY j.n",
                [request.key()],
                job_row,
            )?;
            for job in &mut jobs {
                job.after = after(sql, job.id)?;
            }
            Ok(jobs)
        })
        .await
    }

    /// A job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job(&self, id: JobId) -> Result<Job, Error> {
        self.read("read a job", move |sql| job(sql, id)).await
    }

    /// The attempts of a job, the first one first.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn attempts(&self, job: JobId) -> Result<Vec<Attempt>, Error> {
        self.read("read attempts", move |sql| {
            all(
                sql,
                "SELECT id, job, request, number, base, agent, model, sandbox, state, failure, \
                 summary, tree, created, ended, tokens, money, wall, iterations \
                 FROM attempts WHERE job = ?1 ORDER BY n",
                [job.key()],
                attempt_row,
            )
        })
        .await
    }

    /// An attempt.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn attempt(&self, id: AttemptId) -> Result<Attempt, Error> {
        self.read("read an attempt", move |sql| attempt(sql, id))
            .await
    }

    /// The changes of a request, the oldest first.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn changes_of(&self, request: RequestId) -> Result<Vec<Change>, Error> {
        self.read("read changes", move |sql| {
            all(
                sql,
                "SELECT id, attempt, job, request, repository, base, object, state, integrated, \
                 conflicts, failure, checked, created, ended, \
                 (SELECT sandbox FROM attempts WHERE attempts.id = changes.attempt) \
                 FROM changes WHERE request = ?1 ORDER BY n",
                [request.key()],
                change_row,
            )
        })
        .await
    }

    /// Whether every attempt of a request, or of one job of it, was made in a sandbox.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn is_sealed(&self, request: RequestId, job: Option<JobId>) -> Result<bool, Error> {
        self.read("read attempts", move |sql| {
            let unsealed = one(
                sql,
                "SELECT count(*) FROM attempts WHERE request = ?1 AND (?2 IS NULL OR job = ?2) \
                 AND sandbox LIKE '%' || ?3",
                (request.key(), job.map(Key::key), UNSEALED),
                |row| get::<i64>(row, 0),
            )?;
            Ok(unsealed.unwrap_or(0) == 0)
        })
        .await
    }

    /// A change.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn change(&self, id: ChangeId) -> Result<Change, Error> {
        self.read("read a change", move |sql| change(sql, id)).await
    }

    /// The change that an attempt made, if it made one.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn change_of(&self, attempt: AttemptId) -> Result<Option<Change>, Error> {
        self.read("read a change", move |sql| {
            one(
                sql,
                "SELECT id, attempt, job, request, repository, base, object, state, integrated, \
                 conflicts, failure, checked, created, ended, \
                 (SELECT sandbox FROM attempts WHERE attempts.id = changes.attempt) \
                 FROM changes WHERE attempt = ?1",
                [attempt.key()],
                change_row,
            )
        })
        .await
    }
}

pub(crate) fn request(sql: &Sql, request: RequestId) -> Result<Request, Trouble> {
    stored_request(sql, request)?.read()
}

/// The same, as it is stored: whoever waits for the verb reads it, and not the verb.
pub(crate) fn stored_request(sql: &Sql, request: RequestId) -> Result<StoredRequest, Trouble> {
    one(
        sql,
        "SELECT r.id, r.session, a.body, r.state, r.failure, r.created, r.ended \
         FROM requests r JOIN asks a ON a.request = r.n WHERE r.id = ?1",
        [request.key()],
        stored_row,
    )?
    .ok_or_else(|| Error::missing("request", request).into())
}

/// A request whose ask is still text.
pub(crate) struct StoredRequest {
    id: RequestId,
    session: SessionId,
    ask: String,
    state: RequestState,
    failure: Option<Failure>,
    created: Timestamp,
    ended: Option<Timestamp>,
}

impl StoredRequest {
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn read(self) -> Result<Request, Trouble> {
        Ok(Request {
            id: self.id,
            session: self.session,
            ask: from_json(&self.ask)?,
            state: self.state,
            failure: self.failure,
            created: self.created,
            ended: self.ended,
        })
    }
}

fn stored_row(row: &Row<'_>) -> Result<StoredRequest, Trouble> {
    Ok(StoredRequest {
        id: id(row, 0)?,
        session: id(row, 1)?,
        ask: get(row, 2)?,
        state: word(row, 3)?,
        failure: maybe_json(row, 4)?,
        created: time(row, 5)?,
        ended: maybe_time(row, 6)?,
    })
}

pub(crate) fn request_row(row: &Row<'_>) -> Result<Request, Trouble> {
    stored_row(row)?.read()
}

pub(crate) fn job(sql: &Sql, job: JobId) -> Result<Job, Trouble> {
    let mut found = one(
        sql,
        "SELECT j.id, j.request, s.body, j.state, j.attempts, j.failure, j.created, j.ended \
         FROM jobs j JOIN specs s ON s.job = j.n WHERE j.id = ?1",
        [job.key()],
        job_row,
    )?
    .ok_or_else(|| Error::missing("job", job))?;
    found.after = after(sql, job)?;
    Ok(found)
}

pub(crate) fn after(sql: &Sql, job: JobId) -> Result<Vec<JobId>, Trouble> {
    all(
        sql,
        "SELECT needs FROM dependencies WHERE job = ?1 ORDER BY place",
        [job.key()],
        |row| id(row, 0),
    )
}

pub(crate) fn job_row(row: &Row<'_>) -> Result<Job, Trouble> {
    Ok(Job {
        id: id(row, 0)?,
        request: id(row, 1)?,
        spec: json(row, 2)?,
        after: Vec::new(),
        state: word(row, 3)?,
        attempts: small(row, 4)?,
        failure: maybe_json(row, 5)?,
        created: time(row, 6)?,
        ended: maybe_time(row, 7)?,
    })
}

pub(crate) fn attempt(sql: &Sql, attempt: AttemptId) -> Result<Attempt, Trouble> {
    one(
        sql,
        "SELECT id, job, request, number, base, agent, model, sandbox, state, failure, summary, \
         tree, created, ended, tokens, money, wall, iterations FROM attempts WHERE id = ?1",
        [attempt.key()],
        attempt_row,
    )?
    .ok_or_else(|| Error::missing("attempt", attempt).into())
}

fn attempt_row(row: &Row<'_>) -> Result<Attempt, Trouble> {
    Ok(Attempt {
        id: id(row, 0)?,
        job: id(row, 1)?,
        request: id(row, 2)?,
        number: small(row, 3)?,
        base: get(row, 4)?,
        agent: get(row, 5)?,
        model: get(row, 6)?,
        sandbox: get(row, 7)?,
        state: word(row, 8)?,
        failure: maybe_json(row, 9)?,
        summary: get(row, 10)?,
        tree: get(row, 11)?,
        created: time(row, 12)?,
        ended: maybe_time(row, 13)?,
        spent: account::amount(row, 14)?,
    })
}

pub(crate) fn change(sql: &Sql, change: ChangeId) -> Result<Change, Trouble> {
    one(
        sql,
        "SELECT id, attempt, job, request, repository, base, object, state, integrated, \
         conflicts, failure, checked, created, ended, \
         (SELECT sandbox FROM attempts WHERE attempts.id = changes.attempt) \
         FROM changes WHERE id = ?1",
        [change.key()],
        change_row,
    )?
    .ok_or_else(|| Error::missing("change", change).into())
}

pub(crate) fn change_row(row: &Row<'_>) -> Result<Change, Trouble> {
    Ok(Change {
        id: id(row, 0)?,
        attempt: id(row, 1)?,
        job: id(row, 2)?,
        request: id(row, 3)?,
        repository: id(row, 4)?,
        base: get(row, 5)?,
        commit: get(row, 6)?,
        state: word(row, 7)?,
        integrated: get(row, 8)?,
        conflicts: json(row, 9)?,
        failure: maybe_json(row, 10)?,
        checked: get(row, 11)?,
        created: time(row, 12)?,
        ended: maybe_time(row, 13)?,
        sealed: is_sealed(&get::<String>(row, 14)?),
    })
}
