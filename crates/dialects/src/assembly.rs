//! Putting the pieces of a reply together.

use serde_json::Value;

use crate::conversation::{Arguments, Block, ToolCall};
use crate::decoder::Delta;
use crate::endpoint::Dialect;
use crate::frames::Frame;

/// What a reply may have at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Blocks: texts, calls, thoughts.
    blocks: usize,
    /// Bytes of all blocks together.
    bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blocks: 256,
            bytes: 16 << 20,
        }
    }
}

/// A block that is being written.
#[derive(Debug)]
enum Draft {
    Text(String),
    Reasoning(String),
    Call {
        /// The position that the provider gave it, to which later pieces refer.
        index: Option<u64>,
        id: String,
        name: String,
        arguments: String,
        /// Arguments that came as a value and not as text.
        input: Option<Value>,
    },
    Opaque(Value),
    /// A block that is not kept.
    Skipped,
}

#[derive(Debug)]
pub(crate) struct Assembly {
    dialect: Dialect,
    limits: Limits,
    drafts: Vec<(Option<u64>, Draft)>,
    bytes: usize,
    lost: u64,
}

impl Assembly {
    pub(crate) fn new(dialect: Dialect, limits: Limits) -> Self {
        Self {
            dialect,
            limits,
            drafts: Vec::new(),
            bytes: 0,
            lost: 0,
        }
    }

    pub(crate) fn see(&mut self, frame: &Frame, deltas: &mut Vec<Delta>) {
        match (frame, self.dialect) {
            (Frame::Event(value), Dialect::ChatCompletions) => self.chat(value, "delta", deltas),
            (Frame::Body(value), Dialect::ChatCompletions) => self.chat(value, "message", deltas),
            (Frame::Event(value), Dialect::Messages) => self.messages_event(value, deltas),
            (Frame::Body(value), Dialect::Messages) => {
                for block in array(value, "content") {
                    self.start_block(None, block, deltas);
                }
            }
            (Frame::Done | Frame::Garbage, _) => {}
        }
    }

    /// The blocks, and how many pieces were lost to the limits.
    pub(crate) fn finish(self) -> (Vec<Block>, u64) {
        let blocks = self
            .drafts
            .into_iter()
            .filter_map(|(_, draft)| draft.finish())
            .collect();
        (blocks, self.lost)
    }

    // ---- Chat Completions ----

    /// `key` is `delta` in a stream and `message` in a body. Only the first answer is read.
    fn chat(&mut self, value: &Value, key: &str, deltas: &mut Vec<Delta>) {
        let first = array(value, "choices")
            .find(|c| c.get("index").and_then(Value::as_u64).unwrap_or(0) == 0);
        let Some(message) = first.and_then(|choice| choice.get(key)) else {
            return;
        };
        if let Some(text) = text(message, "reasoning_content") {
            self.append_reasoning(text, deltas);
        } else if let Some(text) = text(message, "reasoning") {
            // Another name for it, whose servers do not want it back: shown, not kept.
            deltas.push(Delta::Reasoning(text.to_owned()));
        }
        if let Some(text) = text(message, "content") {
            self.append_text(text, deltas);
        } else if let Some(text) = text(message, "refusal") {
            self.append_text(text, deltas);
        }
        for call in array(message, "tool_calls") {
            self.chat_call(call);
        }
    }

