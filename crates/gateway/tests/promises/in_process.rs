//! Calls by the built-in agent and the planner.

use std::{sync::Arc, time::Duration};

use dialects::Dialect;
use domain::{Amount, Micros, Reason, budget::Refused};
use sha2::{Digest, Sha256};
use skep_gateway::{Bounds, Call, Error, FundsError, Limits};

use crate::{
    fixture::{
        KEY, MESSAGE, Purse, chat_body, chat_stream, gateway, gateway_at, grant, messages_body,
        messages_stream, spec,
    },
    upstream::{PATIENCE, Step, Upstream, chunks, json, plain, stream, stream_head},
};

#[tokio::test]
async fn a_stream_passes_byte_for_byte_is_metered_and_recorded_however_it_is_cut() {
    for (dialect, request, answer, tokens) in [
        (Dialect::ChatCompletions, chat_body(), chat_stream(), 18),
        (Dialect::Messages, messages_body(), messages_stream(), 25),
    ] {
        for size in [1, 3, 7, 64, 4096] {
            let upstream = Upstream::answering(stream(&answer, size)).await;
            let gateway = gateway(&upstream);
            let purse = Purse::with(100_000);
            let grant = grant(&gateway, &purse);
            let response = grant
                .call(Call::new(dialect, request.clone()))
                .await
                .unwrap();
            assert_eq!(response.status, 200);
            assert_eq!(response.headers["content-type"], "text/event-stream");
            let got = response.body.collect().await.unwrap();
            assert_eq!(Sha256::digest(&got), Sha256::digest(&answer), "{size}");

            // The end is told when the call is settled, and not before.
            let settled = purse.settled();
            assert_eq!(settled.len(), 1);
            let [settlement] = &settled[..] else { panic!() };
            assert_eq!(settlement.spent.tokens, tokens);
            assert!(settlement.metered && settlement.priced);
            assert!(settlement.spent.money > Micros(0));
            assert_eq!((settlement.call, settlement.status), (1, Some(200)));
            assert_eq!(settlement.model, "acme/claude-haiku-4-5");
            assert_eq!(settlement.request, request);
            assert_eq!(settlement.response, answer);
            assert_eq!(purse.account().committed.tokens, tokens);
            assert_eq!(purse.account().reserved, Amount::ZERO);
        }
    }
}

#[tokio::test]
async fn the_provider_sees_the_granted_model_and_its_key_and_no_other_byte_changed() {
    let mut upstream = Upstream::answering(stream(&chat_stream(), 100)).await;
    let gateway = gateway(&upstream);
    let grant = grant(&gateway, &Purse::with(100_000));
    for name in ["skep", "claude-haiku-4-5", "acme/claude-haiku-4-5"] {
        let asked = String::from_utf8(chat_body().to_vec()).unwrap();
        let asked = asked.replace("\"skep\"", &format!("\"{name}\""));
        let call = Call::new(Dialect::ChatCompletions, asked.clone());
        grant
            .call(call)
            .await
            .unwrap()
            .body
            .collect()
            .await
            .unwrap();
        let seen = upstream.seen().await;
        let body = String::from_utf8(seen.body.clone()).unwrap();
        assert_eq!(
            body,
            asked.replace(&format!("\"{name}\""), "\"claude-haiku-4-5\"")
        );
        assert_eq!(seen.line(), "POST /v1/chat/completions HTTP/1.1");
        let bearer = format!("Bearer {KEY}");
        assert_eq!(seen.header("authorization"), Some(&*bearer));
        assert_eq!(seen.header("x-api-key"), None);
    }
    assert_eq!(upstream.connections(), 1, "the connection is used again");
}

#[tokio::test]
async fn a_stream_that_would_not_tell_its_usage_is_asked_to() {
    let mut upstream = Upstream::answering(stream(&chat_stream(), 100)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let call = Call::new(
        Dialect::ChatCompletions,
        r#"{"model":"skep","stream":true,"messages":[]}"#,
    );
    grant
        .call(call)
        .await
        .unwrap()
        .body
        .collect()
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8(upstream.seen().await.body).unwrap(),
        r#"{"model":"claude-haiku-4-5","stream":true,"messages":[],"stream_options":{"include_usage":true}}"#
    );
    assert_eq!(purse.settled()[0].spent.tokens, 18);
}

