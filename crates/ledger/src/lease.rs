//! Leases: a claim with a fence and a deadline, and how it ends.

use crate::{
    error::{Error, Trouble},
    grant,
    known::Holder,
    ledger::Ledger,
    outbox,
    owner::{self, OwnerId},
    park, postpone, resume,
    sql::{Key, Sql, all, get, id, number, one, run, time},
    writer::Verb,
};
use domain::{ChangeId, EventId, JobId, LeaseId, RequestId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A timed, fenced claim. Every verb on what it holds carries it, and fails with
/// [`Error::LeaseLost`] once it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The fence: a later lease has a higher one.
    pub token: u64,
    /// What it holds.
    pub subject: Subject,
    /// When it may be ended, unless a heartbeat comes before. A holder that is late and was not
    /// ended yet still holds it.
    pub deadline: Timestamp,
}

/// What a lease holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A request that is being planned.
    Request(RequestId),
    /// A job that is being done.
    Job(JobId),
    /// A change that is being merged.
    Change(ChangeId),
    /// A notification that is being told, by its event.
    Notification(EventId),
}

impl Subject {
    pub(crate) fn columns(self) -> (&'static str, i64) {
        match self {
            Self::Request(id) => ("request", id.key()),
            Self::Job(id) => ("job", id.key()),
            Self::Change(id) => ("change", id.key()),
            Self::Notification(id) => ("notification", id.key()),
        }
    }

    fn read(kind: &str, key: i64) -> Result<Self, Trouble> {
        match kind {
            "request" => Ok(Self::Request(RequestId::read(key))),
            "job" => Ok(Self::Job(JobId::read(key))),
            "change" => Ok(Self::Change(ChangeId::read(key))),
            "notification" => Ok(Self::Notification(EventId::read(key))),
            other => Err(Trouble::Row(format!("a lease holds a `{other}`"))),
        }
    }
}

impl Lease {
    pub(crate) fn request(&self) -> Result<RequestId, Error> {
        match self.subject {
            Subject::Request(id) => Ok(id),
            _ => Err(self.holds_no("request")),
        }
    }

    pub(crate) fn job(&self) -> Result<JobId, Error> {
        match self.subject {
            Subject::Job(id) => Ok(id),
            _ => Err(self.holds_no("job")),
        }
    }

    pub(crate) fn change(&self) -> Result<ChangeId, Error> {
        match self.subject {
            Subject::Change(id) => Ok(id),
            _ => Err(self.holds_no("change")),
        }
    }

    pub(crate) fn notification(&self) -> Result<EventId, Error> {
        match self.subject {
            Subject::Notification(id) => Ok(id),
            _ => Err(self.holds_no("notification")),
        }
    }

    fn holds_no(&self, kind: &str) -> Error {
        Error::Invalid(format!("the lease {} does not hold a {kind}", self.id))
    }
}

impl Ledger {
    /// Says that the holder lives; the answer is the new deadline.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the lease has ended.
    pub async fn heartbeat(&self, lease: &Lease) -> Result<Timestamp, Error> {
        let lease = lease.clone();
        self.write("extend a lease", move |verb| {
            let deadline = verb.now.plus(verb.context.lease);
            let (kind, subject) = lease.subject.columns();
            let extended = run(
                verb,
                "UPDATE leases SET deadline = ?5, graced = NULL \
                 WHERE token = ?1 AND id = ?2 AND kind = ?3 AND subject = ?4",
                (
                    number(lease.token),
                    lease.id.key(),
                    kind,
                    subject,
                    deadline.0,
                ),
            )?;
            // It can be earlier than the one before it where the clock was put back.
            verb.known.waits_until(deadline);
            match extended {
                0 => Err(Error::LeaseLost(lease.id).into()),
                _ => Ok(deadline),
            }
        })
        .await
    }

