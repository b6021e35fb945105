//! Queues: what may be claimed, in which order, and how much of it is held.
//!
//! Work that is alike to whoever claims it (of one repository and user, for one agent and
//! provider) is one queue. An offer is one thing of a queue that may be claimed now; a request
//! offers no more of its jobs than it may have under way. So a claim looks at some queues and one
//! offer, however much there is.
//!
//! An offer's place is the time at which it became claimable, and later by the patience of its
//! priority ([`Priority::patience`]). A queue's turn is the first place in it, and later by
//! [`SHARE`] for each thing that is held of its user, and for each of its repository: so users and
//! repositories take turns, however many queues they have. Both only move what is new behind what
//! has waited: nothing is overtaken by what became claimable more than the patience of the lowest
//! priority, and those shares, after it.

use crate::{
    error::Trouble,
    limit,
    sql::{Key, Sql, all, first, get, id, one, run},
    writer::Verb,
};
use domain::{
    RequestId, Timestamp,
    entity::{Placement, Priority},
};
use rusqlite::Row;
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

/// How much later a queue's turn comes for each thing that is held of its user, and of its
/// repository.
pub const SHARE: Duration = Duration::from_secs(30);

/// What is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request, to be planned.
    Request = 0,
    /// A job, to be done.
    Job = 1,
    /// A change, to be merged.
    Change = 2,
    /// A request that is not to begin yet: nobody claims it here.
    Later = 3,
}

/// Which work somebody who claims can take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seek {
    /// Only that of this request.
    pub only: Option<RequestId>,
    /// The name of the worker, for what only it may take.
    pub worker: Option<String>,
    /// What the worker can do, for what needs it.
    pub capabilities: BTreeSet<String>,
}

impl From<Option<RequestId>> for Seek {
    fn from(only: Option<RequestId>) -> Self {
        Self {
            only,
            ..Self::default()
        }
    }
}

impl Seek {
    fn fits(&self, needs: &str, pin: &str) -> Result<bool, Trouble> {
        if !pin.is_empty() && self.worker.as_deref() != Some(pin) {
            return Ok(false);
        }
        if needs.is_empty() {
            return Ok(true);
        }
        let needs: Vec<String> =
            serde_json::from_str(needs).map_err(|error| Trouble::Row(error.to_string()))?;
        Ok(needs.iter().all(|need| self.capabilities.contains(need)))
    }
}

/// What makes a queue. Fields that do not matter to a kind are empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue<'a> {
    pub(crate) kind: Kind,
    pub(crate) repository: i64,
    pub(crate) branch: &'a str,
    pub(crate) user: &'a str,
    pub(crate) agent: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) needs: &'a str,
    pub(crate) pin: &'a str,
}

impl Queue<'_> {
    /// The row of this queue, as the writer knows it.
    pub(crate) fn known(&self, verb: &mut Verb<'_>) -> Result<i64, Trouble> {
        let mut name = format!("{} {}", self.kind as i64, self.repository);
        let texts = [
            self.branch,
            self.user,
            self.agent,
            self.provider,
            self.needs,
            self.pin,
        ];
        for text in texts {
            // With their lengths no two are alike, whatever is in them.
            name.push_str(&format!(" {}:{text}", text.len()));
        }
        let sql = verb.sql;
        verb.known.queue(name, || self.row(sql))
    }

    /// The row of this queue; a new one where there is none.
    pub(crate) fn row(&self, sql: &Sql) -> Result<i64, Trouble> {
        let kind = self.kind as i64;
        let known = one(
            sql,
            "SELECT n FROM queues WHERE kind = ?1 AND repository = ?2 AND branch = ?3 \
             AND user = ?4 AND agent = ?5 AND provider = ?6 AND needs = ?7 AND pin = ?8",
            (
                kind,
                self.repository,
                self.branch,
                self.user,
                self.agent,
                self.provider,
                self.needs,
                self.pin,
            ),
            |row| get(row, 0),
        )?;
        if let Some(known) = known {
            return Ok(known);
        }
        // Changes of one branch are merged one after the other.
        let most = (self.kind == Kind::Change).then_some(1i64);
        run(
            sql,
            "INSERT INTO queues (kind, repository, branch, user, agent, provider, needs, pin, \
             most, offered, held) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, 0)",
            (
                kind,
                self.repository,
                self.branch,
                self.user,
                self.agent,
                self.provider,
                self.needs,
                self.pin,
                most,
            ),
        )?;
        Ok(sql.last_insert_rowid())
    }
}

/// What a worker must be able to do, as a queue has it.
pub(crate) fn needs(placement: &Placement, more: &[String]) -> Result<String, Trouble> {
    let all: BTreeSet<&String> = placement.needs.iter().chain(more).collect();
    if all.is_empty() {
        return Ok(String::new());
    }
    crate::sql::to_json(&all)
}

