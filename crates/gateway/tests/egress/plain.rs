//! Plain HTTP.

use std::time::Instant;

use domain::egress::{Asked, Rule, Users};
use tokio::io::AsyncWriteExt;

use crate::{
    fixture::{AT_ONCE, World, allow, head, naming, text},
    origin::{Origin, echo},
};

#[tokio::test]
async fn what_no_rule_allows_is_refused_at_once_with_the_rule_and_the_remedy() {
    let origin = Origin::plain().await;
    let world = World::new(Vec::new());
    let port = origin.port();
    let begun = Instant::now();
    let answer = world
        .raw(format!("GET http://a.test:{port}/x HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: close\r\n\r\n").as_bytes())
        .await;
    assert!(begun.elapsed() < AT_ONCE);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("no rule allows it; allow it with `[[egress.allow]]`, `for = [\"agent\"]`, `host = \"a.test\"`"), "{answer}");
    assert_eq!(
        world.names.asked(),
        0,
        "a name that is refused is not looked up"
    );
    let seen = world.close().await;
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].allowed);
    assert_eq!(seen[0].path.as_deref(), Some("/x"));
    assert!(origin.heads().is_empty());
}

#[tokio::test]
async fn an_allowed_request_passes_without_what_is_for_the_proxy_and_is_recorded_once() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![allow("*.test", &[port])]);
    let url = format!("http://a.test:{port}/v1?secret=1");
    for _ in 0..3 {
        let output = world
            .run(
                &[
                    "curl",
                    "-sS",
                    "--proxy-user",
                    "me:secret",
                    "--data",
                    "four",
                    "-H",
                    "Connection: X-Odd",
                    "-H",
                    "X-Odd: 1",
                    &url,
                ],
                &[],
            )
            .await;
        let said = text(&output);
        assert!(
            said.contains("POST /v1?secret=1\n") && said.contains("4 bytes"),
            "{said}"
        );
        assert!(said.contains(&format!("host: a.test:{port}\n")), "{said}");
        for gone in ["proxy", "x-odd", "me:", "connection"] {
            assert!(!said.to_lowercase().contains(gone), "{gone}: {said}");
        }
    }
    let seen = world.close().await;
    assert_eq!(seen.iter().map(|seen| seen.count).sum::<u64>(), 3);
    // Three bodies, and what their heads held.
    assert!(seen.iter().map(|seen| seen.up).sum::<u64>() > 12 + 300);
    assert!(
        seen.iter()
            .all(|seen| seen.allowed && seen.path.as_deref() == Some("/v1"))
    );
    assert!(seen.len() <= 3);
}

#[tokio::test]
async fn an_answer_without_a_body_ends_and_an_offer_of_http2_is_not_taken() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    let url = format!("http://a.test:{port}/x");
    let said = text(&world.run(&["curl", "-sSI", &url], &[]).await);
    assert!(
        said.contains("200 OK") && said.contains("content-length: "),
        "{said}"
    );
    assert!(
        !said.to_lowercase().contains("x-of-the-connection"),
        "{said}"
    );
    let said = text(&world.run(&["curl", "-sS", "--http2", &url], &[]).await);
    assert!(
        said.contains("GET /x") && !said.contains("upgrade"),
        "{said}"
    );
    let words = [
        "curl",
        "-sS",
        "-H",
        "Expect: 100-continue",
        "-d",
        "abc",
        &url,
    ];
    let said = text(&world.run(&words, &[]).await);
    assert!(
        said.contains("POST /x") && said.contains("3 bytes"),
        "{said}"
    );
}

