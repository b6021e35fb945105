//! What one spender may use.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dialects::{Dialect, Endpoint};
use http::{HeaderMap, Method, Request};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    body::Body,
    cassette::Cassette,
    classify::Answerer,
    client::Pieces,
    error::Error,
    flight::{Account, Estimate, Flight, Head},
    funds::Funds,
    gateway::Shared,
    headers,
    providers::Route,
    serve::Served,
    splice,
};

/// How much of an error's body is read to say what it means.
const ERROR_BYTES: usize = 64 << 10;

/// How much of a hostile text an error repeats, in characters.
const CUT_CHARS: usize = 80;

/// How many calls a grant has, and how many at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls that may be under way at once; further ones wait.
    pub concurrent: usize,
    /// Calls in all.
    pub calls: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent: 4,
            calls: 10_000,
        }
    }
}

/// Where answers come from.
#[derive(Debug, Clone, Default)]
pub enum Mode {
    /// From the provider.
    #[default]
    Live,
    /// From a recording. Nothing is called and nothing is spent.
    Replay(Cassette),
    /// From a recording while it lasts, and then from the provider: an attempt goes on whose process
    /// was killed. What was recorded costs nothing again. The calls must come one after the other.
    Continue(Cassette),
}

/// What a grant gives.
pub struct GrantSpec {
    /// The account that it spends from.
    pub funds: Arc<dyn Funds>,
    /// The model that is granted.
    pub route: Route,
    /// A name that an agent may use for the granted model.
    pub placeholder: String,
    /// Further models that may be asked for.
    pub others: Vec<Route>,
    /// How many calls.
    pub limits: Limits,
    /// Where answers come from.
    pub mode: Mode,
    /// Revokes the grant when it is cancelled.
    pub cancel: CancellationToken,
}

impl GrantSpec {
    /// A live grant of one model, with the usual limits and the placeholder `skep`.
    #[must_use]
    pub fn new(funds: Arc<dyn Funds>, route: Route, cancel: CancellationToken) -> Self {
        Self {
            funds,
            route,
            placeholder: "skep".into(),
            others: Vec::new(),
            limits: Limits::default(),
            mode: Mode::Live,
            cancel,
        }
    }
}

/// A call by someone in this process.
#[derive(Debug, Clone)]
pub struct Call {
    /// The path, with its query.
    pub path: Cow<'static, str>,
    /// The request, in the dialect of the path.
    pub body: Bytes,
}

