//! The lines that Claude Code prints, as events.
//!
//! One JSON object a line, told apart by `type`: `system` (with `subtype` `init`), `assistant`
//! and `user` (a message of the Messages dialect), and at the end `result`. Other types come
//! and go with its versions and are passed over, as are lines that are no JSON.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use dialects::Usage;
use serde_json::Value;

use crate::event::{AgentEvent, bounded};

/// Ids of messages and calls that are remembered.
const REMEMBERED: usize = 256;

/// The longest id, or name of a tool, in bytes; longer ones are cut, so that what is remembered and
/// recorded is bounded.
const LONGEST_ID: usize = 200;

/// Denied tools that are named.
const MAX_DENIED: usize = 32;

/// How it ended, by its own account.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Success { summary: String },
    TurnLimit,
    Failure { said: String },
}

/// Reads the lines of one run.
#[derive(Debug)]
pub(super) struct Reader {
    session: Option<String>,
    messages: VecDeque<String>,
    calls: HashMap<String, Instant>,
    pub(super) usage: Option<Usage>,
    pub(super) denied: Vec<String>,
    pub(super) ending: Option<Ending>,
    /// The last line that was no JSON: often the reason of a failure.
    pub(super) last_line: String,
}

impl Reader {
    pub(super) fn new(session: Option<String>) -> Self {
        Self {
            session,
            messages: VecDeque::new(),
            calls: HashMap::new(),
            usage: None,
            denied: Vec::new(),
            ending: None,
            last_line: String::new(),
        }
    }

