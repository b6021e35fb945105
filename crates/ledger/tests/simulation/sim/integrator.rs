//! Integrators: they claim changes, say what is about to land, and move the branch.

use super::{
    actor::{Actor, Heard, View},
    call::{Answer, Call},
    outside::Move,
};
use domain::{Failure, Reason, RequestState, entity::Change};
use skep_ledger::{ChangeOutcome, Error, Lease};

#[derive(Clone)]
enum Phase {
    /// Nobody else may move the branch from here on.
    Fence,
    Look,
    Checking,
    /// This is about to land on that tip.
    Intended(String, String),
    Settle(ChangeOutcome),
    Publish(String),
}

struct Held {
    lease: Lease,
    change: Change,
    is_cancelled: bool,
    /// Whether it was lost too often, and is only to be looked for.
    is_given_up: bool,
    /// What may be on the branch.
    intents: Vec<String>,
    checked: bool,
    phase: Phase,
}

#[derive(Default)]
pub(crate) struct Integrator(Option<Held>);

impl Held {
    /// What to do by what the branch is now.
    fn look(&mut self, view: &mut View<'_>) -> Call {
        let branch = view.outside.branches.get(&self.change.repository);
        let landed = self
            .intents
            .iter()
            .find(|commit| branch.is_some_and(|branch| branch.holds(commit)));
        let reject = |reason| ChangeOutcome::Rejected {
            failure: Failure::new(reason, ""),
        };
        let outcome = match (landed, view.random.below(100)) {
            (Some(commit), _) => Some(ChangeOutcome::Integrated {
                commit: commit.clone(),
            }),
            _ if self.is_given_up => Some(reject(Reason::OwnerLost)),
            _ if self.is_cancelled => Some(reject(Reason::Cancelled)),
            (_, 0..4) => Some(reject(Reason::ChecksFailed)),
            (_, 4..8) => Some(ChangeOutcome::Conflicted {
                files: vec!["a".into()],
            }),
            (_, 8..11) => Some(ChangeOutcome::Requeued),
            (_, roll @ 11..17) => Some(ChangeOutcome::Postponed {
                failure: Failure::new(Reason::Storage, ""),
                may_have_landed: roll < 14,
            }),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.phase = Phase::Settle(outcome.clone());
            return Call::SettleChange(self.lease.clone(), outcome);
        }
        if !self.checked && view.random.chance(500) {
            self.phase = Phase::Checking;
            return Call::CheckChange(self.lease.clone());
        }
        let seen = branch.map(|branch| branch.tip().to_owned());
        let commit = format!("{}-{:x}", self.change.id, view.random.below(1 << 32));
        self.phase = Phase::Intended(commit.clone(), seen.unwrap_or_default());
        Call::Land(self.lease.clone(), commit)
    }

    fn next(&mut self, view: &mut View<'_>) -> Call {
        if view.random.chance(80) {
            return Call::Heartbeat(self.lease.clone());
        }
        match self.phase.clone() {
            Phase::Fence => Call::Fence(self.change.repository, self.lease.token),
            Phase::Look => self.look(view),
            Phase::Checking => Call::CheckChange(self.lease.clone()),
            Phase::Intended(to, _) if !self.intents.contains(&to) => {
                Call::Land(self.lease.clone(), to)
            }
            Phase::Intended(to, seen) => Call::Move(Move {
                repository: self.change.repository,
                token: self.lease.token,
                seen,
                to,
                change: self.change.id,
            }),
            Phase::Settle(outcome) => Call::SettleChange(self.lease.clone(), outcome),
            Phase::Publish(commit) => Call::Publish(self.change.request, commit),
        }
    }

    /// Whether it goes on.
    fn hear(&mut self, call: &Call, heard: Heard, stubborn: bool) -> bool {
        if let Heard::Error {
            error: Error::LeaseLost(_),
            ..
        } = &heard
        {
            // As if nothing had happened: what was about to land, lands.
            if !(stubborn && matches!(call, Call::Land(..) | Call::Heartbeat(_))) {
                return false;
            }
        } else if let Heard::Nothing = &heard {
            return false;
        }
        self.phase = match (call, heard) {
            (Call::Fence(..), _) => Phase::Look,
            (Call::CheckChange(_), _) => {
                self.checked = true;
                Phase::Look
            }
            (Call::Land(_, commit), _) => {
                self.intents.push(commit.clone());
                return true;
            }
            (Call::Move(_), Heard::Answer { answer, .. }) => match (answer, &self.phase) {
                (Answer::Moved(true), Phase::Intended(commit, _)) => {
                    Phase::Settle(ChangeOutcome::Integrated {
                        commit: commit.clone(),
                    })
                }
                _ => Phase::Look,
            },
            (Call::SettleChange(_, ChangeOutcome::Integrated { commit }), _) => {
                Phase::Publish(commit.clone())
            }
            (Call::SettleChange(..) | Call::Publish(..), _) => return false,
            _ => return true,
        };
        true
    }
}

impl Actor for Integrator {
    fn next(&mut self, view: &mut View<'_>) -> Option<Call> {
        match &mut self.0 {
            Some(held) => Some(held.next(view)),
            None => Some(Call::ClaimChange),
        }
    }

    fn hear(&mut self, view: &mut View<'_>, call: &Call, heard: Heard) {
        let Some(held) = &mut self.0 else {
            if let Heard::Answer {
                answer: Answer::ToMerge(Some(claimed)),
                ..
            } = heard
            {
                self.0 = Some(Held {
                    lease: claimed.lease,
                    is_cancelled: claimed.request.state == RequestState::Cancelled,
                    is_given_up: claimed.given_up.is_some(),
                    intents: claimed.change.integrated.iter().cloned().collect(),
                    change: claimed.change,
                    checked: false,
                    phase: Phase::Fence,
                });
            }
            return;
        };
        if !held.hear(call, heard, view.stubborn) {
            self.0 = None;
        }
    }

    fn is_idle(&self) -> bool {
        self.0.is_none()
    }
}
