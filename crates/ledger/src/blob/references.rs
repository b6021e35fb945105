//! How often each blob is named, counted with the rows that name it.

use super::directory;
use crate::{
    cassette::Exchange,
    error::{Error, Trouble},
    sql::{Sql, json, maybe_json, number, run},
    writer::Verb,
};
use domain::{BlobId, entity::Ask, event::Body};
use std::{io::ErrorKind, path::Path};

/// Counts names that the verb records.
///
/// # Errors
/// [`Error::BlobMissing`] for the first that is not there.
pub(crate) fn refer(
    verb: &Verb<'_>,
    blobs: impl IntoIterator<Item = BlobId>,
) -> Result<(), Trouble> {
    for id in blobs {
        let failed = |error| Error::file("look for a blob", error);
        let bytes = match verb.context.blobs.stored(id).map_err(failed)? {
            Some(bytes) => bytes,
            None => {
                // Nothing is being removed while this verb writes: what is aside was left there
                // by a process that died.
                let aside = verb.context.blobs.removing().join(id.to_string());
                match directory::put_back(verb.context.blobs.top(), &aside, id) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        return Err(Error::BlobMissing { id }.into());
                    }
                    placed => placed.map_err(failed)?,
                }
                verb.context.blobs.stored(id).map_err(failed)?.unwrap_or(0)
            }
        };
        add(verb, id, bytes)?;
    }
    Ok(())
}

fn add(sql: &Sql, id: BlobId, bytes: u64) -> Result<(), Trouble> {
    run(
        sql,
        "INSERT INTO blobs (id, bytes, refs) VALUES (?1, ?2, 1) \
         ON CONFLICT (id) DO UPDATE SET refs = refs + 1, bytes = excluded.bytes",
        (id.as_bytes(), number(bytes)),
    )?;
    Ok(())
}

/// Counts names that are not there any more.
pub(crate) fn forget(sql: &Sql, blobs: impl IntoIterator<Item = BlobId>) -> Result<(), Trouble> {
    for id in blobs {
        let known = run(
            sql,
            "UPDATE blobs SET refs = refs - 1 WHERE id = ?1",
            [id.as_bytes()],
        )?;
        if known == 0 {
            return Err(Trouble::Row(format!("the blob {id} is not counted")));
        }
    }
    Ok(())
}

/// Gives every name that a row has to `seen`, in no order.
pub(crate) fn each(
    sql: &Sql,
    mut seen: impl FnMut(BlobId) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut statement = sql.prepare("SELECT body FROM events")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        json::<Body>(row, 0)?.blobs().try_for_each(&mut seen)?;
    }
    let mut statement = sql.prepare("SELECT exchange FROM calls WHERE exchange IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(exchange) = maybe_json::<Exchange>(row, 0)? {
            exchange.blobs().try_for_each(&mut seen)?;
        }
    }
    let mut statement = sql.prepare("SELECT body FROM asks")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        json::<Ask>(row, 0)?.blobs().try_for_each(&mut seen)?;
    }
    Ok(())
}

/// Counts what the rows name that were written before names were counted. A blob that is not
/// there is counted too: it was lost earlier, and the check says so.
pub(crate) fn count_existing(sql: &Sql, data: &Path) -> Result<(), Trouble> {
    let top = data.join("blobs");
    each(sql, |id| {
        let bytes = directory::stored(&top, id)
            .map_err(|error| Error::file("look for a blob", error))?
            .unwrap_or(0);
        add(sql, id, bytes)
    })
}
