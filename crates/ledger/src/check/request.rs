//! What must hold of one request: its accounts, its states, and what it names.

use super::{Report, blobs::Named};
use crate::{
    account,
    cassette::Exchange,
    error::Trouble,
    sql::{Key, Sql, all, get, id, json, one, word},
};
use domain::{
    Amount, AttemptId, AttemptState, ChangeId, ChangeState, JobId, JobState, RequestId,
    RequestState, entity::Ask, event::Body, machine::Machine, state::UnknownState,
};
use std::{collections::HashMap, fmt, hash::Hash};

/// A request, as the check goes from one to the next.
pub(super) struct Row {
    pub(super) n: i64,
    id: RequestId,
    account: i64,
    /// Whether the beginning of its session was removed.
    pruned: bool,
}

/// The request after this row, in the order of rows.
pub(super) fn next(sql: &Sql, after: i64) -> Result<Option<Row>, Trouble> {
    one(
        sql,
        "SELECT r.n, r.id, r.account, s.first > 1 FROM requests r \
         LEFT JOIN sessions s ON s.id = r.session WHERE r.n > ?1 ORDER BY r.n LIMIT 1",
        [after],
        |row| {
            Ok(Row {
                n: get(row, 0)?,
                id: id(row, 1)?,
                account: get(row, 2)?,
                pruned: get::<Option<bool>>(row, 3)?.unwrap_or(false),
            })
        },
    )
}

/// Looks at one request. Says how many accounts it has.
pub(super) fn check(
    sql: &Sql,
    request: &Row,
    named: &mut Named<'_>,
    report: &mut Report,
) -> Result<u64, Trouble> {
    states(sql, request, named, report)?;
    names(sql, request, named)?;
    accounts(sql, request, report)
}

/// What its ask and its recorded exchanges name.
fn names(sql: &Sql, request: &Row, named: &mut Named<'_>) -> Result<(), Trouble> {
    let ask = one(
        sql,
        "SELECT body FROM asks WHERE request = ?1",
        [request.n],
        |row| json::<Ask>(row, 0),
    )?;
    ask.iter()
        .flat_map(Ask::blobs)
        .try_for_each(|id| named.add(id))?;
    let mut statement = sql.prepare_cached(
        "SELECT c.exchange FROM grants g JOIN calls c ON c.granted = g.n \
         WHERE g.request = ?1 AND c.exchange IS NOT NULL",
    )?;
    let mut rows = statement.query([request.id.key()])?;
    while let Some(row) = rows.next()? {
        json::<Exchange>(row, 0)?
            .blobs()
            .try_for_each(|id| named.add(id))?;
    }
    Ok(())
}

