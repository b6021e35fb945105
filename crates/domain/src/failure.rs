//! Why something did not succeed: a reason from a closed list, with its class and remedy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who can mend a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The person who asked.
    User,
    /// The agent: its work was not good enough.
    Agent,
    /// The machine that Skep runs on.
    Environment,
    /// The provider of a model or a forge.
    Provider,
    /// Skep itself.
    Internal,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $class:ident, retry: $retry:literal, $summary:literal, $remedy:literal;)*) => {
        /// A reason for a failure. The list is closed: a new one is a change of the interface.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Who can mend it.
            #[must_use]
            pub const fn class(self) -> Class { match self { $(Self::$name => Class::$class,)* } }

            /// Whether the same work may simply be tried again.
            #[must_use]
            pub const fn retry_is_safe(self) -> bool { match self { $(Self::$name => $retry,)* } }

            /// What happened, in a few words.
            #[must_use]
            pub const fn summary(self) -> &'static str { match self { $(Self::$name => $summary,)* } }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str { match self { $(Self::$name => $remedy,)* } }
        }
    };
}

reasons! {
    /// A person cancelled it.
    Cancelled = User, retry: false, "cancelled", "start it again with `skep retry`";
    /// The budget has no more of some measure.
    BudgetExhausted = User, retry: false, "the budget is used up", "ask again with more: `skep run --budget`";
    /// `skep.toml` at the base commit cannot be read.
    PolicyInvalid = User, retry: false, "skep.toml is not valid", "mend the line that is named and commit it";
    /// The plan cannot be carried out.
    PlanInvalid = User, retry: false, "the plan is not valid", "mend the plan, or use `--plan none`";
    /// The setup command failed on the base commit.
    SetupFailed = User, retry: false, "the setup command failed", "make the setup command pass on the base commit";
    /// A job that this one waits for did not succeed.
    DependencyFailed = User, retry: false, "a job that it depends on did not succeed", "look at that job with `skep show`";
    /// The change and what was integrated before it touch the same lines.
    Conflict = Agent, retry: true, "the change conflicts with integrated work", "run `skep retry`: it starts from the new tip; the candidate is kept";
    /// The change did not pass the gate.
    ChecksFailed = Agent, retry: true, "a check failed", "read the evidence with `skep show`, then `skep retry`";
    /// The agent ended without a change.
    NothingChanged = Agent, retry: true, "the agent changed nothing", "say more exactly what should change";
    /// The agent repeated itself without progress.
    Stuck = Agent, retry: true, "the agent repeated itself without progress", "say more exactly what should change, or use another model";
    /// The agent used its turns.
    TurnLimit = Agent, retry: true, "the agent used all its turns", "split the work into smaller requests, or use another model";
    /// The agent's program ended with an error.
    AgentFailed = Agent, retry: true, "the agent's program failed", "read its output with `skep log`";
    /// The agent or a command took too long.
    TimedOut = Agent, retry: true, "it took too long", "split the work into smaller requests, or use another model, then try again with `skep retry`";
    /// The sandbox cannot be made here.
    SandboxUnavailable = Environment, retry: false, "no sandbox can be made here", "run `skep doctor`";
    /// An image that sandboxes are made of is not there.
    ImageMissing = Environment, retry: false, "an image is not there", "get it with the engine itself, as the message says; `skep doctor` says whether it is there";
    /// The agent's program is not installed.
    AgentMissing = Environment, retry: false, "the agent is not installed", "run `skep doctor`";
    /// The process that did the work ended.
    OwnerLost = Environment, retry: true, "the process that did the work ended", "it is tried again by itself";
    /// A limit of the sandbox struck. The same work meets it again: trying blindly only costs.
    LimitReached = Environment, retry: false, "a limit of the sandbox was reached", "split the work into smaller requests, so that each needs less, then `skep retry`";
    /// The disk is full, or could not be written.
    Storage = Environment, retry: true, "the disk is full or cannot be written", "free some space and run `skep retry`";
    /// The repository cannot be used.
    Repository = Environment, retry: false, "the repository cannot be used", "do what the message says; `skep retry` fetches anew what its copy of the repository has lost";
    /// The provider refused the key.
    Unauthorized = Provider, retry: false, "the provider refused the key", "check the key in the environment";
    /// The provider does not have the model.
    ModelNotFound = Provider, retry: false, "the provider does not know the model", "check the name given with `--model`";
    /// The provider refused for now.
    RateLimited = Provider, retry: true, "the provider limits the rate", "wait, then `skep retry`";
    /// The provider is overloaded or failing.
    ProviderFailed = Provider, retry: true, "the provider failed", "wait, then `skep retry`";
    /// The provider cannot be reached.
    Unreachable = Provider, retry: true, "the provider cannot be reached", "check the network and the base URL";
    /// The provider answered something that is not its protocol.
    BadAnswer = Provider, retry: true, "the provider's answer makes no sense", "check the base URL";
    /// A mistake in Skep.
    Bug = Internal, retry: false, "Skep made a mistake", "please report it";
}

impl Reason {
    /// Whether it comes from outside the work, from the machine or a provider, and may pass: the
    /// same work is tried again after a while.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        matches!(self.class(), Class::Environment | Class::Provider) && self.retry_is_safe()
    }
}

/// A failure: the reason, and what exactly happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
pub struct Failure {
    /// The reason.
    pub reason: Reason,
    /// What exactly happened, for a person. Never holds a secret.
    pub detail: String,
}

/// An error and its causes in one line; a cause that the text ends with already is not repeated.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

impl Failure {
    /// A failure for this reason, told by an error and its causes.
    #[must_use]
    pub fn caused(reason: Reason, error: &dyn std::error::Error) -> Self {
        Self::new(reason, chain(error))
    }

    /// A failure for this reason.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.summary())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_what_happened_and_what_to_do() {
        for reason in Reason::ALL {
            assert!(
                !reason.summary().is_empty() && !reason.remedy().is_empty(),
                "{reason:?}"
            );
            assert!(!reason.summary().ends_with('.'), "{reason:?}");
        }
    }
}
