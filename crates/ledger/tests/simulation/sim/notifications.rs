//! What a person is to be told, until it was told or given up.

use super::{Broken, outside::Outside, teller::SINKS};
use domain::{
    EventId, RequestId,
    event::{Body, Envelope},
    machine::Machine,
};
use skep_ledger::{ClaimedNotification, MAX_TRIES, Unreached};
use std::collections::{BTreeMap, BTreeSet};

/// One that is still to be told.
struct Untold {
    request: RequestId,
    sinks: Option<Vec<String>>,
    claims: u32,
}

#[derive(Default)]
pub(crate) struct Notifications {
    /// Every one whose event is kept, with its request.
    all: BTreeMap<EventId, RequestId>,
    untold: BTreeMap<EventId, Untold>,
    /// The sinks that were given up, by what the events of the request say.
    given_up: BTreeSet<(RequestId, String)>,
}

impl Notifications {
    pub(crate) fn observe(&mut self, envelope: &Envelope) {
        match (&envelope.body, envelope.request) {
            (Body::RequestChanged { request, to, .. }, _) if to.is_terminal() => {
                self.all.insert(envelope.id, *request);
                let untold = Untold {
                    request: *request,
                    sinks: None,
                    claims: 0,
                };
                self.untold.insert(envelope.id, untold);
            }
            (Body::Note { text }, Some(request)) => {
                if let Some((sink, _)) = text.split_once(" was not told of this request") {
                    self.given_up.insert((request, sink.into()));
                } else if text.starts_with("the notification of this request was given up") {
                    let sinks = SINKS.map(|sink| (request, sink.to_owned()));
                    self.given_up.extend(sinks);
                    self.untold.retain(|_, untold| untold.request != request);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn claimed(&mut self, claimed: &ClaimedNotification) -> Result<(), Broken> {
        let id = claimed.event.id;
        let untold = self.untold.get_mut(&id);
        let untold =
            untold.ok_or_else(|| Broken::new(format!("{id} is to be told, and was before")))?;
        untold.claims += 1;
        Broken::unless(
            untold.request == claimed.request
                && untold.sinks == claimed.sinks
                && untold.claims <= MAX_TRIES,
            || {
                format!(
                    "{id} of {} is claimed {} times, and is for {:?}: {claimed:?}",
                    untold.request, untold.claims, untold.sinks
                )
            },
        )
    }

    pub(crate) fn settled(&mut self, id: EventId, unreached: &[Unreached]) -> Result<(), Broken> {
        let untold = self.untold.get_mut(&id).expect("it was claimed");
        let (left, up): (Vec<_>, Vec<_>) = unreached
            .iter()
            .partition(|one| one.again && untold.claims < MAX_TRIES);
        for one in up {
            let recorded = self.given_up.contains(&(untold.request, one.sink.clone()));
            Broken::unless(recorded, || {
                format!("{id} is given up for {}, and nothing says so", one.sink)
            })?;
        }
        if left.is_empty() {
            self.untold.remove(&id);
        } else {
            untold.sinks = Some(left.into_iter().map(|one| one.sink.clone()).collect());
        }
        Ok(())
    }

    /// Its event is gone, and nothing is told of what is as old as that.
    pub(crate) fn forget(&mut self, id: EventId) {
        self.all.remove(&id);
        self.untold.remove(&id);
    }

    pub(crate) fn untold(&self) -> impl Iterator<Item = EventId> {
        self.untold.keys().copied()
    }

    /// At the end each has reached each sink, or was given up with a record.
    pub(crate) fn are_told(&self, outside: &Outside) -> Result<(), Broken> {
        for (id, request) in &self.all {
            for sink in SINKS.map(str::to_owned) {
                let told = outside.told.contains_key(&(*id, sink.clone()));
                let up = self.given_up.contains(&(*request, sink.clone()));
                Broken::unless(told || up, || {
                    format!("{sink} was never told of {id}, and nobody gave it up")
                })?;
            }
        }
        Ok(())
    }
}