#[tokio::test]
async fn what_the_budget_cannot_pay_never_reaches_the_provider() {
    let upstream = Upstream::answering(json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(120);
    let grant = grant(&gateway, &purse);
    let call = Call::new(Dialect::Messages, messages_body());
    let error = grant.call(call).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Funds(FundsError::Refused(Refused::Exhausted(_)))
        ),
        "{error:?}"
    );
    assert_eq!(error.reason(), Reason::BudgetExhausted);
    assert_eq!(
        error.chain(),
        "the call cannot be paid: the budget has not enough tokens left"
    );
    assert_eq!(upstream.connections(), 0);
    assert!(purse.settled().is_empty());
    assert_eq!(purse.account().free.tokens, 120);
    assert_eq!(grant.calls(), 0);
}

#[tokio::test]
async fn a_model_that_was_not_granted_is_refused_before_anything_is_spent() {
    let upstream = Upstream::answering(json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let mut spec = spec(&gateway, &purse);
    let route = |name| {
        gateway
            .providers()
            .route(Some(name), &Dialect::ALL)
            .unwrap()
    };
    spec.others = vec![route("acme/small")];
    let grant = gateway.grant(spec);
    let ask = |model: &str| {
        let body = format!(r#"{{"model":"{model}","max_tokens":9,"messages":[]}}"#);
        grant.call(Call::new(Dialect::Messages, body))
    };
    let error = ask("claude-opus-5-5").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model `claude-opus-5-5` is not granted: use `skep` or `claude-haiku-4-5` or `small`"
    );
    assert_eq!(upstream.connections(), 0);
    assert_eq!(purse.account().free.tokens, 100_000);
    ask("small").await.unwrap().body.collect().await.unwrap();
    assert_eq!(purse.settled()[0].model, "acme/small");
    assert!(!purse.settled()[0].priced);
}

#[tokio::test]
async fn a_caller_that_goes_away_in_mid_stream_ends_the_call_and_pays_the_reservation_once() {
    let mut script = vec![stream_head()];
    script.extend(chunks(&messages_stream()[..200], 50));
    script.push(Step::AwaitClose);
    let mut upstream = Upstream::answering(script).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let call = Call::new(Dialect::Messages, messages_body());
    let mut response = grant.call(call).await.unwrap();
    assert!(response.body.chunk().await.unwrap().is_some());
    drop(response);
    upstream.closed(1).await;
    let settled = purse.wait(1).await;
    assert_eq!(settled[0].spent, settled[0].reserved);
    assert!(!settled[0].metered && settled[0].spent.tokens > 100);
    grant.close().await;
    assert_eq!(purse.settled().len(), 1);
    assert_eq!(purse.account().reserved, Amount::ZERO);
}

#[tokio::test]
async fn a_caller_that_goes_away_before_the_answer_pays_the_reservation_once() {
    let mut upstream = Upstream::answering(vec![Step::AwaitClose]).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let caller = grant.clone();
    let task = tokio::spawn(async move {
        caller
            .call(Call::new(Dialect::Messages, messages_body()))
            .await
    });
    upstream.seen().await;
    task.abort();
    let settled = purse.wait(1).await;
    assert_eq!(settled[0].spent, settled[0].reserved);
    assert_eq!(settled[0].status, None);
    upstream.closed(1).await;
    grant.close().await;
    assert_eq!(purse.settled().len(), 1);
}

#[tokio::test]
async fn a_revoked_grant_cuts_its_streams_and_refuses_at_once() {
    let mut script = vec![stream_head()];
    script.extend(chunks(&messages_stream()[..200], 50));
    script.push(Step::AwaitClose);
    let mut upstream = Upstream::answering(script).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let spec = spec(&gateway, &purse);
    let cancel = spec.cancel.clone();
    let grant = gateway.grant(spec);
    let call = || Call::new(Dialect::Messages, messages_body());
    let mut response = grant.call(call()).await.unwrap();
    assert!(response.body.chunk().await.unwrap().is_some());
    cancel.cancel();
    let error = response.body.collect().await.unwrap_err();
    assert!(matches!(error, Error::Revoked), "{error:?}");
    assert!(matches!(grant.call(call()).await, Err(Error::Revoked)));
    upstream.closed(1).await;
    grant.close().await;
    let settled = purse.settled();
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].spent, settled[0].reserved);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn what_is_revoked_between_reservation_and_call_costs_nothing() {
    let upstream = Upstream::answering(json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let mut purse = Purse::with(100_000);
    let cancel = tokio_util::sync::CancellationToken::new();
    Arc::get_mut(&mut purse).unwrap().cancels = Some(cancel.clone());
    let mut spec = spec(&gateway, &purse);
    spec.cancel = cancel;
    let grant = gateway.grant(spec);
    let call = Call::new(Dialect::Messages, messages_body());
    assert!(matches!(grant.call(call).await, Err(Error::Revoked)));
    grant.close().await;
    assert_eq!(purse.settled()[0].spent, Amount::ZERO);
    assert_eq!(purse.account().free.tokens, 100_000);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn closing_a_grant_settles_a_call_whose_answer_nobody_reads() {
    let long = "x".repeat(1 << 20);
    let body = format!("data: {{\"x\":\"{long}\"}}\n\n");
    let mut script = vec![stream_head()];
    script.extend(chunks(body.as_bytes(), 4096));
    script.push(Step::AwaitClose);
    let upstream = Upstream::answering(script).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let call = Call::new(Dialect::ChatCompletions, chat_body());
    let response = grant.call(call).await.unwrap();
    tokio::time::timeout(PATIENCE, grant.close()).await.unwrap();
    assert_eq!(purse.settled().len(), 1);
    drop(response);
}

#[tokio::test]
async fn dropping_the_last_handle_revokes_the_grant() {
    let upstream = Upstream::answering(vec![stream_head(), Step::AwaitClose]).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let call = Call::new(Dialect::Messages, messages_body());
    let response = grant.call(call).await.unwrap();
    drop(grant);
    assert!(matches!(response.body.collect().await, Err(Error::Revoked)));
    assert_eq!(purse.settled().len(), 1);
}

#[tokio::test]
async fn calls_beyond_the_limit_at_once_wait_and_beyond_the_limit_in_all_are_refused() {
    let held = vec![stream_head(), Step::AwaitClose];
    let upstream = Upstream::start(vec![held.clone(), held, json(200, MESSAGE)]).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let mut spec = spec(&gateway, &purse);
    spec.limits = Limits {
        concurrent: 2,
        calls: 3,
    };
    let grant = gateway.grant(spec);
    let call = || grant.call(Call::new(Dialect::Messages, messages_body()));
    let first = call().await.unwrap();
    let second = call().await.unwrap();
    let third = call();
    tokio::pin!(third);
    assert!(futures_poll(&mut third).await.is_none());
    assert_eq!(upstream.connections(), 2);
    drop(first);
    third.await.unwrap().body.collect().await.unwrap();
    drop(second);
    purse.wait(3).await;
    let error = call().await.unwrap_err();
    assert!(matches!(error, Error::CallLimit { limit: 3 }), "{error:?}");
    assert_eq!(grant.calls(), 3);
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_are_each_settled_once_and_numbered_without_gaps() {
    let upstream = Upstream::answering(json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(1_000_000);
    let grant = grant(&gateway, &purse);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let grant = grant.clone();
        tasks.spawn(async move {
            let call = Call::new(Dialect::Messages, messages_body());
            grant
                .call(call)
                .await
                .unwrap()
                .body
                .collect()
                .await
                .unwrap()
        });
    }
    for body in tasks.join_all().await {
        assert_eq!(body, MESSAGE);
    }
    let mut numbers: Vec<u64> = purse.settled().iter().map(|s| s.call).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    assert_eq!(purse.account().committed.tokens, 250);
    // A connection is used again; how often depends on who is first when one becomes free.
    assert!(upstream.connections() < 50);
}

// docs/bad-input.md: A model that never answers
#[tokio::test]
async fn a_provider_that_takes_too_long_is_given_up_and_the_reservation_is_spent() {
    let limit = Duration::from_secs(1);
    let idle = Bounds {
        idle: limit,
        ..Bounds::default()
    };
    let total = Bounds {
        total: limit,
        ..Bounds::default()
    };
    let mut stalled = vec![stream_head()];
    stalled.extend(chunks(&messages_stream()[..150], 50));
    stalled.push(Step::AwaitClose);
    let mut all = tokio::task::JoinSet::new();
    for (bounds, script, status) in [
        (idle, vec![Step::AwaitClose], None),
        (idle, stalled.clone(), Some(200)),
        (total, vec![Step::AwaitClose], None),
        (total, stalled, Some(200)),
    ] {
        all.spawn(async move {
            let mut upstream = Upstream::answering(script).await;
            let gateway = gateway_at(&upstream.url(), bounds);
            let purse = Purse::with(100_000);
            let grant = grant(&gateway, &purse);
            let call = Call::new(Dialect::Messages, messages_body());
            let error = match grant.call(call).await {
                Ok(response) => response.body.collect().await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(error.reason(), Reason::TimedOut, "{error:?}");
            let settled = purse.settled();
            assert_eq!(settled.len(), 1);
            assert_eq!(settled[0].spent, settled[0].reserved);
            assert_eq!(settled[0].status, status);
            upstream.closed(1).await;
        });
    }
    all.join_all().await;
}

// docs/bad-input.md: A model that sends one byte a minute
#[tokio::test]
async fn a_stream_that_never_rests_and_never_ends_is_given_up_when_its_whole_time_is_over() {
    let bounds = Bounds {
        idle: Duration::from_millis(800),
        total: Duration::from_secs(2),
        ..Bounds::default()
    };
    let drop = Step::Drip(b"1\r\n:\r\n".to_vec(), Duration::from_millis(50));
    let mut upstream = Upstream::answering(vec![stream_head(), drop]).await;
    let gateway = gateway_at(&upstream.url(), bounds);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let call = Call::new(Dialect::Messages, messages_body());
    let error = match grant.call(call).await {
        Ok(response) => response.body.collect().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.reason(), Reason::TimedOut, "{error:?}");
    let settled = purse.wait(1).await;
    assert_eq!(settled[0].spent, settled[0].reserved);
    upstream.closed(1).await;
}

// docs/bad-input.md: A model that sends one byte a minute
#[tokio::test]
async fn a_slow_stream_that_keeps_coming_is_not_given_up() {
    // Many more chunks than fit the idle time together, each well within it.
    let upstream = Upstream::answering(stream(&messages_stream(), 1)).await;
    let bounds = Bounds {
        idle: Duration::from_secs(5),
        ..Bounds::default()
    };
    let gateway = gateway_at(&upstream.url(), bounds);
    let grant = grant(&gateway, &Purse::with(100_000));
    let call = Call::new(Dialect::Messages, messages_body());
    let response = grant.call(call).await.unwrap();
    assert_eq!(response.body.collect().await.unwrap(), messages_stream());
}

#[tokio::test]
async fn a_provider_that_is_not_there_costs_nothing() {
    let address = crate::fixture::listener().local_addr().unwrap();
    let gateway = gateway_at(&format!("http://{address}"), Bounds::default());
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let call = Call::new(Dialect::Messages, messages_body());
    let error = grant.call(call).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable);
    assert!(error.failure().detail.contains("acme"), "{error:?}");
    let settled = purse.settled();
    assert_eq!((settled[0].spent, settled[0].status), (Amount::ZERO, None));
    assert_eq!(purse.account().free.tokens, 100_000);
}

#[tokio::test]
async fn a_provider_that_does_not_prove_who_it_is_gets_no_key() {
    let upstream = Upstream::answering(json(200, MESSAGE)).await;
    let address = upstream.url().replace("http://", "https://");
    let bounds = Bounds {
        connect: Duration::from_secs(1),
        ..Bounds::default()
    };
    let gateway = gateway_at(&address, bounds);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let call = grant.call(Call::new(Dialect::Messages, messages_body()));
    // This one never answers the greeting of TLS.
    let error = tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable, "{error:?}");
    assert_eq!(purse.settled()[0].spent, Amount::ZERO);
}

// docs/bad-input.md: A model that breaks off in mid-answer
#[tokio::test]
async fn an_answer_that_is_cut_or_too_large_fails_and_spends_the_reservation() {
    let mut cut = vec![stream_head()];
    cut.extend(chunks(&messages_stream()[..300], 70));
    cut.push(Step::Close);
    let mut quiet = vec![stream_head()];
    quiet.extend(chunks(&messages_stream()[..300], 70));
    quiet.push(Step::Write(b"0\r\n\r\n".to_vec()));
    let large = stream(&vec![b'x'; 70_000], 8_192);
    let gone = vec![Step::Close];
    for (script, reason) in [
        (cut, Reason::ProviderFailed),
        (quiet, Reason::ProviderFailed),
        (large, Reason::BadAnswer),
        (gone, Reason::ProviderFailed),
    ] {
        let upstream = Upstream::answering(script).await;
        let bounds = Bounds {
            response_bytes: 64 << 10,
            ..Bounds::default()
        };
        let gateway = gateway_at(&upstream.url(), bounds);
        let purse = Purse::with(100_000);
        let grant = grant(&gateway, &purse);
        let call = Call::new(Dialect::Messages, messages_body());
        let error = match grant.call(call).await {
            Ok(response) => response.body.collect().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.reason(), reason, "{error:?}");
        let settled = purse.wait(1).await;
        assert_eq!(settled.len(), 1);
        assert_eq!(settled[0].spent, settled[0].reserved, "{error:?}");
        assert!(settled[0].response.len() <= 64 << 10);
    }
}

#[tokio::test]
async fn an_account_that_cannot_be_written_ends_the_answer_with_an_error() {
    let upstream = Upstream::answering(json(200, MESSAGE)).await;
    let gateway = gateway(&upstream);
    let mut purse = Purse::with(100_000);
    Arc::get_mut(&mut purse).unwrap().broken = true;
    let grant = grant(&gateway, &purse);
    let call = Call::new(Dialect::Messages, messages_body());
    let response = grant.call(call).await.unwrap();
    let error = response.body.collect().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Storage);
    assert!(error.chain().ends_with("the disk is full"), "{error:?}");
}

#[tokio::test]
async fn a_path_that_is_not_a_models_is_not_served() {
    let upstream = Upstream::answering(plain(200, "text/html", "")).await;
    let gateway = gateway(&upstream);
    let grant = grant(&gateway, &Purse::with(100_000));
    for path in ["/v1/files", "/v1/models", "/v1/messages/batches", ""] {
        let call = Call {
            path: path.into(),
            body: messages_body(),
        };
        let error = grant.call(call).await.unwrap_err();
        assert!(matches!(error, Error::NotServed { .. }), "{error:?}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_tool_that_the_provider_would_run_on_the_network_is_refused_before_any_spend() {
    let upstream = Upstream::answering(stream(&messages_stream(), 100)).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(100_000);
    let grant = grant(&gateway, &purse);
    let body = String::from_utf8(messages_body().to_vec())
        .unwrap()
        .replacen(
            '{',
            r#"{"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}],"#,
            1,
        );
    let refused = grant
        .call(Call::new(Dialect::Messages, body))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::RemoteTools { .. }), "{refused}");
    assert!(refused.to_string().contains("web_fetch"));
    assert_eq!(purse.account().committed, Amount::ZERO);
    assert_eq!(upstream.connections(), 0);
}
