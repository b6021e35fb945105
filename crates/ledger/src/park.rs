//! Sleeping jobs: one that cannot go on yet is parked until a time, and woken once.
//!
//! What wakes them is the next claim, or the tick of any process that has the ledger open.
//!
//! A clock may be a day ahead for a while, and what was parked then would sleep for a day when it
//! has been put right. So a job knows since when it sleeps: one that was parked later than now sleeps
//! from now on for as long as it was to. Notifications have no other waits than back-offs, so one that
//! is due later than [`MOST`] from now is due.

use crate::{
    error::Trouble,
    later, postpone, progress,
    sql::{all, id, run},
    transition,
    writer::Verb,
};
use domain::{JobId, RequestId, Timestamp, state::JobCommand};
use std::time::Duration;

/// How long a job sleeps after its first failure; twice as long after each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest that a failure makes it sleep.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// The longest that [`back_off`] gives: half as much again by chance.
pub(crate) const MOST: Duration = Duration::from_secs(5 * 60 * 3 / 2);
/// The most jobs that one verb wakes; the next verb wakes the rest.
pub(crate) const DUE: i64 = 64;

/// How long a job sleeps after this many claims that failed: twice as long each time, and up to
/// half as much again by these random bits, so that jobs that failed together do not come back
/// together.
pub(crate) fn back_off(claims: u32, bits: u64) -> Duration {
    let doublings = claims.saturating_sub(1).min(16);
    let span = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let jitter = u32::try_from(bits % 512).unwrap_or_default();
    span + span * jitter / 1024
}

/// Until when something waits whose holder was lost so often in a row: not at all the first time,
/// since a process that was killed says nothing of its work.
pub(crate) fn after_losses(verb: &Verb<'_>, lost: u32) -> Option<Timestamp> {
    let before = lost.checked_sub(1).filter(|before| *before > 0)?;
    Some(verb.now.plus(back_off(before, verb.context.ids.bits())))
}

/// Wakes the jobs whose time has come, and offers the requests and changes that were put back
/// until now or are not to begin before it. Says how many, those included that the clock has moved.
pub(crate) fn wake_due(verb: &mut Verb<'_>) -> Result<usize, Trouble> {
    let moved = follow_the_clock(verb)?;
    let due: Vec<(JobId, RequestId)> = all(
        verb,
        "SELECT id, request FROM jobs INDEXED BY jobs_parked \
         WHERE state = 'parked' AND until <= ?1 ORDER BY until LIMIT ?2",
        (verb.now.0, DUE),
        |row| Ok((id(row, 0)?, id(row, 1)?)),
    )?;
    for (job, request) in &due {
        transition::job(verb, *job, JobCommand::Wake, None)?;
        progress::follow(verb, *request)?;
    }
    Ok(moved + due.len() + postpone::offer_due(verb)? + later::wake_due(verb)?)
}

/// Lets what was parked later than now, by a clock that has been put back, sleep from now on.
fn follow_the_clock(verb: &Verb<'_>) -> Result<usize, Trouble> {
    let moved = run(
        verb,
        "UPDATE jobs SET until = ?1 + MAX(until - parked, 0), parked = ?1 WHERE n IN \
         (SELECT n FROM jobs INDEXED BY jobs_parked_since \
         WHERE state = 'parked' AND parked > ?1 LIMIT ?2)",
        (verb.now.0, DUE),
    )?;
    if moved > 0 {
        tracing::info!(
            moved,
            "the clock was put back: parked jobs sleep from now on"
        );
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_sleep_up_to_a_bound_and_no_two_are_alike() {
        assert_eq!(back_off(1, 0), Duration::from_secs(1));
        assert_eq!(back_off(2, 0), Duration::from_secs(2));
        assert_eq!(back_off(4, 0), Duration::from_secs(8));
        for claims in 0..100 {
            for bits in [0, 1, 511, u64::MAX] {
                let span = back_off(claims, bits);
                assert!(span >= FIRST && span <= MOST, "{span:?}");
            }
        }
        assert_eq!(MOST, LONGEST * 3 / 2);
        assert_ne!(back_off(3, 1), back_off(3, 200));
    }
}
