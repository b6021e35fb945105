//! What the writer knows of the data without asking it: as long as nobody else commits and nothing
//! is undone.
//!
//! Everything here has one rule. It is learnt from what was read or written in a transaction of the
//! writer, and forgotten when another connection has committed, or a verb of this one has failed:
//! its transaction may be undone.

use crate::{
    error::{Error, Trouble},
    lease::{Lease, Subject},
    queue::Kind,
    schema,
    sql::{Key, Sql, get, one},
};
use domain::{LeaseId, RepositoryId, RequestId, SessionId, Timestamp};
use foldhash::{HashMap, HashSet};
use std::{hash::Hash, time::Duration};

/// The most of each kind that is known.
const MOST: usize = 4_096;

/// Where a session's events end.
#[derive(Clone, Copy)]
pub(crate) struct End {
    /// The row of the session.
    pub(crate) session: i64,
    /// The last sequence.
    pub(crate) sequence: i64,
    /// The row of the last event.
    pub(crate) last: Option<i64>,
}

/// What a live lease is of. None of it changes as long as the lease lives.
#[derive(Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) lease: LeaseId,
    pub(crate) subject: Subject,
    pub(crate) session: SessionId,
    pub(crate) request: RequestId,
}

/// What the writer knows.
#[derive(Default)]
pub(crate) struct Known {
    /// The version of the data, which changes with commits of other connections only.
    version: Option<i64>,
    /// Whether another connection has committed since [`Known::take_others`] was last asked.
    others: bool,
    /// Nothing but [`crate::event::append`] moves a sequence on.
    ends: HashMap<SessionId, End>,
    /// The rows of requests.
    requests: HashMap<RequestId, i64>,
    repositories: HashSet<RepositoryId>,
    /// The rows of queues, by what they are.
    queues: HashMap<String, i64>,
    /// How many requests wait to be planned or for their time, where it is known. It changes with
    /// [`Verb::count`](crate::writer::Verb::count) only.
    waiting: Option<i64>,
    /// The leases that live, by their tokens.
    holders: HashMap<u64, Holder>,
    wait: Wait,
}

/// When something is due next: leases that end, and what was parked, put back, or is not to begin
/// yet.
#[derive(Default)]
struct Wait {
    /// Nothing is due before this; none where it is not known.
    due: Option<Timestamp>,
    /// Whether what is due by now was looked for at all.
    looked: bool,
    /// The latest time of any verb.
    latest: Timestamp,
    /// When the locks of owners were last tested.
    tested: Option<Timestamp>,
}

impl Known {
    /// An idle claim tests the locks of owners this often at most.
    const IDLE: Duration = Duration::from_millis(100);

    /// A transaction begins, in which nobody else can commit: forgets what others have changed.
    ///
    /// # Errors
    /// When the data is of a newer version, or the storage fails.
    pub(crate) fn begin(&mut self, sql: &Sql) -> Result<(), Trouble> {
        let version = one(sql, "PRAGMA data_version", [], |row| get(row, 0))?;
        if version != self.version {
            schema::verify_version(sql)?;
            self.forget();
            self.version = version;
            self.others = true;
        }
        Ok(())
    }

    /// Something may be undone: what is due must be looked for again, too.
    pub(crate) fn undo(&mut self) {
        self.forget();
        self.wait.looked = false;
    }

    /// A verb changes what is known in a way that it does not tell.
    pub(crate) fn forget(&mut self) {
        self.ends.clear();
        self.requests.clear();
        self.repositories.clear();
        self.queues.clear();
        self.waiting = None;
        self.holders.clear();
        self.wait.due = None;
    }

    /// Whether another connection has committed since the last time that this was asked.
    pub(crate) fn take_others(&mut self) -> bool {
        std::mem::take(&mut self.others)
    }

