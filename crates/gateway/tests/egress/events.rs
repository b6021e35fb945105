//! Every decision is recorded, with its rule, and holds for no longer than its rule does.

use std::time::Duration;

use domain::egress::{Asked, Rule, Users};
use skep_gateway::{EgressBounds, Seen};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

use crate::{
    fixture::{AT_ONCE, World, allow, head, naming},
    origin::Origin,
};

fn get(host: &str, port: u16, path: &str) -> String {
    format!(
        "GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    )
}

fn refused(seen: &[Seen], why: &str) -> bool {
    let is =
        |seen: &&Seen| !seen.allowed && seen.reason.as_deref().is_some_and(|it| it.contains(why));
    seen.iter().find(is).is_some()
}

#[tokio::test]
async fn what_is_no_address_and_what_is_no_request_is_refused_and_recorded() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    let long = format!(
        "GET http://a.test:{port}/ HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    for (bytes, status, why) in [
        (
            "GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            "400",
            "`https` is asked for with CONNECT",
        ),
        (
            "CONNECT 127.1:443 HTTP/1.1\r\nHost: 127.1\r\nConnection: close\r\n\r\n",
            "400",
            "CONNECT takes HOST:PORT",
        ),
        (
            "\u{5}\u{1}\u{0} socks, say\r\n\r\n",
            "400",
            "no request of HTTP/1",
        ),
        (&long, "431", "the head of a request is too long"),
    ] {
        let said = world.raw(bytes.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        world.until(|seen| refused(seen, why)).await;
    }
    for (bytes, why) in [
        (
            "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            "this tunnel leads to a.test only",
        ),
        (
            "GET / HTTP/1.1\r\nbad header\r\n\r\n",
            "no request of HTTP/1",
        ),
    ] {
        let (mut stream, _) = world.tunnel(&format!("a.test:{port}")).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let seen = world
            .until(|seen| seen.iter().any(|seen| seen.host == "a.test") && refused(seen, why))
            .await;
        let one = seen.iter().rfind(|seen| seen.host == "a.test").unwrap();
        assert_eq!((one.port, one.allowed), (port, false), "{one:?}");
    }
    assert!(origin.heads().is_empty());
}

#[tokio::test]
async fn a_tunnel_that_ends_without_a_word_is_recorded_with_its_rule_whoever_ends_it() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    let (stream, _) = world.tunnel(&format!("a.test:{port}")).await;
    drop(stream);
    let told = |seen: &[Seen]| {
        seen.iter()
            .filter(|seen| seen.reason.as_deref() == Some("it ended without a word"))
            .map(|seen| seen.count)
            .sum::<u64>()
    };
    world.until(|seen| told(seen) == 1).await;
    let (_stream, answer) = world.tunnel(&format!("a.test:{port}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"));
    let seen = world.close().await;
    assert_eq!(told(&seen), 2, "{seen:?}");
    let rule = format!("allow a.test port {port} (skep.toml)");
    assert!(
        seen.iter().all(|seen| seen.rule.as_ref() == Some(&rule)),
        "{seen:?}"
    );
}

#[tokio::test]
async fn what_is_refused_for_its_path_or_as_another_protocol_names_the_rule_that_decided() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![
        Rule {
            paths: vec!["/open/**".into()],
            ..allow("a.test", &[port])
        },
        allow("b.test", &[port]),
        Rule {
            upgrade: true,
            ..allow("*.test", &[port])
        },
    ]);
    let said = world
        .raw(get("a.test", port, "/open/%C0%AE%C0%AE/x").as_bytes())
        .await;
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    let ask = get("b.test", port, "/").replace("close", "Upgrade\r\nUpgrade: echo");
    let mut stream = world.connect().await;
    stream.write_all(ask.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let seen = world.close().await;
    let rules: Vec<_> = seen
        .iter()
        .filter_map(|seen| seen.rule.as_deref())
        .collect();
    let open = format!("allow a.test port {port} /open/** (skep.toml)");
    let special = format!("allow b.test port {port} (skep.toml)");
    assert_eq!(rules, [open.as_str(), special.as_str()]);
}

