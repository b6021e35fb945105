//! Which headers pass. What is not on a list does not.

use dialects::Dialect;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{provider::Provider, redact::Redactor};

/// Longest value of a header that passes or is kept.
const VALUE_BYTES: usize = 4096;

/// The version of the Messages protocol that is spoken when the agent names none.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Of an agent's headers these reach a provider. Its credentials, accounts and cookies do not,
/// and it cannot ask for an encoding, since what passes must be readable for the meter.
const TO_PROVIDER: &[&str] = &["anthropic-version", "anthropic-beta"];

/// Of a provider's headers these reach the agent.
const TO_AGENT: &[&str] = &[
    "content-type",
    "content-encoding",
    "request-id",
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
];

/// Beginnings of names of further headers that reach the agent: how much of its limits is left.
const TO_AGENT_BEGINNINGS: &[&str] = &["anthropic-ratelimit-", "x-ratelimit-"];

/// The headers of a call to a provider.
pub(crate) fn to_provider(provider: &Provider, dialect: Dialect, agent: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(8);
    for name in TO_PROVIDER {
        for value in agent.get_all(*name) {
            if dialect == Dialect::Messages && value.len() <= VALUE_BYTES {
                out.append(HeaderName::from_static(name), value.clone());
            }
        }
    }
    if dialect == Dialect::Messages && !out.contains_key("anthropic-version") {
        out.insert(
            "anthropic-version",
            HeaderValue::from_static(ANTHROPIC_VERSION),
        );
    }
    out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    out.insert(
        header::ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    out.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    out.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("skep/", env!("CARGO_PKG_VERSION"))),
    );
    if let Some((name, value)) = provider.credential(dialect) {
        out.insert(name, value);
    }
    out
}

/// The headers of a provider's answer that pass and are kept.
pub(crate) fn to_agent(provider: &HeaderMap, redactor: &Redactor) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in provider {
        let listed = TO_AGENT.contains(&name.as_str())
            || TO_AGENT_BEGINNINGS
                .iter()
                .any(|begin| name.as_str().starts_with(begin));
        if !listed || value.len() > VALUE_BYTES {
            continue;
        }
        let Ok(text) = value.to_str() else { continue };
        if let Ok(clean) = HeaderValue::from_str(&redactor.text(text.to_owned())) {
            out.append(name.clone(), clean);
        }
    }
    out
}

/// The same headers as they are stored.
pub(crate) fn stored(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// Stored headers as they were; only those that could have passed.
pub(crate) fn restored(stored: &[(String, String)]) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in stored {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            out.append(name, value);
        }
    }
    to_agent(&out, &Redactor::new([]))
}
