//! Retention: the oldest part of each session goes, with the requests that it was all of.
//!
//! What goes is a prefix, so that what is kept has no gap: up to the first event that is not old
//! enough, or whose request has not ended long enough ago. A request that has events on both
//! sides keeps its rows and its later events; it goes with the last of them.

mod unused;

use crate::{
    blob::references,
    cassette::Exchange,
    chain,
    error::{Error, Trouble},
    ledger::Ledger,
    outbox,
    sql::{Key, Sql, all, count, get, json, number, one, run, time},
    writer::Verb,
};
use domain::{BlobId, RequestId, SessionId, Timestamp, entity::Ask, event::Body};
use std::collections::{BTreeSet, HashMap};

/// The most events of one transaction; others wait for it some ten milliseconds.
const BATCH: usize = 500;

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// How many requests, with all that belongs to them.
    pub requests: u64,
    /// How many events.
    pub events: u64,
    /// How many bytes of events.
    pub bytes: u64,
    /// How many rows that are of no request: counts of an hour, allowances of users that are full
    /// again, queues of which nothing is left.
    pub rows: u64,
}

impl Ledger {
    /// Removes, from each session, the longest run of its oldest events that were all recorded
    /// before this time and whose requests had all ended before it, and the requests that have no
    /// other events. A key of a submission that goes is free again. What blobs only they named
    /// becomes garbage. Then go counts from before this time, which say how long things took (those
    /// of the last week stay), and what nothing needs any more.
    ///
    /// A few events at a time: other verbs go on meanwhile, and when it fails half-way all is
    /// consistent.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn prune(&self, before: Timestamp) -> Result<Pruned, Error> {
        let mut total = Pruned::default();
        for session in self.session_rows().await? {
            loop {
                let step = self
                    .write("remove old events", move |verb| {
                        prune(verb, session, before)
                    })
                    .await?;
                total = total.plus(step.pruned);
                if !step.more {
                    break;
                }
            }
        }
        total.rows = self.prune_unused(before).await?;
        Ok(total)
    }

    /// What [`Ledger::prune`] would remove now.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn would_prune(&self, before: Timestamp) -> Result<Pruned, Error> {
        let mut total = Pruned::default();
        let mut gone = Vec::new();
        for session in self.session_rows().await? {
            let (pruned, requests) = self
                .read("look for old events", move |sql| {
                    would_prune(sql, session, before)
                })
                .await?;
            total = total.plus(pruned);
            gone.extend(requests);
        }
        total.rows = self.would_prune_unused(before, &gone).await?;
        Ok(total)
    }

    async fn session_rows(&self) -> Result<Vec<i64>, Error> {
        self.read("list sessions", |sql| {
            all(sql, "SELECT n FROM sessions ORDER BY n", [], |row| {
                get(row, 0)
            })
        })
        .await
    }
}

impl Pruned {
    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            events: self.events + other.events,
            bytes: self.bytes + other.bytes,
            rows: self.rows + other.rows,
        }
    }
}

/// The row of a session whose events after this sequence are all kept.
///
/// # Errors
/// [`Error::CursorExpired`] when some of them were removed; [`Error::NotFound`].
pub(crate) fn reachable(sql: &Sql, session: SessionId, after: u64) -> Result<i64, Trouble> {
    let (row, first) = one(
        sql,
        "SELECT n, first FROM sessions WHERE id = ?1",
        [session.key()],
        |row| Ok((get(row, 0)?, count(row, 1)?)),
    )?
    .ok_or_else(|| Error::missing("session", session))?;
    if after.saturating_add(1) < first {
        return Err(Error::CursorExpired { session, first }.into());
    }
    Ok(row)
}

/// Old events of a session, from some place on.
#[derive(Default)]
struct Old {
    pruned: Pruned,
    /// The last sequence of them.
    last: u64,
    rows: Vec<i64>,
    requests: BTreeSet<RequestId>,
    blobs: Vec<BlobId>,
}

/// An event that may go.
struct Event {
    row: i64,
    sequence: u64,
    time: Timestamp,
    request: Option<RequestId>,
    bytes: u64,
    blobs: Vec<BlobId>,
}

/// The events of a session after this sequence that may go, at most [`BATCH`] of them.
fn old(sql: &Sql, session: i64, after: u64, before: Timestamp) -> Result<Old, Trouble> {
    let mut old = Old {
        last: after,
        ..Old::default()
    };
    let mut known = HashMap::new();
    let events = chain::read(
        sql,
        session,
        after,
        BATCH,
        "time, request, LENGTH(body), body",
        |row, n, sequence| {
            const AT: usize = chain::FIRST;
            Ok(Event {
                row: n,
                sequence,
                time: time(row, AT)?,
                request: get::<Option<i64>>(row, AT + 1)?.map(RequestId::read),
                bytes: count(row, AT + 2)?,
                blobs: json::<Body>(row, AT + 3)?.blobs().collect(),
            })
        },
    )?;
    for event in events {
        let ended = match event.request {
            None => true,
            Some(request) => match known.get(&request) {
                Some(ended) => *ended,
                None => {
                    let ended = has_ended(sql, request, before)?;
                    known.insert(request, ended);
                    ended
                }
            },
        };
        if !ended || event.time >= before {
            break;
        }
        old.last = event.sequence;
        old.rows.push(event.row);
        old.requests.extend(event.request);
        old.blobs.extend(event.blobs);
        old.pruned.events += 1;
        old.pruned.bytes += event.bytes;
    }
    Ok(old)
}

