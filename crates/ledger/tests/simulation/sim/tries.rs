//! How often something was tried in vain: nothing is tried for ever, and nothing ends too soon.

use super::Broken;
use domain::{ChangeId, ChangeState, Reason, RequestId, RequestState, event::Body};
use skep_ledger::{MAX_LOST_INTEGRATORS, MAX_POSTPONED};
use std::collections::BTreeMap;

/// What was counted of a change.
#[derive(Default)]
struct Tried {
    /// Integrators that were lost in a row.
    lost: u32,
    postponed: u32,
}

/// By what the events tell.
#[derive(Default)]
pub(crate) struct Tries {
    changes: BTreeMap<ChangeId, Tried>,
    requests: BTreeMap<RequestId, u32>,
}

impl Tries {
    /// Takes note of an event. A change is `intended` where it may be on the branch.
    pub(crate) fn observe(
        &mut self,
        body: &Body,
        intended: impl Fn(ChangeId) -> bool,
    ) -> Result<(), Broken> {
        match body {
            Body::RequestChanged {
                request,
                from: RequestState::Planning,
                to,
                failure: Some(failure),
            } if failure.reason == Reason::Storage => {
                let postponed = self.requests.entry(*request).or_default();
                *postponed += 1;
                ends(*request, *postponed, *to == RequestState::Failed)
            }
            Body::ChangeChanged {
                change,
                to,
                failure,
                ..
            } if !matches!(to, ChangeState::Merging | ChangeState::Checking) => {
                let tried = self.changes.entry(*change).or_default();
                let ended = *to == ChangeState::Rejected;
                match failure.as_ref().map(|failure| failure.reason) {
                    Some(Reason::OwnerLost) if ended => {
                        Broken::unless(tried.lost + 1 >= MAX_LOST_INTEGRATORS, || {
                            format!("{change} is given up after {} losses", tried.lost + 1)
                        })
                    }
                    Some(Reason::OwnerLost) => {
                        tried.lost += 1;
                        let most = MAX_LOST_INTEGRATORS * if intended(*change) { 2 } else { 1 };
                        Broken::unless(tried.lost < most, || {
                            format!("{change} is tried again after {} losses", tried.lost)
                        })
                    }
                    Some(Reason::Storage) => {
                        tried.lost = 0;
                        tried.postponed += 1;
                        ends(*change, tried.postponed, ended)
                    }
                    _ => {
                        tried.lost = 0;
                        Ok(())
                    }
                }
            }
            _ => Ok(()),
        }
    }
}

/// What was put back so often has ended, or goes on.
fn ends(id: impl std::fmt::Display, postponed: u32, ended: bool) -> Result<(), Broken> {
    Broken::unless(ended == (postponed == MAX_POSTPONED), || {
        let how = if ended { "ended" } else { "put back" };
        format!("{id} is {how} after {postponed} faults")
    })
}
