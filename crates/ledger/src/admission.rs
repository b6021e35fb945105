//! Admission: how much may wait, and how fast one user may add to it.

use crate::{
    error::{Error, Trouble},
    sql::{Sql, get, one, run},
    writer::Verb,
};
use domain::{Timestamp, entity::Placement};
use std::time::Duration;

/// What is taken before a submission is refused with [`Error::Busy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// How many requests may wait to be planned, those included whose time has not come.
    pub waiting: u64,
    /// How many requests one user may submit in a minute, in a burst or spread; none is no limit.
    pub per_minute: Option<u32>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            waiting: 10_000,
            per_minute: None,
        }
    }
}

/// When to come back where too many wait: planning a request takes about this long.
const WAIT: Duration = Duration::from_secs(30);
/// Allowances are counted in thousandths.
const WHOLE: i64 = 1_000;
const MINUTE: i64 = 60_000_000;

/// Refuses what is too much.
pub(crate) fn admit(verb: &mut Verb<'_>, placement: &Placement) -> Result<(), Trouble> {
    let Admission {
        waiting,
        per_minute,
    } = verb.context.admission;
    let queued = match verb.known.waiting() {
        Some(known) => known,
        None => {
            verb.store_counts()?;
            let found = queued_now(verb)?;
            verb.known.learn_waiting(found)
        }
    };
    if queued >= waiting {
        return Err(Error::Busy {
            what: match queued {
                1 => "1 request waits to be planned".into(),
                _ => format!("{queued} requests wait to be planned"),
            },
            retry_after: WAIT,
        }
        .into());
    }
    match per_minute {
        Some(most) => spend(verb, &placement.user, i64::from(most.max(1))),
        None => Ok(()),
    }
}

/// How many requests wait to be planned, or for their time.
fn queued_now(sql: &Sql) -> Result<i64, Trouble> {
    let found = one(
        sql,
        "SELECT (SELECT COALESCE(SUM(offered), 0) FROM queues WHERE kind = 0 AND rank IS NOT NULL) \
         + (SELECT COALESCE(SUM(offered), 0) FROM queues WHERE kind = 3 AND rank IS NOT NULL)",
        [],
        |row| get(row, 0),
    )?;
    Ok(found.unwrap_or(0))
}

/// An allowance that nothing was taken from since this time is full, as one that is not known.
pub(crate) fn full_since(now: Timestamp) -> i64 {
    now.0.saturating_sub(MINUTE)
}

/// Takes one submission from the user's allowance, which fills up at the rate of `most` a minute.
fn spend(verb: &Verb<'_>, user: &str, most: i64) -> Result<(), Trouble> {
    let full = most * WHOLE;
    let known = one(
        verb,
        "SELECT left, time FROM rates WHERE user = ?1",
        [user],
        |row| Ok((get::<i64>(row, 0)?, get::<i64>(row, 1)?)),
    )?;
    let left = known.map_or(full, |(left, time)| {
        // A clock that was put back fills nothing, unless by so much that the user would wait for
        // longer than an allowance takes to be full.
        let passed = match verb.now.0.saturating_sub(time) {
            ahead if ahead < -MINUTE => MINUTE,
            passed => passed.clamp(0, MINUTE),
        };
        (left + passed * full / MINUTE).min(full)
    });
    if left < WHOLE {
        let missing = u64::try_from((WHOLE - left) * MINUTE / full).unwrap_or_default();
        return Err(Error::Busy {
            what: match most {
                1 => format!("`{user}` has submitted 1 request in a minute"),
                _ => format!("`{user}` has submitted {most} requests in a minute"),
            },
            retry_after: Duration::from_micros(missing).max(Duration::from_secs(1)),
        }
        .into());
    }
    run(
        verb,
        "INSERT INTO rates (user, left, time) VALUES (?1, ?2, ?3) \
         ON CONFLICT (user) DO UPDATE SET left = ?2, time = ?3",
        (user, left - WHOLE, verb.now.0),
    )?;
    Ok(())
}
