//! What is kept of package registries, for all sandboxes.

use std::{sync::Arc, time::Instant};

use domain::egress::{Asked, Part, Preset, Rule, Users};
use skep_gateway::{EgressBounds, Packages};

use crate::{
    fixture::{PATIENCE, World, text},
    origin::{Authority, Origin},
};

const TARBALL: &str = "/x/-/x-1.0.0.tgz";

/// What keeps artefacts, and how a registry is asked for.
struct Machine {
    _directory: tempfile::TempDir,
    packages: Arc<Packages>,
    registry: &'static str,
    port: u16,
}

impl Machine {
    fn new(registry: &'static str, port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            packages: Arc::new(Packages::new(directory.path().join("packages"), 1 << 30)),
            _directory: directory,
            registry,
            port,
        }
    }

    fn users(&self) -> Users {
        let hosts = vec![format!("a.test:{}", self.port)];
        Users {
            presets: [(self.registry.to_owned(), Preset { hosts })].into(),
            addresses: vec!["127.0.0.0/8".parse().unwrap()],
            ..Users::default()
        }
    }

    /// A sandbox of a repository that asks for the registry.
    fn sandbox(&self, users: Users, authority: Option<&Authority>) -> World {
        let asked = Asked {
            allow: vec![Rule {
                parts: vec![Part::Agent],
                preset: Some(self.registry.into()),
                ..Rule::default()
            }],
            deny: Vec::new(),
        };
        let roots = authority.map(Authority::roots);
        let kept = Some(Arc::clone(&self.packages));
        World::made(&asked, users, EgressBounds::default(), roots, kept)
    }

    async fn get(&self, world: &World, path: &str, headers: &str) -> String {
        let port = self.port;
        let ask = format!(
            "GET http://a.test:{port}{path} HTTP/1.1\r\nHost: a.test:{port}\r\n{headers}Connection: close\r\n\r\n"
        );
        world.raw(ask.as_bytes()).await
    }

    /// Asks until the answer is a kept one; how often the registry was asked by then.
    async fn until_kept(&self, world: &World, path: &str, origin: &Origin) -> usize {
        let begun = Instant::now();
        loop {
            let before = origin.heads().len();
            let said = self.get(world, path, "").await;
            assert!(
                said.starts_with("HTTP/1.1 200") && said.contains(path),
                "{said}"
            );
            if origin.heads().len() == before {
                return before;
            }
            assert!(begun.elapsed() < PATIENCE, "it is never kept");
        }
    }
}

#[tokio::test]
async fn an_artefact_is_fetched_for_all_sandboxes_and_what_is_given_again_is_recorded_as_such() {
    let origin = Origin::plain().await;
    let machine = Machine::new("npm", origin.port());
    let one = machine.sandbox(machine.users(), None);
    let fetched = machine.until_kept(&one, TARBALL, &origin).await;
    // Nothing of the program's own went along.
    let head = origin.heads().remove(0);
    assert!(
        head.contains("user-agent: skep") && head.contains("accept: */*"),
        "{head}"
    );
    let other = machine.sandbox(machine.users(), None);
    for _ in 0..3 {
        let said = machine
            .get(&other, TARBALL, "User-Agent: npm/11\r\nNpm-Command: ci\r\n")
            .await;
        assert!(said.contains(&format!("GET {TARBALL}")), "{said}");
    }
    assert_eq!(origin.heads().len(), fetched);
    let seen = other.close().await;
    assert_eq!(seen.iter().map(|seen| seen.count).sum::<u64>(), 3);
    assert!(
        seen.iter()
            .all(|seen| seen.allowed && seen.cached && seen.down > 0 && seen.up == 0),
        "{seen:?}"
    );
    let rule = format!("allow a.test, preset npm port {} (skep.toml)", machine.port);
    assert_eq!(seen[0].rule.as_ref(), Some(&rule));
}

