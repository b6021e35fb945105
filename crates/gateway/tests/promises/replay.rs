//! Recorded exchanges, played in place of a provider.

use bytes::Bytes;
use dialects::Dialect;
use domain::{Amount, Reason};
use skep_gateway::{Bounds, Call, Cassette, Diverged, Error, Grant, Mode, Recorded};

use crate::{
    fixture::{
        Agent, MESSAGE, Purse, bytes_of, chat_body, chat_stream, gateway, gateway_at, grant,
        listener, messages_body, messages_stream, recorded, spec,
    },
    upstream::{Step, Upstream, chunks, json, stream, stream_head},
};

fn ask(text: &str) -> Call {
    let body = format!(
        r#"{{"model":"skep","max_tokens":50,"messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"}}]}}]}}"#
    );
    Call::new(Dialect::Messages, body)
}

async fn record(
    calls: &[Call],
    scripts: Vec<Vec<Step>>,
) -> (Vec<Recorded>, Vec<Result<Bytes, Reason>>) {
    let upstream = Upstream::start(scripts).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(1_000_000);
    let grant = grant(&gateway, &purse);
    let answers = play(&grant, calls).await;
    (recorded(&purse.wait(calls.len()).await), answers)
}

async fn play(grant: &Grant, calls: &[Call]) -> Vec<Result<Bytes, Reason>> {
    let mut answers = Vec::new();
    for call in calls {
        answers.push(match grant.call(call.clone()).await {
            Ok(response) => response.body.collect().await.map_err(|e| e.reason()),
            Err(error) => Err(error.reason()),
        });
    }
    answers
}

/// A grant that replays, at a provider that is not there, without a penny.
fn replaying(exchanges: Vec<Recorded>) -> (Grant, Cassette, std::sync::Arc<Purse>) {
    let cassette = Cassette::load(exchanges).unwrap();
    let address = listener().local_addr().unwrap();
    let gateway = gateway_at(&format!("http://{address}"), Bounds::default());
    let purse = Purse::with(0);
    let mut spec = spec(&gateway, &purse);
    spec.mode = Mode::Replay(cassette.clone());
    (gateway.grant(spec), cassette, purse)
}

