//! The gateway's own errors, in the form that the agent's client understands.

use bytes::Bytes;
use dialects::Dialect;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::{body::Body, error::Error, funds, redact::Redactor};

/// The answer to a call that the gateway refuses, or that failed before there was an answer.
pub(crate) fn response(error: &Error, dialect: Dialect, redactor: &Redactor) -> Response<Body> {
    let (status, kind) = status_and_kind(error);
    let message = redactor.text(error.chain());
    let body = match dialect {
        Dialect::Messages => json!({
            "type": "error",
            "error": {"type": kind, "message": message},
        }),
        Dialect::ChatCompletions => json!({
            "error": {"message": message, "type": kind, "param": null, "code": kind},
        }),
    };
    let mut response = whole(status, body.to_string());
    // What the vendors' clients go by, before the status.
    let again = matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    );
    response.headers_mut().insert(
        "x-should-retry",
        HeaderValue::from_static(if again { "true" } else { "false" }),
    );
    response
}

/// An answer of the gateway's own.
pub(crate) fn whole(status: StatusCode, json: String) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::from(json), None));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn status_and_kind(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::Revoked | Error::Abandoned => (StatusCode::FORBIDDEN, "grant_revoked"),
        Error::NotServed { .. } | Error::OtherDialect { .. } => {
            (StatusCode::NOT_FOUND, "not_found_error")
        }
        Error::Request(_) => (StatusCode::BAD_REQUEST, "invalid_request_error"),
        Error::RequestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
        Error::ModelNotAllowed { .. } | Error::RemoteTools { .. } => {
            (StatusCode::FORBIDDEN, "permission_error")
        }
        Error::CallLimit { .. } | Error::Funds(funds::Error::Refused(_)) => {
            (StatusCode::PAYMENT_REQUIRED, "budget_exhausted")
        }
        Error::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        Error::Funds(funds::Error::Unavailable { .. }) | Error::Setup { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "api_error")
        }
        Error::Unreachable { .. }
        | Error::Cut { .. }
        | Error::AnswerTooLarge { .. }
        | Error::Provider { .. }
        | Error::BadAnswer { .. }
        | Error::Recorded { .. } => (StatusCode::BAD_GATEWAY, "api_error"),
        Error::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout_error"),
        Error::Diverged(_) => (StatusCode::CONFLICT, "replay_diverged"),
    }
}
