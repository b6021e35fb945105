//! A provider on loopback that answers what a test wrote, byte by byte.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the provider does when a request has come.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Writes these bytes again and again, with so much time between, until the other side goes.
    Drip(Vec<u8>, Duration),
    /// Waits until the other side closes the connection.
    AwaitClose,
    /// Closes the connection.
    Close,
}

/// A request as the provider saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    connections: watch::Receiver<usize>,
    closed: watch::Receiver<usize>,
    seen: mpsc::UnboundedReceiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Answers the nth request with the nth script, and all later ones with the last.
    pub(crate) async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connected, connections) = watch::channel(0);
        let (closing, closed) = watch::channel(0);
        let (saw, seen) = mpsc::unbounded_channel();
        let scripts = std::sync::Arc::new((std::sync::Mutex::new(0usize), scripts));
        let task = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connected.send_modify(|n| *n += 1);
                let (scripts, saw, closing) = (scripts.clone(), saw.clone(), closing.clone());
                all.spawn(async move {
                    let next = || {
                        let mut at = scripts.0.lock().unwrap();
                        let script = scripts.1.get(*at).or(scripts.1.last());
                        *at += 1;
                        script.cloned().unwrap_or_default()
                    };
                    converse(stream, next, &saw).await;
                    closing.send_modify(|n| *n += 1);
                });
            }
        });
        Self {
            address,
            connections,
            closed,
            seen,
            task,
        }
    }

    pub(crate) async fn answering(step: Vec<Step>) -> Self {
        Self::start(vec![step]).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Waits for the next request.
    pub(crate) async fn seen(&mut self) -> Seen {
        let seen = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        seen.expect("no request came").unwrap()
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn closed(&mut self, count: usize) {
        let closed = tokio::time::timeout(PATIENCE, self.closed.wait_for(|n| *n >= count)).await;
        closed.expect("the connection stays open").unwrap();
    }
}

async fn converse(
    mut stream: TcpStream,
    mut next: impl FnMut() -> Vec<Step>,
    saw: &mpsc::UnboundedSender<Seen>,
) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer).await {
        saw.send(seen).ok();
        for step in next() {
            match step {
                Step::Write(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    stream.flush().await.ok();
                    tokio::task::yield_now().await;
                }
                Step::Drip(bytes, pause) => loop {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    stream.flush().await.ok();
                    tokio::time::sleep(pause).await;
                },
                Step::AwaitClose => {
                    let mut rest = [0; 1024];
                    while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
                    return;
                }
                Step::Close => return,
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..at].to_vec()).unwrap();
            let mut seen = Seen {
                head,
                body: Vec::new(),
            };
            let length: usize = seen
                .header("content-length")
                .map_or(0, |n| n.parse().unwrap());
            if buffer.len() >= at + 4 + length {
                seen.body = buffer[at + 4..at + 4 + length].to_vec();
                buffer.drain(..at + 4 + length);
                return Some(seen);
            }
        }
        let mut chunk = vec![0; 64 << 10];
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

/// A whole answer with its length.
pub(crate) fn plain(status: u16, kind: &str, body: &str) -> Vec<Step> {
    with_headers(status, &format!("content-type: {kind}\r\n"), body)
}

pub(crate) fn with_headers(status: u16, headers: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    vec![Step::Write(
        format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}").into(),
    )]
}

pub(crate) fn json(status: u16, body: &str) -> Vec<Step> {
    plain(status, "application/json", body)
}

/// The head of a chunked event stream.
pub(crate) fn stream_head() -> Step {
    Step::Write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec(),
    )
}

/// These bytes as HTTP chunks of `size`, each written by itself.
pub(crate) fn chunks(body: &[u8], size: usize) -> Vec<Step> {
    body.chunks(size)
        .map(|piece| {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            Step::Write(chunk)
        })
        .collect()
}

/// A whole event stream in chunks of `size`.
pub(crate) fn stream(body: &[u8], size: usize) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(chunks(body, size));
    steps.push(Step::Write(b"0\r\n\r\n".to_vec()));
    steps
}
