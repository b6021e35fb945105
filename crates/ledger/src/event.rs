//! Events: one gapless sequence a session, recorded with what they tell.

use crate::{
    blob::references,
    chain,
    error::{Error, Trouble},
    known::{End, Holder},
    lease::{Lease, Subject},
    ledger::Ledger,
    outbox, retention,
    sql::{Key, Sql, all, count, get, id, json, number, one, run, time, to_json},
    writer::Verb,
};
use domain::{
    AttemptId, EventId, RequestId, SessionId,
    event::{Body, Envelope},
};
use std::collections::BTreeMap;

/// The most events of one verb.
pub const MAX_EVENTS: usize = 1_000;
/// The most bytes of one event, as JSON. Longer text goes to a blob.
pub const MAX_BYTES: usize = 1 << 20;
/// The most events of one answer.
pub const MAX_PAGE: usize = 10_000;

/// An event that waits for the end of its verb.
pub(crate) struct Pending {
    pub(crate) session: SessionId,
    pub(crate) request: Option<RequestId>,
    pub(crate) body: Body,
}

impl Ledger {
    /// Records what a holder saw: what an agent said and did, what checks found, notes. Changes
    /// of state are recorded by the verbs that make them, and by nothing else.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Invalid`] when an event is of another kind, of another
    /// attempt than the one held, or too long.
    pub async fn record(&self, lease: &Lease, events: Vec<Body>) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("record events", move |verb| record(verb, &lease, events))
            .await
    }

    /// Records something that a person should read.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session.
    pub async fn note(
        &self,
        session: SessionId,
        request: Option<RequestId>,
        text: impl Into<String>,
    ) -> Result<(), Error> {
        let text = text.into();
        self.write("record a note", move |verb| {
            verb.event(session, request, Body::Note { text });
            Ok(())
        })
        .await
    }

    /// Events of a session after this sequence, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session; [`Error::CursorExpired`] when some of
    /// them were removed.
    pub async fn events(
        &self,
        session: SessionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Envelope>, Error> {
        self.read("read events", move |sql| {
            let row = retention::reachable(sql, session, after)?;
            chain::read(
                sql,
                row,
                after,
                limit.min(MAX_PAGE),
                "id, time, request, body",
                |row, _, sequence| {
                    const AT: usize = chain::FIRST;
                    Ok(Envelope::new(
                        id(row, AT)?,
                        session,
                        sequence,
                        time(row, AT + 1)?,
                        get::<Option<i64>>(row, AT + 2)?.map(Key::read),
                        json(row, AT + 3)?,
                    ))
                },
            )
        })
        .await
    }

    /// Events of a request after this sequence of its session, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such request.
    pub async fn request_events(
        &self,
        request: RequestId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Envelope>, Error> {
        self.read("read events", move |sql| {
            let (session, row) = one(
                sql,
                "SELECT session, n FROM requests WHERE id = ?1",
                [request.key()],
                |row| Ok((id(row, 0)?, get::<i64>(row, 1)?)),
            )?
            .ok_or_else(|| Error::missing("request", request))?;
            all(
                sql,
                "SELECT id, sequence, time, request, body FROM events \
                 WHERE request_row = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
                (row, number(after), number(limit.min(MAX_PAGE) as u64)),
                |row| envelope(row, session),
            )
        })
        .await
    }

    /// The sequence of the last event of a session.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session.
    pub async fn last_sequence(&self, session: SessionId) -> Result<u64, Error> {
        self.read("read events", move |sql| Ok(session_row(sql, session)?.1))
            .await
    }

    /// What checks found on an attempt's work, oldest first: [`Body::Checked`] events.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn evidence(&self, attempt: AttemptId) -> Result<Vec<Body>, Error> {
        self.read("read evidence", move |sql| {
            all(
                sql,
                "SELECT body FROM events WHERE attempt = ?1 ORDER BY n",
                [attempt.key()],
                |row| json(row, 0),
            )
        })
        .await
    }
}

