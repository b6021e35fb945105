//! A conversation as a Messages request.
//!
//! <https://platform.claude.com/docs/en/api/messages>

use serde::Serialize;
use serde_json::Value;

use crate::conversation::{Block, Conversation, RequestOptions, Turn};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Entry<'a>>,
    messages: Vec<Message<'a>>,
}

#[derive(Serialize)]
struct ToolEntry<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a Value,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    part: Part<'a>,
    /// Marks the end of what the provider should cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
struct CacheControl {
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Known(Known<'a>),
    Opaque(&'a Value),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Known<'a> {
    Text {
        text: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Value,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

impl<'a> From<Known<'a>> for Entry<'a> {
    fn from(part: Known<'a>) -> Self {
        Self {
            part: Part::Known(part),
            cache_control: None,
        }
    }
}

pub(crate) fn request(conversation: &Conversation, options: &RequestOptions) -> Vec<u8> {
    let mut messages: Vec<Message<'_>> = Vec::new();
    for turn in conversation.turns() {
        let (role, content) = match turn {
            Turn::User(text) => ("user", text_part(text).into_iter().collect()),
            Turn::Assistant(blocks) => ("assistant", blocks.iter().filter_map(entry).collect()),
            Turn::Results(results) => (
                "user",
                results
                    .iter()
                    .map(|r| {
                        Known::ToolResult {
                            tool_use_id: &r.id,
                            content: &r.text,
                            is_error: r.is_error,
                        }
                        .into()
                    })
                    .collect::<Vec<_>>(),
            ),
        };
        // Roles must alternate, and no message may be empty.
        match messages.last_mut() {
            _ if content.is_empty() => {}
            Some(last) if last.role == role => last.content.extend(content),
            _ => messages.push(Message { role, content }),
        }
    }
    // What was said so far is read from the cache in the next turn.
    if let Some(last) = messages.last_mut().and_then(|m| m.content.last_mut()) {
        last.cache_control = Some(CacheControl {
            r#type: "ephemeral",
        });
    }
    let system = text_part(conversation.system()).map(|mut entry| {
        entry.cache_control = Some(CacheControl {
            r#type: "ephemeral",
        });
        entry
    });
    let body = Body {
        model: &options.model,
        max_tokens: options.max_output,
        stream: true,
        tools: conversation
            .tools()
            .iter()
            .map(|tool| ToolEntry {
                name: &tool.name,
                description: &tool.description,
                input_schema: &tool.schema,
            })
            .collect(),
        system: system.into_iter().collect(),
        messages,
    };
    // Strings and maps with string keys always serialize.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// Text without anything in it is refused by the provider.
fn text_part(text: &str) -> Option<Entry<'_>> {
    (!text.trim().is_empty()).then(|| Known::Text { text }.into())
}

fn entry(block: &Block) -> Option<Entry<'_>> {
    match block {
        Block::Text(text) => text_part(text),
        Block::Call(call) => Some(
            Known::ToolUse {
                id: &call.id,
                name: &call.name,
                input: call.arguments.as_object(),
            }
            .into(),
        ),
        Block::Opaque(value) => Some(Entry {
            part: Part::Opaque(value),
            cache_control: None,
        }),
        Block::Reasoning(_) => None,
    }
}
