//! The ledger as the account that a grant spends from, and as the place of its recording.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use domain::{Amount, AttemptId, BlobId, GrantId, Reason, RequestId, event::Body};
use ledger::{Exchange, Ledger, Spender};
use sha2::{Digest, Sha256};

use crate::{
    cassette::{Cassette, Diverged, Recorded},
    funds::{Error, Funds, Settlement},
};

/// The key under which the reason of a call without a whole answer stands among its headers. No
/// header of HTTP begins with a colon.
const FAILURE: &str = ":failure";

/// What stands for the status of an answer that never came.
const NO_STATUS: u16 = 0;

/// A grant of the ledger. Every call is reserved before it is made, and settled with its event
/// and its recording in one transaction.
#[derive(Debug, Clone)]
pub struct LedgerFunds {
    ledger: Ledger,
    grant: GrantId,
    attempt: Option<AttemptId>,
}

impl LedgerFunds {
    /// Opens a grant in the ledger.
    ///
    /// # Errors
    /// When the lease was lost, or the attempt is not the one that it holds.
    pub async fn open(ledger: &Ledger, spender: Spender<'_>) -> Result<Self, ledger::Error> {
        Ok(Self {
            grant: ledger.open_grant(spender).await?,
            ledger: ledger.clone(),
            attempt: match spender {
                Spender::Attempt(_, attempt) => Some(attempt),
                Spender::Plan(_) => None,
            },
        })
    }

    /// The grant.
    #[must_use]
    pub fn id(&self) -> GrantId {
        self.grant
    }

    /// Closes the grant; what is still reserved counts as spent. Close [`crate::Grant`] first,
    /// which waits until its calls are settled.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn close(&self) -> Result<(), ledger::Error> {
        self.ledger.close_grant(self.grant).await
    }

    async fn stored(&self, settlement: &Settlement) -> Result<Exchange, ledger::Error> {
        let (request, response) = tokio::try_join!(
            self.ledger.put_blob(settlement.request.clone()),
            self.ledger.put_blob(settlement.response.clone()),
        )?;
        let mut headers = settlement.headers.clone();
        if let Some(reason) = settlement.failure {
            headers.push((FAILURE.into(), name_of(reason)));
        }
        let mut exchange = Exchange {
            call: settlement.call,
            endpoint: settlement.path.clone(),
            request,
            digest: String::new(),
            status: settlement.status.unwrap_or(NO_STATUS),
            headers,
            response,
        };
        exchange.digest = digest(&exchange);
        Ok(exchange)
    }
}

#[async_trait]
impl Funds for LedgerFunds {
    async fn reserve(&self, call: u64, amount: Amount) -> Result<(), Error> {
        let reserved = self.ledger.reserve(self.grant, call, amount);
        reserved.await.map_err(error)
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        // The account is settled even where the recording could not be stored.
        let (exchange, lost) = match self.stored(&settlement).await {
            Ok(exchange) => (Some(exchange), None),
            Err(lost) => (None, Some(lost)),
        };
        let called = Body::ModelCalled {
            attempt: self.attempt,
            model: settlement.model,
            call: settlement.call,
            spent: settlement.spent,
            metered: settlement.metered,
            priced: settlement.priced,
            status: settlement.status,
            duration_ms: u64::try_from(settlement.duration.as_millis()).unwrap_or(u64::MAX),
        };
        self.ledger
            .settle(self.grant, called, exchange)
            .await
            .map_err(error)?;
        lost.map_or(Ok(()), |lost| Err(error(lost)))
    }
}

fn error(error: ledger::Error) -> Error {
    match error {
        ledger::Error::Refused(refused) => Error::Refused(refused),
        other => Error::Unavailable {
            source: other.into(),
        },
    }
}

