//! What a provider's refusal means.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http_date;

/// Longest message that is kept of a fault, in characters.
const MESSAGE_CHARS: usize = 400;

/// Waits longer than this are not believed.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The class of a provider's refusal or failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// Too many requests or tokens in a short time; passes by itself.
    RateLimit,
    /// The provider has no capacity now; passes by itself.
    Overloaded,
    /// The account has no credit or quota left; passes when a person pays or a period ends.
    Quota,
    /// The key is missing, wrong or revoked.
    InvalidKey,
    /// The key may not do this.
    Permission,
    /// There is no such model or path.
    NotFound,
    /// The conversation is longer than the model reads.
    ContextTooLong,
    /// The body is larger than the server takes.
    TooLarge,
    /// The request is malformed.
    BadRequest,
    /// The provider's rules forbid this content.
    Refused,
    /// The provider failed.
    Server,
    /// None of these.
    Unknown,
}

impl FaultClass {
    /// Whether the same request can succeed a little later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimit | Self::Overloaded | Self::Server)
    }

    /// What a person can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::RateLimit => "wait, or run fewer jobs at once",
            Self::Overloaded | Self::Server => "wait and try again, or choose another model",
            Self::Quota => "add credit or raise the limit at the provider, or use another one",
            Self::InvalidKey => "check the key of this provider",
            Self::Permission => "check what this key may use at the provider",
            Self::NotFound => "check the model's name and the provider's base URL",
            Self::ContextTooLong => "make the job smaller, or choose a model that reads more",
            Self::TooLarge => "make the request smaller",
            Self::BadRequest => "check that the model speaks this dialect",
            Self::Refused => "word the request differently, or choose another model",
            Self::Unknown => "see the provider's message",
        }
    }

    fn from_status(status: u16) -> Self {
        match status {
            400 | 422 => Self::BadRequest,
            401 => Self::InvalidKey,
            402 => Self::Quota,
            403 => Self::Permission,
            404 => Self::NotFound,
            408 | 500 | 502 | 504 | 520..=527 => Self::Server,
            413 => Self::TooLarge,
            429 => Self::RateLimit,
            503 | 529 => Self::Overloaded,
            505..=599 => Self::Server,
            _ => Self::Unknown,
        }
    }
}

/// A refusal or failure, as a provider told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What it means.
    pub class: FaultClass,
    /// The provider's own name for it (`overloaded_error`, `insufficient_quota`), or empty.
    pub kind: String,
    /// The provider's words: bounded, on one line, without anything that looks like a key.
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.message.is_empty(), self.kind.is_empty()) {
            (false, _) => f.write_str(&self.message),
            (true, false) => f.write_str(&self.kind),
            (true, true) => f.write_str("no reason given"),
        }
    }
}

impl Fault {
    /// The fault in a response, or `None` when it carries none. `status` is the HTTP status
    /// (200 for an error inside a stream).
    ///
    /// Knows the error objects of OpenAI, Anthropic and the servers that imitate them.
    #[must_use]
    pub fn from_json(status: u16, body: &Value) -> Option<Self> {
        let body = match body {
            Value::Array(items) => items.first()?,
            other => other,
        };
        let error = match body.get("error") {
            Some(Value::Null) | None => {
                // vLLM: {"object":"error","message":…}; FastAPI: {"detail":…}.
                let is_error = body.get("object").and_then(Value::as_str) == Some("error");
                let detail = body.get("detail").filter(|_| status >= 400);
                match (is_error, detail) {
                    (true, _) => body,
                    (false, Some(detail)) => detail,
                    (false, None) if status >= 400 => body,
                    (false, None) => return None,
                }
            }
            Some(error) => error,
        };
        let text = |key: &str| match error.get(key) {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Number(n)) => n.to_string(),
            _ => String::new(),
        };
        let message = match error {
            Value::String(s) => s.clone(),
            Value::Object(_) => text("message"),
            other => other.to_string(),
        };
        let (kind, code) = (text("type"), text("code"));
        let class = classify(status, &kind, &code, &message);
        let kind = if kind.is_empty() { code } else { kind };
        Some(Self {
            class,
            kind: clean(&kind, 80),
            message: clean(&message, MESSAGE_CHARS),
        })
    }

    /// The fault of a response whose body is no JSON (a proxy's page, nothing at all), or
    /// `None` for a status that is no error.
    #[must_use]
    pub fn from_bytes(status: u16, head: &[u8]) -> Option<Self> {
        if status < 400 {
            return None;
        }
        if let Ok(value) = serde_json::from_slice::<Value>(head) {
            return Self::from_json(status, &value);
        }
        let text = String::from_utf8_lossy(head);
        // A page in HTML helps nobody.
        let message = if text.trim_start().starts_with('<') {
            ""
        } else {
            text.as_ref()
        };
        Some(Self {
            class: FaultClass::from_status(status),
            kind: String::new(),
            message: match clean(message, MESSAGE_CHARS) {
                empty if empty.is_empty() => format!("HTTP status {status}"),
                said => said,
            },
        })
    }
}

