//! What a provider's answer means, beyond its bytes.

use std::time::SystemTime;

use dialects::{End, Fault, Report};
use http::HeaderMap;

use crate::{error::Error, redact::Redactor};

/// Longest text from a provider that an error tells.
const SAID_CHARS: usize = 80;

/// Who answered, for the errors.
pub(crate) struct Answerer<'a> {
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) redactor: &'a Redactor,
}

impl Answerer<'_> {
    /// Whether the head of an answer already shows that it is none: not of status 200, or no JSON
    /// and no event stream.
    pub(crate) fn is_refusal(status: u16, headers: &HeaderMap) -> bool {
        !(200..300).contains(&status) || foreign(headers).is_some()
    }

    /// The error that an answer is whose head shows that it is none.
    pub(crate) fn refusal(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let foreign = foreign(headers);
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        let strange = status < 400 || (status == 404 && !is_json);
        let fault = Fault::from_bytes(status, body).filter(|_| !strange);
        match fault {
            Some(fault) => self.fault(status, headers, fault),
            None => self.bad(match foreign {
                Some(kind) => format!("{kind} in place of JSON (status {status})"),
                None => format!("status {status}"),
            }),
        }
    }

    /// What is wrong with an answer that has come to its end, if anything.
    pub(crate) fn verdict(
        &self,
        status: u16,
        headers: &HeaderMap,
        report: &Report,
    ) -> Option<Error> {
        match report.end {
            End::Complete | End::Unterminated => None,
            End::Failed => {
                let fault = report.fault.clone()?;
                Some(self.fault(status, headers, fault))
            }
            End::Cut if report.bytes == 0 => Some(self.bad("nothing".into())),
            End::Cut if report.garbage > 0 || (report.id.is_none() && report.model.is_none()) => {
                Some(self.bad("something that is not its protocol".into()))
            }
            End::Cut => Some(Error::Cut {
                provider: self.provider.into(),
                source: None,
            }),
        }
    }

    fn fault(&self, status: u16, headers: &HeaderMap, mut fault: Fault) -> Error {
        fault.message = self.redactor.text(fault.message);
        fault.kind = self.redactor.text(fault.kind);
        let header = |name: &str| headers.get(name)?.to_str().ok();
        Error::Provider {
            model: self.model.into(),
            status,
            fault,
            retry_after: dialects::retry_after(header, SystemTime::now()),
        }
    }

    fn bad(&self, what: String) -> Error {
        Error::BadAnswer {
            model: self.model.into(),
            what: self.redactor.text(what),
        }
    }
}

/// The type of a body that is neither JSON nor an event stream. One without a type may be either.
fn foreign(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get("content-type")?.to_str().unwrap_or("?");
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let lower = essence.to_ascii_lowercase();
    let known = lower == "text/event-stream" || lower.ends_with("json") || lower.is_empty();
    (!known).then(|| essence.chars().take(SAID_CHARS).collect())
}