    /// Whether the lease still holds: look after each change of [`Ledger::changes`].
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when it has ended.
    pub async fn standing(&self, lease: &Lease) -> Result<(), Error> {
        let lease = lease.clone();
        self.read("look at a lease", move |sql| verify(sql, &lease))
            .await
    }
}

/// Fails unless the lease is live.
pub(crate) fn verify(sql: &Sql, lease: &Lease) -> Result<(), Trouble> {
    let (kind, subject) = lease.subject.columns();
    one(
        sql,
        "SELECT 1 FROM leases WHERE token = ?1 AND id = ?2 AND kind = ?3 AND subject = ?4",
        (number(lease.token), lease.id.key(), kind, subject),
        |_| Ok(()),
    )?
    .ok_or(Trouble::Verb(Error::LeaseLost(lease.id)))
}

/// A new lease on something that nobody holds, of this session and request.
pub(crate) fn grant(
    verb: &mut Verb<'_>,
    owner: OwnerId,
    subject: Subject,
    (session, request): (SessionId, RequestId),
) -> Result<Lease, Trouble> {
    let lease: LeaseId = verb.id();
    let deadline = verb.now.plus(verb.context.lease);
    let (kind, key) = subject.columns();
    run(
        verb,
        "INSERT INTO leases (id, kind, subject, owner, deadline) VALUES (?1, ?2, ?3, ?4, ?5)",
        (lease.key(), kind, key, owner.0, deadline.0),
    )?;
    let token = verb.last_insert_rowid().cast_unsigned();
    verb.known.waits_until(deadline);
    verb.known.held(
        token,
        Holder {
            lease,
            subject,
            session,
            request,
        },
    );
    Ok(Lease {
        id: lease,
        token,
        subject,
        deadline,
    })
}

/// Ends a lease as its holder wants it, and fails unless it is live; what its grants had reserved
/// counts as spent.
pub(crate) fn end(verb: &mut Verb<'_>, lease: &Lease) -> Result<(), Trouble> {
    let (kind, subject) = lease.subject.columns();
    let token = number(lease.token);
    let ended = run(
        verb,
        "DELETE FROM leases WHERE token = ?1 AND id = ?2 AND kind = ?3 AND subject = ?4",
        (token, lease.id.key(), kind, subject),
    )?;
    if ended == 0 {
        return Err(Error::LeaseLost(lease.id).into());
    }
    verb.known.ended(lease.token);
    grant::close_all(verb, token)
}

/// Ends a lease; what its grants had reserved counts as spent.
pub(crate) fn release(verb: &mut Verb<'_>, token: i64) -> Result<(), Trouble> {
    grant::close_all(verb, token)?;
    run(verb, "DELETE FROM leases WHERE token = ?1", [token])?;
    verb.known.ended(token.cast_unsigned());
    Ok(())
}

/// A live lease as it is stored.
struct Row {
    token: i64,
    subject: Subject,
    /// The last time at which it is known to have been held: the deadline without any grace.
    deadline: Timestamp,
}

/// Ends the lease on this, if there is one; the answer is its deadline.
pub(crate) fn revoke(verb: &mut Verb<'_>, subject: Subject) -> Result<Option<Timestamp>, Trouble> {
    let (kind, key) = subject.columns();
    let found = one(
        verb,
        "SELECT token, COALESCE(graced, deadline) FROM leases WHERE kind = ?1 AND subject = ?2",
        (kind, key),
        |row| Ok((get::<i64>(row, 0)?, time(row, 1)?)),
    )?;
    let Some((token, deadline)) = found else {
        return Ok(None);
    };
    release(verb, token)?;
    Ok(Some(deadline))
}

/// This part of a lease is the time that a living holder gets beyond it: twice its heartbeat.
const GRACE: u32 = 3;

/// The most leases that one verb ends because their time has come; the next verb ends the rest.
const DUE: i64 = 64;

