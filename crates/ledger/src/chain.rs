//! The events of a session, as they are stored: each knows the one before it, the session knows
//! its last one, and every [`BLOCK`]th is found by its sequence.
//!
//! So a commit writes no page for each session, as it would with an index of them all, and whoever
//! reads goes no more than a block back for what it wants. What comes before the first event that
//! is kept is never looked at.
//!
//! A later event has a later row. So where the rows of a block are close together, because little
//! else was recorded meanwhile, they are read in one go; otherwise from the block's end back.

use crate::{
    error::Trouble,
    sql::{Sql, count, get, number, one},
};
use rusqlite::{CachedStatement, Row};

/// How far apart the events are that are found by their sequence; as in the index.
const BLOCK: u64 = 64;

/// Up to so many rows are read for each event that is wanted.
const SPARSE: u64 = 3;

/// The columns of an event that a reader gets after `n`, `sequence` and `previous`.
pub(crate) const FIRST: usize = 3;

/// Reads the events of a session after this sequence, oldest first, at most so many. `columns` are
/// what `map` finds from [`FIRST`] on; it is also told the row and the sequence.
///
/// # Errors
/// [`Trouble::Row`] where the chain is broken.
pub(crate) fn read<T>(
    sql: &Sql,
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
    let (mut done, mut done_row) = (after, place(sql, session, after)?);
    let mut events = Events::new(sql, session, columns)?;
    while done < end {
        let block = (done + 1).next_multiple_of(BLOCK);
        let (to, row) = match block < last {
            true => (
                block,
                place(sql, session, block)?.ok_or_else(|| broken(session, block))?,
            ),
            false => (last, last_row),
        };
        let part = Part {
            done,
            to,
            row,
            end: to.min(end),
        };
        match done_row {
            Some(done_row) if part.is_dense(done_row) => {
                events.forward(part, done_row, &mut found, &mut map)?;
            }
            _ => events.back(part, &mut found, &mut map)?,
        }
        (done, done_row) = (part.end, (part.end == to).then_some(row));
    }
    Ok(found)
}

/// A part of a block: what comes after `done`, as far as `end` of it.
#[derive(Clone, Copy)]
struct Part {
    done: u64,
    /// The last event of the block, and its row.
    to: u64,
    row: i64,
    end: u64,
}

impl Part {
    /// Whether little else is between this row of what comes before it and its last one.
    fn is_dense(self, done_row: i64) -> bool {
        let rows = u64::try_from(self.row.saturating_sub(done_row)).unwrap_or(u64::MAX);
        rows <= SPARSE * (self.to - self.done)
    }
}

/// The statements that read events of a session.
struct Events<'a> {
    session: i64,
    between: CachedStatement<'a>,
    at: CachedStatement<'a>,
}

impl<'a> Events<'a> {
    fn new(sql: &'a Sql, session: i64, columns: &str) -> Result<Self, Trouble> {
        let select = format!("SELECT n, sequence, previous, {columns} FROM events WHERE");
        Ok(Self {
            session,
            between: sql.prepare_cached(&format!(
                "{select} n > ?1 AND n <= ?2 AND session = ?3 ORDER BY n"
            ))?,
            at: sql.prepare_cached(&format!("{select} n = ?1"))?,
        })
    }

    /// Reads a part by the rows after the one before it.
    fn forward<T>(
        &mut self,
        part: Part,
        done_row: i64,
        found: &mut Vec<T>,
        map: &mut impl FnMut(&Row<'_>, i64, u64) -> Result<T, Trouble>,
    ) -> Result<(), Trouble> {
        let mut rows = self.between.query((done_row, part.row, self.session))?;
        let (mut sequence, mut previous) = (part.done, done_row);
        while sequence < part.end {
            sequence += 1;
            let event = rows.next()?.ok_or_else(|| broken(self.session, sequence))?;
            let follows = get::<Option<i64>>(event, 2)? == Some(previous);
            if count(event, 1)? != sequence || !follows {
                return Err(broken(self.session, sequence));
            }
            previous = get(event, 0)?;
            found.push(map(event, previous, sequence)?);
        }
        Ok(())
    }

    /// Reads a part from its block's end back.
    fn back<T>(
        &mut self,
        part: Part,
        found: &mut Vec<T>,
        map: &mut impl FnMut(&Row<'_>, i64, u64) -> Result<T, Trouble>,
    ) -> Result<(), Trouble> {
        let begun = found.len();
        let (mut sequence, mut row) = (part.to, part.row);
        loop {
            let mut rows = self.at.query([row])?;
            let event = rows.next()?.ok_or_else(|| broken(self.session, sequence))?;
            if count(event, 1)? != sequence {
                return Err(broken(self.session, sequence));
            }
            if sequence <= part.end {
                found.push(map(event, row, sequence)?);
            }
            if sequence == part.done + 1 {
                break;
            }
            sequence -= 1;
            row = get::<Option<i64>>(event, 2)?.ok_or_else(|| broken(self.session, sequence))?;
        }
        if let Some(part) = found.get_mut(begun..) {
            part.reverse();
        }
        Ok(())
    }
}

/// The row of an event that is found by its sequence, if it is one of those and is kept.
fn place(sql: &Sql, session: i64, sequence: u64) -> Result<Option<i64>, Trouble> {
    if !sequence.is_multiple_of(BLOCK) {
        return Ok(None);
    }
    one(
        sql,
        "SELECT n FROM events WHERE session = ?1 AND sequence = ?2 AND sequence % 64 = 0",
        (session, number(sequence)),
        |row| get(row, 0),
    )
}

fn broken(session: i64, sequence: u64) -> Trouble {
    Trouble::Row(format!(
        "the event {sequence} of the session in row {session} is not where it should be"
    ))
}
