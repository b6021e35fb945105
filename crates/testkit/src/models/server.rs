//! The HTTP side of a scripted model.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::respond::{Body, Hangup, document, error, fit_to_tools, housekeeping, reply};
use super::script::{Asked, Given, Script, Step};

/// The largest request, in bytes.
const MAX_REQUEST: usize = 64 << 20;
/// The most requests that are recorded.
const MAX_RECORDED: usize = 100_000;

/// Which protocol a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Chat Completions.
    Chat,
    /// Messages.
    Messages,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Which protocol it speaks; nothing for a list of models and the like.
    pub dialect: Option<Dialect>,
    /// Which job of the script answered, by its place; nothing when none fitted.
    pub job: Option<usize>,
    /// Which step of the job, by its place.
    pub step: usize,
    /// When it came.
    pub at: Instant,
}

impl Recorded {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|it| it.0 == name)
            .map(|it| it.1.as_str())
    }

    /// The key that it came with: `x-api-key`, or a bearer's token.
    pub fn key(&self) -> Option<&str> {
        self.header("x-api-key")
            .or_else(|| self.header("authorization")?.strip_prefix("Bearer "))
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// All text of the conversation.
    pub fn text(&self) -> String {
        asked(&self.json()).text
    }

    /// Whether it is a turn of an agent: a conversation that offers tools.
    pub fn offers_tools(&self) -> bool {
        !asked(&self.json()).tools.is_empty()
    }
}

/// A model on loopback. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    came: Condvar,
    key: Option<String>,
}

#[derive(Debug)]
struct State {
    script: Script,
    given: Given,
    requests: Vec<Recorded>,
    ids: u64,
}

impl Scripted {
    /// A model that answers by this script, whatever key is given.
    pub fn start(script: Script) -> Scripted {
        Scripted::listen(script, None)
    }

    /// A model that answers 401 unless this key is given.
    pub fn with_key(script: Script, key: impl Into<String>) -> Scripted {
        Scripted::listen(script, Some(key.into()))
    }

    fn listen(script: Script, key: Option<String>) -> Scripted {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        socket
            .set_nonblocking(true)
            .expect("a socket that does not block");
        let address = socket.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                script,
                given: Given::default(),
                requests: Vec::new(),
                ids: 0,
            }),
            came: Condvar::new(),
            key,
        });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime")
                    .block_on(serve(socket, shared, stopped));
            }
        });
        Scripted {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `OPENAI_BASE_URL` is set to.
    pub fn openai_base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What `ANTHROPIC_BASE_URL` is set to.
    pub fn anthropic_base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers by another script from now on.
    pub fn set_script(&self, script: Script) {
        let mut state = self.state();
        state.script = script;
        state.given = Given::default();
    }

    /// Every request so far, in the order they came.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state().requests.clone()
    }

    /// The conversations among them: not lists of models, nor counts of tokens.
    pub fn conversations(&self) -> Vec<Recorded> {
        self.requests()
            .into_iter()
            .filter(|it| it.dialect.is_some())
            .collect()
    }

    /// Which job of the script answers a conversation, by its place, and at which step it stands.
    pub fn place_of(&self, body: &[u8]) -> (Option<usize>, usize) {
        let question = serde_json::from_slice(body).unwrap_or_default();
        self.state().script.place(&asked(&question))
    }

    /// Waits until a request that fits has come, and gives it. Stops the test at the deadline.
    pub fn wait_for(&self, deadline: Duration, fits: impl Fn(&Recorded) -> bool) -> Recorded {
        let end = Instant::now() + deadline;
        let mut state = self.state();
        let mut seen = 0;
        loop {
            if let Some(found) = state.requests[seen..].iter().find(|it| fits(it)) {
                return found.clone();
            }
            seen = state.requests.len();
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no such request to the model within {deadline:?}; {seen} others came"
            );
            state = self
                .shared
                .came
                .wait_timeout(state, left)
                .expect("the model's state")
                .0;
        }
    }

    /// Waits until so many requests have come.
    pub fn wait_for_count(&self, deadline: Duration, count: usize) {
        let end = Instant::now() + deadline;
        let mut state = self.state();
        while state.requests.len() < count {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{} requests came, not {count}",
                state.requests.len()
            );
            state = self
                .shared
                .came
                .wait_timeout(state, left)
                .expect("the model's state")
                .0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("the model's state")
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the scripted model failed"
            );
        }
    }
}

/// Accepts until the owner is dropped; then every connection ends with the set that holds it.
async fn serve(
    socket: std::net::TcpListener,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = TcpListener::from_std(socket).expect("the listener");
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            _ = &mut stopped => return,
            // Connections that have ended are let go.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors for a moment: the client tries again.
                Err(_) => continue,
            },
        };
        stream.set_nodelay(true).expect("no delay");
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, shared.clone()));
            // A client that leaves early, or a fault that hangs up, is no failure here.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Hangup> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = Limited::new(body, MAX_REQUEST)
        .collect()
        .await
        .map_err(|_| Hangup)?
        .to_bytes();
    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_post = parts.method == Method::POST;
    let dialect = match path.trim_start_matches("/v1") {
        "/chat/completions" if is_post => Some(Dialect::Chat),
        "/messages" if is_post => Some(Dialect::Messages),
        _ => None,
    };
    let mut recorded = Recorded {
        method: parts.method.to_string(),
        path: parts
            .uri
            .path_and_query()
            .map_or(path.clone(), ToString::to_string),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        body: body.to_vec(),
        dialect,
        job: None,
        step: 0,
        at: Instant::now(),
    };
    let refused = shared.key.is_some() && shared.key.as_deref() != recorded.key();
    let mut step = Step::default();
    let id;
    {
        let mut state = shared.state.lock().map_err(|_| Hangup)?;
        state.ids += 1;
        id = state.ids;
        if dialect.is_some() && !refused {
            let State { script, given, .. } = &mut *state;
            (recorded.job, recorded.step, step) = script.answer(&asked(&question), given);
        }
        if state.requests.len() < MAX_RECORDED {
            state.requests.push(recorded);
        }
        shared.came.notify_all();
    }
    let Some(dialect) = dialect else {
        return Ok(housekeeping(&parts.method, &path, body.len()));
    };
    if refused {
        return Ok(document(401, &error(dialect, 401)));
    }
    if question["messages"].as_array().is_none() || !question["model"].is_string() {
        return Ok(document(400, &error(dialect, 400)));
    }
    if let Some(hold) = &step.hold {
        hold.released().await;
    }
    fit_to_tools(&mut step, &question);
    reply(dialect, id, &question, &step, body.len()).await
}

/// What a request asks.
pub(super) fn asked(question: &Value) -> Asked {
    let mut asked = Asked::default();
    for part in ["system", "messages"] {
        texts(&question[part], &mut asked.text);
    }
    let messages = question["messages"]
        .as_array()
        .map_or(&[] as &[Value], Vec::as_slice);
    asked.answers = messages
        .iter()
        .filter(|it| it["role"] == "assistant")
        .count();
    asked.tools = question["tools"]
        .as_array()
        .map_or(&[] as &[Value], Vec::as_slice)
        .iter()
        .filter_map(|it| {
            it["name"]
                .as_str()
                .or_else(|| it["function"]["name"].as_str())
        })
        .map(str::to_owned)
        .collect();
    asked
}

fn texts(value: &Value, text: &mut String) {
    match value {
        Value::String(it) => {
            text.push_str(it);
            text.push('\n');
        }
        Value::Array(all) => all.iter().for_each(|it| texts(it, text)),
        Value::Object(all) => all.values().for_each(|it| texts(it, text)),
        _ => {}
    }
}
