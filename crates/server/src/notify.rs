//! The role that tells people: it claims notifications and delivers them to the sinks.

use crate::{
    Error, Node,
    sink::{Host, Message, Sink},
};
use domain::{EventId, RequestId};
use ledger::{ClaimedNotification, Delivery, Owner, Unreached};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the role waits for something to tell before it looks again by itself.
const FALLBACK: Duration = Duration::from_secs(2);
/// How long a request that has ended waits until it was told. What is left then is delivered by
/// the next process.
const PATIENCE: Duration = Duration::from_secs(5);

impl Node {
    /// Tells what is to be told, of any request, until it is stopped.
    ///
    /// What wakes it: a commit in the ledger, or the time of the next try. A delivery that is
    /// under way when it is stopped is left: it is told again.
    pub(crate) async fn tell(self, owner: Owner, stop: CancellationToken) {
        if let Some(Err(error)) = stop.run_until_cancelled(self.telling(&owner)).await {
            tracing::warn!(%error, "nothing is told any more; the next process goes on");
        }
    }

    async fn telling(&self, owner: &Owner) -> Result<(), Error> {
        let mut changes = self.ledger.changes();
        loop {
            changes.mark_unchanged();
            let next = self.ledger.next_notification().await?;
            let wait = next.map_or(FALLBACK, |due| due.since(self.ledger.now()));
            if wait.is_zero() && self.tell_one(owner).await? {
                continue;
            }
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                // One that is due and was not given is with another process just now.
                () = tokio::time::sleep(if wait.is_zero() { FALLBACK } else { wait.min(FALLBACK) }) => {}
            }
        }
    }

    /// Delivers one notification, if one is due.
    async fn tell_one(&self, owner: &Owner) -> Result<bool, Error> {
        let Some(told) = self.ledger.claim_notification(owner).await? else {
            return Ok(false);
        };
        let lost = CancellationToken::new();
        let delivered = async {
            let Some(unreached) = lost.run_until_cancelled(self.deliver(&told)).await else {
                return;
            };
            for Unreached { sink, why, .. } in &unreached {
                tracing::info!(sink, why, "a notification was not delivered");
            }
            let settled = self
                .ledger
                .settle_notification(&told.lease, unreached)
                .await;
            if let Err(error) = settled {
                tracing::warn!(%error, "a notification could not be settled; it is told again");
            }
        };
        ledger::held(&self.ledger, &told.lease, &lost, delivered).await;
        Ok(true)
    }

    /// Delivers to every sink that wants it at once. Says which were not reached.
    async fn deliver(&self, told: &ClaimedNotification) -> Vec<Unreached> {
        let wanted = |sink: &&Sink| {
            let left = |names: &Vec<String>| names.contains(&sink.name);
            sink.on.contains(&told.state) && told.sinks.as_ref().is_none_or(left)
        };
        let sinks: Vec<&Sink> = self.options.notify.iter().filter(wanted).collect();
        let mut unreached: Vec<Unreached> = told
            .sinks
            .iter()
            .flatten()
            .filter(|name| !sinks.iter().any(|sink| sink.name == **name))
            .map(|name| Unreached {
                sink: name.clone(),
                why: "it is not configured any more".into(),
                again: false,
            })
            .collect();
        if sinks.is_empty() {
            return unreached;
        }
        let host = Host {
            path: self.options.path.clone(),
            home: self.options.home.clone(),
            env: Arc::clone(&self.options.env),
            directory: self.options.data.clone(),
        };
        let message = Message::of(told, |text| self.gateway.redact(text)).map(Arc::new);
        let mut deliveries = JoinSet::new();
        for sink in sinks {
            let (sink, host) = (sink.clone(), host.clone());
            let message = match &message {
                Ok(message) => Arc::clone(message),
                Err(error) => {
                    unreached.push(Unreached {
                        sink: sink.name,
                        why: error.to_string(),
                        again: false,
                    });
                    continue;
                }
            };
            deliveries.spawn(async move {
                let error = sink.target.deliver(&message, &host).await.err()?;
                Some(Unreached {
                    sink: sink.name,
                    why: error.told(),
                    again: error.may_pass(),
                })
            });
        }
        unreached.extend(deliveries.join_all().await.into_iter().flatten());
        unreached
    }

    /// Tells what earlier processes have left and is due, for as long as that may take.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub async fn tell_due(&self) -> Result<(), Error> {
        let next = self.ledger.next_notification().await?;
        if next.is_none_or(|due| due > self.ledger.now()) {
            return Ok(());
        }
        let due = tokio::time::timeout(PATIENCE, async {
            let owner = self.ledger.owner().await?;
            while self.tell_one(&owner).await? {}
            Ok(())
        });
        due.await.unwrap_or(Ok(()))
    }

    /// Has a notification that was given up told again, and tells it, unless another process does.
    /// Says where it stands then: one that was not told yet waits for its next try.
    ///
    /// # Errors
    /// When it was not given up, is being told just now, or the ledger cannot be used.
    pub async fn tell_again(&self, notification: EventId) -> Result<Delivery, Error> {
        self.ledger.tell_again(notification).await?;
        self.tell_due().await?;
        Ok(self.ledger.delivery(notification).await?)
    }

    /// Waits until nothing of this request is left to tell, or for as long as it may take.
    pub(crate) async fn told(&self, request: RequestId) {
        let told = tokio::time::timeout(PATIENCE, async {
            let mut changes = self.ledger.changes();
            loop {
                changes.mark_unchanged();
                if !matches!(self.ledger.is_untold(request).await, Ok(true))
                    || changes.changed().await.is_err()
                {
                    return;
                }
            }
        });
        if told.await.is_err() {
            tracing::info!("a notification is left for the next process");
        }
    }
}