    fn chat_call(&mut self, piece: &Value) {
        let index = piece.get("index").and_then(Value::as_u64);
        let id = text(piece, "id").unwrap_or_default();
        let function = piece.get("function").unwrap_or(&Value::Null);
        let name = text(function, "name").unwrap_or_default();
        let position = self.drafts.iter().rposition(|(_, draft)| match draft {
            Draft::Call {
                index: own_index,
                id: own_id,
                ..
            } => {
                let same_place = index.is_none() || index == *own_index;
                // Some servers give every call the index 0, or none, and a new id.
                same_place && (id.is_empty() || own_id.is_empty() || id == own_id)
            }
            _ => false,
        });
        // Without an index and an id, a piece with a name begins a new call.
        let begins = index.is_none() && id.is_empty() && !name.is_empty();
        let position = match position.filter(|_| !begins) {
            Some(position) => position,
            None => {
                let draft = Draft::Call {
                    index,
                    id: String::new(),
                    name: String::new(),
                    arguments: String::new(),
                    input: None,
                };
                if !self.push(None, draft) {
                    return;
                }
                self.drafts.len() - 1
            }
        };
        let more = match function.get("arguments") {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Null) | None => String::new(),
            // Some servers send an object where the protocol wants text.
            Some(other) => other.to_string(),
        };
        let fits = self.fits(more.len());
        if let Some((
            _,
            Draft::Call {
                id: own_id,
                name: own_name,
                arguments,
                ..
            },
        )) = self.drafts.get_mut(position)
        {
            if own_id.is_empty() {
                id.clone_into(own_id);
            }
            if own_name.is_empty() {
                name.clone_into(own_name);
            }
            if fits {
                arguments.push_str(&more);
            }
        }
    }

    // ---- Messages ----

    fn messages_event(&mut self, value: &Value, deltas: &mut Vec<Delta>) {
        let index = value.get("index").and_then(Value::as_u64);
        match value.get("type").and_then(Value::as_str) {
            Some("content_block_start") => {
                if let Some(block) = value.get("content_block") {
                    self.start_block(index, block, deltas);
                }
            }
            Some("content_block_delta") => {
                if let Some(delta) = value.get("delta") {
                    self.continue_block(index, delta, deltas);
                }
            }
            _ => {}
        }
    }

    fn start_block(&mut self, index: Option<u64>, block: &Value, deltas: &mut Vec<Delta>) {
        let own = |key: &str| text(block, key).unwrap_or_default().to_owned();
        let draft = match block.get("type").and_then(Value::as_str) {
            Some("text") => {
                let text = own("text");
                if !text.is_empty() {
                    deltas.push(Delta::Text(text.clone()));
                }
                Draft::Text(text)
            }
            Some("tool_use") => Draft::Call {
                index,
                id: own("id"),
                name: own("name"),
                arguments: String::new(),
                input: block.get("input").cloned(),
            },
            Some("thinking") => {
                let text = own("thinking");
                if !text.is_empty() {
                    deltas.push(Delta::Reasoning(text));
                }
                Draft::Opaque(block.clone())
            }
            Some("redacted_thinking") => Draft::Opaque(block.clone()),
            _ => Draft::Skipped,
        };
        self.push(index, draft);
    }

    fn continue_block(&mut self, index: Option<u64>, delta: &Value, deltas: &mut Vec<Delta>) {
        let piece = ["text", "partial_json", "thinking", "signature"]
            .into_iter()
            .find_map(|key| Some((key, text(delta, key)?)));
        let Some((key, piece)) = piece else { return };
        let fits = self.fits(piece.len());
        let Some((_, draft)) = self
            .drafts
            .iter_mut()
            .rev()
            .find(|(own, _)| *own == index)
            .filter(|_| fits)
        else {
            return;
        };
        match (draft, key) {
            (Draft::Text(text), "text") => {
                text.push_str(piece);
                deltas.push(Delta::Text(piece.to_owned()));
            }
            (Draft::Call { arguments, .. }, "partial_json") => arguments.push_str(piece),
            (Draft::Opaque(Value::Object(map)), "thinking" | "signature") => {
                if key == "thinking" {
                    deltas.push(Delta::Reasoning(piece.to_owned()));
                }
                match map.get_mut(key) {
                    Some(Value::String(own)) => own.push_str(piece),
                    _ => {
                        map.insert(key.to_owned(), Value::String(piece.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }

    // ---- Both ----

    fn append_text(&mut self, piece: &str, deltas: &mut Vec<Delta>) {
        if !matches!(self.drafts.last(), Some((_, Draft::Text(_))))
            && !self.push(None, Draft::Text(String::new()))
        {
            return;
        }
        let fits = self.fits(piece.len());
        if let Some((_, Draft::Text(text))) = self.drafts.last_mut().filter(|_| fits) {
            text.push_str(piece);
            deltas.push(Delta::Text(piece.to_owned()));
        }
    }

    fn append_reasoning(&mut self, piece: &str, deltas: &mut Vec<Delta>) {
        if !matches!(self.drafts.last(), Some((_, Draft::Reasoning(_))))
            && !self.push(None, Draft::Reasoning(String::new()))
        {
            return;
        }
        let fits = self.fits(piece.len());
        if let Some((_, Draft::Reasoning(text))) = self.drafts.last_mut().filter(|_| fits) {
            text.push_str(piece);
            deltas.push(Delta::Reasoning(piece.to_owned()));
        }
    }

    fn push(&mut self, index: Option<u64>, draft: Draft) -> bool {
        if self.drafts.len() >= self.limits.blocks {
            self.lost += 1;
            return false;
        }
        self.drafts.push((index, draft));
        true
    }

    fn fits(&mut self, more: usize) -> bool {
        let fits = self.bytes + more <= self.limits.bytes;
        if fits {
            self.bytes += more;
        } else {
            self.lost += 1;
        }
        fits
    }
}

impl Draft {
    fn finish(self) -> Option<Block> {
        match self {
            Self::Text(text) => (!text.is_empty()).then_some(Block::Text(text)),
            Self::Reasoning(text) => (!text.is_empty()).then_some(Block::Reasoning(text)),
            Self::Opaque(value) => Some(Block::Opaque(value)),
            Self::Skipped => None,
            Self::Call {
                id,
                name,
                arguments,
                input,
                ..
            } => {
                let arguments = match (arguments.is_empty(), input) {
                    (true, Some(Value::Object(map))) => Arguments::Object(map),
                    _ => Arguments::parse(&arguments),
                };
                Some(Block::Call(ToolCall {
                    id,
                    name,
                    arguments,
                }))
            }
        }
    }
}

/// The elements of the array under `key`, or none.
fn array<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The text under `key`, if it has any.
fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value
        .get(key)
        .and_then(Value::as_str)
        .filter(|s| !s.is_empty())
}
