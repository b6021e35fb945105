//! The check of everything that must hold at every commit.

use crate::{
    budget,
    error::{Error, Trouble},
    lease::{self, Subject},
    ledger::Ledger,
    sql::{Key, all, get, id, json, word},
};
use domain::{
    Amount, AttemptId, AttemptState, ChangeId, ChangeState, JobId, JobState, RequestId,
    RequestState, event::Body, machine::Machine, state::UnknownState,
};
use rusqlite::{Connection, Row};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
};

/// The most violations that are named.
pub(crate) const MAX_VIOLATIONS: usize = 100;

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ledger {
    /// Everything that does not hold, of all that must: budgets conserve up the tree, sequences
    /// have no gap, what is held has a lease and what has ended has none, and every state is what
    /// its events say. It reads the whole ledger.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn check(&self) -> Result<Vec<Violation>, Error> {
        self.read("check itself", |sql| {
            let mut report = Report::default();
            accounts(sql, &mut report)?;
            grants(sql, &mut report)?;
            sequences(sql, &mut report)?;
            leases(sql, &mut report)?;
            states(sql, &mut report)?;
            queues(sql, &mut report)?;
            Ok(report.0)
        })
        .await
    }
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
    fn none(&mut self, sql: &Connection, what: &str, query: &str) -> Result<(), Trouble> {
        for found in all(sql, query, [], |row| get::<i64>(row, 0))? {
            self.expect(false, || format!("{what}: row {found}"));
        }
        Ok(())
    }
}

/// Each account conserves; it has reserved what its open children and grants have, and committed
/// what its ended children, its grants and its attempts have spent.
fn accounts(sql: &Connection, report: &mut Report) -> Result<(), Trouble> {
    let mut sums: HashMap<i64, (Amount, Amount)> = HashMap::new();
    let mut add = |account: i64, reserved: Amount, committed: Amount| {
        let sum = sums.entry(account).or_default();
        *sum = (sum.0.plus(reserved), sum.1.plus(committed));
    };
    let jobs = all(
        sql,
        "SELECT j.ended IS NOT NULL, a.* FROM jobs j JOIN accounts a ON a.n = j.account",
        [],
        |row| {
            Ok((
                get::<bool>(row, 0)?,
                get::<Option<i64>>(row, 2)?,
                budget::read_account(row, 3)?,
            ))
        },
    )?;
    for (ended, parent, account) in jobs {
        let parent = parent.unwrap_or_default();
        if ended {
            add(parent, Amount::ZERO, account.committed);
        } else {
            add(parent, account.total, Amount::ZERO);
        }
    }
    let grants = all(
        sql,
        "SELECT account, attempt IS NULL, reserved_tokens, reserved_money, reserved_wall, \
         reserved_iterations, spent_tokens, spent_money, spent_wall, spent_iterations FROM grants",
        [],
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<bool>(row, 1)?,
                budget::amount(row, 2)?,
                budget::amount(row, 6)?,
            ))
        },
    )?;
    for (account, planner, reserved, spent) in grants {
        // What an attempt's grants spent is counted with the attempt.
        add(
            account,
            reserved,
            if planner { spent } else { Amount::ZERO },
        );
    }
    let attempts = all(
        sql,
        "SELECT j.account, t.tokens, t.money, t.wall, t.iterations \
         FROM attempts t JOIN jobs j ON j.id = t.job",
        [],
        |row| Ok((get::<i64>(row, 0)?, budget::amount(row, 1)?)),
    )?;
    for (account, spent) in attempts {
        add(account, Amount::ZERO, spent);
    }
    let accounts = all(sql, "SELECT * FROM accounts", [], |row| {
        Ok((get::<i64>(row, 0)?, budget::read_account(row, 2)?))
    })?;
    for (n, account) in accounts {
        let (reserved, committed) = sums.remove(&n).unwrap_or_default();
        report.expect(account.conserves(), || {
            format!("the account {n} does not conserve: {account:?}")
        });
        report.expect(account.reserved == reserved, || {
            format!(
                "the account {n} has {:?} reserved, and what draws on it {reserved:?}",
                account.reserved
            )
        });
        report.expect(account.committed == committed, || {
            format!(
                "the account {n} has committed {:?}, and what draws on it {committed:?}",
                account.committed
            )
        });
    }
    for n in sums.into_keys() {
        report.expect(false, || format!("the account {n} is missing"));
    }
    Ok(())
}

