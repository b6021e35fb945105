//! Grants as they are stored: a spender's way to an account, with the calls that are under way.

use crate::{
    account,
    error::{Error, Trouble},
    pending::Pending,
    sql::{Key, Sql, all, count, get, id, json, number, one, run, to_json},
    writer::Verb,
};
use domain::{Amount, AttemptId, GrantId, RequestId, SessionId, budget::Refused};
use rusqlite::Row;

/// A grant as it is stored.
pub(crate) struct Grant {
    pub(crate) n: i64,
    pub(crate) request: RequestId,
    pub(crate) session: SessionId,
    pub(crate) attempt: Option<AttemptId>,
    pub(crate) account: i64,
    pub(crate) closed: bool,
    /// The calls that are under way.
    pub(crate) pending: Pending,
    /// How many calls were reserved: the number of the last one.
    pub(crate) calls: u64,
}

fn read(row: &Row<'_>) -> Result<Grant, Trouble> {
    Ok(Grant {
        n: get(row, 0)?,
        request: id(row, 1)?,
        session: id(row, 2)?,
        attempt: get::<Option<i64>>(row, 3)?.map(Key::read),
        account: get(row, 4)?,
        closed: get(row, 5)?,
        pending: json(row, 6)?,
        calls: count(row, 7)?,
    })
}

/// A grant, open or closed.
pub(crate) fn load(verb: &Verb<'_>, grant: GrantId) -> Result<Grant, Trouble> {
    one(
        verb,
        "SELECT g.n, g.request, r.session, g.attempt, g.account, g.closed, \
         g.pending, g.calls FROM grants g JOIN requests r ON r.id = g.request WHERE g.id = ?1",
        [grant.key()],
        read,
    )?
    .ok_or_else(|| Error::missing("grant", grant).into())
}

/// A grant, which must be open.
pub(crate) fn open(verb: &Verb<'_>, grant: GrantId) -> Result<Grant, Trouble> {
    let row = load(verb, grant)?;
    if row.closed {
        return Err(Refused::Closed.into());
    }
    Ok(row)
}

/// Closes every open grant of a lease.
pub(crate) fn close_all(verb: &mut Verb<'_>, lease: i64) -> Result<(), Trouble> {
    let open = all(
        verb,
        "SELECT g.n, g.request, r.session, g.attempt, g.account, g.closed, \
         g.pending, g.calls FROM grants g JOIN requests r ON r.id = g.request \
         WHERE g.lease = ?1 AND g.closed = 0",
        [lease],
        read,
    )?;
    open.iter().try_for_each(|row| close(verb, row))
}

/// Closes a grant, unless it is: what it had reserved counts as spent.
pub(crate) fn close(verb: &Verb<'_>, row: &Grant) -> Result<(), Trouble> {
    if row.closed {
        return Ok(());
    }
    let reserved = row.pending.total();
    if reserved != Amount::ZERO {
        let account = account::load(verb, row.account)?.settle(reserved, reserved)?;
        account::store(verb, row.account, account)?;
        add_spent(verb, row, reserved)?;
    }
    run(
        verb,
        "UPDATE grants SET closed = 1, pending = '{}', reserved_tokens = 0, reserved_money = 0, \
         reserved_wall = 0, reserved_iterations = 0 WHERE n = ?1",
        [row.n],
    )?;
    Ok(())
}

/// Stores which calls of a grant are under way.
pub(crate) fn set_pending(sql: &Sql, row: &Grant) -> Result<(), Trouble> {
    let [tokens, money, wall, iterations] = account::columns(row.pending.total());
    run(
        sql,
        "UPDATE grants SET pending = ?2, calls = ?3, reserved_tokens = ?4, reserved_money = ?5, \
         reserved_wall = ?6, reserved_iterations = ?7 WHERE n = ?1",
        (
            row.n,
            to_json(&row.pending)?,
            number(row.calls),
            tokens,
            money,
            wall,
            iterations,
        ),
    )?;
    Ok(())
}

/// Counts what a grant has spent, with its attempt.
pub(crate) fn add_spent(verb: &Verb<'_>, grant: &Grant, spent: Amount) -> Result<(), Trouble> {
    let [tokens, money, wall, iterations] = account::columns(spent);
    run(
        verb,
        "UPDATE grants SET spent_tokens = spent_tokens + ?2, spent_money = spent_money + ?3, \
         spent_wall = spent_wall + ?4, spent_iterations = spent_iterations + ?5 WHERE n = ?1",
        (grant.n, tokens, money, wall, iterations),
    )?;
    match grant.attempt {
        Some(attempt) => add_to_attempt(verb, attempt, spent),
        None => Ok(()),
    }
}

/// Counts what an attempt has spent.
pub(crate) fn add_to_attempt(
    verb: &Verb<'_>,
    attempt: AttemptId,
    spent: Amount,
) -> Result<(), Trouble> {
    let [tokens, money, wall, iterations] = account::columns(spent);
    run(
        verb,
        "UPDATE attempts SET tokens = tokens + ?2, money = money + ?3, wall = wall + ?4, \
         iterations = iterations + ?5 WHERE id = ?1",
        (attempt.key(), tokens, money, wall, iterations),
    )?;
    Ok(())
}