#[tokio::test]
async fn a_long_path_does_not_push_the_remedy_out_of_the_answer() {
    let world = World::new(Vec::new());
    let path = format!("/{}", "x".repeat(20_000));
    let said = world.raw(get("a.test", 80, &path).as_bytes()).await;
    assert!(
        said.contains("...") && said.contains("allow it with `[[egress.allow]]`"),
        "{said}"
    );
}

#[tokio::test]
async fn a_rule_that_goes_while_a_name_is_looked_up_lets_nothing_out_any_more() {
    let origin = Origin::plain().await;
    let port = origin.port();
    for tunnel in [false, true] {
        let asked = Asked {
            allow: vec![allow("later.test", &[port])],
            deny: Vec::new(),
        };
        let world = World::new(asked.allow.clone());
        let goes = world.names.meanwhile(|| {
            let forbids = Users {
                asked: false,
                ..naming(&asked)
            };
            world.told.say(&asked, forbids);
        });
        if tunnel {
            let at = format!("later.test:{port}");
            let ((_, said), ()) = tokio::join!(world.tunnel(&at), goes);
            assert!(said.starts_with("HTTP/1.1 403"), "{said}");
        } else {
            let ask = get("later.test", port, "/");
            let (said, ()) = tokio::join!(world.raw(ask.as_bytes()), goes);
            assert!(said.starts_with("HTTP/1.1 403"), "{said}");
            assert!(said.contains("it is not allowed any more"), "{said}");
        }
        world
            .until(|seen| seen.iter().any(|seen| !seen.allowed))
            .await;
    }
    assert!(origin.heads().is_empty());
}

#[tokio::test]
async fn a_rule_with_paths_that_comes_after_its_sandbox_is_refused_with_what_to_do() {
    let world = World::new(vec![allow("a.test", &[443])]);
    let asked = Asked {
        allow: vec![Rule {
            paths: vec!["/open/**".into()],
            ..allow("a.test", &[443])
        }],
        deny: Vec::new(),
    };
    world.told.say(&asked, naming(&asked));
    let ask = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nConnection: close\r\n\r\n";
    let said = timeout(AT_ONCE, world.raw(ask)).await.expect("it hangs");
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    assert!(said.contains("made before there was such a rule"), "{said}");
    assert!(said.contains("start the work again"), "{said}");
    let seen = world.close().await;
    assert!(
        refused(&seen, "made before there was such a rule"),
        "{seen:?}"
    );
}

/// A server that answers each request with these bytes, and keeps the connection.
async fn saying(answer: String) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut all = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.ok();
            all.push(stream);
        }
    });
    (port, task)
}

#[tokio::test]
async fn heads_and_interim_answers_count_as_bytes_that_come_in() {
    let hint = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n",
        "x".repeat(1_000)
    );
    let answer = format!(
        "{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        hint.repeat(60)
    );
    let (port, server) = saying(answer).await;
    for (down, status) in [(1 << 20, "200"), (30_000, "502")] {
        let bounds = EgressBounds {
            down,
            ..EgressBounds::default()
        };
        let world = World::with(vec![allow("a.test", &[port])], Vec::new(), bounds, None);
        let said = world.raw(get("a.test", port, "/").as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        let seen = world.close().await;
        let came: u64 = seen.iter().map(|seen| seen.down).sum();
        assert!(came > 30_000, "{came}");
        let why = seen.iter().find_map(|seen| seen.reason.as_deref());
        let bound = "more than 30000 bytes into this sandbox";
        assert_eq!(why, (status == "502").then_some(bound));
    }
    server.abort();
}

#[tokio::test]
async fn a_program_that_never_becomes_another_protocol_holds_nothing() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let (port, server) = saying(switch.into()).await;
    let bounds = EgressBounds {
        greeting: Duration::from_millis(300),
        ..EgressBounds::default()
    };
    let upgrade = Rule {
        upgrade: true,
        ..allow("a.test", &[port])
    };
    let world = World::with(vec![upgrade], Vec::new(), bounds, None);
    let mut stream = world.connect().await;
    let ask = get("a.test", port, "/").replace(
        "Connection: close",
        "Content-Length: 10\r\nConnection: Upgrade\r\nUpgrade: echo",
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    world
        .until(|seen| seen.iter().any(|seen| seen.reason.is_some()))
        .await;
    server.abort();
}
