//! Bounds, which are named when they strike.

use std::time::{Duration, Instant};

use domain::egress::Rule;
use skep_gateway::EgressBounds;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use crate::{
    fixture::{AT_ONCE, PATIENCE, World, allow, head, text},
    origin::{Authority, Origin},
};

fn world(bounds: EgressBounds, port: u16) -> World {
    World::with(vec![allow("*.test", &[port])], Vec::new(), bounds, None)
}

#[tokio::test]
async fn an_endless_download_ends_at_its_bound_in_plain_and_in_tls() {
    let authority = Authority::new();
    let plain = Origin::plain().await;
    let secure = Origin::secure(&authority, &["a.test"]).await;
    for (scheme, port) in [("http", plain.port()), ("https", secure.port())] {
        let bounds = EgressBounds {
            down: 1_000_000,
            ..EgressBounds::default()
        };
        let world = world(bounds, port);
        let url = format!("{scheme}://a.test:{port}/endless");
        let words = [
            "curl",
            "-sS",
            "--cacert",
            authority.path(),
            "-o",
            "/dev/null",
            &url,
        ];
        assert!(!world.run(&words, &[]).await.status.success());
        let seen = world.close().await;
        let why = seen.iter().find_map(|seen| seen.reason.clone());
        assert_eq!(
            why.as_deref(),
            Some("more than 1000000 bytes into this sandbox")
        );
        assert!(seen.iter().map(|seen| seen.down).sum::<u64>() < 1_200_000);
    }
}

#[tokio::test]
async fn a_transfer_that_lasts_too_long_ends_and_is_told_with_its_rule() {
    let authority = Authority::new();
    let plain = Origin::plain().await;
    let secure = Origin::secure(&authority, &["a.test", "b.test"]).await;
    let rules = vec![
        allow("a.test", &[plain.port(), secure.port()]),
        Rule {
            methods: vec!["GET".into()],
            ..allow("b.test", &[secure.port()])
        },
    ];
    // By itself, in a tunnel, and in one that is looked into.
    for (scheme, host, port) in [
        ("http", "a.test", plain.port()),
        ("https", "a.test", secure.port()),
        ("https", "b.test", secure.port()),
    ] {
        let bounds = EgressBounds {
            total: Duration::from_secs(1),
            down: u64::MAX,
            ..EgressBounds::default()
        };
        let roots = Some(authority.roots());
        let world = World::with(rules.clone(), Vec::new(), bounds, roots);
        let trusted = tempfile::NamedTempFile::new().unwrap();
        let mut all = world.egress.certificates().unwrap();
        all.push_str(&std::fs::read_to_string(authority.path()).unwrap());
        std::fs::write(trusted.path(), all).unwrap();
        let url = format!("{scheme}://{host}:{port}/endless");
        let trusted = trusted.path().to_str().unwrap();
        let words = ["curl", "-sS", "--cacert", trusted, "-o", "/dev/null", &url];
        let begun = Instant::now();
        assert!(!world.run(&words, &[]).await.status.success());
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let seen = world
            .until(|seen| seen.iter().any(|seen| seen.reason.is_some()))
            .await;
        let cut = seen.iter().find(|seen| seen.reason.is_some()).unwrap();
        let why = cut.reason.as_deref();
        assert_eq!(
            why,
            Some("the connection lasted too long"),
            "{scheme} {host}"
        );
        assert!(cut.allowed && cut.host == host && cut.down > 0, "{cut:?}");
        let rule = cut.rule.as_deref().unwrap();
        assert!(rule.contains(host), "{rule}");
    }
}

#[tokio::test]
async fn an_upload_ends_at_its_bound() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let bounds = EgressBounds {
        up: 100_000,
        ..EgressBounds::default()
    };
    let world = world(bounds, port);
    let script = "
