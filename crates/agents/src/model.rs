//! Calling a model, as a role above provides it: through the gateway, with a grant.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dialects::{Dialect, Fault};

/// A model that can be called.
#[async_trait]
pub trait Model: Send + Sync {
    /// The dialect that it speaks.
    fn dialect(&self) -> Dialect;

    /// The name that a request must give.
    fn model(&self) -> &str;

    /// Sends a request, and returns the body of a successful answer as it comes.
    ///
    /// Dropping the future or the chunks ends the call.
    ///
    /// # Errors
    ///
    /// When the call is refused, fails or is answered with an error.
    async fn call(&self, body: Vec<u8>) -> Result<Box<dyn Chunks>, Error>;
}

/// The body of an answer, as it comes.
#[async_trait]
pub trait Chunks: Send {
    /// The next bytes, or `None` at the end. It may be cancelled without losing bytes.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    async fn next(&mut self) -> Result<Option<Bytes>, Error>;
}

/// Why a call of a model gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The budget does not allow it.
    #[error("the budget does not allow another model call: {what}")]
    Budget {
        /// What is used up.
        what: String,
    },
    /// The gateway does not allow it: the model is not in the grant, or the grant has ended.
    #[error("the gateway refused the model call: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// In a replay, the call is not the one that was recorded.
    #[error("the replay diverged from the recording: {place}")]
    Diverged {
        /// The call and the field.
        place: String,
    },
    /// The provider answered with an error, at once or in the middle of its answer.
    #[error("the provider answered with an error (HTTP {status}): {fault}")]
    Provider {
        /// The HTTP status; 200 for an error in the middle.
        status: u16,
        /// What it said.
        fault: Fault,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The provider could not be reached, or the answer broke off.
    #[error("the connection to the provider failed: {reason}")]
    Network {
        /// What happened.
        reason: String,
    },
    /// The answer is not of the dialect.
    #[error("the provider's answer makes no sense: {reason}; check its base URL and dialect")]
    Nonsense {
        /// What is wrong with it.
        reason: String,
    },
    /// The call was cancelled.
    #[error("the model call was cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the same call can succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Provider { fault, .. } => fault.class.is_retryable(),
            Self::Network { .. } => true,
            Self::Budget { .. }
            | Self::Refused { .. }
            | Self::Diverged { .. }
            | Self::Nonsense { .. }
            | Self::Cancelled => false,
        }
    }

    /// How long the provider asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provider { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