    /// The events of a line. `turns` is how many steps there were so far.
    pub(super) fn read(&mut self, line: &[u8], turns: u32) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        let Ok(value) = serde_json::from_slice::<Value>(line) else {
            let text = String::from_utf8_lossy(line);
            if !text.trim().is_empty() {
                self.last_line = text.trim().chars().take(2000).collect();
            }
            return events;
        };
        self.see_session(&value, &mut events);
        match text(&value, "type") {
            "assistant" => self.see_assistant(&value, turns, &mut events),
            "user" => self.see_results(&value, &mut events),
            "result" => self.see_ending(&value, &mut events),
            _ => {}
        }
        events
    }

    fn see_session(&mut self, value: &Value, events: &mut Vec<AgentEvent>) {
        let id = text(value, "session_id");
        if id.is_empty() || id.len() > LONGEST_ID || self.session.as_deref() == Some(id) {
            return;
        }
        self.session = Some(id.to_owned());
        events.push(AgentEvent::Session { id: id.to_owned() });
    }

    fn see_assistant(&mut self, value: &Value, turns: u32, events: &mut Vec<AgentEvent>) {
        let message = value.get("message").unwrap_or(&Value::Null);
        let id = short(message, "id");
        // Each block of a message is a line of its own.
        if !self.messages.iter().any(|known| known == id) {
            if self.messages.len() == REMEMBERED {
                self.messages.pop_front();
            }
            self.messages.push_back(id.to_owned());
            events.push(AgentEvent::TurnStarted {
                turn: turns.saturating_add(1),
            });
        }
        for block in blocks(message) {
            match text(block, "type") {
                "text" if !text(block, "text").is_empty() => {
                    events.push(AgentEvent::Text {
                        text: bounded(text(block, "text")),
                    });
                }
                "thinking" if !text(block, "thinking").is_empty() => {
                    events.push(AgentEvent::Reasoning {
                        text: bounded(text(block, "thinking")),
                    });
                }
                "tool_use" => self.see_call(block, events),
                _ => {}
            }
        }
    }

    fn see_call(&mut self, block: &Value, events: &mut Vec<AgentEvent>) {
        let (id, name) = (
            short(block, "id").to_owned(),
            short(block, "name").to_owned(),
        );
        let input = block.get("input").unwrap_or(&Value::Null);
        if name == "AskUserQuestion" {
            events.push(AgentEvent::Question {
                text: bounded(&input.to_string()),
            });
        }
        if self.calls.len() < REMEMBERED {
            self.calls.insert(id.clone(), Instant::now());
        }
        events.push(AgentEvent::ToolCall {
            id,
            name,
            input: shown(input),
        });
    }

    fn see_results(&mut self, value: &Value, events: &mut Vec<AgentEvent>) {
        let message = value.get("message").unwrap_or(&Value::Null);
        for block in blocks(message).filter(|block| text(block, "type") == "tool_result") {
            let id = short(block, "tool_use_id").to_owned();
            let told = match block.get("content") {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Array(parts)) => parts
                    .iter()
                    .map(|part| text(part, "text"))
                    .collect::<Vec<_>>()
                    .join("\n"),
                _ => String::new(),
            };
            let output = bounded(&told);
            let started = self.calls.remove(&id);
            events.push(AgentEvent::ToolResult {
                id,
                omitted: told.len().saturating_sub(output.len()) as u64,
                output,
                exit: None,
                ok: block.get("is_error").and_then(Value::as_bool) != Some(true),
                duration_ms: started.map_or(0, |at| {
                    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
                }),
            });
        }
    }

    fn see_ending(&mut self, value: &Value, events: &mut Vec<AgentEvent>) {
        if let Some(usage) = value.get("usage") {
            let usage = Usage::from_messages(usage);
            self.usage = Some(usage);
            events.push(AgentEvent::Usage { usage });
        }
        let denials = value.get("permission_denials").and_then(Value::as_array);
        for denial in denials.into_iter().flatten() {
            let tool = text(denial, "tool_name")
                .chars()
                .take(80)
                .collect::<String>();
            if !self.denied.contains(&tool) && self.denied.len() < MAX_DENIED {
                events.push(AgentEvent::Error {
                    text: format!("the agent may not use {tool}"),
                });
                self.denied.push(tool);
            }
        }
        let is_error = value.get("is_error").and_then(Value::as_bool) == Some(true);
        let said = bounded(text(value, "result").trim());
        self.ending = Some(match text(value, "subtype") {
            "success" if !is_error => Ending::Success { summary: said },
            "error_max_turns" => Ending::TurnLimit,
            subtype => {
                let errors: Vec<&str> = value
                    .get("errors")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let said = match (said.is_empty(), errors.is_empty()) {
                    (false, _) => said,
                    (true, false) => bounded(&errors.join("; ")),
                    (true, true) => subtype.chars().take(100).collect(),
                };
                Ending::Failure { said }
            }
        });
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The beginning of a text, as much as an id may have.
fn short<'a>(value: &'a Value, key: &str) -> &'a str {
    let text = text(value, key);
    let end = text.floor_char_boundary(LONGEST_ID);
    text.get(..end).unwrap_or_default()
}

