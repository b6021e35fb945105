//! Jobs are told.

use super::Told;
use crate::{
    account,
    error::{Error, Trouble},
    history,
    queue::{self, Kind},
    sql::{Key, get, id, one, run, to_maybe_json, word},
    writer::Verb,
};
use domain::{
    JobId, JobState, RequestId, SessionId, event::Body, machine::Machine, state::JobCommand,
};

/// A job as a transition needs it.
struct JobRow {
    n: i64,
    state: JobState,
    request: RequestId,
    session: SessionId,
    account: i64,
    queue: i64,
    place: i64,
    offered: bool,
    patience: i64,
}

fn job_row(verb: &Verb<'_>, job: JobId) -> Result<JobRow, Trouble> {
    one(
        verb,
        "SELECT j.n, j.state, j.request, r.session, j.account, j.queue, j.place, j.offered, \
         r.patience FROM jobs j JOIN requests r ON r.id = j.request WHERE j.id = ?1",
        [job.key()],
        |row| {
            Ok(JobRow {
                n: get(row, 0)?,
                state: word(row, 1)?,
                request: id(row, 2)?,
                session: id(row, 3)?,
                account: get(row, 4)?,
                queue: get(row, 5)?,
                place: get(row, 6)?,
                offered: get(row, 7)?,
                patience: get(row, 8)?,
            })
        },
    )?
    .ok_or_else(|| Error::missing("job", job).into())
}

/// Tells a job. The request and the queue count what is held; at its end the job's account is
/// closed into the request's. Whoever tells it that it is ready follows up with
/// [`crate::progress::follow`], which offers it.
pub(crate) fn job(
    verb: &mut Verb<'_>,
    job: JobId,
    command: JobCommand,
    told: impl Into<Told>,
) -> Result<JobState, Trouble> {
    let Told { failure, until } = told.into();
    let row = job_row(verb, job)?;
    let (from, request) = (row.state, row.request);
    let to = from.apply(command)?;
    let kept = failure.as_ref().filter(|_| to.is_terminal());
    // Its place is that of the first time: what is tried again has waited already.
    let place = match row.place {
        0 if to == JobState::Ready => queue::place(verb.now, row.patience),
        known => known,
    };
    run(
        verb,
        "UPDATE jobs SET state = ?2, failure = ?3, ended = ?4, \
         attempt = CASE WHEN ?5 THEN attempt WHEN EXISTS (SELECT 1 FROM attempts t \
         WHERE t.id = jobs.attempt AND t.ended IS NULL) THEN attempt ELSE NULL END, place = ?6, \
         offered = 0, until = ?7, parked = ?8 WHERE n = ?1",
        (
            row.n,
            to.as_str(),
            to_maybe_json(kept)?,
            to.is_terminal().then_some(verb.now.0),
            to.is_held(),
            place,
            until.map(|until| until.0),
            until.map(|_| verb.now.0),
        ),
    )?;
    if let Some(until) = until {
        verb.known.waits_until(until);
    }
    if row.offered {
        queue::delete(verb, row.queue, row.place, row.n)?;
    }
    let offered = -i64::from(row.offered);
    let held = i64::from(to.is_held()) - i64::from(from.is_held());
    verb.count(Kind::Job, row.queue, offered, held);
    if offered != 0 || held != 0 {
        run(
            verb,
            "UPDATE requests SET held = held + ?2, offered = offered + ?3 WHERE id = ?1",
            (request.key(), held, offered),
        )?;
    }
    if to.is_terminal() {
        account::close_child(verb, row.account)?;
        history::ended(verb, to, failure.as_ref().map(|failure| failure.reason))?;
    }
    verb.event(
        row.session,
        Some(request),
        Body::JobChanged {
            job,
            from,
            to,
            failure,
            until,
        },
    );
    Ok(to)
}
