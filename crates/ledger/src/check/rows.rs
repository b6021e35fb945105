//! What one statement can find: it looks for what must not be.

use super::Report;
use crate::{
    chain,
    error::Trouble,
    lease::{self, Subject},
    sql::{Sql, all, count, get, id, one},
};
use std::collections::HashSet;

/// How many events are followed at once.
const PAGE: usize = 10_000;

/// A grant is open only under a live lease, holds nothing once it is closed, and its attempt has
/// spent at least what it has.
pub(super) fn grants(sql: &Sql, report: &mut Report) -> Result<(), Trouble> {
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
        "a grant has reserved something else than its calls",
        "SELECT n FROM grants WHERE reserved_tokens <> (SELECT \
         COALESCE(SUM(json_extract(value, '$.tokens')), 0) FROM json_each(pending)) \
         OR reserved_money <> (SELECT \
         COALESCE(SUM(json_extract(value, '$.money')), 0) FROM json_each(pending))",
    )?;
    report.none(
        sql,
        "a call is settled and under way, or has a number that its grant has not come to",
        "SELECT g.n FROM calls c JOIN grants g ON g.n = c.granted WHERE c.call > g.calls \
         OR EXISTS (SELECT 1 FROM json_each(g.pending) p WHERE p.key = c.call)",
    )?;
    report.none(
        sql,
        "an attempt has spent less than its grants",
        "SELECT t.n FROM attempts t WHERE t.tokens <> (SELECT COALESCE(SUM(spent_tokens), 0) \
         FROM grants g WHERE g.attempt = t.id) OR t.money <> (SELECT COALESCE(SUM(spent_money), 0) \
         FROM grants g WHERE g.attempt = t.id)",
    )
}

/// The sequence of each session runs from the first that is kept to its last without a gap, and
/// every event is of a request that is there, or tells of no state.
pub(super) fn sequences(sql: &Sql, report: &mut Report) -> Result<(), Trouble> {
    let sessions = all(
        sql,
        "SELECT n, first, sequence FROM sessions ORDER BY n",
        [],
        |row| Ok((get::<i64>(row, 0)?, count(row, 1)?, count(row, 2)?)),
    )?;
    let mut reached = 0;
    for (session, first, last) in sessions {
        reached += sequence(sql, session, first, last, report)?;
    }
    let all = one(sql, "SELECT COUNT(*) FROM events", [], |row| count(row, 0))?.unwrap_or(0);
    report.expect(reached == all, || {
        format!("there are {all} events, and the sequences of sessions have {reached}")
    });
    report.none(
        sql,
        "an event is of a request that is not there",
        "SELECT e.n FROM events e LEFT JOIN requests r ON r.id = e.request \
         WHERE r.n IS NOT e.request_row OR (e.request IS NOT NULL AND r.n IS NULL)",
    )?;
    report.none(
        sql,
        "an event tells of a state and of no request",
        "SELECT n FROM events WHERE request IS NULL \
         AND json_extract(body, '$.type') NOT IN ('note', 'session_created', 'session_renamed')",
    )
}

/// Follows the events of one session; says how many there are.
fn sequence(
    sql: &Sql,
    session: i64,
    first: u64,
    last: u64,
    report: &mut Report,
) -> Result<u64, Trouble> {
    let (mut after, mut row) = (first.saturating_sub(1), i64::MIN);
    while after < last {
        let page = match chain::read(sql, session, after, PAGE, "0", |_, row, _| Ok(row)) {
            Err(Trouble::Row(what)) => {
                report.expect(false, || {
                    format!("the sequence of a session has a gap: {what}")
                });
                break;
            }
            other => other?,
        };
        if page.is_empty() {
            report.expect(false, || {
                format!("the sequence of a session has a gap: row {session} has no last event")
            });
            break;
        }
        after += page.len() as u64;
        for next in page {
            report.expect(row < next, || {
                format!("an event is later than its successor: row {next}")
            });
            row = next;
        }
    }
    Ok((after + 1).saturating_sub(first))
}

