//! Why an agent's turn did not end well, in the words of the domain.

use agents::{Error, Stopped, exec, model};
use dialects::FaultClass;
use domain::{Failure, Reason};

/// The failure that a turn ended with; none if the agent says that it has finished. `seen` is what
/// the gateway last said, which knows more than the agent.
pub(crate) fn of(stopped: &Stopped, seen: Option<Failure>) -> Option<Failure> {
    let failure = match stopped {
        Stopped::Completed => return None,
        Stopped::TurnLimit => Failure::new(Reason::TurnLimit, ""),
        Stopped::TimeLimit => Failure::new(Reason::TimedOut, "the agent's time was over"),
        Stopped::Budget => seen.unwrap_or_else(|| Failure::new(Reason::BudgetExhausted, "")),
        Stopped::Cancelled => Failure::new(Reason::Cancelled, ""),
        Stopped::Stuck { reason } => Failure::new(Reason::Stuck, reason),
        Stopped::Failed(error) => match error {
            Error::Model(model::Error::Cancelled) => Failure::new(Reason::Cancelled, ""),
            Error::Model(model) => seen.unwrap_or_else(|| of_model(model)),
            // Of its model, a program inside knows only what it was answered.
            Error::Program { .. } | Error::NoResult { .. } | Error::Forgotten { .. } => {
                match seen {
                    Some(seen) => Failure::new(
                        seen.reason,
                        format!("{}: {}", domain::failure::chain(error), seen.detail),
                    ),
                    None => Failure::caused(reason(error), error),
                }
            }
            other => Failure::caused(reason(other), other),
        },
    };
    Some(failure)
}

/// Whether a session that was to go on could not: what it did now is not what was recorded, or its
/// own conversation is gone. `seen` is what the gateway last said.
pub(crate) fn is_divergence(stopped: &Stopped, seen: Option<&Failure>) -> bool {
    match stopped {
        Stopped::Failed(Error::Model(model::Error::Diverged { .. })) => true,
        // One that could not reach its model does not say so either.
        Stopped::Failed(Error::Forgotten { .. }) => seen.is_none(),
        _ => false,
    }
}

/// Whether a turn that ended so may leave work behind that a person wants to see.
pub(crate) fn leaves_work(stopped: &Stopped) -> bool {
    matches!(
        stopped,
        Stopped::Budget | Stopped::TurnLimit | Stopped::TimeLimit | Stopped::Stuck { .. }
    )
}

fn of_model(error: &model::Error) -> Failure {
    let reason = match error {
        model::Error::Budget { .. } => Reason::BudgetExhausted,
        model::Error::Refused { .. } => Reason::AgentFailed,
        model::Error::Diverged { .. } => Reason::Bug,
        model::Error::Network { .. } => Reason::Unreachable,
        model::Error::Nonsense { .. } => Reason::BadAnswer,
        model::Error::Cancelled => Reason::Cancelled,
        model::Error::Provider { fault, .. } => match fault.class {
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
    };
    Failure::caused(reason, error)
}

fn reason(error: &Error) -> Reason {
    match error {
        Error::Model(_)
        | Error::Refused { .. }
        | Error::Program { .. }
        | Error::NoResult { .. }
        | Error::Forgotten { .. } => Reason::AgentFailed,
        Error::Exec(exec::Error::Start { .. }) => Reason::AgentMissing,
        Error::Exec(exec::Error::Limit { .. }) => Reason::LimitReached,
        // Something outside killed it, which another try may be spared.
        Error::Exec(exec::Error::Gone { .. }) => Reason::OwnerLost,
        Error::Halted(_) => Reason::Cancelled,
        Error::Setup { .. } => Reason::AgentMissing,
        Error::State { .. } => Reason::Bug,
    }
}
