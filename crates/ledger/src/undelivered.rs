//! Notifications that were given up: kept with why, until a person has them told again or their
//! events are removed.
//!
//! A notification is given up sink by sink, so it may be here for some of its sinks and in the
//! outbox for others. Both are of the sinks that its first delivery has not reached: together they
//! are no more than [`crate::MAX_SINKS`].

use crate::{
    error::{Error, Trouble},
    ledger::Ledger,
    sql::{
        Key, Sql, all, get, id, json, maybe_json, number, one, run, time, to_json, to_maybe_json,
    },
    writer::Verb,
};
use domain::{EventId, RepositoryId, RequestId, SessionId, Timestamp, entity::Ask, event::Body};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

/// A sink that a notification was given up for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Its name; none where the notification was lost before anybody said which it has reached,
    /// and so is given up for all.
    pub sink: Option<String>,
    /// Why, for a person to read.
    pub why: String,
}

/// A notification that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// Its id, which is that of its event.
    pub event: EventId,
    /// The request that it tells of.
    pub request: RequestId,
    /// What the request is about.
    pub title: String,
    /// When it was given up.
    pub time: Timestamp,
    /// What it has not reached, and why.
    pub unreached: Vec<GivenUp>,
}

/// Where a notification stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It is to be told still, or is being told.
    Waits,
    /// It was given up.
    GivenUp(Undelivered),
    /// Nothing is left to tell of it: all were told, or its event was removed.
    Over,
}

impl Ledger {
    /// Has a notification that was given up told again: only to the sinks that it was given up
    /// for, at once, and as often as a new one. Asked again before it was told, it changes
    /// nothing; the answer says whether it did.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it was neither given up nor is to be told; [`Error::InHand`] while
    /// it is being told to other sinks; [`Error::NotTakenOver`].
    pub async fn tell_again(&self, notification: EventId) -> Result<bool, Error> {
        self.may_work().await?;
        self.write("have a notification told again", move |verb| {
            tell_again(verb, notification)
        })
        .await
    }

    /// Where a notification stands.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn delivery(&self, notification: EventId) -> Result<Delivery, Error> {
        self.read("look for a notification", move |sql| {
            if waits(sql, notification)? {
                return Ok(Delivery::Waits);
            }
            let given_up = one(
                sql,
                "SELECT u.event, r.id, a.body, u.time, u.unreached FROM undelivered u \
                 JOIN requests r ON r.n = u.request JOIN asks a ON a.request = u.request \
                 WHERE u.event = ?1",
                [notification.key()],
                undelivered_row,
            )?;
            Ok(given_up.map_or(Delivery::Over, Delivery::GivenUp))
        })
        .await
    }
}

