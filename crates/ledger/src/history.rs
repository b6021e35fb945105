//! How long things took and how they ended, counted by the hour: enough for quantiles over any
//! window, whatever the number of jobs.

use crate::{
    error::{Error, Trouble},
    ledger::Ledger,
    queue::{Kind, SHARE},
    sql::{Key, Sql, all, count, get, number, one, run},
    writer::Verb,
};
use domain::{JobId, JobState, Reason, RequestId, Timestamp};
use std::time::Duration;

/// Durations up to this many milliseconds have a range of their own.
const EXACT: u64 = 16;
/// Ranges for each doubling beyond: none is wider than an eighth of where it begins.
const STEPS: u64 = 8;
const HOUR: i64 = 3_600_000_000;

/// The range that a duration falls into.
fn bucket(span: Duration) -> i64 {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if millis < EXACT {
        return number(millis);
    }
    let doublings = u64::from(millis.ilog2());
    let step = (millis >> (doublings - 3)) & (STEPS - 1);
    number(EXACT + (doublings - 4) * STEPS + step)
}

/// The middle of a range.
fn middle(bucket: u64) -> Duration {
    if bucket < EXACT {
        return Duration::from_millis(bucket);
    }
    let (doublings, step) = ((bucket - EXACT) / STEPS + 4, (bucket - EXACT) % STEPS);
    let width = 1u64.checked_shl(u32::try_from(doublings - 3).unwrap_or(u32::MAX));
    let width = width.unwrap_or(u64::MAX);
    Duration::from_millis(width.saturating_mul(STEPS + step).saturating_add(width / 2))
}

fn add(verb: &Verb<'_>, measure: &str, bucket: i64) -> Result<(), Trouble> {
    run(
        verb,
        "INSERT INTO history (hour, measure, bucket, count) VALUES (?1, ?2, ?3, 1) \
         ON CONFLICT DO UPDATE SET count = count + 1",
        (verb.now.0.div_euclid(HOUR), measure, bucket),
    )?;
    Ok(())
}

/// A job was claimed: the first time tells how long it had waited.
pub(crate) fn claimed(verb: &Verb<'_>, job: i64) -> Result<(), Trouble> {
    let (first, place, patience) = one(
        verb,
        "UPDATE jobs SET claims = claims + 1, first_claim = COALESCE(first_claim, ?2), \
         mark = (SELECT s.sequence FROM requests r JOIN sessions s ON s.id = r.session \
         WHERE r.id = jobs.request) WHERE n = ?1 RETURNING first_claim = ?2, place, \
         (SELECT patience FROM requests r WHERE r.id = jobs.request)",
        (job, verb.now.0),
        |row| {
            Ok((
                get::<bool>(row, 0)?,
                get::<i64>(row, 1)?,
                get::<i64>(row, 2)?,
            ))
        },
    )?
    .ok_or_else(|| Trouble::Row(format!("the job in row {job} is missing")))?;
    if first {
        let ready = Timestamp(place.saturating_sub(patience));
        add(verb, "wait", bucket(verb.now.since(ready)))?;
    }
    Ok(())
}

/// An attempt ended after this long.
pub(crate) fn ran(verb: &Verb<'_>, span: Duration) -> Result<(), Trouble> {
    add(verb, "run", bucket(span))
}

/// A job ended.
pub(crate) fn ended(
    verb: &Verb<'_>,
    state: JobState,
    reason: Option<Reason>,
) -> Result<(), Trouble> {
    add(verb, state.as_str(), 0)?;
    if reason == Some(Reason::TimedOut) {
        add(verb, "timed_out", 0)?;
    }
    Ok(())
}

/// The middle and the slow end of how long something took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantiles {
    /// How often it was measured.
    pub count: u64,
    /// Half took no longer; an eighth too much or too little at the most.
    pub p50: Duration,
    /// Nineteen of twenty took no longer.
    pub p95: Duration,
}

/// What happened in a window of time, and what waits now.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Statistics {
    /// Jobs whose change passed the gate.
    pub delivered: u64,
    /// Jobs with nothing to change.
    pub nothing_to_do: u64,
    /// Jobs that failed for good.
    pub dead: u64,
    /// Jobs that somebody cancelled.
    pub cancelled: u64,
    /// Of the dead, those that took too long.
    pub timed_out: u64,
    /// From ready to claimed.
    pub wait: Quantiles,
    /// Attempts, from their start to their end.
    pub run: Quantiles,
    /// Requests that wait to be planned now.
    pub requests_waiting: u64,
    /// Jobs that may be claimed now.
    pub jobs_waiting: u64,
    /// Jobs under way now.
    pub jobs_held: u64,
    /// Changes that wait to be merged now.
    pub changes_waiting: u64,
}

