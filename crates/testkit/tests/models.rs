//! What a test is promised of the scripted model.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skep_testkit::models::{Dialect, Fault, Hold, Job, Script, Scripted, Step, Usage};

const SOON: Duration = Duration::from_secs(20);

/// Sends a request and reads until the connection ends.
fn raw(model: &Scripted, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(model.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: model\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    // A connection that breaks keeps what came before.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(model: &Scripted, path: &str, body: &Value) -> (u16, String) {
    let answer = raw(
        model,
        "POST",
        path,
        "authorization: Bearer k1\r\n",
        &body.to_string(),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    let body = if head.contains("chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    (status, body)
}

fn unchunk(mut rest: &str) -> String {
    let mut text = String::new();
    while let Some((size, body)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(chunk) = body.get(..size).filter(|_| size > 0) else {
            break;
        };
        text.push_str(chunk);
        rest = body.get(size + 2..).unwrap_or("");
    }
    text
}

fn events(stream: &str) -> Vec<Value> {
    stream
        .lines()
        .filter_map(|it| it.strip_prefix("data: "))
        .filter(|it| *it != "[DONE]")
        .map(|it| serde_json::from_str(it).unwrap())
        .collect()
}

fn chat(prompt: &str, answers: usize) -> Value {
    let mut messages = vec![json!({"role": "user", "content": prompt})];
    for n in 0..answers {
        messages.push(json!({"role": "assistant", "content": format!("answer {n}")}));
        messages.push(json!({"role": "user", "content": "go on"}));
    }
    let tools = json!([{"type": "function", "function": {"name": "shell"}}]);
    json!({"model": "scripted", "messages": messages, "tools": tools})
}

fn messages(prompt: &str) -> Value {
    json!({"model": "scripted", "max_tokens": 100, "tools": [{"name": "Bash"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}]})
}

#[test]
fn each_conversation_gets_its_own_jobs_steps_in_any_order() {
    let model = Scripted::start(
        Script::new()
            .job(
                Job::on("fix the parser")
                    .step(Step::shell("make"))
                    .step(Step::say("fixed")),
            )
            .job(Job::on("write the docs").step(Step::say("written"))),
    );
    let ask = |prompt, answers| {
        let (status, body) = post(&model, "/v1/chat/completions", &chat(prompt, answers));
        assert_eq!(status, 200);
        serde_json::from_str::<Value>(&body).unwrap()["choices"][0].clone()
    };
    assert_eq!(
        ask("please fix the parser", 1)["message"]["content"],
        "fixed"
    );
    assert_eq!(ask("write the docs", 0)["message"]["content"], "written");
    let call = ask("fix the parser", 0);
    assert_eq!(call["finish_reason"], "tool_calls");
    let function = &call["message"]["tool_calls"][0]["function"];
    assert_eq!(function["name"], "shell");
    assert_eq!(
        serde_json::from_str::<Value>(function["arguments"].as_str().unwrap()).unwrap(),
        json!({"command": "make"})
    );
    assert_eq!(
        ask("fix the parser", 2)["message"]["content"],
        "There is nothing left to do."
    );
    assert_eq!(ask("something else", 0)["message"]["content"], "ok");
    let jobs: Vec<_> = model
        .conversations()
        .iter()
        .map(|it| (it.job, it.step))
        .collect();
    assert_eq!(
        jobs,
        [
            (Some(0), 1),
            (Some(1), 0),
            (Some(0), 0),
            (Some(0), 2),
            (None, 0)
        ]
    );
    assert_eq!(model.requests()[0].key(), Some("k1"));
    assert!(model.requests()[0].offers_tools());
}

#[test]
fn a_chat_stream_is_chunks_a_finish_usage_and_done() {
    let step = Step::shell("ls -la")
        .saying("Looking at the files.")
        .usage(Usage {
            input: 7,
            cached: 3,
            output: 5,
        });
    let model = Scripted::start(Script::new().job(Job::always().step(step)));
    let mut question = chat("x", 0);
    question["stream"] = json!(true);
    question["stream_options"] = json!({"include_usage": true});
    let (status, body) = post(&model, "/v1/chat/completions", &question);
    assert_eq!(status, 200);
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    let events = events(&body);
    let text: String = events
        .iter()
        .filter_map(|it| it["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "Looking at the files.");
    let arguments: String = events
        .iter()
        .filter_map(|it| {
            it["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str()
        })
        .collect();
    assert_eq!(arguments, "{\"command\":\"ls -la\"}");
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["prompt_tokens"], 10);
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
    assert_eq!(
        events[events.len() - 2]["choices"][0]["finish_reason"],
        "tool_calls"
    );
}

#[test]
fn a_messages_stream_has_its_events_and_the_shell_tool_that_is_offered() {
    let step = Step::shell("ls").saying("Looking.").using(7, 5);
    let model = Scripted::start(Script::new().job(Job::always().step(step)));
    let mut question = messages("x");
    question["stream"] = json!(true);
    let (status, body) = post(&model, "/v1/messages?beta=true", &question);
    assert_eq!(status, 200);
    let events = events(&body);
    let kinds: Vec<&str> = events
        .iter()
        .map(|it| it["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.first(), Some(&"message_start"));
    assert_eq!(kinds[kinds.len() - 2..], ["message_delta", "message_stop"]);
    let call = events
        .iter()
        .find(|it| it["content_block"]["type"] == "tool_use")
        .unwrap();
    assert_eq!(call["content_block"]["name"], "Bash");
    let arguments: String = events
        .iter()
        .filter_map(|it| it["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(
        serde_json::from_str::<Value>(&arguments).unwrap()["command"],
        "ls"
    );
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 7);
    let delta = &events[kinds.len() - 2];
    assert_eq!(
        (
            &delta["delta"]["stop_reason"],
            &delta["usage"]["output_tokens"]
        ),
        (&json!("tool_use"), &json!(5))
    );
    assert_eq!(model.requests()[0].dialect, Some(Dialect::Messages));
    assert_eq!(model.requests()[0].path, "/v1/messages?beta=true");
}

#[test]
fn a_plain_messages_answer_is_one_document() {
    let model =
        Scripted::start(Script::new().job(Job::always().step(Step::say("Done.").using(2, 3))));
    let (_, body) = post(&model, "/v1/messages", &messages("x"));
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        answer["content"],
        json!([{"type": "text", "text": "Done."}])
    );
    assert_eq!(
        (&answer["stop_reason"], &answer["usage"]["output_tokens"]),
        (&json!("end_turn"), &json!(3))
    );
}

#[test]
fn housekeeping_is_answered_and_is_not_a_turn() {
    let model = Scripted::start(Script::new().job(Job::on("x").step(Step::shell("ls"))));
    let (status, body) = post(&model, "/v1/messages/count_tokens", &messages("x"));
    assert_eq!(status, 200);
    assert!(serde_json::from_str::<Value>(&body).unwrap()["input_tokens"].is_u64());
    assert!(raw(&model, "GET", "/v1/models", "", "").contains("\"scripted\""));
    let mut title = chat("a title for x", 0);
    title.as_object_mut().unwrap().remove("tools");
    let (_, body) = post(&model, "/v1/chat/completions", &title);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
    assert_eq!(model.requests().len(), 3);
    assert_eq!(model.conversations().len(), 1);
}

#[test]
fn a_wrong_key_is_refused_in_the_dialects_own_words() {
    let model = Scripted::with_key(Script::new(), "right");
    let (status, body) = post(&model, "/v1/messages", &messages("x"));
    assert_eq!((status, body.contains("authentication_error")), (401, true));
    let answer = raw(
        &model,
        "POST",
        "/v1/chat/completions",
        "authorization: Bearer right\r\n",
        &chat("x", 0).to_string(),
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_failure_before_an_answer_comes_once() {
    let step = Step::say("at last")
        .after_fault(Fault::Status(529))
        .after_fault(Fault::RateLimited(2));
    let model = Scripted::start(Script::new().job(Job::always().step(step)));
    let ask = || {
        raw(
            &model,
            "POST",
            "/v1/messages",
            "",
            &messages("x").to_string(),
        )
    };
    assert!(ask().starts_with("HTTP/1.1 529"));
    let limited = ask();
    assert!(
        limited.starts_with("HTTP/1.1 429") && limited.contains("retry-after: 2"),
        "{limited}"
    );
    assert!(ask().contains("at last"));
}

#[test]
fn every_fault_is_what_it_says() {
    let ask = |fault: Fault| {
        let model = Scripted::start(Script::new().otherwise(Step::fault(fault)));
        let mut question = chat("x", 0);
        question["stream"] = json!(true);
        raw(
            &model,
            "POST",
            "/v1/chat/completions",
            "",
            &question.to_string(),
        )
    };
    for status in [401, 403, 404, 429, 500, 529] {
        assert!(ask(Fault::Status(status)).starts_with(&format!("HTTP/1.1 {status}")));
    }
    assert!(ask(Fault::Html).contains("<!doctype html>"));
    assert!(ask(Fault::Garbage).contains("text/event-stream"));
    assert_eq!(ask(Fault::Hangup), "");
    assert!(ask(Fault::response(418, "text/plain", "tea")).ends_with("tea"));
    let half = ask(Fault::HalfStream);
    assert!(
        half.contains("data: ") && !half.contains("[DONE]") && !half.ends_with("0\r\n\r\n"),
        "{half}"
    );
    let failed = ask(Fault::ErrorInStream);
    assert!(
        failed.contains("scripted failure") && failed.ends_with("0\r\n\r\n"),
        "{failed}"
    );
}

#[test]
fn a_model_that_never_answers_ends_with_its_owner() {
    for fault in [Fault::Never, Fault::Stalled, Fault::Endless] {
        let model = Scripted::start(Script::new().otherwise(Step::fault(fault)));
        let mut stream = TcpStream::connect(model.address()).unwrap();
        let body = chat("x", 0).to_string();
        write!(
            stream,
            "POST /v1/chat/completions HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        model.wait_for(SOON, |it| it.dialect.is_some());
        drop(model);
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        // Ended, or reset: either way it is over.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock);
        }
    }
}

#[test]
fn a_held_answer_waits_for_its_release() {
    let hold = Hold::new();
    let model = Scripted::start(Script::new().otherwise(Step::say("now").held_by(&hold)));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| post(&model, "/v1/chat/completions", &chat("x", 0)));
        model.wait_for_count(SOON, 1);
        assert!(!asking.is_finished());
        hold.release();
        assert!(asking.join().unwrap().1.contains("now"));
    });
}

#[test]
fn a_slow_answer_comes_piece_by_piece() {
    let step = Step::say("slowly").slowly(Duration::from_millis(5));
    let model = Scripted::start(Script::new().otherwise(step));
    let mut question = messages("x");
    question["stream"] = json!(true);
    let start = Instant::now();
    let (_, body) = post(&model, "/v1/messages", &question);
    assert!(body.contains("message_stop"));
    assert!(
        start.elapsed() >= Duration::from_millis(30),
        "{:?}",
        start.elapsed()
    );
}
