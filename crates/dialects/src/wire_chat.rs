//! A conversation as a Chat Completions request.
//!
//! <https://platform.openai.com/docs/api-reference/chat/create>

use serde::Serialize;
use serde_json::Value;

use crate::conversation::{Block, Conversation, RequestOptions, Turn};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolEntry<'a>>,
    messages: Vec<Message<'a>>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct ToolEntry<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum Message<'a> {
    System {
        content: &'a str,
    },
    User {
        content: &'a str,
    },
    Assistant {
        content: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reasoning_content: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<Call<'a>>,
    },
    Tool {
        tool_call_id: &'a str,
        content: &'a str,
    },
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CallFunction<'a>,
}

#[derive(Serialize)]
struct CallFunction<'a> {
    name: &'a str,
    arguments: String,
}

pub(crate) fn request(conversation: &Conversation, options: &RequestOptions) -> Vec<u8> {
    let mut messages = Vec::with_capacity(conversation.turns().len() + 1);
    if !conversation.system().is_empty() {
        messages.push(Message::System {
            content: conversation.system(),
        });
    }
    for turn in conversation.turns() {
        match turn {
            Turn::User(text) => messages.push(Message::User { content: text }),
            Turn::Assistant(blocks) => messages.extend(assistant(blocks)),
            Turn::Results(results) => messages.extend(results.iter().map(|r| Message::Tool {
                tool_call_id: &r.id,
                content: &r.text,
            })),
        }
    }
    let limit = Some(options.max_output);
    let new_name = takes_completion_limit(&options.model);
    let body = Body {
        model: &options.model,
        max_completion_tokens: limit.filter(|_| new_name),
        max_tokens: limit.filter(|_| !new_name),
        stream: true,
        stream_options: StreamOptions {
            include_usage: true,
        },
        tools: conversation
            .tools()
            .iter()
            .map(|tool| ToolEntry {
                r#type: "function",
                function: Function {
                    name: &tool.name,
                    description: &tool.description,
                    parameters: &tool.schema,
                },
            })
            .collect(),
        messages,
    };
    // Strings and maps with string keys always serialize.
    serde_json::to_vec(&body).unwrap_or_default()
}

fn assistant(blocks: &[Block]) -> Option<Message<'_>> {
    let mut content = String::new();
    let mut reasoning = String::new();
    let mut tool_calls = Vec::new();
    for block in blocks {
        match block {
            Block::Text(text) => content.push_str(text),
            Block::Reasoning(text) => reasoning.push_str(text),
            Block::Call(call) => tool_calls.push(Call {
                id: &call.id,
                r#type: "function",
                function: CallFunction {
                    name: &call.name,
                    arguments: call.arguments.as_object().to_string(),
                },
            }),
            Block::Opaque(_) => {}
        }
    }
    if content.is_empty() && tool_calls.is_empty() {
        return None;
    }
    Some(Message::Assistant {
        content: Some(content).filter(|c| !c.is_empty()),
        reasoning_content: Some(reasoning).filter(|r| !r.is_empty()),
        tool_calls,
    })
}

/// OpenAI's newer models refuse `max_tokens`; most servers that imitate OpenAI know only that.
fn takes_completion_limit(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let reasoner = |n: &str| {
        n.strip_prefix('o')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    (name.starts_with("gpt-") && !name.starts_with("gpt-oss"))
        || name.starts_with("chatgpt-")
        || reasoner(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_has_the_name_that_the_model_takes() {
        for name in [
            "gpt-5",
            "openai/gpt-6.1-sol",
            "o3",
            "o4-mini",
            "chatgpt-4o-latest",
        ] {
            assert!(takes_completion_limit(name), "{name}");
        }
        for name in [
            "gpt-oss-120b",
            "qwen3-coder",
            "olmo-3",
            "deepseek-chat",
            "scripted",
        ] {
            assert!(!takes_completion_limit(name), "{name}");
        }
    }
}
