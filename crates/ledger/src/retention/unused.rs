//! Rows of no request that nothing needs any more: counts of long ago, allowances that are full
//! again, and queues of which nothing is left.
//!
//! Repositories stay: their mirrors, with what is integrated in them, bear their ids.

use super::BATCH;
use crate::{
    admission,
    error::{Error, Trouble},
    history,
    ledger::Ledger,
    sql::{Key, Sql, all, count, get, one, run, to_json},
};
use domain::{RequestId, Timestamp};

/// Queues of which nothing is offered or held, and that no row names but those of the requests
/// whose ids are in the first parameter, a list in JSON.
macro_rules! left_over {
    ($what:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM queues WHERE offered = 0 AND held = 0 AND n NOT IN (\
             SELECT queue FROM requests WHERE id NOT IN (SELECT value FROM json_each(?1)) \
             UNION SELECT queue FROM jobs WHERE request NOT IN (SELECT value FROM json_each(?1)) \
             UNION SELECT queue FROM changes WHERE request NOT IN (SELECT value FROM json_each(?1)))"
        )
    };
}

impl Ledger {
    /// Removes them, some in a transaction; says how many.
    pub(super) async fn prune_unused(&self, before: Timestamp) -> Result<u64, Error> {
        let now = self.now();
        let hour = history::not_needed_before(now, before);
        let full = admission::full_since(now);
        let mut total = 0;
        loop {
            let removed = self
                .write("remove old counts", move |verb| {
                    Ok(old_counts(verb, hour)? + full_allowances(verb, full)?)
                })
                .await?;
            total += removed as u64;
            if removed < BATCH {
                break;
            }
        }
        // Every job that is kept is looked at to find them: not while others wait for the writer.
        let found = self
            .read("look for queues of nothing", |sql| {
                all(sql, left_over!("n"), ["[]"], |row| get::<i64>(row, 0))
            })
            .await?;
        for some in found.chunks(BATCH) {
            let some = to_json(&some).map_err(|trouble| trouble.during("remove queues"))?;
            total += self
                .write("remove queues of nothing", move |verb| {
                    verb.store_counts()?;
                    verb.known.forget();
                    Ok(queues(verb, &some)? as u64)
                })
                .await?;
        }
        Ok(total)
    }

    /// How many would be removed once these requests are.
    pub(super) async fn would_prune_unused(
        &self,
        before: Timestamp,
        gone: &[RequestId],
    ) -> Result<u64, Error> {
        let now = self.now();
        let hour = history::not_needed_before(now, before);
        let full = admission::full_since(now);
        let gone: Vec<i64> = gone.iter().map(|request| request.key()).collect();
        self.read("look for rows that nothing needs", move |sql| {
            let of = |found: Option<u64>| found.unwrap_or_default();
            let counts = one(
                sql,
                "SELECT COUNT(*) FROM history WHERE hour < ?1",
                [hour],
                |row| count(row, 0),
            )?;
            let allowances = one(
                sql,
                "SELECT COUNT(*) FROM rates WHERE time <= ?1",
                [full],
                |row| count(row, 0),
            )?;
            let queues = one(sql, left_over!("COUNT(*)"), [to_json(&gone)?], |row| {
                count(row, 0)
            })?;
            Ok(of(counts) + of(allowances) + of(queues))
        })
        .await
    }
}

fn old_counts(sql: &Sql, hour: i64) -> Result<usize, Trouble> {
    run(
        sql,
        "DELETE FROM history WHERE (measure, hour, bucket) IN \
         (SELECT measure, hour, bucket FROM history WHERE hour < ?1 LIMIT ?2)",
        (hour, BATCH as i64),
    )
}

fn full_allowances(sql: &Sql, since: i64) -> Result<usize, Trouble> {
    run(
        sql,
        "DELETE FROM rates WHERE user IN (SELECT user FROM rates WHERE time <= ?1 LIMIT ?2)",
        (since, BATCH as i64),
    )
}

/// Removes those of these queues that nothing has come to need since they were found.
fn queues(sql: &Sql, found: &str) -> Result<usize, Trouble> {
    run(
        sql,
        "DELETE FROM queues WHERE n IN (SELECT value FROM json_each(?1)) \
         AND offered = 0 AND held = 0 AND n NOT IN (SELECT queue FROM requests \
         UNION SELECT queue FROM jobs UNION SELECT queue FROM changes)",
        [found],
    )
}
