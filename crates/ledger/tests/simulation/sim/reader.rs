//! Readers of a session: each has a cursor, reads what came after it, and joins what is live. A
//! new one goes on from the old one's cursor, or from somewhere before it.

use super::{Broken, model::Model, random::Random};
use domain::SessionId;
use skep_ledger::{Ledger, Subscription};
use std::time::Duration;

/// How long a reader waits for an event that is there. Real time: it only ends a run that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Reader {
    pub(crate) process: usize,
    session: SessionId,
    cursor: u64,
    live: Option<Subscription>,
}

impl Reader {
    pub(crate) fn new(process: usize, session: SessionId) -> Self {
        Self {
            process,
            session,
            cursor: 0,
            live: None,
        }
    }

    /// Its process has ended, and with it some of what it had remembered.
    pub(crate) fn forget(&mut self, random: &mut Random) {
        self.live = None;
        if random.chance(300) {
            self.cursor = random.below(self.cursor + 1);
        }
    }

    pub(crate) fn is_done(&self, model: &Model) -> bool {
        self.cursor == self.last(model)
    }

    fn last(&self, model: &Model) -> u64 {
        model
            .events
            .get(&self.session)
            .map_or(0, |events| events.len() as u64)
    }

    /// Reads up to `most` events, of which each must be there.
    pub(crate) async fn read(
        &mut self,
        ledger: &Ledger,
        model: &Model,
        most: u64,
    ) -> Result<(), Broken> {
        let live = match &mut self.live {
            Some(live) => live,
            none => none.insert(ledger.subscribe(self.session, self.cursor).await?),
        };
        let end = self.cursor + most;
        let last = model
            .events
            .get(&self.session)
            .map_or(0, |events| events.len() as u64);
        while self.cursor < last.min(end) {
            let next = tokio::time::timeout(PATIENCE, live.next()).await;
            let next = next.map_err(|_| {
                Broken::new(format!(
                    "a reader of {} waits for event {} and is not woken",
                    self.session,
                    self.cursor + 1
                ))
            })??;
            let known = model.events.get(&self.session).and_then(|events| {
                let at = usize::try_from(self.cursor).ok()?;
                events.get(at)
            });
            Broken::unless(
                next.sequence == self.cursor + 1 && known == Some(&next.id),
                || {
                    format!(
                        "a reader of {} is at {} and sees event {} with the id {}",
                        self.session, self.cursor, next.sequence, next.id
                    )
                },
            )?;
            self.cursor = next.sequence;
        }
        Ok(())
    }
}
