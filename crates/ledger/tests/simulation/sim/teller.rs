//! Tellers: they claim notifications and tell them to sinks, of which some cannot be reached.

use super::{
    actor::{Actor, Heard, View},
    call::{Answer, Call},
};
use domain::EventId;
use skep_ledger::{Lease, Unreached};

/// Who is told.
pub(crate) const SINKS: [&str; 2] = ["mail", "hook"];

struct Held {
    lease: Lease,
    event: EventId,
    /// The sinks that are still to be told.
    left: Vec<String>,
    unreached: Vec<Unreached>,
}

#[derive(Default)]
pub(crate) struct Teller(Option<Held>);

impl Held {
    fn next(&mut self, view: &mut View<'_>) -> Call {
        if view.random.chance(50) {
            return Call::Heartbeat(self.lease.clone());
        }
        while let Some(sink) = self.left.last() {
            if view.ending || view.random.chance(600) {
                return Call::Tell(self.event, sink.clone());
            }
            self.unreached.push(Unreached {
                sink: sink.clone(),
                why: "it does not answer".into(),
                again: view.random.chance(700),
            });
            self.left.pop();
        }
        Call::SettleNotification(self.lease.clone(), self.unreached.clone())
    }
}

impl Actor for Teller {
    fn next(&mut self, view: &mut View<'_>) -> Option<Call> {
        match &mut self.0 {
            Some(held) => Some(held.next(view)),
            None => Some(Call::ClaimNotification),
        }
    }

    fn hear(&mut self, _: &mut View<'_>, call: &Call, heard: Heard) {
        match (&mut self.0, call, heard) {
            (
                none @ None,
                _,
                Heard::Answer {
                    answer: Answer::ToTell(Some(claimed)),
                    ..
                },
            ) => {
                let all = || SINKS.map(str::to_owned).to_vec();
                *none = Some(Held {
                    event: claimed.event.id,
                    left: claimed.sinks.clone().unwrap_or_else(all),
                    unreached: Vec::new(),
                    lease: claimed.lease,
                });
            }
            (Some(held), Call::Tell(..), Heard::Answer { .. }) => {
                held.left.pop();
            }
            (Some(_), Call::Heartbeat(_), Heard::Answer { .. }) => {}
            // Settled, or lost: whoever claims it next tells it again.
            _ => self.0 = None,
        }
    }

    fn is_idle(&self) -> bool {
        self.0.is_none()
    }
}
