//! Requests are told.

use super::{Told, queued};
use crate::{
    account,
    error::{Error, Trouble},
    queue::{self, Kind, Offer},
    sql::{Key, get, id, one, run, to_maybe_json, word},
    writer::Verb,
};
use domain::{
    RequestId, RequestState, SessionId, Timestamp, event::Body, machine::Machine,
    state::RequestCommand,
};

/// Tells a request. While it is queued, and need not wait, it is offered to planners; its jobs are
/// offered only while it is under way. At its end its account is closed.
pub(crate) fn request(
    verb: &mut Verb<'_>,
    request: RequestId,
    command: RequestCommand,
    told: impl Into<Told>,
) -> Result<RequestState, Trouble> {
    let Told { failure, until } = told.into();
    let found = one(
        verb,
        "SELECT state, session, account, n, queue, place, offered, until IS NOT NULL \
         FROM requests WHERE id = ?1",
        [request.key()],
        |row| {
            Ok((
                word::<RequestState>(row, 0)?,
                id::<SessionId>(row, 1)?,
                get::<i64>(row, 2)?,
                Offer {
                    kind: Kind::Request,
                    subject: get(row, 3)?,
                    queue: get(row, 4)?,
                    place: get(row, 5)?,
                    request: request.key(),
                },
                get::<i64>(row, 6)?,
                get::<bool>(row, 7)?,
            ))
        },
    )?;
    let (from, session, account, offer, jobs_offered, waited) =
        found.ok_or_else(|| Error::missing("request", request))?;
    let to = from.apply(command)?;
    if to.is_terminal() {
        run(
            verb,
            "UPDATE requests SET state = ?2, failure = ?3, ended = ?4 WHERE n = ?1",
            (
                offer.subject,
                to.as_str(),
                to_maybe_json(failure.as_ref())?,
                verb.now.0,
            ),
        )?;
    } else {
        // No index holds the state: this way none is written.
        run(
            verb,
            "UPDATE requests SET state = ?2 WHERE n = ?1",
            (offer.subject, to.as_str()),
        )?;
    }
    if let Some(until) = until {
        verb.known.waits_until(until);
    }
    if to == RequestState::Queued {
        // It may stand among those that are not to begin yet.
        verb.known.waits_until(Timestamp(offer.place));
    }
    if waited || until.is_some() {
        run(
            verb,
            "UPDATE requests SET until = ?2 WHERE n = ?1",
            (offer.subject, until.map(|until| until.0)),
        )?;
    }
    let planned = |state| state == RequestState::Planning;
    queued(
        verb,
        offer,
        (from == RequestState::Queued && !waited, planned(from)),
        (to == RequestState::Queued && until.is_none(), planned(to)),
    )?;
    if jobs_offered > 0 && !matches!(to, RequestState::Working | RequestState::Integrating) {
        queue::recall_jobs(verb, request.key())?;
    }
    if to.is_terminal() {
        account::close(verb, account)?;
    }
    verb.event(
        session,
        Some(request),
        Body::RequestChanged {
            request,
            from,
            to,
            failure,
        },
    );
    Ok(to)
}