fn envelope(row: &rusqlite::Row<'_>, session: SessionId) -> Result<Envelope, Trouble> {
    Ok(Envelope::new(
        id(row, 0)?,
        session,
        count(row, 1)?,
        time(row, 2)?,
        get::<Option<i64>>(row, 3)?.map(Key::read),
        json(row, 4)?,
    ))
}

/// The event of this id among those of a request.
pub(crate) fn of_request(
    sql: &Sql,
    session: SessionId,
    request: RequestId,
    event: EventId,
) -> Result<Option<Envelope>, Trouble> {
    one(
        sql,
        "SELECT id, sequence, time, request, body FROM events \
         WHERE request = ?1 AND id = ?2 ORDER BY sequence DESC LIMIT 1",
        (request.key(), event.key()),
        |row| envelope(row, session),
    )
}

/// The row of a session and its last sequence.
fn session_row(sql: &Sql, session: SessionId) -> Result<(i64, u64), Trouble> {
    one(
        sql,
        "SELECT n, sequence FROM sessions WHERE id = ?1",
        [session.key()],
        |row| Ok((get(row, 0)?, count(row, 1)?)),
    )?
    .ok_or_else(|| Error::missing("session", session).into())
}

fn record(verb: &mut Verb<'_>, lease: &Lease, events: Vec<Body>) -> Result<(), Trouble> {
    if events.len() > MAX_EVENTS {
        return Err(Error::Invalid(format!(
            "{} events are more than the {MAX_EVENTS} of one verb",
            events.len()
        ))
        .into());
    }
    let holder = holder(verb, lease)?;
    let held = held_attempt(verb, lease.subject)?;
    for body in events {
        let fits = match &body {
            Body::Note { .. } => true,
            Body::Agent { attempt, .. } => {
                matches!(lease.subject, Subject::Job(_)) && Some(*attempt) == held
            }
            Body::Checked {
                attempt, change, ..
            } => {
                let merged = match lease.subject {
                    Subject::Change(id) => Some(id),
                    _ => None,
                };
                *change == merged && Some(*attempt) == held
            }
            Body::Egress { attempt, .. } | Body::SetUp { attempt, .. } => Some(*attempt) == held,
            _ => {
                return Err(Error::Invalid(format!(
                    "a `{}` is recorded by the verb that does it",
                    body.kind()
                ))
                .into());
            }
        };
        if !fits {
            return Err(Error::Invalid(format!(
                "the lease {} does not hold what this `{}` is about",
                lease.id,
                body.kind()
            ))
            .into());
        }
        verb.event(holder.session, Some(holder.request), body);
    }
    Ok(())
}

/// Who holds this lease, which must be live.
fn holder(verb: &mut Verb<'_>, lease: &Lease) -> Result<Holder, Trouble> {
    if let Some(known) = verb.known.holder(lease) {
        return Ok(known);
    }
    let (kind, subject) = lease.subject.columns();
    let text = match lease.subject {
        Subject::Request(_) => {
            "SELECT r.session, r.id FROM leases l JOIN requests r ON r.id = l.subject \
             WHERE l.token = ?1 AND l.id = ?2 AND l.kind = ?3 AND l.subject = ?4"
        }
        Subject::Job(_) => {
            "SELECT r.session, r.id FROM leases l JOIN jobs j ON j.id = l.subject \
             JOIN requests r ON r.id = j.request \
             WHERE l.token = ?1 AND l.id = ?2 AND l.kind = ?3 AND l.subject = ?4"
        }
        Subject::Change(_) => {
            "SELECT r.session, r.id FROM leases l JOIN changes c ON c.id = l.subject \
             JOIN requests r ON r.id = c.request \
             WHERE l.token = ?1 AND l.id = ?2 AND l.kind = ?3 AND l.subject = ?4"
        }
        Subject::Notification(_) => {
            "SELECT s.id, r.id FROM leases l \
             JOIN outbox o ON o.event = l.subject AND o.due IS NULL \
             JOIN sessions s ON s.n = o.session JOIN requests r ON r.n = o.request \
             WHERE l.token = ?1 AND l.id = ?2 AND l.kind = ?3 AND l.subject = ?4"
        }
    };
    let holder = one(
        verb,
        text,
        (number(lease.token), lease.id.key(), kind, subject),
        |row| {
            Ok(Holder {
                lease: lease.id,
                subject: lease.subject,
                session: id(row, 0)?,
                request: id(row, 1)?,
            })
        },
    )?
    .ok_or(Error::LeaseLost(lease.id))?;
    verb.known.held(lease.token, holder);
    Ok(holder)
}

