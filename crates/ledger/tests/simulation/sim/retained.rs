//! What may be removed, and what must be: by what was seen.

use super::{Broken, log::Seen, model::Model};
use domain::{RequestId, SessionId, Timestamp};

impl Model {
    /// Takes note that a session keeps its events from this sequence on. `before` is the time that
    /// was asked for, if anybody asked. Answers with the requests that are gone now.
    pub(crate) fn pruned(
        &mut self,
        session: SessionId,
        first: u64,
        before: Option<Timestamp>,
    ) -> Result<Vec<RequestId>, Broken> {
        let known = self.events.first(session);
        if first == known {
            return Ok(Vec::new());
        }
        let before =
            before.ok_or_else(|| Broken::new("events are gone, and nobody removed them"))?;
        let removed: Vec<(_, _, _)> = self
            .events
            .cut(session, first)?
            .iter()
            .map(|event| (event.id, event.request, event.blobs.clone()))
            .collect();
        let mut requests = Vec::new();
        for (id, request, blobs) in removed {
            Broken::unless(self.is_old(request, before), || {
                format!("event {id} of {session} is gone, and was not old")
            })?;
            self.blobs.forget(&blobs);
            self.notifications.forget(id);
            self.holders.forget(id.bits());
            requests.extend(request);
        }
        requests.sort();
        requests.dedup();
        requests.retain(|request| !self.events.has(*request));
        for request in &requests {
            self.blobs.forget_request(*request);
            self.money.forget(*request);
            self.keys.retain(|_, (known, _)| known != request);
            self.gone.insert(*request);
        }
        Ok(requests)
    }

    /// What was asked to go is gone: what is kept first is not old.
    pub(crate) fn is_pruned(&self, before: Timestamp) -> Result<(), Broken> {
        for (session, log) in self.events.each() {
            let first = log.kept().first();
            let old = first.filter(|event| self.may_go(event, before));
            Broken::unless(old.is_none(), || {
                format!("event {} of {session} is old, and is kept", log.first())
            })?;
        }
        Ok(())
    }

    fn may_go(&self, event: &Seen, before: Timestamp) -> bool {
        event.time < before && self.is_old(event.request, before)
    }

    /// Whether a request and all that belongs to it had ended before this.
    fn is_old(&self, request: Option<RequestId>, before: Timestamp) -> bool {
        let Some(request) = request else { return true };
        let ended = |bits: u64| self.ended.get(&bits).is_some_and(|ended| *ended < before);
        let mut jobs = self.jobs.iter().filter(|(_, (of, _))| *of == request);
        let mut changes = self.changes.iter().filter(|(_, change)| {
            self.jobs
                .get(&change.job)
                .is_some_and(|(of, _)| *of == request)
        });
        ended(request.bits())
            && jobs.all(|(job, _)| ended(job.bits()))
            && changes.all(|(change, _)| ended(change.bits()))
    }
}
