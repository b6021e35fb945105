//! Sleeping jobs: one that cannot go on yet is parked until a time, and woken once.
//!
//! What wakes them is the next claim, or the tick of any process that has the ledger open.

use crate::{
    error::Trouble,
    later, postpone, progress,
    sql::{all, id},
    transition,
    writer::Verb,
};
use domain::{JobId, RequestId, state::JobCommand};
use std::time::Duration;

/// How long a job sleeps after its first failure; twice as long after each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest that a failure makes it sleep.
const LONGEST: Duration = Duration::from_secs(5 * 60);
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

/// Wakes the jobs whose time has come, and offers the requests and changes that were put back
/// until now or are not to begin before it. Says how many.
pub(crate) fn wake_due(verb: &mut Verb<'_>) -> Result<usize, Trouble> {
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
    Ok(due.len() + postpone::offer_due(verb)? + later::wake_due(verb)?)
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
                assert!(span >= FIRST && span <= LONGEST * 3 / 2, "{span:?}");
            }
        }
        assert_ne!(back_off(3, 1), back_off(3, 200));
    }
}
