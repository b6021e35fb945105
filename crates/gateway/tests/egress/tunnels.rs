//! Tunnels: `CONNECT`.

use std::time::Instant;

use domain::egress::{Asked, Rule, Users};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    fixture::{AT_ONCE, PATIENCE, World, allow, head, text},
    origin::{Authority, Origin, echo},
};

#[tokio::test]
async fn tls_passes_end_to_end_to_an_allowed_host_and_to_no_other() {
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["a.test", "b.test"]).await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    let curl = async |host: &str| {
        let url = format!("https://{host}:{port}/deep?x");
        let words = ["curl", "-sS", "--cacert", authority.path(), &url];
        text(&world.run(&words, &[]).await)
    };
    let said = curl("a.test").await;
    assert!(said.contains("GET /deep?x"), "{said}");
    let begun = Instant::now();
    let said = curl("b.test").await;
    assert!(begun.elapsed() < AT_ONCE);
    assert!(said.contains("403"), "{said}");
    let seen = world.close().await;
    let allowed = seen.iter().find(|seen| seen.allowed).unwrap();
    assert_eq!(
        (allowed.method.as_ref(), allowed.path.as_ref()),
        (None, None)
    );
    assert!(allowed.up > 0 || seen.iter().any(|seen| seen.up > 0));
    assert!(
        seen.iter()
            .any(|seen| !seen.allowed && seen.host == "b.test")
    );
}

#[tokio::test]
async fn a_server_name_that_is_not_the_host_of_the_tunnel_is_refused_at_once() {
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["a.test", "b.test"]).await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    // `--connect-to` asks for a tunnel to one host, and greets another in it.
    let to = format!("b.test:{port}:a.test:{port}");
    let url = format!("https://b.test:{port}/");
    let begun = Instant::now();
    let words = [
        "curl",
        "-sSv",
        "--cacert",
        authority.path(),
        "--connect-to",
        &to,
        &url,
    ];
    let output = world.run(&words, &[]).await;
    assert!(begun.elapsed() < AT_ONCE);
    assert!(!output.status.success());
    assert!(
        text(&output).contains("unrecognized name"),
        "{}",
        text(&output)
    );
    assert!(origin.heads().is_empty());
    let seen = world.close().await;
    let why = seen.iter().find_map(|seen| seen.reason.clone()).unwrap();
    assert_eq!(why, "TLS names the server b.test instead of a.test");
}

#[tokio::test]
async fn a_greeting_without_a_server_name_is_refused_for_a_name_and_taken_for_an_address() {
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["127.0.0.1", "a.test"]).await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port]), allow("127.0.0.1", &[port])]);
    let script = "
