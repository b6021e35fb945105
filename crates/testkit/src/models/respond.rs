//! What goes back: an answer whole or in pieces, or a failure that the script asks for.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Response};
use serde_json::{Value, json};

use super::script::{Fault, Step, Usage};
use super::server::{Dialect, asked};
use super::{chat, messages};

/// How many pieces of an answer wait to be sent.
const PIECES: usize = 16;
/// How long a connection is left idle before it breaks.
const FLUSH: Duration = Duration::from_millis(20);
/// The models that are listed.
const MODELS: [&str; 2] = ["scripted", "scripted-small"];

pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// An error makes hyper close the connection without an answer.
#[derive(Debug)]
pub(super) struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the scripted model hangs up")
    }
}

impl std::error::Error for Hangup {}

/// A call of a tool in a request that offers none is an agent's housekeeping: it gets a word.
pub(super) fn fit_to_tools(step: &mut Step, question: &Value) {
    let tools = asked(question).tools;
    if tools.is_empty() && !step.calls.is_empty() {
        step.calls.clear();
        step.text = "ok".to_owned();
    }
    for call in &mut step.calls {
        if call.name == "shell"
            && !tools.contains(&call.name)
            && tools.iter().any(|it| it == "Bash")
        {
            call.name = "Bash".to_owned();
            call.arguments["description"] = json!("Run a command");
        }
    }
}

pub(super) async fn reply(
    dialect: Dialect,
    id: u64,
    question: &Value,
    step: &Step,
    asked: usize,
) -> Result<Response<Body>, Hangup> {
    let streamed = question["stream"].as_bool().unwrap_or(false);
    let model = question["model"].as_str().unwrap_or("scripted");
    let output: usize = step.text.len()
        + step
            .calls
            .iter()
            .map(|it| it.arguments.to_string().len())
            .sum::<usize>();
    let usage = (!step.no_usage).then(|| {
        step.usage.unwrap_or(Usage {
            input: (asked / 4) as u64 + 1,
            cached: 0,
            output: (output / 4) as u64 + 1,
        })
    });
    let frames = || match dialect {
        Dialect::Chat => {
            let include = question["stream_options"]["include_usage"]
                .as_bool()
                .unwrap_or(false);
            chat::stream(id, model, step, usage, include)
        }
        Dialect::Messages => messages::stream(id, model, step, usage),
    };
    let document = |status| match dialect {
        Dialect::Chat => self::document(status, &chat::plain(id, model, step, usage)),
        Dialect::Messages => self::document(status, &messages::plain(id, model, step, usage)),
    };
    match &step.fault {
        None if !streamed && step.pace.is_none() => Ok(document(200)),
        None if !streamed => {
            let text = match dialect {
                Dialect::Chat => chat::plain(id, model, step, usage),
                Dialect::Messages => messages::plain(id, model, step, usage),
            };
            let pieces = text
                .to_string()
                .as_bytes()
                .chunks(16)
                .map(Bytes::copy_from_slice)
                .collect();
            Ok(pieced("application/json", pieces, step.pace, End::Whole))
        }
        None => {
            let pieces = frames().into_iter().map(Bytes::from).collect();
            Ok(pieced("text/event-stream", pieces, step.pace, End::Whole))
        }
        Some(fault) => misbehave(fault, dialect, streamed, &full_frames(dialect, id, model)).await,
    }
}

/// A complete answer, of which a fault sends a part.
fn full_frames(dialect: Dialect, id: u64, model: &str) -> Vec<String> {
    let step = Step::say("An answer that does not come to its end, because the script says so.");
    let usage = Some(Usage {
        input: 10,
        cached: 0,
        output: 10,
    });
    match dialect {
        Dialect::Chat => chat::stream(id, model, &step, usage, true),
        Dialect::Messages => messages::stream(id, model, &step, usage),
    }
}