/// The provider of a model that is written `provider/name`; empty where it is not.
pub(crate) fn provider(model: Option<&str>) -> &str {
    model
        .and_then(|model| model.split_once('/'))
        .map_or("", |(provider, _)| provider)
}

/// The place of what becomes claimable now.
pub(crate) fn place(now: Timestamp, patience: i64) -> i64 {
    now.0.saturating_add(patience)
}

/// A priority's patience for a column, in microseconds.
pub(crate) fn patience(priority: Priority) -> i64 {
    i64::try_from(priority.patience().as_micros()).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "half a minute")]
pub(crate) const SHARE_MICROS: i64 = SHARE.as_micros() as i64;

/// An offer as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// What is offered. That of a request is the same while it stands among those that are not to
    /// begin yet: only its queue is of another kind then.
    pub(crate) kind: Kind,
    pub(crate) queue: i64,
    pub(crate) place: i64,
    /// The row of the request, job or change.
    pub(crate) subject: i64,
    /// The id of its request.
    pub(crate) request: i64,
}

/// Stores an offer. Whoever stores it counts it.
pub(crate) fn insert(sql: &Sql, offer: Offer) -> Result<(), Trouble> {
    run(
        sql,
        "INSERT INTO offers (queue, place, subject, kind, request) VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            offer.queue,
            offer.place,
            offer.subject,
            offer.kind as i64,
            offer.request,
        ),
    )?;
    Ok(())
}

/// Takes an offer away. Whoever does counts it.
pub(crate) fn delete(sql: &Sql, queue: i64, place: i64, subject: i64) -> Result<(), Trouble> {
    run(
        sql,
        "DELETE FROM offers WHERE queue = ?1 AND place = ?2 AND subject = ?3",
        (queue, place, subject),
    )?;
    Ok(())
}

/// Offers ready jobs of a request, as many as it may have under way, the first ones first.
pub(crate) fn offer_jobs(verb: &mut Verb<'_>, request: i64) -> Result<(), Trouble> {
    let room: i64 = one(
        verb,
        "SELECT parallel - held - offered FROM requests \
         WHERE id = ?1 AND state IN ('working', 'integrating')",
        [request],
        |row| get(row, 0),
    )?
    .unwrap_or(0);
    if room <= 0 {
        return Ok(());
    }
    let ready = all(
        verb,
        "SELECT n, queue, place FROM jobs INDEXED BY jobs_ready \
         WHERE request = ?1 AND state = 'ready' AND offered = 0 ORDER BY place, n LIMIT ?2",
        [request, room],
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<i64>(row, 1)?,
                get::<i64>(row, 2)?,
            ))
        },
    )?;
    let mut offered = 0;
    for (subject, queue, place) in ready {
        insert(
            verb,
            Offer {
                kind: Kind::Job,
                queue,
                place,
                subject,
                request,
            },
        )?;
        run(verb, "UPDATE jobs SET offered = 1 WHERE n = ?1", [subject])?;
        verb.count(Kind::Job, queue, 1, 0);
        offered += 1;
    }
    if offered > 0 {
        run(
            verb,
            "UPDATE requests SET offered = offered + ?2 WHERE id = ?1",
            [request, offered],
        )?;
    }
    Ok(())
}

/// Takes back what a request offers of its jobs: it does not go on for now.
pub(crate) fn recall_jobs(verb: &mut Verb<'_>, request: i64) -> Result<(), Trouble> {
    let offers = all(
        verb,
        "SELECT queue, place, subject FROM offers WHERE request = ?1 AND kind = ?2",
        [request, Kind::Job as i64],
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<i64>(row, 1)?,
                get::<i64>(row, 2)?,
            ))
        },
    )?;
    for (queue, place, subject) in offers {
        delete(verb, queue, place, subject)?;
        run(verb, "UPDATE jobs SET offered = 0 WHERE n = ?1", [subject])?;
        verb.count(Kind::Job, queue, -1, 0);
    }
    run(
        verb,
        "UPDATE requests SET offered = 0 WHERE id = ?1",
        [request],
    )?;
    Ok(())
}

/// A queue as a claim sees it.
pub(crate) struct Candidate {
    queue: i64,
    pub(crate) repository: i64,
    user: String,
    pub(crate) agent: String,
    pub(crate) provider: String,
    needs: String,
    pin: String,
    held: i64,
    /// The place of its first offer, and later by what it holds itself.
    rank: i64,
}

/// The columns of a candidate, of queues that are called `q`.
macro_rules! candidate {
    ($rest:literal) => {
        concat!(
            "SELECT q.n, q.repository, q.user, q.agent, q.provider, q.needs, q.pin, q.held, \
             COALESCE(q.rank, 0)",
            $rest
        )
    };
}
pub(crate) use candidate;

