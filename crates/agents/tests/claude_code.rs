//! The real Claude Code, from npm, against a scripted endpoint on the loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use skep_agents::event::AgentEvent;
use skep_agents::profile::Profile;
use skep_agents::{Context, Error, Gateway, Input, Recovery, Stopped, Task, find};
use support::{Host, Record, in_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// The version that these tests are about.
const VERSION: &str = "2.1.197";

/// Installs Claude Code once, into the build's own directory, and returns the directory of its
/// program.
async fn installed() -> PathBuf {
    static DIRECTORY: OnceCell<PathBuf> = OnceCell::const_new();
    DIRECTORY
        .get_or_init(async || {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("claude-{VERSION}"));
            let bin = dir.join("node_modules/.bin");
            if bin.join("claude").exists() {
                return bin;
            }
            // Other test processes may install at the same time: each its own, the first wins.
            let own = dir.with_extension(std::process::id().to_string());
            let output = tokio::process::Command::new("npm")
                .args(["install", "--no-fund", "--no-audit", "--prefix"])
                .arg(&own)
                .arg(format!("@anthropic-ai/claude-code@{VERSION}"))
                .output()
                .await
                .expect("npm is needed: install Node.js 18 or newer with npm");
            assert!(
                output.status.success() && own.join("node_modules/.bin/claude").exists(),
                "npm install @anthropic-ai/claude-code@{VERSION} failed; it needs npm's registry:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            if std::fs::rename(&own, &dir).is_err() {
                std::fs::remove_dir_all(&own).unwrap();
            }
            bin
        })
        .await
        .clone()
}

/// What the endpoint answers to a request with tools, given its body.
type Script = dyn Fn(usize, &Value) -> Result<Value, (u16, Value)> + Send + Sync;

/// A Messages endpoint. Ends with the test's runtime.
struct Endpoint {
    url: String,
    /// Requests that offered tools, and what paths were asked for at all.
    requests: Arc<Mutex<Vec<Value>>>,
    headers: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    async fn start(script: Box<Script>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let headers = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = script.into();
        let endpoint = Self {
            url,
            requests: Arc::clone(&requests),
            headers: Arc::clone(&headers),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, headers, script) = (
                    Arc::clone(&requests),
                    Arc::clone(&headers),
                    Arc::clone(&script),
                );
                tokio::spawn(serve(stream, requests, headers, script));
            }
        });
        endpoint
    }
}

/// One connection: one request at a time, and then it is closed.
async fn serve(
    mut stream: tokio::net::TcpStream,
    requests: Arc<Mutex<Vec<Value>>>,
    headers: Arc<Mutex<Vec<String>>>,
    script: Arc<Script>,
) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_string();
    let length: usize = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().unwrap())
        })
        .unwrap_or(0);
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    headers.lock().unwrap().push(head.clone());
    let (status, kind, body) = if head.starts_with("POST /v1/messages?") {
        let request: Value = serde_json::from_slice(&bytes[head_end..]).unwrap();
        let answer = if request["tools"]
            .as_array()
            .is_some_and(|tools| !tools.is_empty())
        {
            let mut requests = requests.lock().unwrap();
            requests.push(request.clone());
            script(requests.len() - 1, &request)
        } else {
            Ok(json!({"type": "text", "text": "a title"}))
        };
        match answer {
            Ok(block) => (200, "text/event-stream", stream_of(&block)),
            Err((status, body)) => (status, "application/json", body.to_string()),
        }
    } else {
        (
            404,
            "application/json",
            json!({"type": "error", "error": {"type": "not_found_error", "message": "no"}})
                .to_string(),
        )
    };
    let response = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    drop(stream.write_all(response.as_bytes()).await);
}

/// An answer with one block, as a stream.
fn stream_of(block: &Value) -> String {
    let is_call = block["type"] == "tool_use";
    let (empty, delta) = if is_call {
        (
            json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}),
            json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}),
        )
    } else {
        (
            json!({"type": "text", "text": ""}),
            json!({"type": "text_delta", "text": block["text"]}),
        )
    };
    [
        json!({"type": "message_start", "message": {"id": format!("msg_{}", block["id"]), "type": "message",
            "role": "assistant", "model": "scripted-1", "content": [], "stop_reason": null,
            "usage": {"input_tokens": 10, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": empty}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": if is_call { "tool_use" } else { "end_turn" },
            "stop_sequence": null}, "usage": {"output_tokens": 20}}),
        json!({"type": "message_stop"}),
    ]
    .iter()
    .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
    .collect()
}

