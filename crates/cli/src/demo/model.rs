//! The scripted model: a Chat Completions endpoint on loopback, in this process.
//!
//! It is no model. It says so in its name, and answers only what the script of the demo says.

use super::script::{Answer, Conversation, Message, Script};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Its provider and name.
pub(crate) const PROVIDER: &str = "scripted";
/// Its name at the provider.
pub(crate) const NAME: &str = "demo";

/// The longest request, in bytes.
const MAX_REQUEST: usize = 8 << 20;
/// The most connections at a time.
const MAX_CONNECTIONS: usize = 32;
/// A model takes its time, and what takes none cannot be watched.
const THINKING: Duration = Duration::from_millis(150);

/// The endpoint. It ends when it is closed, or dropped.
#[derive(Debug)]
pub(crate) struct Model {
    address: SocketAddr,
    state: Arc<State>,
    cancel: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    script: Script,
    /// A text that must never be part of what a model is told.
    canary: String,
    heard: AtomicBool,
    calls: AtomicU64,
}

impl Model {
    /// Starts to answer. `canary` is a text that it listens for.
    ///
    /// # Errors
    /// When there is no port on loopback.
    pub(crate) async fn start(script: Script, canary: String) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            script,
            canary,
            heard: AtomicBool::new(false),
            calls: AtomicU64::new(0),
        });
        let cancel = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Arc::clone(&state), cancel.clone()));
        Ok(Self {
            address,
            state,
            cancel,
            serving: Some(serving),
        })
    }

    /// The base URL for clients.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Whether the canary was ever in a request.
    pub(crate) fn heard_canary(&self) -> bool {
        self.state.heard.load(Ordering::Acquire)
    }

    /// Stops, and waits until it has.
    pub(crate) async fn close(mut self) {
        self.cancel.cancel();
        if let Some(serving) = self.serving.take() {
            // It was not cancelled from outside, and panics abort.
            if let Err(error) = serving.await {
                tracing::debug!(%error, "the scripted model ended");
            }
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Accepts connections. Wakes for a connection, for one that ends, and for the end of the owner;
/// owns every connection, and ends them with itself.
async fn serve(listener: TcpListener, state: Arc<State>, cancel: CancellationToken) {
    let mut connections: JoinSet<()> = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(state.respond(request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the scripted model ended");
            }
        });
    }
    connections.shutdown().await;
}

impl State {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let wanted =
            request.method() == Method::POST && request.uri().path() == "/v1/chat/completions";
        if !wanted {
            return refused(StatusCode::NOT_FOUND, "there is only /v1/chat/completions");
        }
        let Ok(body) = Limited::new(request.into_body(), MAX_REQUEST)
            .collect()
            .await
        else {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long");
        };
        let body = body.to_bytes();
        if contains(&body, self.canary.as_bytes()) {
            self.heard.store(true, Ordering::Release);
        }
        let Ok(asked) = serde_json::from_slice::<Value>(&body) else {
            return refused(StatusCode::BAD_REQUEST, "the request is not JSON");
        };
        tokio::time::sleep(THINKING).await;
        match self.script.answer(&conversation(&asked)) {
            Ok(answer) => {
                let call = self.calls.fetch_add(1, Ordering::Relaxed);
                answered(&asked, &answer, call, body.len())
            }
            Err(words) => refused(StatusCode::BAD_REQUEST, &words),
        }
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    !text.is_empty() && body.windows(text.len()).any(|window| window == text)
}

/// What the request tells of the conversation.
fn conversation(asked: &Value) -> Conversation {
    let messages = asked.get("messages").and_then(Value::as_array);
    Conversation(
        messages
            .into_iter()
            .flatten()
            .filter_map(|message| match message.get("role")?.as_str()? {
                "user" => Some(Message::User(content(message.get("content")?))),
                "assistant" => Some(Message::Assistant),
                _ => None,
            })
            .collect(),
    )
}

/// The text of a message: a string, or parts.
fn content(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part.get("text")?.as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}