/// A grant is open only under a live lease, holds nothing once it is closed, and its attempt has
/// spent at least what it has.
fn grants(sql: &Connection, report: &mut Report) -> Result<(), Trouble> {
    report.none(
        sql,
        "a grant is open and its lease has ended",
        "SELECT n FROM grants WHERE closed = 0 AND lease NOT IN (SELECT token FROM leases)",
    )?;
    report.none(
        sql,
        "a grant is closed and has something reserved",
        "SELECT n FROM grants WHERE closed = 1 AND \
         reserved_tokens + reserved_money + reserved_wall + reserved_iterations > 0",
    )?;
    report.none(
        sql,
        "an attempt has spent less than its grants",
        "SELECT t.n FROM attempts t WHERE t.tokens <> (SELECT COALESCE(SUM(spent_tokens), 0) \
         FROM grants g WHERE g.attempt = t.id) OR t.money <> (SELECT COALESCE(SUM(spent_money), 0) \
         FROM grants g WHERE g.attempt = t.id)",
    )
}

/// The sequence of each session runs from one to its last without a gap.
fn sequences(sql: &Connection, report: &mut Report) -> Result<(), Trouble> {
    report.none(
        sql,
        "the sequence of a session has a gap",
        "SELECT s.n FROM sessions s LEFT JOIN (SELECT session, COUNT(*) AS events, \
         MIN(sequence) AS first, MAX(sequence) AS last FROM events GROUP BY session) e \
         ON e.session = s.n WHERE COALESCE(e.events, 0) <> s.sequence \
         OR COALESCE(e.last, 0) <> s.sequence OR COALESCE(e.first, 1) <> 1",
    )?;
    report.none(
        sql,
        "an event is later than its successor",
        "SELECT a.n FROM events a JOIN events b ON b.session = a.session \
         AND b.sequence = a.sequence + 1 WHERE b.n < a.n",
    )
}

/// What is held has one lease, and nothing else has one.
fn leases(sql: &Connection, report: &mut Report) -> Result<(), Trouble> {
    let live: HashSet<Subject> = lease::live(sql)?
        .into_iter()
        .map(|(subject, _)| subject)
        .collect();
    let mut held = HashSet::new();
    held.extend(all(
        sql,
        "SELECT id FROM requests WHERE state = 'planning'",
        [],
        |row| Ok(Subject::Request(id(row, 0)?)),
    )?);
    held.extend(all(
        sql,
        "SELECT id FROM jobs WHERE state IN ('leased', 'running', 'checking')",
        [],
        |row| Ok(Subject::Job(id(row, 0)?)),
    )?);
    held.extend(all(
        sql,
        "SELECT id FROM changes WHERE state IN ('merging', 'checking')",
        [],
        |row| Ok(Subject::Change(id(row, 0)?)),
    )?);
    for subject in held.difference(&live) {
        report.expect(false, || format!("{subject:?} is held without a lease"));
    }
    for subject in live.difference(&held) {
        report.expect(false, || format!("{subject:?} has a lease and is not held"));
    }
    Ok(())
}

