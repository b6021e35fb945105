//! Statements: prepared once, with rows that are read into the words of the domain.

use crate::error::Trouble;
use domain::{
    AttemptId, ChangeId, EventId, GrantId, JobId, LeaseId, RepositoryId, RequestId, SessionId,
    Timestamp,
};
use foldhash::HashMap;
use rusqlite::{Connection, Params, Row, Statement, types::FromSql};
use self_cell::self_cell;
use serde::{Serialize, de::DeserializeOwned};
use std::{cell::RefCell, fmt::Display, ops::Deref, str::FromStr};

/// A connection with the statements that were prepared on it.
///
/// A verb is some thirty statements of a few microseconds each, so finding one counts: each is
/// found by where its text is in the program, and not by the text.
pub(crate) struct Sql(Prepared);

self_cell!(
    struct Prepared {
        owner: Connection,
        #[not_covariant]
        dependent: Statements,
    }
);

/// By the place and the length of their texts.
type Statements<'a> = RefCell<HashMap<(usize, usize), Statement<'a>>>;

impl Deref for Sql {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.0.borrow_owner()
    }
}

impl From<Connection> for Sql {
    fn from(connection: Connection) -> Self {
        Self(Prepared::new(connection, |_| RefCell::default()))
    }
}

impl Sql {
    /// Does something with a statement. It is prepared the first time, and whenever it is used
    /// while it is in use.
    fn with<T>(
        &self,
        text: &'static str,
        work: impl FnOnce(&mut Statement<'_>) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        self.0.with_dependent(|sql, statements| {
            let place = (text.as_ptr().addr(), text.len());
            let known = statements.borrow_mut().remove(&place);
            let mut statement = match known {
                Some(known) => known,
                None => sql.prepare(text)?,
            };
            let outcome = work(&mut statement);
            // What was bound can be many megabytes.
            statement.clear_bindings();
            statements.borrow_mut().insert(place, statement);
            outcome
        })
    }

    /// Ends it.
    pub(crate) fn close(self) -> Result<(), rusqlite::Error> {
        self.0.into_owner().close().map_err(|(_, error)| error)
    }
}

/// The first row, if there is one.
pub(crate) fn one<T>(
    sql: &Sql,
    text: &'static str,
    params: impl Params,
    map: impl FnOnce(&Row<'_>) -> Result<T, Trouble>,
) -> Result<Option<T>, Trouble> {
    sql.with(text, |statement| {
        let mut rows = statement.query(params)?;
        rows.next()?.map(map).transpose()
    })
}

/// All rows.
pub(crate) fn all<T>(
    sql: &Sql,
    text: &'static str,
    params: impl Params,
    mut map: impl FnMut(&Row<'_>) -> Result<T, Trouble>,
) -> Result<Vec<T>, Trouble> {
    sql.with(text, |statement| {
        let mut rows = statement.query(params)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(map(row)?);
        }
        Ok(found)
    })
}

/// The first row of those for which `map` has an answer.
pub(crate) fn first<T>(
    sql: &Sql,
    text: &'static str,
    params: impl Params,
    mut map: impl FnMut(&Row<'_>) -> Result<Option<T>, Trouble>,
) -> Result<Option<T>, Trouble> {
    sql.with(text, |statement| {
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            if let Some(found) = map(row)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    })
}

/// A statement without rows; says how many rows it changed.
pub(crate) fn run(sql: &Sql, text: &'static str, params: impl Params) -> Result<usize, Trouble> {
    sql.with(text, |statement| Ok(statement.execute(params)?))
}

/// A column.
pub(crate) fn get<T: FromSql>(row: &Row<'_>, column: usize) -> Result<T, Trouble> {
    Ok(row.get(column)?)
}

/// An id as it is stored.
pub(crate) trait Key: Copy + Display {
    /// From the column.
    fn read(bits: i64) -> Self;
    /// For a column.
    fn key(self) -> i64;
}

macro_rules! keys {
    ($($name:ident)*) => {$(
        impl Key for $name {
            fn read(bits: i64) -> Self { Self::from_bits(bits.cast_unsigned()) }
            fn key(self) -> i64 { self.bits().cast_signed() }
        }
    )*};
}
keys!(SessionId RequestId JobId AttemptId ChangeId LeaseId GrantId RepositoryId EventId);

/// An id column.
pub(crate) fn id<K: Key>(row: &Row<'_>, column: usize) -> Result<K, Trouble> {
    Ok(K::read(get(row, column)?))
}

/// A state column.
pub(crate) fn word<T: FromStr>(row: &Row<'_>, column: usize) -> Result<T, Trouble>
where
    T::Err: Display,
{
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| Trouble::Row(error.to_string()))?;
    text.parse()
        .map_err(|error: T::Err| Trouble::Row(error.to_string()))
}

/// A time column.
pub(crate) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp, Trouble> {
    Ok(Timestamp(get(row, column)?))
}

/// A time column that may be empty.
pub(crate) fn maybe_time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, Trouble> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp))
}

/// A column that holds JSON.
pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, Trouble> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|error| Trouble::Row(error.to_string()))?;
    from_json(text)
}

/// What was stored as JSON.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Trouble> {
    serde_json::from_str(text).map_err(|error| Trouble::Row(error.to_string()))
}

/// A column that holds JSON or nothing.
pub(crate) fn maybe_json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> Result<Option<T>, Trouble> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => json(row, column).map(Some),
    }
}

/// JSON for a column.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, Trouble> {
    serde_json::to_string(value).map_err(|error| Trouble::Row(error.to_string()))
}

/// JSON for a column, or nothing.
pub(crate) fn to_maybe_json(value: Option<&impl Serialize>) -> Result<Option<String>, Trouble> {
    value.map(to_json).transpose()
}

/// A count for a column. Counts here are far below 2⁶³.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count from a column.
pub(crate) fn count(row: &Row<'_>, column: usize) -> Result<u64, Trouble> {
    Ok(u64::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

/// A small count from a column.
pub(crate) fn small(row: &Row<'_>, column: usize) -> Result<u32, Trouble> {
    Ok(u32::try_from(get::<i64>(row, column)?).unwrap_or(0))
}
