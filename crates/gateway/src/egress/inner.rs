//! Requests within a tunnel: each is decided by itself.

use super::{
    Answer, State, headers,
    proxy::{Target, exchange, key},
    record::Key,
    refused,
};
use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

/// Largest head of a request.
const HEAD_BYTES: usize = 64 << 10;

/// Serves the requests of a tunnel to one target. `ready` is a connection to it for the first. `told`
/// becomes true when there is anything to record of it.
pub(super) async fn serve(
    state: &Arc<State>,
    inside: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Target,
    ready: Option<TcpStream>,
    told: &AtomicBool,
) {
    let ready = Mutex::new(ready);
    let service = service_fn(|request| async {
        told.store(true, Ordering::Relaxed);
        let first = ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok::<_, Infallible>(answer(state, request, target, first).await)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.bounds.idle)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES * 2)
        .serve_connection(TokioIo::new(inside), service)
        .with_upgrades();
    let (mut serving, bounds) = (pin!(serving), &state.bounds);
    let mut served = timeout(bounds.total, serving.as_mut()).await;
    if served.is_err() {
        // No request more. The one that is under way has its own time, and its end its own words.
        serving.as_mut().graceful_shutdown();
        served = timeout(bounds.total.saturating_add(bounds.idle), serving).await;
    }
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, "a tunnel of requests ended");
            if state.unreadable(Some((&target.host, target.port)), &error) {
                told.store(true, Ordering::Relaxed);
            }
        }
        Err(_) => tracing::debug!("a tunnel of requests lasted too long"),
    }
}

async fn answer(
    state: &Arc<State>,
    request: Request<Incoming>,
    target: &Target,
    ready: Option<TcpStream>,
) -> Answer {
    let same = request.uri().authority().is_none_or(|authority| {
        headers::parts(authority, target.usual_port()) == Some((target.host.clone(), target.port))
    });
    if request.method() == Method::CONNECT || !same {
        let why = format!("this tunnel leads to {} only", target.host);
        let words = format!("skep refuses this: {why}");
        state.refuse(Key {
            reason: Some(why),
            ..key(state, &request, &target.host, target.port)
        });
        return refused::text(StatusCode::FORBIDDEN, &words);
    }
    exchange(state, request, target, ready).await
}
