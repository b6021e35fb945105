//! Spending: whoever works calls models, each call reserved before and settled after.

use super::{
    actor::{Heard, View},
    call::{Answer, Call},
};
use domain::{Amount, AttemptId, GrantId, Micros, event::Body};
use skep_ledger::Lease;

#[derive(Clone, Copy)]
enum Phase {
    Free,
    Reserved(Amount),
    /// What the provider says it took; none where the answer was lost.
    Called(Amount, Option<Amount>),
}

/// A spender under one lease.
pub(crate) struct Spend {
    attempt: Option<AttemptId>,
    grant: Option<GrantId>,
    /// The number of the next call.
    number: u64,
    phase: Phase,
    /// Whether the budget is used up.
    over: bool,
}

fn amount(tokens: u64) -> Amount {
    Amount {
        tokens,
        money: Micros(tokens),
        ..Amount::ZERO
    }
}

impl Spend {
    pub(crate) fn new(attempt: Option<AttemptId>) -> Self {
        Self {
            attempt,
            grant: None,
            number: 1,
            phase: Phase::Free,
            over: false,
        }
    }

    pub(crate) fn next(&self, view: &mut View<'_>, lease: &Lease) -> Option<Call> {
        if self.over {
            return None;
        }
        let Some(grant) = self.grant else {
            return Some(Call::OpenGrant(lease.clone(), self.attempt));
        };
        let random = &mut *view.random;
        Some(match self.phase {
            Phase::Free => Call::Reserve(grant, amount(1 + random.below(40))),
            Phase::Reserved(reserved) if random.chance(150) => Call::Unreserve(grant, reserved),
            Phase::Reserved(reserved) => {
                // Sometimes it takes more than anybody thought.
                let took = match random.chance(100) {
                    true => reserved.tokens * 3,
                    false => random.below(reserved.tokens + 1),
                };
                Call::Model(grant, self.number, amount(took))
            }
            Phase::Called(reserved, took) => {
                let called = Body::ModelCalled {
                    attempt: self.attempt,
                    model: "test/model".into(),
                    call: self.number,
                    spent: took.unwrap_or(reserved),
                    metered: took.is_some(),
                    priced: true,
                    status: took.map(|_| 200),
                    duration_ms: 1,
                };
                Call::Settle(grant, reserved, called)
            }
        })
    }

    /// Whether the call was its own.
    pub(crate) fn hear(&mut self, call: &Call, heard: &Heard) -> bool {
        let answered = matches!(heard, Heard::Answer { .. });
        match call {
            Call::OpenGrant(..) => {
                if let Heard::Answer {
                    answer: Answer::Grant(grant),
                    ..
                } = heard
                {
                    self.grant = Some(*grant);
                }
            }
            Call::Reserve(_, reserved) if answered => self.phase = Phase::Reserved(*reserved),
            // It was closed, or there is not enough.
            Call::Reserve(..) => self.over = true,
            Call::Unreserve(..) => {
                self.phase = Phase::Free;
                self.over |= !answered;
            }
            Call::Model(_, _, took) => {
                if let Phase::Reserved(reserved) = self.phase {
                    self.phase = Phase::Called(reserved, answered.then_some(*took));
                }
            }
            // Settled now, or before, or its grant is closed and it counts as reserved.
            Call::Settle(..) => {
                self.phase = Phase::Free;
                self.number += 1;
                self.over |= matches!(heard, Heard::Nothing);
            }
            _ => return false,
        }
        true
    }
}