impl Candidate {
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, Trouble> {
        Ok(Self {
            queue: get(row, 0)?,
            repository: get(row, 1)?,
            user: get(row, 2)?,
            agent: get(row, 3)?,
            provider: get(row, 4)?,
            needs: get(row, 5)?,
            pin: get(row, 6)?,
            held: get(row, 7)?,
            rank: get(row, 8)?,
        })
    }
}

/// The first column after those of a candidate.
const AFTER: usize = 9;

/// What is to be claimed next.
pub(crate) struct Next {
    /// The row of the request, job or change.
    pub(crate) row: i64,
    /// Its request.
    pub(crate) request: RequestId,
}

/// What is to be claimed next of a kind.
pub(crate) fn next(verb: &mut Verb<'_>, kind: Kind, seek: &Seek) -> Result<Option<Next>, Trouble> {
    verb.store_counts()?;
    let verb = &*verb;
    let limits = match kind {
        Kind::Job => limit::all_of(verb)?,
        Kind::Request | Kind::Change | Kind::Later => Vec::new(),
    };
    let fits = |found: &Candidate| -> Result<bool, Trouble> {
        Ok(seek.fits(&found.needs, &found.pin)? && limit::allow(verb, &limits, found)?)
    };
    match seek.only {
        Some(only) => of_request(verb, kind, only, fits),
        None => in_turn(verb, kind, fits),
    }
}

/// The first offer of a request.
fn of_request(
    verb: &Verb<'_>,
    kind: Kind,
    request: RequestId,
    fits: impl Fn(&Candidate) -> Result<bool, Trouble>,
) -> Result<Option<Next>, Trouble> {
    first(
        verb,
        candidate!(
            ", o.subject FROM offers o CROSS JOIN queues q ON q.n = o.queue \
             WHERE o.request = ?2 AND o.kind = ?1 AND q.kind = ?1 AND q.rank IS NOT NULL \
             ORDER BY o.place"
        ),
        (kind as i64, request.key()),
        |row| {
            let row = fits(&Candidate::read(row)?)?
                .then(|| get(row, AFTER))
                .transpose()?;
            Ok(row.map(|row| Next { row, request }))
        },
    )
}

/// The first offer of the queue whose turn it is.
///
/// Its rank counts what is held of the queue itself; its turn counts what is held of its user and of
/// its repository, in whatever queues. That is never less, so no queue is looked at whose rank is
/// behind the best turn.
fn in_turn(
    verb: &Verb<'_>,
    kind: Kind,
    fits: impl Fn(&Candidate) -> Result<bool, Trouble>,
) -> Result<Option<Next>, Trouble> {
    let held = Held::of(verb, kind)?;
    let mut best: Option<(i64, i64)> = None;
    first(
        verb,
        candidate!(
            " FROM queues q INDEXED BY queues_by_rank WHERE kind = ?1 AND rank IS NOT NULL \
             ORDER BY rank"
        ),
        [kind as i64],
        |row| {
            let found = Candidate::read(row)?;
            if best.is_some_and(|(turn, _)| turn <= found.rank) {
                return Ok(Some(()));
            }
            let turn = found
                .rank
                .saturating_add(held.beside(&found) * SHARE_MICROS);
            if best.is_none_or(|(known, _)| turn < known) && fits(&found)? {
                best = Some((turn, found.queue));
            }
            Ok(None)
        },
    )?;
    let Some((_, queue)) = best else {
        return Ok(None);
    };
    one(
        verb,
        "SELECT subject, request FROM offers WHERE queue = ?1 ORDER BY place, subject LIMIT 1",
        [queue],
        |row| {
            Ok(Next {
                row: get(row, 0)?,
                request: id(row, 1)?,
            })
        },
    )
}

/// How much is held of a kind, by users and by repositories.
#[derive(Default)]
struct Held {
    users: HashMap<String, i64>,
    repositories: HashMap<i64, i64>,
}

impl Held {
    fn of(sql: &Sql, kind: Kind) -> Result<Self, Trouble> {
        let mut all = Self::default();
        // Changes of one branch are merged one after the other, and have no users.
        if kind == Kind::Change {
            return Ok(all);
        }
        let held = crate::sql::all(
            sql,
            "SELECT user, repository, held FROM queues INDEXED BY queues_held \
             WHERE kind = ?1 AND held > 0",
            [kind as i64],
            |row| {
                Ok((
                    get::<String>(row, 0)?,
                    get::<i64>(row, 1)?,
                    get::<i64>(row, 2)?,
                ))
            },
        )?;
        for (user, repository, held) in held {
            *all.users.entry(user).or_default() += held;
            *all.repositories.entry(repository).or_default() += held;
        }
        Ok(all)
    }

    /// What a queue's turn counts beside what it holds itself.
    fn beside(&self, queue: &Candidate) -> i64 {
        let user = self.users.get(&queue.user).copied().unwrap_or(0);
        let repository = self
            .repositories
            .get(&queue.repository)
            .copied()
            .unwrap_or(0);
        (user + repository - queue.held).max(0)
    }
}