#[tokio::test]
async fn what_is_asked_for_with_credentials_is_neither_kept_nor_given_from_what_is_kept() {
    let origin = Origin::plain().await;
    let machine = Machine::new("npm", origin.port());
    let world = machine.sandbox(machine.users(), None);
    for header in [
        "Authorization: Bearer mine",
        "Cookie: me=1",
        "X-Token: mine",
    ] {
        for _ in 0..3 {
            let before = origin.heads().len();
            let said = machine.get(&world, TARBALL, &format!("{header}\r\n")).await;
            assert!(said.contains("mine") || said.contains("me=1"), "{said}");
            assert_eq!(origin.heads().len(), before + 1);
        }
    }
    machine.until_kept(&world, TARBALL, &origin).await;
    let said = machine.get(&world, TARBALL, "").await;
    assert!(!said.contains("mine") && !said.contains("me=1"), "{said}");
    // And with them it is asked for again.
    let said = machine
        .get(&world, TARBALL, "Authorization: Bearer mine\r\n")
        .await;
    assert!(said.contains("authorization: Bearer mine"), "{said}");
    let seen = world.close().await;
    assert!(seen.iter().any(|seen| !seen.cached && seen.count > 0));
}

#[tokio::test]
async fn what_can_change_is_asked_for_each_time_and_what_has_another_digest_is_never_kept() {
    let origin = Origin::plain().await;
    for (registry, path) in [
        ("npm", "/x".to_owned()),
        ("npm", format!("{TARBALL}?token=1")),
        ("go", "/m/@v/list".to_owned()),
        ("apt", format!("/by-hash/SHA256/{}", "0".repeat(64))),
    ] {
        let machine = Machine::new(registry, origin.port());
        let world = machine.sandbox(machine.users(), None);
        let before = origin.heads().len();
        for _ in 0..4 {
            let said = machine.get(&world, &path, "").await;
            assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        }
        assert_eq!(origin.heads().len(), before + 4, "{path}");
    }
}

#[tokio::test]
async fn what_is_kept_is_given_only_where_it_could_be_fetched() {
    let origin = Origin::plain().await;
    let machine = Machine::new("npm", origin.port());
    let one = machine.sandbox(machine.users(), None);
    let fetched = machine.until_kept(&one, TARBALL, &origin).await;
    // A repository that does not ask for it, and a configuration that leads to the address no more.
    let nothing = World::made(
        &Asked::default(),
        machine.users(),
        EgressBounds::default(),
        None,
        Some(Arc::clone(&machine.packages)),
    );
    let said = machine.get(&nothing, TARBALL, "").await;
    assert!(said.contains("no rule allows it"), "{said}");
    let asked = Asked {
        allow: vec![Rule {
            parts: vec![Part::Agent],
            host: Some("a.test".into()),
            ports: vec![machine.port],
            ..Rule::default()
        }],
        deny: Vec::new(),
    };
    let kept = Some(Arc::clone(&machine.packages));
    let public = World::made(
        &asked,
        Users::default(),
        EgressBounds::default(),
        None,
        kept,
    );
    let said = machine.get(&public, TARBALL, "").await;
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    assert_eq!(origin.heads().len(), fetched);
    // Where nothing is to be kept, each is fetched.
    let without = Users {
        cache: false,
        ..machine.users()
    };
    let without = machine.sandbox(without, None);
    machine.get(&without, TARBALL, "").await;
    assert_eq!(origin.heads().len(), fetched + 1);
}

#[tokio::test]
async fn artefacts_are_kept_inside_tls_too_and_a_sandbox_without_an_authority_gets_a_plain_tunnel()
{
    let authority = Authority::new();
    let origin = Origin::secure(&authority, &["a.test"]).await;
    let machine = Machine::new("npm", origin.port());
    let world = machine.sandbox(machine.users(), Some(&authority));
    let url = format!("https://a.test:{}{TARBALL}", machine.port);
    // Nobody has given programs in there the certificate yet.
    let words = ["curl", "-sS", "--cacert", authority.path(), &url];
    let said = text(&world.run(&words, &[]).await);
    assert!(said.contains("user-agent: curl"), "{said}");
    let own = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(own.path(), world.egress.certificates().unwrap()).unwrap();
    let words = [
        "curl",
        "-sS",
        "--cacert",
        own.path().to_str().unwrap(),
        &url,
    ];
    let begun = Instant::now();
    loop {
        let before = origin.heads().len();
        let said = text(&world.run(&words, &[]).await);
        assert!(said.contains("user-agent: skep"), "{said}");
        if origin.heads().len() == before {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it is never kept");
    }
    let seen = world.close().await;
    assert!(
        seen.iter()
            .any(|seen| seen.cached && seen.path.as_deref() == Some(TARBALL))
    );
}
