//! Changes are told.

use super::queued;
use crate::{
    error::{Error, Trouble},
    queue::{Kind, Offer},
    sql::{Key, get, id, one, run, to_json, to_maybe_json, word},
    writer::Verb,
};
use domain::{
    ChangeId, ChangeState, Failure, RequestId, SessionId, Timestamp, entity::ObjectName,
    event::Body, machine::Machine, state::ChangeCommand,
};

/// What is known of a change when it is told something.
#[derive(Default)]
pub(crate) struct Landing {
    /// The commit on the integration branch; where there is none, what was intended is kept.
    pub(crate) integrated: Option<ObjectName>,
    /// Whether what was intended is void.
    pub(crate) void: bool,
    pub(crate) conflicts: Vec<String>,
    pub(crate) failure: Option<Failure>,
    /// Until when it waits, where it is queued again.
    pub(crate) until: Option<Timestamp>,
}

/// Tells a change. While it is queued, and need not wait, it is offered to integrators.
pub(crate) fn change(
    verb: &mut Verb<'_>,
    change: ChangeId,
    command: ChangeCommand,
    landing: Landing,
) -> Result<RequestId, Trouble> {
    let found = one(
        verb,
        "SELECT c.state, c.request, r.session, c.n, c.queue, c.place, c.until IS NOT NULL \
         FROM changes c JOIN requests r ON r.id = c.request WHERE c.id = ?1",
        [change.key()],
        |row| {
            let request = id::<RequestId>(row, 1)?;
            Ok((
                word::<ChangeState>(row, 0)?,
                request,
                id::<SessionId>(row, 2)?,
                Offer {
                    kind: Kind::Change,
                    subject: get(row, 3)?,
                    queue: get(row, 4)?,
                    place: get(row, 5)?,
                    request: request.key(),
                },
                get::<bool>(row, 6)?,
            ))
        },
    )?;
    let (from, request, session, offer, waited) =
        found.ok_or_else(|| Error::missing("change", change))?;
    let to = from.apply(command)?;
    let held = |state| matches!(state, ChangeState::Merging | ChangeState::Checking);
    queued(
        verb,
        offer,
        (from == ChangeState::Queued && !waited, held(from)),
        (
            to == ChangeState::Queued && landing.until.is_none(),
            held(to),
        ),
    )?;
    if let Some(until) = landing.until {
        verb.known.waits_until(until);
    }
    if waited || landing.until.is_some() {
        run(
            verb,
            "UPDATE changes SET until = ?2 WHERE n = ?1",
            (offer.subject, landing.until.map(|until| until.0)),
        )?;
    }
    // What it was put back for is told, and is not why it ended.
    let kept = landing.failure.as_ref().filter(|_| to.is_settled());
    run(
        verb,
        "UPDATE changes SET state = ?2, integrated = CASE ?3 WHEN 1 THEN NULL \
         ELSE COALESCE(?4, integrated) END, conflicts = ?5, failure = ?6, ended = ?7 WHERE id = ?1",
        (
            change.key(),
            to.as_str(),
            landing.void,
            &landing.integrated,
            to_json(&landing.conflicts)?,
            to_maybe_json(kept)?,
            to.is_settled().then_some(verb.now.0),
        ),
    )?;
    verb.event(
        session,
        Some(request),
        Body::ChangeChanged {
            change,
            from,
            to,
            integrated: landing.integrated,
            conflicts: landing.conflicts,
            failure: landing.failure,
        },
    );
    Ok(request)
}
