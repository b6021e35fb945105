//! What a meter and a decoder promise about responses as they come over a wire.

// Functions that tests share may fail like the tests themselves.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use skep_dialects::{
    Arguments, Block, Decoder, Delta, Dialect, End, FaultClass, Meter, Reply, Report, StopReason,
    Usage,
};

const CHAT_STREAM: &str = concat!(
    ": OPENROUTER PROCESSING\n\n",
    "data: {\"id\":\"c1\",\"model\":\"gpt-5-2025-08-07\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüße, \"},\"finish_reason\":null}]}\r\n\r\n",
    "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\n",
    "data: \"delta\":{\"content\":\"world 🐝\"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_a\",\"type\":\"function\",\"function\":{\"name\":\"shell\",\"arguments\":\"\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"command\\\":\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"call_b\",\"function\":{\"name\":\"shell\",\"arguments\":\"{oops\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\"ls\\\"}\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":20,\"prompt_tokens_details\":{\"cached_tokens\":64}}}\n\n",
    "data: [DONE]\n\n",
);

const MESSAGES_STREAM: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-opus-5-5\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":12,\"cache_read_input_tokens\":900,\"cache_creation_input_tokens\":30,\"cache_creation\":{\"ephemeral_1h_input_tokens\":10},\"output_tokens\":1}}}\n\n",
    "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"Let me see.\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"c2ln\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"Grüße, \"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"world 🐝\"}}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":2,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"shell\",\"input\":{}}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"command\\\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\": \\\"ls\\\"}\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":57}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

fn meter<'a>(dialect: Dialect, status: u16, chunks: impl IntoIterator<Item = &'a [u8]>) -> Report {
    let mut meter = Meter::new(dialect, status);
    for chunk in chunks {
        meter.feed(chunk);
    }
    meter.finish()
}

fn decode<'a>(
    dialect: Dialect,
    status: u16,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Reply, Vec<Delta>) {
    let mut decoder = Decoder::new(dialect, status);
    let mut deltas = Vec::new();
    for chunk in chunks {
        deltas.extend(decoder.feed(chunk));
    }
    let (reply, last) = decoder.finish();
    deltas.extend(last);
    (reply, deltas)
}

fn whole(text: &str) -> [&[u8]; 1] {
    [text.as_bytes()]
}

fn samples() -> Vec<(Dialect, u16, String)> {
    vec![
        (Dialect::ChatCompletions, 200, CHAT_STREAM.into()),
        (Dialect::ChatCompletions, 200, CHAT_STREAM.replace("\r\n", "\n").replace('\n', "\r\n")),
        (Dialect::ChatCompletions, 200, CHAT_STREAM.replace("\r\n", "\n").replace('\n', "\r")),
        (Dialect::Messages, 200, MESSAGES_STREAM.into()),
        (
            Dialect::ChatCompletions,
            200,
            r#" {"id":"x","choices":[{"message":{"content":"hi","tool_calls":[{"id":"a","function":{"name":"shell","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#.into(),
        ),
        (
            Dialect::Messages,
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#.into(),
        ),
        (Dialect::Messages, 502, "<html>\n<body>Bad gateway</body>\n".into()),
    ]
}

