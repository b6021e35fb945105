//! The only writers of states: each asks the machine, stores its answer and says what happened.

use crate::{
    budget,
    error::{Error, Trouble},
    sql::{Key, get, id, one, run, time, to_json, to_maybe_json, word},
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

/// Tells a request. At its end its account is closed.
pub(crate) fn request(
    verb: &mut Verb<'_>,
    request: RequestId,
    command: RequestCommand,
    failure: Option<Failure>,
) -> Result<RequestState, Trouble> {
    let found = one(
        verb,
        "SELECT state, session, account FROM requests WHERE id = ?1",
        [request.key()],
        |row| {
            Ok((
                word::<RequestState>(row, 0)?,
                id::<SessionId>(row, 1)?,
                get::<i64>(row, 2)?,
            ))
        },
    )?;
    let (from, session, account) = found.ok_or_else(|| Error::missing("request", request))?;
    let to = from.apply(command)?;
    let kept = failure.as_ref().filter(|_| to.is_terminal());
    run(
        verb,
        "UPDATE requests SET state = ?2, failure = ?3, ended = ?4 WHERE id = ?1",
        (
            request.key(),
            to.as_str(),
            to_maybe_json(kept)?,
            to.is_terminal().then_some(verb.now.0),
        ),
    )?;
    if to.is_terminal() {
        let closed = budget::load(verb, account)?.close();
        budget::store(verb, account, closed)?;
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

/// Tells a job. The request counts the jobs that are held; at its end the job's account is closed
/// into the request's.
pub(crate) fn job(
    verb: &mut Verb<'_>,
    job: JobId,
    command: JobCommand,
    failure: Option<Failure>,
) -> Result<JobState, Trouble> {
    let found = one(
        verb,
        "SELECT j.state, j.request, j.account, r.session \
         FROM jobs j JOIN requests r ON r.id = j.request WHERE j.id = ?1",
        [job.key()],
        |row| {
            Ok((
                word::<JobState>(row, 0)?,
                id::<RequestId>(row, 1)?,
                get::<i64>(row, 2)?,
                id::<SessionId>(row, 3)?,
            ))
        },
    )?;
    let (from, request, account, session) = found.ok_or_else(|| Error::missing("job", job))?;
    let to = from.apply(command)?;
    let kept = failure.as_ref().filter(|_| to.is_terminal());
    run(
        verb,
        "UPDATE jobs SET state = ?2, failure = ?3, ended = ?4, \
         attempt = CASE ?5 WHEN 1 THEN attempt ELSE NULL END WHERE id = ?1",
        (
            job.key(),
            to.as_str(),
            to_maybe_json(kept)?,
            to.is_terminal().then_some(verb.now.0),
            to.is_held(),
        ),
    )?;
    let held = i64::from(to.is_held()) - i64::from(from.is_held());
    if held != 0 {
        run(
            verb,
            "UPDATE requests SET held = held + ?2 WHERE id = ?1",
            (request.key(), held),
        )?;
    }
    if to.is_terminal() {
        budget::close_child(verb, account)?;
    }
    verb.event(
        session,
        Some(request),
        Body::JobChanged {
            job,
            from,
            to,
            failure,
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

/// Tells an attempt its end and spends its wall time. Its grants must be closed already.
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
    let wall = end.until.since(row.created).as_millis();
    let spent = Amount {
        wall_ms: u64::try_from(wall)
            .unwrap_or(Amount::UNBOUNDED)
            .min(Amount::UNBOUNDED),
        ..Amount::ZERO
    };
    budget::spend(verb, row.account, attempt, spent)?;
    attempt_event(verb, &row, attempt, to, end.failure);
    Ok(to)
}

struct AttemptRow {
    state: AttemptState,
    created: Timestamp,
    request: RequestId,
    session: SessionId,
    account: i64,
}

fn attempt_row(verb: &Verb<'_>, attempt: AttemptId) -> Result<AttemptRow, Trouble> {
    one(
        verb,
        "SELECT a.state, a.created, a.request, r.session, j.account FROM attempts a \
         JOIN requests r ON r.id = a.request JOIN jobs j ON j.id = a.job WHERE a.id = ?1",
        [attempt.key()],
        |row| {
            Ok(AttemptRow {
                state: word(row, 0)?,
                created: time(row, 1)?,
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
}

/// Tells a change.
pub(crate) fn change(
    verb: &mut Verb<'_>,
    change: ChangeId,
    command: ChangeCommand,
    landing: Landing,
) -> Result<RequestId, Trouble> {
    let found = one(
        verb,
        "SELECT c.state, c.request, r.session \
         FROM changes c JOIN requests r ON r.id = c.request WHERE c.id = ?1",
        [change.key()],
        |row| {
            Ok((
                word::<ChangeState>(row, 0)?,
                id::<RequestId>(row, 1)?,
                id::<SessionId>(row, 2)?,
            ))
        },
    )?;
    let (from, request, session) = found.ok_or_else(|| Error::missing("change", change))?;
    let to = from.apply(command)?;
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
            to_maybe_json(landing.failure.as_ref())?,
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
