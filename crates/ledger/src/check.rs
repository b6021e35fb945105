//! The check of everything that must hold at every commit.
//!
//! It holds one request at a time in memory, so it takes a ledger of any size. It reads on a
//! connection of its own, as of one moment, while others go on.

mod blobs;
mod request;
mod rows;

use crate::{
    blob::blocking,
    error::{Error, Trouble},
    ledger::Ledger,
    schema,
    sql::{Sql, get, run},
};
use std::{fmt, path::Path};

/// The most violations that are named.
pub(crate) const MAX_VIOLATIONS: usize = 100;
/// How many requests are looked at between two reports of progress.
const PAGE: u64 = 1_000;

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How deep a check looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// At every row.
    #[default]
    Rows,
    /// At every row, and at the content of every blob that a row names.
    Blobs,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It looks at requests.
    Requests {
        /// So many were looked at.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// It reads blobs.
    Blobs {
        /// So many were looked at.
        done: u64,
        /// Of so many.
        total: u64,
    },
}

impl Ledger {
    /// Everything that does not hold, of all that must: budgets conserve up the tree, sequences
    /// have no gap, what is held has a lease and what has ended has none, every state is what
    /// its events say, and each blob is counted as often as it is named. It reads every row, and
    /// names at most a hundred violations.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn check(&self) -> Result<Vec<Violation>, Error> {
        self.check_to(Depth::Rows, |_| {}).await
    }

    /// The same, as deep as this, telling how far it is.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn check_to(
        &self,
        depth: Depth,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Vec<Violation>, Error> {
        let directory = self.directory().to_owned();
        let top = self.blobs().top().to_owned();
        blocking(move || {
            schema::connect(&directory, false)
                .map(Sql::from)
                .and_then(|sql| check(&sql, &top, depth, &mut progress))
                .map_err(|trouble| trouble.during("check itself"))
        })
        .await
    }
}

fn check(
    sql: &Sql,
    top: &Path,
    depth: Depth,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Violation>, Trouble> {
    // Names of blobs are counted in a temporary table, which may be too long for the memory.
    sql.pragma_update(None, "query_only", false)?;
    sql.pragma_update(None, "temp_store", "FILE")?;
    run(sql, "BEGIN", [])?;
    let mut report = Report::default();
    rows::grants(sql, &mut report)?;
    rows::sequences(sql, &mut report)?;
    rows::leases(sql, &mut report)?;
    rows::queues(sql, &mut report)?;
    rows::outbox(sql, &mut report)?;
    rows::undelivered(sql, &mut report)?;
    requests(sql, &mut report, progress)?;
    if depth == Depth::Blobs {
        blobs::files(sql, top, &mut report, progress)?;
    }
    run(sql, "COMMIT", [])?;
    Ok(report.0)
}

/// What must hold of each request, one after the other.
fn requests(
    sql: &Sql,
    report: &mut Report,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Trouble> {
    let counted = |table: &str| -> Result<u64, Trouble> {
        let text = format!("SELECT COUNT(*) FROM {table}");
        Ok(sql
            .query_row(&text, [], |row| row.get::<_, i64>(0))?
            .unsigned_abs())
    };
    let total = counted("requests")?;
    let mut named = blobs::Named::new(sql)?;
    let (mut done, mut accounts, mut after) = (0, 0, i64::MIN);
    while let Some(request) = request::next(sql, after)? {
        accounts += request::check(sql, &request, &mut named, report)?;
        after = request.n;
        done += 1;
        if done % PAGE == 0 || done == total {
            progress(Progress::Requests { done, total });
        }
    }
    let all = counted("accounts")?;
    report.expect(accounts == all, || {
        format!("there are {all} accounts, and requests and jobs have {accounts}")
    });
    named.agree(report)
}

#[derive(Default)]
struct Report(Vec<Violation>);

impl Report {
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.0.len() < MAX_VIOLATIONS {
            self.0.push(Violation(what()));
        }
    }

    /// A query that finds only what must not be; each row says what it is.
    fn none(&mut self, sql: &Sql, what: &str, query: &str) -> Result<(), Trouble> {
        let query = format!("{query} LIMIT {MAX_VIOLATIONS}");
        let mut statement = sql.prepare(&query)?;
        let mut rows = statement.query([])?;
        while let Some(found) = rows.next()? {
            let row: i64 = get(found, 0)?;
            self.expect(false, || format!("{what}: row {row}"));
        }
        Ok(())
    }
}
