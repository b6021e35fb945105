//! What an agent does, recorded in the ledger in the words of the domain.

use crate::story::Mark;
use agents::event::{AgentEvent, Halt, Observer};
use async_trait::async_trait;
use domain::{
    AttemptId,
    event::{Agent, Body, MAX_TEXT},
};
use gateway::Cassette;
use ledger::{Lease, Ledger};
use std::{
    collections::VecDeque,
    sync::PoisonError,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Streamed text waits so long, or until there is so much of it, before it becomes an event.
const COALESCE: Duration = Duration::from_millis(50);
const COALESCE_BYTES: usize = 4 * 1024;

/// Records an attempt's agent. Every event but streamed text is durable when `record` returns.
pub(crate) struct Recorder<'a> {
    ledger: &'a Ledger,
    lease: &'a Lease,
    attempt: AttemptId,
    waiting: Mutex<Option<Streamed>>,
    past: Option<Past>,
}

/// What was recorded already of an agent that goes through its journal.
struct Past {
    marks: std::sync::Mutex<VecDeque<Mark>>,
    cassette: Cassette,
}

impl Past {
    /// Whether an event was recorded already. Words belong to a call of the model, and are recorded
    /// with it.
    fn holds(&self, event: &AgentEvent) -> bool {
        if self.cassette.is_passed() {
            return false;
        }
        let Some(mark) = Mark::of(event) else {
            return true;
        };
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let found = marks.iter().position(|known| *known == mark);
        if let Some(place) = found {
            marks.drain(..=place);
        }
        found.is_some()
    }
}

/// Text that has not become an event yet.
struct Streamed {
    reasoning: bool,
    text: String,
    since: Instant,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(ledger: &'a Ledger, lease: &'a Lease, attempt: AttemptId) -> Self {
        Self {
            ledger,
            lease,
            attempt,
            waiting: Mutex::default(),
            past: None,
        }
    }

    /// One that does not record again what is recorded: these events, until the cassette is over.
    pub(crate) fn after(self, marks: &[Mark], cassette: &Cassette) -> Self {
        Self {
            past: Some(Past {
                marks: std::sync::Mutex::new(marks.iter().cloned().collect()),
                cassette: cassette.clone(),
            }),
            ..self
        }
    }

    /// Records what still waits.
    pub(crate) async fn flush(&self) -> Result<(), ledger::Error> {
        let waiting = self.waiting.lock().await.take();
        match waiting {
            Some(streamed) => self.write(vec![streamed.into_event()]).await,
            None => Ok(()),
        }
    }

    /// Records events of the agent after what still waits.
    pub(crate) async fn events(&self, events: Vec<Agent>) -> Result<(), ledger::Error> {
        let waiting = self.waiting.lock().await.take();
        let all = waiting
            .map(Streamed::into_event)
            .into_iter()
            .chain(events)
            .collect();
        self.write(all).await
    }

    async fn write(&self, events: Vec<Agent>) -> Result<(), ledger::Error> {
        let attempt = self.attempt;
        let bodies = events
            .into_iter()
            .map(|event| Body::Agent { attempt, event })
            .collect();
        self.ledger.record(self.lease, bodies).await
    }

    async fn stream(&self, reasoning: bool, text: String) -> Result<(), ledger::Error> {
        let mut waiting = self.waiting.lock().await;
        let mut ready = Vec::new();
        if waiting
            .as_ref()
            .is_some_and(|streamed| streamed.reasoning != reasoning)
        {
            ready.extend(waiting.take().map(Streamed::into_event));
        }
        let streamed = waiting.get_or_insert_with(|| Streamed {
            reasoning,
            text: String::new(),
            since: Instant::now(),
        });
        streamed.text.push_str(&text);
        if streamed.text.len() >= COALESCE_BYTES || streamed.since.elapsed() >= COALESCE {
            ready.extend(waiting.take().map(Streamed::into_event));
        }
        drop(waiting);
        if ready.is_empty() {
            Ok(())
        } else {
            self.write(ready).await
        }
    }
}

impl Streamed {
    fn into_event(self) -> Agent {
        let text = cut(self.text).0;
        if self.reasoning {
            Agent::Reasoning { text }
        } else {
            Agent::Text { text }
        }
    }
}

#[async_trait]
impl Observer for Recorder<'_> {
    async fn record(&self, event: AgentEvent) -> Result<(), Halt> {
        if self.past.as_ref().is_some_and(|past| past.holds(&event)) {
            return Ok(());
        }
        let recorded = match event {
            AgentEvent::Text { text } => self.stream(false, text).await,
            AgentEvent::Reasoning { text } => self.stream(true, text).await,
            other => match self.translate(other).await {
                Ok(event) => self.events(event.into_iter().collect()).await,
                Err(error) => Err(error),
            },
        };
        recorded.map_err(|error| Halt {
            reason: error.to_string(),
        })
    }
}

impl Recorder<'_> {
    async fn translate(&self, event: AgentEvent) -> Result<Option<Agent>, ledger::Error> {
        Ok(Some(match event {
            AgentEvent::TurnStarted { .. } => return Ok(None),
            AgentEvent::Text { text } => Agent::Text { text: cut(text).0 },
            AgentEvent::Reasoning { text } => Agent::Reasoning { text: cut(text).0 },
            AgentEvent::Session { id } => Agent::Session { id },
            AgentEvent::ToolCall { id, name, input } => Agent::ToolCall {
                id,
                tool: name,
                input: cut(input.to_string()).0,
            },
            AgentEvent::ToolResult {
                id,
                output,
                omitted,
                ok,
                duration_ms,
                ..
            } => {
                let full = if output.len() > MAX_TEXT {
                    Some(self.ledger.put_blob(output.clone().into_bytes()).await?)
                } else {
                    None
                };
                let (output, cut) = cut(output);
                Agent::ToolResult {
                    id,
                    output,
                    omitted: omitted + cut,
                    ok,
                    duration_ms,
                    full,
                }
            }
            AgentEvent::Usage { usage } => Agent::Usage {
                input: usage.input.unwrap_or_default(),
                output: usage.output.unwrap_or_default(),
                money: None,
            },
            AgentEvent::Retry { reason, wait_ms } => Agent::Retry {
                reason: cut(reason).0,
                wait_ms,
            },
            AgentEvent::Question { text } => Agent::Question { text: cut(text).0 },
            AgentEvent::Error { text } => Agent::Error { text: cut(text).0 },
            AgentEvent::Finished { summary } => Agent::Finished {
                summary: cut(summary).0,
            },
        }))
    }
}

/// The beginning of a text that fits into an event, and how many bytes were cut.
fn cut(mut text: String) -> (String, u64) {
    let end = text.floor_char_boundary(MAX_TEXT);
    let gone = text.len() - end;
    text.truncate(end);
    (text, gone as u64)
}