/// Ends leases whose deadline is past. Says how many.
///
/// A holder whose process is alive is given one more heartbeat first: after a laptop has slept,
/// every deadline is past and nobody had a chance to say so.
fn expire_due(verb: &mut Verb<'_>) -> Result<usize, Trouble> {
    let due = all(
        verb,
        "SELECT token, kind, subject, COALESCE(graced, deadline), owner, graced IS NOT NULL \
         FROM leases WHERE deadline <= ?1 ORDER BY deadline LIMIT ?2",
        (verb.now.0, DUE),
        |found| Ok((row(found)?, OwnerId(get(found, 4)?), get::<bool>(found, 5)?)),
    )?;
    let mut ended = 0;
    for (lease, owner, graced) in due {
        if !graced && !owner::is_dead(&verb.context.run, owner) {
            let deadline = verb.now.plus(verb.context.lease / GRACE);
            run(
                verb,
                "UPDATE leases SET deadline = ?2, graced = deadline WHERE token = ?1",
                (lease.token, deadline.0),
            )?;
            continue;
        }
        expire(verb, &lease)?;
        ended += 1;
    }
    Ok(ended)
}

fn row(row: &rusqlite::Row<'_>) -> Result<Row, Trouble> {
    Ok(Row {
        token: get(row, 0)?,
        subject: Subject::read(&get::<String>(row, 1)?, get(row, 2)?)?,
        deadline: time(row, 3)?,
    })
}

/// Ends leases whose time has come, and offers again what waited until now.
pub(crate) fn end_due(verb: &mut Verb<'_>) -> Result<(), Trouble> {
    if verb.known.is_due(verb.sql, verb.now)? {
        look(verb)?;
    }
    Ok(())
}

/// Looks for what is due, whether anything is known to be. Says how many leases it ended.
fn look(verb: &mut Verb<'_>) -> Result<usize, Trouble> {
    let ended = expire_due(verb)?;
    let woken = park::wake_due(verb)?;
    // Where there was more than one look finds, the next one goes on.
    if ended + woken < park::DUE as usize {
        verb.known.looked();
    }
    Ok(ended)
}

/// Ends leases whose deadline is past or whose owner's lock is free.
pub(crate) fn sweep(verb: &mut Verb<'_>) -> Result<usize, Trouble> {
    verb.known.tests(verb.now);
    let mut ended = look(verb)?;
    let leases = all(
        verb,
        "SELECT token, kind, subject, COALESCE(graced, deadline), owner FROM leases",
        [],
        |found| Ok((row(found)?, OwnerId(get(found, 4)?))),
    )?;
    let mut dead: BTreeMap<i64, bool> = BTreeMap::new();
    for (lease, owner) in leases {
        let is_dead = *dead
            .entry(owner.0)
            .or_insert_with(|| owner::is_dead(&verb.context.run, owner));
        if is_dead {
            expire(verb, &lease)?;
            ended += 1;
        }
    }
    if ended > 0 {
        tracing::info!(ended, "ended the leases of lost owners");
    }
    Ok(ended)
}

/// Ends a lease whose owner is lost, and gives back what it held.
fn expire(verb: &mut Verb<'_>, lease: &Row) -> Result<(), Trouble> {
    release(verb, lease.token)?;
    match lease.subject {
        Subject::Request(request) => postpone::lose_planner(verb, request)?,
        Subject::Change(change) => postpone::lose_integrator(verb, change)?,
        Subject::Notification(notification) => outbox::lose(verb, notification)?,
        Subject::Job(job) => {
            // It is known to have worked until its last heartbeat at the most.
            let until = verb.now.min(lease.deadline);
            resume::lose_holder(verb, job, until)?;
        }
    }
    Ok(())
}

/// Which owner holds a lease: for tests of the ledger itself.
pub(crate) fn live(sql: &Sql) -> Result<Vec<(Subject, LeaseId)>, Trouble> {
    all(sql, "SELECT kind, subject, id FROM leases", [], |row| {
        Ok((
            Subject::read(&get::<String>(row, 0)?, get(row, 1)?)?,
            id(row, 2)?,
        ))
    })
}
