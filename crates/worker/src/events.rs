//! What an agent does, recorded in the ledger in the words of the domain.

use crate::{attempt::Place, redact, story::Mark};
use agents::event::{AgentEvent, Halt, Observer};
use async_trait::async_trait;
use domain::{
    AttemptId,
    event::{Agent, Body, MAX_TEXT},
};
use gateway::{Cassette, Gateway};
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

/// Records an attempt's agent, without the keys of providers. Every event but streamed text is
/// durable when `record` returns.
pub(crate) struct Recorder<'a> {
    ledger: &'a Ledger,
    gateway: &'a Gateway,
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
    pub(crate) fn new(place: &Place<'a>) -> Self {
        Self {
            ledger: place.ledger,
            gateway: &place.worker.gateway,
            lease: place.lease,
            attempt: place.attempt,
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
            Some(streamed) => self.write(vec![streamed.into_event(self.gateway)]).await,
            None => Ok(()),
        }
    }

    /// Records events of the agent after what still waits.
    pub(crate) async fn events(&self, events: Vec<Agent>) -> Result<(), ledger::Error> {
        let waiting = self.waiting.lock().await.take();
        let all = waiting
            .map(|streamed| streamed.into_event(self.gateway))
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
            let over = waiting.take();
            ready.extend(over.map(|streamed| streamed.into_event(self.gateway)));
        }
        let streamed = waiting.get_or_insert_with(|| Streamed {
            reasoning,
            text: String::new(),
            since: Instant::now(),
        });
        streamed.text.push_str(&text);
        if streamed.text.len() >= COALESCE_BYTES || streamed.since.elapsed() >= COALESCE {
            ready.extend(streamed.take_begun(self.gateway));
            waiting.take_if(|streamed| streamed.text.is_empty());
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
    /// All of it: nothing follows.
    fn into_event(self, gateway: &Gateway) -> Agent {
        Self::event(self.reasoning, gateway.redact(self.text))
    }

    /// What may be kept already. What could be the beginning of a key waits for the rest of it.
    fn take_begun(&mut self, gateway: &Gateway) -> Option<Agent> {
        let (text, held) = gateway.redact_begun(std::mem::take(&mut self.text));
        self.text = held;
        self.since = Instant::now();
        (!text.is_empty()).then(|| Self::event(self.reasoning, text))
    }

    fn event(reasoning: bool, text: String) -> Agent {
        let text = cut(text).0;
        if reasoning {
            Agent::Reasoning { text }
        } else {
            Agent::Text { text }
        }
    }
}

#[async_trait]
impl Observer for Recorder<'_> {
    async fn record(&self, event: AgentEvent) -> Result<(), Halt> {
        let event = match event {
            streamed @ (AgentEvent::Text { .. } | AgentEvent::Reasoning { .. }) => streamed,
            other => redact::event(self.gateway, other),
        };
        if self.past.as_ref().is_some_and(|past| past.holds(&event)) {
            return Ok(());
        }
        let recorded = match event {
            // A key may be in several pieces of these, so they are redacted when they are together.
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

#[cfg(test)]
mod tests {
    use super::*;
    use dialects::Prices;
    use gateway::{Options, Providers, Secret, Settings};

    const KEY: &str = "sk-secret-1";
    const STARS: &str = "***********";

    fn gateway() -> Gateway {
        let provider = Settings {
            base_url: "http://127.0.0.1:9/v1".into(),
            ..Settings::openai(Secret::new(KEY))
        };
        Gateway::new(Options {
            providers: Providers::new([provider], Prices::builtin()).unwrap(),
            ..Options::default()
        })
        .unwrap()
    }

    fn streamed(text: &str) -> Streamed {
        Streamed {
            reasoning: false,
            text: text.into(),
            since: Instant::now(),
        }
    }

    fn text(event: Option<Agent>) -> String {
        match event {
            Some(Agent::Text { text } | Agent::Reasoning { text }) => text,
            _ => String::new(),
        }
    }

    #[test]
    fn a_key_that_is_cut_by_the_end_of_an_event_is_in_neither_event() {
        let gateway = gateway();
        let whole = format!("é {KEY} and {KEY}{KEY}.");
        let letters: Vec<char> = whole.chars().collect();
        for size in 1..letters.len() {
            let (mut waiting, mut kept) = (streamed(""), String::new());
            for piece in letters.chunks(size) {
                waiting.text.extend(piece);
                kept += &text(waiting.take_begun(&gateway));
                assert!(!kept.contains("sk-"), "{kept}");
            }
            kept += &text(Some(waiting.into_event(&gateway)));
            assert_eq!(kept, whole.replace(KEY, STARS), "pieces of {size}");
        }
    }

    #[test]
    fn the_end_of_a_text_that_is_no_key_is_kept_as_it_is() {
        let gateway = gateway();
        let mut waiting = streamed("it ends with sk-sec");
        assert_eq!(text(waiting.take_begun(&gateway)), "it ends with ");
        assert_eq!(text(Some(waiting.into_event(&gateway))), "sk-sec");
    }

    #[test]
    fn a_key_at_the_place_where_an_event_is_cut_leaves_no_part_of_it() {
        let gateway = gateway();
        let long = format!("{}{KEY}", "x".repeat(MAX_TEXT - 3));
        let kept = text(Some(streamed(&long).into_event(&gateway)));
        assert_eq!(kept.len(), MAX_TEXT);
        assert!(kept.ends_with("x***"));
    }

    #[test]
    fn every_text_of_an_event_is_free_of_keys_and_as_long_as_it_was() {
        let gateway = gateway();
        let said = format!("\"{KEY}\"\n");
        let input = serde_json::json!({ KEY: [said.clone(), { "deep": KEY }], "z": 1 });
        let events = [
            AgentEvent::Session { id: KEY.into() },
            AgentEvent::ToolCall {
                id: KEY.into(),
                name: KEY.into(),
                input,
            },
            AgentEvent::ToolResult {
                id: KEY.into(),
                output: said.clone(),
                omitted: 0,
                exit: None,
                ok: true,
                duration_ms: 0,
            },
            AgentEvent::Retry {
                reason: said.clone(),
                wait_ms: 0,
            },
            AgentEvent::Question { text: said.clone() },
            AgentEvent::Error { text: said.clone() },
            AgentEvent::Finished { summary: said },
        ];
        for event in events {
            let as_value =
                |event: &AgentEvent| serde_json::json!([format!("{event:?}")]).to_string();
            let before = as_value(&event);
            let after = as_value(&redact::event(&gateway, event));
            assert_eq!(after, before.replace(KEY, STARS));
        }
    }
}