#[tokio::test]
async fn the_host_must_be_the_target_and_one() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    for hosts in [
        format!("Host: b.test:{port}\r\n"),
        format!("Host: a.test:{port}\r\nHost: b.test:{port}\r\n"),
        "Host: a.test\r\n".to_owned(),
    ] {
        let ask = format!("GET http://a.test:{port}/ HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let answer = world.raw(ask.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("its `Host` is not a.test"), "{answer}");
    }
    assert!(origin.heads().is_empty());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_what_it_leads_to_is_decided_anew() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    let to = |host: &str| format!("http://a.test:{port}/redirect?http://{host}:{port}/end");
    let output = world.run(&["curl", "-sSL", &to("a.test")], &[]).await;
    assert!(text(&output).contains("GET /end"), "{}", text(&output));
    let output = world.run(&["curl", "-sSL", &to("b.test")], &[]).await;
    assert!(
        text(&output).contains("no rule allows it"),
        "{}",
        text(&output)
    );
    assert_eq!(origin.heads().len(), 3);
}

#[tokio::test]
async fn methods_and_paths_decide_in_one_reading_of_the_path() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![Rule {
        methods: vec!["GET".into()],
        paths: vec!["/open/**".into()],
        ..allow("a.test", &[port])
    }]);
    for (method, path, status) in [
        ("GET", "/open/a", 200),
        ("GET", "/%6fpen/a?b", 200),
        ("POST", "/open/a", 403),
        ("GET", "/shut", 403),
        ("GET", "/open/../shut", 403),
        ("GET", "/open/%2e%2e/shut", 403),
        ("GET", "/open%2fa", 403),
        ("GET", "/open//a", 403),
        ("GET", "/open/..;/shut", 403),
    ] {
        let ask = format!(
            "{method} http://a.test:{port}{path} HTTP/1.1\r\nHost: a.test:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = world.raw(ask.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
    }
    assert_eq!(origin.heads().len(), 2);
}

