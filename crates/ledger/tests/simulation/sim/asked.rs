//! What is asked for and stored: keys, and the names of blobs that no event has.

use super::{
    Broken,
    call::{Answer, Call},
    model::Model,
};
use domain::event::Body;
use skep_ledger::Error;

impl Model {
    /// What is stored, and what is named by what has no event of its own.
    pub(super) fn stored(
        &mut self,
        call: &Call,
        answer: &Result<Answer, Error>,
    ) -> Result<(), Broken> {
        match (call, answer) {
            (Call::PutBlob(content), Ok(Answer::Blob(id))) => self.blobs.put(*id, content),
            (Call::Submit(_, ask, _), Ok(Answer::Request(request)))
                if !self.blobs.is_known(*request) =>
            {
                let named = ask.included.iter().map(|file| file.content);
                self.blobs.name(Some(*request), named.collect());
                Ok(())
            }
            (Call::Settle(grant, end), Ok(_)) => {
                let (body, exchange) = &**end;
                if let (Body::ModelCalled { call, .. }, Some(exchange)) = (body, exchange)
                    && !self.money.is_settled(*grant, *call)
                {
                    let named = vec![exchange.request, exchange.response];
                    self.blobs.name(self.money.request(*grant), named);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One key is one request, and with other content it is refused.
    pub(super) fn submitted(
        &mut self,
        call: &Call,
        answer: &Result<Answer, Error>,
    ) -> Result<(), Broken> {
        let Call::Submit(_, ask, Some(key)) = call else {
            return Ok(());
        };
        let known = self.keys.get(key).copied();
        let is_other = super::client::is_other(ask);
        match (answer, known) {
            (Ok(Answer::Request(request)), None) => {
                self.keys.insert(key.clone(), (*request, is_other));
                Ok(())
            }
            (Ok(Answer::Request(request)), Some(known)) if (*request, is_other) == known => Ok(()),
            (Err(Error::KeyTaken { .. }), Some((_, known))) if known != is_other => Ok(()),
            // It was removed before it was named.
            (Err(Error::BlobMissing { .. }), None) => Ok(()),
            (answer, known) => Err(Broken::new(format!(
                "`{key}` is {known:?}, and was answered with {answer:?}"
            ))),
        }
    }
}