fn said(text: &str) -> Result<Value, (u16, Value)> {
    Ok(json!({"type": "text", "id": "end", "text": text}))
}

fn bash(id: &str, command: &str) -> Result<Value, (u16, Value)> {
    Ok(
        json!({"type": "tool_use", "id": id, "name": "Bash", "input": {"command": command, "description": "x"}}),
    )
}

struct World {
    home: tempfile::TempDir,
    work: tempfile::TempDir,
    program: Vec<std::ffi::OsString>,
}

impl World {
    async fn new() -> Self {
        let bin = installed().await;
        let profile = Profile::named("claude-code").unwrap();
        let found = find::find(&profile, bin.as_os_str()).unwrap();
        Self {
            home: tempfile::tempdir().unwrap(),
            work: tempfile::tempdir().unwrap(),
            program: found.argv(),
        }
    }

    fn context<'a>(&self, endpoint: &Endpoint, record: &'a Record) -> Context<'a> {
        Context {
            exec: &Host,
            model: None,
            observer: record,
            recorded: None,
            cancel: CancellationToken::new(),
            env: support::environment(self.home.path()),
            gateway: Some(Gateway {
                url: endpoint.url.clone(),
                model: "scripted-1".into(),
            }),
        }
    }

    fn agent(&self) -> Box<dyn skep_agents::Agent> {
        Profile::named("claude-code")
            .unwrap()
            .agent(Some(self.program.clone()))
            .unwrap()
    }
}

#[tokio::test]
async fn it_works_headless_and_a_second_round_continues_its_session() {
    let world = World::new().await;
    let endpoint = Endpoint::start(Box::new(|n, _| match n {
        0 => bash("t0", "echo one > made.txt; env | grep -c no-key-needed"),
        1 => said("I made it."),
        2 => bash("t2", "echo two >> made.txt"),
        _ => said("I mended it."),
    }))
    .await;
    let record = Record::default();
    let context = world.context(&endpoint, &record);
    let agent = world.agent();
    let task = Task::new("Make made.txt.", world.work.path());
    let mut session = agent.start(task.clone());
    let outcome = in_time(session.turn(Input::Task, &context)).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    assert_eq!(outcome.summary, "I made it.");
    assert_eq!(outcome.turns, 2);
    assert_eq!(outcome.usage.output, Some(40));
    assert!(outcome.denied.is_empty());
    assert_eq!(
        record.kinds(),
        [
            "session",
            "turn_started",
            "tool_call",
            "tool_result",
            "turn_started",
            "usage",
            "finished"
        ]
    );
    // Another process continues.
    let mut later = agent.resume(task, &session.state()).unwrap();
    let outcome = in_time(later.turn(Input::Feedback("a line is missing".into()), &context)).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    assert_eq!(outcome.summary, "I mended it.");
    let made = std::fs::read_to_string(world.work.path().join("made.txt")).unwrap();
    assert_eq!(made, "one\ntwo\n");
    // And one whose predecessor was killed, by the name that was recorded.
    let name = record.session();
    let task = Task::new("Make made.txt.", world.work.path());
    assert_eq!(agent.recovery(), Recovery::Memory);
    let mut after = agent.recover(task, Some(&name));
    let outcome = in_time(after.turn(Input::Interrupted(None), &context)).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    let requests = endpoint.requests.lock().unwrap();
    assert_eq!(requests.len(), 5);
    let last = requests[4]["messages"].to_string();
    assert!(
        last.contains("I mended it.") && last.contains("was interrupted"),
        "{last}"
    );
    let second = requests[2]["messages"].to_string();
    assert!(
        second.contains("Make made.txt.") && second.contains("I made it."),
        "{second}"
    );
    assert!(second.contains("a line is missing"));
    assert!(requests.iter().all(|r| r["model"] == "scripted-1"));
    // Nothing that the provider would run in the agent's place, and nothing of the home.
    let tools = requests[0]["tools"].to_string();
    assert!(
        !tools.contains("web_search") && !tools.contains("WebFetch"),
        "{tools}"
    );
    assert!(world.home.path().join(".claude").is_dir());
    // What else it asks for is nothing that costs.
    let headers = endpoint.headers.lock().unwrap();
    for head in headers.iter() {
        let line = head.lines().next().unwrap();
        assert!(
            line.starts_with("HEAD / ") || line.starts_with("POST /v1/messages"),
            "an unknown request: {line}"
        );
        assert!(!head.contains("sk-ant"));
    }
}