proptest! {
    #[test]
    fn the_chunks_of_a_response_make_no_difference(
        which in 0..7_usize,
        keep in 0.0..1.0_f64,
        cuts in proptest::collection::vec(0.0..1.0_f64, 0..12),
    ) {
        let (dialect, status, text) = samples().swap_remove(which);
        // Half of the time the stream ends somewhere in the middle.
        let length = if keep < 0.5 { text.len() } else { (text.len() as f64 * keep) as usize };
        let bytes = &text.as_bytes()[..length];
        let mut places: Vec<usize> = cuts.iter().map(|c| (c * length as f64) as usize).collect();
        places.sort_unstable();
        let mut chunks = Vec::new();
        let mut start = 0;
        for place in places {
            chunks.push(&bytes[start..place]);
            start = place;
        }
        chunks.push(&bytes[start..]);
        let singles = bytes.chunks(1);
        prop_assert_eq!(
            meter(dialect, status, chunks.iter().copied()),
            meter(dialect, status, [bytes])
        );
        prop_assert_eq!(meter(dialect, status, singles.clone()), meter(dialect, status, [bytes]));
        let (reply, deltas) = decode(dialect, status, chunks);
        prop_assert_eq!(&decode(dialect, status, singles).0, &reply);
        let report = meter(dialect, status, [bytes]);
        prop_assert_eq!((report.usage, &report.stop, report.end), (reply.usage, &reply.stop, reply.end));
        prop_assert_eq!(decode(dialect, status, [bytes]), (reply, deltas));
    }

    #[test]
    fn no_bytes_whatever_are_a_problem(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        prefix in prop_oneof![Just(""), Just("data: "), Just("{\"error\":"), Just("[")],
    ) {
        for dialect in Dialect::ALL {
            let chunks = [prefix.as_bytes(), &bytes];
            let report = meter(dialect, 200, chunks);
            prop_assert_eq!(report.usage.output, None);
            prop_assert_ne!(report.end, End::Complete);
            decode(dialect, 500, chunks);
        }
    }

    #[test]
    fn events_of_the_wrong_shape_are_no_problem(value in json_value()) {
        let text = format!("data: {{}}\n\ndata: {value}\n\n{value}");
        for dialect in Dialect::ALL {
            // What a meter skips, to be quick, has nothing for it.
            let report = meter(dialect, 200, whole(&text));
            let reply = decode(dialect, 200, whole(&text)).0;
            prop_assert_eq!((report.usage, report.stop, report.end), (reply.usage, reply.stop, reply.end));
            prop_assert_eq!(report.fault, reply.fault);
            decode(dialect, 200, whole(&value.to_string()));
        }
    }
}

