//! Recorded exchanges in place of a provider.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use dialects::{Dialect, Endpoint, Meter};
use domain::{BlobId, Reason};
use sha2::{Digest, Sha256};

use crate::{
    body::Body,
    classify::Answerer,
    diff::{self, ABSENT},
    error::Error,
    flight::Head,
    headers,
    providers::Route,
    redact::Redactor,
};

/// One exchange as the ledger kept it.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its place among the calls of its grant, from one.
    pub call: u64,
    /// The path that was asked for, with its query.
    pub path: String,
    /// What was asked.
    pub request: Bytes,
    /// The name under which that was kept.
    pub request_blob: BlobId,
    /// What was answered.
    pub response: Bytes,
    /// The name under which that was kept.
    pub response_blob: BlobId,
    /// The status of the answer; none if there was no answer.
    pub status: Option<u16>,
    /// The headers of the answer, as they were settled.
    pub headers: Vec<(String, String)>,
    /// Why there is no whole answer, as it was settled.
    pub failure: Option<Reason>,
}

/// A replay is not what was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("call {call} is not what was recorded: {field} was `{recorded}` and is now `{now}`")]
pub struct Diverged {
    /// The call, from one.
    pub call: u64,
    /// The field of its request (`messages[4].content[0].text`), `(path)`, `(body)`,
    /// `(no such call recorded)`, `(call not made)`, `(order)`, or `request` or `response` for a
    /// recording that was changed.
    pub field: String,
    /// What was recorded, cut.
    pub recorded: String,
    /// What came instead, cut.
    pub now: String,
}

/// Recorded exchanges that are played once, in order. Clones share the place where it stands.
#[derive(Debug, Clone)]
pub struct Cassette {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    exchanges: Vec<Recorded>,
    next: AtomicUsize,
    /// Whether a call was made after the last recorded one.
    passed: AtomicBool,
    /// The first difference; after it nothing is played any more.
    diverged: OnceLock<Diverged>,
}

/// The status of an answer that refuses a call for its rate (RFC 6585, section 4).
const TOO_MANY_REQUESTS: u16 = 429;

impl From<Vec<Recorded>> for Cassette {
    /// Exchanges that were looked at already.
    fn from(exchanges: Vec<Recorded>) -> Self {
        Self {
            shared: Arc::new(Shared {
                exchanges,
                next: AtomicUsize::new(0),
                passed: AtomicBool::new(false),
                diverged: OnceLock::new(),
            }),
        }
    }
}

impl Cassette {
    /// A cassette of these exchanges, in the order of their calls.
    ///
    /// # Errors
    /// When one is not what its name says, or a call is missing.
    pub fn load(exchanges: impl IntoIterator<Item = Recorded>) -> Result<Self, Diverged> {
        let mut exchanges: Vec<Recorded> = exchanges.into_iter().collect();
        exchanges.sort_by_key(|exchange| exchange.call);
        for (place, exchange) in (1u64..).zip(&exchanges) {
            if exchange.call != place {
                return Err(Diverged {
                    call: place,
                    field: "(order)".into(),
                    recorded: format!("call {place}"),
                    now: format!("call {}", exchange.call),
                });
            }
            let parts = [
                ("request", &exchange.request, exchange.request_blob),
                ("response", &exchange.response, exchange.response_blob),
            ];
            for (field, content, name) in parts {
                let is = BlobId::from_sha256(Sha256::digest(content).into());
                if is != name {
                    return Err(Diverged {
                        call: place,
                        field: field.into(),
                        recorded: name.to_string(),
                        now: is.to_string(),
                    });
                }
            }
        }
        Ok(Self::from(exchanges))
    }

