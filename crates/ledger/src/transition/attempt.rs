//! Attempts are told, and what they take of the time is spent.

use crate::{
    budget,
    error::{Error, Trouble},
    history,
    sql::{Key, count, get, id, one, run, time, to_maybe_json, word},
    writer::Verb,
};
use domain::{
    Amount, AttemptId, AttemptState, Failure, RequestId, SessionId, Timestamp, entity::ObjectName,
    event::Body, machine::Machine, state::AttemptCommand,
};
use std::time::Duration;

/// Tells an attempt that its agent works.
pub(crate) fn attempt_runs(verb: &mut Verb<'_>, attempt: AttemptId) -> Result<(), Trouble> {
    let row = attempt_row(verb, attempt)?;
    let to = row.state.apply(AttemptCommand::Run)?;
    run(
        verb,
        "UPDATE attempts SET state = ?2 WHERE id = ?1",
        (attempt.key(), to.as_str()),
    )?;
    attempt_event(verb, &row, attempt, to, Told::default());
    Ok(())
}

/// Tells an attempt that its agent has ended its turn, and what the workspace held then.
pub(crate) fn attempt_checks(
    verb: &mut Verb<'_>,
    attempt: AttemptId,
    tree: ObjectName,
) -> Result<(), Trouble> {
    let row = attempt_row(verb, attempt)?;
    let to = row.state.apply(AttemptCommand::Check)?;
    run(
        verb,
        "UPDATE attempts SET state = ?2, tree = ?3 WHERE id = ?1",
        (attempt.key(), to.as_str(), &tree),
    )?;
    let told = Told {
        tree: Some(tree),
        ..Told::default()
    };
    attempt_event(verb, &row, attempt, to, told);
    Ok(())
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

/// Tells an attempt its end and spends its wall time that is not booked yet. Its grants must be
/// closed already.
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
    attempt_event(verb, &row, attempt, to, Told::of(end.failure));
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
    attempt_event(verb, &row, attempt, to, Told::of(failure));
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
    attempt_event(verb, &row, attempt, to, Told::default());
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

/// What is told of a step besides.
#[derive(Default)]
struct Told {
    failure: Option<Failure>,
    tree: Option<ObjectName>,
}

impl Told {
    fn of(failure: Option<Failure>) -> Self {
        Self {
            failure,
            tree: None,
        }
    }
}

fn attempt_event(
    verb: &mut Verb<'_>,
    row: &AttemptRow,
    attempt: AttemptId,
    to: AttemptState,
    told: Told,
) {
    verb.event(
        row.session,
        Some(row.request),
        Body::AttemptChanged {
            attempt,
            from: row.state,
            to,
            failure: told.failure,
            tree: told.tree,
        },
    );
}
