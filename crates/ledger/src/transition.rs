//! The only writers of states: each asks the machine, stores its answer and says what happened.

mod attempt;
mod change;
mod job;
mod request;

pub(crate) use attempt::{
    End, attempt_checks, attempt_runs, end_attempt, resume_attempt, suspend_attempt,
};
pub(crate) use change::{Landing, change};
pub(crate) use job::job;
pub(crate) use request::request;

use crate::{
    error::Trouble,
    queue::{self, Offer},
    writer::Verb,
};
use domain::{Failure, Timestamp};

/// What a request or a job is told besides the command.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) failure: Option<Failure>,
    /// Until when a job is parked, or a queued request waits.
    pub(crate) until: Option<Timestamp>,
}

impl From<Option<Failure>> for Told {
    fn from(failure: Option<Failure>) -> Self {
        Self {
            failure,
            until: None,
        }
    }
}

/// Offers what has become claimable, takes back what is not any more, and counts what is held:
/// (claimable, held) before and after.
fn queued(
    verb: &mut Verb<'_>,
    offer: Offer,
    from: (bool, bool),
    to: (bool, bool),
) -> Result<(), Trouble> {
    match (from.0, to.0) {
        (false, true) => queue::insert(verb, offer)?,
        (true, false) => queue::delete(verb, offer.queue, offer.place, offer.subject)?,
        _ => {}
    }
    verb.count(
        offer.kind,
        offer.queue,
        i64::from(to.0) - i64::from(from.0),
        i64::from(to.1) - i64::from(from.1),
    );
    Ok(())
}
