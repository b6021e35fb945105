//! Requests of programs inside: in absolute form, within a tunnel, and for tunnels.

use super::{
    Egress, Standing, State,
    connect::{self, connect},
    counted::Counted,
    headers, kept,
    meter::{Passed, Watched, own, splice},
    passage::{Asked, Passage, Way},
    record::Key,
    refused, tunnel,
};
use crate::body::Body;
use bytes::Bytes;
use domain::egress::{Decision, Host, Request as Question, Verdict, decide};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE},
    uri::Scheme,
};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

/// An answer to a program inside: the gateway's own, or one that passes.
pub(crate) type Answer = Response<Passed>;

/// Largest head of an answer.
const HEAD_BYTES: usize = 64 << 10;

/// The host of what names none.
const UNKNOWN: &str = "(unknown)";

/// The longest path that is recorded, in bytes.
const PATH_BYTES: usize = 300;

/// The longest method that is recorded: a registered one is far shorter.
const METHOD_CHARS: usize = 30;

/// Whether a request is meant for somebody else than the gateway that listens here.
pub(crate) fn is_for_proxy<B>(request: &Request<B>, own: SocketAddr) -> bool {
    if request.method() == Method::CONNECT {
        return true;
    }
    let Some(authority) = request.uri().authority() else {
        return false;
    };
    let is_own = authority.port_u16() == Some(own.port())
        && (authority.host() == "localhost" || authority.host() == own.ip().to_string());
    !is_own
}

/// Answers a request that is meant for somebody else.
pub(crate) async fn answer(egress: Option<&Egress>, request: Request<Incoming>) -> Answer {
    let Some(egress) = egress else {
        return refused::text(
            StatusCode::FORBIDDEN,
            "skep refuses this: nothing may leave this sandbox; `[egress]` in skep.toml asks for it",
        );
    };
    let state = &egress.state;
    if request.method() == Method::CONNECT {
        return tunnel::open(state, request).await;
    }
    let target = request.uri().authority().and_then(|authority| {
        (request.uri().scheme() == Some(&Scheme::HTTP)).then_some(())?;
        headers::parts(authority, 80)
    });
    match target {
        Some((host, port)) => {
            let target = Target {
                host,
                port,
                is_secure: false,
            };
            exchange(state, request, &target, None).await
        }
        None => state.not_understood(
            request.method(),
            "a host is a name or an address, and `https` is asked for with CONNECT",
        ),
    }
}

/// Where requests go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
    /// Whether by TLS.
    pub(super) is_secure: bool,
}

impl Target {
    pub(super) const fn usual_port(&self) -> u16 {
        if self.is_secure { 443 } else { 80 }
    }
}