/// Names first, since they are exact; then the status; then a few words.
fn classify(status: u16, kind: &str, code: &str, message: &str) -> FaultClass {
    let words = message.to_ascii_lowercase();
    let says = |needles: &[&str]| needles.iter().any(|n| words.contains(n));
    let context = says(&[
        "prompt is too long",
        "maximum context length",
        "context window",
        "context_length",
        "exceeds the available context",
    ]);
    for name in [code, kind] {
        let class = match name {
            "insufficient_quota"
            | "billing_error"
            | "billing_hard_limit_reached"
            | "usage_limit_reached" => FaultClass::Quota,
            "rate_limit_error"
            | "rate_limit_exceeded"
            | "requests"
            | "tokens"
            | "too_many_requests" => FaultClass::RateLimit,
            "overloaded_error" | "server_overloaded" | "engine_overloaded" => {
                FaultClass::Overloaded
            }
            "authentication_error" | "invalid_api_key" => FaultClass::InvalidKey,
            "permission_error" | "permission_denied" => FaultClass::Permission,
            "not_found_error" | "model_not_found" => FaultClass::NotFound,
            "context_length_exceeded" => FaultClass::ContextTooLong,
            "request_too_large" => FaultClass::TooLarge,
            "content_policy_violation" | "content_filter" => FaultClass::Refused,
            "api_error" | "server_error" | "internal_server_error" | "timeout_error" => {
                FaultClass::Server
            }
            "invalid_request_error" | "bad_request" if context => FaultClass::ContextTooLong,
            "invalid_request_error" if says(&["credit balance"]) => FaultClass::Quota,
            "invalid_request_error" if status < 400 => FaultClass::BadRequest,
            _ => continue,
        };
        return class;
    }
    if context && (status < 400 || matches!(status, 400 | 413 | 422 | 500)) {
        return FaultClass::ContextTooLong;
    }
    // Some servers put the status in `code`, with an HTTP status of 200.
    let inner = code.parse().ok().filter(|c| (400..600).contains(c));
    let class = FaultClass::from_status(inner.unwrap_or(status));
    match class {
        FaultClass::Unknown if says(&["overloaded"]) => FaultClass::Overloaded,
        FaultClass::Unknown if says(&["rate limit"]) => FaultClass::RateLimit,
        other => other,
    }
}

/// One bounded line, with anything that looks like a key taken out.
fn clean(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let bare = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_key = ["sk-", "sk_", "AIza", "ghp_", "xai-", "gsk_"]
            .iter()
            .any(|prefix| bare.starts_with(prefix) && bare.len() > prefix.len() + 4);
        out.push_str(if is_key { "[key]" } else { word });
        if out.len() > limit * 4 {
            break;
        }
    }
    match out.char_indices().nth(limit) {
        Some((at, _)) => {
            out.truncate(at);
            out.push('…');
            out
        }
        None => out,
    }
}