#[tokio::test]
async fn a_connection_becomes_another_protocol_only_by_rule() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let upgrade = Rule {
        upgrade: true,
        ..allow("a.test", &[port])
    };
    let world = World::new(vec![upgrade, allow("b.test", &[port])]);
    let ask = |host: &str| {
        format!(
            "GET http://{host}:{port}/ws HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
    };
    let mut stream = world.connect().await;
    stream.write_all(ask("a.test").as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(
        echo(&mut stream, b"anything at all").await,
        b"anything at all"
    );
    drop(stream);
    let seen = world
        .until(|seen| seen.iter().any(|seen| seen.up > 0))
        .await;
    assert!(seen.iter().all(|seen| seen.allowed));
    let mut stream = world.connect().await;
    stream.write_all(ask("b.test").as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn private_addresses_are_refused_after_the_name_was_looked_up() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![allow("*", &[port]), allow("127.0.0.1", &[port])]);
    world.told.say(
        &Asked {
            allow: vec![allow("*", &[port]), allow("127.0.0.1", &[port])],
            deny: Vec::new(),
        },
        Users::default(),
    );
    let answer = async |host: &str| {
        let ask = format!(
            "GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        );
        world.raw(ask.as_bytes()).await
    };
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fd00:ec2::254",
        "fe80::1",
        "224.0.0.1",
    ] {
        world.names.set("a.test", &[&[address]]);
        let begun = Instant::now();
        let said = answer("a.test").await;
        assert!(said.starts_with("HTTP/1.1 403"), "{address}: {said}");
        assert!(said.contains("`egress.addresses`"), "{address}: {said}");
        assert!(begun.elapsed() < AT_ONCE);
    }
    assert!(answer("127.0.0.1").await.starts_with("HTTP/1.1 403"));
    assert!(origin.heads().is_empty());
    // One that is named in the configuration may be connected to, and only under that name.
    let pinned = Users {
        allow: vec![allow("b.test", &[port])],
        hosts: [("b.test".to_owned(), "127.0.0.1".parse().unwrap())].into(),
        ..Users::default()
    };
    let asked = Asked {
        allow: vec![allow("*", &[port])],
        deny: Vec::new(),
    };
    world.told.say(&asked, pinned);
    world.names.set("c.test", &[&["127.0.0.1"]]);
    assert!(answer("b.test").await.starts_with("HTTP/1.1 200"));
    assert!(answer("c.test").await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn what_only_a_repository_asks_for_leads_to_no_private_address_under_any_name() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(Vec::new());
    let hosts = ["a.test", "*", "*.test", "127.0.0.1", "127.0.0.0/8"];
    let asked = Asked {
        allow: hosts.map(|host| allow(host, &[port])).into(),
        deny: Vec::new(),
    };
    let may = |own: Vec<Rule>| Users {
        allow: own,
        addresses: vec!["127.0.0.0/8".parse().unwrap()],
        ..Users::default()
    };
    let status = async |host: &str| {
        let ask = format!(
            "GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        );
        let said = world.raw(ask.as_bytes()).await;
        let (_, tunnel) = world.tunnel(&format!("{host}:{port}")).await;
        assert_eq!(said.get(9..12), tunnel.get(9..12), "{said} {tunnel}");
        said
    };
    for own in [
        Vec::new(),
        vec![allow("*", &[port])],
        vec![allow("a.test", &[443])],
        vec![allow("b.test", &[port])],
    ] {
        world.told.say(&asked, may(own));
        for host in ["a.test", "127.0.0.1"] {
            let said = status(host).await;
            assert!(said.starts_with("HTTP/1.1 403"), "{said}");
            let wanted = format!("names {host} with port {port} nowhere");
            assert!(
                said.contains(&wanted) && said.contains("`[[egress.within]]`"),
                "{said}"
            );
        }
    }
    assert!(origin.heads().is_empty());
    world.told.say(&asked, may(vec![allow("a.test", &[port])]));
    assert!(status("a.test").await.starts_with("HTTP/1.1 200"));
    assert!(status("127.0.0.1").await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn a_name_that_changes_its_address_between_looks_gains_nothing() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(Vec::new());
    let asked = Asked {
        allow: vec![allow("rebind.test", &[port])],
        deny: Vec::new(),
    };
    let only = Users {
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ..naming(&asked)
    };
    world.told.say(&asked, only);
    // The first answer is allowed, and every later one leads elsewhere.
    world
        .names
        .set("rebind.test", &[&["127.0.0.1"], &["127.0.0.2"]]);
    let ask = format!(
        "GET http://rebind.test:{port}/ HTTP/1.1\r\nHost: rebind.test:{port}\r\nConnection: close\r\n\r\n"
    );
    let said = world.raw(ask.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(world.names.asked(), 1, "it is looked up once");
    let said = world.raw(ask.as_bytes()).await;
    assert!(said.contains("leads to 127.0.0.2"), "{said}");
    assert_eq!(origin.heads().len(), 1);
}

#[tokio::test]
async fn what_is_sent_to_the_gateway_itself_is_not_for_the_proxy() {
    let world = World::new(vec![allow("*", &[])]);
    let own = world.address;
    let ask =
        format!("GET http://{own}/v1/models HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n");
    let said = world.raw(ask.as_bytes()).await;
    assert!(said.contains("no model is granted"), "{said}");
    let (_, answer) = world.tunnel(&own.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn an_edit_of_the_configuration_holds_from_the_next_request_on_and_a_broken_one_refuses_all()
{
    let origin = Origin::plain().await;
    let port = origin.port();
    let asked = Asked {
        allow: vec![allow("a.test", &[port])],
        deny: Vec::new(),
    };
    let world = World::new(asked.allow.clone());
    let ask = format!(
        "GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: close\r\n\r\n"
    );
    assert!(world.raw(ask.as_bytes()).await.starts_with("HTTP/1.1 200"));
    let forbids = Users {
        deny: vec![Rule {
            host: Some("*".into()),
            ..Rule::default()
        }],
        ..naming(&asked)
    };
    world.told.say(&asked, forbids);
    let said = world.raw(ask.as_bytes()).await;
    assert!(
        said.contains("the rule `deny * (configuration)` refuses it"),
        "{said}"
    );
    world.told.spoil("line 3: unknown key");
    let said = world.raw(ask.as_bytes()).await;
    assert!(
        said.contains("the configuration cannot be read: line 3"),
        "{said}"
    );
    world.told.say(&asked, naming(&asked));
    assert!(world.raw(ask.as_bytes()).await.starts_with("HTTP/1.1 200"));
}