/// A connection out.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl State {
    /// What holds, or the answer where that cannot be known or too much was asked already.
    pub(super) fn admit(&self, key: &Key) -> Result<Standing, Box<Answer>> {
        let refuse = |why: String| {
            self.refuse(Key {
                reason: Some(why.clone()),
                ..key.clone()
            });
            Box::new(refused::text(
                StatusCode::FORBIDDEN,
                &format!("skep refuses this for the {}: {why}", self.part),
            ))
        };
        if !self.count() {
            let most = self.bounds.requests;
            return Err(refuse(format!("more than {most} requests and tunnels")));
        }
        self.standing()
            .map_err(|why| refuse(format!("the configuration cannot be read: {why}")))
    }

    /// Records that an address cannot be understood, and says so.
    pub(super) fn not_understood(&self, method: &Method, how: &str) -> Answer {
        let why = format!("skep does not understand its address: {how}");
        self.refuse(Key {
            host: UNKNOWN.into(),
            port: 0,
            method: Some(method.as_str().chars().take(METHOD_CHARS).collect()),
            path: None,
            rule: None,
            allowed: false,
            reason: Some(why.clone()),
            cached: false,
        });
        refused::text(StatusCode::BAD_REQUEST, &why)
    }

    /// Records that what came on a connection is no request, if that is what ended it. Says whether it
    /// is.
    pub(crate) fn unreadable(&self, to: Option<(&Host, u16)>, error: &hyper::Error) -> bool {
        let why = if error.is_parse_too_large() {
            "the head of a request is too long"
        } else if error.is_parse() {
            "what came is no request of HTTP/1"
        } else {
            return false;
        };
        let (host, port) = to.map_or((UNKNOWN.into(), 0), |(host, port)| (host.to_string(), port));
        self.refuse(Key {
            host,
            port,
            method: None,
            path: None,
            rule: None,
            allowed: false,
            reason: Some(why.into()),
            cached: false,
        });
        true
    }

    /// Records a refusal.
    pub(super) fn refuse(&self, key: Key) {
        self.record.add(
            Key {
                allowed: false,
                ..key
            },
            1,
            0,
            0,
        );
        self.wake.notify_one();
    }

    /// Records a refusal by the rules.
    pub(super) fn refuse_by(&self, key: &Key, decision: &Decision) {
        self.refuse(Key {
            rule: decision.rule.as_deref().map(str::to_owned),
            reason: Some(decision.reason()),
            ..key.clone()
        });
    }

    /// Records that there is no connection, and says so.
    pub(super) fn no_connection(&self, key: &Key, error: &connect::Error) -> Answer {
        let why = error.to_string();
        let is_refused = matches!(error, connect::Error::Address { .. });
        let status = if is_refused {
            StatusCode::FORBIDDEN
        } else {
            StatusCode::BAD_GATEWAY
        };
        let key = Key {
            reason: Some(why.clone()),
            ..key.clone()
        };
        if is_refused {
            self.refuse(key);
        } else {
            self.record.add(key, 1, 0, 0);
            self.wake.notify_one();
        }
        refused::text(status, &format!("skep: {why}"))
    }
}

/// What is recorded of a request.
pub(super) fn key<B>(state: &State, request: &Request<B>, host: &Host, port: u16) -> Key {
    let method = request.method().as_str().chars();
    Key {
        host: host.to_string(),
        port,
        method: Some(method.take(METHOD_CHARS).collect()),
        path: Some(shown(state, request.uri())),
        rule: None,
        allowed: true,
        reason: None,
        cached: false,
    }
}

/// The beginning of a path, without its query and without keys of providers.
fn shown(state: &State, uri: &Uri) -> String {
    let path = state.gateway.redactor.text(uri.path().to_owned());
    // Other letters and spaces could make a line of the record look like another one.
    let mut plain = String::new();
    for byte in path.bytes().take(PATH_BYTES) {
        match byte {
            0x21..=0x7e => plain.push(char::from(byte)),
            other => plain.push_str(&format!("%{other:02X}")),
        }
    }
    plain.truncate(PATH_BYTES);
    plain
}

/// About how long the head of a request is, in bytes.
fn head_bytes<B>(request: &Request<B>) -> u64 {
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let path = request.uri().path_and_query();
    let path = path.map_or(1, |path| path.as_str().len());
    (request.method().as_str().len() + path + 12 + headers) as u64
}

