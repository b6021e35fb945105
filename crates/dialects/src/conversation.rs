//! The conversation of an agent whose loop is on the trusted side, in no dialect.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decoder::Reply;
use crate::endpoint::Dialect;
use crate::{wire_chat, wire_messages};

/// Bytes for each token in the estimate of a conversation's size.
const BYTES_PER_TOKEN: usize = 3;

/// What takes the place of an elided tool result.
const ELIDED_RESULT: &str =
    "[This old output was removed to save space. Run the command again if you need it.]";

/// Arguments of old calls are elided when they are longer than this, in bytes.
const LONG_ARGUMENT: usize = 400;

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// The JSON schema of its arguments, an object.
    pub schema: Value,
}

/// The arguments of a call, as the model wrote them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arguments {
    /// A JSON object.
    Object(serde_json::Map<String, Value>),
    /// Text that is no JSON object, with the reason. The model is to be told.
    Invalid {
        /// What the model wrote.
        text: String,
        /// Why it cannot be read.
        reason: String,
    },
}

impl Arguments {
    /// Reads what a model wrote. Nothing at all is an empty object.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let reason = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => return Self::Object(map),
            _ if text.trim().is_empty() => return Self::Object(serde_json::Map::new()),
            Ok(Value::Null) => return Self::Object(serde_json::Map::new()),
            Ok(_) => "it is no JSON object".to_owned(),
            Err(error) => error.to_string(),
        };
        Self::Invalid {
            text: text.to_owned(),
            reason,
        }
    }

    /// The arguments as an object that any provider takes back: text that is no object goes
    /// under the key `invalid_arguments`.
    pub(crate) fn as_object(&self) -> Value {
        match self {
            Self::Object(map) => Value::Object(map.clone()),
            Self::Invalid { text, .. } => {
                let mut map = serde_json::Map::new();
                map.insert("invalid_arguments".into(), Value::String(text.clone()));
                Value::Object(map)
            }
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Object(map) => map.iter().map(|(k, v)| k.len() + value_size(v)).sum(),
            Self::Invalid { text, .. } => text.len(),
        }
    }
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + 2,
        Value::Array(items) => items.iter().map(value_size).sum::<usize>() + items.len(),
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + value_size(v) + 4).sum(),
        _ => 5,
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that its result must name.
    pub id: String,
    /// The tool.
    pub name: String,
    /// What it is called with.
    pub arguments: Arguments,
}

/// What a tool gave back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The id of the call.
    pub id: String,
    /// What the model is told.
    pub text: String,
    /// Whether the call failed.
    pub is_error: bool,
}

/// A piece of what the model said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Words.
    Text(String),
    /// A call of a tool.
    Call(ToolCall),
    /// Reasoning of a Chat Completions server that wants it back (`reasoning_content`).
    Reasoning(String),
    /// A block of the Messages dialect that must go back unchanged: signed thinking, above all.
    Opaque(Value),
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// The user, or Skep in the user's place.
    User(String),
    /// The model.
    Assistant(Vec<Block>),
    /// What tools gave back.
    Results(Vec<ToolResult>),
}

/// How to ask for the next turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestOptions {
    /// The model's name.
    pub model: String,
    /// The most tokens that it may write, reasoning included.
    pub max_output: u32,
}

/// System text, tools and turns: everything that a model is told, and what it said.
///
/// The same conversation always gives the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    system: String,
    tools: Vec<Tool>,
    turns: Vec<Turn>,
    /// Turns before this one have been elided.
    #[serde(default)]
    elided: usize,
}

impl Conversation {
    /// An empty conversation.
    #[must_use]
    pub fn new(system: impl Into<String>, tools: Vec<Tool>) -> Self {
        Self {
            system: system.into(),
            tools,
            turns: Vec::new(),
            elided: 0,
        }
    }

    /// The system text.
    #[must_use]
    pub fn system(&self) -> &str {
        &self.system
    }

    /// The tools.
    #[must_use]
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// The turns so far.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Adds words of the user.
    pub fn push_user(&mut self, text: impl Into<String>) {
        self.turns.push(Turn::User(text.into()));
    }

    /// Adds what the model said. A reply without any block adds nothing.
    ///
    /// The ids of its calls are made unique in the conversation, since some servers leave them
    /// empty or repeat them; the calls as they then stand are returned.
    pub fn push_reply(&mut self, reply: &Reply) -> Vec<ToolCall> {
        if reply.blocks.is_empty() {
            return Vec::new();
        }
        let mut used: std::collections::HashSet<String> =
            self.calls().map(|call| call.id.clone()).collect();
        let turn = self.turns.len();
        let mut blocks = reply.blocks.clone();
        let mut calls = Vec::new();
        for (n, block) in blocks.iter_mut().enumerate() {
            if let Block::Call(call) = block {
                if call.id.is_empty() || used.contains(&call.id) {
                    call.id = format!("call_{turn}_{n}");
                }
                used.insert(call.id.clone());
                calls.push(call.clone());
            }
        }
        self.turns.push(Turn::Assistant(blocks));
        calls
    }

