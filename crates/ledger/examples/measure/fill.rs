//! Ledgers that are full.

use crate::{Failed, load::ask};
use domain::{JobId, plan};
use rusqlite::Connection;
use skep_ledger::{Ledger, NewAttempt, Options, Owner, Settlement};
use std::path::Path;

/// The jobs of the request that is multiplied.
const JOBS: usize = 50;

/// A request with so many jobs that are ready; all may be held at once.
pub(crate) async fn planned(
    ledger: &Ledger,
    owner: &Owner,
    jobs: usize,
) -> Result<Vec<JobId>, Failed> {
    let session = ledger.session("full").await?;
    let ask = ask(ledger.repository("/r").await?, u32::try_from(jobs)?);
    let request = ledger.submit(session, ask, None).await?;
    let claimed = ledger.claim_request(owner, Some(request)).await?;
    let claimed = claimed.ok_or("a request that was just accepted is not there")?;
    let job = |number| plan::Job {
        name: format!("job-{number}"),
        title: String::new(),
        prompt: "Mend the parser".into(),
        after: Vec::new(),
        scope: Default::default(),
        criteria: Vec::new(),
        checks: Vec::new(),
        needs: Default::default(),
        agent: None,
        model: None,
        tokens: None,
        may_change_nothing: true,
    };
    let plan = plan::Plan {
        jobs: (0..jobs).map(job).collect(),
    };
    Ok(ledger.plan_request(&claimed.lease, plan, None).await?)
}

/// Makes so many jobs ready.
pub(crate) async fn ready(ledger: &Ledger, jobs: usize) -> Result<(), Failed> {
    let owner = ledger.owner().await?;
    for _ in 0..jobs.div_ceil(plan::MAX_JOBS) {
        planned(ledger, &owner, plan::MAX_JOBS).await?;
    }
    Ok(())
}

/// Starts an attempt of the oldest job, or goes on with the one that a dead process left.
pub(crate) async fn started(ledger: &Ledger, owner: &Owner) -> Result<skep_ledger::Lease, Failed> {
    let claimed = ledger.claim_job(owner, None).await?;
    let claimed = claimed.ok_or("a job that was just planned is not there")?;
    if claimed.attempt.is_some() {
        ledger.resume_attempt(&claimed.lease).await?;
        return Ok(claimed.lease);
    }
    let new = NewAttempt {
        base: "a".repeat(40),
        agent: "built-in".into(),
        model: None,
        sandbox: "host".into(),
    };
    ledger.start_attempt(&claimed.lease, new).await?;
    ledger.attempt_running(&claimed.lease).await?;
    Ok(claimed.lease)
}

/// Makes a ledger with so many finished jobs. A request goes its way by the verbs; then its rows
/// are multiplied, for a million jobs by verbs would take longer than all else. Their events are
/// not there.
pub(crate) async fn finished(directory: &Path, jobs: usize) -> Result<(), Failed> {
    let ledger = Ledger::open(Options::new(directory)).await?;
    let owner = ledger.owner().await?;
    planned(&ledger, &owner, JOBS).await?;
    for _ in 0..JOBS {
        let lease = started(&ledger, &owner).await?;
        ledger.attempt_checking(&lease, "b".repeat(40)).await?;
        let settlement = Settlement::Empty {
            summary: "There is nothing to change".into(),
        };
        ledger.settle_attempt(&lease, settlement).await?;
    }
    drop(owner);
    ledger.close().await;
    let file = directory.join("ledger.db");
    tokio::task::spawn_blocking(move || multiply(&file, jobs / JOBS - 1)).await?
}

/// Each table with its columns that number rows, each with the table of those, and its columns
/// that are ids.
type Table = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);
const TABLES: &[Table] = &[
    (
        "accounts",
        &[("n", "accounts"), ("parent", "accounts")],
        &[],
    ),
    (
        "requests",
        &[("n", "requests"), ("account", "accounts")],
        &["id"],
    ),
    ("asks", &[("request", "requests")], &[]),
    (
        "jobs",
        &[("n", "jobs"), ("account", "accounts")],
        &["id", "request"],
    ),
    ("specs", &[("job", "jobs")], &[]),
    ("attempts", &[("n", "attempts")], &["id", "job", "request"]),
];

fn multiply(file: &Path, copies: usize) -> Result<(), Failed> {
    let sql = Connection::open(file)?;
    sql.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; \
         PRAGMA cache_size = -400000; BEGIN",
    )?;
    for (table, _, _) in TABLES {
        sql.execute_batch(&format!(
            "CREATE TEMP TABLE first_{table} AS SELECT * FROM {table}"
        ))?;
    }
    for (table, rows, ids) in TABLES {
        let columns: Vec<String> = sql
            .prepare(&format!("SELECT * FROM {table}"))?
            .column_names()
            .map(str::to_owned)
            .collect();
        let mut values = Vec::with_capacity(columns.len());
        for column in &columns {
            values.push(
                if let Some((_, of)) = rows.iter().find(|(name, _)| name == column) {
                    let key = if matches!(*of, "asks" | "specs") {
                        "rowid"
                    } else {
                        "n"
                    };
                    let step: i64 =
                        sql.query_row(&format!("SELECT MAX({key}) FROM first_{of}"), [], |row| {
                            row.get(0)
                        })?;
                    format!("{column} + k * {step}")
                } else if ids.contains(&column.as_str()) {
                    // Sixty bits, the same wherever the same id stands.
                    format!("({column} + k * 173961102589769) & 1152921504606846975")
                } else {
                    column.clone()
                },
            );
        }
        sql.execute_batch(&format!(
            "WITH RECURSIVE copies(k) AS \
             (SELECT 1 UNION ALL SELECT k + 1 FROM copies WHERE k < {copies}) \
             INSERT INTO {table} ({}) SELECT {} FROM copies CROSS JOIN first_{table}",
            columns.join(", "),
            values.join(", "),
        ))?;
    }
    sql.execute_batch("COMMIT")?;
    // The first measurement does not wait for the disk to take all of it.
    std::fs::File::open(file)?.sync_all()?;
    Ok(())
}
