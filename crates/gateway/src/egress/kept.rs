//! Artefacts of registries: given from what is kept, or kept as they pass.

use super::{
    Answer, State,
    meter::{Passed, Watched, own},
    record::Key,
};
use crate::{
    body::{Body, End},
    packages::{Coming, Kept, Name, Packages},
};
use bytes::{Bytes, BytesMut};
use domain::egress::{Kind, Request as Question, Rules, kind};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE,
        USER_AGENT,
    },
};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::PollSender;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// Pieces that wait to be written.
const PIECES: usize = 32;

/// What registries' programs send with a request that asks for no more than anybody gets. Whatever else
/// is sent, a token under a name of its own, say, makes a request that is nobody else's concern.
const HARMLESS: [&str; 18] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "host",
    "npm-auth-type",
    "npm-command",
    "npm-in-ci",
    "npm-scope",
    "npm-session",
    "pacote-integrity",
    "pacote-pkg-id",
    "pacote-req-type",
    "pacote-version",
    "pragma",
    "priority",
    "sec-fetch-mode",
    "user-agent",
];

/// An artefact that a request asks for.
pub(super) struct Artefact {
    packages: Arc<Packages>,
    coming: Coming,
}

/// What is asked for, where it is an artefact that never changes and that everybody gets.
pub(super) fn artefact(
    state: &State,
    rules: &Rules,
    question: &Question<'_>,
    request: &Request<Incoming>,
    at: &str,
    upgrades: bool,
) -> Option<Artefact> {
    let packages = state.packages.as_ref()?;
    let target = request.uri().path_and_query()?.as_str();
    // One host may be that of several.
    let mut registries = rules.registries(question).into_iter();
    let registry = registries.find(|registry| registry.is_immutable(target))?;
    let plain = request.method() == Method::GET
        && request.body().is_end_stream()
        && !upgrades
        && request
            .headers()
            .keys()
            .all(|name| HARMLESS.contains(&name.as_str()));
    plain.then(|| Artefact {
        packages: Arc::clone(packages),
        coming: Coming {
            name: Name {
                url: format!("{at}{target}"),
            },
            kind: None,
            length: 0,
            private: false,
            digest: registry.digest(target),
        },
    })
}

impl Artefact {
    /// Its answer out of what is kept. What came from an address of the user's own is given only where
    /// the configuration still leads there.
    pub(super) async fn answer(
        &self,
        state: &Arc<State>,
        rules: &Rules,
        question: &Question<'_>,
        key: &Key,
    ) -> Option<Answer> {
        let (packages, name) = (Arc::clone(&self.packages), self.coming.name.clone());
        let found = tokio::task::spawn_blocking(move || packages.find(&name)).await;
        let kept = found.ok().flatten()?;
        if kept.private && !rules.is_named(question) {
            return None;
        }
        // A bound that is passed is for what comes from the network to say.
        let down = state.down.load(Ordering::Relaxed);
        if down.saturating_add(kept.length) > state.bounds.down {
            return None;
        }
        state.down.fetch_add(kept.length, Ordering::Relaxed);
        let key = Key {
            cached: true,
            ..key.clone()
        };
        state.record.add(key, 1, 0, kept.length);
        state.wake.notify_one();
        Some(give(state, kept))
    }

    /// Makes the request one that everybody could make: nothing of the sandbox goes along, so that what
    /// comes back is for everybody, and no token finds its way into what is kept.
    pub(super) fn plain(headers: &mut HeaderMap) {
        headers.clear();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static("skep"));
    }

    /// Keeps the body of an answer as it passes, if it is the artefact as a whole.
    pub(super) fn keep(
        mut self,
        headers: &HeaderMap,
        status: StatusCode,
        from: Option<IpAddr>,
        body: Watched,
    ) -> Passed {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let length = text(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let control = text(CACHE_CONTROL).unwrap_or_default().to_ascii_lowercase();
        let is_public = status == StatusCode::OK
            && !headers.contains_key(CONTENT_ENCODING)
            && !headers.contains_key(SET_COOKIE)
            && !control.contains("no-store")
            && !control.contains("private");
        let room = Arc::clone(&self.packages.room).try_acquire_owned().ok();
        let (Some(length), Some(room), true) = (length, room, is_public) else {
            return body.boxed_unsync();
        };
        self.coming.length = length;
        self.coming.kind = text(CONTENT_TYPE).map(str::to_owned);
        self.coming.private = from.is_none_or(|from| kind(from.to_canonical()) != Kind::Public);
        let (to, mut pieces) = mpsc::channel(PIECES);
        // It ends with the body, which is bounded in time.
        tokio::task::spawn_blocking(move || {
            let pieces = std::iter::from_fn(|| pieces.blocking_recv());
            if let Err(error) = self.packages.keep(&self.coming, pieces) {
                tracing::warn!(%error, "an artefact of a registry was not kept");
            }
            drop(room);
        });
        let to = Some(PollSender::new(to));
        Keeping { body, to }.boxed_unsync()
    }
}

/// An answer out of what is kept.
fn give(state: &Arc<State>, kept: Kept) -> Answer {
    let (chunks, receiver) = mpsc::channel(2);
    let (end, ended) = oneshot::channel();
    let (idle, length) = (state.bounds.idle, kept.length);
    let mut file = tokio::fs::File::from_std(kept.bytes).take(length);
    let cancel = state.cancel.clone();
    state
        .tasks
        .spawn(cancel.run_until_cancelled_owned(async move {
            loop {
                let mut chunk = BytesMut::with_capacity(CHUNK);
                match file.read_buf(&mut chunk).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    // Without an end the program learns that it is not whole.
                    Err(error) => {
                        tracing::warn!(%error, "what is kept of a registry cannot be read");
                        return;
                    }
                }
                if !matches!(timeout(idle, chunks.send(chunk.freeze())).await, Ok(Ok(()))) {
                    return;
                }
            }
            let whole = End {
                tail: Bytes::new(),
                error: None,
            };
            // A program that is gone needs no end.
            end.send(whole).ok();
        }));
    let mut response = Response::new(own(Body::streaming(receiver, ended, Some(length))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(kind) = kept.kind.and_then(|kind| HeaderValue::try_from(kind).ok()) {
        headers.insert(CONTENT_TYPE, kind);
    }
    response
}

/// A body that is kept as it passes. Where it cannot be kept it passes all the same.
struct Keeping {
    body: Watched,
    to: Option<PollSender<Bytes>>,
}

impl hyper::body::Body for Keeping {
    type Data = Bytes;
    type Error = super::meter::Ended;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(to) = &mut self.to
            && ready!(to.poll_reserve(cx)).is_err()
        {
            self.to = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match (&frame, &mut self.to) {
            (Some(Ok(frame)), Some(to)) => {
                if let Some(bytes) = frame.data_ref()
                    && to.send_item(bytes.clone()).is_err()
                {
                    self.to = None;
                }
            }
            _ => self.to = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