/// Values whose keys are those that the parsers look at, with anything under them.
fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-z_]{0,12}".prop_map(Into::into),
        prop_oneof![
            Just("message_start"),
            Just("content_block_start"),
            Just("content_block_delta"),
            Just("tool_use"),
            Just("thinking"),
            Just("message_delta"),
            Just("text"),
        ]
        .prop_map(Into::into),
    ];
    let key = prop_oneof![
        Just("type"),
        Just("choices"),
        Just("delta"),
        Just("message"),
        Just("content"),
        Just("tool_calls"),
        Just("function"),
        Just("arguments"),
        Just("index"),
        Just("usage"),
        Just("error"),
        Just("content_block"),
        Just("input"),
        Just("partial_json"),
        Just("thinking"),
        Just("prompt_tokens"),
        Just("id"),
        Just("name"),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| {
                pairs
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

#[test]
fn a_chat_stream_is_metered() {
    let report = meter(Dialect::ChatCompletions, 200, whole(CHAT_STREAM));
    assert_eq!(
        report.usage,
        Usage {
            input: Some(36),
            output: Some(20),
            cache_read: Some(64),
            ..Usage::default()
        }
    );
    assert_eq!(report.stop, Some(StopReason::ToolUse));
    assert_eq!(report.end, End::Complete);
    assert_eq!(report.model.as_deref(), Some("gpt-5-2025-08-07"));
    assert_eq!(report.bytes, CHAT_STREAM.len() as u64);
    assert_eq!((report.dropped, report.garbage), (0, 0));
}

#[test]
fn a_messages_stream_is_metered() {
    let report = meter(Dialect::Messages, 200, whole(MESSAGES_STREAM));
    assert_eq!(
        report.usage,
        Usage {
            input: Some(12),
            output: Some(57),
            cache_read: Some(900),
            cache_write: Some(30),
            cache_write_long: Some(10),
            reasoning: None,
        }
    );
    assert_eq!(report.end, End::Complete);
    assert_eq!(report.id.as_deref(), Some("msg_1"));
}

#[test]
fn the_output_of_a_stream_that_was_cut_is_unknown() {
    let cut = &MESSAGES_STREAM[..MESSAGES_STREAM.find("message_delta").unwrap()];
    let report = meter(Dialect::Messages, 200, whole(cut));
    assert_eq!(report.end, End::Cut);
    assert_eq!(report.usage.input, Some(12));
    assert_eq!(report.usage.output, None);
    // Without the terminator, but with the model's own end, everything is known.
    let untied = MESSAGES_STREAM.replace("message_stop", "ping");
    let report = meter(Dialect::Messages, 200, whole(&untied));
    assert_eq!(report.end, End::Unterminated);
    assert_eq!(report.usage.output, Some(57));
}

#[test]
fn an_error_inside_a_stream_is_told() {
    let text = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let report = meter(Dialect::Messages, 200, whole(text));
    assert_eq!(report.end, End::Failed);
    assert_eq!(report.fault.unwrap().class, FaultClass::Overloaded);
    let text =
        "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}\n\n";
    let report = meter(Dialect::ChatCompletions, 200, whole(text));
    assert_eq!(report.fault.unwrap().class, FaultClass::Server);
}

#[test]
fn a_giant_event_passes_unmetered_and_is_said_to() {
    let giant = format!(
        "data: {{\"x\":\"{}\"}}\n\n{CHAT_STREAM}",
        "y".repeat(5 << 20)
    );
    let report = meter(
        Dialect::ChatCompletions,
        200,
        giant.as_bytes().chunks(65_536),
    );
    assert_eq!(report.dropped, 1);
    assert_eq!(report.usage.output, Some(20));
    let giant = format!("{{\"x\":\"{}\"}}", "y".repeat(17 << 20));
    let report = meter(
        Dialect::ChatCompletions,
        200,
        giant.as_bytes().chunks(65_536),
    );
    assert_eq!((report.dropped, report.usage), (1, Usage::default()));
}

#[test]
fn both_dialects_decode_to_the_same_conversation() {
    for (dialect, text) in [
        (Dialect::ChatCompletions, CHAT_STREAM),
        (Dialect::Messages, MESSAGES_STREAM),
    ] {
        let (reply, deltas) = decode(dialect, 200, whole(text));
        assert_eq!(reply.text(), "Grüße, world 🐝");
        let call = reply.calls().next().unwrap();
        assert_eq!(call.name, "shell");
        let Arguments::Object(arguments) = &call.arguments else {
            panic!("{call:?}")
        };
        assert_eq!(arguments["command"], "ls");
        assert_eq!(reply.stop, Some(StopReason::ToolUse));
        let said: String = deltas
            .iter()
            .map(|d| match d {
                Delta::Text(text) => text.as_str(),
                Delta::Reasoning(_) => "",
            })
            .collect();
        assert_eq!(said, reply.text());
    }
}

#[test]
fn a_call_that_makes_no_sense_is_kept_as_it_is() {
    let (reply, _) = decode(Dialect::ChatCompletions, 200, whole(CHAT_STREAM));
    let call = reply.calls().nth(1).unwrap();
    assert_eq!(call.id, "call_b");
    let Arguments::Invalid { text, reason } = &call.arguments else {
        panic!("{call:?}")
    };
    assert_eq!(text, "{oops");
    assert!(reason.contains("line 1"), "{reason}");
}

#[test]
fn signed_thinking_is_kept_to_go_back_unchanged() {
    let (reply, deltas) = decode(Dialect::Messages, 200, whole(MESSAGES_STREAM));
    assert_eq!(
        reply.blocks[0],
        Block::Opaque(
            serde_json::json!({"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"})
        )
    );
    assert_eq!(deltas[0], Delta::Reasoning("Let me see.".into()));
}

#[test]
fn calls_of_servers_with_ways_of_their_own_are_told_apart() {
    // Every call at index 0 with an id of its own; no index at all; arguments as an object.
    let cases = [
        concat!(
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"shell\",\"arguments\":\"{\\\"n\\\":1}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"b\",\"function\":{\"name\":\"shell\",\"arguments\":\"{\\\"n\\\":2}\"}}]}}]}\n\n",
        ),
        concat!(
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":\"shell\",\"arguments\":\"{\\\"n\\\":\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"1}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":\"shell\",\"arguments\":{\"n\":2}}}]}}]}\n\n",
        ),
    ];
    for case in cases {
        let (reply, _) = decode(Dialect::ChatCompletions, 200, whole(case));
        let numbers: Vec<_> = reply
            .calls()
            .map(|call| match &call.arguments {
                Arguments::Object(map) => map["n"].as_u64(),
                Arguments::Invalid { .. } => None,
            })
            .collect();
        assert_eq!(numbers, [Some(1), Some(2)]);
    }
}

#[test]
fn a_reply_has_a_bounded_number_of_blocks() {
    let mut text = String::new();
    for n in 0..1000 {
        text.push_str(&format!(
            "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":{n},\"id\":\"c{n}\",\"function\":{{\"name\":\"shell\"}}}}]}}}}]}}\n\n"
        ));
    }
    let (reply, _) = decode(Dialect::ChatCompletions, 200, whole(&text));
    assert_eq!(reply.calls().count(), 256);
    assert_eq!(reply.dropped, 744);
}