/// The attempt that a lease holds: of its job the open one, of its change the one that made it.
fn held_attempt(sql: &Sql, subject: Subject) -> Result<Option<AttemptId>, Trouble> {
    let (text, key) = match subject {
        Subject::Job(job) => ("SELECT attempt FROM jobs WHERE id = ?1", job.key()),
        Subject::Change(change) => ("SELECT attempt FROM changes WHERE id = ?1", change.key()),
        Subject::Request(_) | Subject::Notification(_) => return Ok(None),
    };
    let attempt = one(sql, text, [key], |row| get::<Option<i64>>(row, 0))?;
    Ok(attempt.flatten().map(Key::read))
}

/// Gives the verb's events their places and stores them: the last thing a verb does, session by
/// session in the order of their ids.
pub(crate) fn append(verb: &mut Verb<'_>) -> Result<(), Trouble> {
    let mut sessions: BTreeMap<SessionId, Vec<(Pending, String)>> = BTreeMap::new();
    // What is too long is found before anything is written, which spares undoing it.
    for pending in std::mem::take(&mut verb.events) {
        let body = body(&pending)?;
        sessions
            .entry(pending.session)
            .or_default()
            .push((pending, body));
    }
    for (session, events) in sessions {
        let mut end = verb.known.end(verb.sql, session)?;
        for (event, body) in events {
            end.sequence += 1;
            end.last = Some(insert(verb, end, &event, body)?);
        }
        run(
            verb,
            "UPDATE sessions SET sequence = ?2, last = ?3 WHERE n = ?1",
            (end.session, end.sequence, end.last),
        )?;
        verb.known.moved(session, end);
    }
    Ok(())
}

/// The body of an event as it is stored.
fn body(event: &Pending) -> Result<String, Trouble> {
    let body = to_json(&event.body)?;
    if body.len() > MAX_BYTES {
        return Err(Error::Invalid(format!(
            "a `{}` of {} bytes is longer than an event may be ({MAX_BYTES}): put its text into a blob",
            event.body.kind(),
            body.len()
        ))
        .into());
    }
    Ok(body)
}

/// Stores an event at this place, after the last one there; the answer is its row.
fn insert(verb: &mut Verb<'_>, at: End, event: &Pending, body: String) -> Result<i64, Trouble> {
    references::refer(verb, event.body.blobs())?;
    let request = match event.request {
        Some(request) => Some(verb.known.request(verb.sql, request)?),
        None => None,
    };
    let id = event.body.own_id().unwrap_or_else(|| verb.id());
    let attempt = match &event.body {
        Body::Checked { attempt, .. } => Some(attempt.key()),
        _ => None,
    };
    run(
        verb,
        "INSERT INTO events (session, sequence, previous, id, time, request, attempt, body, \
         request_row) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        (
            at.session,
            at.sequence,
            at.last,
            id.key(),
            verb.now.0,
            event.request.map(Key::key),
            attempt,
            body,
            request,
        ),
    )?;
    let row = verb.last_insert_rowid();
    outbox::store(verb, at.session, request, id, event)?;
    Ok(row)
}
