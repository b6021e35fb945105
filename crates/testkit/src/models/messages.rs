//! The wire format of Messages.

use serde_json::{Value, json};

use super::chat::pieces;
use super::script::{Call, Step, Usage};

/// A plain answer.
pub(super) fn plain(id: u64, model: &str, step: &Step, usage: Option<Usage>) -> Value {
    let mut content = Vec::new();
    if !step.text.is_empty() || step.calls.is_empty() {
        content.push(json!({"type": "text", "text": step.text}));
    }
    for (n, it) in step.calls.iter().enumerate() {
        let mut block = start(id, n, it);
        block["input"] = it.arguments.clone();
        content.push(block);
    }
    let mut answer = head(id, model);
    answer["content"] = json!(content);
    answer["stop_reason"] = json!(reason(step));
    match usage {
        Some(it) => answer["usage"] = self::usage(it),
        None => drop(answer.as_object_mut().and_then(|it| it.remove("usage"))),
    }
    answer
}

/// A streamed answer: the frames in order.
pub(super) fn stream(id: u64, model: &str, step: &Step, usage: Option<Usage>) -> Vec<String> {
    let mut message = head(id, model);
    match usage {
        Some(it) => {
            message["usage"] = self::usage(Usage { output: 1, ..it });
        }
        None => drop(message.as_object_mut().and_then(|it| it.remove("usage"))),
    }
    let mut frames = vec![
        frame("message_start", &json!({"message": message})),
        frame("ping", &json!({})),
    ];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>| {
        frames.push(frame(
            "content_block_start",
            &json!({"index": index, "content_block": start}),
        ));
        for delta in deltas {
            frames.push(frame(
                "content_block_delta",
                &json!({"index": index, "delta": delta}),
            ));
        }
        frames.push(frame("content_block_stop", &json!({"index": index})));
        index += 1;
    };
    if !step.text.is_empty() || step.calls.is_empty() {
        let deltas = pieces(&step.text);
        let deltas = deltas
            .into_iter()
            .map(|it| json!({"type": "text_delta", "text": it}))
            .collect();
        block(json!({"type": "text", "text": ""}), deltas);
    }
    for (n, it) in step.calls.iter().enumerate() {
        let deltas = pieces(&it.arguments.to_string());
        let deltas = deltas
            .into_iter()
            .map(|it| json!({"type": "input_json_delta", "partial_json": it}))
            .collect();
        block(start(id, n, it), deltas);
    }
    let mut end = json!({"delta": {"stop_reason": reason(step), "stop_sequence": null}});
    if let Some(it) = usage {
        end["usage"] = json!({"output_tokens": it.output});
    }
    frames.push(frame("message_delta", &end));
    frames.push(frame("message_stop", &json!({})));
    frames
}

/// The document of an error.
pub(super) fn error(status: u16) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        400 => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": format!("scripted failure {status}")}, "request_id": "req_scripted"})
}

/// A failure in the middle of a stream.
pub(super) fn error_frame() -> String {
    frame(
        "error",
        &json!({"error": {"type": "overloaded_error", "message": "scripted failure"}}),
    )
}

fn head(id: u64, model: &str) -> Value {
    json!({
        "id": format!("msg_{id:08}"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": {},
    })
}

fn start(id: u64, n: usize, call: &Call) -> Value {
    json!({"type": "tool_use", "id": format!("toolu_{id:08}_{n}"), "name": call.name, "input": {}})
}

fn reason(step: &Step) -> &'static str {
    match (step.cut_at_limit, step.calls.is_empty()) {
        (true, _) => "max_tokens",
        (false, true) => "end_turn",
        (false, false) => "tool_use",
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    })
}

/// An event: its type is its name too.
fn frame(kind: &str, value: &Value) -> String {
    let mut value = value.clone();
    value["type"] = json!(kind);
    format!("event: {kind}\ndata: {value}\n\n")
}