fn refused(status: StatusCode, words: &str) -> Response<Full<Bytes>> {
    let body = json!({ "error": { "message": words, "type": "invalid_request_error" } });
    response(status, "application/json", body.to_string())
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(kind),
    );
    response
}

fn answered(
    asked: &Value,
    answer: &Answer,
    call: u64,
    asked_bytes: usize,
) -> Response<Full<Bytes>> {
    let (text, tool_calls, finish) = match answer {
        Answer::Finish(text) => (text.as_str(), Value::Null, "stop"),
        Answer::Call { say, tool } => {
            let (name, arguments) = tool.call();
            let calls = json!([{
                "index": 0,
                "id": format!("call_{call}"),
                "type": "function",
                "function": { "name": name, "arguments": arguments.to_string() },
            }]);
            (say.as_str(), calls, "tool_calls")
        }
    };
    // About four bytes to a token, as is usual for English and code.
    let said = text.len() + tool_calls.to_string().len();
    let usage = json!({
        "prompt_tokens": asked_bytes / 4,
        "completion_tokens": said / 4,
        "total_tokens": asked_bytes / 4 + said / 4,
    });
    let id = format!("scripted-{call}");
    let mut message = json!({ "role": "assistant", "content": text });
    if let (Value::Array(_), Some(message)) = (&tool_calls, message.as_object_mut()) {
        message.insert("tool_calls".into(), tool_calls);
    }
    if asked.get("stream").and_then(Value::as_bool) != Some(true) {
        let body = json!({
            "id": id, "object": "chat.completion", "created": 0, "model": NAME,
            "choices": [{ "index": 0, "message": message, "finish_reason": finish }],
            "usage": usage,
        });
        return response(StatusCode::OK, "application/json", body.to_string());
    }
    let chunk = |choices: Value| {
        json!({
            "id": id, "object": "chat.completion.chunk", "created": 0, "model": NAME,
            "choices": choices,
        })
    };
    let mut last = chunk(json!([]));
    if let Some(last) = last.as_object_mut() {
        last.insert("usage".into(), usage);
    }
    let mut body = String::new();
    for event in [
        chunk(json!([{ "index": 0, "delta": message, "finish_reason": null }])),
        chunk(json!([{ "index": 0, "delta": {}, "finish_reason": finish }])),
        last,
    ] {
        body.push_str(&format!("data: {event}\n\n"));
    }
    body.push_str("data: [DONE]\n\n");
    response(StatusCode::OK, "text/event-stream", body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::plan::Plan;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn model() -> Model {
        let plan = Plan::from_toml("[[job]]\nname = 'a'\nprompt = 'Mend the thing'").unwrap();
        let script =
            "[[job]]\nname='a'\n[[job.round]]\nstep=[{say='look',shell='ls'}]\nfinish='done'";
        Model::start(Script::read(script, plan, "").unwrap(), "tell-tale".into())
            .await
            .unwrap()
    }

    async fn post(model: &Model, body: &Value) -> String {
        let mut stream = tokio::net::TcpStream::connect(model.address).await.unwrap();
        let body = body.to_string();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_answers_with_the_next_step_streamed_or_whole() {
        let model = model().await;
        let messages = json!([{ "role": "user", "content": "Mend the thing" }]);
        let whole = post(&model, &json!({ "messages": messages })).await;
        assert!(
            whole.starts_with("HTTP/1.1 200") && whole.contains("tool_calls"),
            "{whole}"
        );
        let streamed = post(&model, &json!({ "messages": messages, "stream": true })).await;
        assert!(streamed.ends_with("data: [DONE]\n\n"), "{streamed}");
        assert!(streamed.contains("completion_tokens"));
        assert!(!model.heard_canary());
        model.close().await;
    }

    #[tokio::test]
    async fn it_refuses_other_tasks_and_notices_the_canary() {
        let model = model().await;
        let other = json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "tell-tale" }] }] });
        let answer = post(&model, &other).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("script"),
            "{answer}"
        );
        assert!(model.heard_canary());
        model.close().await;
    }
}
