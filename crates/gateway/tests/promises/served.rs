//! A grant as an agent in a sandbox sees it.

use std::io::ErrorKind;

use domain::Amount;
use http_body_util::BodyExt;
use serde_json::json;
use skep_gateway::{Bounds, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    fixture::{
        Agent, MESSAGE, Purse, bytes_of, chat_body, chat_stream, gateway, gateway_at, grant,
        json_of, listener, messages_body, messages_stream, spec,
    },
    upstream::{
        PATIENCE, Step, Upstream, chunks, json as answer_json, stream, stream_head, with_headers,
    },
};

#[tokio::test]
async fn an_agent_gets_the_providers_bytes_in_both_dialects() {
    for (path, body, answer, tokens) in [
        ("/v1/chat/completions", chat_body(), chat_stream(), 18),
        (
            "/v1/messages?beta=true",
            messages_body(),
            messages_stream(),
            25,
        ),
    ] {
        let upstream = Upstream::answering(stream(&answer, 13)).await;
        let gateway = gateway(&upstream);
        let purse = Purse::with(100_000);
        let grant = grant(&gateway, &purse);
        let served = grant.serve(listener()).unwrap();
        let mut agent = Agent::connect(served.address()).await;
        for n in 1..=3 {
            let response = agent.send("POST", path, &[], body.clone()).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "text/event-stream");
            assert_eq!(bytes_of(response).await, answer);
            let settled = purse.settled();
            assert_eq!(settled.len(), n, "settled before the end is told");
            assert_eq!(settled[n - 1].spent.tokens, tokens);
            assert_eq!(settled[n - 1].path, path);
        }
        assert_eq!(upstream.connections(), 1);
        served.close().await;
    }
}

