//! The wire format of Chat Completions.

use serde_json::{Value, json};

use super::script::{Call, Step, Usage};

/// A plain answer.
pub(super) fn plain(id: u64, model: &str, step: &Step, usage: Option<Usage>) -> Value {
    let mut message = json!({"role": "assistant", "content": content(step), "refusal": null});
    if !step.calls.is_empty() {
        let calls: Vec<Value> = step
            .calls
            .iter()
            .enumerate()
            .map(|(n, it)| call(id, n, it))
            .collect();
        message["tool_calls"] = json!(calls);
    }
    let mut answer = json!({
        "id": format!("chatcmpl-{id}"),
        "object": "chat.completion",
        "created": 1_700_000_000 + id,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish(step)}],
        "system_fingerprint": "fp_scripted",
    });
    if let Some(usage) = usage {
        answer["usage"] = self::usage(usage);
    }
    answer
}

/// A streamed answer: the frames in order.
pub(super) fn stream(
    id: u64,
    model: &str,
    step: &Step,
    usage: Option<Usage>,
    include_usage: bool,
) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        let mut chunk = json!({
            "id": format!("chatcmpl-{id}"),
            "object": "chat.completion.chunk",
            "created": 1_700_000_000 + id,
            "model": model,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}],
        });
        if include_usage {
            chunk["usage"] = Value::Null;
        }
        frame(&chunk)
    };
    let mut frames = vec![chunk(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    for piece in pieces(&step.text) {
        frames.push(chunk(json!({"content": piece}), Value::Null));
    }
    for (n, it) in step.calls.iter().enumerate() {
        let mut start = call(id, n, it);
        start["index"] = json!(n);
        let arguments = start["function"]["arguments"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        start["function"]["arguments"] = json!("");
        frames.push(chunk(json!({"tool_calls": [start]}), Value::Null));
        for piece in pieces(&arguments) {
            let delta = json!({"tool_calls": [{"index": n, "function": {"arguments": piece}}]});
            frames.push(chunk(delta, Value::Null));
        }
    }
    frames.push(chunk(json!({}), json!(finish(step))));
    if let Some(usage) = usage.filter(|_| include_usage) {
        frames.push(frame(&json!({
            "id": format!("chatcmpl-{id}"),
            "object": "chat.completion.chunk",
            "created": 1_700_000_000 + id,
            "model": model,
            "choices": [],
            "usage": self::usage(usage),
        })));
    }
    frames.push("data: [DONE]\n\n".to_owned());
    frames
}

/// The document of an error.
pub(super) fn error(status: u16) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", "invalid_api_key"),
        403 => ("invalid_request_error", "permission_denied"),
        404 => ("invalid_request_error", "model_not_found"),
        429 => ("requests", "rate_limit_exceeded"),
        _ => ("server_error", "internal_error"),
    };
    json!({"error": {"message": format!("scripted failure {status}"), "type": kind, "param": null, "code": code}})
}

/// A failure in the middle of a stream.
pub(super) fn error_frame() -> String {
    frame(
        &json!({"error": {"message": "scripted failure", "type": "server_error", "code": "server_error"}}),
    )
}

fn call(id: u64, n: usize, call: &Call) -> Value {
    json!({
        "id": format!("call_{id}_{n}"),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments.to_string()},
    })
}

fn content(step: &Step) -> Value {
    if step.text.is_empty() {
        Value::Null
    } else {
        json!(step.text)
    }
}

fn finish(step: &Step) -> &'static str {
    match (step.cut_at_limit, step.calls.is_empty()) {
        (true, _) => "length",
        (false, true) => "stop",
        (false, false) => "tool_calls",
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.input + usage.cached,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.cached + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    })
}

fn frame(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// Cuts a text into a few pieces at the boundaries of characters.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let size = letters.len().div_ceil(4).clamp(1, 400);
    letters.chunks(size).map(|it| it.iter().collect()).collect()
}