impl Statistics {
    /// The part of the jobs that ended well, of those that nobody cancelled.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        share(self.delivered + self.nothing_to_do, self.decided())
    }

    /// The part of those jobs that took too long.
    #[must_use]
    pub fn timeout_rate(&self) -> Option<f64> {
        share(self.timed_out, self.decided())
    }

    fn decided(&self) -> u64 {
        self.delivered + self.nothing_to_do + self.dead
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of jobs are far below 2⁵²"
)]
fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

/// Where a job or request stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// How many are claimed before it, if nothing more urgent comes.
    pub ahead: u64,
    /// When it is claimed, by the median of what ran in the last week and by how many run now;
    /// none where nothing has run yet.
    pub wait: Option<Duration>,
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

impl Ledger {
    /// What happened since so long ago, to the hour, and what waits now.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn statistics(&self, window: Duration) -> Result<Statistics, Error> {
        let since = self.now().0.saturating_sub(micros(window));
        self.read("read statistics", move |sql| statistics(sql, since))
            .await
    }

    /// Where a job stands in the queue; none where it does not wait to be claimed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_position(&self, job: JobId) -> Result<Option<Position>, Error> {
        let since = week_before(self.now());
        self.read("find a place in the queue", move |sql| {
            job_position(sql, job, since)
        })
        .await
    }

    /// Where a request stands among those that wait to be planned; none where it does not.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn request_position(&self, request: RequestId) -> Result<Option<Position>, Error> {
        let since = week_before(self.now());
        self.read("find a place in the queue", move |sql| {
            request_position(sql, request, since)
        })
        .await
    }
}

/// The first hour whose counts are kept where all before a time may go: places in a queue are told
/// by those of the last week.
pub(crate) fn not_needed_before(now: Timestamp, before: Timestamp) -> i64 {
    week_before(now).min(before.0).div_euclid(HOUR)
}

/// From when on runs are looked at to say how long one takes.
pub(crate) fn week_before(now: Timestamp) -> i64 {
    now.0.saturating_sub(micros(WEEK))
}

pub(crate) fn job_position(sql: &Sql, job: JobId, since: i64) -> Result<Option<Position>, Trouble> {
    let (ready, queue, place, n, request, offered) = one(
        sql,
        "SELECT state = 'ready', queue, place, n, request, offered FROM jobs WHERE id = ?1",
        [job.key()],
        |row| {
            Ok((
                get::<bool>(row, 0)?,
                get::<i64>(row, 1)?,
                get::<i64>(row, 2)?,
                get::<i64>(row, 3)?,
                get::<i64>(row, 4)?,
                get::<bool>(row, 5)?,
            ))
        },
    )?
    .ok_or_else(|| Error::missing("job", job))?;
    if !ready {
        return Ok(None);
    }
    let before = if offered {
        0
    } else {
        one(
            sql,
            "SELECT COUNT(*) FROM jobs INDEXED BY jobs_ready WHERE request = ?1 \
             AND state = 'ready' AND offered = 0 AND (place, n) < (?2, ?3)",
            (request, place, n),
            |row| count(row, 0),
        )?
        .unwrap_or(0)
    };
    position(sql, Kind::Job, queue, place, before, since).map(Some)
}

pub(crate) fn request_position(
    sql: &Sql,
    request: RequestId,
    since: i64,
) -> Result<Option<Position>, Trouble> {
    let (queued, queue, place) = one(
        sql,
        "SELECT r.state = 'queued' AND q.kind = 0, r.queue, r.place FROM requests r \
         JOIN queues q ON q.n = r.queue WHERE r.id = ?1",
        [request.key()],
        |row| {
            Ok((
                get::<bool>(row, 0)?,
                get::<i64>(row, 1)?,
                get::<i64>(row, 2)?,
            ))
        },
    )?
    .ok_or_else(|| Error::missing("request", request))?;
    if !queued {
        return Ok(None);
    }
    position(sql, Kind::Request, queue, place, 0, since).map(Some)
}

