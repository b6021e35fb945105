//! The outbox: what happened that a person may want to hear of, until it was told.
//!
//! A notification is stored with its event, in the same transaction, and goes once it was told
//! everywhere or given up; what is given up is kept beside it. It is told at least once: whoever tells it and dies before it says so
//! is followed by another one, with the same id.

use crate::{
    budget,
    claim::claim,
    error::{Error, Trouble},
    event::{self, Pending},
    lease::{self, Lease, Subject},
    ledger::Ledger,
    owner::{Owner, OwnerId},
    park, read,
    sql::{Key, Sql, all, get, id, maybe_json, number, one, run, small, time, to_json},
    undelivered::{self, GivenUp},
    writer::Verb,
};
use domain::{
    Amount, EventId, RequestId, RequestState, SessionId, Timestamp,
    event::{Body, Envelope},
    machine::Machine,
};

/// How often a notification is tried before it is given up.
pub const MAX_TRIES: u32 = 10;
/// The most sinks of one notification.
pub const MAX_SINKS: usize = 64;
/// The longest name of a sink, in bytes.
const MAX_SINK: usize = 200;
/// The longest reason why a sink was not reached, in characters.
const MAX_WHY: usize = 500;

/// A notification that is to be told.
#[derive(Debug, Clone)]
pub struct ClaimedNotification {
    /// The claim.
    pub lease: Lease,
    /// What happened. Its id is that of the notification, however often it is told.
    pub event: Envelope,
    /// The request.
    pub request: RequestId,
    /// What the request is about.
    pub title: String,
    /// The state that the request came to.
    pub state: RequestState,
    /// What the request has spent.
    pub spent: Amount,
    /// The sinks that it must still reach; all of them where it was not told yet.
    pub sinks: Option<Vec<String>>,
}

/// A sink that was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// Its name.
    pub sink: String,
    /// Why, for a person to read. It must hold no secret.
    pub why: String,
    /// Whether it may work another time.
    pub again: bool,
}

