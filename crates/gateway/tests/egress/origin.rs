//! Servers on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A server that says what it was asked.
///
/// `/endless` has no end, `/silent` no answer, `/redirect?WHERE` leads there, and an upgrade to
/// `echo` gives every byte back. Anything else answers with the request.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    pub(crate) async fn plain() -> Self {
        Self::start(None).await
    }

    pub(crate) async fn secure(authority: &Authority, names: &[&str]) -> Self {
        Self::start(Some(authority.server(names))).await
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests so far: method and target, then the headers.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let known = heads.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (heads, tls) = (known.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, heads).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                serve(stream, heads).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            heads,
            task,
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let service = service_fn(move |request| {
        let heads = heads.clone();
        async move { Ok::<_, Infallible>(answer(request, heads).await) }
    });
    let io = TokioIo::new(stream);
    let served = http1::Builder::new().serve_connection(io, service);
    served.with_upgrades().await.ok();
}

async fn answer(
    mut request: Request<Incoming>,
    heads: Arc<Mutex<Vec<String>>>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let mut head = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    heads.lock().unwrap().push(head.clone());
    let whole = |text: String| Full::new(Bytes::from(text)).boxed();
    let path = request.uri().path().to_owned();
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
            tokio::io::copy(&mut reader, &mut writer).await.ok();
        });
        return Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(whole(String::new()))
            .unwrap();
    }
    match path.as_str() {
        "/silent" => std::future::pending().await,
        "/redirect" => Response::builder()
            .status(302)
            .header("location", request.uri().query().unwrap())
            .body(whole(String::new()))
            .unwrap(),
        "/endless" => {
            let piece = Bytes::from(vec![b'x'; 10_000]);
            Response::new(Forever(piece).boxed())
        }
        _ => {
            let body = request.into_body().collect().await;
            let length = body.map_or(0, |body| body.to_bytes().len());
            Response::builder()
                .header("connection", "x-of-the-connection")
                .header("x-of-the-connection", "1")
                .header("x-of-the-server", "1")
                .body(whole(format!("{head}{length} bytes\n")))
                .unwrap()
        }
    }
}

/// The same piece for ever.
struct Forever(Bytes);

impl hyper::body::Body for Forever {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(self.0.clone()))))
    }
}

/// An authority that the test's clients, or the gateway, trust.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pub(crate) pem: tempfile::NamedTempFile,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().clone();
        let file = tempfile::NamedTempFile::new().unwrap();
        let pem = pem::encode(&pem::Pem::new("CERTIFICATE", der.as_ref()));
        std::fs::write(file.path(), pem).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            der,
            pem: file,
        }
    }

    pub(crate) fn path(&self) -> &str {
        self.pem.path().to_str().unwrap()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        roots
    }

    /// The certificate and the key of a server, as files say them.
    pub(crate) fn leaf(&self, names: &[&str]) -> (CertificateDer<'static>, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        let subject = &mut params.distinguished_name;
        subject.push(rcgen::DnType::CommonName, "a server of a test");
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.der().clone(), key)
    }

    fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let (leaf, key) = self.leaf(names);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .unwrap();
        Arc::new(config)
    }
}

/// Sends every byte back, and says nothing before.
pub(crate) async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, said: &[u8]) -> Vec<u8> {
    stream.write_all(said).await.unwrap();
    let mut back = vec![0; said.len()];
    stream.read_exact(&mut back).await.unwrap();
    back
}
