//! A scripted model, commands over a temporary directory, and a record of events.

// Each test file uses a part of this, and it may fail like the tests themselves.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dialects::Dialect;
use serde_json::{Value, json};
use skep_agents::event::{AgentEvent, Halt, Observer};
use skep_agents::exec::{self, Captured, Exec, Exit, Output, Request, Running};
use skep_agents::model::{self, Chunks, Model};
use skep_agents::{Before, Context, ToolOutput, ToolResults};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// What the model answers.
pub enum Answer {
    /// This body, whole.
    Body(Value),
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, and then the connection breaks.
    Broken(Vec<u8>),
    /// An error before any byte.
    Error(model::Error),
    /// Nothing, ever.
    Silence,
}

/// A call of a tool with these arguments, in the Messages dialect.
pub fn call(id: &str, name: &str, input: Value) -> Answer {
    Answer::Body(json!({
        "content": [
            {"type": "text", "text": format!("I use {name}.")},
            {"type": "tool_use", "id": id, "name": name, "input": input},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }))
}

pub fn shell(id: &str, command: &str) -> Answer {
    call(id, "shell", json!({"command": command}))
}

pub fn text(text: &str) -> Answer {
    Answer::Body(json!({
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }))
}

/// A model that gives these answers, one after the other.
pub struct Scripted {
    pub dialect: Dialect,
    answers: Mutex<VecDeque<Answer>>,
    pub requests: Mutex<Vec<Value>>,
}

impl Scripted {
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            dialect: Dialect::Messages,
            answers: Mutex::new(answers.into_iter().collect()),
            requests: Mutex::default(),
        }
    }

    pub fn request(&self, index: usize) -> Value {
        self.requests.lock().unwrap()[index].clone()
    }

    pub fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// The last thing that the model was told before it gave answer `index`.
    pub fn last_told(&self, index: usize) -> String {
        let request = self.request(index);
        let message = request["messages"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        let part = message["content"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        part["content"]
            .as_str()
            .or(part["text"].as_str())
            .unwrap()
            .to_owned()
    }
}

#[async_trait]
impl Model for Scripted {
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn model(&self) -> &str {
        "scripted-1"
    }

    async fn call(&self, body: Vec<u8>) -> Result<Box<dyn Chunks>, model::Error> {
        self.requests
            .lock()
            .unwrap()
            .push(serde_json::from_slice(&body).unwrap());
        let answer = self
            .answers
            .lock()
            .unwrap()
            .pop_front()
            .expect("the script has an answer");
        let (bytes, end) = match answer {
            Answer::Body(value) => (value.to_string().into_bytes(), Ok(None)),
            Answer::Bytes(bytes) => (bytes, Ok(None)),
            Answer::Broken(bytes) => (
                bytes,
                Err(model::Error::Network {
                    reason: "reset".into(),
                }),
            ),
            Answer::Error(error) => return Err(error),
            Answer::Silence => {
                std::future::pending::<()>().await;
                unreachable!()
            }
        };
        let pieces = bytes.chunks(7).map(Bytes::copy_from_slice).collect();
        Ok(Box::new(Pieces {
            pieces,
            end: Some(end),
        }))
    }
}

struct Pieces {
    pieces: VecDeque<Bytes>,
    end: Option<Result<Option<Bytes>, model::Error>>,
}

#[async_trait]
impl Chunks for Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, model::Error> {
        match self.pieces.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.end.take().unwrap_or(Ok(None)),
        }
    }
}

/// Commands of this machine, without any sandbox.
pub struct Host;

/// Kills a command and what it has started.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0 as i32).unwrap();
        // It may have ended already.
        rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).ok();
    }
}

struct Child {
    _group: Group,
    child: tokio::process::Child,
    stdout: Option<tokio::process::ChildStdout>,
    stderr: tokio::task::JoinHandle<Vec<u8>>,
    max_output: usize,
}

fn start(request: &Request) -> Result<tokio::process::Child, exec::Error> {
    let program = request.argv[0].to_string_lossy().into_owned();
    tokio::process::Command::new(&request.argv[0])
        .args(&request.argv[1..])
        .env_clear()
        .envs(request.env.iter().cloned())
        .current_dir(&request.cwd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| exec::Error::Start {
            program,
            source: source.into(),
        })
}

fn capture(bytes: &[u8], limit: usize) -> Captured {
    if bytes.len() <= limit {
        return Captured {
            head: bytes.to_vec(),
            ..Captured::default()
        };
    }
    let half = limit / 2;
    Captured {
        head: bytes[..half].to_vec(),
        tail: bytes[bytes.len() - half..].to_vec(),
        omitted: (bytes.len() - 2 * half) as u64,
    }
}

#[async_trait]
impl Exec for Host {
    async fn exec(&self, request: Request) -> Result<Output, exec::Error> {
        let started = std::time::Instant::now();
        let mut child = start(&request)?;
        let _group = Group(child.id().unwrap());
        let (mut stdin, mut stdout, mut stderr) = (
            child.stdin.take().unwrap(),
            child.stdout.take().unwrap(),
            child.stderr.take().unwrap(),
        );
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let work = async {
            let writing = async {
                // A command need not read its input.
                drop(stdin.write_all(&request.stdin).await);
                drop(stdin);
            };
            let (_, a, b, status) = tokio::join!(
                writing,
                stdout.read_to_end(&mut out),
                stderr.read_to_end(&mut err),
                child.wait()
            );
            a.and(b).unwrap();
            status.unwrap()
        };
        let status = tokio::time::timeout(request.timeout, work).await;
        let exit = match status {
            Ok(status) => Exit {
                code: status.code(),
                signal: std::os::unix::process::ExitStatusExt::signal(&status),
                ..Exit::default()
            },
            Err(_) => Exit {
                signal: Some(9),
                timed_out: true,
                ..Exit::default()
            },
        };
        Ok(Output {
            exit,
            stdout: capture(&out, request.max_output),
            stderr: capture(&err, request.max_output),
            duration: started.elapsed(),
        })
    }