impl Call {
    /// A call at the path of its dialect.
    #[must_use]
    pub fn new(dialect: Dialect, body: impl Into<Bytes>) -> Self {
        Self {
            path: Cow::Borrowed(dialect.path()),
            body: body.into(),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Those of its headers that pass.
    pub headers: HeaderMap,
    /// Its bytes, as they come.
    pub body: Body,
}

/// One spender's capability to call models. Cheap to clone; it is revoked when the last clone is
/// dropped.
#[derive(Clone)]
pub struct Grant {
    pub(crate) state: Arc<State>,
    _guard: Arc<DropGuard>,
}

/// The failure of the last call, and when the provider says to come back; none once a call is
/// answered.
#[derive(Debug, Default)]
pub(crate) struct Last(Mutex<Option<(domain::Failure, Option<Duration>)>>);

impl Last {
    pub(crate) fn failed(&self, error: &Error) {
        // Both follow from an end that has its own reason.
        if !matches!(error, Error::Revoked | Error::Abandoned) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((error.failure(), error.retry_after()));
        }
    }

    pub(crate) fn answered(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn get(&self) -> Option<(domain::Failure, Option<Duration>)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

pub(crate) struct State {
    pub(crate) gateway: Arc<Shared>,
    funds: Arc<dyn Funds>,
    pub(crate) route: Route,
    pub(crate) placeholder: String,
    others: Vec<Route>,
    limits: Limits,
    mode: Mode,
    pub(crate) cancel: CancellationToken,
    concurrent: Arc<Semaphore>,
    begun: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
    numbers: Arc<tokio::sync::Mutex<()>>,
    free: AtomicU64,
    pub(crate) last: Arc<Last>,
    pub(crate) tasks: TaskTracker,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("route", &self.state.route)
            .field("limits", &self.state.limits)
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

impl Grant {
    pub(crate) fn new(gateway: Arc<Shared>, spec: GrantSpec) -> Self {
        let cancel = spec.cancel.child_token();
        let guard = cancel.clone().drop_guard();
        let concurrent = spec.limits.concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let state = State {
            gateway,
            funds: spec.funds,
            route: spec.route,
            placeholder: spec.placeholder,
            others: spec.others,
            limits: spec.limits,
            mode: spec.mode,
            cancel,
            concurrent: Arc::new(Semaphore::new(concurrent)),
            begun: Arc::default(),
            made: Arc::default(),
            numbers: Arc::default(),
            free: AtomicU64::new(0),
            last: Arc::default(),
            tasks: TaskTracker::new(),
        };
        Self {
            state: Arc::new(state),
            _guard: Arc::new(guard),
        }
    }

    /// The model that is granted.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.state.route
    }

    /// How many calls were made and paid so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state.made.load(Ordering::Relaxed)
    }

    /// Why the last call failed, in the words of the domain: of the calls of this process and of
    /// those that were served. None when the last call was answered, or there was none. The end of
    /// the grant is no failure.
    #[must_use]
    pub fn last_failure(&self) -> Option<domain::Failure> {
        Some(self.state.last.get()?.0)
    }

    /// When the provider says to come back, if it said so when the last call failed.
    #[must_use]
    pub fn last_retry_after(&self) -> Option<Duration> {
        self.state.last.get()?.1
    }

    /// Makes a call and returns when the head of its answer is there.
    ///
    /// An answer that is an error of the provider, or is not in its protocol, is an [`Error`] with
    /// its reason; what goes wrong later is the error that ends the body.
    ///
    /// # Errors
    /// When the grant or the budget does not allow the call, when the provider cannot be reached
    /// or refuses, and in a replay when the call is another one than was recorded.
    pub async fn call(&self, call: Call) -> Result<Response, Error> {
        let permit = self.state.permit().await;
        let permit = permit.inspect_err(|error| self.state.last.failed(error))?;
        let path = call.path.into_owned();
        let none = HeaderMap::new();
        let Head {
            model,
            status,
            headers,
            body,
        } = State::start(&self.state, path, &none, call.body, true, permit).await?;
        if Answerer::is_refusal(status, &headers) {
            let said = body.head(ERROR_BYTES).await;
            let answerer = Answerer {
                provider: model.split('/').next().unwrap_or_default(),
                model: &model,
                redactor: &self.state.gateway.redactor,
            };
            let refused = answerer.refusal(status, &headers, &said);
            self.state.last.failed(&refused);
            return Err(refused);
        }
        Ok(Response {
            status,
            headers,
            body,
        })
    }

    /// Serves the grant on a listener, until the result is dropped or closed, or the grant is
    /// revoked. Whoever can connect to the listener may use the grant: it must be reachable for
    /// the spender alone, as one made in its network namespace is. Call it inside a runtime.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn serve(&self, listener: std::net::TcpListener) -> std::io::Result<Served> {
        Served::start(Some(self.clone()), None, listener, None)
    }

    /// As [`Grant::serve`], where others can connect to the listener too: a connection that `admits`
    /// does not accept is closed unread. It may block for some milliseconds.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn serve_guarded(
        &self,
        listener: std::net::TcpListener,
        admits: impl Fn(std::net::SocketAddr) -> bool + Send + Sync + 'static,
    ) -> std::io::Result<Served> {
        Served::start(Some(self.clone()), None, listener, Some(Arc::new(admits)))
    }

    /// Refuses every further call and cuts those under way.
    pub fn revoke(&self) {
        self.state.cancel.cancel();
    }

    /// Revokes the grant and waits until everything that was under way is settled.
    pub async fn close(&self) {
        self.revoke();
        self.state.tasks.close();
        self.state.tasks.wait().await;
    }
}

