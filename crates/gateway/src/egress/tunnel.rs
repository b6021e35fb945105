//! Tunnels: `CONNECT`, and what is in them.

use super::{
    Answer, State,
    connect::connect,
    counted::Counted,
    greeting::{self, Greeting},
    headers, inner,
    meter::{own, splice},
    passage::{NOT_ANY_MORE, Passage},
    proxy::Target,
    record::Key,
    refused,
};
use crate::body::Body;
use bytes::Bytes;
use domain::egress::{Host, Request as Question, Verdict, decide};
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use std::{
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// A fatal alert: unrecognized_name (RFC 6066, 3), in a TLS record.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// What is said where a rule with paths came after the sandbox.
const NOT_TRUSTED: &str = "this sandbox was made before there was such a rule: programs in it trust no certificate of Skep";

/// Answers `CONNECT`.
pub(super) async fn open(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    let authority = request.uri().authority().filter(|it| it.port().is_some());
    let Some((host, port)) = authority.and_then(|authority| headers::parts(authority, 443)) else {
        let how = "CONNECT takes HOST:PORT, and a host is a name or an address";
        return state.not_understood(request.method(), how);
    };
    let mut key = Key {
        host: host.to_string(),
        port,
        method: None,
        path: None,
        rule: None,
        allowed: true,
        reason: None,
        cached: false,
    };
    let standing = match state.admit(&key) {
        Ok(standing) => standing,
        Err(refused) => return *refused,
    };
    let question = Question {
        part: state.part,
        host: &host,
        port,
        asked: None,
    };
    let decision = decide(&standing.rules, &question);
    if decision.verdict == Verdict::Refused {
        state.refuse_by(&key, &decision);
        let what = format!("CONNECT {host}:{port}");
        return refused::decided(&decision, state.part, &host, &what);
    }
    key.rule = decision.rule.as_deref().map(str::to_owned);
    // Keeping what passes is no reason to refuse it.
    let verdict = match (decision.verdict, decision.registry) {
        (Verdict::Inspected, Some(_)) if !state.is_trusted() => Verdict::Allowed,
        (verdict, _) => verdict,
    };
    if verdict == Verdict::Inspected && !state.is_trusted() {
        let why = decision.reason();
        state.refuse(Key {
            reason: Some(format!("{why}, and {NOT_TRUSTED}")),
            ..key
        });
        let words = format!(
            "skep refuses CONNECT {host}:{port} for the {}: {why}, and {NOT_TRUSTED}; sandboxes that \
             are made from now on do: start the work again, or leave `methods` and `paths` out of the \
             rules for this host",
            state.part
        );
        return refused::text(StatusCode::FORBIDDEN, &words);
    }
    // Where each request is decided by itself, each has a connection of its own, too.
    let outside = if verdict == Verdict::Allowed {
        match connect(state, &standing, &question).await {
            Ok(stream) => Some(stream),
            Err(error) => return state.no_connection(&key, &error),
        }
    } else {
        None
    };
    // Looking up a name and connecting take their time.
    let now = state.standing();
    let now = now.map(|now| decide(&now.rules, &question).verdict);
    if now != Ok(decision.verdict) {
        state.refuse(Key {
            reason: Some(NOT_ANY_MORE.into()),
            ..key
        });
        let words = format!("skep refuses this for the {}: {NOT_ANY_MORE}", state.part);
        return refused::text(StatusCode::FORBIDDEN, &words);
    }
    let Some(room) = state.room() else {
        let why = format!("more than {} tunnels at once", super::TUNNELS);
        let words = format!("skep refuses this for the {}: {why}", state.part);
        key.reason = Some(why);
        state.refuse(key);
        return refused::text(StatusCode::SERVICE_UNAVAILABLE, &words);
    };
    let tunnel = Tunnel {
        state: Arc::clone(state),
        host,
        port,
        key,
        told: AtomicBool::new(false),
    };
    let upgrade = hyper::upgrade::on(request);
    let cancel = state.cancel.clone();
    state.tasks.spawn(async move {
        let work = async {
            match upgrade.await {
                Ok(inside) => tunnel.run(TokioIo::new(inside), outside).await,
                Err(error) => tracing::debug!(%error, "a tunnel did not begin"),
            }
        };
        cancel.run_until_cancelled(work).await;
        drop(room);
    });
    Response::new(own(Body::whole(Bytes::new(), None)))
}

struct Tunnel {
    state: Arc<State>,
    host: Host,
    port: u16,
    key: Key,
    /// Whether anything was recorded of it.
    told: AtomicBool,
}

impl Drop for Tunnel {
    /// However it ends: it was allowed, and the other side may have heard of it.
    fn drop(&mut self) {
        if !self.told.load(Ordering::Relaxed) {
            let key = Key {
                reason: Some("it ended without a word".into()),
                ..self.key.clone()
            };
            self.state.record.add(key, 1, 0, 0);
            self.state.wake.notify_one();
        }
    }
}

impl Tunnel {
    async fn run(self, mut inside: TokioIo<Upgraded>, outside: Option<TcpStream>) {
        let mut begun = Vec::new();
        let reading = read(&mut inside, &mut begun);
        let greeting = timeout(self.state.bounds.greeting, reading).await;
        let plain = Target {
            host: self.host.clone(),
            port: self.port,
            is_secure: false,
        };
        let secure = Target {
            is_secure: true,
            ..plain.clone()
        };
        match greeting {
            Ok(None) => {}
            Ok(Some(Greeting::Tls(name))) => {
                if let Err(why) = self.is_named(name.as_deref()) {
                    self.refuse(why);
                    // What it says of its end nobody needs.
                    inside.write_all(&UNRECOGNIZED_NAME).await.ok();
                    inside.shutdown().await.ok();
                    return;
                }
                match outside {
                    Some(outside) => self.pass(inside, begun, outside).await,
                    None => self.inspect(inside, begun, &secure).await,
                }
            }
            Ok(Some(Greeting::Plain)) => {
                let (reader, writer) = tokio::io::split(inside);
                let whole = tokio::io::join(Cursor::new(begun).chain(reader), writer);
                inner::serve(&self.state, whole, &plain, outside, &self.told).await;
            }
            Ok(Some(Greeting::Other | Greeting::Short)) => {
                self.refuse("a tunnel carries TLS or HTTP/1, and this is neither".into());
            }
            Err(_) => {
                let seconds = self.state.bounds.greeting.as_secs();
                self.refuse(format!("nothing that begins TLS or HTTP/1 for {seconds} s"));
            }
        }
    }

    /// Whether the server's name in the greeting is the host of the tunnel.
    fn is_named(&self, name: Option<&str>) -> Result<(), String> {
        let host = &self.host;
        match (host, name) {
            (Host::Address(_), None) => Ok(()),
            (_, None) => Err(format!(
                "TLS does not name its server, which must be {host}"
            )),
            (_, Some(name)) if Host::parse(name).as_ref() == Some(host) => Ok(()),
            (_, Some(name)) => {
                let name: String = name.escape_debug().take(100).collect();
                Err(format!("TLS names the server {name} instead of {host}"))
            }
        }
    }

    fn refuse(&self, why: String) {
        self.told.store(true, Ordering::Relaxed);
        self.state.refuse(Key {
            reason: Some(why),
            ..self.key.clone()
        });
    }

    /// Passes what nobody looks into.
    async fn pass(self, inside: TokioIo<Upgraded>, begun: Vec<u8>, outside: TcpStream) {
        self.told.store(true, Ordering::Relaxed);
        let opened = Passage::open(
            &self.state,
            self.key.clone(),
            &self.host,
            self.port,
            None,
            Verdict::Allowed,
            &outside,
        );
        let Ok(passage) = opened else { return };
        let mut outside = Counted::new(outside, Arc::clone(&passage));
        let written = timeout(passage.idle(), outside.write_all(&begun)).await;
        if matches!(written, Ok(Ok(()))) {
            splice(inside, outside, &passage).await;
        }
    }

    /// Answers in the host's place, so that each request can be decided.
    async fn inspect(self, inside: TokioIo<Upgraded>, begun: Vec<u8>, target: &Target) {
        let Some(authority) = self.state.authority() else {
            self.refuse("no authority could be made to look into TLS".into());
            return;
        };
        let config = match authority.server(&self.host) {
            Ok(config) => config,
            Err(error) => {
                self.refuse(format!("no certificate could be made: {error}"));
                return;
            }
        };
        let (reader, writer) = tokio::io::split(inside);
        let whole = tokio::io::join(Cursor::new(begun).chain(reader), writer);
        let accepting = TlsAcceptor::from(config).accept(whole);
        match timeout(self.state.bounds.greeting, accepting).await {
            Ok(Ok(stream)) => inner::serve(&self.state, stream, target, None, &self.told).await,
            Ok(Err(error)) => self.refuse(format!(
                "no TLS with the program inside, which must trust the certificate that \
                 SSL_CERT_FILE names: {error}"
            )),
            Err(_) => self.refuse("no TLS with the program inside: it took too long".into()),
        }
    }
}

/// Reads until the greeting is known; none at an early end.
async fn read(inside: &mut TokioIo<Upgraded>, begun: &mut Vec<u8>) -> Option<Greeting> {
    loop {
        let greeting = greeting::read(begun);
        if greeting != Greeting::Short || begun.len() >= greeting::MOST {
            return Some(greeting);
        }
        match inside.read_buf(begun).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