#[tokio::test]
async fn an_error_of_the_provider_is_a_failure_though_its_exit_says_little() {
    let world = World::new().await;
    let endpoint = Endpoint::start(Box::new(|_, _| {
        let error = json!({"type": "invalid_request_error", "message": "the budget is used up"});
        Err((400, json!({"type": "error", "error": error})))
    }))
    .await;
    let record = Record::default();
    let mut session = world
        .agent()
        .start(Task::new("Make made.txt.", world.work.path()));
    let outcome = in_time(session.turn(Input::Task, &world.context(&endpoint, &record))).await;
    let Stopped::Failed(Error::Program { said, .. }) = &outcome.stopped else {
        panic!("{outcome:?}")
    };
    assert!(said.contains("the budget is used up"), "{said}");
    assert_eq!(record.kinds().last().unwrap(), "error");
}

#[tokio::test]
async fn a_session_that_is_gone_is_a_failure_and_not_a_fresh_start() {
    let world = World::new().await;
    let endpoint = Endpoint::start(Box::new(|_, _| said("hello"))).await;
    let record = Record::default();
    let agent = world.agent();
    let state = json!({"session": "7b1c0e8e-3a52-4a0e-9f0e-000000000000", "turns": 3}).to_string();
    let mut session = agent
        .resume(Task::new("Make it.", world.work.path()), state.as_bytes())
        .unwrap();
    let outcome = in_time(session.turn(
        Input::Feedback("mend it".into()),
        &world.context(&endpoint, &record),
    ))
    .await;
    assert!(
        matches!(outcome.stopped, Stopped::Failed(Error::Forgotten { .. })),
        "{outcome:?}"
    );
    assert_eq!(endpoint.requests.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_tool_that_it_may_not_use_is_named_though_it_says_success() {
    let world = World::new().await;
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("x.txt").to_str().unwrap().to_owned();
    let input = json!({"file_path": file, "content": "x"});
    let endpoint = Endpoint::start(Box::new(move |n, _| match n {
        0 => Ok(json!({"type": "tool_use", "id": "t0", "name": "Write", "input": input})),
        _ => said("done"),
    }))
    .await;
    let record = Record::default();
    let mut session = world
        .agent()
        .start(Task::new("Write it.", world.work.path()));
    let outcome = in_time(session.turn(Input::Task, &world.context(&endpoint, &record))).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    assert_eq!(outcome.denied, ["Write"]);
    let events = record.events.lock().unwrap();
    assert!(
        events
            .iter()
            .any(|e| matches!(e, AgentEvent::ToolResult { ok: false, .. }))
    );
}

#[tokio::test]
async fn cancelling_ends_the_program_and_what_it_runs() {
    let world = World::new().await;
    let endpoint = Endpoint::start(Box::new(|_, _| bash("t0", "sleep 600"))).await;
    let token = CancellationToken::new();
    let record = Record {
        cancel_at: Some(("tool_call", token.clone())),
        ..Record::default()
    };
    let mut context = world.context(&endpoint, &record);
    context.cancel = token;
    let mut session = world.agent().start(Task::new("Wait.", world.work.path()));
    let outcome = in_time(session.turn(Input::Task, &context)).await;
    assert!(matches!(outcome.stopped, Stopped::Cancelled), "{outcome:?}");
    let state: Value = serde_json::from_slice(&session.state()).unwrap();
    assert!(state["session"].is_string());
}

#[tokio::test]
async fn its_version_and_what_it_needs_are_found() {
    let bin = installed().await;
    let profile = Profile::named("claude-code").unwrap();
    let found = find::find(&profile, bin.as_os_str()).unwrap();
    let version = found
        .version(&profile, &std::env::var_os("PATH").unwrap())
        .await
        .unwrap();
    assert!(version.contains(VERSION), "{version}");
    let roots = found.roots();
    let packages = bin.parent().unwrap().canonicalize().unwrap();
    assert!(roots.contains(&packages), "{roots:?}");
}