/// Each account conserves; it has reserved what its open children and grants have, and committed
/// what its ended children, its grants and its attempts have spent.
fn accounts(sql: &Sql, request: &Row, report: &mut Report) -> Result<u64, Trouble> {
    let key = request.id.key();
    let mut sums: HashMap<i64, (Amount, Amount)> = HashMap::new();
    let mut add = |account: i64, reserved: Amount, committed: Amount| {
        let sum = sums.entry(account).or_default();
        *sum = (sum.0.plus(reserved), sum.1.plus(committed));
    };
    let mut accounts = all(
        sql,
        "SELECT * FROM accounts WHERE n = ?1",
        [request.account],
        |row| Ok((get::<i64>(row, 0)?, account::read_account(row, 2)?)),
    )?;
    let jobs = all(
        sql,
        "SELECT j.ended IS NOT NULL, a.* FROM jobs j JOIN accounts a ON a.n = j.account \
         WHERE j.request = ?1",
        [key],
        |row| {
            Ok((
                get::<bool>(row, 0)?,
                get::<i64>(row, 1)?,
                get::<Option<i64>>(row, 2)?,
                account::read_account(row, 3)?,
            ))
        },
    )?;
    for (ended, n, parent, account) in jobs {
        let parent = parent.unwrap_or_default();
        if ended {
            add(parent, Amount::ZERO, account.committed);
        } else {
            add(parent, account.total, Amount::ZERO);
        }
        accounts.push((n, account));
    }
    let grants = all(
        sql,
        "SELECT account, attempt IS NULL, reserved_tokens, reserved_money, reserved_wall, \
         reserved_iterations, spent_tokens, spent_money, spent_wall, spent_iterations FROM grants \
         WHERE request = ?1",
        [key],
        |row| {
            Ok((
                get::<i64>(row, 0)?,
                get::<bool>(row, 1)?,
                account::amount(row, 2)?,
                account::amount(row, 6)?,
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
         FROM jobs j JOIN attempts t ON t.job = j.id WHERE j.request = ?1",
        [key],
        |row| Ok((get::<i64>(row, 0)?, account::amount(row, 1)?)),
    )?;
    for (account, spent) in attempts {
        add(account, Amount::ZERO, spent);
    }
    let known = accounts.len() as u64;
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
        report.expect(false, || {
            format!("the account {n} of {} is missing", request.id)
        });
    }
    Ok(known)
}

/// The states of one kind of entity, as its events tell them.
struct Told<K, S> {
    kind: &'static str,
    /// Whether the first events were removed: what is not told of then may be anything.
    cut: bool,
    states: HashMap<K, S>,
}

impl<K: Eq + Hash + fmt::Display + Copy, S: Machine> Told<K, S> {
    fn new(cut: bool) -> Self {
        Self {
            cut,
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
        let cut = self.cut && known.is_none();
        report.expect(cut || known == Some(from), || {
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
            let cut = self.cut && told.is_none();
            report.expect(cut || told == Some(state), || {
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
fn states(
    sql: &Sql,
    request: &Row,
    named: &mut Named<'_>,
    report: &mut Report,
) -> Result<(), Trouble> {
    let key = request.id.key();
    let mut statement =
        sql.prepare_cached("SELECT body FROM events WHERE request_row = ?1 ORDER BY sequence")?;
    let mut rows = statement.query([request.n])?;
    let mut told: Option<Story> = None;
    while let Some(row) = rows.next()? {
        let body = json::<Body>(row, 0)?;
        body.blobs().try_for_each(|id| named.add(id))?;
        let begins = matches!(body, Body::RequestSubmitted { .. });
        told.get_or_insert_with(|| Story::new(request.pruned && !begins))
            .apply(report, body);
    }
    let mut told = told.unwrap_or_else(|| Story::new(request.pruned));
    let own = [key];
    told.requests.agrees(
        report,
        stored(sql, "SELECT id, state FROM requests WHERE id = ?1", own)?,
    );
    told.jobs.agrees(
        report,
        stored(sql, "SELECT id, state FROM jobs WHERE request = ?1", own)?,
    );
    told.attempts.agrees(
        report,
        stored(
            sql,
            "SELECT t.id, t.state FROM jobs j JOIN attempts t ON t.job = j.id \
             WHERE j.request = ?1",
            own,
        )?,
    );
    told.changes.agrees(
        report,
        stored(sql, "SELECT id, state FROM changes WHERE request = ?1", own)?,
    );
    Ok(())
}

/// What the events of a request tell.
struct Story {
    requests: Told<RequestId, RequestState>,
    jobs: Told<JobId, JobState>,
    attempts: Told<AttemptId, AttemptState>,
    changes: Told<ChangeId, ChangeState>,
}

impl Story {
    fn new(cut: bool) -> Self {
        Self {
            requests: Told::new(cut),
            jobs: Told::new(cut),
            attempts: Told::new(cut),
            changes: Told::new(cut),
        }
    }

    fn apply(&mut self, report: &mut Report, body: Body) {
        match body {
            Body::RequestSubmitted { request, .. } => {
                self.requests.begins(report, request, RequestState::Queued);
            }
            Body::RequestChanged {
                request, from, to, ..
            } => self.requests.changes(report, request, from, to),
            Body::Planned { jobs: planned, .. } => {
                for job in planned {
                    let state = if job.after.is_empty() {
                        JobState::Ready
                    } else {
                        JobState::Blocked
                    };
                    self.jobs.begins(report, job.job, state);
                }
            }
            Body::JobChanged { job, from, to, .. } => self.jobs.changes(report, job, from, to),
            Body::AttemptStarted { attempt, .. } => {
                self.attempts
                    .begins(report, attempt, AttemptState::Preparing);
            }
            Body::AttemptChanged {
                attempt, from, to, ..
            } => self.attempts.changes(report, attempt, from, to),
            Body::ChangeMade { change, .. } => {
                self.changes.begins(report, change, ChangeState::Queued);
            }
            Body::ChangeChanged {
                change, from, to, ..
            } => self.changes.changes(report, change, from, to),
            _ => {}
        }
    }
}

fn stored<K: Key, S>(
    sql: &Sql,
    query: &'static str,
    request: [i64; 1],
) -> Result<Vec<(K, S)>, Trouble>
where
    S: std::str::FromStr<Err = UnknownState>,
{
    all(sql, query, request, |row| Ok((id(row, 0)?, word(row, 1)?)))
}
