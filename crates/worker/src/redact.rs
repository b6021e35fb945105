//! Keys of providers are taken out of what an agent or a tool said before any of it is kept: an
//! agent may read a file that holds one.
//!
//! The length of a text stays, and a recorded request is redacted in the same way, so that an
//! attempt that goes on by its journal makes the requests that were recorded.

use agents::event::AgentEvent;
use domain::Failure;
use gateway::Gateway;
use ledger::Settlement;
use serde_json::Value;

/// An event as it may be kept.
pub(crate) fn event(gateway: &Gateway, event: AgentEvent) -> AgentEvent {
    let clean = |text: String| gateway.redact(text);
    match event {
        AgentEvent::Session { id } => AgentEvent::Session { id: clean(id) },
        AgentEvent::Text { text } => AgentEvent::Text { text: clean(text) },
        AgentEvent::Reasoning { text } => AgentEvent::Reasoning { text: clean(text) },
        AgentEvent::ToolCall { id, name, input } => AgentEvent::ToolCall {
            id: clean(id),
            name: clean(name),
            input: value(gateway, input),
        },
        AgentEvent::ToolResult {
            id,
            output,
            omitted,
            exit,
            ok,
            duration_ms,
        } => AgentEvent::ToolResult {
            id: clean(id),
            output: clean(output),
            omitted,
            exit,
            ok,
            duration_ms,
        },
        AgentEvent::Retry { reason, wait_ms } => AgentEvent::Retry {
            reason: clean(reason),
            wait_ms,
        },
        AgentEvent::Question { text } => AgentEvent::Question { text: clean(text) },
        AgentEvent::Error { text } => AgentEvent::Error { text: clean(text) },
        AgentEvent::Finished { summary } => AgentEvent::Finished {
            summary: clean(summary),
        },
        AgentEvent::TurnStarted { .. } | AgentEvent::Usage { .. } => event,
    }
}

/// The arguments of a call. Each text is looked at by itself, because JSON may escape what is in it.
fn value(gateway: &Gateway, input: Value) -> Value {
    match input {
        Value::String(text) => Value::String(gateway.redact(text)),
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|it| value(gateway, it)).collect())
        }
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, it)| (gateway.redact(name), value(gateway, it)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => input,
    }
}

/// A failure as it may be kept: its detail may be the last words of a program.
pub(crate) fn failure(gateway: &Gateway, failure: Failure) -> Failure {
    Failure::new(failure.reason, gateway.redact(failure.detail))
}

/// What came of an attempt, as it may be kept.
pub(crate) fn settlement(gateway: &Gateway, settled: Settlement) -> Settlement {
    let clean = |text: String| gateway.redact(text);
    match settled {
        Settlement::Passed {
            commit,
            tree,
            summary,
            checked,
        } => Settlement::Passed {
            commit,
            tree,
            summary: clean(summary),
            checked,
        },
        Settlement::Empty { summary } => Settlement::Empty {
            summary: clean(summary),
        },
        Settlement::Rejected {
            failure: why,
            tree,
            summary,
        } => Settlement::Rejected {
            failure: failure(gateway, why),
            tree,
            summary: clean(summary),
        },
        Settlement::Failed { failure: why } => Settlement::Failed {
            failure: failure(gateway, why),
        },
        Settlement::Parked {
            failure: why,
            until,
        } => Settlement::Parked {
            failure: failure(gateway, why),
            until,
        },
        Settlement::Lost { failure: why } => Settlement::Lost {
            failure: failure(gateway, why),
        },
        Settlement::Cancelled => Settlement::Cancelled,
    }
}
