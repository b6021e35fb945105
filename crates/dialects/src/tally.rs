//! What a response used and how it ended, collected frame by frame.

use serde_json::Value;

use crate::endpoint::Dialect;
use crate::fault::Fault;
use crate::frames::Frame;
use crate::meter::{End, StopReason};
use crate::usage::Usage;

/// Longest model name or id that is kept.
const NAME_BYTES: usize = 200;

/// The running account of one response. It sees every frame once, and never fails.
#[derive(Debug)]
pub(crate) struct Tally {
    dialect: Dialect,
    status: u16,
    usage: Usage,
    pub(crate) stop: Option<StopReason>,
    pub(crate) fault: Option<Fault>,
    pub(crate) model: Option<String>,
    pub(crate) id: Option<String>,
    terminated: bool,
    pub(crate) garbage: u64,
}

impl Tally {
    pub(crate) fn new(dialect: Dialect, status: u16) -> Self {
        Self {
            dialect,
            status,
            usage: Usage::default(),
            stop: None,
            fault: None,
            model: None,
            id: None,
            terminated: false,
            garbage: 0,
        }
    }

    pub(crate) fn see(&mut self, frame: &Frame) {
        match frame {
            Frame::Done => self.terminated |= self.dialect == Dialect::ChatCompletions,
            Frame::Garbage => self.garbage += 1,
            Frame::Event(value) => {
                self.see_fault(value);
                match self.dialect {
                    Dialect::ChatCompletions => self.see_chat(value),
                    Dialect::Messages => self.see_message_event(value),
                }
            }
            Frame::Body(value) => {
                self.see_fault(value);
                match self.dialect {
                    Dialect::ChatCompletions => self.see_chat(value),
                    Dialect::Messages => self.see_message(value),
                }
                // A whole JSON value cannot have been cut off.
                self.terminated = self.fault.is_none() && self.stop.is_some();
            }
        }
    }

    fn see_fault(&mut self, value: &Value) {
        if self.fault.is_none() {
            self.fault = Fault::from_json(self.status, value);
        }
    }

    fn see_chat(&mut self, value: &Value) {
        self.see_names(value);
        let usage = value
            .get("usage")
            .filter(|u| u.is_object())
            // Groq tells it here, in the last chunk.
            .or_else(|| value.get("x_groq").and_then(|x| x.get("usage")));
        if let Some(usage) = usage {
            self.usage.take_chat(usage);
        }
        for choice in value
            .get("choices")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
                self.stop = Some(StopReason::from_chat(reason));
            }
        }
    }

    fn see_message_event(&mut self, value: &Value) {
        match value.get("type").and_then(Value::as_str) {
            Some("message_start") => {
                if let Some(message) = value.get("message") {
                    self.see_message(message);
                }
            }
            Some("message_delta") => {
                if let Some(usage) = value.get("usage") {
                    self.usage.take_messages(usage);
                }
                if let Some(delta) = value.get("delta") {
                    self.see_stop_reason(delta);
                }
            }
            Some("message_stop") => self.terminated = true,
            _ => {}
        }
    }

    fn see_message(&mut self, message: &Value) {
        self.see_names(message);
        if let Some(usage) = message.get("usage") {
            self.usage.take_messages(usage);
        }
        self.see_stop_reason(message);
    }

    fn see_stop_reason(&mut self, value: &Value) {
        if let Some(reason) = value.get("stop_reason").and_then(Value::as_str) {
            self.stop = Some(StopReason::from_messages(reason));
        }
    }

    fn see_names(&mut self, value: &Value) {
        let name = |key: &str| {
            let text = value.get(key)?.as_str()?;
            (!text.is_empty() && text.len() <= NAME_BYTES).then(|| text.to_owned())
        };
        if self.model.is_none() {
            self.model = name("model");
        }
        if self.id.is_none() {
            self.id = name("id");
        }
    }

    /// What was used. Until the model is known to have stopped, its output is unknown: counts
    /// that come earlier in a stream are only what there was so far.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = self.usage;
        if self.stop.is_none() && !self.terminated {
            usage.output = None;
            usage.reasoning = None;
        }
        usage
    }

    pub(crate) fn end(&self) -> End {
        match (&self.fault, self.terminated, &self.stop) {
            (Some(_), ..) => End::Failed,
            (None, true, _) => End::Complete,
            (None, false, Some(_)) => End::Unterminated,
            (None, false, None) => End::Cut,
        }
    }
}

/// Whether an event of a Chat Completions stream certainly has nothing for a tally: it is one of
/// the many that carry a few words. Looking is ten times cheaper than parsing.
///
/// A quoted word cannot stand inside a JSON string, where its quotes would be escaped.
pub(crate) fn chat_says_nothing(event: &[u8]) -> bool {
    find(event, b"\"choices\"").is_some()
        && find(event, b"\"delta\"").is_some()
        && find(event, b"\"error\"").is_none()
        && always_null(event, b"\"usage\"")
        && always_null(event, b"\"finish_reason\"")
}

/// The same for an event of a Messages stream.
pub(crate) fn messages_says_nothing(event: &[u8]) -> bool {
    find(event, b"\"content_block_delta\"").is_some()
        && [
            &b"\"error\""[..],
            b"\"usage\"",
            b"\"stop_reason\"",
            b"\"message_stop\"",
        ]
        .iter()
        .all(|word| find(event, word).is_none())
}

/// Whether every place of `key` is followed by `: null`.
fn always_null(event: &[u8], key: &[u8]) -> bool {
    memchr::memmem::find_iter(event, key).all(|at| {
        let after = event
            .get(at + key.len()..)
            .unwrap_or_default()
            .trim_ascii_start();
        after
            .strip_prefix(b":")
            .is_some_and(|value| value.trim_ascii_start().starts_with(b"null"))
    })
}

fn find(event: &[u8], word: &[u8]) -> Option<usize> {
    memchr::memmem::find(event, word)
}