    /// How many calls are recorded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.exchanges.len()
    }

    /// Whether nothing is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.exchanges.is_empty()
    }

    /// The model and the dialect of the first call, as a route that leads nowhere; none if nothing
    /// is recorded that can be read.
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        let first = self.shared.exchanges.first()?;
        let dialect = Endpoint::from_path("POST", &first.path)?.dialect()?;
        let asked = dialects::Request::inspect(dialect, &first.request).ok()?;
        Some(Route::offline(asked.model, dialect))
    }

    /// The same without the call at its end that was cut off with its caller: nobody saw its answer,
    /// so it is made again.
    #[must_use]
    pub fn without_cut_end(&self) -> Self {
        let mut exchanges = self.shared.exchanges.clone();
        while exchanges
            .last()
            .is_some_and(|last| last.failure == Some(Reason::Cancelled))
        {
            exchanges.pop();
        }
        Self::from(exchanges)
    }

    /// The same without the calls that were refused for their rate: nothing follows from them but
    /// that they were made again later, perhaps after a pause that ended the turn.
    #[must_use]
    pub fn without_refused(&self) -> Self {
        let all = self.shared.exchanges.iter();
        let kept = all.filter(|exchange| exchange.status != Some(TOO_MANY_REQUESTS));
        Self::from(kept.cloned().collect::<Vec<_>>())
    }

    /// Whether every recorded call has its answer again: the next one is a new one.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.next.load(Ordering::Relaxed) >= self.shared.exchanges.len()
            && self.shared.diverged.get().is_none()
    }

    /// Whether a call was another one than was recorded: nothing is played any more.
    #[must_use]
    pub fn is_diverged(&self) -> bool {
        self.shared.diverged.get().is_some()
    }

    /// Whether a new call was made already, after all that were recorded.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.shared.passed.load(Ordering::Relaxed)
    }

    pub(crate) fn pass(&self) {
        self.shared.passed.store(true, Ordering::Relaxed);
    }

    /// Whether every call was made again, and none differed.
    ///
    /// # Errors
    /// The first difference, or the first call that was not made.
    pub fn finish(&self) -> Result<(), Diverged> {
        if let Some(first) = self.shared.diverged.get() {
            return Err(first.clone());
        }
        let made = self.shared.next.load(Ordering::Relaxed);
        match self.shared.exchanges.get(made) {
            None => Ok(()),
            Some(missing) => Err(Diverged {
                call: missing.call,
                field: "(call not made)".into(),
                recorded: missing.path.clone(),
                now: ABSENT.into(),
            }),
        }
    }

    /// Answers the next call.
    pub(crate) fn play(
        &self,
        dialect: Dialect,
        path: &str,
        body: &Bytes,
        strict: bool,
        redactor: &Redactor,
    ) -> Result<Head, Error> {
        if let Some(first) = self.shared.diverged.get() {
            return Err(first.clone().into());
        }
        let place = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let exchange = self
            .matching(place, path, body)
            .map_err(|diverged| self.shared.diverged.get_or_init(|| diverged).clone())?;

        let failure = exchange.failure.map(|reason| Error::Recorded { reason });
        let Some(status) = exchange.status else {
            return Err(failure.unwrap_or(Error::Recorded {
                reason: Reason::ProviderFailed,
            }));
        };
        let headers = headers::restored(&exchange.headers);
        let error = failure.or_else(|| {
            if !strict || status >= 400 {
                return None;
            }
            let mut meter = Meter::new(dialect, status);
            meter.feed(&exchange.response);
            let answerer = Answerer {
                provider: "recording",
                model: "the recording",
                redactor,
            };
            answerer.verdict(status, &headers, &meter.finish())
        });
        Ok(Head {
            model: "the recording".into(),
            status,
            headers,
            body: Body::whole(exchange.response.clone(), error),
        })
    }

    fn matching(&self, place: usize, path: &str, body: &[u8]) -> Result<&Recorded, Diverged> {
        let Some(exchange) = self.shared.exchanges.get(place) else {
            return Err(Diverged {
                call: u64::try_from(place).unwrap_or(u64::MAX).saturating_add(1),
                field: "(no such call recorded)".into(),
                recorded: ABSENT.into(),
                now: crate::grant::cut(path),
            });
        };
        if exchange.path != path {
            return Err(Diverged {
                call: exchange.call,
                field: "(path)".into(),
                recorded: exchange.path.clone(),
                now: crate::grant::cut(path),
            });
        }
        match diff::of_bodies(&exchange.request, body) {
            None => Ok(exchange),
            Some(difference) => Err(Diverged {
                call: exchange.call,
                field: difference.field,
                recorded: difference.recorded,
                now: difference.now,
            }),
        }
    }
}