    /// Where a session's events end.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn end(&self, sql: &Sql, session: SessionId) -> Result<End, Trouble> {
        if let Some(known) = self.ends.get(&session) {
            return Ok(*known);
        }
        one(
            sql,
            "SELECT n, sequence, last FROM sessions WHERE id = ?1",
            [session.key()],
            |row| {
                Ok(End {
                    session: get(row, 0)?,
                    sequence: get(row, 1)?,
                    last: get(row, 2)?,
                })
            },
        )?
        .ok_or_else(|| Error::missing("session", session).into())
    }

    /// The session's events end here now.
    pub(crate) fn moved(&mut self, session: SessionId, end: End) {
        insert(&mut self.ends, session, end);
    }

    /// The row of a request.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn request(&mut self, sql: &Sql, request: RequestId) -> Result<i64, Trouble> {
        if let Some(row) = self.requests.get(&request) {
            return Ok(*row);
        }
        let row = one(
            sql,
            "SELECT n FROM requests WHERE id = ?1",
            [request.key()],
            |row| get(row, 0),
        )?
        .ok_or_else(|| Error::missing("request", request))?;
        self.submitted(request, row);
        Ok(row)
    }

    /// The request has this row.
    pub(crate) fn submitted(&mut self, request: RequestId, row: i64) {
        insert(&mut self.requests, request, row);
    }

    /// Fails unless there is such a repository.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn repository(
        &mut self,
        sql: &Sql,
        repository: RepositoryId,
    ) -> Result<(), Trouble> {
        if self.repositories.contains(&repository) {
            return Ok(());
        }
        one(
            sql,
            "SELECT 1 FROM repositories WHERE id = ?1",
            [repository.key()],
            |_| Ok(()),
        )?
        .ok_or_else(|| Error::missing("repository", repository))?;
        if self.repositories.len() >= MOST {
            self.repositories.clear();
        }
        self.repositories.insert(repository);
        Ok(())
    }

    /// The row of the queue with this name, as `find` finds it where it is not known.
    pub(crate) fn queue(
        &mut self,
        name: String,
        find: impl FnOnce() -> Result<i64, Trouble>,
    ) -> Result<i64, Trouble> {
        if let Some(row) = self.queues.get(&name) {
            return Ok(*row);
        }
        let row = find()?;
        insert(&mut self.queues, name, row);
        Ok(row)
    }

    /// How many requests wait to be planned or for their time, where it is known.
    pub(crate) fn waiting(&self) -> Option<u64> {
        self.waiting.map(|waiting| waiting.max(0).cast_unsigned())
    }

    /// So many requests wait.
    pub(crate) fn learn_waiting(&mut self, found: i64) -> u64 {
        self.waiting = Some(found);
        found.max(0).cast_unsigned()
    }

    /// So many more of a kind are offered.
    pub(crate) fn offered(&mut self, kind: Kind, more: i64) {
        if let (Kind::Request | Kind::Later, Some(waiting)) = (kind, &mut self.waiting) {
            *waiting += more;
        }
    }

    /// Who holds a lease, if it is known to live.
    pub(crate) fn holder(&self, lease: &Lease) -> Option<Holder> {
        let holder = self.holders.get(&lease.token)?;
        ((holder.lease, holder.subject) == (lease.id, lease.subject)).then_some(*holder)
    }

    /// Somebody holds the lease.
    pub(crate) fn held(&mut self, token: u64, holder: Holder) {
        insert(&mut self.holders, token, holder);
    }

    /// The lease has ended.
    pub(crate) fn ended(&mut self, token: u64) {
        self.holders.remove(&token);
    }

    /// A verb begins now. Where the clock was put back, what is due is looked for.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        if now < self.wait.latest {
            self.wait.looked = false;
        }
        self.wait.latest = now;
    }

    /// Something waits until then.
    pub(crate) fn waits_until(&mut self, time: Timestamp) {
        self.wait.due = self.wait.due.map(|due| due.min(time));
    }

    /// Whether something may be due now.
    pub(crate) fn is_due(&mut self, sql: &Sql, now: Timestamp) -> Result<bool, Trouble> {
        if !self.wait.looked {
            return Ok(true);
        }
        let due = match self.wait.due {
            Some(due) => due,
            None => *self.wait.due.insert(next_due(sql)?),
        };
        Ok(now >= due)
    }

    /// All that was due was found.
    pub(crate) fn looked(&mut self) {
        self.wait.looked = true;
        self.wait.due = None;
    }

    /// Whether it is time to test the locks of owners again, also because the clock was put back.
    pub(crate) fn is_test_due(&self, now: Timestamp) -> bool {
        self.wait
            .tested
            .is_none_or(|last| now < last || now.since(last) >= Self::IDLE)
    }

    /// The locks of owners are tested now.
    pub(crate) fn tests(&mut self, now: Timestamp) {
        self.wait.tested = Some(now);
    }
}

fn insert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) {
    if map.len() >= MOST {
        map.clear();
    }
    map.insert(key, value);
}

/// When the first thing is due of all that waits for a time: one look at the beginning of each of
/// their indexes, and at the leases, which are few.
fn next_due(sql: &Sql) -> Result<Timestamp, Trouble> {
    let due = one(
        sql,
        "SELECT MIN(COALESCE((SELECT MIN(deadline) FROM leases), ?1), \
         COALESCE((SELECT until FROM jobs INDEXED BY jobs_parked \
         WHERE state = 'parked' ORDER BY until LIMIT 1), ?1), \
         COALESCE((SELECT until FROM requests INDEXED BY requests_waiting \
         WHERE until IS NOT NULL ORDER BY until LIMIT 1), ?1), \
         COALESCE((SELECT until FROM changes INDEXED BY changes_waiting \
         WHERE until IS NOT NULL ORDER BY until LIMIT 1), ?1), \
         COALESCE((SELECT rank FROM queues INDEXED BY queues_by_rank \
         WHERE kind = ?2 AND rank IS NOT NULL ORDER BY rank LIMIT 1), ?1))",
        (i64::MAX, Kind::Later as i64),
        |row| get(row, 0),
    )?;
    Ok(Timestamp(due.unwrap_or(i64::MAX)))
}
