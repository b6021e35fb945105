//! The only writers of states: each asks the machine, stores its answer and says what happened.

use crate::{
    budget,
    error::{Error, Trouble},
    history,
    queue::{self, Kind, Offer},
    sql::{Key, count, get, id, one, run, time, to_json, to_maybe_json, word},
    writer::Verb,
};
use domain::{
    Amount, AttemptId, AttemptState, ChangeId, ChangeState, Failure, JobId, JobState, RequestId,
    RequestState, SessionId, Timestamp,
    entity::ObjectName,
    event::Body,
    machine::Machine,
    state::{AttemptCommand, ChangeCommand, JobCommand, RequestCommand},
};
use std::time::Duration;

/// Tells a request. While it is queued, and need not wait, it is offered to planners; its jobs are offered only while
/// it is under way. At its end its account is closed.
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
        budget::close(verb, account)?;
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

/// Offers what has become claimable, takes back what is not any more, and counts what is held:
/// (claimable, held) before and after.
fn queued(
    verb: &Verb<'_>,
    offer: Offer,
    from: (bool, bool),
    to: (bool, bool),
) -> Result<(), Trouble> {
    match (from.0, to.0) {
        (false, true) => queue::insert(verb, offer)?,
        (true, false) => queue::delete(verb, offer.queue, offer.place, offer.subject)?,
        _ => {}
    }
    queue::count_changes(
        verb,
        offer.queue,
        i64::from(to.0) - i64::from(from.0),
        i64::from(to.1) - i64::from(from.1),
    )
}

/// What a request or a job is told besides the command.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) failure: Option<Failure>,
    /// Until when a job is parked, or a queued request waits.
    pub(crate) until: Option<Timestamp>,
}

