//! Subscriptions: the past and then the present of a session, without a gap or a duplicate.

use crate::{error::Error, ledger::Ledger, retention};
use domain::{SessionId, event::Envelope};
use std::collections::VecDeque;
use tokio::sync::watch;

/// How many events are fetched at once.
const PAGE: usize = 512;

/// The events of a session from some place on, for as long as one likes.
///
/// It reads the table after each waking, so the past and the present come the same way, and
/// events of other processes too. While it exists the ledger stays open.
#[derive(Debug)]
pub struct Subscription {
    ledger: Ledger,
    session: SessionId,
    after: u64,
    fetched: VecDeque<Envelope>,
    changes: watch::Receiver<u64>,
    /// Whether there may be more than was fetched without another waking.
    more: bool,
}

impl Ledger {
    /// The events of a session after this sequence, and then each as it is recorded.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session; [`Error::CursorExpired`] when some of
    /// the past was removed.
    pub async fn subscribe(&self, session: SessionId, after: u64) -> Result<Subscription, Error> {
        let changes = self.changes();
        self.read("subscribe to events", move |sql| {
            retention::reachable(sql, session, after)
        })
        .await?;
        Ok(Subscription {
            ledger: self.clone(),
            session,
            after,
            fetched: VecDeque::new(),
            changes,
            more: true,
        })
    }
}

impl Subscription {
    /// The next event; waits until there is one. To stop waiting loses nothing.
    ///
    /// # Errors
    /// [`Error::Closed`] when the ledger was closed; [`Error::CursorExpired`] when what comes next
    /// was removed before it was read.
    pub async fn next(&mut self) -> Result<Envelope, Error> {
        loop {
            if let Some(envelope) = self.fetched.pop_front() {
                self.after = envelope.sequence;
                return Ok(envelope);
            }
            if !self.more {
                self.changes.changed().await.map_err(|_| Error::Closed)?;
            }
            // Seen before the table is read: what is committed during the reading wakes again.
            self.more = true;
            self.changes.mark_unchanged();
            let page = self.ledger.events(self.session, self.after, PAGE).await?;
            self.more = page.len() == PAGE;
            self.fetched = page.into();
        }
    }
}