fn diverged(error: Error) -> Diverged {
    match error {
        Error::Diverged(diverged) => diverged,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_recording_plays_again_and_again_without_network_or_money() {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#;
    let mut cut = vec![stream_head()];
    cut.extend(chunks(&messages_stream()[..200], 50));
    cut.push(Step::Close);
    let mut quiet = vec![stream_head()];
    quiet.extend(chunks(&messages_stream()[..200], 50));
    quiet.push(Step::Write(b"0\r\n\r\n".to_vec()));
    let calls = [
        ask("one"),
        Call::new(Dialect::ChatCompletions, chat_body()),
        Call::new(Dialect::Messages, messages_body()),
        ask("overloaded"),
        ask("cut"),
        ask("quiet"),
        ask("gone"),
        ask("last"),
    ];
    let (exchanges, live) = record(
        &calls,
        vec![
            json(200, MESSAGE),
            stream(&chat_stream(), 10),
            stream(&messages_stream(), 10),
            json(529, overloaded),
            cut,
            quiet,
            vec![Step::Close],
            json(200, MESSAGE),
        ],
    )
    .await;
    assert_eq!(live.iter().filter(|a| a.is_err()).count(), 4);
    for _ in 0..20 {
        let (grant, cassette, purse) = replaying(exchanges.clone());
        assert_eq!(play(&grant, &calls).await, live);
        assert_eq!(cassette.finish(), Ok(()));
        assert!(purse.settled().is_empty());
        assert_eq!(purse.account().committed, Amount::ZERO);
    }
}

#[tokio::test]
async fn a_request_that_differs_is_refused_naming_call_and_field() {
    let calls = [ask("one"), ask("two")];
    let (exchanges, _) = record(&calls, vec![json(200, MESSAGE)]).await;

    let (grant, cassette, _) = replaying(exchanges.clone());
    play(&grant, &calls[..1]).await[0].as_ref().unwrap();
    let first = diverged(grant.call(ask("three")).await.unwrap_err());
    assert_eq!(
        first.to_string(),
        "call 2 is not what was recorded: messages[0].content[0].text was `two` and is now `three`"
    );
    assert_eq!(
        (first.call, &*first.field),
        (2, "messages[0].content[0].text")
    );
    // Nothing is played after a difference, and it is not forgotten.
    assert_eq!(diverged(grant.call(ask("two")).await.unwrap_err()), first);
    assert_eq!(cassette.finish(), Err(first));

    let (grant, _, _) = replaying(exchanges.clone());
    let chat = Call {
        path: "/v1/messages?beta=true".into(),
        ..ask("one")
    };
    let found = diverged(grant.call(chat).await.unwrap_err());
    assert_eq!((found.call, &*found.field), (1, "(path)"));

    let (grant, cassette, _) = replaying(exchanges);
    play(&grant, &calls).await;
    assert_eq!(cassette.finish(), Ok(()));
    let found = diverged(grant.call(ask("more")).await.unwrap_err());
    assert_eq!((found.call, &*found.field), (3, "(no such call recorded)"));
}

#[tokio::test]
async fn a_call_that_is_not_made_again_is_missed() {
    let calls = [ask("one"), ask("two")];
    let (exchanges, _) = record(&calls, vec![json(200, MESSAGE)]).await;
    let (grant, cassette, _) = replaying(exchanges);
    play(&grant, &calls[..1]).await;
    let missing = cassette.finish().unwrap_err();
    assert_eq!((missing.call, &*missing.field), (2, "(call not made)"));
}

#[tokio::test]
async fn an_edited_recording_is_refused_naming_call_and_part() {
    let calls = [ask("one"), ask("two")];
    let (exchanges, _) = record(&calls, vec![json(200, MESSAGE)]).await;
    let edit = |text: &Bytes| Bytes::from(String::from_utf8_lossy(text).replace('o', "0"));

    let mut edited = exchanges.clone();
    edited[1].request = edit(&edited[1].request);
    let found = Cassette::load(edited).unwrap_err();
    assert_eq!((found.call, &*found.field), (2, "request"));

    let mut edited = exchanges.clone();
    edited[0].response = edit(&edited[0].response);
    let found = Cassette::load(edited).unwrap_err();
    assert_eq!((found.call, &*found.field), (1, "response"));

    let found = Cassette::load(exchanges[1..].to_vec()).unwrap_err();
    assert_eq!((found.call, &*found.field), (1, "(order)"));
}

#[tokio::test]
async fn an_agent_in_a_sandbox_is_replayed_too() {
    let calls = [Call::new(Dialect::Messages, messages_body())];
    let (exchanges, _) = record(&calls, vec![stream(&messages_stream(), 10)]).await;
    let (grant, cassette, _) = replaying(exchanges);
    let served = grant.serve(listener()).unwrap();
    let mut agent = Agent::connect(served.address()).await;
    let response = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(bytes_of(response).await, messages_stream());
    assert_eq!(cassette.finish(), Ok(()));
    let response = agent
        .send("POST", "/v1/messages", &[], messages_body())
        .await;
    assert_eq!(response.status(), 409);
}

#[tokio::test]
async fn what_was_recorded_is_answered_for_nothing_and_then_the_provider_is_asked() {
    let answer = || stream(&messages_stream(), 500);
    let (mut exchanges, answers) =
        record(&[ask("one"), ask("two")], vec![answer(), answer()]).await;
    // The last one was cut off with its caller: nobody saw its answer.
    exchanges[1].failure = Some(Reason::Cancelled);
    let cassette = Cassette::load(exchanges).unwrap().without_cut_end();
    assert_eq!(cassette.len(), 1);
    let upstream = Upstream::start(vec![answer(), answer()]).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(1_000_000);
    let mut spec = spec(&gateway, &purse);
    spec.mode = Mode::Continue(cassette.clone());
    let grant = gateway.grant(spec);
    assert!(!cassette.is_over());
    let played = play(&grant, &[ask("one")]).await;
    assert_eq!(played[0], answers[0]);
    assert!(cassette.is_over() && !cassette.is_passed());
    assert_eq!((upstream.connections(), grant.calls()), (0, 0));
    let live = play(&grant, &[ask("two"), ask("three")]).await;
    assert!(live.iter().all(Result::is_ok), "{live:?}");
    assert!(cassette.is_passed());
    assert_eq!(grant.calls(), 2);
    let settled = purse.wait(2).await;
    assert_eq!(settled[0].call, 1);
    assert_eq!(settled[0].spent.iterations, 1);
}

#[tokio::test]
async fn a_recording_that_is_not_what_is_asked_now_never_leads_to_the_provider() {
    let answer = stream(&messages_stream(), 500);
    let (exchanges, _) = record(&[ask("one")], vec![answer]).await;
    let cassette = Cassette::load(exchanges).unwrap();
    let upstream = Upstream::start(vec![]).await;
    let gateway = gateway(&upstream);
    let purse = Purse::with(1_000_000);
    let mut spec = spec(&gateway, &purse);
    spec.mode = Mode::Continue(cassette);
    let grant = gateway.grant(spec);
    for _ in 0..2 {
        let error = grant.call(ask("another")).await.unwrap_err();
        assert_eq!(diverged(error).call, 1);
    }
    assert_eq!(upstream.connections(), 0);
}