impl State {
    /// Waits for room among the calls that may be under way.
    pub(crate) async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Revoked);
        }
        let acquired = timeout(
            self.gateway.times(&self.route.provider).call,
            Arc::clone(&self.concurrent).acquire_owned(),
        );
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Revoked),
            acquired = acquired => match acquired {
                Ok(Ok(permit)) => Ok(permit),
                Ok(Err(_)) => Err(Error::Revoked),
                Err(_) => Err(Error::Busy { limit: self.limits.concurrent }),
            },
        }
    }

    /// Begins a call and waits for the head of its answer. What goes wrong is remembered.
    pub(crate) async fn start(
        state: &Arc<Self>,
        path: String,
        agent_headers: &HeaderMap,
        body: Bytes,
        strict: bool,
        permit: OwnedSemaphorePermit,
    ) -> Result<Head, Error> {
        let head = Self::begin(state, path, agent_headers, body, strict, permit).await;
        head.inspect_err(|error| state.last.failed(error))
    }

    async fn begin(
        state: &Arc<Self>,
        path: String,
        agent_headers: &HeaderMap,
        body: Bytes,
        strict: bool,
        permit: OwnedSemaphorePermit,
    ) -> Result<Head, Error> {
        let endpoint = Endpoint::from_path("POST", &path);
        let (dialect, rest, pays) = match endpoint {
            Some(Endpoint::Generate(Dialect::ChatCompletions)) => {
                (Dialect::ChatCompletions, "/chat/completions", true)
            }
            Some(Endpoint::Generate(Dialect::Messages)) => (Dialect::Messages, "/messages", true),
            Some(Endpoint::CountTokens(dialect)) => (dialect, "/messages/count_tokens", false),
            Some(Endpoint::Models) | None => {
                return Err(Error::NotServed {
                    path: format!("POST {}", cut(&path)),
                });
            }
        };
        let recording = match &state.mode {
            Mode::Live => None,
            Mode::Replay(_) if !pays => {
                return Err(Error::NotServed {
                    path: "count_tokens in a replay".into(),
                });
            }
            Mode::Replay(cassette) => Some(cassette),
            Mode::Continue(_) if !pays => None,
            Mode::Continue(cassette) if cassette.is_over() => {
                cassette.pass();
                None
            }
            Mode::Continue(cassette) => Some(cassette),
        };
        if let Some(cassette) = recording {
            let redactor = &state.gateway.redactor;
            let path = redactor.text(path);
            let body = redactor.bytes(body);
            return cassette
                .play(dialect, &path, &body, strict, redactor)
                .inspect(|_| state.last.answered());
        }
        if body.len() > state.gateway.bounds.request_bytes {
            return Err(Error::RequestTooLarge {
                limit: state.gateway.bounds.request_bytes,
            });
        }
        let asked = dialects::Request::inspect(dialect, &body).map_err(Error::Request)?;
        if !asked.remote_tools.is_empty() {
            return Err(Error::RemoteTools {
                tools: asked.remote_tools.join(", "),
            });
        }
        let route = state.allowed(&asked.model)?.clone();
        if !route.provider.dialects().contains(&dialect) {
            return Err(Error::OtherDialect {
                model: route.name(),
                asked: dialect,
                spoken: route.dialect,
            });
        }
        let request = state.request(&route, dialect, rest, &path, agent_headers, &asked, &body)?;
        let account = if pays {
            state.count(&state.begun)?;
            Some(Account {
                funds: Arc::clone(&state.funds),
                estimate: Estimate::new(&asked, state.gateway.bounds.default_output),
                made: Arc::clone(&state.made),
                numbers: Arc::clone(&state.numbers),
                begun: Arc::clone(&state.begun),
                path,
                asked: body,
            })
        } else {
            state.count(&state.free)?;
            None
        };
        let flight = Flight {
            gateway: Arc::clone(&state.gateway),
            cancel: state.cancel.clone(),
            route,
            dialect,
            strict,
            last: Arc::clone(&state.last),
            account,
            _permit: permit,
        };
        let (sender, head) = oneshot::channel();
        state.tasks.spawn(flight.run(request, sender));
        // A task that is gone without a word was ended with the runtime.
        head.await.unwrap_or(Err(Error::Revoked))
    }

    /// The route that is meant by a model's name.
    fn allowed(&self, model: &str) -> Result<&Route, Error> {
        let is = |route: &Route| model == route.model || model == route.name();
        if model == self.placeholder || is(&self.route) {
            return Ok(&self.route);
        }
        self.others.iter().find(|route| is(route)).ok_or_else(|| {
            let names: Vec<_> = self.models().map(|name| format!("`{name}`")).collect();
            Error::ModelNotAllowed {
                model: cut(model),
                allowed: names.join(" or "),
            }
        })
    }

    /// The names that an agent may use.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        [self.placeholder.as_str(), self.route.model.as_str()]
            .into_iter()
            .chain(self.others.iter().map(|route| route.model.as_str()))
            .filter(|name| !name.is_empty())
    }

    fn count(&self, counter: &AtomicU64) -> Result<(), Error> {
        let limit = self.limits.calls;
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < limit).then_some(n + 1)
            })
            .map(drop)
            .map_err(|_| Error::CallLimit { limit })
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one request")]
    fn request(
        &self,
        route: &Route,
        dialect: Dialect,
        rest: &str,
        path: &str,
        agent_headers: &HeaderMap,
        asked: &dialects::Request,
        body: &Bytes,
    ) -> Result<Request<Pieces>, Error> {
        let not_served = || Error::NotServed {
            path: format!("POST {}", cut(path)),
        };
        // Of what stands in a query, only this one is known to be needed.
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let beta = dialect == Dialect::Messages && query.split('&').any(|q| q == "beta=true");
        let rest = format!("{rest}{}", if beta { "?beta=true" } else { "" });
        let address = route.provider.address(dialect, &rest);
        let with_usage = asked.with_usage_option(body).map(Bytes::from);
        let body = with_usage.as_ref().unwrap_or(body);
        let pieces = splice::with_model(body, &route.model).ok_or_else(not_served)?;
        let mut request = Request::new(Pieces::from(pieces));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = address.ok_or_else(not_served)?;
        *request.headers_mut() = headers::to_provider(&route.provider, dialect, agent_headers);
        Ok(request)
    }
}

/// The beginning of a text from an agent, on one line.
pub(crate) fn cut(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(CUT_CHARS)
        .collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}
