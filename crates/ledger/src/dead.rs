//! The dead letters: what nothing goes on with by itself any more, of every queue.

use crate::{
    error::{Error, Trouble},
    ledger::Ledger,
    read::{self, MAX_REQUESTS},
    sql::{Key, Sql, all, number},
    undelivered::{self, Undelivered},
};
use domain::{
    RepositoryId,
    entity::{Change, Job, Request},
};

/// What nothing goes on with by itself any more, each kind with the newest first.
#[derive(Debug, Clone, Default)]
pub struct Dead {
    /// Jobs that failed for good.
    pub jobs: Vec<Job>,
    /// Requests that failed.
    pub requests: Vec<Request>,
    /// Changes that did not land: what does not merge, and what was rejected, but for what a
    /// person has cancelled. Their commits are kept.
    pub changes: Vec<Change>,
    /// Notifications that were given up.
    pub notifications: Vec<Undelivered>,
}

impl Ledger {
    /// The dead letters of all queues, of all repositories or of one: of each kind those that died
    /// last. What was tried again meanwhile is among them: a new request does not undo the old one.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn dead_letters(
        &self,
        limit: usize,
        repository: Option<RepositoryId>,
    ) -> Result<Dead, Error> {
        let limit = limit.min(MAX_REQUESTS);
        self.read("list dead letters", move |sql| {
            Ok(Dead {
                jobs: jobs(sql, limit, repository)?,
                requests: requests(sql, limit, repository)?,
                changes: changes(sql, limit, repository)?,
                notifications: undelivered::newest(sql, limit, repository)?,
            })
        })
        .await
    }
}

fn jobs(sql: &Sql, limit: usize, repository: Option<RepositoryId>) -> Result<Vec<Job>, Trouble> {
    let mut jobs = all(
        sql,
        "SELECT j.id, j.request, s.body, j.state, j.attempts, j.failure, j.created, j.ended \
         FROM (SELECT j.* FROM jobs j INDEXED BY jobs_dead JOIN requests r ON r.id = j.request \
               WHERE j.state = 'dead' AND (?2 IS NULL OR r.repository = ?2) \
               ORDER BY j.ended DESC, j.n DESC LIMIT ?1) j \
         JOIN specs s ON s.job = j.n ORDER BY j.ended DESC, j.n DESC",
        (number(limit as u64), repository.map(Key::key)),
        read::job_row,
    )?;
    for job in &mut jobs {
        job.after = read::after(sql, job.id)?;
    }
    Ok(jobs)
}

fn requests(
    sql: &Sql,
    limit: usize,
    repository: Option<RepositoryId>,
) -> Result<Vec<Request>, Trouble> {
    all(
        sql,
        "SELECT r.id, r.session, a.body, r.state, r.failure, r.created, r.ended \
         FROM (SELECT * FROM requests \
               WHERE state = 'failed' AND (?2 IS NULL OR repository = ?2) \
               ORDER BY ended DESC, n DESC LIMIT ?1) r \
         JOIN asks a ON a.request = r.n ORDER BY r.ended DESC, r.n DESC",
        (number(limit as u64), repository.map(Key::key)),
        read::request_row,
    )
}

fn changes(
    sql: &Sql,
    limit: usize,
    repository: Option<RepositoryId>,
) -> Result<Vec<Change>, Trouble> {
    all(
        sql,
        "SELECT id, attempt, job, request, repository, base, object, state, integrated, \
         conflicts, failure, checked, created, ended, \
         (SELECT sandbox FROM attempts WHERE attempts.id = changes.attempt) FROM changes \
         WHERE state IN ('conflicted', 'rejected') AND (?2 IS NULL OR repository = ?2) \
         AND (failure IS NULL OR json_extract(failure, '$.reason') <> 'cancelled') \
         ORDER BY ended DESC, n DESC LIMIT ?1",
        (number(limit as u64), repository.map(Key::key)),
        read::change_row,
    )
}
