//! Statements: prepared once, with rows that are read into the words of the domain.

use crate::error::Trouble;
use domain::{
    AttemptId, ChangeId, EventId, GrantId, JobId, LeaseId, RepositoryId, RequestId, SessionId,
    Timestamp,
};
use rusqlite::{Connection, Params, Row, types::FromSql};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Display, str::FromStr};

/// The first row, if there is one.
pub(crate) fn one<T>(
    sql: &Connection,
    text: &str,
    params: impl Params,
    map: impl FnOnce(&Row<'_>) -> Result<T, Trouble>,
) -> Result<Option<T>, Trouble> {
    let mut statement = sql.prepare_cached(text)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(map).transpose()
}

/// All rows.
pub(crate) fn all<T>(
    sql: &Connection,
    text: &str,
    params: impl Params,
    mut map: impl FnMut(&Row<'_>) -> Result<T, Trouble>,
) -> Result<Vec<T>, Trouble> {
    let mut statement = sql.prepare_cached(text)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(map(row)?);
    }
    Ok(found)
}

/// A statement without rows; says how many rows it changed.
pub(crate) fn run(sql: &Connection, text: &str, params: impl Params) -> Result<usize, Trouble> {
    Ok(sql.prepare_cached(text)?.execute(params)?)
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