    async fn spawn(&self, request: Request) -> Result<Box<dyn Running>, exec::Error> {
        let mut child = start(&request)?;
        let group = Group(child.id().unwrap());
        let mut stdin = child.stdin.take().unwrap();
        let input = request.stdin.clone();
        tokio::spawn(async move {
            drop(stdin.write_all(&input).await);
        });
        let stdout = child.stdout.take();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = tokio::spawn(async move {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).await.unwrap();
            bytes
        });
        Ok(Box::new(Child {
            _group: group,
            child,
            stdout,
            stderr,
            max_output: request.max_output,
        }))
    }
}

#[async_trait]
impl Running for Child {
    async fn read(&mut self) -> Result<Option<Vec<u8>>, exec::Error> {
        let mut chunk = vec![0; 4096];
        let count = self
            .stdout
            .as_mut()
            .unwrap()
            .read(&mut chunk)
            .await
            .unwrap();
        chunk.truncate(count);
        Ok((count > 0).then_some(chunk))
    }

    async fn wait(&mut self) -> Result<Output, exec::Error> {
        let status = self.child.wait().await.unwrap();
        let stderr = (&mut self.stderr).await.unwrap();
        Ok(Output {
            exit: Exit {
                code: status.code(),
                signal: std::os::unix::process::ExitStatusExt::signal(&status),
                ..Exit::default()
            },
            stderr: capture(&stderr, self.max_output),
            ..Output::default()
        })
    }
}

/// Keeps every event.
#[derive(Default)]
pub struct Record {
    pub events: Mutex<Vec<AgentEvent>>,
    /// After so many events nothing can be recorded.
    pub full_after: Option<usize>,
    /// Cancelled by the event whose kind has this name.
    pub cancel_at: Option<(&'static str, CancellationToken)>,
}

#[async_trait]
impl Observer for Record {
    async fn record(&self, event: AgentEvent) -> Result<(), Halt> {
        let mut events = self.events.lock().unwrap();
        if self.full_after.is_some_and(|n| events.len() >= n) {
            return Err(Halt {
                reason: "the disk is full".into(),
            });
        }
        if let Some((kind, token)) = &self.cancel_at
            && kind_of(&event) == *kind
        {
            token.cancel();
        }
        events.push(event);
        Ok(())
    }
}

pub fn kind_of(event: &AgentEvent) -> String {
    serde_json::to_value(event).unwrap()["kind"]
        .as_str()
        .unwrap()
        .to_owned()
}

impl Record {
    /// The kinds of the events, in order, the words left out.
    pub fn kinds(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .map(kind_of)
            .filter(|k| k != "text" && k != "reasoning")
            .collect()
    }

    /// The name that the agent gave its own conversation.
    pub fn session(&self) -> String {
        let events = self.events.lock().unwrap();
        let name = events.iter().rev().find_map(|event| match event {
            AgentEvent::Session { id } => Some(id.clone()),
            _ => None,
        });
        name.expect("it has named its conversation")
    }

    pub fn results(&self) -> Vec<(String, bool)> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|event| match event {
                AgentEvent::ToolResult { output, ok, .. } => Some((output.clone(), *ok)),
                _ => None,
            })
            .collect()
    }
}

/// What was recorded of a session that goes on: a call that has run, and one that was about to.
pub struct Interrupted;

impl ToolResults for Interrupted {
    fn before(&self, index: u64, id: &str) -> Before {
        match index {
            0 if id == "1" => Before::Done(ToolOutput {
                text: "it has run".into(),
                ok: true,
                exit: None,
                omitted: 0,
            }),
            1 => Before::Unknown,
            2 => Before::Run,
            _ => Before::Other {
                recorded: "another".into(),
            },
        }
    }

    fn told(&self, _: u64, _: &str, fresh: ToolOutput) -> ToolOutput {
        fresh
    }
}

/// Tool results of a recording.
pub struct Recorded(pub Vec<ToolOutput>);

impl ToolResults for Recorded {
    fn told(&self, index: u64, _id: &str, _fresh: ToolOutput) -> ToolOutput {
        self.0[index as usize].clone()
    }
}

pub fn environment(home: &std::path::Path) -> Vec<(OsString, OsString)> {
    vec![
        ("PATH".into(), std::env::var_os("PATH").unwrap()),
        ("HOME".into(), home.into()),
        ("LC_ALL".into(), "C.UTF-8".into()),
    ]
}

pub fn context<'a>(model: &'a Scripted, record: &'a Record) -> Context<'a> {
    Context {
        exec: &Host,
        model: Some(model),
        observer: record,
        recorded: None,
        cancel: CancellationToken::new(),
        env: environment(std::path::Path::new("/nonexistent")),
        gateway: None,
    }
}

/// Fails a test that hangs.
pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work)
        .await
        .expect("it ends in time")
}
