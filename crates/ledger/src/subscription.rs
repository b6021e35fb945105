//! Subscriptions: the past and then the present of a session, without a gap or a duplicate.

use crate::{error::Error, ledger::Ledger, retention};
use domain::{SessionId, event::Envelope};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::watch;

/// How many events are fetched at once, and how many of the last ones are kept for others.
const PAGE: usize = 512;

/// The events of a session from some place on, for as long as one likes.
///
/// It reads the table after each waking, so the past and the present come the same way, and
/// events of other processes too. What is new is read once for all subscriptions of the session.
/// While it exists the ledger stays open.
#[derive(Debug)]
pub struct Subscription {
    ledger: Ledger,
    session: SessionId,
    after: u64,
    fetched: VecDeque<Envelope>,
    changes: watch::Receiver<u64>,
    tail: Arc<Tail>,
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
            tail: self.tails().of(session),
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
            let change = *self.changes.borrow_and_update();
            (self.fetched, self.more) = self.page(change).await?;
        }
    }

    /// What follows, as somebody else has just read it or from the table, and whether there may be
    /// more at this change.
    async fn page(&self, change: u64) -> Result<(VecDeque<Envelope>, bool), Error> {
        if let Some(page) = self.tail.known(self.after, change) {
            return Ok(page);
        }
        // One reads, and the others have it then. Whoever is far behind reads for itself.
        let reading = match self.tail.is_beyond(self.after) {
            true => None,
            false => Some(self.tail.reading.lock().await),
        };
        if let Some(page) = self.tail.known(self.after, change) {
            return Ok(page);
        }
        let page = self.ledger.events(self.session, self.after, PAGE).await?;
        if reading.is_some() {
            self.tail.read(self.after, change, &page);
        }
        let more = page.len() >= PAGE;
        Ok((page.into(), more))
    }
}

/// The tails of sessions that are subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Tails(Mutex<HashMap<SessionId, Weak<Tail>>>);

impl Tails {
    fn of(&self, session: SessionId) -> Arc<Tail> {
        let mut tails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = tails.get(&session).and_then(Weak::upgrade) {
            return tail;
        }
        tails.retain(|_, tail| tail.strong_count() > 0);
        let tail = Arc::default();
        tails.insert(session, Arc::downgrade(&tail));
        tail
    }
}

/// The last events of a session, as one of its subscriptions has read them.
#[derive(Debug, Default)]
struct Tail {
    last: Mutex<Last>,
    /// Held by the subscription that reads.
    reading: tokio::sync::Mutex<()>,
}

/// Every event after `after` that was there at `change`.
#[derive(Debug, Default)]
struct Last {
    change: Option<u64>,
    after: u64,
    events: VecDeque<Envelope>,
}

impl Last {
    fn end(&self) -> u64 {
        self.events
            .back()
            .map_or(self.after, |event| event.sequence)
    }
}

impl Tail {
    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What follows this sequence, if that is known: some events, or that there were none at
    /// this change. And whether there may be more at it.
    fn known(&self, after: u64, change: u64) -> Option<(VecDeque<Envelope>, bool)> {
        let last = self.last();
        let seen = last.change?;
        if after < last.after || after > last.end() {
            return None;
        }
        let from = usize::try_from(after - last.after).ok()?;
        let older = seen < change;
        if from == last.events.len() && older {
            return None;
        }
        Some((last.events.range(from..).cloned().collect(), older))
    }

    /// Whether all that is kept is after this.
    fn is_beyond(&self, after: u64) -> bool {
        let last = self.last();
        last.change.is_some() && after < last.after
    }

    /// Keeps what was read, if it reaches the end of the session.
    fn read(&self, after: u64, change: u64, page: &[Envelope]) {
        if page.len() >= PAGE {
            return;
        }
        let mut last = self.last();
        if last.change.is_none() || last.end() != after {
            last.after = after;
            last.events.clear();
        }
        last.change = Some(change);
        last.events.extend(page.iter().cloned());
        while last.events.len() >= PAGE {
            if let Some(first) = last.events.pop_front() {
                last.after = first.sequence;
            }
        }
    }
}
