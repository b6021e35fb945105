//! A provider's key stays with the provider.

use dialects::Dialect;
use skep_gateway::Call;

use crate::{
    fixture::{Agent, KEY, Purse, bytes_of, chat_body, gateway, grant, listener, messages_body},
    upstream::{Upstream, stream, with_headers},
};

#[tokio::test]
async fn a_key_that_a_provider_repeats_is_in_no_answer_no_recording_and_no_error() {
    let refusal = format!(
        r#"{{"error":{{"type":"authentication_error","message":"bad key ({KEY}) {KEY}"}}}}"#
    );
    let headers = format!(
        "content-type: application/json\r\nx-request-id: {KEY}\r\nset-cookie: a={KEY}\r\nx-other: {KEY}\r\n"
    );
    let upstream = Upstream::answering(with_headers(401, &headers, &refusal)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);

    let call = Call::new(Dialect::Messages, messages_body());
    let error = grant.call(call).await.unwrap_err();
    let told = format!("{error} {error:?} {} {:?}", error.chain(), error.failure());
    assert!(told.contains("bad key") && !told.contains(KEY), "{told}");

    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let answer = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    assert_eq!(answer.status(), 401);
    let heads = format!("{:?}", answer.headers());
    assert!(!heads.contains(KEY) && !heads.contains("cookie"), "{heads}");
    let body = bytes_of(answer).await;
    assert_eq!(body, refusal.replace(KEY, &"*".repeat(KEY.len())));

    for settlement in purse.wait(2).await {
        let kept = format!("{settlement:?}");
        assert!(!kept.contains(KEY) && !kept.contains("cookie"), "{kept}");
    }
    assert!(!format!("{gateway:?} {grant:?}").contains(KEY));
    assert_eq!(
        gateway.redact(format!("[{KEY}]")),
        format!("[{}]", "*".repeat(KEY.len()))
    );
}

#[tokio::test]
async fn a_key_that_is_cut_into_chunks_is_found() {
    let answer = format!("data: {{\"a\":\"{KEY}\"}}\n\ndata: sk-live-012345\n\n");
    for size in [1, 5, 13, 40] {
        let upstream = Upstream::answering(stream(answer.as_bytes(), size)).await;
        let gateway = gateway(&upstream);
        let purse = Purse::with(100_000);
        let grant = grant(&gateway, &purse);
        let served = grant.serve(listener()).unwrap();
        let mut agent = Agent::connect(served.address()).await;
        let got = agent
            .send("POST", "/v1/chat/completions", &[], chat_body())
            .await;
        let masked = answer.replace(KEY, &"*".repeat(KEY.len()));
        assert_eq!(bytes_of(got).await, masked, "{size}");
        assert_eq!(purse.wait(1).await[0].response, masked);
    }
}

#[tokio::test]
async fn a_key_in_a_request_is_not_recorded() {
    let upstream = Upstream::answering(stream(b"data: [DONE]\n\n", 64)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let body = format!(r#"{{"model":"skep","messages":[{{"role":"user","content":"{KEY}"}}]}}"#);
    let call = Call::new(Dialect::ChatCompletions, body);
    grant
        .call(call)
        .await
        .unwrap()
        .body
        .collect()
        .await
        .unwrap();
    let kept = purse.settled()[0].request.clone();
    assert!(!kept.windows(KEY.len()).any(|w| w == KEY.as_bytes()));
}

#[tokio::test]
async fn nothing_of_the_agents_own_credentials_reaches_the_provider() {
    let mut upstream = Upstream::answering(stream(b"data: [DONE]\n\n", 64)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let headers = [
        ("authorization", "Bearer agents-own"),
        ("x-api-key", "agents-own"),
        ("cookie", "agents-own"),
        ("openai-organization", "agents-own"),
        ("x-forwarded-for", "agents-own"),
        ("accept-encoding", "gzip, br"),
        ("anthropic-version", "2024-10-22"),
        ("anthropic-beta", "context-1,tools-2"),
    ];
    let path = "/v1/messages?beta=true&evil=agents-own";
    let answer = agent.send("POST", path, &headers, messages_body()).await;
    bytes_of(answer).await;
    let seen = upstream.seen().await;
    assert!(!seen.head.contains("agents-own"), "{}", seen.head);
    assert_eq!(seen.line(), "POST /v1/messages?beta=true HTTP/1.1");
    assert_eq!(seen.header("x-api-key"), Some(KEY));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("anthropic-version"), Some("2024-10-22"));
    assert_eq!(seen.header("anthropic-beta"), Some("context-1,tools-2"));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    let kept = purse.wait(1).await;
    assert!(!format!("{:?}", kept[0].response).contains("agents-own"));

    let answer = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    bytes_of(answer).await;
    let seen = upstream.seen().await;
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
}