/// How long a provider asks to wait, from its response's headers. `header` looks up a header
/// by its lower-case name; `now` is the time of the response.
///
/// Understands `retry-after-ms`, and `retry-after` as seconds or as an HTTP date (RFC 9110,
/// 10.2.3). Waits are capped at a week.
#[must_use]
pub fn retry_after<'a>(
    header: impl Fn(&str) -> Option<&'a str>,
    now: SystemTime,
) -> Option<Duration> {
    let seconds = |text: &str, unit: f64| {
        let value: f64 = text.trim().parse().ok()?;
        let seconds = value * unit;
        (seconds.is_finite() && seconds >= 0.0)
            .then(|| Duration::from_secs_f64(seconds.min(LONGEST_WAIT.as_secs_f64())))
    };
    if let Some(wait) = header("retry-after-ms").and_then(|v| seconds(v, 0.001)) {
        return Some(wait);
    }
    let value = header("retry-after")?;
    seconds(value, 1.0).or_else(|| {
        let at = http_date::parse(value.trim())?;
        Some(
            at.duration_since(now)
                .unwrap_or(Duration::ZERO)
                .min(LONGEST_WAIT),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(status: u16, body: Value) -> FaultClass {
        Fault::from_json(status, &body).unwrap().class
    }

    #[test]
    fn the_errors_of_the_vendors_are_told_apart() {
        use FaultClass::*;
        let anthropic = |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}});
        for (status, body, expected) in [
            (529, anthropic("overloaded_error", "Overloaded"), Overloaded),
            (200, anthropic("overloaded_error", "Overloaded"), Overloaded),
            (429, anthropic("rate_limit_error", "slow down"), RateLimit),
            (
                401,
                anthropic("authentication_error", "invalid x-api-key"),
                InvalidKey,
            ),
            (403, anthropic("permission_error", "no"), Permission),
            (404, anthropic("not_found_error", "model: x"), NotFound),
            (413, anthropic("request_too_large", "big"), TooLarge),
            (500, anthropic("api_error", "oops"), Server),
            (
                400,
                anthropic("invalid_request_error", "messages: empty"),
                BadRequest,
            ),
            (
                400,
                anthropic("invalid_request_error", "prompt is too long: 2 > 1"),
                ContextTooLong,
            ),
            (
                400,
                anthropic("invalid_request_error", "Your credit balance is too low"),
                Quota,
            ),
            (
                429,
                json!({"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "no"}}),
                Quota,
            ),
            (
                429,
                json!({"error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "no"}}),
                RateLimit,
            ),
            (
                401,
                json!({"error": {"type": "invalid_request_error", "code": "invalid_api_key", "message": "no"}}),
                InvalidKey,
            ),
            (
                400,
                json!({"error": {"type": "invalid_request_error", "code": "context_length_exceeded", "message": ""}}),
                ContextTooLong,
            ),
            (404, json!({"error": "model 'x' not found"}), NotFound),
            (
                200,
                json!({"error": {"message": "busy", "code": 502}}),
                Server,
            ),
            (
                400,
                json!({"object": "error", "message": "bad", "code": 400}),
                BadRequest,
            ),
            (
                422,
                json!({"detail": [{"msg": "field required"}]}),
                BadRequest,
            ),
            (
                429,
                json!([{"error": {"code": 429, "message": "x"}}]),
                RateLimit,
            ),
        ] {
            assert_eq!(class(status, body.clone()), expected, "{status} {body}");
        }
        assert_eq!(Fault::from_json(200, &json!({"choices": []})), None);
        assert_eq!(Fault::from_json(200, &json!({"error": null})), None);
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        assert!(FaultClass::RateLimit.is_retryable());
        assert!(FaultClass::Overloaded.is_retryable());
        assert!(!FaultClass::Quota.is_retryable());
        assert!(!FaultClass::InvalidKey.is_retryable());
        assert!(!FaultClass::BadRequest.is_retryable());
    }

    #[test]
    fn a_message_is_bounded_and_shows_no_key() {
        let body = json!({"error": {"message": format!("Incorrect API key: sk-proj-abc***xyz.\n{}", "x".repeat(9999))}});
        let fault = Fault::from_json(401, &body).unwrap();
        assert!(
            fault.message.starts_with("Incorrect API key: [key] xxx"),
            "{fault}"
        );
        assert_eq!(fault.message.chars().count(), MESSAGE_CHARS + 1);
        assert!(!fault.message.contains('\n'));
    }

    #[test]
    fn a_page_of_a_proxy_becomes_its_status() {
        let fault = Fault::from_bytes(502, b"<html><h1>Bad gateway</h1>").unwrap();
        assert_eq!(fault.class, FaultClass::Server);
        assert_eq!(fault.to_string(), "HTTP status 502");
        assert_eq!(
            Fault::from_bytes(503, b"try later").unwrap().message,
            "try later"
        );
        assert_eq!(Fault::from_bytes(200, b"hello"), None);
    }

    #[test]
    fn the_wait_that_a_provider_asks_for_is_understood() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after =
            |value: &'static str| retry_after(|name| (name == "retry-after").then_some(value), now);
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(
            after("Sun, 06 Nov 1994 08:50:37 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("1e300"), Some(LONGEST_WAIT));
        assert_eq!(after("-3"), None);
        assert_eq!(after("soon"), None);
        let ms = retry_after(|name| (name == "retry-after-ms").then_some("1500"), now);
        assert_eq!(ms, Some(Duration::from_millis(1500)));
    }
}