import socket, ssl, sys
host, port = sys.argv[2], int(sys.argv[3])
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.sendall(f'CONNECT {host}:{port} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\n\\r\\n'.encode())
head = b''
while not head.endswith(b'\\r\\n\\r\\n'): head += s.recv(1)
print(head)
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
t = c.wrap_socket(s)
t.sendall(f'GET / HTTP/1.1\\r\\nHost: {host}:{port}\\r\\n\\r\\n'.encode())
print(t.recv(12))
";
    let (own, port) = (world.address.port().to_string(), port.to_string());
    let named = world
        .run(&["python3", "-c", script, &own, "a.test", &port], &[])
        .await;
    assert!(
        text(&named).to_lowercase().contains("unrecognized"),
        "{}",
        text(&named)
    );
    let address = world
        .run(&["python3", "-c", script, &own, "127.0.0.1", &port], &[])
        .await;
    assert_eq!(
        text(&address).matches("HTTP/1.1 200").count(),
        2,
        "{}",
        text(&address)
    );
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_does_not_pass() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    for bytes in [
        &b"\x00\x01\x02\x03 raw"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
    ] {
        let (mut stream, answer) = world.tunnel(&format!("a.test:{port}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let read = timeout(AT_ONCE, stream.read_to_end(&mut rest)).await;
        read.expect("it is not cut").ok();
        assert!(rest.is_empty(), "{rest:?}");
    }
    assert!(origin.heads().is_empty());
    let seen = world.close().await;
    assert!(seen.iter().all(|seen| !seen.allowed));
}

#[tokio::test]
async fn plain_http_in_a_tunnel_is_decided_like_any_other() {
    let origin = Origin::plain().await;
    let port = origin.port();
    let upgrade = Rule {
        upgrade: true,
        ..allow("b.test", &[port])
    };
    let world = World::new(vec![allow("a.test", &[port]), upgrade]);
    let url = format!("http://a.test:{port}/one");
    let output = world
        .run(&["curl", "-sS", "--proxytunnel", &url], &[])
        .await;
    assert!(text(&output).contains("GET /one"), "{}", text(&output));
    let (mut stream, _) = world.tunnel(&format!("a.test:{port}")).await;
    let other = format!("GET / HTTP/1.1\r\nHost: b.test:{port}\r\n\r\n");
    stream.write_all(other.as_bytes()).await.unwrap();
    let said = head(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    // A websocket whose client makes a tunnel for it.
    let (mut stream, _) = world.tunnel(&format!("b.test:{port}")).await;
    let ask = format!(
        "GET / HTTP/1.1\r\nHost: b.test:{port}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let said = head(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 101"), "{said}");
    assert_eq!(echo(&mut stream, b"frames").await, b"frames");
}

#[tokio::test]
async fn a_tunnel_to_an_address_or_to_what_is_no_host_needs_a_rule_of_its_own() {
    let world = World::new(vec![allow("*", &[443])]);
    for (to, status) in [
        ("127.0.0.1:443", 403),
        ("[::1]:443", 403),
        ("2130706433:443", 400),
        ("0x7f.1:443", 400),
        ("127.1:443", 400),
        ("a.test", 400),
        ("a.test:0", 400),
        ("a.test:99999", 400),
        ("me@a.test:443", 400),
        ("a.test:22", 403),
    ] {
        let (_, answer) = world.tunnel(to).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{to}: {answer}"
        );
    }
    assert_eq!(world.names.asked(), 0);
}

#[tokio::test]
async fn an_open_tunnel_is_cut_when_the_configuration_forbids_it() {
    let nothing_asked = Users {
        asked: false,
        ..Users::default()
    };
    is_cut_by(nothing_asked).await;
}

#[tokio::test]
async fn an_open_tunnel_is_cut_when_its_address_may_not_be_connected_to_any_more() {
    is_cut_by(Users::default()).await;
}

async fn is_cut_by(edited: Users) {
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["a.test"]).await;
    let port = origin.port();
    let asked = Asked {
        allow: vec![allow("a.test", &[port])],
        deny: Vec::new(),
    };
    let world = World::new(asked.allow.clone());
    let url = format!("https://a.test:{port}/endless");
    let words = [
        "curl",
        "-sS",
        "--cacert",
        authority.path(),
        "-o",
        "/dev/null",
        &url,
    ];
    let forbid = async {
        world
            .until(|seen| seen.iter().any(|seen| seen.allowed))
            .await;
        world.told.say(&asked, edited);
    };
    let (output, ()) = tokio::join!(world.run(&words, &[]), forbid);
    assert!(!output.status.success());
    let seen = world
        .until(|seen| seen.iter().any(|seen| seen.reason.is_some()))
        .await;
    let cut = seen.iter().find(|seen| seen.reason.is_some()).unwrap();
    assert_eq!(cut.reason.as_deref(), Some("it is not allowed any more"));
    assert!(cut.down > 0 && cut.allowed);
}

#[tokio::test]
async fn closing_ends_what_is_open_and_records_it() {
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["a.test"]).await;
    let port = origin.port();
    let world = World::new(vec![allow("a.test", &[port])]);
    let (mut stream, answer) = world.tunnel(&format!("a.test:{port}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"));
    let seen = timeout(PATIENCE, world.close())
        .await
        .expect("it does not end");
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .ok();
    assert!(seen.iter().all(|seen| seen.allowed), "{seen:?}");
}
