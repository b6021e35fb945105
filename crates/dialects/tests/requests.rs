//! What the built-in agent sends, byte for byte.

// Functions that tests share may fail like the tests themselves.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::json;
use skep_dialects::{
    Arguments, Block, Conversation, Decoder, Dialect, Reply, Request, RequestOptions, Tool,
    ToolResult, Turn,
};

fn options() -> RequestOptions {
    RequestOptions {
        model: "scripted-1".into(),
        max_output: 4096,
    }
}

fn reply(dialect: Dialect, body: &serde_json::Value) -> Reply {
    let mut decoder = Decoder::new(dialect, 200);
    decoder.feed(body.to_string().as_bytes());
    decoder.finish().0
}

fn conversation() -> Conversation {
    let shell = Tool {
        name: "shell".into(),
        description: "Runs a command.".into(),
        schema: json!({"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}),
    };
    let mut conversation = Conversation::new("You fix bugs.", vec![shell]);
    conversation.push_user("Fix the \"parser\".\n");
    let said = reply(
        Dialect::Messages,
        &json!({"content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "shell", "input": {"command": "ls"}},
        ], "stop_reason": "tool_use"}),
    );
    assert_eq!(conversation.push_reply(&said).len(), 1);
    conversation.push_results(vec![ToolResult {
        id: "t1".into(),
        text: "a.rs\n".into(),
        is_error: false,
    }]);
    let said = reply(
        Dialect::ChatCompletions,
        &json!({"choices": [{"message": {"content": "", "tool_calls": [
            {"id": "", "function": {"name": "shell", "arguments": "{oops"}},
        ]}, "finish_reason": "tool_calls"}]}),
    );
    let calls = conversation.push_reply(&said);
    assert_eq!(calls[0].id, "call_3_0");
    conversation.push_results(vec![ToolResult {
        id: "call_3_0".into(),
        text: "The arguments are no JSON.".into(),
        is_error: true,
    }]);
    conversation.push_user("Go on.");
    conversation
}

fn pretty(body: &[u8]) -> String {
    // Parsed and printed, so that a reader sees the structure; the order of keys is checked by
    // the raw beginning below.
    let value: serde_json::Value = serde_json::from_slice(body).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn a_conversation_is_said_in_chat_completions() {
    let body = conversation().request(Dialect::ChatCompletions, &options());
    insta::assert_snapshot!(pretty(&body));
    assert!(body.starts_with(
        br#"{"model":"scripted-1","max_tokens":4096,"stream":true,"stream_options":{"include_usage":true},"tools":[{"type":"function","function":{"name":"shell","description":"#
    ));
}

#[test]
fn a_conversation_is_said_in_messages() {
    let body = conversation().request(Dialect::Messages, &options());
    insta::assert_snapshot!(pretty(&body));
    assert!(body.starts_with(
        br#"{"model":"scripted-1","max_tokens":4096,"stream":true,"tools":[{"name":"shell","description":"#
    ));
}

#[test]
fn the_same_conversation_always_gives_the_same_bytes_and_understands_itself() {
    for dialect in Dialect::ALL {
        let body = conversation().request(dialect, &options());
        let stored = serde_json::to_vec(&conversation()).unwrap();
        let restored: Conversation = serde_json::from_slice(&stored).unwrap();
        assert_eq!(restored.request(dialect, &options()), body);
        let request = Request::inspect(dialect, &body).unwrap();
        assert_eq!(request.model, "scripted-1");
        assert_eq!(request.max_output, Some(4096));
        assert!(request.stream && request.has_tools && !request.needs_usage_option());
    }
}

#[test]
fn calls_without_a_result_are_known() {
    let mut conversation = conversation();
    assert!(conversation.pending().is_empty());
    let said = reply(
        Dialect::Messages,
        &json!({"content": [
            {"type": "tool_use", "id": "t1", "name": "shell", "input": {}},
            {"type": "tool_use", "id": "t9", "name": "shell", "input": {}},
        ]}),
    );
    let calls = conversation.push_reply(&said);
    // The first id was used before.
    assert_eq!(calls[0].id, "call_6_0");
    conversation.push_results(vec![ToolResult {
        id: "t9".into(),
        text: String::new(),
        is_error: false,
    }]);
    let pending = conversation.pending();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].id, "call_6_0");
}

#[test]
fn a_long_conversation_is_made_smaller_from_its_oldest_end() {
    let mut conversation = Conversation::new("s", Vec::new());
    conversation.push_user("task");
    for n in 0..40 {
        let said = reply(
            Dialect::Messages,
            &json!({"content": [
                {"type": "thinking", "thinking": "", "signature": "c2ln"},
                {"type": "tool_use", "id": format!("t{n}"), "name": "edit",
                 "input": {"path": "a", "content": "x".repeat(3000)}},
            ]}),
        );
        conversation.push_reply(&said);
        conversation.push_results(vec![ToolResult {
            id: format!("t{n}"),
            text: "y".repeat(3000),
            is_error: false,
        }]);
    }
    let before = conversation.clone();
    assert!(!conversation.elide(before.estimate(), 4));
    assert_eq!(conversation, before);
    let limit = before.estimate() - 1;
    assert!(conversation.elide(limit, 4));
    assert!(conversation.estimate() <= limit / 2 + 2000);
    assert!(conversation.estimate() > limit / 3);
    // The task and the last turns are as they were, and every call still has its result.
    assert_eq!(conversation.turns().len(), before.turns().len());
    assert_eq!(conversation.turns()[0], before.turns()[0]);
    assert_eq!(conversation.turns()[77..], before.turns()[77..]);
    let Turn::Assistant(blocks) = &conversation.turns()[1] else {
        panic!()
    };
    assert!(!blocks.iter().any(|b| matches!(b, Block::Opaque(_))));
    let Block::Call(call) = &blocks[0] else {
        panic!()
    };
    let Arguments::Object(map) = &call.arguments else {
        panic!()
    };
    assert_eq!(map["path"], "a");
    assert_eq!(
        map["content"],
        "[3000 bytes were removed here to save space]"
    );
    // Doing it again changes nothing, and the same conversation is made smaller in the same way.
    let once = conversation.clone();
    assert!(!conversation.elide(limit, 4));
    let mut again = before;
    again.elide(limit, 4);
    assert_eq!(again, once);
}
