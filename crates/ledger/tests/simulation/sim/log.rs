//! Every event that was seen, and which of them are kept.

use super::Broken;
use domain::{BlobId, EventId, RequestId, SessionId, Timestamp, event::Envelope};
use std::collections::BTreeMap;

/// An event.
pub(crate) struct Seen {
    pub(crate) id: EventId,
    pub(crate) time: Timestamp,
    pub(crate) request: Option<RequestId>,
    pub(crate) blobs: Vec<BlobId>,
}

/// The events of a session, in their order.
#[derive(Default)]
pub(crate) struct Log {
    events: Vec<Seen>,
    /// How many of them were removed.
    gone: usize,
}

/// The events of all sessions.
#[derive(Default)]
pub(crate) struct Logs(BTreeMap<SessionId, Log>);

impl Log {
    pub(crate) fn kept(&self) -> &[Seen] {
        &self.events[self.gone..]
    }

    /// The sequence of the first event that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.gone as u64 + 1
    }
}

impl Logs {
    /// Takes note of an event, which must follow on the last one.
    pub(crate) fn push(&mut self, envelope: &Envelope) -> Result<(), Broken> {
        let events = &mut self.0.entry(envelope.session).or_default().events;
        let expected = events.len() as u64 + 1;
        Broken::unless(envelope.sequence == expected, || {
            format!(
                "event {expected} of {} has the sequence {}",
                envelope.session, envelope.sequence
            )
        })?;
        events.push(Seen {
            id: envelope.id,
            time: envelope.time,
            request: envelope.request,
            blobs: envelope.body.blobs().collect(),
        });
        Ok(())
    }

    /// The events of a session that are removed now: those before this sequence.
    pub(crate) fn cut(&mut self, session: SessionId, first: u64) -> Result<&[Seen], Broken> {
        let log = self.0.entry(session).or_default();
        let gone = usize::try_from(first - 1).unwrap();
        Broken::unless((log.gone..=log.events.len()).contains(&gone), || {
            format!(
                "{session} keeps its events from {first} on, of {}; it was {}",
                log.events.len(),
                log.gone + 1
            )
        })?;
        let before = std::mem::replace(&mut log.gone, gone);
        Ok(&log.events[before..gone])
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (SessionId, &Log)> {
        self.0.iter().map(|(session, log)| (*session, log))
    }

    /// The sequence of the last event of a session.
    pub(crate) fn last(&self, session: SessionId) -> u64 {
        self.0
            .get(&session)
            .map_or(0, |log| log.events.len() as u64)
    }

    /// The sequence of the first event that is kept.
    pub(crate) fn first(&self, session: SessionId) -> u64 {
        self.0.get(&session).map_or(1, Log::first)
    }

    /// The id of the event of this sequence, also when it was removed.
    pub(crate) fn id(&self, session: SessionId, sequence: u64) -> Option<EventId> {
        let at = usize::try_from(sequence).ok()?.checked_sub(1)?;
        self.0.get(&session)?.events.get(at).map(|event| event.id)
    }

    /// How many events there were in all.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(|log| log.events.len()).sum()
    }

    /// Whether an event of a request is kept.
    pub(crate) fn has(&self, request: RequestId) -> bool {
        let mut kept = self.0.values().flat_map(Log::kept);
        kept.any(|event| event.request == Some(request))
    }
}
