//! Connections to providers.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Request, Response, Uri};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    rt::Executor,
};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioTimer,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_service::Service;

use crate::error::Error;

/// How long a connection is kept for the next call.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// How many connections to one provider are kept.
const IDLE_CONNECTIONS: usize = 64;

/// Largest head of an answer, and largest piece of a body that is read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// The pool of connections. Cheap to clone; they end with the last clone.
#[derive(Clone)]
pub(crate) struct Client {
    pool: legacy::Client<Connector, Pieces>,
    _connections: Arc<DropGuard>,
}

impl Client {
    /// A client; `secure` says whether any provider is reached by TLS, which needs the system's
    /// certificates.
    pub(crate) fn new(connect: Duration, secure: bool) -> Result<Self, Error> {
        let tls = tls(secure)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let stop = CancellationToken::new();
        let pool = legacy::Client::builder(Tasks(stop.clone()))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(BUFFER_BYTES)
            .build(Connector {
                https,
                limit: connect,
            });
        Ok(Self {
            pool,
            _connections: Arc::new(stop.drop_guard()),
        })
    }

    pub(crate) async fn send(
        &self,
        request: Request<Pieces>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        self.pool.request(request).await
    }
}

/// How servers are recognized: by the system's certificates where any is reached by TLS.
pub(crate) fn tls(secure: bool) -> Result<ClientConfig, Error> {
    let setup = |what| move |source: BoxError| Error::Setup { what, source };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| setup("TLS cannot be used")(e.into()))?;
    let tls = if secure {
        tls.with_native_roots().map_err(|e| {
            setup("install the system's certificates (the package ca-certificates)")(e.into())
        })?
    } else {
        tls.with_root_certificates(RootCertStore::empty())
    };
    Ok(tls.with_no_client_auth())
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a connection, TLS included, within a time.
#[derive(Clone)]
struct Connector {
    https: HttpsConnector<HttpConnector>,
    limit: Duration,
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.https.call(to);
        let limit = self.limit;
        Box::pin(async move {
            match timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(late) => Err(late.into()),
            }
        })
    }
}

/// Runs the tasks of connections, which end when the client does.
#[derive(Clone)]
struct Tasks(CancellationToken);

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let stop = self.0.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}

/// The body of a request in a few pieces, none of them copied.
#[derive(Debug, Default)]
pub(crate) struct Pieces(VecDeque<Bytes>);

impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces.into_iter().filter(|p| p.has_remaining()).collect())
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
