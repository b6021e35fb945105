//! Spending: whoever works calls models, each call reserved before and settled after.

use super::{
    actor::{Heard, View},
    blobs::CONTENTS,
    call::{Answer, Call},
    random::Random,
};
use domain::{Amount, AttemptId, BlobId, GrantId, Micros, event::Body};
use skep_ledger::{Error, Exchange, Lease};

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
    /// What the last call was settled with.
    settled: Option<Box<(Body, Option<Exchange>)>>,
    /// A blob that was stored and may be named, if nobody removes it before.
    pub(crate) blob: Option<BlobId>,
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
            settled: None,
            blob: None,
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
            Phase::Free => match &self.settled {
                // Another end of a call that is over.
                Some(end) if random.chance(150) => Call::Settle(grant, otherwise(end.clone())),
                _ => Call::Reserve(grant, self.number, amount(1 + random.below(40))),
            },
            // Another amount for a call that is reserved.
            Phase::Reserved(reserved) if random.chance(70) => {
                Call::Reserve(grant, self.number, amount(reserved.tokens + 1))
            }
            Phase::Reserved(_) if random.chance(150) => Call::Unreserve(grant, self.number),
            Phase::Reserved(reserved) => {
                // Sometimes it takes more than anybody thought.
                let took = match random.chance(100) {
                    true => reserved.tokens * 3,
                    false => random.below(reserved.tokens + 1),
                };
                Call::Model(grant, self.number, amount(took))
            }
            Phase::Called(..) if self.blob.is_none() && random.chance(400) => put(random)?,
            Phase::Called(reserved, took) => {
                let exchange = self.blob.map(|blob| Exchange {
                    call: self.number,
                    endpoint: "/v1/messages".into(),
                    request: blob,
                    digest: "x".into(),
                    status: 200,
                    headers: Vec::new(),
                    response: blob,
                });
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
                Call::Settle(grant, Box::new((called, exchange)))
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
            Call::Reserve(_, _, reserved) if answered => self.phase = Phase::Reserved(*reserved),
            // It was closed, or there is not enough; or it asked for another amount.
            Call::Reserve(..) => {
                let otherwise = matches!(
                    heard,
                    Heard::Error {
                        error: Error::CallTaken { .. },
                        ..
                    }
                );
                self.over |= !otherwise;
            }
            Call::Unreserve(..) => {
                self.phase = Phase::Free;
                self.number += 1;
                self.over |= !answered;
            }
            Call::Model(_, _, took) => {
                if let Phase::Reserved(reserved) = self.phase {
                    self.phase = Phase::Called(reserved, answered.then_some(*took));
                }
            }
            Call::PutBlob(_) => {
                if let Heard::Answer {
                    answer: Answer::Blob(blob),
                    ..
                } = heard
                {
                    self.blob = Some(*blob);
                }
            }
            Call::Settle(..) | Call::Record(..) if is_missing(heard) => self.blob = None,
            // Settled now, or before, or its grant is closed and it counts as reserved.
            Call::Settle(_, end) => {
                if let Phase::Called(..) = self.phase {
                    self.phase = Phase::Free;
                    self.number += 1;
                    self.settled = answered.then(|| end.clone());
                }
                self.over |= matches!(heard, Heard::Nothing);
            }
            _ => return false,
        }
        true
    }
}

/// Stores something.
pub(crate) fn put(random: &mut Random) -> Option<Call> {
    random.pick(&CONTENTS).map(|content| Call::PutBlob(content))
}

/// Whether a blob was removed before it was named: it must be stored again.
pub(crate) fn is_missing(heard: &Heard) -> bool {
    matches!(
        heard,
        Heard::Error {
            error: Error::BlobMissing { .. },
            ..
        }
    )
}

/// A settlement of the same call with something else.
fn otherwise(mut settled: Box<(Body, Option<Exchange>)>) -> Box<(Body, Option<Exchange>)> {
    if let Body::ModelCalled { spent, .. } = &mut settled.0 {
        spent.tokens += 1;
    }
    settled
}
