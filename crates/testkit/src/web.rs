//! A small HTTP server on loopback that answers as a test wants: git repositories, the interface of
//! a forge, or nonsense.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 64 << 20;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The query; empty where there is none.
    pub query: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|it| it.0 == name);
        found.map(|it| it.1.as_str())
    }
}

/// What writes an answer: head and body. The connection is closed behind it.
type Answer = dyn Fn(&Seen, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// The server. It ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    open: Mutex<Vec<TcpStream>>,
}

impl Web {
    /// A server that answers like this.
    pub fn start(
        answer: impl Fn(&Seen, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let answer: Arc<Answer> = Arc::new(answer);
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if serving.stop.load(Ordering::Acquire) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let kept = stream.try_clone().expect("a second handle");
                serving.open.lock().expect("the connections").push(kept);
                let (serving, answer) = (Arc::clone(&serving), Arc::clone(&answer));
                connections.push(std::thread::spawn(move || {
                    // The other side may go away at any time.
                    drop(attend(stream, &serving, &*answer));
                }));
            }
            for connection in connections {
                connection.join().expect("a connection's thread");
            }
        });
        Web {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// A server of the git repositories below `root`, by git's own program. With `credentials`
    /// (a name and a password) it asks for them.
    pub fn of_git(root: &Path, credentials: Option<(&str, &str)>) -> Web {
        let root = root.to_owned();
        let wanted = credentials.map(|(name, password)| {
            let plain = format!("{name}:{password}");
            format!("Basic {}", base64(plain.as_bytes()))
        });
        Web::start(move |seen, stream| {
            if wanted.is_some() && seen.header("authorization") != wanted.as_deref() {
                let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n";
                return write!(
                    stream,
                    "{head}Content-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
            backend(&root, seen, stream)
        })
    }

    /// Where it is, as `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("what came").clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for stream in self.shared.open.lock().expect("the connections").drain(..) {
            // It may be closed already.
            drop(stream.shutdown(Shutdown::Both));
        }
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// An answer with a body.
pub fn respond(
    stream: &mut TcpStream,
    status: &str,
    kind: &str,
    body: &[u8],
) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)
}

fn attend(mut stream: TcpStream, shared: &Shared, answer: &Answer) -> std::io::Result<()> {
    let seen = read(&stream)?;
    shared.seen.lock().expect("what came").push(seen.clone());
    let answered = answer(&seen, &mut stream);
    drop(stream.shutdown(Shutdown::Both));
    answered
}

fn read(stream: &TcpStream) -> std::io::Result<Seen> {
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = Vec::new();
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut seen = Seen {
        method,
        path,
        query,
        headers,
        body: Vec::new(),
    };
    if seen.header("expect").is_some() {
        let mut stream = stream;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = seen.header("content-length").and_then(|it| it.parse().ok());
    if seen.header("transfer-encoding") == Some("chunked") {
        loop {
            line.clear();
            from.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            assert!(
                seen.body.len() + size <= MAX_BODY,
                "a body within its bound"
            );
            let mut piece = vec![0; size + 2];
            from.read_exact(&mut piece)?;
            if size == 0 {
                break;
            }
            seen.body.extend_from_slice(&piece[..size]);
        }
    } else if let Some(length) = length {
        let mut body = vec![0; usize::min(length, MAX_BODY)];
        from.read_exact(&mut body)?;
        seen.body = body;
    }
    Ok(seen)
}

/// Answers by `git http-backend`, a program of CGI.
fn backend(root: &Path, seen: &Seen, stream: &mut TcpStream) -> std::io::Result<()> {
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &seen.method)
        .env("PATH_INFO", &seen.path)
        .env("QUERY_STRING", &seen.query)
        .env("CONTENT_LENGTH", seen.body.len().to_string());
    for (header, name) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = seen.header(header) {
            command.env(name, value);
        }
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git http-backend");
    let mut input = child.stdin.take().expect("its input");
    let body = seen.body.clone();
    let feeding = std::thread::spawn(move || drop(input.write_all(&body)));
    let output = child.wait_with_output().expect("its output").stdout;
    feeding.join().expect("its input");
    let split = output.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = output.split_at(split.unwrap_or(output.len()));
    let head = String::from_utf8_lossy(head);
    let mut status = "200 OK".to_owned();
    let mut lines = String::new();
    for line in head.lines() {
        match line.strip_prefix("Status: ") {
            Some(other) => status = other.to_owned(),
            None => lines.push_str(&format!("{line}\r\n")),
        }
    }
    write!(stream, "HTTP/1.1 {status}\r\n{lines}Connection: close\r\n")?;
    stream.write_all(if split.is_some() { &body[2..] } else { b"\r\n" })
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]);
            text.push(if i <= three.len() { digit } else { '=' });
        }
    }
    text
}