#[tokio::test]
async fn an_answer_with_a_length_keeps_it_and_is_settled_before_its_last_byte() {
    let upstream = Upstream::answering(answer_json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let served = grant(&gateway, &purse);
    let served = served.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let response = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    assert_eq!(
        response.headers()["content-length"],
        MESSAGE.len().to_string()
    );
    assert_eq!(bytes_of(response).await, MESSAGE);
    assert_eq!(purse.settled()[0].spent.tokens, 5);
}

#[tokio::test]
async fn a_providers_error_reaches_the_agent_as_it_is() {
    for (status, headers, body) in [
        (
            429,
            "content-type: application/json\r\nretry-after: 3\r\n",
            r#"{"error": "slow"}"#,
        ),
        (
            529,
            "content-type: application/json\r\n",
            r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
        ),
        (502, "content-type: text/html\r\n", "<html>bad</html>"),
        (401, "", "no"),
    ] {
        let upstream = Upstream::answering(with_headers(status, headers, body)).await;
        let gateway = gateway(&upstream);
        let grant = grant(&gateway, &Purse::with(100_000));
        let served = grant.serve(listener()).unwrap();
        let mut agent = Agent::connect(served.address()).await;
        let response = agent
            .send("POST", "/v1/messages", &[], messages_body())
            .await;
        assert_eq!(response.status(), status);
        let wait = response.headers().get("retry-after").cloned();
        assert_eq!(wait.is_some(), status == 429);
        assert_eq!(bytes_of(response).await, body);
    }
}

#[tokio::test]
async fn the_gateways_own_refusals_are_in_the_agents_dialect() {
    let upstream = Upstream::answering(answer_json(200, MESSAGE)).await;
    let gateway = gateway_at(
        &upstream.url(),
        Bounds {
            request_bytes: 2_000,
            ..Bounds::default()
        },
    );
    let poor = Purse::with(50);
    let grant = grant(&gateway, &poor);
    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;

    for (path, body) in [
        ("/v1/messages", messages_body()),
        ("/v1/chat/completions", chat_body()),
    ] {
        let response = agent.send("POST", path, &[], body).await;
        assert_eq!(response.status(), 402);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let body = json_of(response).await;
        assert_eq!(body["error"]["type"], "budget_exhausted", "{body}");
        assert_eq!(body["type"] == "error", path == "/v1/messages");
        assert_eq!(
            body["error"]["message"],
            "the call cannot be paid: the budget has not enough tokens left"
        );
    }
    let other = r#"{"model":"other","messages":[]}"#;
    let response = agent.send("POST", "/v1/messages", &[], other).await;
    assert_eq!(response.status(), 403);
    assert_eq!(json_of(response).await["error"]["type"], "permission_error");

    let response = agent.send("POST", "/v1/messages", &[], "{").await;
    assert_eq!(response.status(), 400);

    for (method, path) in [
        ("GET", "/"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/messages"),
        ("DELETE", "/v1/models"),
    ] {
        let mut agent = Agent::connect(served.address()).await;
        let response = agent.send(method, path, &[], "").await;
        assert_eq!(response.status(), 404, "{method} {path}");
        let body = json_of(response).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("nothing is served at "), "{message}");
    }

    for (method, path) in [("CONNECT", "elsewhere:443"), ("GET", "http://elsewhere/")] {
        let mut agent = Agent::connect(served.address()).await;
        let response = agent.send(method, path, &[], "").await;
        assert_eq!(response.status(), 403, "{method} {path}");
        let words = bytes_of(response).await;
        let words = String::from_utf8_lossy(&words);
        assert!(words.contains("nothing may leave this sandbox"), "{words}");
    }

    let mut agent = Agent::connect(served.address()).await;
    let response = agent
        .send("POST", "/v1/messages", &[], vec![b' '; 2_001])
        .await;
    assert_eq!(response.status(), 413);
    assert_eq!(
        json_of(response).await["error"]["type"],
        "request_too_large"
    );

    assert_eq!(upstream.connections(), 0);
    assert_eq!(poor.account().free.tokens, 50);
}

#[tokio::test]
async fn the_granted_models_are_listed_without_asking_anybody() {
    let upstream = Upstream::answering(vec![Step::Close]).await;
    let gateway = gateway(&upstream);
    let grant = grant(&gateway, &Purse::with(0));
    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let list = json_of(agent.send("GET", "/v1/models?limit=9", &[], "").await).await;
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["id"])
        .collect();
    assert_eq!(ids, [&json!("skep"), &json!("claude-haiku-4-5")]);
    assert_eq!(list["object"], "list");
    let one = json_of(agent.send("GET", "/v1/models/skep", &[], "").await).await;
    assert_eq!(
        (&one["id"], &one["object"]),
        (&json!("skep"), &json!("model"))
    );
    let none = agent.send("GET", "/v1/models/gpt", &[], "").await;
    assert_eq!(none.status(), 404);
    bytes_of(none).await;
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn counting_tokens_is_forwarded_and_free() {
    let mut upstream = Upstream::answering(answer_json(200, r#"{"input_tokens":12}"#)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(0);
    let mut spec = spec(&gateway, &purse);
    spec.limits = Limits {
        calls: 2,
        ..Limits::default()
    };
    let grant = gateway.grant(spec);
    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let path = "/v1/messages/count_tokens?beta=true";
    for _ in 0..2 {
        let response = agent.send("POST", path, &[], messages_body()).await;
        assert_eq!(json_of(response).await["input_tokens"], 12);
        let seen = upstream.seen().await;
        assert_eq!(seen.line(), format!("POST {path} HTTP/1.1"));
        assert!(seen.body.starts_with(br#"{"model":"claude-haiku-4-5""#));
    }
    let response = agent.send("POST", path, &[], messages_body()).await;
    assert_eq!(response.status(), 402, "free calls have a bound too");
    assert!(purse.settled().is_empty());
}

#[tokio::test]
async fn an_agent_that_disconnects_in_mid_stream_ends_the_call_which_is_settled_once() {
    let mut script = vec![stream_head()];
    script.extend(chunks(&messages_stream()[..200], 50));
    script.push(Step::AwaitClose);
    let mut upstream = Upstream::answering(script).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let mut response = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    response.frame().await.unwrap().unwrap();
    drop((response, agent));
    upstream.closed(1).await;
    let settled = purse.wait(1).await;
    assert_eq!(settled[0].spent, settled[0].reserved);
    served.close().await;
    grant.close().await;
    assert_eq!(purse.settled().len(), 1);
    assert_eq!(purse.account().reserved, Amount::ZERO);
}

// docs/bad-input.md: A model that breaks off in mid-answer
#[tokio::test]
async fn half_an_answer_does_not_look_whole_to_the_agent() {
    let mut script = vec![stream_head()];
    script.extend(chunks(&messages_stream()[..200], 50));
    script.push(Step::Close);
    let upstream = Upstream::answering(script).await;
    let gateway = gateway(&upstream);
    let grant = grant(&gateway, &Purse::with(100_000));
    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let response = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    let collected = tokio::time::timeout(PATIENCE, response.into_body().collect()).await;
    assert!(collected.unwrap().is_err());
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_told_in_the_agents_dialect() {
    let address = listener().local_addr().unwrap();
    let gateway = gateway_at(&format!("http://{address}"), Bounds::default());
    let grant = grant(&gateway, &Purse::with(100_000));
    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let response = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()["x-should-retry"], "true");
    let body = json_of(response).await;
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("api_error"))
    );
}

#[tokio::test]
async fn closing_ends_the_listener_the_connections_and_the_calls() {
    let upstream = Upstream::answering(vec![stream_head(), Step::AwaitClose]).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let served = grant.serve(listener()).unwrap();
    let address = served.address();
    let mut agent = Agent::connect(address).await;
    let response = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    served.close().await;
    assert!(response.into_body().collect().await.is_err());
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    purse.wait(1).await;

    // A grant that is revoked ends its servers by itself.
    let served = grant.serve(listener()).unwrap();
    let mut idle = TcpStream::connect(served.address()).await.unwrap();
    grant.revoke();
    let read = tokio::time::timeout(PATIENCE, idle.read(&mut [0; 8])).await;
    assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
    served.close().await;
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_more_connections_than_allowed_wait() {
    let upstream = Upstream::answering(answer_json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let grant = grant(&gateway, &Purse::with(100_000));
    let served = grant.serve(listener()).unwrap();

    let mut noise = TcpStream::connect(served.address()).await.unwrap();
    noise
        .write_all(b"\x16\x03\x01 not http\r\n\r\n")
        .await
        .unwrap();
    let mut said = Vec::new();
    noise.read_to_end(&mut said).await.ok();
    assert!(said.starts_with(b"HTTP/1.1 400"), "{said:?}");

    let mut head = TcpStream::connect(served.address()).await.unwrap();
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200 << 10));
    head.write_all(long.as_bytes()).await.ok();
    let mut said = Vec::new();
    head.read_to_end(&mut said).await.ok();
    assert!(
        said.is_empty() || said.starts_with(b"HTTP/1.1 431"),
        "{said:?}"
    );

    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(served.address()).await.unwrap());
    }
    let mut agent = Agent::connect(served.address()).await;
    let waiting = agent.send("GET", "/v1/models", &[], "");
    tokio::pin!(waiting);
    drop(idle);
    assert_eq!(waiting.await.status(), 200);
}

#[tokio::test]
async fn a_connection_that_is_not_the_agents_is_closed_unread() {
    let upstream = Upstream::answering(answer_json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let agents = std::sync::Arc::new(std::sync::OnceLock::new());
    let known = agents.clone();
    let admits = move |peer| known.get() == Some(&peer);
    let served = grant(&gateway, &purse)
        .serve_guarded(listener(), admits)
        .unwrap();
    let stranger = TcpStream::connect(served.address()).await;
    // The kernel may say the end of it as a reset, because what was sent is not read.
    let mut answer = Vec::new();
    let mut stranger = stranger.unwrap();
    let told = stranger.read_to_end(&mut answer).await;
    assert!(told.is_err() || answer.is_empty(), "{answer:?}");

    let stream = std::net::TcpStream::connect(served.address()).unwrap();
    agents.set(stream.local_addr().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut agent = TcpStream::from_std(stream).unwrap();
    let body = messages_body();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    agent.write_all(head.as_bytes()).await.unwrap();
    agent.write_all(&body).await.unwrap();
    agent.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    served.close().await;
}
