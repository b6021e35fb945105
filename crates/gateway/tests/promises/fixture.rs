//! An account, providers, answers and an agent's HTTP client for the tests.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dialects::{Dialect, Prices};
use domain::{Amount, budget};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use skep_gateway::{
    Bounds, Funds, FundsError, Gateway, Grant, GrantSpec, Options, Providers, Recorded, Secret,
    Settings, Settlement, Times,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::upstream::{PATIENCE, Upstream};

pub(crate) const KEY: &str = "sk-live-0123456789abcdef";

/// An account in memory, with the ledger's rules.
pub(crate) struct Purse {
    account: Mutex<budget::Account>,
    settled: watch::Sender<Vec<Settlement>>,
    pub(crate) broken: bool,
    /// Is cancelled by a reservation.
    pub(crate) cancels: Option<CancellationToken>,
}

impl Purse {
    pub(crate) fn with(tokens: u64) -> Arc<Self> {
        let total = Amount {
            tokens,
            ..Amount::unbounded()
        };
        Arc::new(Self {
            account: Mutex::new(budget::Account::new(total)),
            settled: watch::channel(Vec::new()).0,
            broken: false,
            cancels: None,
        })
    }

    pub(crate) fn account(&self) -> budget::Account {
        *self.account.lock().unwrap()
    }

    pub(crate) fn settled(&self) -> Vec<Settlement> {
        self.settled.borrow().clone()
    }

    /// Waits until so many calls are settled, and says what they were.
    pub(crate) async fn wait(&self, count: usize) -> Vec<Settlement> {
        let mut receiver = self.settled.subscribe();
        let waited = receiver.wait_for(|settled| settled.len() >= count);
        let settled = tokio::time::timeout(PATIENCE, waited).await;
        settled.expect("nothing was settled").unwrap().clone()
    }
}

#[async_trait]
impl Funds for Purse {
    async fn reserve(&self, _: u64, amount: Amount) -> Result<(), FundsError> {
        let mut account = self.account.lock().unwrap();
        *account = account.reserve(amount).map_err(FundsError::Refused)?;
        if let Some(cancel) = &self.cancels {
            cancel.cancel();
        }
        Ok(())
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), FundsError> {
        if self.broken {
            return Err(FundsError::Unavailable {
                source: "the disk is full".into(),
            });
        }
        let mut account = self.account.lock().unwrap();
        *account = account
            .settle(settlement.reserved, settlement.spent)
            .map_err(FundsError::Refused)?;
        assert!(account.conserves());
        self.settled.send_modify(|all| all.push(settlement));
        Ok(())
    }
}

/// A provider of both dialects at this address.
pub(crate) fn gateway_at(url: &str, bounds: Bounds) -> Gateway {
    let settings = Settings {
        name: "acme".into(),
        dialects: Dialect::ALL.to_vec(),
        base_url: url.into(),
        key: Some(Secret::new(KEY)),
        default_model: Some("claude-haiku-4-5".into()),
        models: Vec::new(),
        times: Times::default(),
    };
    let providers = Providers::new([settings], Prices::builtin()).unwrap();
    Gateway::new(Options { providers, bounds }).unwrap()
}

pub(crate) fn gateway(upstream: &Upstream) -> Gateway {
    gateway_at(&upstream.url(), Bounds::default())
}

pub(crate) fn spec(gateway: &Gateway, purse: &Arc<Purse>) -> GrantSpec {
    let route = gateway.providers().route(None, &Dialect::ALL).unwrap();
    GrantSpec::new(purse.clone(), route, CancellationToken::new())
}

pub(crate) fn grant(gateway: &Gateway, purse: &Arc<Purse>) -> Grant {
    gateway.grant(spec(gateway, purse))
}

pub(crate) fn chat_body() -> Bytes {
    Bytes::from_static(
        br#"{ "stream":true,"model" : "skep", "max_tokens":100, "stream_options":{"include_usage":true},
  "messages":[{"role":"user","content":"h\u00e9llo model"}], "temperature": 1.0 }"#,
    )
}

pub(crate) fn messages_body() -> Bytes {
    Bytes::from_static(
        br#"{"model":"skep","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hello"}]}"#,
    )
}

/// A Chat Completions stream that used 11 and 7 tokens.
pub(crate) fn chat_stream() -> Vec<u8> {
    let mut out = String::new();
    for word in ["Gr\u{fc}\u{df}e", ", ", "\u{1f41d}", " from the hive"] {
        out.push_str(&format!(
            "data: {{\"id\":\"c1\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n"
        ));
    }
    out.push_str("data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
    out.push_str("data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\n");
    out.push_str("data: [DONE]\n\n");
    out.into_bytes()
}

/// A Messages stream that used 20 and 5 tokens.
pub(crate) fn messages_stream() -> Vec<u8> {
    concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m1\",\"model\":\"claude\",\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Gr\u{fc}\u{df}e \u{1f41d}\"}}\n\n",
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    )
    .as_bytes()
    .to_vec()
}

/// A whole Messages answer that used 3 and 2 tokens.
pub(crate) const MESSAGE: &str = r#"{"id":"m2","type":"message","model":"claude","content":[{"type":"text","text":"ok"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}"#;

/// What was settled, as the ledger would give it back.
pub(crate) fn recorded(settled: &[Settlement]) -> Vec<Recorded> {
    let name = |content: &Bytes| {
        use sha2::Digest;
        domain::BlobId::from_sha256(sha2::Sha256::digest(content).into())
    };
    settled
        .iter()
        .map(|s| Recorded {
            call: s.call,
            request: s.request.clone(),
            request_blob: name(&s.request),
            response: s.response.clone(),
            response_blob: name(&s.response),
            status: s.status,
            headers: s.headers.clone(),
            path: s.path.clone(),
            failure: s.failure,
        })
        .collect()
}

/// An agent's connection to a served grant.
pub(crate) struct Agent {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let task = tokio::spawn(async move {
            connection.await.ok();
        });
        Self { sender, task }
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gateway");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.sender.send_request(request)).await;
        answer.expect("no answer").unwrap()
    }
}

pub(crate) async fn bytes_of(response: Response<Incoming>) -> Bytes {
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await;
    body.expect("the answer has no end").unwrap().to_bytes()
}

pub(crate) async fn json_of(response: Response<Incoming>) -> serde_json::Value {
    serde_json::from_slice(&bytes_of(response).await).unwrap()
}

pub(crate) fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}
