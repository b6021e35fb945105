//! Readers of a session: each has a cursor, reads what came after it, and joins what is live. A
//! new one goes on from the old one's cursor, or from somewhere before it.

use super::{Broken, model::Model, random::Random};
use domain::{SessionId, event::Envelope};
use skep_ledger::{Error, Ledger, Subscription};
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
        model.events.last(self.session)
    }

    /// Reads up to `most` events, of which each must be there, unless it was removed: then it is
    /// told so, and goes on with the first that is kept. Says how often that was.
    pub(crate) async fn read(
        &mut self,
        ledger: &Ledger,
        model: &Model,
        most: u64,
    ) -> Result<u64, Broken> {
        let end = self.cursor + most;
        let mut expired = 0;
        while self.cursor < self.last(model).min(end) {
            let next = match self.next(ledger).await? {
                Err(Error::CursorExpired { session, first }) => {
                    self.expired(session, first, model)?;
                    expired += 1;
                    continue;
                }
                next => next?,
            };
            let known = model.events.id(self.session, self.cursor + 1);
            Broken::unless(
                next.sequence == self.cursor + 1 && known == Some(next.id),
                || {
                    format!(
                        "a reader of {} is at {} and sees event {} with the id {}",
                        self.session, self.cursor, next.sequence, next.id
                    )
                },
            )?;
            self.cursor = next.sequence;
        }
        Ok(expired)
    }

    async fn next(&mut self, ledger: &Ledger) -> Result<Result<Envelope, Error>, Broken> {
        let live = match &mut self.live {
            Some(live) => live,
            none => match ledger.subscribe(self.session, self.cursor).await {
                Ok(live) => none.insert(live),
                Err(error) => return Ok(Err(error)),
            },
        };
        let next = tokio::time::timeout(PATIENCE, live.next()).await;
        next.map_err(|_| {
            Broken::new(format!(
                "a reader of {} waits for event {} and is not woken",
                self.session,
                self.cursor + 1
            ))
        })
    }

    /// It is told that there is a gap only where there is one, and where that ends.
    fn expired(&mut self, session: SessionId, first: u64, model: &Model) -> Result<(), Broken> {
        let kept = model.events.first(self.session);
        Broken::unless(
            session == self.session && first == kept && self.cursor + 1 < kept,
            || {
                format!(
                    "a reader of {} is at {}, is told that {session} begins at {first}, and it \
                     begins at {kept}",
                    self.session, self.cursor
                )
            },
        )?;
        self.cursor = first - 1;
        self.live = None;
        Ok(())
    }
}
