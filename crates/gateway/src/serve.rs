//! A grant, or egress, or both, as an HTTP server on a listener inside a sandbox.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use dialects::Endpoint;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    body::Body,
    egress::{self, Answer, Egress},
    error::Error,
    flight::Head,
    grant::{Grant, State, cut},
    refusal,
};

/// Connections to one listener at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 64;

/// How long the head of a request may take, and a connection may wait for its next request.
const HEAD_TIME: Duration = Duration::from_secs(60);

/// How long the body of a request may take in all.
const BODY_TIME: Duration = Duration::from_secs(120);

/// Largest head of a request.
const HEAD_BYTES: usize = 64 << 10;

/// Largest piece of a body that is read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// How long to wait when no connection can be accepted (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is being served. Dropping it ends the server and its connections; what was under
/// way is cancelled and settled.
#[derive(Debug)]
pub struct Served {
    stop: Option<DropGuard>,
    task: JoinHandle<()>,
    address: std::net::SocketAddr,
}

/// Whether a connection from there may be served. Asked where others than the spender can connect; it
/// may block for some milliseconds.
pub type Admits = Arc<dyn Fn(std::net::SocketAddr) -> bool + Send + Sync>;

impl Served {
    /// Serves what one sandbox is granted on a listener of it, until the result is dropped or closed.
    /// A connection that `admits` does not accept is closed unread. Call it inside a runtime.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn start(
        grant: Option<Grant>,
        egress: Option<Egress>,
        listener: std::net::TcpListener,
        admits: Option<Admits>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let stop = match (&grant, &egress) {
            (Some(grant), _) => grant.state.cancel.child_token(),
            (None, Some(egress)) => egress.state.cancel.child_token(),
            (None, None) => CancellationToken::new(),
        };
        let served = Behind {
            grant,
            egress,
            address,
            admits,
        };
        let task = tokio::spawn(accept(served, listener, stop.clone()));
        Ok(Self {
            stop: Some(stop.drop_guard()),
            task,
            address,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Ends the server and its connections, and returns when they are gone. What was under way is
    /// cancelled; [`Grant::close`] waits for its settlement.
    pub async fn close(mut self) {
        drop(self.stop.take());
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the server of a grant did not end well");
        }
    }
}

/// What is behind a listener.
#[derive(Clone)]
struct Behind {
    grant: Option<Grant>,
    egress: Option<Egress>,
    address: std::net::SocketAddr,
    admits: Option<Admits>,
}

/// Serves until `stop`, and records what left the sandbox.
async fn accept(behind: Behind, listener: TcpListener, stop: CancellationToken) {
    let Some(egress) = behind.egress.clone() else {
        return connections(behind, listener, stop).await;
    };
    // A connection that is cut by `stop` is recorded, too.
    tokio::join!(
        connections(behind, listener, stop.clone()),
        egress.state.keep(&stop)
    );
    egress.state.finish().await;
}

/// Accepts connections until `stop`, then drops them all. Wakes on a connection, on the end of
/// one, and on `stop`; owns the listener and the tasks of its connections.
async fn connections(behind: Behind, listener: TcpListener, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = next => accepted,
        };
        match accepted {
            None => break,
            Some((permit, Ok((stream, peer)))) => {
                let behind = behind.clone();
                connections.spawn(async move {
                    if is_admitted(behind.admits.clone(), peer).await {
                        converse(behind, stream).await;
                    }
                    drop(permit);
                });
            }
            Some((_, Err(error))) => {
                tracing::debug!(%error, "no connection could be accepted");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    connections.shutdown().await;
}

async fn is_admitted(admits: Option<Admits>, peer: std::net::SocketAddr) -> bool {
    let Some(admits) = admits else { return true };
    let asked = tokio::task::spawn_blocking(move || admits(peer)).await;
    let admitted = asked.unwrap_or(false);
    if !admitted {
        tracing::warn!(%peer, "a connection that is not the agent's was closed");
    }
    admitted
}

async fn converse(behind: Behind, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let service = service_fn(|request| {
        let behind = &behind;
        async move { Ok::<_, Infallible>(answer(behind, request).await) }
    });
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = ended {
        if let Some(egress) = &behind.egress {
            egress.state.unreadable(None, &error);
        }
        // Agents come and go; an answer that was cut ends its connection this way.
        tracing::debug!(%error, "a connection of an agent ended");
    }
}

async fn answer(behind: &Behind, request: Request<Incoming>) -> Answer {
    if egress::is_for_proxy(&request, behind.address) {
        return egress::answer(behind.egress.as_ref(), request).await;
    }
    let response = match &behind.grant {
        Some(grant) => call(&grant.state, request).await,
        None => refusal::whole(
            StatusCode::NOT_FOUND,
            json!({"error": {"message": "no model is granted in this sandbox"}}).to_string(),
        ),
    };
    response.map(egress::own)
}

async fn call(state: &Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let endpoint = Endpoint::from_path(request.method().as_str(), path);
    let dialect = endpoint.and_then(Endpoint::dialect);
    let answered = match endpoint {
        Some(Endpoint::Generate(_) | Endpoint::CountTokens(_)) => forward(state, request).await,
        Some(Endpoint::Models) => models(state, request.uri().path()),
        None => Err(Error::NotServed {
            path: cut(&format!("{} {path}", request.method())),
        }),
    };
    answered.unwrap_or_else(|error| {
        tracing::debug!(error = %error.chain(), "a call of an agent was refused");
        let form = dialect.unwrap_or(state.route.dialect);
        refusal::response(&error, form, &state.gateway.redactor)
    })
}

async fn forward(state: &Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Error> {
    debug_assert_eq!(request.method(), Method::POST);
    // Before the body is read, so that few bodies are in memory at once.
    let permit = state.permit().await;
    let permit = permit.inspect_err(|error| state.last.failed(error))?;
    let (parts, body) = request.into_parts();
    let body = read(body, state.gateway.bounds.request_bytes).await?;
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let head = State::start(state, path.to_owned(), &parts.headers, body, false, permit).await?;
    let Head {
        status,
        headers,
        body,
        ..
    } = head;
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = headers;
    Ok(response)
}

/// The whole body of a request, bounded in size and time.
async fn read(mut body: Incoming, limit: usize) -> Result<Bytes, Error> {
    let too_large = || Error::RequestTooLarge { limit };
    let told = body.size_hint().exact();
    if told.is_some_and(|told| told > limit as u64) {
        return Err(too_large());
    }
    let deadline = Instant::now() + BODY_TIME;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let frame = timeout_at(deadline, body.frame()).await;
        let frame = frame.map_err(|_| Error::TimedOut {
            provider: "agent".into(),
            what: "its request was not over",
            after: BODY_TIME,
            setting: None,
        })?;
        let data = match frame {
            None if all.is_empty() => return Ok(first),
            None => return Ok(all.freeze()),
            Some(Err(_)) => return Err(Error::Abandoned),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        if first.len().max(all.len()).saturating_add(data.len()) > limit {
            return Err(too_large());
        }
        if first.is_empty() {
            // Most requests come in one piece, which is then not copied.
            first = data;
        } else {
            if all.is_empty() {
                let told = told.and_then(|told| usize::try_from(told).ok());
                all.reserve(told.unwrap_or(0).min(limit));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
    }
}

/// The list of granted models, in a form that clients of both dialects read.
fn models(state: &State, path: &str) -> Result<Response<Body>, Error> {
    let model = |id: &str| {
        json!({
            "id": id, "type": "model", "object": "model", "display_name": id,
            "created": 0, "created_at": "1970-01-01T00:00:00Z", "owned_by": "skep",
        })
    };
    let path = path.trim_end_matches('/');
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let answer = match path.strip_prefix("/models/") {
        Some(wanted) => state.models().find(|id| *id == wanted).map(model),
        None => {
            let ids: Vec<&str> = state.models().collect();
            let data: Vec<Value> = ids.iter().map(|id| model(id)).collect();
            Some(json!({
                "object": "list", "data": data, "has_more": false,
                "first_id": ids.first(), "last_id": ids.last(),
            }))
        }
    };
    let answer = answer.ok_or_else(|| Error::NotServed {
        path: cut(&format!("GET {path}")),
    })?;
    Ok(refusal::whole(StatusCode::OK, answer.to_string()))
}
