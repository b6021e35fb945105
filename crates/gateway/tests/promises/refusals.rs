//! What a provider refuses, told to callers in this process with its reason.

use std::time::Duration;

use dialects::Dialect;
use domain::{Amount, Reason};
use skep_gateway::Call;

use crate::{
    fixture::{Purse, gateway, grant, messages_body},
    upstream::{Step, Upstream, json, plain, stream, with_headers},
};

fn error(kind: &str) -> String {
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"said by the provider"}}}}"#)
}

async fn fails(script: Vec<Step>) -> (skep_gateway::Error, skep_gateway::Settlement) {
    let upstream = Upstream::answering(script).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let call = Call::new(Dialect::Messages, messages_body());
    let error = match grant.call(call).await {
        Ok(response) => response.body.collect().await.unwrap_err(),
        Err(error) => error,
    };
    let settled = purse.wait(1).await;
    assert_eq!(settled.len(), 1);
    (error, settled[0].clone())
}

#[tokio::test]
async fn each_refusal_has_its_reason_and_costs_nothing() {
    for (status, kind, reason) in [
        (401, "authentication_error", Reason::Unauthorized),
        (403, "permission_error", Reason::Unauthorized),
        (404, "not_found_error", Reason::ModelNotFound),
        (429, "rate_limit_error", Reason::RateLimited),
        (400, "invalid_request_error", Reason::AgentFailed),
        (500, "api_error", Reason::ProviderFailed),
        (529, "overloaded_error", Reason::ProviderFailed),
    ] {
        let (error, settled) = fails(json(status, &error(kind))).await;
        assert_eq!(error.reason(), reason, "{status}");
        assert!(error.to_string().contains("said by the provider"));
        assert_eq!(settled.status, Some(status));
        assert_eq!(settled.spent, Amount::ZERO, "{status}");
        assert!(settled.response.ends_with(b"}}"), "{status}");
    }
}

#[tokio::test]
async fn the_wait_that_a_provider_asks_for_is_told() {
    for (headers, wait) in [
        ("retry-after: 7\r\n", Some(7_000)),
        ("retry-after: 7\r\nretry-after-ms: 250\r\n", Some(250)),
        ("", None),
    ] {
        let headers = format!("content-type: application/json\r\n{headers}");
        let (error, _) = fails(with_headers(429, &headers, &error("rate_limit_error"))).await;
        assert_eq!(error.retry_after(), wait.map(Duration::from_millis));
    }
}

#[tokio::test]
async fn what_is_not_the_protocol_is_a_bad_answer() {
    let page = "<html><body>Welcome to the hotel</body></html>";
    for (script, words) in [
        (plain(200, "text/html; charset=utf-8", page), "text/html"),
        (plain(404, "text/html", page), "text/html"),
        (json(200, "so long"), "not its protocol"),
        (json(200, ""), "nothing"),
        (stream(b"data: rubbish\n\n", 9), "not its protocol"),
        (stream(b"", 9), "nothing"),
        (
            with_headers(302, "location: http://elsewhere/\r\n", ""),
            "status 302",
        ),
    ] {
        let (error, settled) = fails(script).await;
        assert_eq!(error.reason(), Reason::BadAnswer, "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("check the base URL"), "{error}");
        if settled.status != Some(404) {
            assert_eq!(settled.spent, settled.reserved, "{error}");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_gateway_between_is_a_failure_whose_cost_is_unknown() {
    for status in [502, 504, 503] {
        let (error, settled) = fails(plain(status, "text/html", "<html>bad gateway</html>")).await;
        assert_eq!(error.reason(), Reason::ProviderFailed, "{error:?}");
        assert_eq!(settled.spent, settled.reserved, "{status}");
        assert!(!settled.metered);
    }
}

#[tokio::test]
async fn an_error_inside_a_stream_is_an_error() {
    let said = error("overloaded_error");
    let only = format!("event: error\ndata: {said}\n\n");
    let (error, settled) = fails(stream(only.as_bytes(), 11)).await;
    assert_eq!(error.reason(), Reason::ProviderFailed, "{error:?}");
    assert_eq!(settled.spent, Amount::ZERO, "the model had not begun");

    let mut later = crate::fixture::messages_stream();
    later.truncate(later.len() - 180);
    let cut = later.windows(2).rposition(|w| w == b"\n\n").unwrap();
    later.truncate(cut + 2);
    later.extend_from_slice(only.as_bytes());
    let (error, settled) = fails(stream(&later, 64)).await;
    assert_eq!(error.reason(), Reason::ProviderFailed, "{error:?}");
    assert_eq!(settled.spent, settled.reserved, "the model had begun");
}