/// Counters and references agree with the rows that they are about.
fn queues(sql: &Connection, report: &mut Report) -> Result<(), Trouble> {
    for (what, query) in [
        (
            "a request counts other jobs as held than are",
            "SELECT n FROM requests r WHERE held <> (SELECT COUNT(*) FROM jobs j \
             WHERE j.request = r.id AND j.state IN ('leased', 'running', 'checking'))",
        ),
        (
            "a request has more jobs held and offered than it allows",
            "SELECT n FROM requests WHERE held + offered > parallel",
        ),
        (
            "a request counts other jobs as offered than are",
            "SELECT n FROM requests r WHERE offered <> (SELECT COUNT(*) FROM offers o \
             WHERE o.request = r.id AND o.kind = 1)",
        ),
        (
            "a queue counts other offers than there are",
            "SELECT n FROM queues q WHERE offered <> \
             (SELECT COUNT(*) FROM offers o WHERE o.queue = q.n)",
        ),
        (
            "a queue counts other jobs as held than are",
            "SELECT n FROM queues q WHERE kind = 1 AND held <> (SELECT COUNT(*) FROM jobs j \
             WHERE j.queue = q.n AND j.state IN ('leased', 'running', 'checking'))",
        ),
        (
            "a queue counts other requests as held than are",
            "SELECT n FROM queues q WHERE kind = 0 AND held <> (SELECT COUNT(*) FROM requests r \
             WHERE r.queue = q.n AND r.state = 'planning')",
        ),
        (
            "a queue counts other changes as held than are",
            "SELECT n FROM queues q WHERE kind = 2 AND held <> (SELECT COUNT(*) FROM changes c \
             WHERE c.queue = q.n AND c.state IN ('merging', 'checking'))",
        ),
        (
            "a queue has another rank than its first offer gives it",
            "SELECT n FROM queues q WHERE rank IS NOT CASE WHEN held >= most THEN NULL ELSE \
             (SELECT MIN(place) FROM offers o WHERE o.queue = q.n) + held * 30000000 END",
        ),
        (
            "a request waits to be planned and is not offered, or the other way round",
            "SELECT r.n FROM requests r LEFT JOIN offers o ON o.queue = r.queue \
             AND o.place = r.place AND o.subject = r.n AND o.kind = 0 \
             WHERE (r.state = 'queued') <> (o.subject IS NOT NULL)",
        ),
        (
            "a change waits to be merged and is not offered, or the other way round",
            "SELECT c.n FROM changes c LEFT JOIN offers o ON o.queue = c.queue \
             AND o.place = c.place AND o.subject = c.n AND o.kind = 2 \
             WHERE (c.state = 'queued') <> (o.subject IS NOT NULL)",
        ),
        (
            "a job is said to be offered and is not, or is offered and not ready",
            "SELECT j.n FROM jobs j LEFT JOIN offers o ON o.queue = j.queue \
             AND o.place = j.place AND o.subject = j.n AND o.kind = 1 \
             WHERE j.offered <> (o.subject IS NOT NULL) OR (j.offered AND j.state <> 'ready')",
        ),
        (
            "a job is ready, its request has room, and it is not offered",
            "SELECT j.n FROM jobs j JOIN requests r ON r.id = j.request WHERE j.state = 'ready' \
             AND j.offered = 0 AND r.state IN ('working', 'integrating') \
             AND r.held + r.offered < r.parallel",
        ),
        (
            "a job is parked without an end",
            "SELECT n FROM jobs WHERE (state = 'parked') <> (until IS NOT NULL)",
        ),
        (
            "a request has ended and a job has not",
            "SELECT r.n FROM requests r JOIN jobs j ON j.request = r.id \
             WHERE r.ended IS NOT NULL AND j.ended IS NULL",
        ),
        (
            "a request has ended and its account is open",
            "SELECT r.n FROM requests r JOIN accounts a ON a.n = r.account \
             WHERE r.ended IS NOT NULL AND a.closed = 0",
        ),
        (
            "a job's open attempt has ended, or is not its own",
            "SELECT j.n FROM jobs j LEFT JOIN attempts t ON t.id = j.attempt AND t.job = j.id \
             WHERE j.attempt IS NOT NULL AND (t.n IS NULL OR t.ended IS NOT NULL)",
        ),
        (
            "an attempt is open and its job does not know it",
            "SELECT t.n FROM attempts t JOIN jobs j ON j.id = t.job \
             WHERE t.ended IS NULL AND j.attempt IS NOT t.id",
        ),
        (
            "a job counts other attempts than there are",
            "SELECT n FROM jobs j WHERE attempts <> \
             (SELECT COUNT(*) FROM attempts t WHERE t.job = j.id)",
        ),
        (
            "a delivered job has no change, or another job has one",
            "SELECT j.n FROM jobs j LEFT JOIN changes c ON c.job = j.id \
             WHERE (j.state = 'delivered') <> (c.n IS NOT NULL)",
        ),
        (
            "two changes of one branch are in hand",
            "SELECT MIN(n) FROM changes WHERE state IN ('merging', 'checking') \
             GROUP BY repository, branch HAVING COUNT(*) > 1",
        ),
        (
            "an integrated change has no commit",
            "SELECT n FROM changes WHERE state IN ('integrated', 'promoted', 'reverted') \
             AND integrated IS NULL",
        ),
    ] {
        report.none(sql, what, query)?;
    }
    Ok(())
}