impl Ledger {
    /// The notification that has been due for the longest, of any request.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn claim_notification(
        &self,
        owner: &Owner,
    ) -> Result<Option<ClaimedNotification>, Error> {
        let owner = owner.clone();
        self.write("claim a notification", move |verb| {
            claim(verb, |verb| next(verb, owner.id()))
        })
        .await
    }

    /// Settles a notification and ends the lease. It has reached every sink but these. Those that
    /// may work another time are tried again later, each time after twice the wait, and no others
    /// with them; one that is given up is told in a [`Body::Note`], and can be told again
    /// ([`Ledger::tell_again`]).
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Invalid`] when there are too many sinks, or one that it need
    /// not reach.
    pub async fn settle_notification(
        &self,
        lease: &Lease,
        unreached: Vec<Unreached>,
    ) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("settle a notification", move |verb| {
            settle(verb, &lease, unreached)
        })
        .await
    }

    /// When the next notification is due that nobody holds, if there is one.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn next_notification(&self) -> Result<Option<Timestamp>, Error> {
        let now = self.now();
        self.read("look for notifications", move |sql| {
            if let Some(row) = too_late(sql, now)? {
                tracing::debug!(row, "a notification is due later than it can be");
                return Ok(Some(now));
            }
            one(
                sql,
                "SELECT due FROM outbox WHERE due IS NOT NULL ORDER BY due LIMIT 1",
                [],
                |row| time(row, 0),
            )
        })
        .await
    }

    /// Whether something of this request is still to be told.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn is_untold(&self, request: RequestId) -> Result<bool, Error> {
        self.read("look for notifications", move |sql| {
            let found = one(
                sql,
                "SELECT 1 FROM outbox \
                 WHERE request = (SELECT n FROM requests WHERE id = ?1) LIMIT 1",
                [request.key()],
                |_| Ok(()),
            )?;
            Ok(found.is_some())
        })
        .await
    }
}

/// The request and its new state, where an event is one that a person may want to hear of.
fn notable(body: &Body) -> Option<(RequestId, RequestState)> {
    match body {
        Body::RequestChanged { request, to, .. }
            if to.is_terminal() || *to == RequestState::Waiting =>
        {
            Some((*request, *to))
        }
        _ => None,
    }
}

/// Stores what is to be told of an event of these rows of a session and a request, if anything is.
pub(crate) fn store(
    verb: &Verb<'_>,
    session: i64,
    request: Option<i64>,
    id: EventId,
    event: &Pending,
) -> Result<(), Trouble> {
    if notable(&event.body).is_none() {
        return Ok(());
    }
    run(
        verb,
        "INSERT INTO outbox (event, session, request, due, claims) VALUES (?1, ?2, ?3, ?4, 0)",
        (id.key(), session, request, verb.now.0),
    )?;
    Ok(())
}

fn next(verb: &mut Verb<'_>, owner: OwnerId) -> Result<Option<ClaimedNotification>, Trouble> {
    while let Some(due) = due(verb)? {
        let event = event::of_request(verb, due.session, due.request, due.notification)?;
        let told = event.and_then(|event| Some((notable(&event.body)?.1, event)));
        let Some((state, event)) = told else {
            // Without its event there is nothing to tell; one like it must not stop the others.
            forget(verb, due.row)?;
            continue;
        };
        run(
            verb,
            "UPDATE outbox SET due = NULL, claims = claims + 1 WHERE n = ?1",
            [due.row],
        )?;
        let request = due.request;
        return Ok(Some(ClaimedNotification {
            lease: lease::grant(
                verb,
                owner,
                Subject::Notification(due.notification),
                (due.session, request),
            )?,
            event,
            request,
            title: domain::plan::title(&read::request(verb, request)?.ask.prompt),
            state,
            spent: budget::spent(verb, request)?,
            sinks: due.sinks,
        }));
    }
    Ok(None)
}

/// A notification that may be claimed.
struct Due {
    row: i64,
    notification: EventId,
    session: SessionId,
    request: RequestId,
    sinks: Option<Vec<String>>,
}

/// The row of a notification that is due later than any wait can be: the clock was put back.
fn too_late(sql: &Sql, now: Timestamp) -> Result<Option<i64>, Trouble> {
    one(
        sql,
        "SELECT n FROM outbox WHERE due > ?1 ORDER BY due LIMIT 1",
        [now.plus(park::MOST).0],
        |row| get(row, 0),
    )
}

fn due(verb: &Verb<'_>) -> Result<Option<Due>, Trouble> {
    let first = one(
        verb,
        "SELECT n FROM outbox WHERE due <= ?1 ORDER BY due LIMIT 1",
        [verb.now.0],
        |row| get::<i64>(row, 0),
    )?;
    let Some(row) = first.map_or_else(|| too_late(verb, verb.now), |row| Ok(Some(row)))? else {
        return Ok(None);
    };
    one(
        verb,
        "SELECT o.n, o.event, s.id, r.id, o.sinks FROM outbox o \
         JOIN sessions s ON s.n = o.session JOIN requests r ON r.n = o.request WHERE o.n = ?1",
        [row],
        |row| {
            Ok(Due {
                row: get(row, 0)?,
                notification: id(row, 1)?,
                session: id(row, 2)?,
                request: id(row, 3)?,
                sinks: maybe_json(row, 4)?,
            })
        },
    )
}

/// A held notification, as its settlement needs it.
struct Held {
    row: i64,
    session: SessionId,
    request: RequestId,
    claims: u32,
    sinks: Option<Vec<String>>,
}

fn held(sql: &Sql, notification: EventId) -> Result<Option<Held>, Trouble> {
    one(
        sql,
        "SELECT o.n, s.id, r.id, o.claims, o.sinks FROM outbox o \
         JOIN sessions s ON s.n = o.session JOIN requests r ON r.n = o.request \
         WHERE o.event = ?1 AND o.due IS NULL",
        [notification.key()],
        |row| {
            Ok(Held {
                row: get(row, 0)?,
                session: id(row, 1)?,
                request: id(row, 2)?,
                claims: small(row, 3)?,
                sinks: maybe_json(row, 4)?,
            })
        },
    )
}

fn settle(verb: &mut Verb<'_>, lease: &Lease, unreached: Vec<Unreached>) -> Result<(), Trouble> {
    lease::verify(verb, lease)?;
    let notification = lease.notification()?;
    let row =
        held(verb, notification)?.ok_or_else(|| Error::missing("notification", notification))?;
    validate(&row, &unreached)?;
    lease::release(verb, number(lease.token))?;
    let (mut left, mut given_up) = (Vec::new(), Vec::new());
    for Unreached { sink, why, again } in unreached {
        if again && row.claims < MAX_TRIES {
            left.push(sink);
            continue;
        }
        let why: String = why.chars().take(MAX_WHY).collect();
        let text = format!("{sink} was not told of this request and will not be: {why}");
        verb.event(row.session, Some(row.request), Body::Note { text });
        given_up.push(GivenUp {
            sink: Some(sink),
            why,
        });
    }
    if !given_up.is_empty() {
        undelivered::keep(verb, row.row, given_up)?;
    }
    if left.is_empty() {
        return forget(verb, row.row);
    }
    let due = verb
        .now
        .plus(park::back_off(row.claims, verb.context.ids.bits()));
    run(
        verb,
        "UPDATE outbox SET due = ?2, sinks = ?3 WHERE n = ?1",
        (row.row, due.0, to_json(&left)?),
    )?;
    Ok(())
}

fn validate(row: &Held, unreached: &[Unreached]) -> Result<(), Error> {
    if unreached.len() > MAX_SINKS {
        return Err(Error::Invalid(format!(
            "a notification goes to {MAX_SINKS} sinks at most"
        )));
    }
    for Unreached { sink, .. } in unreached {
        let known = row.sinks.as_ref().is_none_or(|sinks| sinks.contains(sink));
        if !known || sink.is_empty() || sink.len() > MAX_SINK || sink.contains(char::is_control) {
            return Err(Error::Invalid(format!(
                "the notification is not for the sink `{}`",
                sink.escape_debug().take(MAX_SINK).collect::<String>()
            )));
        }
    }
    Ok(())
}

fn forget(verb: &Verb<'_>, row: i64) -> Result<(), Trouble> {
    run(verb, "DELETE FROM outbox WHERE n = ?1", [row])?;
    Ok(())
}

/// Gives a notification back whose holder is lost. It may have been told: it is told again. One
/// that ends its holder each time is given up.
pub(crate) fn lose(verb: &mut Verb<'_>, notification: EventId) -> Result<(), Trouble> {
    let Some(row) = held(verb, notification)? else {
        return Ok(());
    };
    if row.claims >= MAX_TRIES {
        let why = format!("the process that delivered it ended {} times", row.claims);
        let text = format!("the notification of this request was given up: {why}");
        verb.event(row.session, Some(row.request), Body::Note { text });
        let sinks = match row.sinks {
            Some(sinks) => sinks.into_iter().map(Some).collect(),
            None => vec![None],
        };
        let given_up = sinks.into_iter().map(|sink| GivenUp {
            sink,
            why: why.clone(),
        });
        undelivered::keep(verb, row.row, given_up.collect())?;
        return forget(verb, row.row);
    }
    // What has ended its holder once may have had nothing to do with it.
    let due = park::after_losses(verb, row.claims).unwrap_or(verb.now);
    run(
        verb,
        "UPDATE outbox SET due = ?2 WHERE n = ?1",
        (row.row, due.0),
    )?;
    Ok(())
}

/// Removes what is still to be told, or was given up, of events of a request that were removed:
/// nothing is told of what is as old as that.
pub(crate) fn prune(verb: &mut Verb<'_>, request: RequestId) -> Result<(), Trouble> {
    let gone = all(
        verb,
        "SELECT o.n, o.event FROM requests r JOIN outbox o ON o.request = r.n \
         WHERE r.id = ?1 AND NOT EXISTS \
         (SELECT 1 FROM events e WHERE e.request_row = r.n AND e.id = o.event)",
        [request.key()],
        |row| Ok((get::<i64>(row, 0)?, id::<EventId>(row, 1)?)),
    )?;
    for (row, notification) in gone {
        lease::revoke(verb, Subject::Notification(notification))?;
        forget(verb, row)?;
    }
    undelivered::prune(verb, request)
}
