//! Cassettes: the recorded exchanges with models, by which an attempt can be replayed.

use crate::{
    error::Error,
    ledger::Ledger,
    sql::{Key, all, json},
};
use domain::{AttemptId, BlobId, RequestId};
use serde::{Deserialize, Serialize};

/// One exchange with a model: what was sent and what came back. Secrets are taken out before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The place among the calls of the grant, from one.
    pub call: u64,
    /// The path that was called, such as `/v1/messages`.
    pub endpoint: String,
    /// The body that was sent.
    pub request: BlobId,
    /// What the recorder computed over what must be the same in a replay.
    pub digest: String,
    /// The status of the answer.
    pub status: u16,
    /// The headers of the answer that a replay needs.
    pub headers: Vec<(String, String)>,
    /// The body of the answer, as it came.
    pub response: BlobId,
}

impl Exchange {
    /// The blobs that it names.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = BlobId> + use<> {
        [self.request, self.response].into_iter()
    }
}

impl Ledger {
    /// The exchanges of an attempt, in the order of its grants and calls.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn exchanges(&self, attempt: AttemptId) -> Result<Vec<Exchange>, Error> {
        self.read("read a cassette", move |sql| {
            all(
                sql,
                "SELECT c.exchange FROM grants g JOIN calls c ON c.granted = g.n \
                 WHERE g.attempt = ?1 AND c.exchange IS NOT NULL ORDER BY g.n, c.call",
                [attempt.key()],
                |row| json(row, 0),
            )
        })
        .await
    }

    /// The exchanges of the planning of a request, in the order of its grants and calls.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn plan_exchanges(&self, request: RequestId) -> Result<Vec<Exchange>, Error> {
        self.read("read a cassette", move |sql| {
            all(
                sql,
                "SELECT c.exchange FROM grants g INDEXED BY grants_of_request \
                 JOIN calls c ON c.granted = g.n WHERE g.request = ?1 AND g.attempt IS NULL \
                 AND c.exchange IS NOT NULL ORDER BY g.n, c.call",
                [request.key()],
                |row| json(row, 0),
            )
        })
        .await
    }
}
