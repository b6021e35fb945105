//! What most programs on SQLite do: the statements that seven verbs cannot do without, in a loop in
//! one thread that waits for the disk after each commit, with no callers.
//!
//! The tables and indexes are the ledger's own; the batches are as large as the callers are many.
//! It is no limit: the ledger does more in each verb, and makes the next commit while one is being
//! synced, so it may be faster.

use crate::{Failed, load::ask};
use domain::RepositoryId;
use rusqlite::{CachedStatement, Connection, Params};
use skep_ledger::{Ledger, Options};
use std::time::Instant;

/// The verbs of a lifecycle.
const VERBS: usize = 7;

/// A request: its id, and its row.
#[derive(Clone, Copy, Default)]
struct Request {
    id: i64,
    row: i64,
}

struct Floor {
    sql: Connection,
    ask: String,
    ids: u64,
    _directory: tempfile::TempDir,
}

impl Floor {
    async fn new(callers: usize) -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        let ledger = Ledger::open(Options::new(directory.path())).await?;
        ledger.close().await;
        let sql = Connection::open(directory.path().join("ledger.db"))?;
        sql.set_prepared_statement_cache_capacity(100);
        sql.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; \
             PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 10000",
        )?;
        sql.execute("INSERT INTO repositories VALUES (1, 1, '/r', 0)", [])?;
        for caller in 0..i64::try_from(callers)? {
            sql.execute(
                "INSERT INTO sessions (id, name, key, created, sequence) VALUES (?1, ?2, ?2, 0, 0)",
                (caller, format!("caller {caller}")),
            )?;
        }
        Ok(Self {
            sql,
            ask: serde_json::to_string(&ask(RepositoryId::from_bits(1), 1))?,
            ids: 1,
            _directory: directory,
        })
    }

    fn run(&self, text: &str, params: impl Params) -> Result<(), Failed> {
        let mut statement: CachedStatement<'_> = self.sql.prepare_cached(text)?;
        let mut rows = statement.query(params)?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    fn id(&mut self) -> i64 {
        // Scattered as random ids are, and none comes twice.
        self.ids = self.ids.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (self.ids >> 4).cast_signed()
    }

    fn event(&mut self, caller: i64, request: Request, body: &str) -> Result<(), Failed> {
        let id = self.id();
        self.run(
            "INSERT INTO events (session, sequence, previous, id, time, request, attempt, body, \
             request_row) SELECT n, sequence + 1, last, ?2, 0, ?3, NULL, ?4, ?5 \
             FROM sessions WHERE n = ?1",
            (caller + 1, id, request.id, body, request.row),
        )?;
        self.run(
            "UPDATE sessions SET sequence = sequence + 1, last = ?2 WHERE n = ?1",
            (caller + 1, self.sql.last_insert_rowid()),
        )
    }

    fn submit(&mut self, caller: i64) -> Result<(Request, i64), Failed> {
        self.run("SELECT 1 FROM repositories WHERE id = 1", [])?;
        self.run(
            "INSERT INTO accounts VALUES (NULL, NULL, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, \
             0, 0, 0, 0, 0, 0, 0, 0, 0)",
            [],
        )?;
        let account = self.sql.last_insert_rowid();
        let id = self.id();
        self.run(
            "INSERT INTO requests (id, session, repository, branch, parallel, held, account, \
             state, created) VALUES (?1, ?2, 1, 'skep/integration', 1, 0, ?3, 'queued', 0)",
            (id, caller, account),
        )?;
        let row = self.sql.last_insert_rowid();
        let request = Request { id, row };
        self.run("INSERT INTO asks VALUES (?1, ?2)", (row, &self.ask))?;
        self.event(
            caller,
            request,
            r#"{"type":"request_submitted","payload":{"request":"r-0123456789ab","title":"Mend the parser","base":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","budget":{}}}"#,
        )?;
        Ok((request, account))
    }

    fn claim(&mut self, caller: i64, request: Request) -> Result<i64, Failed> {
        self.change(caller, request, "planning", None)?;
        let lease = self.id();
        self.run(
            "INSERT INTO leases (id, kind, subject, owner, deadline) \
             VALUES (?1, 'request', ?2, ?3, 1)",
            (lease, request.id, caller),
        )?;
        let token = self.sql.last_insert_rowid();
        self.run(
            "SELECT body FROM requests r JOIN asks a ON a.request = r.n WHERE r.id = ?1",
            [request.id],
        )?;
        Ok(token)
    }

    fn change(
        &mut self,
        caller: i64,
        request: Request,
        state: &str,
        failure: Option<&str>,
    ) -> Result<(), Failed> {
        self.run(
            "SELECT state, session, account FROM requests WHERE id = ?1",
            [request.id],
        )?;
        self.run(
            "UPDATE requests SET state = ?2, failure = ?3, \
             ended = CASE WHEN ?3 IS NULL THEN NULL ELSE 1 END WHERE id = ?1",
            (request.id, state, failure),
        )?;
        self.event(
            caller,
            request,
            r#"{"type":"request_changed","payload":{"request":"r-0123456789ab","from":"queued","to":"planning"}}"#,
        )
    }

    fn verify(&self, token: i64) -> Result<(), Failed> {
        self.run("SELECT 1 FROM leases WHERE token = ?1", [token])
    }

    fn heartbeat(&self, token: i64) -> Result<(), Failed> {
        self.verify(token)?;
        self.run(
            "UPDATE leases SET deadline = deadline + 1 WHERE token = ?1",
            [token],
        )
    }

    fn settle(
        &mut self,
        caller: i64,
        request: Request,
        account: i64,
        token: i64,
    ) -> Result<(), Failed> {
        self.verify(token)?;
        self.run("DELETE FROM leases WHERE token = ?1", [token])?;
        let failure = r#"{"reason":"cancelled","message":"0123456789abcdef0123456789abcdef"}"#;
        self.change(caller, request, "failed", Some(failure))?;
        self.run("UPDATE accounts SET closed = 1 WHERE n = ?1", [account])
    }

    /// One lifecycle of each caller, verb by verb in a commit each; says how long each took.
    fn round(&mut self, callers: usize, times: &mut Vec<f64>) -> Result<(), Failed> {
        let mut requests = vec![(Request::default(), 0, 0); callers];
        for verb in 0..VERBS {
            let begun = Instant::now();
            self.run("BEGIN IMMEDIATE", [])?;
            for (caller, (request, account, token)) in (0i64..).zip(&mut requests) {
                match verb {
                    0 => (*request, *account) = self.submit(caller)?,
                    1 => *token = self.claim(caller, *request)?,
                    2 | 4 => self.heartbeat(*token)?,
                    3 | 5 => {
                        self.verify(*token)?;
                        self.event(
                            caller,
                            *request,
                            r#"{"type":"note","payload":{"text":"one"}}"#,
                        )?;
                    }
                    _ => self.settle(caller, *request, *account, *token)?,
                }
            }
            self.run("COMMIT", [])?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    }
}

/// Lifecycles a second.
pub(crate) async fn lifecycles(callers: usize, rounds: usize) -> Result<f64, Failed> {
    let mut floor = Floor::new(callers).await?;
    let mut times = Vec::new();
    for _ in 0..20 {
        floor.round(callers, &mut times)?;
    }
    let begun = Instant::now();
    for _ in 0..rounds {
        floor.round(callers, &mut times)?;
    }
    Ok((callers * rounds) as f64 / begun.elapsed().as_secs_f64())
}

/// How long each verb takes that is alone, in microseconds.
pub(crate) async fn verbs(rounds: usize) -> Result<Vec<f64>, Failed> {
    let mut floor = Floor::new(1).await?;
    let mut times = Vec::new();
    for _ in 0..200 {
        floor.round(1, &mut times)?;
    }
    times.clear();
    for _ in 0..rounds {
        floor.round(1, &mut times)?;
    }
    Ok(times)
}
