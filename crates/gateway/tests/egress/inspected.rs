//! Methods and paths inside TLS.

use domain::egress::Rule;
use skep_gateway::EgressBounds;

use crate::{
    fixture::{World, allow, text},
    origin::{Authority, Origin},
};

/// A world whose servers are known by this authority, and a file with what programs trust.
fn world(authority: &Authority, allow: Vec<Rule>) -> (World, tempfile::NamedTempFile) {
    let roots = Some(authority.roots());
    let world = World::with(allow, Vec::new(), EgressBounds::default(), roots);
    let bundle = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bundle.path(), world.egress.certificates().unwrap()).unwrap();
    (world, bundle)
}

#[tokio::test]
async fn method_and_path_decide_inside_tls_for_hosts_that_ask_for_it() {
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["a.test", "b.test"]).await;
    let port = origin.port();
    let seen_into = Rule {
        methods: vec!["GET".into()],
        paths: vec!["/open/**".into()],
        ..allow("a.test", &[port])
    };
    let (world, bundle) = world(&authority, vec![seen_into, allow("b.test", &[port])]);
    let curl = async |trusted: &str, words: &[&str]| {
        let all = [&["curl", "-sS", "--cacert", trusted], words].concat();
        text(&world.run(&all, &[]).await)
    };
    let own = bundle.path().to_str().unwrap();
    let url = |host: &str, path: &str| format!("https://{host}:{port}{path}");
    let said = curl(own, &[&url("a.test", "/open/a")]).await;
    assert!(said.contains("GET /open/a"), "{said}");
    let said = curl(own, &[&url("a.test", "/shut")]).await;
    assert!(said.contains("no rule allows it"), "{said}");
    let said = curl(own, &["-X", "POST", &url("a.test", "/open/a")]).await;
    assert!(said.contains("no rule allows it"), "{said}");
    // The other host is not looked into: what it shows is its own certificate.
    let said = curl(authority.path(), &[&url("b.test", "/anything")]).await;
    assert!(said.contains("GET /anything"), "{said}");
    let said = curl(own, &[&url("b.test", "/anything")]).await;
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(origin.heads().len(), 2);
    let seen = world.close().await;
    let open = seen
        .iter()
        .find(|seen| seen.allowed && seen.host == "a.test")
        .unwrap();
    assert_eq!(open.method.as_deref(), Some("GET"));
    assert_eq!(open.path.as_deref(), Some("/open/a"));
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_is_refused() {
    let authority = Authority::new();
    let other = Authority::new();
    let origin = Origin::secure(&other, &["a.test"]).await;
    let wrong = Origin::secure(&authority, &["b.test"]).await;
    for port in [origin.port(), wrong.port()] {
        let rule = Rule {
            methods: vec!["GET".into()],
            ..allow("a.test", &[port])
        };
        let (world, bundle) = world(&authority, vec![rule]);
        let url = format!("https://a.test:{port}/");
        let own = bundle.path().to_str().unwrap();
        let said = text(
            &world
                .run(&["curl", "-sS", "--cacert", own, &url], &[])
                .await,
        );
        assert!(
            said.contains("no TLS with it: invalid peer certificate"),
            "{said}"
        );
    }
    assert!(origin.heads().is_empty() && wrong.heads().is_empty());
}

#[tokio::test]
async fn a_host_inside_tls_that_is_not_the_servers_is_refused_and_told() {
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["a.test", "b.test"]).await;
    let port = origin.port();
    let seen_into = Rule {
        methods: vec!["GET".into()],
        ..allow("a.test", &[port])
    };
    // Also where the other one is allowed.
    let (world, bundle) = world(&authority, vec![seen_into, allow("b.test", &[port])]);
    let own = bundle.path().to_str().unwrap();
    let url = format!("https://a.test:{port}/");
    for host in [
        "b.test".to_owned(),
        format!("b.test:{port}"),
        "a.test:1".into(),
    ] {
        let host = format!("Host: {host}");
        let words = [
            "curl",
            "-sS",
            "-w",
            "%{http_code}",
            "--cacert",
            own,
            "-H",
            &host,
            &url,
        ];
        let said = text(&world.run(&words, &[]).await);
        assert!(said.contains("its `Host` is not a.test"), "{host}: {said}");
        assert!(said.ends_with("403"), "{host}: {said}");
    }
    assert!(origin.heads().is_empty());
    let said = text(
        &world
            .run(&["curl", "-sS", "--cacert", own, &url], &[])
            .await,
    );
    assert!(said.contains("GET /"), "{said}");
    let seen = world.close().await;
    let refused: Vec<_> = seen.iter().filter(|seen| !seen.allowed).collect();
    let why = Some("its `Host` is not a.test");
    for one in &refused {
        assert_eq!((&*one.host, one.reason.as_deref()), ("a.test", why));
    }
    assert_eq!(refused.iter().map(|one| one.count).sum::<u64>(), 3);
}

#[tokio::test]
async fn a_redirect_inside_tls_leads_no_further_than_the_rules() {
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["a.test", "b.test", "c.test"]).await;
    let port = origin.port();
    let open = |host: &str| Rule {
        paths: vec!["/open".into(), "/redirect".into()],
        ..allow(host, &[port])
    };
    let (world, bundle) = world(&authority, vec![open("a.test"), open("b.test")]);
    let own = bundle.path().to_str().unwrap();
    for (to, expected) in [
        ("b.test:PORT/open", "GET /open"),
        ("b.test:PORT/shut", "no rule allows it"),
        ("c.test:PORT/open", "response 403"),
    ] {
        let to = to.replace("PORT", &port.to_string());
        let url = format!("https://a.test:{port}/redirect?https://{to}");
        let words = ["curl", "-sSL", "--cacert", own, &url];
        let said = text(&world.run(&words, &[]).await);
        assert!(said.contains(expected), "{to}: {said}");
    }
    assert_eq!(origin.heads().len(), 4);
}

#[tokio::test]
async fn each_sandbox_has_an_authority_of_its_own_and_none_where_nobody_asks() {
    let authority = Authority::new();
    let rule = Rule {
        methods: vec!["GET".into()],
        ..allow("a.test", &[443])
    };
    let (one, _) = world(&authority, vec![rule.clone()]);
    let (other, _) = world(&authority, vec![rule]);
    assert_ne!(one.egress.certificates(), other.egress.certificates());
    let none = World::new(vec![allow("a.test", &[443])]);
    assert_eq!(none.egress.certificates(), None);
}
