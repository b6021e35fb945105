//! Requests and changes that go back to their queues: their planner or integrator was lost, or met
//! a fault of the machine that may pass.
//!
//! Nothing is tried for ever: losses and faults are counted, and the last one ends it. What was put
//! back for a fault waits, twice as long each time, and is offered again by the next claim or the
//! tick of any process, as parked jobs are woken.

use crate::{
    error::{Error, Trouble},
    park::{self, DUE},
    progress,
    queue::{self, Kind, Offer},
    sql::{Key, all, get, one, run, small},
    transition::{self, Landing, Told},
    writer::Verb,
};
use domain::{
    ChangeId, Failure, Reason, RequestId, Timestamp,
    state::{ChangeCommand, RequestCommand},
};

/// How often a request's planner may be lost before the request fails: what ends the process each
/// time would do so for ever.
const MAX_LOST_PLANNERS: u32 = 3;

/// How often in a row a change's integrator may be lost before the change is rejected.
///
/// One that may be on the branch already is not rejected unseen: whoever claims it next only looks.
/// If that ends the process as often again, it is rejected all the same.
pub const MAX_LOST_INTEGRATORS: u32 = 5;

/// How often a fault of the machine may put a request or a change back; the last time ends it. The
/// waits between come to some ten minutes.
pub const MAX_POSTPONED: u32 = 10;

/// Gives a request whose planner is lost back, or fails it where that was once too often.
pub(crate) fn lose_planner(verb: &mut Verb<'_>, request: RequestId) -> Result<(), Trouble> {
    let lost = one(
        verb,
        "UPDATE requests SET lost = lost + 1 WHERE id = ?1 RETURNING lost",
        [request.key()],
        |row| small(row, 0),
    )?
    .ok_or_else(|| Error::missing("request", request))?;
    if lost < MAX_LOST_PLANNERS {
        let told = Told {
            failure: None,
            until: park::after_losses(verb, lost),
        };
        transition::request(verb, request, RequestCommand::Requeue, told)?;
        return Ok(());
    }
    let failure = Failure::new(
        Reason::OwnerLost,
        format!("the process that planned it ended {lost} times: ask again with `--plan none`"),
    );
    transition::request(verb, request, RequestCommand::Fail, Some(failure))?;
    Ok(())
}

/// Gives a change whose integrator is lost back, or rejects it where that was once too often.
pub(crate) fn lose_integrator(verb: &mut Verb<'_>, change: ChangeId) -> Result<(), Trouble> {
    let (lost, intended) = one(
        verb,
        "UPDATE changes SET lost = lost + 1 WHERE id = ?1 RETURNING lost, integrated IS NOT NULL",
        [change.key()],
        |row| Ok((small(row, 0)?, get::<bool>(row, 1)?)),
    )?
    .ok_or_else(|| Error::missing("change", change))?;
    let most = match intended {
        true => MAX_LOST_INTEGRATORS.saturating_mul(2),
        false => MAX_LOST_INTEGRATORS,
    };
    let (command, failure) = match lost < most {
        true => (ChangeCommand::Requeue, Failure::new(Reason::OwnerLost, "")),
        false => (ChangeCommand::Reject, too_often(lost)),
    };
    let landing = Landing {
        failure: Some(failure),
        until: park::after_losses(verb, lost).filter(|_| command == ChangeCommand::Requeue),
        ..Landing::default()
    };
    let request = transition::change(verb, change, command, landing)?;
    progress::follow(verb, request)
}

fn too_often(lost: u32) -> Failure {
    Failure::new(
        Reason::OwnerLost,
        format!(
            "the process that merged it ended {lost} times: the candidate is kept, take it with \
             `skep apply`"
        ),
    )
}

