//! A grant of the gateway, lent to an agent whose loop is on the trusted side.

use agents::model::{Chunks, Error, Model};
use async_trait::async_trait;
use bytes::Bytes;
use dialects::Dialect;
use domain::Reason;
use gateway::{Call, Grant};

/// Calls the granted model.
pub(crate) struct GrantModel<'a> {
    grant: &'a Grant,
}

impl<'a> GrantModel<'a> {
    pub(crate) fn new(grant: &'a Grant) -> Self {
        Self { grant }
    }
}

#[async_trait]
impl Model for GrantModel<'_> {
    fn dialect(&self) -> Dialect {
        self.grant.route().dialect
    }

    fn model(&self) -> &str {
        &self.grant.route().model
    }

    async fn call(&self, body: Vec<u8>) -> Result<Box<dyn Chunks>, Error> {
        let call = Call::new(self.dialect(), body);
        let response = self.grant.call(call).await.map_err(translate)?;
        Ok(Box::new(GrantChunks(response.body)))
    }
}

struct GrantChunks(gateway::Body);

#[async_trait]
impl Chunks for GrantChunks {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.0.chunk().await.map_err(translate)
    }
}

fn translate(error: gateway::Error) -> Error {
    use gateway::Error as E;
    let said = error.chain();
    match error {
        E::Revoked | E::Abandoned => Error::Cancelled,
        E::Funds(_) | E::CallLimit { .. } => Error::Budget { what: said },
        E::Unreachable { .. } | E::Cut { .. } | E::TimedOut { .. } => {
            Error::Network { reason: said }
        }
        E::AnswerTooLarge { .. } | E::BadAnswer { .. } => Error::Nonsense { reason: said },
        E::Provider {
            status,
            fault,
            retry_after,
            ..
        } => Error::Provider {
            status,
            fault,
            retry_after,
        },
        E::Diverged(diverged) => Error::Diverged {
            place: diverged.to_string(),
        },
        // As it was told when it was recorded.
        E::Recorded { reason } => match reason {
            Reason::Unreachable | Reason::TimedOut | Reason::ProviderFailed => {
                Error::Network { reason: said }
            }
            Reason::BadAnswer => Error::Nonsense { reason: said },
            Reason::Cancelled => Error::Cancelled,
            _ => Error::Refused { reason: said },
        },
        _ => Error::Refused { reason: said },
    }
}