/// The states of one kind of entity, as its events tell them.
struct Told<K, S> {
    kind: &'static str,
    states: HashMap<K, S>,
}

impl<K: Eq + Hash + fmt::Display + Copy, S: Machine> Told<K, S> {
    fn new() -> Self {
        Self {
            kind: S::NAME,
            states: HashMap::new(),
        }
    }

    fn begins(&mut self, report: &mut Report, key: K, state: S) {
        let known = self.states.insert(key, state);
        report.expect(known.is_none(), || {
            format!("the {} {key} begins twice", self.kind)
        });
    }

    fn changes(&mut self, report: &mut Report, key: K, from: S, to: S) {
        let known = self.states.insert(key, to);
        report.expect(known == Some(from), || {
            format!(
                "the {} {key} goes from {from} to {to}, and was {known:?}",
                self.kind
            )
        });
        let allowed = S::COMMANDS
            .iter()
            .any(|command| from.next(*command) == Some(to));
        report.expect(allowed, || {
            format!("no {} may go from {from} to {to}", self.kind)
        });
    }

    fn agrees(&mut self, report: &mut Report, rows: Vec<(K, S)>) {
        for (key, state) in rows {
            let told = self.states.remove(&key);
            report.expect(told == Some(state), || {
                format!(
                    "the {} {key} is {state}, and its events say {told:?}",
                    self.kind
                )
            });
        }
        for key in self.states.keys() {
            report.expect(false, || {
                format!("the {} {key} has events and is not there", self.kind)
            });
        }
    }
}

/// Every state is what the events say, and every step was one that the machine allows.
fn states(sql: &Connection, report: &mut Report) -> Result<(), Trouble> {
    let mut requests: Told<RequestId, RequestState> = Told::new();
    let mut jobs: Told<JobId, JobState> = Told::new();
    let mut attempts: Told<AttemptId, AttemptState> = Told::new();
    let mut changes: Told<ChangeId, ChangeState> = Told::new();
    let mut statement = sql.prepare_cached("SELECT body FROM events ORDER BY n")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match json::<Body>(row, 0)? {
            Body::RequestSubmitted { request, .. } => {
                requests.begins(report, request, RequestState::Queued);
            }
            Body::RequestChanged {
                request, from, to, ..
            } => requests.changes(report, request, from, to),
            Body::Planned { jobs: planned, .. } => {
                for job in planned {
                    let state = if job.after.is_empty() {
                        JobState::Ready
                    } else {
                        JobState::Blocked
                    };
                    jobs.begins(report, job.job, state);
                }
            }
            Body::JobChanged { job, from, to, .. } => jobs.changes(report, job, from, to),
            Body::AttemptStarted { attempt, .. } => {
                attempts.begins(report, attempt, AttemptState::Preparing);
            }
            Body::AttemptChanged {
                attempt, from, to, ..
            } => attempts.changes(report, attempt, from, to),
            Body::ChangeMade { change, .. } => {
                changes.begins(report, change, ChangeState::Queued);
            }
            Body::ChangeChanged {
                change, from, to, ..
            } => changes.changes(report, change, from, to),
            _ => {}
        }
    }
    requests.agrees(report, stored(sql, "SELECT id, state FROM requests")?);
    jobs.agrees(report, stored(sql, "SELECT id, state FROM jobs")?);
    attempts.agrees(report, stored(sql, "SELECT id, state FROM attempts")?);
    changes.agrees(report, stored(sql, "SELECT id, state FROM changes")?);
    Ok(())
}

fn stored<K: Key, S>(sql: &Connection, query: &str) -> Result<Vec<(K, S)>, Trouble>
where
    S: std::str::FromStr<Err = UnknownState>,
{
    all(sql, query, [], |row: &Row<'_>| {
        Ok((id(row, 0)?, word(row, 1)?))
    })
}