/// Why a claimed change is not to be tried again, if it was lost too often.
pub(crate) fn given_up(verb: &Verb<'_>, change: ChangeId) -> Result<Option<Failure>, Trouble> {
    let lost = one(
        verb,
        "SELECT lost FROM changes WHERE id = ?1",
        [change.key()],
        |row| small(row, 0),
    )?
    .unwrap_or(0);
    Ok((lost >= MAX_LOST_INTEGRATORS).then(|| too_often(lost)))
}

/// Its integrator lives to say what came of it: those that were lost before were not in a row with
/// what comes.
pub(crate) fn found(verb: &Verb<'_>, change: ChangeId) -> Result<(), Trouble> {
    run(
        verb,
        "UPDATE changes SET lost = 0 WHERE id = ?1 AND lost > 0",
        [change.key()],
    )?;
    Ok(())
}

/// Counts that a change is put back: what it is told, and until when it waits.
pub(crate) fn change(
    verb: &Verb<'_>,
    change: ChangeId,
) -> Result<(ChangeCommand, Option<Timestamp>), Trouble> {
    let postponed = one(
        verb,
        "UPDATE changes SET postponed = postponed + 1 WHERE id = ?1 RETURNING postponed",
        [change.key()],
        |row| small(row, 0),
    )?
    .ok_or_else(|| Error::missing("change", change))?;
    Ok(match until(verb, postponed) {
        None => (ChangeCommand::Reject, None),
        until => (ChangeCommand::Requeue, until),
    })
}

/// Puts a request back, or fails it where that was once too often. Its lease must have ended.
pub(crate) fn request(
    verb: &mut Verb<'_>,
    request: RequestId,
    failure: Failure,
) -> Result<(), Trouble> {
    let postponed = one(
        verb,
        "UPDATE requests SET postponed = postponed + 1 WHERE id = ?1 RETURNING postponed",
        [request.key()],
        |row| small(row, 0),
    )?
    .ok_or_else(|| Error::missing("request", request))?;
    let until = until(verb, postponed);
    let command = match until {
        None => RequestCommand::Fail,
        Some(_) => RequestCommand::Requeue,
    };
    let told = Told {
        failure: Some(failure),
        until,
    };
    transition::request(verb, request, command, told)?;
    Ok(())
}

/// Until when something waits that was put back so often; none where that was the last time.
fn until(verb: &Verb<'_>, postponed: u32) -> Option<Timestamp> {
    let span = park::back_off(postponed, verb.context.ids.bits());
    (postponed < MAX_POSTPONED).then(|| verb.now.plus(span))
}

/// Offers the requests and changes whose time has come again. Says how many.
pub(crate) fn offer_due(verb: &mut Verb<'_>) -> Result<usize, Trouble> {
    let requests = offer(
        verb,
        Kind::Request,
        "SELECT n, queue, place, id FROM requests INDEXED BY requests_waiting \
         WHERE until <= ?1 OR until > ?3 ORDER BY until LIMIT ?2",
        "UPDATE requests SET until = NULL WHERE n = ?1",
    )?;
    let changes = offer(
        verb,
        Kind::Change,
        "SELECT n, queue, place, request FROM changes INDEXED BY changes_waiting \
         WHERE until <= ?1 OR until > ?3 ORDER BY until LIMIT ?2",
        "UPDATE changes SET until = NULL WHERE n = ?1",
    )?;
    Ok(requests + changes)
}

fn offer(
    verb: &mut Verb<'_>,
    kind: Kind,
    due: &'static str,
    woken: &'static str,
) -> Result<usize, Trouble> {
    // The clock was put back where one waits longer than any can.
    let latest = verb.now.plus(park::MOST);
    let due = all(verb, due, (verb.now.0, DUE, latest.0), |row| {
        Ok(Offer {
            kind,
            subject: get(row, 0)?,
            queue: get(row, 1)?,
            place: get(row, 2)?,
            request: get(row, 3)?,
        })
    })?;
    for offer in &due {
        run(verb, woken, [offer.subject])?;
        queue::insert(verb, *offer)?;
        verb.count(offer.kind, offer.queue, 1, 0);
    }
    Ok(due.len())
}