/// Whether a notification is to be told, or is being told.
fn waits(sql: &Sql, notification: EventId) -> Result<bool, Trouble> {
    let found = one(
        sql,
        "SELECT 1 FROM outbox WHERE event = ?1 LIMIT 1",
        [notification.key()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// Those that were given up last.
pub(crate) fn newest(
    sql: &Sql,
    limit: usize,
    repository: Option<RepositoryId>,
) -> Result<Vec<Undelivered>, Trouble> {
    all(
        sql,
        "SELECT u.event, r.id, a.body, u.time, u.unreached \
         FROM (SELECT u.* FROM undelivered u JOIN requests r ON r.n = u.request \
               WHERE ?2 IS NULL OR r.repository = ?2 \
               ORDER BY u.time DESC, u.n DESC LIMIT ?1) u \
         JOIN requests r ON r.n = u.request JOIN asks a ON a.request = u.request \
         ORDER BY u.time DESC, u.n DESC",
        (number(limit as u64), repository.map(Key::key)),
        undelivered_row,
    )
}

fn undelivered_row(row: &Row<'_>) -> Result<Undelivered, Trouble> {
    Ok(Undelivered {
        event: id(row, 0)?,
        request: id(row, 1)?,
        title: domain::plan::title(&json::<Ask>(row, 2)?.prompt),
        time: time(row, 3)?,
        unreached: json(row, 4)?,
    })
}

/// Keeps what is given up of the notification in this row of the outbox, beside what was given up
/// of it before.
pub(crate) fn keep(verb: &Verb<'_>, outbox: i64, given_up: Vec<GivenUp>) -> Result<(), Trouble> {
    let before = one(
        verb,
        "SELECT u.n, u.unreached FROM outbox o \
         JOIN undelivered u ON u.request = o.request AND u.event = o.event WHERE o.n = ?1",
        [outbox],
        |row| Ok((get::<i64>(row, 0)?, json::<Vec<GivenUp>>(row, 1)?)),
    )?;
    let Some((row, mut unreached)) = before else {
        run(
            verb,
            "INSERT INTO undelivered (event, session, request, time, unreached) \
             SELECT event, session, request, ?2, ?3 FROM outbox WHERE n = ?1",
            (outbox, verb.now.0, to_json(&given_up)?),
        )?;
        return Ok(());
    };
    unreached.retain(|old| given_up.iter().all(|new| new.sink != old.sink));
    unreached.extend(given_up);
    run(
        verb,
        "UPDATE undelivered SET time = ?2, unreached = ?3 WHERE n = ?1",
        (row, verb.now.0, to_json(&unreached)?),
    )?;
    Ok(())
}

/// A row of what was given up, as it goes back to the outbox.
struct Back {
    row: i64,
    session: i64,
    request: i64,
    names: (SessionId, RequestId),
    unreached: Vec<GivenUp>,
}

fn tell_again(verb: &mut Verb<'_>, notification: EventId) -> Result<bool, Trouble> {
    let found = one(
        verb,
        "SELECT u.n, u.session, u.request, s.id, r.id, u.unreached FROM undelivered u \
         JOIN sessions s ON s.n = u.session JOIN requests r ON r.n = u.request WHERE u.event = ?1",
        [notification.key()],
        |row| {
            Ok(Back {
                row: get(row, 0)?,
                session: get(row, 1)?,
                request: get(row, 2)?,
                names: (id(row, 3)?, id(row, 4)?),
                unreached: json(row, 5)?,
            })
        },
    )?;
    let Some(back) = found else {
        return match waits(verb, notification)? {
            true => Ok(false),
            false => Err(Error::missing("notification that was given up", notification).into()),
        };
    };
    // One without a name stands for all.
    let sinks: Option<Vec<String>> = back.unreached.into_iter().map(|one| one.sink).collect();
    let text = match &sinks {
        Some(sinks) => format!("{} is told of this request again", sinks.join(", ")),
        None => "this request is told of again".to_owned(),
    };
    let waiting = one(
        verb,
        "SELECT n, due IS NULL, sinks FROM outbox WHERE request = ?1 AND event = ?2",
        (back.request, notification.key()),
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<bool>(row, 1)?,
                maybe_json::<Vec<String>>(row, 2)?,
            ))
        },
    )?;
    match waiting {
        // Its holder settles it for the sinks that it was given.
        Some((_, true, _)) => return Err(in_hand(notification).into()),
        Some((row, false, others)) => {
            let sinks = sinks.zip(others).map(|(mut sinks, others)| {
                sinks.extend(others);
                sinks
            });
            run(
                verb,
                "UPDATE outbox SET due = ?2, claims = 0, sinks = ?3 WHERE n = ?1",
                (row, verb.now.0, to_maybe_json(sinks.as_ref())?),
            )?;
        }
        None => {
            run(
                verb,
                "INSERT INTO outbox (event, session, request, due, claims, sinks) \
                 VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                (
                    notification.key(),
                    back.session,
                    back.request,
                    verb.now.0,
                    to_maybe_json(sinks.as_ref())?,
                ),
            )?;
        }
    }
    run(verb, "DELETE FROM undelivered WHERE n = ?1", [back.row])?;
    let (session, request) = back.names;
    verb.event(session, Some(request), Body::Note { text });
    Ok(true)
}

fn in_hand(notification: EventId) -> Error {
    Error::InHand {
        kind: "notification",
        name: notification.to_string(),
    }
}

/// Removes what was given up of events of a request that were removed.
pub(crate) fn prune(verb: &Verb<'_>, request: RequestId) -> Result<(), Trouble> {
    run(
        verb,
        "DELETE FROM undelivered WHERE request = (SELECT n FROM requests WHERE id = ?1) \
         AND NOT EXISTS (SELECT 1 FROM events e \
         WHERE e.request_row = undelivered.request AND e.id = undelivered.event)",
        [request.key()],
    )?;
    Ok(())
}
