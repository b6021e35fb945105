//! Planners: they claim requests, spend a little, and make plans, or fail.

use super::{
    actor::{Actor, Heard, View},
    call::{Answer, Call},
    random::Random,
    spend::Spend,
};
use domain::{Failure, Reason, plan};
use skep_ledger::{Error, Lease, Seek};

struct Held {
    lease: Lease,
    spend: Spend,
    /// How often a plan was refused.
    refused: u32,
}

pub(crate) struct Planner {
    /// Who it is.
    seek: Seek,
    held: Option<Held>,
}

impl Planner {
    pub(crate) fn new(seek: Seek) -> Self {
        Self { seek, held: None }
    }
}

/// Up to four jobs, each after some of those before it. A modest one names no tokens.
fn plan(random: &mut Random, modest: bool) -> plan::Plan {
    let jobs = (0..1 + random.below(4))
        .map(|job| plan::Job {
            name: format!("j{job}"),
            prompt: format!("do {job}"),
            after: (0..job)
                .filter(|_| random.chance(350))
                .map(|before| format!("j{before}"))
                .collect(),
            tokens: (!modest && random.chance(200)).then(|| 1 + random.below(3_000)),
            needs: random
                .chance(150)
                .then(|| "net".to_owned())
                .into_iter()
                .collect(),
            may_change_nothing: true,
            ..plan::Job::default()
        })
        .collect();
    plan::Plan { jobs }
}

impl Actor for Planner {
    fn next(&mut self, view: &mut View<'_>) -> Option<Call> {
        let Some(held) = &mut self.held else {
            return Some(Call::ClaimRequest(self.seek.clone()));
        };
        let lease = held.lease.clone();
        match view.random.below(100) {
            0..60 => held.spend.next(view, &lease),
            60..66 => Some(Call::Heartbeat(lease)),
            66..69 => Some(Call::FailRequest(
                lease,
                Failure::new(Reason::PlanInvalid, ""),
            )),
            69..72 => Some(Call::PostponeRequest(
                lease,
                Failure::new(Reason::Storage, ""),
            )),
            72..93 if held.refused > 1 => Some(Call::FailRequest(
                lease,
                Failure::new(Reason::BudgetExhausted, ""),
            )),
            72..93 => Some(Call::Plan(lease, plan(view.random, held.refused > 0))),
            _ => None,
        }
    }

    fn hear(&mut self, _: &mut View<'_>, call: &Call, heard: Heard) {
        let Some(held) = &mut self.held else {
            if let Heard::Answer {
                answer: Answer::ToPlan(Some(claimed)),
                ..
            } = heard
            {
                self.held = Some(Held {
                    lease: claimed.lease,
                    spend: Spend::new(None),
                    refused: 0,
                });
            }
            return;
        };
        let lost = matches!(
            heard,
            Heard::Error {
                error: Error::LeaseLost(_),
                ..
            }
        );
        if !lost && held.spend.hear(call, &heard) {
            return;
        }
        match (call, heard) {
            (_, Heard::Nothing) => self.held = None,
            (Call::Plan(..), Heard::Error { .. }) if !lost => held.refused += 1,
            (Call::Heartbeat(_), Heard::Answer { .. }) => {}
            _ => self.held = None,
        }
    }

    fn is_idle(&self) -> bool {
        self.held.is_none()
    }
}