/// Makes one request and gives back its answer.
pub(super) async fn exchange(
    state: &Arc<State>,
    mut request: Request<Incoming>,
    target: &Target,
    ready: Option<TcpStream>,
) -> Answer {
    let mut key = key(state, &request, &target.host, target.port);
    let standing = match state.admit(&key) {
        Ok(standing) => standing,
        Err(refused) => return *refused,
    };
    let (host, port, usual) = (&target.host, target.port, target.usual_port());
    if !headers::host_is(request.headers(), host, port, usual) {
        let why = format!("its `Host` is not {host}");
        let words = format!("skep refuses this: {why}");
        key.reason = Some(why);
        state.refuse(key);
        return refused::text(StatusCode::FORBIDDEN, &words);
    }
    let on_upgrade = hyper::upgrade::on(&mut request);
    let upgrade = headers::strip(request.headers_mut());
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let asked = Asked {
        method: request.method().to_string(),
        target: path.to_owned(),
        upgrade: upgrade.is_some(),
    };
    let question = Question {
        part: state.part,
        host,
        port,
        asked: Some(asked.as_asks()),
    };
    let decision = decide(&standing.rules, &question);
    if decision.verdict != Verdict::Allowed {
        state.refuse_by(&key, &decision);
        let scheme = if target.is_secure { "https" } else { "http" };
        let what = format!("{} {scheme}://{host}:{port}{path}", request.method());
        return refused::decided(&decision, state.part, host, &what);
    }
    key.rule = decision.rule.as_deref().map(str::to_owned);
    let scheme = if target.is_secure { "https" } else { "http" };
    let at = format!("{scheme}://{host}:{port}");
    let artefact = kept::artefact(
        state,
        &standing.rules,
        &question,
        &request,
        &at,
        upgrade.is_some(),
    );
    if let Some(artefact) = &artefact {
        let given = artefact.answer(state, &standing.rules, &question, &key);
        if let Some(answer) = given.await {
            return answer;
        }
        kept::Artefact::plain(request.headers_mut());
    }
    let stream = match ready {
        Some(stream) => stream,
        None => match connect(state, &standing, &question).await {
            Ok(stream) => stream,
            Err(error) => return state.no_connection(&key, &error),
        },
    };
    let asked = asked.clone();
    let passage = Passage::open(
        state,
        key,
        host,
        port,
        Some(asked),
        Verdict::Allowed,
        &stream,
    );
    let passage = match passage {
        Ok(passage) => passage,
        Err(why) => {
            return refused::text(StatusCode::FORBIDDEN, &format!("skep refuses this: {why}"));
        }
    };
    // Before any of it leaves. A head can carry as much as a body.
    if head_bytes(&request) > passage.room(Way::Up) {
        let why = passage.too_much(Way::Up);
        passage.ended(why.clone());
        return refused::text(StatusCode::FORBIDDEN, &format!("skep refuses this: {why}"));
    }
    let from = stream.peer_addr().ok().map(|address| address.ip());
    let stream = Counted::new(stream, Arc::clone(&passage));
    let sent = send(state, request, target, upgrade.as_ref(), stream, &passage).await;
    let mut response = match sent {
        Ok(response) => response,
        Err(why) => {
            passage.ended(why.clone());
            return refused::text(StatusCode::BAD_GATEWAY, &format!("skep: {host}: {why}"));
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let outside = hyper::upgrade::on(&mut response);
        let Some(upgrade) = headers::strip(response.headers_mut()).filter(|_| upgrade.is_some())
        else {
            passage.ended("another protocol, which nobody asked for");
            let words = format!("skep: {host} speaks another protocol, which nobody asked for");
            return refused::text(StatusCode::BAD_GATEWAY, &words);
        };
        response.headers_mut().insert(UPGRADE, upgrade);
        let upgrade = HeaderValue::from_static("upgrade");
        response.headers_mut().insert(CONNECTION, upgrade);
        let Some(room) = state.room() else {
            let why = format!("more than {} tunnels at once", super::TUNNELS);
            let words = format!("skep refuses this: {why}");
            passage.ended(why);
            return refused::text(StatusCode::SERVICE_UNAVAILABLE, &words);
        };
        let (ends, patience) = (passage.end.clone(), state.bounds.greeting);
        state.tasks.spawn(async move {
            // The program may not have said all of its request, and never do.
            let both = async { tokio::try_join!(on_upgrade, outside) };
            let both = timeout(patience, both);
            match ends.run_until_cancelled(both).await {
                Some(Ok(Ok((inside, outside)))) => {
                    splice(TokioIo::new(inside), TokioIo::new(outside), &passage).await;
                }
                Some(Ok(Err(error))) => passage.ended(format!("no other protocol: {error}")),
                Some(Err(_)) => {
                    let seconds = patience.as_secs();
                    passage.ended(format!("it became no other protocol for {seconds} s"));
                }
                None => passage.ended(passage.stopped()),
            }
            // Whoever sends the request may be at it still.
            ends.cancel();
            drop(room);
        });
        let (parts, _) = response.into_parts();
        let none = own(Body::whole(Bytes::new(), None));
        return Response::from_parts(parts, none);
    }
    headers::strip(response.headers_mut());
    response.headers_mut().remove(refused::MARK);
    let (parts, body) = response.into_parts();
    let body = Watched::new(body, passage);
    let body = match artefact {
        Some(artefact) => artefact.keep(&parts.headers, parts.status, from, body),
        None => body.boxed_unsync(),
    };
    Response::from_parts(parts, body)
}

/// Sends a request on a connection of its own, and waits for the head of its answer.
async fn send(
    state: &Arc<State>,
    request: Request<Incoming>,
    target: &Target,
    upgrade: Option<&HeaderValue>,
    stream: Counted,
    passage: &Arc<Passage>,
) -> Result<Response<Incoming>, String> {
    let stream: Box<dyn Stream> = if target.is_secure {
        let ends = &passage.end;
        let secured = ends.run_until_cancelled(secure(state, target, stream));
        let secured = secured
            .await
            .unwrap_or_else(|| Err(passage.stopped().into()));
        Box::new(secured?)
    } else {
        Box::new(stream)
    };
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    // Held until both bodies are over, or the passage ends. Nobody else watches a body that neither
    // end takes: a server that answers and reads no further would hold it as long as the sandbox is.
    let watched = Arc::clone(passage);
    state.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = watched.end.cancelled() => {}
            ended = connection.with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "a connection out of a sandbox ended");
            },
            why = watched.over() => watched.ended(why),
        }
    });
    let request =
        outgoing(request, target, upgrade, passage).ok_or("its address cannot be written down")?;
    // Silence counts from when something passed last: an upload may take longer than an answer may.
    let none = || format!("no answer for {} s", passage.idle().as_secs());
    tokio::select! {
        biased;
        () = passage.end.cancelled() => Err(passage.stopped().into()),
        answered = sender.send_request(request) => answered.map_err(|error| {
            // Who watches the connection may have been first.
            if passage.is_busy() { error.to_string() } else { none() }
        }),
        _ = passage.over() => Err(none()),
    }
}