/// Whether a request and all that belongs to it had ended before this time.
fn has_ended(sql: &Sql, request: RequestId, before: Timestamp) -> Result<bool, Trouble> {
    let open = one(
        sql,
        "SELECT 1 FROM requests r WHERE r.id = ?1 AND (r.ended IS NULL OR r.ended >= ?2 \
         OR EXISTS (SELECT 1 FROM jobs j WHERE j.request = r.id \
                    AND (j.ended IS NULL OR j.ended >= ?2)) \
         OR EXISTS (SELECT 1 FROM changes c WHERE c.request = r.id \
                    AND (c.ended IS NULL OR c.ended >= ?2)))",
        (request.key(), before.0),
        |_| Ok(()),
    )?;
    Ok(open.is_none())
}

struct Step {
    pruned: Pruned,
    more: bool,
}

fn prune(verb: &mut Verb<'_>, session: i64, before: Timestamp) -> Result<Step, Trouble> {
    let mut old = old(verb, session, kept_after(verb, session)?, before)?;
    let more = old.pruned.events == BATCH as u64;
    if old.pruned.events == 0 {
        return Ok(Step {
            pruned: old.pruned,
            more,
        });
    }
    for row in &old.rows {
        run(verb, "DELETE FROM events WHERE n = ?1", [row])?;
    }
    run(
        verb,
        "UPDATE sessions SET first = ?2 WHERE n = ?1",
        (session, number(old.last + 1)),
    )?;
    references::forget(verb, old.blobs)?;
    for request in old.requests {
        outbox::prune(verb, request)?;
        let left = one(
            verb,
            "SELECT 1 FROM events \
             WHERE request_row = (SELECT n FROM requests WHERE id = ?1) LIMIT 1",
            [request.key()],
            |_| Ok(()),
        )?;
        if left.is_none() {
            remove(verb, request)?;
            verb.known.forget();
            old.pruned.requests += 1;
        }
    }
    Ok(Step {
        pruned: old.pruned,
        more,
    })
}

/// The sequence before the first that is kept.
fn kept_after(sql: &Sql, session: i64) -> Result<u64, Trouble> {
    let first = one(
        sql,
        "SELECT first FROM sessions WHERE n = ?1",
        [session],
        |row| count(row, 0),
    )?;
    Ok(first.unwrap_or(1).saturating_sub(1))
}

/// What would be removed of a session, with the requests that would be.
fn would_prune(
    sql: &Sql,
    session: i64,
    before: Timestamp,
) -> Result<(Pruned, Vec<RequestId>), Trouble> {
    let mut total = Pruned::default();
    let mut gone = Vec::new();
    let mut after = kept_after(sql, session)?;
    loop {
        let old = old(sql, session, after, before)?;
        total = total.plus(old.pruned);
        after = old.last;
        for request in old.requests {
            // Counted where its last event goes.
            let last = one(
                sql,
                "SELECT sequence FROM events \
                 WHERE request_row = (SELECT n FROM requests WHERE id = ?1) \
                 ORDER BY sequence DESC LIMIT 1",
                [request.key()],
                |row| count(row, 0),
            )?;
            let in_this_page = last.is_some_and(|last| {
                last <= after && last > after.saturating_sub(old.pruned.events)
            });
            if in_this_page {
                total.requests += 1;
                gone.push(request);
            }
        }
        if old.pruned.events < BATCH as u64 {
            return Ok((total, gone));
        }
    }
}

/// Removes a request that has no events any more, with every row that belongs to it.
fn remove(verb: &Verb<'_>, request: RequestId) -> Result<(), Trouble> {
    let ask = one(
        verb,
        "SELECT a.body FROM requests r JOIN asks a ON a.request = r.n WHERE r.id = ?1",
        [request.key()],
        |row| json::<Ask>(row, 0),
    )?;
    references::forget(verb, ask.iter().flat_map(Ask::blobs))?;
    let exchanges = all(
        verb,
        "SELECT c.exchange FROM grants g JOIN calls c ON c.granted = g.n \
         WHERE g.request = ?1 AND c.exchange IS NOT NULL",
        [request.key()],
        |row| json::<Exchange>(row, 0),
    )?;
    references::forget(verb, exchanges.iter().flat_map(Exchange::blobs))?;
    for statement in [
        "DELETE FROM calls WHERE granted IN (SELECT n FROM grants WHERE request = ?1)",
        "DELETE FROM grants WHERE request = ?1",
        "DELETE FROM changes WHERE request = ?1",
        "DELETE FROM attempts WHERE job IN (SELECT id FROM jobs WHERE request = ?1)",
        "DELETE FROM dependencies WHERE job IN (SELECT id FROM jobs WHERE request = ?1)",
        "DELETE FROM specs WHERE job IN (SELECT n FROM jobs WHERE request = ?1)",
        "DELETE FROM accounts WHERE n IN (SELECT account FROM jobs WHERE request = ?1 \
         UNION ALL SELECT account FROM requests WHERE id = ?1)",
        "DELETE FROM jobs WHERE request = ?1",
        "DELETE FROM submissions WHERE request = ?1",
        "DELETE FROM asks WHERE request = (SELECT n FROM requests WHERE id = ?1)",
        "DELETE FROM requests WHERE id = ?1",
    ] {
        run(verb, statement, [request.key()])?;
    }
    Ok(())
}