    /// Adds what tools gave back.
    pub fn push_results(&mut self, results: Vec<ToolResult>) {
        if !results.is_empty() {
            self.turns.push(Turn::Results(results));
        }
    }

    /// Calls of the last turn of the model that have no result yet. A provider takes no
    /// further turn before every one of them has.
    #[must_use]
    pub fn pending(&self) -> Vec<ToolCall> {
        let last = self
            .turns
            .iter()
            .rposition(|t| matches!(t, Turn::Assistant(_)));
        let Some((Turn::Assistant(blocks), after)) = last
            .and_then(|at| self.turns.get(at..))
            .and_then(<[_]>::split_first)
        else {
            return Vec::new();
        };
        let answered = |id: &str| {
            after.iter().any(|turn| match turn {
                Turn::Results(results) => results.iter().any(|r| r.id == id),
                _ => false,
            })
        };
        calls_of(blocks)
            .filter(|call| !answered(&call.id))
            .cloned()
            .collect()
    }

    /// Roughly how many tokens the conversation has; rather too many than too few.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        let tools: usize = self
            .tools
            .iter()
            .map(|t| t.name.len() + t.description.len() + value_size(&t.schema))
            .sum();
        let turns: usize = self.turns.iter().map(turn_size).sum();
        ((self.system.len() + tools + turns) / BYTES_PER_TOKEN) as u64
    }

    /// Makes the conversation smaller when it has more than `limit` tokens: the output of
    /// tools, and long arguments, of the oldest turns are replaced by a note, until half of the
    /// limit is left, so that this happens seldom and a prompt cache stays good in between.
    /// The last `keep` turns are never touched. What remains depends only on the conversation
    /// and the numbers. Returns whether anything changed.
    pub fn elide(&mut self, limit: u64, keep: usize) -> bool {
        let mut size = self.estimate();
        if size <= limit {
            return false;
        }
        let last = self.turns.len().saturating_sub(keep);
        let mut changed = false;
        for turn in self.turns.iter_mut().take(last).skip(self.elided) {
            if size <= limit / 2 {
                break;
            }
            self.elided += 1;
            let before = turn_size(turn);
            changed |= elide_turn(turn);
            let saved = before.saturating_sub(turn_size(turn)) / BYTES_PER_TOKEN;
            size = size.saturating_sub(saved as u64);
        }
        changed
    }

    /// The body of the request for the next turn: streamed, with the usage told at its end.
    #[must_use]
    pub fn request(&self, dialect: Dialect, options: &RequestOptions) -> Vec<u8> {
        match dialect {
            Dialect::ChatCompletions => wire_chat::request(self, options),
            Dialect::Messages => wire_messages::request(self, options),
        }
    }

    fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.turns
            .iter()
            .filter_map(|turn| match turn {
                Turn::Assistant(blocks) => Some(calls_of(blocks)),
                _ => None,
            })
            .flatten()
    }
}

fn calls_of(blocks: &[Block]) -> impl Iterator<Item = &ToolCall> {
    blocks.iter().filter_map(|block| match block {
        Block::Call(call) => Some(call),
        _ => None,
    })
}

fn turn_size(turn: &Turn) -> usize {
    match turn {
        Turn::User(text) => text.len() + 30,
        Turn::Assistant(blocks) => blocks
            .iter()
            .map(|block| match block {
                Block::Text(text) | Block::Reasoning(text) => text.len() + 30,
                Block::Call(call) => call.name.len() + call.arguments.size() + 60,
                Block::Opaque(value) => value_size(value),
            })
            .sum(),
        Turn::Results(results) => results.iter().map(|r| r.text.len() + 80).sum(),
    }
}

fn elide_turn(turn: &mut Turn) -> bool {
    let mut changed = false;
    match turn {
        Turn::User(_) => {}
        Turn::Results(results) => {
            for result in results
                .iter_mut()
                .filter(|r| r.text.len() > ELIDED_RESULT.len() * 2)
            {
                ELIDED_RESULT.clone_into(&mut result.text);
                changed = true;
            }
        }
        Turn::Assistant(blocks) => {
            let before = blocks.len();
            // Signed thinking belongs to what was said around it: of elided turns it goes
            // altogether, which the provider allows for all but the latest turn.
            blocks.retain(|block| !matches!(block, Block::Opaque(_) | Block::Reasoning(_)));
            changed = blocks.len() != before;
            for block in blocks {
                if let Block::Call(call) = block {
                    changed |= elide_arguments(&mut call.arguments);
                }
            }
        }
    }
    changed
}

fn elide_arguments(arguments: &mut Arguments) -> bool {
    let mut changed = false;
    let mut shorten = |text: &mut String| {
        if text.len() > LONG_ARGUMENT {
            *text = format!("[{} bytes were removed here to save space]", text.len());
            changed = true;
        }
    };
    match arguments {
        Arguments::Invalid { text, .. } => shorten(text),
        Arguments::Object(map) => {
            for (_, value) in map.iter_mut() {
                if let Value::String(text) = value {
                    shorten(text);
                }
            }
        }
    }
    changed
}