/// What is held has one lease, and nothing else has one.
pub(super) fn leases(sql: &Sql, report: &mut Report) -> Result<(), Trouble> {
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
    held.extend(all(
        sql,
        "SELECT event FROM outbox WHERE due IS NULL",
        [],
        |row| Ok(Subject::Notification(id(row, 0)?)),
    )?);
    for subject in held.difference(&live) {
        report.expect(false, || format!("{subject:?} is held without a lease"));
    }
    for subject in live.difference(&held) {
        report.expect(false, || format!("{subject:?} has a lease and is not held"));
    }
    Ok(())
}

/// What is to be told is there and is of its request, and is not tried for ever.
pub(super) fn outbox(sql: &Sql, report: &mut Report) -> Result<(), Trouble> {
    report.none(
        sql,
        "a notification is of no event of its request",
        "SELECT o.event FROM outbox o LEFT JOIN events e \
         ON e.request_row = o.request AND e.id = o.event AND e.session = o.session \
         WHERE e.n IS NULL",
    )?;
    report.none(
        sql,
        "a notification was tried more often than it may be, or is for nobody",
        "SELECT event FROM outbox WHERE claims > 10 OR (claims = 10 AND due IS NOT NULL) \
         OR json_array_length(sinks) = 0",
    )
}

/// What was given up is kept once, is of an event of its request, and says for whom and why.
pub(super) fn undelivered(sql: &Sql, report: &mut Report) -> Result<(), Trouble> {
    report.none(
        sql,
        "a notification that was given up is of no request, or of no event of it",
        "SELECT u.n FROM undelivered u LEFT JOIN requests r ON r.n = u.request \
         LEFT JOIN events e ON e.request_row = u.request AND e.id = u.event \
         AND e.session = u.session WHERE r.n IS NULL OR e.n IS NULL",
    )?;
    report.none(
        sql,
        "a notification was given up for nobody, or twice",
        "SELECT n FROM undelivered WHERE CASE json_valid(unreached) \
         WHEN 1 THEN json_array_length(unreached) = 0 ELSE TRUE END \
         UNION SELECT MAX(n) FROM undelivered GROUP BY request, event HAVING COUNT(*) > 1",
    )
}

/// Counters and references agree with the rows that they are about.
pub(super) fn queues(sql: &Sql, report: &mut Report) -> Result<(), Trouble> {
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
             WHERE (r.state = 'queued' AND r.until IS NULL) <> (o.subject IS NOT NULL)",
        ),
        (
            "a request has begun, and stands among those that are not to begin yet",
            "SELECT r.n FROM requests r JOIN queues q ON q.n = r.queue \
             WHERE q.kind = 3 AND r.state NOT IN ('queued', 'paused', 'cancelled')",
        ),
        (
            "a change waits to be merged and is not offered, or the other way round",
            "SELECT c.n FROM changes c LEFT JOIN offers o ON o.queue = c.queue \
             AND o.place = c.place AND o.subject = c.n AND o.kind = 2 \
             WHERE (c.state = 'queued' AND c.until IS NULL) <> (o.subject IS NOT NULL)",
        ),
        (
            "a request or a change was put back, and is not queued, or too often",
            "SELECT n FROM requests WHERE until IS NOT NULL AND (state <> 'queued' OR postponed > 9) \
             UNION ALL \
             SELECT n FROM changes WHERE until IS NOT NULL AND (state <> 'queued' OR postponed > 9)",
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
            "a job knows since when it is parked, and is not",
            "SELECT n FROM jobs WHERE state <> 'parked' AND parked IS NOT NULL",
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
            "an attempt is not where its job is",
            "SELECT t.n FROM attempts t JOIN jobs j ON j.id = t.job WHERE CASE t.state \
             WHEN 'preparing' THEN j.state <> 'running' WHEN 'running' THEN j.state <> 'running' \
             WHEN 'checking' THEN j.state <> 'checking' \
             WHEN 'suspended' THEN j.state IN ('blocked', 'running', 'checking') ELSE FALSE END",
        ),
        (
            "an attempt does not know where to go on, or another one does",
            "SELECT n FROM attempts WHERE (state = 'suspended') <> (was IS NOT NULL) \
             AND ended IS NULL",
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