impl From<Option<Failure>> for Told {
    fn from(failure: Option<Failure>) -> Self {
        Self {
            failure,
            until: None,
        }
    }
}

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
    queue::count_changes(verb, row.queue, offered, held)?;
    if offered != 0 || held != 0 {
        run(
            verb,
            "UPDATE requests SET held = held + ?2, offered = offered + ?3 WHERE id = ?1",
            (request.key(), held, offered),
        )?;
    }
    if to.is_terminal() {
        budget::close_child(verb, row.account)?;
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

/// Tells an attempt that goes on.
pub(crate) fn attempt(
    verb: &mut Verb<'_>,
    attempt: AttemptId,
    command: AttemptCommand,
) -> Result<AttemptState, Trouble> {
    let row = attempt_row(verb, attempt)?;
    let to = row.state.apply(command)?;
    run(
        verb,
        "UPDATE attempts SET state = ?2 WHERE id = ?1",
        (attempt.key(), to.as_str()),
    )?;
    attempt_event(verb, &row, attempt, to, None);
    Ok(to)
}

/// What is known of an attempt at its end.
pub(crate) struct End {
    pub(crate) failure: Option<Failure>,
    pub(crate) summary: String,
    pub(crate) tree: Option<ObjectName>,
    /// Until when it worked: its wall time is spent up to here.
    pub(crate) until: Timestamp,
}

impl End {
    pub(crate) fn at(until: Timestamp) -> Self {
        Self {
            failure: None,
            summary: String::new(),
            tree: None,
            until,
        }
    }
}

/// Tells an attempt its end and spends its wall time that is not booked yet. Its grants must be closed already.
pub(crate) fn end_attempt(
    verb: &mut Verb<'_>,
    attempt: AttemptId,
    command: AttemptCommand,
    end: End,
) -> Result<AttemptState, Trouble> {
    let row = attempt_row(verb, attempt)?;
    let to = row.state.apply(command)?;
    run(
        verb,
        "UPDATE attempts SET state = ?2, failure = ?3, summary = ?4, \
         tree = COALESCE(?5, tree), ended = ?6 WHERE id = ?1",
        (
            attempt.key(),
            to.as_str(),
            to_maybe_json(end.failure.as_ref())?,
            &end.summary,
            &end.tree,
            verb.now.0,
        ),
    )?;
    let last = spend_time(verb, &row, attempt, end.until)?;
    history::ran(verb, row.ran.saturating_add(last))?;
    attempt_event(verb, &row, attempt, to, end.failure);
    Ok(to)
}

/// Suspends an attempt that nobody holds any more, and spends its wall time until then. Its grants
/// must be closed already.
pub(crate) fn suspend_attempt(
    verb: &mut Verb<'_>,
    attempt: AttemptId,
    until: Timestamp,
    failure: Option<Failure>,
) -> Result<(), Trouble> {
    let row = attempt_row(verb, attempt)?;
    let to = row.state.apply(AttemptCommand::Suspend)?;
    run(
        verb,
        "UPDATE attempts SET state = ?2, was = ?3 WHERE id = ?1",
        (attempt.key(), to.as_str(), row.state.as_str()),
    )?;
    spend_time(verb, &row, attempt, until)?;
    attempt_event(verb, &row, attempt, to, failure);
    Ok(())
}

/// Lets a suspended attempt go on where it was. Its wall time counts from now on.
pub(crate) fn resume_attempt(
    verb: &mut Verb<'_>,
    attempt: AttemptId,
) -> Result<AttemptState, Trouble> {
    let row = attempt_row(verb, attempt)?;
    let command = match row.was {
        Some(AttemptState::Checking) => AttemptCommand::Check,
        _ => AttemptCommand::Run,
    };
    let to = row.state.apply(command)?;
    run(
        verb,
        "UPDATE attempts SET state = ?2, was = NULL, resumed = ?3 WHERE id = ?1",
        (attempt.key(), to.as_str(), verb.now.0),
    )?;
    attempt_event(verb, &row, attempt, to, None);
    Ok(to)
}

/// Spends the wall time of an attempt that is not booked yet, and says how much that is: none while
/// it is suspended.
fn spend_time(
    verb: &Verb<'_>,
    row: &AttemptRow,
    attempt: AttemptId,
    until: Timestamp,
) -> Result<Duration, Trouble> {
    if row.state == AttemptState::Suspended {
        return Ok(Duration::ZERO);
    }
    let ran = until.since(row.since);
    let spent = Amount {
        wall_ms: u64::try_from(ran.as_millis())
            .unwrap_or(Amount::UNBOUNDED)
            .min(Amount::UNBOUNDED),
        ..Amount::ZERO
    };
    budget::spend(verb, row.account, attempt, spent)?;
    Ok(ran)
}

struct AttemptRow {
    state: AttemptState,
    /// The state that it left, while it is suspended.
    was: Option<AttemptState>,
    /// Since when its wall time is not booked.
    since: Timestamp,
    /// How long it ran before, as it is booked.
    ran: Duration,
    request: RequestId,
    session: SessionId,
    account: i64,
}

fn attempt_row(verb: &Verb<'_>, attempt: AttemptId) -> Result<AttemptRow, Trouble> {
    one(
        verb,
        "SELECT a.state, COALESCE(a.resumed, a.created), a.request, r.session, j.account, a.was, \
         a.wall FROM attempts a \
         JOIN requests r ON r.id = a.request JOIN jobs j ON j.id = a.job WHERE a.id = ?1",
        [attempt.key()],
        |row| {
            Ok(AttemptRow {
                state: word(row, 0)?,
                was: match get::<Option<String>>(row, 5)? {
                    Some(_) => Some(word(row, 5)?),
                    None => None,
                },
                since: time(row, 1)?,
                ran: Duration::from_millis(count(row, 6)?),
                request: id(row, 2)?,
                session: id(row, 3)?,
                account: get(row, 4)?,
            })
        },
    )?
    .ok_or_else(|| Error::missing("attempt", attempt).into())
}

fn attempt_event(
    verb: &mut Verb<'_>,
    row: &AttemptRow,
    attempt: AttemptId,
    to: AttemptState,
    failure: Option<Failure>,
) {
    verb.event(
        row.session,
        Some(row.request),
        Body::AttemptChanged {
            attempt,
            from: row.state,
            to,
            failure,
        },
    );
}

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
