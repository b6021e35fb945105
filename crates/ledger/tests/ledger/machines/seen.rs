//! Which steps of the machines were taken.

use domain::{
    AttemptState, ChangeState, JobState, RequestState,
    event::Envelope,
    machine::{Machine, steps},
};
use std::collections::BTreeMap;

/// What no verb says yet: nothing asks a person, pushes, or takes back.
const NO_VERB: [&str; 5] = [
    "RequestState Ask",
    "JobState Ask",
    "JobState Answer",
    "ChangeState Promote",
    "ChangeState Revert",
];

/// How often each step was taken, by its machine, the state before and the state after.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<String, u32>);

impl Seen {
    /// Counts the steps that these events tell of.
    pub(super) fn count(&mut self, events: &[Envelope]) {
        for step in events.iter().filter_map(|envelope| envelope.body.step()) {
            let step = format!("{} {} {}", step.machine, step.from, step.to);
            *self.0.entry(step).or_default() += 1;
        }
    }

    /// The steps that a verb can take and none of these did.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut all = can_be_taken::<RequestState>("RequestState");
        all.extend(can_be_taken::<JobState>("JobState"));
        all.extend(can_be_taken::<AttemptState>("AttemptState"));
        all.extend(can_be_taken::<ChangeState>("ChangeState"));
        all.retain(|step| !self.0.contains_key(step));
        all.dedup();
        all
    }
}

fn can_be_taken<M: Machine>(machine: &str) -> Vec<String> {
    steps::<M>()
        .into_iter()
        .filter(|(_, command, _)| !NO_VERB.contains(&format!("{machine} {command:?}").as_str()))
        // Nothing waits for a person, since nothing asks.
        .filter(|(from, _, _)| from.to_string() != "waiting")
        .map(|(from, _, to)| format!("{} {from} {to}", M::NAME))
        .collect()
}