import http.client, sys
c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))
try:
    c.request('POST', sys.argv[2], body=iter([b'x' * 10000] * 1000), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
    print(c.getresponse().status)
except OSError as e:
    print('cut', e)
";
    let own = world.address.port().to_string();
    let url = format!("http://a.test:{port}/");
    world.run(&["python3", "-c", script, &own, &url], &[]).await;
    let seen = world
        .until(|seen| seen.iter().any(|seen| seen.reason.is_some()))
        .await;
    let why = seen.iter().find_map(|seen| seen.reason.clone());
    assert_eq!(
        why.as_deref(),
        Some("more than 100000 bytes out of this sandbox")
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_with_what_struck() {
    let authority = Authority::new();
    let plain = Origin::plain().await;
    let secure = Origin::secure(&authority, &["a.test"]).await;
    for (scheme, port) in [("http", plain.port()), ("https", secure.port())] {
        let bounds = EgressBounds {
            idle: Duration::from_secs(1),
            ..EgressBounds::default()
        };
        let world = world(bounds, port);
        let url = format!("{scheme}://a.test:{port}/silent");
        let words = ["curl", "-sS", "--cacert", authority.path(), &url];
        let output = world.run(&words, &[]).await;
        if scheme == "http" {
            assert!(
                text(&output).contains("no answer for 1 s"),
                "{}",
                text(&output)
            );
        }
        let seen = world.close().await;
        assert!(seen.iter().any(|seen| seen.reason.is_some()), "{seen:?}");
    }
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_is_said_ends_soon() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let bounds = EgressBounds {
        greeting: Duration::from_millis(200),
        ..EgressBounds::default()
    };
    let world = world(bounds, port);
    let (mut stream, _) = world.tunnel(&format!("a.test:{port}")).await;
    stream.write_all(&[0x16, 3, 1]).await.unwrap();
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    read.expect("it hangs").ok();
    let seen = world.close().await;
    assert!(seen.iter().any(|seen| !seen.allowed), "{seen:?}");
}

#[tokio::test]
async fn requests_are_bounded_and_more_are_refused_at_once() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let bounds = EgressBounds {
        requests: 2,
        ..EgressBounds::default()
    };
    let world = world(bounds, port);
    let ask = format!(
        "GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: close\r\n\r\n"
    );
    for expected in ["200", "200", "403", "403"] {
        let said = world.raw(ask.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {expected}")), "{said}");
        assert_eq!(said.contains("more than 2 requests"), expected == "403");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = world(EgressBounds::default(), port);
    let long = "x".repeat(70_000);
    let ask = format!(
        "GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nX-Long: {long}\r\nConnection: close\r\n\r\n"
    );
    let said = world.raw(ask.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    assert!(origin.heads().is_empty());
}

#[tokio::test]
async fn a_host_that_nobody_answers_for_is_told_at_once() {
    let world = World::new(vec![allow("*.test", &[1])]);
    let begun = Instant::now();
    for (host, why) in [
        ("a.test", "a.test port 1 cannot be reached"),
        ("unknown.test", "the name unknown.test cannot be looked up"),
    ] {
        let ask =
            format!("GET http://{host}:1/ HTTP/1.1\r\nHost: {host}:1\r\nConnection: close\r\n\r\n");
        let said = world.raw(ask.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 502"), "{said}");
        assert!(said.contains(why), "{said}");
    }
    assert!(begun.elapsed() < AT_ONCE);
}

/// A server that answers before it has read, reads no further, and never ends.
async fn rude() -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut all = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            all.push(stream);
        }
    });
    (port, task)
}

#[tokio::test]
async fn a_server_that_answers_and_reads_no_further_holds_no_connection_of_the_host() {
    let (port, server) = rude().await;
    let bounds = EgressBounds {
        idle: Duration::from_secs(1),
        ..EgressBounds::default()
    };
    let world = world(bounds, port);
    let ask = format!(
        "POST http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nContent-Length: 100000000\r\n\r\n"
    );
    let mut stream = world.connect().await;
    stream.write_all(ask.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    // More than all that is between the program and the server can hold.
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        let written = timeout(Duration::from_millis(200), stream.write_all(&chunk)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    drop(stream);
    let seen = world
        .until(|seen| seen.iter().any(|seen| seen.up > 0))
        .await;
    let why = seen.iter().find_map(|seen| seen.reason.clone());
    assert_eq!(why.as_deref(), Some("nothing passed for 1 s"));
    server.abort();
}

#[tokio::test]
async fn names_that_nobody_answers_for_are_given_up_and_few_are_looked_up_at_once() {
    let bounds = EgressBounds {
        resolve: Duration::from_millis(100),
        ..EgressBounds::default()
    };
    let world = world(bounds, 1);
    for number in 0..20 {
        let host = format!("never{number}.test:1");
        let ask =
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let said = world.raw(ask.as_bytes()).await;
        assert!(said.contains("it took too long"), "{said}");
    }
    assert_eq!(world.names.asked(), 8);
}

#[tokio::test]
async fn what_leaves_in_the_head_of_a_request_is_counted_and_bounded() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let bounds = EgressBounds {
        up: 30_000,
        ..EgressBounds::default()
    };
    let world = world(bounds, port);
    let long = "x".repeat(20_000);
    let ask = format!(
        "GET http://a.test:{port}/?{long} HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: close\r\n\r\n"
    );
    for expected in ["200", "403"] {
        let said = world.raw(ask.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {expected}")), "{said}");
    }
    let seen = world.close().await;
    assert!(
        (20_000..30_000).contains(&seen.iter().map(|seen| seen.up).sum::<u64>()),
        "{seen:?}"
    );
}
