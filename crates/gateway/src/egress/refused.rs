//! What a program inside is told when something is refused, or fails.

use super::{Answer, meter::own};
use crate::body::Body;
use bytes::Bytes;
use domain::egress::{Decision, Host, Part};
use http::{HeaderValue, Response, StatusCode, header};

/// The longest text of it, in characters.
const MOST: usize = 2_000;

/// So that a program can tell it from an answer of the server, which cannot have it.
pub(super) const MARK: &str = "x-skep-egress";

/// An answer in plain words.
pub(super) fn text(status: StatusCode, words: &str) -> Answer {
    let mut words: String = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST)
        .collect();
    words.push('\n');
    let mut response = Response::new(own(Body::whole(Bytes::from(words), None)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(MARK, HeaderValue::from_static("refused"));
    response
}

/// The longest of what was asked for that is said, in characters: a remedy comes after it.
const WHAT: usize = 300;

/// That the rules refuse it.
pub(super) fn decided(decision: &Decision, part: Part, host: &Host, what: &str) -> Answer {
    let mut short: String = what.chars().take(WHAT).collect();
    if short.len() < what.len() {
        short.push_str("...");
    }
    let words = format!(
        "skep refuses {short} for the {part}: {}; {}",
        decision.reason(),
        decision.remedy(part, host)
    );
    text(StatusCode::FORBIDDEN, &words)
}