async fn misbehave(
    fault: &Fault,
    dialect: Dialect,
    streamed: bool,
    frames: &[String],
) -> Result<Response<Body>, Hangup> {
    let kind = if streamed {
        "text/event-stream"
    } else {
        "application/json"
    };
    let half = || -> Vec<Bytes> {
        if streamed {
            frames
                .iter()
                .take(frames.len() / 2)
                .cloned()
                .map(Bytes::from)
                .collect()
        } else {
            vec![Bytes::from_static(b"{\"id\":\"half\",\"choices\":[{\"mess")]
        }
    };
    match fault {
        Fault::Status(status) => Ok(document(*status, &error(dialect, *status))),
        Fault::RateLimited(seconds) => {
            let mut response = document(429, &error(dialect, 429));
            response
                .headers_mut()
                .insert("retry-after", (*seconds).into());
            Ok(response)
        }
        Fault::Response {
            status,
            headers,
            content_type,
            body,
        } => {
            let mut response = Response::builder()
                .status(*status)
                .header("content-type", content_type);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response
                .body(full(body.clone()))
                .expect("a response that the script can ask for"))
        }
        Fault::Html => {
            let page = "<!doctype html><html><body><h1>Sign in to the network</h1></body></html>";
            Ok(respond(
                200,
                "text/html; charset=utf-8",
                page.as_bytes().to_vec(),
            ))
        }
        Fault::Garbage => Ok(respond(
            200,
            kind,
            b"\xff\xfe\x00data: {{{\n\nevent: \n\ndata: [1,\n\n".to_vec(),
        )),
        Fault::HalfStream => Ok(pieced(kind, half(), None, End::Broken)),
        Fault::Stalled => Ok(pieced(kind, half(), None, End::Never)),
        Fault::Drip(pace) => {
            let bytes = half().concat();
            let drops = bytes.chunks(1).map(Bytes::copy_from_slice).collect();
            Ok(pieced(kind, drops, Some(*pace), End::Never))
        }
        Fault::ErrorInStream => {
            let mut pieces = half();
            pieces.push(Bytes::from(match dialect {
                Dialect::Chat => chat::error_frame(),
                Dialect::Messages => messages::error_frame(),
            }));
            Ok(pieced(kind, pieces, None, End::Whole))
        }
        Fault::Endless => {
            let mut pieces = half();
            pieces.push(Bytes::from_static(b"data: \""));
            Ok(pieced(kind, pieces, None, End::Filler))
        }
        Fault::Never => std::future::pending().await,
        Fault::Hangup => Err(Hangup),
    }
}

/// How a body in pieces ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
    Never,
    Filler,
}

/// A body that is sent in pieces. The task that sends it ends with the body: its channel closes
/// when the client leaves.
fn pieced(kind: &str, pieces: Vec<Bytes>, pace: Option<Duration>, end: End) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(PIECES);
    tokio::spawn(async move {
        for piece in pieces {
            if let Some(pace) = pace {
                tokio::time::sleep(pace).await;
            }
            if sender.send_data(piece).await.is_err() {
                return;
            }
        }
        match end {
            End::Whole => {}
            End::Broken => {
                // What came before goes out when nothing else is there for a moment.
                tokio::time::sleep(FLUSH).await;
                sender.abort(std::io::Error::other("the script ends here"));
            }
            End::Never => std::future::pending().await,
            End::Filler => {
                let filler = Bytes::from(vec![b'x'; 64 * 1024]);
                while sender.send_data(filler.clone()).await.is_ok() {}
            }
        }
    });
    Response::builder()
        .status(200)
        .header("content-type", kind)
        .header("cache-control", "no-cache")
        .body(body.boxed())
        .expect("a response")
}

/// Everything that is no conversation.
pub(super) fn housekeeping(method: &Method, path: &str, asked: usize) -> Response<Body> {
    match (method.as_str(), path.trim_start_matches("/v1")) {
        ("POST", "/messages/count_tokens") => {
            document(200, &json!({"input_tokens": asked / 4 + 1}))
        }
        ("GET", "/models") => {
            let models: Vec<Value> = MODELS
                .iter()
                .map(|it| json!({"id": it, "object": "model", "type": "model", "display_name": it, "created": 1_700_000_000, "owned_by": "test"}))
                .collect();
            document(
                200,
                &json!({"object": "list", "data": models, "has_more": false}),
            )
        }
        ("HEAD" | "GET", "/" | "") => respond(200, "text/plain", Vec::new()),
        _ => document(404, &chat::error(404)),
    }
}

pub(super) fn error(dialect: Dialect, status: u16) -> Value {
    match dialect {
        Dialect::Chat => chat::error(status),
        Dialect::Messages => messages::error(status),
    }
}

pub(super) fn document(status: u16, value: &Value) -> Response<Body> {
    respond(status, "application/json", value.to_string().into_bytes())
}

fn respond(status: u16, kind: &str, body: Vec<u8>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .header("request-id", "req_scripted")
        .body(full(body))
        .expect("a response")
}

fn full(body: Vec<u8>) -> Body {
    Full::new(Bytes::from(body))
        .map_err(|it: Infallible| match it {})
        .boxed()
}
