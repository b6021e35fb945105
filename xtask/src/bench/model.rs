//! A model on loopback that notes when each request came and when each answer left.
//!
//! It speaks Chat Completions over HTTP/1.1 with blocking sockets and a thread for each connection,
//! so that between the last byte of a request and its time there is one system call.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// The largest request, in bytes.
const MAX_REQUEST: u64 = 16 << 20;
/// The most lines of a request's head.
const MAX_HEADERS: usize = 200;

/// One answer of the model.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A call of the shell tool.
    Shell(String),
    /// A word, which ends the turn.
    Say(String),
    /// None, until the model ends.
    Hold,
}

/// When a question came, and when its answer left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// Its last byte was read.
    pub(crate) came: Instant,
    /// Just before the answer was written; the whole answer is one write.
    pub(crate) left: Option<Instant>,
}

/// A model that gives each of its answers once, in order. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Model {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    answers: Vec<Answer>,
    exchanges: Mutex<Vec<Exchange>>,
    changed: Condvar,
    ended: AtomicBool,
}

impl Shared {
    fn exchanges(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.exchanges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model {
    /// Starts a model.
    pub(crate) fn start(answers: Vec<Answer>) -> Result<Model, String> {
        let failed = |error| format!("cannot listen on loopback: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            answers,
            exchanges: Mutex::default(),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Model {
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    /// What `OPENAI_BASE_URL` is set to.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Waits until the first question has come; none after so long.
    pub(crate) fn first(&self, deadline: Duration) -> Option<Exchange> {
        let guard = self.shared.exchanges();
        let (guard, _) = self
            .shared
            .changed
            .wait_timeout_while(guard, deadline, |all| all.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        guard.first().copied()
    }

    /// Every question so far.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges().clone()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts; if this fails, so has its listener.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take()
            && accepting.join().is_err()
        {
            eprintln!("bench: the scripted model failed");
        }
    }
}

/// Accepts until the model ends, then ends every connection.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<(TcpStream, JoinHandle<()>)> = Vec::new();
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::Acquire) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let Ok(own) = stream.try_clone() else {
            continue;
        };
        let shared = Arc::clone(shared);
        let serving = std::thread::spawn(move || {
            // A client may leave at any time.
            drop(serve(&stream, &shared));
        });
        connections.push((own, serving));
    }
    for (stream, serving) in connections {
        // The client may have ended it.
        drop(stream.shutdown(Shutdown::Both));
        drop(serving.join());
    }
}

/// Answers the requests of one connection until the client leaves.
fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    while let Some((path, body)) = request(&mut reader)? {
        let came = Instant::now();
        if !path.ends_with("/chat/completions") {
            respond(stream, "application/json", r#"{"object":"list","data":[]}"#)?;
            continue;
        }
        let place = {
            let mut exchanges = shared.exchanges();
            exchanges.push(Exchange { came, left: None });
            exchanges.len() - 1
        };
        shared.changed.notify_all();
        let answer = match shared.answers.get(place) {
            Some(Answer::Hold) => return hold(shared),
            Some(answer) => answer.clone(),
            None => Answer::Say("Done.".to_owned()),
        };
        let question: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (kind, text) = written(
            place,
            &answer,
            question.get("stream") == Some(&Value::Bool(true)),
        );
        let left = Instant::now();
        if let Some(exchange) = shared.exchanges().get_mut(place) {
            exchange.left = Some(left);
        }
        respond(stream, kind, &text)?;
    }
    Ok(())
}

/// Waits until the model ends.
fn hold(shared: &Shared) -> std::io::Result<()> {
    let guard = shared.exchanges();
    drop(
        shared
            .changed
            .wait_while(guard, |_| !shared.ended.load(Ordering::Acquire))
            .unwrap_or_else(PoisonError::into_inner),
    );
    Ok(())
}

/// Reads one request: its path and body. None when the client has left.
fn request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let mut line = String::new();
    if reader.by_ref().take(64 << 10).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut chunked) = (0, false);
    for _ in 0..MAX_HEADERS {
        line.clear();
        reader.by_ref().take(64 << 10).read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| bad("length"))?,
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    if length > MAX_REQUEST {
        return Err(bad("a request that is too large"));
    }
    let mut body = Vec::new();
    if !chunked {
        reader.by_ref().take(length).read_to_end(&mut body)?;
        return Ok(Some((path, body)));
    }
    loop {
        line.clear();
        reader.by_ref().take(1024).read_line(&mut line)?;
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(|_| bad("a chunk's size"))?;
        if body.len() as u64 + size > MAX_REQUEST {
            return Err(bad("a request that is too large"));
        }
        reader.by_ref().take(size).read_to_end(&mut body)?;
        line.clear();
        reader.by_ref().take(1024).read_line(&mut line)?;
        if size == 0 {
            return Ok(Some((path, body)));
        }
    }
}

fn respond(mut stream: &TcpStream, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(whole.as_bytes())
}

/// An answer in the format of Chat Completions, and its content type.
fn written(place: usize, answer: &Answer, streamed: bool) -> (&'static str, String) {
    let mut message = json!({"role": "assistant"});
    let (content, call, finish) = match answer {
        Answer::Shell(command) => {
            let arguments = json!({ "command": command }).to_string();
            let call = json!({
                "id": format!("call_{place}"),
                "type": "function",
                "function": {"name": "shell", "arguments": arguments},
            });
            (Value::Null, Some(call), "tool_calls")
        }
        Answer::Say(text) => (Value::from(text.as_str()), None, "stop"),
        Answer::Hold => (Value::Null, None, "stop"),
    };
    set(&mut message, "content", content);
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050});
    let document = |object: &str, choices: Value, usage: Value| {
        json!({
            "id": format!("chatcmpl-{place}"),
            "object": object,
            "created": 1_700_000_000,
            "model": "scripted",
            "choices": choices,
            "usage": usage,
        })
    };
    if !streamed {
        if let Some(call) = call {
            set(&mut message, "tool_calls", json!([call]));
        }
        let choices = json!([{"index": 0, "message": message, "finish_reason": finish}]);
        return (
            "application/json",
            document("chat.completion", choices, usage).to_string(),
        );
    }
    if let Some(mut call) = call {
        set(&mut call, "index", json!(0));
        set(&mut message, "tool_calls", json!([call]));
    }
    let chunk = |choices, usage| {
        let document = document("chat.completion.chunk", choices, usage);
        format!("data: {document}\n\n")
    };
    let said = json!([{"index": 0, "delta": message, "finish_reason": null}]);
    let end = json!([{"index": 0, "delta": {}, "finish_reason": finish}]);
    let text = [
        chunk(said, Value::Null),
        chunk(end, Value::Null),
        chunk(json!([]), usage),
        "data: [DONE]\n\n".to_owned(),
    ];
    ("text/event-stream", text.concat())
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value);
    }
}
