//! Why a call did not succeed.

use std::time::Duration;

use dialects::{Dialect, Fault, FaultClass};
use domain::{Failure, Reason};

use crate::{cassette::Diverged, funds};

/// Why a call did not succeed. No text in it holds a key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The grant was revoked, or what it was for was cancelled.
    #[error("the grant was revoked")]
    Revoked,
    /// The caller went away before the answer was over.
    #[error("the caller went away before the answer was over")]
    Abandoned,
    /// Nothing is served at this path.
    #[error(
        "nothing is served at {path}: use POST /v1/chat/completions, POST /v1/messages or GET /v1/models"
    )]
    NotServed {
        /// The method and path, cut.
        path: String,
    },
    /// The granted provider speaks another dialect.
    #[error("the model {model} does not speak {asked} but {spoken}")]
    OtherDialect {
        /// The granted model.
        model: String,
        /// What was spoken to it.
        asked: Dialect,
        /// What it speaks.
        spoken: Dialect,
    },
    /// The request cannot be understood.
    #[error("the request cannot be understood")]
    Request(#[source] dialects::RequestError),
    /// The request is too large.
    #[error("the request is larger than the {limit} bytes that are taken: make it smaller")]
    RequestTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The model is not one of those that were granted.
    #[error("the model `{model}` is not granted: use {allowed}")]
    ModelNotAllowed {
        /// What was asked for.
        model: String,
        /// What was granted.
        allowed: String,
    },
    /// The request asks the provider to reach the network in the agent's place, which would be a
    /// way out of the sandbox.
    #[error("the provider would reach the network for the agent ({tools}): leave these tools out")]
    RemoteTools {
        /// Their names.
        tools: String,
    },
    /// The grant has no more calls.
    #[error("all {limit} calls of this grant are made")]
    CallLimit {
        /// How many it had.
        limit: u64,
    },
    /// Too many calls were under way for too long.
    #[error("{limit} calls of this grant are under way already: wait for one to end")]
    Busy {
        /// How many may be.
        limit: usize,
    },
    /// The budget does not allow the call, or the account cannot be used.
    #[error("the call cannot be paid")]
    Funds(#[source] funds::Error),
    /// No connection could be made. Nothing was spent.
    #[error(
        "the provider {provider} cannot be reached at {address}: check the network and its base URL"
    )]
    Unreachable {
        /// The provider.
        provider: String,
        /// Its base URL.
        address: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection ended before the answer was over.
    #[error("the connection to the provider {provider} ended before its answer was over")]
    Cut {
        /// The provider.
        provider: String,
        /// What went wrong, if anything is known.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The provider took too long.
    #[error(
        "the provider {provider} took too long: {what} for {} s{}",
        after.as_secs_f32(), more_time(*setting)
    )]
    TimedOut {
        /// The provider.
        provider: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after: Duration,
        /// The setting of the provider that gives it longer, where one does.
        setting: Option<&'static str>,
    },
    /// The answer is too large.
    #[error("the answer of the provider {provider} is larger than {limit} bytes")]
    AnswerTooLarge {
        /// The provider.
        provider: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The provider refused or failed.
    #[error(
        "{model} answered with an error (status {status}): {fault}; {}",
        fault.class.remedy()
    )]
    Provider {
        /// `provider/model`.
        model: String,
        /// The status of the answer; 200 for an error inside a stream.
        status: u16,
        /// What the provider said.
        fault: Fault,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is not in the provider's protocol.
    #[error("{model} answered with {what}: check the base URL of the provider")]
    BadAnswer {
        /// `provider/model`.
        model: String,
        /// What came instead.
        what: String,
    },
    /// A call that was recorded as failed, replayed.
    #[error("this call was recorded as failed: {}", reason.summary())]
    Recorded {
        /// Why it failed then.
        reason: Reason,
    },
    /// A replay is not what was recorded.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// The gateway could not be set up.
    #[error("connections to providers cannot be made: {what}")]
    Setup {
        /// What is missing, and what to do.
        what: &'static str,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn more_time(setting: Option<&'static str>) -> String {
    setting
        .map(|name| format!("; `{name}` in its settings gives it longer"))
        .unwrap_or_default()
}

impl Error {
    /// The reason, as an attempt that fails for it would state it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Revoked | Self::Abandoned => Reason::Cancelled,
            Self::NotServed { .. }
            | Self::OtherDialect { .. }
            | Self::Request(_)
            | Self::RequestTooLarge { .. } => Reason::AgentFailed,
            Self::RemoteTools { .. } => Reason::AgentFailed,
            Self::ModelNotAllowed { .. } => Reason::ModelNotFound,
            Self::CallLimit { .. } => Reason::TurnLimit,
            Self::Busy { .. } | Self::TimedOut { .. } => Reason::TimedOut,
            Self::Funds(funds::Error::Refused(_)) => Reason::BudgetExhausted,
            Self::Funds(funds::Error::Unavailable { .. }) => Reason::Storage,
            Self::Unreachable { .. } => Reason::Unreachable,
            Self::Cut { .. } => Reason::ProviderFailed,
            Self::AnswerTooLarge { .. } | Self::BadAnswer { .. } => Reason::BadAnswer,
            Self::Provider { fault, .. } => match fault.class {
                FaultClass::InvalidKey | FaultClass::Permission => Reason::Unauthorized,
                FaultClass::NotFound => Reason::ModelNotFound,
                FaultClass::RateLimit | FaultClass::Quota => Reason::RateLimited,
                FaultClass::Overloaded | FaultClass::Server | FaultClass::Unknown => {
                    Reason::ProviderFailed
                }
                FaultClass::ContextTooLong
                | FaultClass::TooLarge
                | FaultClass::BadRequest
                | FaultClass::Refused => Reason::AgentFailed,
            },
            Self::Recorded { reason } => *reason,
            Self::Diverged(_) => Reason::Bug,
            Self::Setup { .. } => Reason::Unreachable,
        }
    }

    /// How long the provider asks to wait before the next call.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provider { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The failure with its reason and the whole chain of what happened.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure::new(self.reason(), self.chain())
    }

    /// This error and its causes, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}
