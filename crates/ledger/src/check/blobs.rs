//! Names of blobs: counted again, and their files read.

use super::{Progress, Report};
use crate::{
    blob::{blob_id, directory},
    error::{Error, Trouble},
    sql::{Sql, all, get, run},
};
use domain::BlobId;
use std::path::Path;

/// How many blobs are looked at between two reports of progress.
const PAGE: i64 = 1_000;

/// The names that rows have for blobs, counted in a table that is gone with the connection.
pub(super) struct Named<'a>(&'a Sql);

impl<'a> Named<'a> {
    pub(super) fn new(sql: &'a Sql) -> Result<Self, Trouble> {
        sql.execute_batch(
            "CREATE TEMP TABLE named (id BLOB PRIMARY KEY, refs INTEGER NOT NULL) \
             STRICT, WITHOUT ROWID",
        )?;
        Ok(Self(sql))
    }

    pub(super) fn add(&mut self, id: BlobId) -> Result<(), Trouble> {
        run(
            self.0,
            "INSERT INTO named (id, refs) VALUES (?1, 1) \
             ON CONFLICT (id) DO UPDATE SET refs = refs + 1",
            [id.as_bytes()],
        )?;
        Ok(())
    }

    /// Each blob is counted as often as it is named.
    pub(super) fn agree(&self, report: &mut Report) -> Result<(), Trouble> {
        let mut statement = self.0.prepare(
            "SELECT b.id, b.refs, COALESCE(n.refs, 0) FROM blobs b LEFT JOIN named n \
             ON n.id = b.id WHERE b.refs <> COALESCE(n.refs, 0) \
             UNION ALL SELECT n.id, 0, n.refs FROM named n LEFT JOIN blobs b ON b.id = n.id \
             WHERE b.id IS NULL LIMIT ?1",
        )?;
        let mut rows = statement.query([super::MAX_VIOLATIONS as i64])?;
        while let Some(row) = rows.next()? {
            let (id, counted) = (blob_id(row, 0)?, get::<i64>(row, 1)?);
            let named = get::<i64>(row, 2)?;
            report.expect(false, || {
                format!("the blob {id} is counted {counted} times and named {named} times")
            });
        }
        Ok(())
    }
}

/// Every blob that is named is there and is what was stored.
pub(super) fn files(
    sql: &Sql,
    top: &Path,
    report: &mut Report,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Trouble> {
    let total: i64 = sql.query_row("SELECT COUNT(*) FROM blobs", [], |row| row.get(0))?;
    let mut after = Vec::new();
    let mut done = 0;
    loop {
        let page = all(
            sql,
            "SELECT id, refs FROM blobs WHERE id > ?1 ORDER BY id LIMIT ?2",
            (&after, PAGE),
            |row| Ok((blob_id(row, 0)?, get::<i64>(row, 1)?)),
        )?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = last.as_bytes().to_vec();
        done += page.len() as u64;
        for (id, refs) in page {
            if refs == 0 {
                continue;
            }
            match directory::open_blob(top, id).map(|found| found.map(|blob| blob.verify())) {
                Ok(Some(Ok(()))) => {}
                Ok(Some(Err(error))) if error.kind() == std::io::ErrorKind::InvalidData => {
                    report.expect(false, || error.to_string());
                }
                Ok(None) => report.expect(false, || format!("the blob {id} is named and missing")),
                Err(error) | Ok(Some(Err(error))) => {
                    return Err(Error::file("read a blob", error).into());
                }
            }
        }
        progress(Progress::Blobs {
            done,
            total: total.unsigned_abs(),
        });
    }
}