fn blocks(message: &Value) -> impl Iterator<Item = &Value> {
    message
        .get("content")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// An input whose long texts are cut.
fn shown(input: &Value) -> Value {
    match input {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), shown(v))).collect(),
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::String(text) => Value::String(bounded(text)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(reader: &mut Reader, value: &Value) -> Vec<AgentEvent> {
        reader.read(value.to_string().as_bytes(), 4)
    }

    #[test]
    fn a_run_becomes_events() {
        let mut reader = Reader::new(None);
        let events = read(
            &mut reader,
            &json!({"type": "system", "subtype": "init", "session_id": "s1"}),
        );
        assert_eq!(events, [AgentEvent::Session { id: "s1".into() }]);
        let line = |block: Value| json!({"type": "assistant", "session_id": "s1", "message": {"id": "m1", "content": [block]}});
        let events = read(
            &mut reader,
            &line(json!({"type": "text", "text": "I look."})),
        );
        assert_eq!(
            events,
            [
                AgentEvent::TurnStarted { turn: 5 },
                AgentEvent::Text {
                    text: "I look.".into()
                }
            ]
        );
        let call =
            json!({"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}});
        let events = read(&mut reader, &line(call));
        assert_eq!(
            events,
            [AgentEvent::ToolCall {
                id: "t1".into(),
                name: "Bash".into(),
                input: json!({"command": "ls"}),
            }]
        );
        let result = json!({"type": "user", "message": {"content": [{"type": "tool_result",
            "tool_use_id": "t1", "is_error": true, "content": [{"type": "text", "text": "no"}]}]}});
        let events = read(&mut reader, &result);
        assert!(
            matches!(&events[..], [AgentEvent::ToolResult { output, ok: false, .. }] if output == "no"),
            "{events:?}"
        );
        let end = json!({"type": "result", "subtype": "success", "is_error": false, "result": "Done.",
            "usage": {"input_tokens": 3, "output_tokens": 4},
            "permission_denials": [{"tool_name": "WebFetch"}, {"tool_name": "WebFetch"}]});
        let events = read(&mut reader, &end);
        assert_eq!(events.len(), 2);
        assert_eq!(reader.denied, ["WebFetch"]);
        assert_eq!(reader.usage.unwrap().total(), Some(7));
        assert_eq!(
            reader.ending,
            Some(Ending::Success {
                summary: "Done.".into()
            })
        );
    }

    #[test]
    fn ids_and_names_of_any_length_are_cut_and_still_belong_together() {
        let long = "é".repeat(1_000_000);
        let mut reader = Reader::new(None);
        let call = json!({"type": "assistant", "message": {"id": long, "content": [
            {"type": "tool_use", "id": long, "name": long, "input": {}}]}});
        let result = json!({"type": "user", "message": {"content": [
            {"type": "tool_result", "tool_use_id": long, "content": "yes"}]}});
        let mut events = read(&mut reader, &call);
        events.extend(read(&mut reader, &result));
        let [
            _,
            AgentEvent::ToolCall { id, name, .. },
            AgentEvent::ToolResult { id: of, .. },
        ] = &events[..]
        else {
            panic!("{events:?}");
        };
        assert!(id == of && id.len() <= LONGEST_ID && name.len() <= LONGEST_ID);
        let again = read(&mut reader, &call);
        assert_eq!(again.len(), 1, "the same message is no new step");
        assert!(reader.messages.iter().all(|it| it.len() <= LONGEST_ID));
    }

    #[test]
    fn an_error_is_never_taken_for_success() {
        for (value, expected) in [
            (
                json!({"type": "result", "subtype": "success", "is_error": true, "result": "API Error: 401"}),
                Ending::Failure {
                    said: "API Error: 401".into(),
                },
            ),
            (
                json!({"type": "result", "subtype": "error_during_execution", "errors": ["a", "b"]}),
                Ending::Failure {
                    said: "a; b".into(),
                },
            ),
            (
                json!({"type": "result", "subtype": "error_max_turns"}),
                Ending::TurnLimit,
            ),
            (
                json!({"type": "result"}),
                Ending::Failure {
                    said: String::new(),
                },
            ),
        ] {
            let mut reader = Reader::new(None);
            read(&mut reader, &value);
            assert_eq!(reader.ending, Some(expected), "{value}");
        }
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let mut reader = Reader::new(Some("s".into()));
        for line in [
            &b"Warning: no stdin"[..],
            b"",
            b"[1,2]",
            br#"{"type":"stream_event","event":{}}"#,
            br#"{"type":"assistant"}"#,
            br#"{"type":"user","message":{"content":"plain"}}"#,
            br#"{"type":"assistant","message":{"id":"m","content":[{"type":"novelty"},7,null]}}"#,
        ] {
            let events = reader.read(line, 0);
            assert!(
                events
                    .iter()
                    .all(|e| matches!(e, AgentEvent::TurnStarted { .. })),
                "{events:?}"
            );
        }
        assert_eq!(reader.last_line, "Warning: no stdin");
        assert_eq!(reader.ending, None);
    }

    proptest! {
        #[test]
        fn no_line_whatever_is_a_problem(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            Reader::new(None).read(&line, u32::MAX);
        }
    }
}
