//! Requests that are not to begin before a time.
//!
//! Until then such a request is queued like any other, and its offer stands in a queue of a kind
//! that nobody claims from, at the place of its time. What moves it to the queue that it is for is
//! the first claim after its time, or the tick of any process: the same that wakes parked jobs. Its
//! place there is that of what became claimable at its time.

use crate::{
    error::{Error, Trouble},
    queue::{self, Kind, Offer, Queue},
    read,
    sql::{Key, Sql, all, get, id, one, run},
    submit,
    writer::Verb,
};
use domain::{RequestId, Timestamp, entity::Placement};
use std::time::Duration;

/// How far ahead a request may begin: a year.
pub const MOST_AHEAD: Duration = Duration::from_secs(366 * 24 * 3_600);
/// The most requests that one verb wakes; the next verb wakes the rest.
const DUE: i64 = 64;

/// Where all of them wait.
pub(crate) const QUEUE: Queue<'static> = Queue {
    kind: Kind::Later,
    repository: 0,
    branch: "",
    user: "",
    agent: "",
    provider: "",
    needs: "",
    pin: "",
};

/// The time before which a request is not to begin, if that is still to come.
pub(crate) fn wanted(placement: &Placement, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let Some(time) = placement.not_before.filter(|time| *time > now) else {
        return Ok(None);
    };
    if time.since(now) > MOST_AHEAD {
        return Err(Error::Invalid(format!(
            "a request begins {} days from now at the latest",
            MOST_AHEAD.as_secs() / (24 * 3_600)
        )));
    }
    Ok(Some(time))
}

/// Offers the requests whose time has come. Says how many.
pub(crate) fn wake_due(verb: &mut Verb<'_>) -> Result<usize, Trouble> {
    verb.store_counts()?;
    let due = all(
        verb,
        "SELECT o.queue, o.place, o.subject, o.request \
         FROM queues q INDEXED BY queues_by_rank CROSS JOIN offers o ON o.queue = q.n \
         WHERE q.kind = ?1 AND q.rank <= ?2 AND o.place <= ?2 \
         ORDER BY o.place, o.subject LIMIT ?3",
        (Kind::Later as i64, verb.now.0, DUE),
        |row| {
            let request: RequestId = id(row, 3)?;
            let offer = Offer {
                kind: Kind::Request,
                queue: get(row, 0)?,
                place: get(row, 1)?,
                subject: get(row, 2)?,
                request: request.key(),
            };
            Ok((request, offer))
        },
    )?;
    for (request, offer) in &due {
        wake(verb, *request, *offer)?;
    }
    Ok(due.len())
}

fn wake(verb: &mut Verb<'_>, request: RequestId, waited: Offer) -> Result<(), Trouble> {
    let ask = read::request(verb, request)?.ask;
    let offer = Offer {
        queue: submit::queue_of(&ask)?.row(verb)?,
        place: queue::place(
            Timestamp(waited.place),
            queue::patience(ask.placement.priority),
        ),
        ..waited
    };
    queue::delete(verb, waited.queue, waited.place, waited.subject)?;
    verb.count(Kind::Later, waited.queue, -1, 0);
    run(
        verb,
        "UPDATE requests SET queue = ?2, place = ?3 WHERE n = ?1",
        (offer.subject, offer.queue, offer.place),
    )?;
    queue::insert(verb, offer)?;
    verb.count(offer.kind, offer.queue, 1, 0);
    Ok(())
}

/// Before which time a request does not begin, while that is still to come.
pub(crate) fn waits_until(sql: &Sql, request: RequestId) -> Result<Option<Timestamp>, Trouble> {
    one(
        sql,
        "SELECT r.place FROM requests r JOIN queues q ON q.n = r.queue \
         WHERE r.id = ?1 AND q.kind = ?2 AND r.ended IS NULL",
        (request.key(), Kind::Later as i64),
        |row| get(row, 0).map(Timestamp),
    )
}