fn position(
    sql: &Sql,
    kind: Kind,
    queue: i64,
    place: i64,
    more: u64,
    since: i64,
) -> Result<Position, Trouble> {
    let ahead = one(
        sql,
        "WITH turns(n, held) AS (SELECT q.n, \
         (SELECT COALESCE(SUM(h.held), 0) FROM queues h INDEXED BY queues_held \
         WHERE h.kind = ?1 AND h.held > 0 AND h.user = q.user) \
         + (SELECT COALESCE(SUM(h.held), 0) FROM queues h INDEXED BY queues_held \
         WHERE h.kind = ?1 AND h.held > 0 AND h.repository = q.repository) \
         FROM queues q WHERE q.kind = ?1 AND (q.offered > 0 OR q.n = ?4)) \
         SELECT COUNT(*) FROM turns t JOIN offers o ON o.queue = t.n \
         WHERE o.place + t.held * ?2 < ?3 + (SELECT held FROM turns WHERE n = ?4) * ?2",
        (kind as i64, micros(SHARE), place, queue),
        |row| count(row, 0),
    )?
    .unwrap_or(0)
    .saturating_add(more);
    let run = quantiles(sql, "run", since)?;
    let held = one(
        sql,
        "SELECT COALESCE(SUM(held), 0) FROM queues WHERE kind = 1",
        [],
        |row| count(row, 0),
    )?
    .unwrap_or(0)
    .max(1);
    let rounds = u32::try_from(ahead.div_ceil(held)).unwrap_or(u32::MAX);
    Ok(Position {
        ahead,
        wait: (run.count > 0).then(|| run.p50.saturating_mul(rounds)),
    })
}

fn statistics(sql: &Sql, since: i64) -> Result<Statistics, Trouble> {
    let ended = |state: &str| total(sql, state, since);
    let waiting = |kind: Kind| {
        one(
            sql,
            "SELECT COALESCE(SUM(offered), 0), COALESCE(SUM(held), 0) FROM queues WHERE kind = ?1",
            [kind as i64],
            |row| Ok((count(row, 0)?, count(row, 1)?)),
        )
        .map(Option::unwrap_or_default)
    };
    let (jobs_waiting, jobs_held) = waiting(Kind::Job)?;
    Ok(Statistics {
        delivered: ended(JobState::Delivered.as_str())?,
        nothing_to_do: ended(JobState::NothingToDo.as_str())?,
        dead: ended(JobState::Dead.as_str())?,
        cancelled: ended(JobState::Cancelled.as_str())?,
        timed_out: ended("timed_out")?,
        wait: quantiles(sql, "wait", since)?,
        run: quantiles(sql, "run", since)?,
        requests_waiting: waiting(Kind::Request)?.0,
        jobs_waiting,
        jobs_held,
        changes_waiting: waiting(Kind::Change)?.0,
    })
}

fn total(sql: &Sql, measure: &str, since: i64) -> Result<u64, Trouble> {
    Ok(one(
        sql,
        "SELECT COALESCE(SUM(count), 0) FROM history WHERE measure = ?1 AND hour >= ?2",
        (measure, since.div_euclid(HOUR)),
        |row| count(row, 0),
    )?
    .unwrap_or(0))
}

fn quantiles(sql: &Sql, measure: &str, since: i64) -> Result<Quantiles, Trouble> {
    let counts = all(
        sql,
        "SELECT bucket, SUM(count) FROM history WHERE measure = ?1 AND hour >= ?2 \
         GROUP BY bucket ORDER BY bucket",
        (measure, since.div_euclid(HOUR)),
        |row| Ok((count(row, 0)?, count(row, 1)?)),
    )?;
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let at = |of_twenty: u64| {
        let wanted = (all * of_twenty).div_ceil(20).max(1);
        let mut seen = 0;
        counts
            .iter()
            .find(|(_, count)| {
                seen += count;
                seen >= wanted
            })
            .map_or(Duration::ZERO, |(bucket, _)| middle(*bucket))
    };
    Ok(Quantiles {
        count: all,
        p50: at(10),
        p95: at(19),
    })
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_middle_of_a_range_is_within_an_eighth_of_what_fell_into_it(millis in 0..1u64 << 40) {
            let span = Duration::from_millis(millis);
            let middle = middle(u64::try_from(bucket(span)).unwrap()).as_millis();
            prop_assert!(middle.abs_diff(u128::from(millis)) * 8 <= u128::from(millis));
        }

        #[test]
        fn longer_durations_fall_into_later_ranges(a in 0..1u64 << 40, b in 0..1u64 << 40) {
            let of = |millis| bucket(Duration::from_millis(millis));
            prop_assert_eq!(a.min(b) == b && of(a) < of(b), false);
        }
    }
}
