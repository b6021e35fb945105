//! What a grant spends from.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::{Amount, Reason, budget};

/// Why nothing could be reserved or settled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The budget does not allow it.
    #[error("{0}")]
    Refused(budget::Refused),
    /// The account could not be read or written.
    #[error("the account of this grant cannot be used")]
    Unavailable {
        /// What went wrong there.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How a call ended, for the account and the recording.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// What was reserved for it.
    pub reserved: Amount,
    /// What it used. Where that is not known: what was reserved.
    pub spent: Amount,
    /// Its place among the calls of its grant, from one, without gaps.
    pub call: u64,
    /// `provider/model`.
    pub model: String,
    /// Whether it is known what was used: the provider told, or it did nothing.
    pub metered: bool,
    /// Whether the price of the model is known.
    pub priced: bool,
    /// The status of the answer; none if there was no answer.
    pub status: Option<u16>,
    /// From the reservation to the end.
    pub duration: Duration,
    /// The path that was asked for, with its query.
    pub path: String,
    /// What was asked, without keys, before the model's name was written over.
    pub request: Bytes,
    /// What was answered, as far as it came, without keys.
    pub response: Bytes,
    /// Those headers of the answer that are kept.
    pub headers: Vec<(String, String)>,
    /// Why there is no whole answer, where its bytes do not tell.
    pub failure: Option<Reason>,
}

/// The account that a grant spends from.
#[async_trait]
pub trait Funds: Send + Sync {
    /// Sets an amount aside, durably, before the call of this number: one more than the last that
    /// was not refused, so that it is one reservation however often it is asked for. It must answer
    /// within a bounded time, and is never dropped before it does.
    ///
    /// # Errors
    /// When there is not enough, or the account cannot be written.
    async fn reserve(&self, call: u64, amount: Amount) -> Result<(), Error>;

    /// Ends a reservation, once for each one that was made. The same holds for its time.
    ///
    /// # Errors
    /// When it cannot be written; the reservation then stays, and counts as spent.
    async fn settle(&self, settlement: Settlement) -> Result<(), Error>;
}