fn outgoing(
    request: Request<Incoming>,
    target: &Target,
    upgrade: Option<&HeaderValue>,
    passage: &Arc<Passage>,
) -> Option<Request<Passed>> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().ok()?;
    let host = headers::host_value(&target.host, target.port, target.usual_port())?;
    parts.headers.insert(HOST, host);
    // The length is written anew from the body, so that there is one and it is right.
    if !body.is_end_stream() {
        parts.headers.remove(CONTENT_LENGTH);
    }
    if let Some(upgrade) = upgrade {
        parts.headers.insert(UPGRADE, upgrade.clone());
        let upgrade = HeaderValue::from_static("upgrade");
        parts.headers.insert(CONNECTION, upgrade);
    }
    parts.version = http::Version::HTTP_11;
    let body = Watched::new(body, Arc::clone(passage));
    let mut out = Request::new(body.boxed_unsync());
    *out.method_mut() = parts.method;
    *out.uri_mut() = parts.uri;
    *out.headers_mut() = parts.headers;
    Some(out)
}

/// TLS with a server that shows who it is.
async fn secure(
    state: &State,
    target: &Target,
    stream: Counted,
) -> Result<tokio_rustls::client::TlsStream<Counted>, String> {
    let config = state
        .upstream()
        .ok_or("the certificates of this system cannot be read")?;
    let name = match &target.host {
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|error| error.to_string())?
        }
        Host::Address(address) => ServerName::from(*address),
    };
    let within = Instant::now() + state.bounds.connect;
    let connecting = TlsConnector::from(config).connect(name, stream);
    match timeout_at(within, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("no TLS with it: {error}")),
        Err(_) => Err("no TLS with it: it took too long".into()),
    }
}
