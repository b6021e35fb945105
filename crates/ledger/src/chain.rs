//! The events of a session, as they are stored: each knows the one before it, the session knows
//! its last one, and every [`BLOCK`]th is found by its sequence.
//!
//! So a commit writes no page for each session, as it would with an index of them all, and whoever
//! reads goes no more than a block back for what it wants. What comes before the first event that
//! is kept is never looked at.

use crate::{
    error::Trouble,
    sql::{count, get, number, one},
};
use rusqlite::{Connection, Row};

/// How far apart the events are that are found by their sequence; as in the index.
const BLOCK: u64 = 64;

/// The columns of an event that a reader gets after `n`, `sequence` and `previous`.
pub(crate) const FIRST: usize = 3;

/// Reads the events of a session after this sequence, oldest first, at most so many. `columns` are
/// what `map` finds from [`FIRST`] on; it is also told the row and the sequence.
///
/// # Errors
/// [`Trouble::Row`] where the chain is broken.
pub(crate) fn read<T>(
    sql: &Connection,
    session: i64,
    after: u64,
    limit: usize,
    columns: &str,
    mut map: impl FnMut(&Row<'_>, i64, u64) -> Result<T, Trouble>,
) -> Result<Vec<T>, Trouble> {
    let ends = one(
        sql,
        "SELECT sequence, last FROM sessions WHERE n = ?1",
        [session],
        |row| Ok((count(row, 0)?, get::<Option<i64>>(row, 1)?)),
    )?;
    let Some((last, Some(last_row))) = ends else {
        return Ok(Vec::new());
    };
    let end = last.min(after.saturating_add(limit as u64));
    let mut found = Vec::with_capacity(usize::try_from(end.saturating_sub(after)).unwrap_or(0));
    let mut events = sql.prepare_cached(&format!(
        "SELECT n, sequence, previous, {columns} FROM events WHERE n = ?1"
    ))?;
    let mut done = after;
    while done < end {
        let block = (done + 1).next_multiple_of(BLOCK);
        let (mut sequence, mut row) = if block < last {
            (block, place(sql, session, block)?)
        } else {
            (last, last_row)
        };
        let begun = found.len();
        loop {
            let mut rows = events.query([row])?;
            let event = rows.next()?.ok_or_else(|| broken(session, sequence))?;
            if count(event, 1)? != sequence {
                return Err(broken(session, sequence));
            }
            if sequence <= end {
                found.push(map(event, row, sequence)?);
            }
            if sequence == done + 1 {
                break;
            }
            row = get::<Option<i64>>(event, 2)?.ok_or_else(|| broken(session, sequence - 1))?;
            sequence -= 1;
        }
        done = block.min(end);
        if let Some(block) = found.get_mut(begun..) {
            block.reverse();
        }
    }
    Ok(found)
}

/// The row of the event at a block's end.
fn place(sql: &Connection, session: i64, sequence: u64) -> Result<i64, Trouble> {
    one(
        sql,
        "SELECT n FROM events WHERE session = ?1 AND sequence = ?2 AND sequence % 64 = 0",
        (session, number(sequence)),
        |row| get(row, 0),
    )?
    .ok_or_else(|| broken(session, sequence))
}

fn broken(session: i64, sequence: u64) -> Trouble {
    Trouble::Row(format!(
        "the event {sequence} of the session in row {session} is not where it should be"
    ))
}