/// Why an attempt, or a plan, has no cassette.
#[derive(Debug, thiserror::Error)]
pub enum CassetteError {
    /// The ledger could not be read.
    #[error("the recording of {of} cannot be read")]
    Ledger {
        /// The attempt, or the request whose plan it is.
        of: String,
        /// What went wrong.
        source: ledger::Error,
    },
    /// The recording is not what was recorded.
    #[error(transparent)]
    Diverged(#[from] Diverged),
}

/// The recorded exchanges of an attempt, of all its grants in their order, as one cassette.
///
/// `max` is the largest request or answer that is taken, in bytes.
///
/// # Errors
/// When the ledger cannot be read, or a recording was changed.
pub async fn cassette(
    ledger: &Ledger,
    attempt: AttemptId,
    max: u64,
) -> Result<Cassette, CassetteError> {
    let exchanges = ledger.exchanges(attempt).await;
    load(ledger, attempt.to_string(), exchanges, max).await
}

/// The same of the planning of a request.
///
/// # Errors
/// As for [`cassette`].
pub async fn plan_cassette(
    ledger: &Ledger,
    request: RequestId,
    max: u64,
) -> Result<Cassette, CassetteError> {
    let exchanges = ledger.plan_exchanges(request).await;
    load(ledger, request.to_string(), exchanges, max).await
}

async fn load(
    ledger: &Ledger,
    of: String,
    exchanges: Result<Vec<Exchange>, ledger::Error>,
    max: u64,
) -> Result<Cassette, CassetteError> {
    let failed = |source| CassetteError::Ledger {
        of: of.clone(),
        source,
    };
    let exchanges = exchanges.map_err(failed)?;
    let mut recorded = Vec::with_capacity(exchanges.len());
    let mut before = 0;
    let count = exchanges.len();
    for (index, exchange) in exchanges.into_iter().enumerate() {
        let place = recorded.len() as u64 + 1;
        let changed = |field: &str, recorded: String, now: String| Diverged {
            call: place,
            field: field.into(),
            recorded,
            now,
        };
        // Each grant counts from one.
        if exchange.call != before + 1 && exchange.call != 1 {
            let (expected, call) = (before + 1, exchange.call);
            let diverged = changed(
                "(order)",
                format!("call {expected}"),
                format!("call {call}"),
            );
            return Err(diverged.into());
        }
        before = exchange.call;
        let is = digest(&exchange);
        if is != exchange.digest {
            return Err(changed("(record)", exchange.digest, is).into());
        }
        let is_failure = |(name, _): &(String, String)| name == FAILURE;
        let failure = exchange.headers.iter().find(|pair| is_failure(pair));
        let failure = failure.map(|(_, name)| reason_named(name));
        // It was cut off with its caller, and made again when the attempt went on.
        if failure == Some(Reason::Cancelled) && index + 1 < count {
            continue;
        }
        let part = async |field: &str, id: BlobId| match ledger.blob(id, max).await {
            Ok(content) => Ok(Bytes::from(content)),
            Err(ledger::Error::BlobCorrupt { .. }) => {
                Err(changed(field, id.to_string(), "(damaged)".into()).into())
            }
            Err(ledger::Error::NotFound { .. }) => {
                Err(changed(field, id.to_string(), "(absent)".into()).into())
            }
            Err(source) => Err(failed(source)),
        };
        let request = part("request", exchange.request).await?;
        let response = part("response", exchange.response).await?;
        recorded.push(Recorded {
            call: place,
            path: exchange.endpoint,
            request,
            request_blob: exchange.request,
            response,
            response_blob: exchange.response,
            status: (exchange.status != NO_STATUS).then_some(exchange.status),
            failure,
            headers: exchange.headers,
        });
    }
    Ok(Cassette::load(recorded)?)
}

/// Binds the parts of an exchange together: SHA-256 in hexadecimal over each part with its length.
fn digest(exchange: &Exchange) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(exchange.endpoint.as_bytes());
    add(exchange.request.as_bytes());
    add(&exchange.status.to_le_bytes());
    for (name, value) in &exchange.headers {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    add(exchange.response.as_bytes());
    BlobId::from_sha256(hash.finalize().into()).to_string()
}

fn name_of(reason: Reason) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

fn reason_named(name: &str) -> Reason {
    serde_json::from_value(serde_json::Value::String(name.into())).unwrap_or(Reason::Bug)
}

/// A grant's account in the ledger, as a grant takes it.
impl From<LedgerFunds> for Arc<dyn Funds> {
    fn from(funds: LedgerFunds) -> Self {
        Arc::new(funds)
    }
}
