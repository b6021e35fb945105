//! What people are promised of the decision.

use super::*;
use proptest::prelude::*;

const HOSTS: [&str; 6] = [
    "example.com",
    "api.example.com",
    "a.api.example.com",
    "other.test",
    "10.0.0.7",
    "[2001:db8::1]",
];
const PATTERNS: [&str; 8] = [
    "*",
    "*.example.com",
    "*.api.example.com",
    "api.example.com",
    "example.com",
    "other.test",
    "10.0.0.0/8",
    "10.0.0.7",
];
const TARGETS: [&str; 8] = [
    "/",
    "/v1/a",
    "/v1/%61?b=c",
    "/v1/../v2",
    "/v1/%2e%2e/v2",
    "/v2/x/y",
    "/v1//a",
    "/v1%2fa",
];

fn rule() -> impl Strategy<Value = Rule> {
    let some = |all: &'static [&'static str]| {
        proptest::sample::subsequence(all.to_vec(), 0..=all.len().min(2))
            .prop_map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    (
        proptest::sample::subsequence(Part::ALL.to_vec(), 1..=3),
        proptest::sample::select(PATTERNS.to_vec()),
        proptest::sample::subsequence(vec![80, 443, 8443], 0..=2),
        some(&["GET", "POST"]),
        some(&["/v1/**", "/v1/a", "/**"]),
        any::<bool>(),
    )
        .prop_map(|(parts, host, ports, methods, paths, upgrade)| Rule {
            parts,
            host: Some(host.into()),
            preset: None,
            ports,
            methods,
            paths,
            upgrade,
        })
}

fn list() -> impl Strategy<Value = Vec<Rule>> {
    proptest::collection::vec(rule(), 0..4)
}

fn asked() -> impl Strategy<Value = Asked> {
    (list(), list()).prop_map(|(allow, deny)| Asked { allow, deny })
}

fn users() -> impl Strategy<Value = Users> {
    (any::<bool>(), list(), list(), list()).prop_map(|(asked, allow, deny, within)| Users {
        asked,
        allow,
        deny,
        within,
        ..Users::default()
    })
}

/// A request, with what is asked for.
#[derive(Debug, Clone)]
struct Made(Part, &'static str, u16, &'static str, &'static str, bool);

fn made() -> impl Strategy<Value = Made> {
    (
        proptest::sample::select(Part::ALL.to_vec()),
        proptest::sample::select(HOSTS.to_vec()),
        proptest::sample::select(vec![80, 443, 8443, 22]),
        proptest::sample::select(vec!["GET", "POST", "PUT"]),
        proptest::sample::select(TARGETS.to_vec()),
        any::<bool>(),
    )
        .prop_map(|(part, host, port, method, target, upgrade)| {
            Made(part, host, port, method, target, upgrade)
        })
}

impl Made {
    fn decide(&self, rules: &Rules) -> Decision {
        let Self(part, host, port, method, target, upgrade) = *self;
        let asked = Some(Asks {
            method,
            target,
            upgrade,
        });
        let host = Host::parse(host).unwrap();
        decide(
            rules,
            &Request {
                part,
                host: &host,
                port,
                asked,
            },
        )
    }

    fn tunnel(&self, rules: &Rules) -> Decision {
        let host = Host::parse(self.1).unwrap();
        decide(
            rules,
            &Request {
                part: self.0,
                host: &host,
                port: self.2,
                asked: None,
            },
        )
    }
}

fn rules(asked: &Asked, users: &Users) -> Rules {
    Rules::new(asked, users, &Presets::new()).unwrap()
}

proptest! {
    #[test]
    fn without_a_rule_that_allows_nothing_is_allowed(
        deny in list(), within in list(), made in made()
    ) {
        let asked = Asked { allow: Vec::new(), deny: deny.clone() };
        let users = Users { deny, within, ..Users::default() };
        let rules = rules(&asked, &users);
        prop_assert_eq!(made.decide(&rules).verdict, Verdict::Refused);
        prop_assert_eq!(made.tunnel(&rules).verdict, Verdict::Refused);
        prop_assert!(!rules.grants(made.0));
    }

    #[test]
    fn a_denial_never_allows_what_was_refused_wherever_it_stands(
        asked in asked(), users in users(), more in rule(), made in made()
    ) {
        let before = rules(&asked, &users);
        let (mut asked_more, mut users_more) = (asked.clone(), users.clone());
        asked_more.deny.push(more.clone());
        users_more.deny.push(more);
        for after in [rules(&asked_more, &users), rules(&asked, &users_more)] {
            if made.decide(&before).verdict == Verdict::Refused {
                prop_assert_eq!(made.decide(&after).verdict, Verdict::Refused);
            }
            if made.tunnel(&before).verdict == Verdict::Refused {
                prop_assert_eq!(made.tunnel(&after).verdict, Verdict::Refused);
            }
        }
    }

    #[test]
    fn nothing_that_a_repository_asks_for_gets_past_a_general_denial_of_the_user(
        asked in asked(), made in made(), host in proptest::sample::select(PATTERNS.to_vec())
    ) {
        let deny = vec![Rule { host: Some(host.into()), ..Rule::default() }];
        let users = Users { deny, ..Users::default() };
        let rules = rules(&asked, &users);
        if Pattern::parse(host).unwrap().matches(&Host::parse(made.1).unwrap()) {
            prop_assert_eq!(made.decide(&rules).verdict, Verdict::Refused);
            prop_assert_eq!(made.tunnel(&rules).verdict, Verdict::Refused);
        }
    }

    #[test]
    fn with_asked_off_a_repository_grants_nothing(asked in asked(), users in users(), made in made()) {
        let users = Users { asked: false, ..users };
        let without = rules(&Asked::default(), &users);
        let with = rules(&asked, &users);
        if made.decide(&with).verdict == Verdict::Allowed {
            prop_assert_eq!(made.decide(&without).verdict, Verdict::Allowed);
        }
    }

    #[test]
    fn the_order_of_rules_does_not_matter(asked in asked(), users in users(), made in made()) {
        let mut turned = (asked.clone(), users.clone());
        for list in [
            &mut turned.0.allow, &mut turned.0.deny, &mut turned.1.allow, &mut turned.1.deny,
            &mut turned.1.within,
        ] {
            list.reverse();
        }
        let (one, other) = (rules(&asked, &users), rules(&turned.0, &turned.1));
        prop_assert_eq!(made.decide(&one).verdict, made.decide(&other).verdict);
        prop_assert_eq!(made.tunnel(&one).verdict, made.tunnel(&other).verdict);
    }

    #[test]
    fn what_is_said_of_a_tunnel_holds_for_every_request_in_it(
        asked in asked(), users in users(), made in made()
    ) {
        let rules = rules(&asked, &users);
        let within = Made(made.0, made.1, made.2, made.3, made.4, false).decide(&rules);
        match made.tunnel(&rules).verdict {
            Verdict::Allowed => prop_assert_eq!(within.verdict, Verdict::Allowed),
            Verdict::Refused => prop_assert_eq!(within.verdict, Verdict::Refused),
            Verdict::Inspected => {}
        }
        prop_assert!(within.verdict != Verdict::Inspected);
    }

    #[test]
    fn any_text_is_read_as_a_host_in_one_form_or_refused(text in "[a-zA-Z0-9.:%\\[\\]_-]{0,30}") {
        if let Some(host) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&host.to_string()), Some(host));
        }
    }

    #[test]
    fn a_path_in_its_one_form_stays_as_it_is(target in "/[a-z./%;0-9A-F]{0,20}") {
        if let Some(plain) = path::plain(&target) {
            let again = path::plain(&plain);
            prop_assert_eq!(again.as_deref(), Some(plain.as_str()));
            prop_assert!(plain.split('/').all(|segment| segment != ".." && segment != "."));
        }
    }
}

fn allow(host: &str) -> Rule {
    Rule {
        parts: vec![Part::Agent],
        host: Some(host.into()),
        ..Rule::default()
    }
}

fn verdict(rules: &Rules, host: &str, method: &str, target: &str) -> Verdict {
    let host = Host::parse(host).unwrap();
    let asked = Some(Asks {
        method,
        target,
        upgrade: false,
    });
    let request = Request {
        part: Part::Agent,
        host: &host,
        port: 443,
        asked,
    };
    decide(rules, &request).verdict
}

#[test]
fn the_most_special_rule_of_a_file_wins_and_a_denial_among_equals() {
    let asked = Asked {
        allow: vec![
            allow("*.example.com"),
            Rule {
                paths: vec!["/open/**".into()],
                ..allow("shut.example.com")
            },
            allow("even.example.com"),
        ],
        deny: vec![allow("shut.example.com"), allow("even.example.com")],
    };
    let rules = rules(&asked, &Users::default());
    for (host, target, expected) in [
        ("api.example.com", "/", Verdict::Allowed),
        ("example.com", "/", Verdict::Refused),
        ("shut.example.com", "/", Verdict::Refused),
        ("shut.example.com", "/open/a", Verdict::Allowed),
        ("shut.example.com", "/open/../a", Verdict::Refused),
        ("shut.example.com", "/op%65n/a", Verdict::Allowed),
        ("even.example.com", "/", Verdict::Refused),
    ] {
        let found = verdict(&rules, host, "GET", target);
        assert_eq!(found, expected, "{host}{target}");
    }
}

#[test]
fn a_decision_names_its_rule_and_its_file() {
    let asked = Asked {
        allow: vec![Rule {
            methods: vec!["GET".into()],
            paths: vec!["/v1/**".into()],
            ..allow("api.example.com")
        }],
        deny: Vec::new(),
    };
    let users = Users {
        within: vec![allow("*.example.com")],
        ..Users::default()
    };
    let host = Host::parse("API.example.com.").unwrap();
    let request = Request {
        part: Part::Agent,
        host: &host,
        port: 443,
        asked: None,
    };
    let decided = decide(&rules(&asked, &users), &request);
    assert_eq!(decided.verdict, Verdict::Inspected);
    assert_eq!(
        decided.rule.as_deref(),
        Some("allow api.example.com GET /v1/** (skep.toml)")
    );
    let elsewhere = Users {
        within: vec![allow("*.example.org")],
        ..Users::default()
    };
    let decided = decide(&rules(&asked, &elsewhere), &request);
    assert_eq!(decided.verdict, Verdict::Refused);
}

#[test]
fn a_preset_stands_for_its_hosts_and_an_unknown_one_for_none() {
    let asked = Asked {
        allow: vec![
            Rule {
                host: None,
                preset: Some("team".into()),
                ..allow("")
            },
            Rule {
                host: None,
                preset: Some("nobody".into()),
                ..allow("")
            },
        ],
        deny: Vec::new(),
    };
    let hosts = vec!["packages.test:8443".into(), "mirror.test".into()];
    let machine = Presets::from([("team".into(), Preset { hosts })]);
    let rules = Rules::new(&asked, &Users::default(), &machine).unwrap();
    assert_eq!(rules.unknown_presets(), ["nobody"]);
    assert_eq!(verdict(&rules, "mirror.test", "GET", "/"), Verdict::Allowed);
    assert_eq!(
        verdict(&rules, "packages.test", "GET", "/"),
        Verdict::Refused
    );
}

#[test]
fn hosts_that_could_be_read_in_two_ways_are_not_hosts() {
    for text in [
        "127.1",
        "0x7f.0.0.1",
        "2130706433",
        "127.0.0.0x1",
        "a b",
        "a..b",
        "",
        ".",
        "ex%61mple.com",
        "fe80::1",
        "[fe80::1%eth0]",
        "ex\u{e4}mple.com",
        "a@b",
        "a:80",
        "-a.com",
    ] {
        assert_eq!(Host::parse(text), None, "{text}");
    }
    let mapped = Host::parse("[::ffff:127.0.0.1]").unwrap();
    assert_eq!(mapped, Host::parse("127.0.0.1").unwrap());
}

#[test]
fn addresses_that_are_not_public_are_known_in_every_dress() {
    for (text, expected) in [
        ("1.1.1.1", Kind::Public),
        ("127.9.9.9", Kind::Loopback),
        ("10.0.0.1", Kind::Private),
        ("172.31.0.1", Kind::Private),
        ("192.168.1.1", Kind::Private),
        ("100.64.0.1", Kind::Private),
        ("169.254.169.254", Kind::LinkLocal),
        ("0.0.0.0", Kind::Special),
        ("224.0.0.1", Kind::Special),
        ("255.255.255.255", Kind::Special),
        ("240.0.0.1", Kind::Special),
        ("192.0.2.1", Kind::Special),
        ("198.18.0.1", Kind::Special),
        ("2606:4700::1111", Kind::Public),
        ("::1", Kind::Loopback),
        ("::", Kind::Special),
        ("::127.0.0.1", Kind::Special),
        ("::ffff:127.0.0.1", Kind::Loopback),
        ("::ffff:0:10.0.0.1", Kind::Private),
        ("64:ff9b::a9fe:a9fe", Kind::LinkLocal),
        ("64:ff9b:1::1", Kind::Private),
        ("2002:7f00:1::", Kind::Loopback),
        ("2001::1", Kind::Special),
        ("2001:db8::1", Kind::Special),
        ("fd00:ec2::254", Kind::Private),
        ("fe80::1", Kind::LinkLocal),
        ("fec0::1", Kind::Private),
        ("ff02::1", Kind::Special),
        ("4000::1", Kind::Special),
    ] {
        assert_eq!(kind(text.parse().unwrap()), expected, "{text}");
    }
}

#[test]
fn an_address_that_is_not_public_is_connected_to_only_where_the_user_names_it_and_its_host() {
    let own = |host: &str, ports: &[u16]| Rule {
        ports: ports.to_vec(),
        ..allow(host)
    };
    let users = Users {
        allow: vec![
            own("a.test", &[8080]),
            own("*.corp.test", &[]),
            own("[::1]".trim_matches(['[', ']']), &[]),
            own("*", &[]),
            Rule {
                paths: vec!["/open".into()],
                ..own("paths.test", &[])
            },
        ],
        addresses: vec!["10.1.0.0/16".parse().unwrap(), "::1".parse().unwrap()],
        hosts: [("packages.internal".into(), "192.168.0.9".parse().unwrap())].into(),
        presets: [(
            "team".into(),
            Preset {
                hosts: vec!["mirror.internal:8443".into()],
            },
        )]
        .into(),
        ..Users::default()
    };
    users.validate().unwrap();
    // A repository may ask for what it likes.
    let asked = Asked {
        allow: vec![
            own("*", &[]),
            own("10.0.0.0/8", &[]),
            own("127.0.0.0/8", &[]),
        ],
        deny: Vec::new(),
    };
    let rules = rules(&asked, &users);
    let may = |host: &str, port: u16, target: &str, address: &str| {
        let host = Host::parse(host).unwrap();
        let request = Request {
            part: Part::Agent,
            host: &host,
            port,
            asked: Some(Asks {
                method: "GET",
                target,
                upgrade: false,
            }),
        };
        rules.may_connect(&request, address.parse().unwrap())
    };
    assert!(may("a.test", 8080, "/", "10.1.255.1") && may("a.test", 8080, "/", "::ffff:10.1.0.1"));
    assert!(!may("a.test", 443, "/", "10.1.255.1"), "another port");
    assert!(!may("a.test", 8080, "/", "10.2.0.1"), "another address");
    assert!(may("x.corp.test", 443, "/", "10.1.0.1") && !may("x.corp.test", 22, "/", "10.1.0.1"));
    assert!(!may("evil.test", 443, "/", "10.1.0.1"), "`*` names nobody");
    assert!(
        !may("10.1.0.1", 443, "/", "10.1.0.1"),
        "only the repository names it"
    );
    assert!(may("paths.test", 443, "/open", "10.1.0.1"));
    assert!(!may("paths.test", 443, "/shut", "10.1.0.1"));
    assert!(may("[::1]", 443, "/", "::1") && !may("127.0.0.1", 443, "/", "127.0.0.1"));
    assert!(may("packages.internal", 443, "/", "192.168.0.9"));
    assert!(!may("packages.internal", 22, "/", "192.168.0.9"));
    assert!(!may("other.internal", 443, "/", "192.168.0.9"));
    assert!(may("mirror.internal", 8443, "/", "10.1.0.1"));
    assert!(!may("mirror.internal", 443, "/", "10.1.0.1"));
    assert!(
        may("evil.test", 443, "/", "9.9.9.9"),
        "what is public is as it was"
    );
}

#[test]
fn however_a_repository_writes_its_paths_a_decision_is_soon_made() {
    let rule = |number: usize| Rule {
        parts: vec![Part::Agent],
        host: Some("a.test".into()),
        paths: (0..50)
            .map(|path| format!("/{}{number}x{path}", "**a*aa".repeat(2)))
            .collect(),
        ..Rule::default()
    };
    let asked = |rules| Asked {
        allow: (0..rules).map(rule).collect(),
        deny: Vec::new(),
    };
    let error = asked(11).validate().unwrap_err().to_string();
    assert!(error.contains("more than 500 hosts and paths"), "{error}");
    let begun = std::time::Instant::now();
    let rules = Rules::new(&asked(10), &Users::default(), &Presets::new()).unwrap();
    let host = Host::parse("a.test").unwrap();
    for length in [2_000, 60_000] {
        let target = format!("/{}", "a".repeat(length));
        let request = Request {
            part: Part::Agent,
            host: &host,
            port: 443,
            asked: Some(Asks {
                method: "GET",
                target: &target,
                upgrade: false,
            }),
        };
        assert_eq!(decide(&rules, &request).verdict, Verdict::Refused);
    }
    // Regular expressions took minutes, and half a gigabyte.
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_path_pattern_that_could_never_match_is_refused() {
    for bad in [
        "/a?b", "/[ab]", "/{a,b}", "/%61", "/a//b", "/a/../b", "/a;b", "/%c3%a9", "/\u{e9}",
    ] {
        let asked = Asked {
            allow: Vec::new(),
            deny: vec![Rule {
                host: Some("a.test".into()),
                paths: vec![bad.into()],
                ..Rule::default()
            }],
        };
        assert!(asked.validate().is_err(), "{bad}");
    }
}

#[test]
fn a_denied_method_is_denied_in_small_letters_too() {
    let rule = |methods: &[&str]| Rule {
        parts: vec![Part::Agent],
        host: Some("a.test".into()),
        methods: methods.iter().map(|method| (*method).into()).collect(),
        ..Rule::default()
    };
    let asked = Asked {
        allow: vec![rule(&[])],
        deny: vec![rule(&["POST"])],
    };
    let rules = Rules::new(&asked, &Users::default(), &Presets::new()).unwrap();
    let host = Host::parse("a.test").unwrap();
    for (method, expected) in [
        ("POST", Verdict::Refused),
        ("post", Verdict::Refused),
        ("GET", Verdict::Allowed),
    ] {
        let asks = Asks {
            method,
            target: "/",
            upgrade: false,
        };
        let request = Request {
            part: Part::Agent,
            host: &host,
            port: 443,
            asked: Some(asks),
        };
        assert_eq!(decide(&rules, &request).verdict, expected, "{method}");
    }
}

#[test]
fn a_denial_by_a_preset_that_nobody_knows_is_an_error_and_denies_not_nothing() {
    let rule = Rule {
        preset: Some("nobody".into()),
        ..Rule::default()
    };
    let users = Users {
        deny: vec![rule],
        ..Users::default()
    };
    let error = Rules::new(&Asked::default(), &users, &Presets::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`egress.deny`: the preset `nobody` has no hosts on this machine"
    );
}

#[test]
fn whether_a_connection_may_become_another_protocol_is_for_the_most_special_rule_to_say() {
    let upgrade = |host: &str, upgrade| Rule {
        upgrade,
        ..allow(host)
    };
    let says = |asked: &[Rule], own: &[Rule], within: &[Rule]| {
        let asked = Asked {
            allow: asked.to_vec(),
            deny: Vec::new(),
        };
        let users = Users {
            allow: own.to_vec(),
            within: within.to_vec(),
            ..Users::default()
        };
        let made = Made(Part::Agent, "api.example.com", 443, "GET", "/", true);
        made.decide(&rules(&asked, &users)).why
    };
    let (all, one) = (upgrade("*", true), upgrade("api.example.com", true));
    let not_one = upgrade("api.example.com", false);
    let none: [Rule; 0] = [];
    assert_eq!(says(std::slice::from_ref(&all), &none, &none), Why::Rule);
    assert_eq!(
        says(&[all.clone(), not_one.clone()], &none, &none),
        Why::Upgrade
    );
    assert_eq!(
        says(&[not_one.clone(), all.clone()], &none, &none),
        Why::Upgrade
    );
    assert_eq!(
        says(&[not_one.clone(), one.clone()], &none, &none),
        Why::Rule
    );
    assert_eq!(
        says(&none, &[all.clone(), not_one.clone()], &none),
        Why::Upgrade
    );
    // A rule of the user that says nothing of it denies nothing.
    assert_eq!(
        says(
            std::slice::from_ref(&one),
            std::slice::from_ref(&not_one),
            &none
        ),
        Why::Rule
    );
    assert_eq!(says(&[one], &none, &[all, not_one]), Why::NotWithin);
}

#[test]
fn what_some_decoders_take_for_a_dot_or_a_slash_is_no_path_of_a_rule() {
    for odd in [
        "/%C0%AE%C0%AE/a",
        "/%c0%2e",
        "/%C1%9C",
        "/%F5%80%80%80",
        "/%FF",
        "/%FE",
        "/%E0%80%AE",
        "/%F0%80%80%AE",
        "/%ED%A0%80",
        "/%E9",
        "/%80",
        "/a%C3",
        "/%C3a",
        "/%EF%BC%8E%EF%BC%8E/a",
        "/a%EF%BC%8Fb",
        "/%E2%80%A4",
        "/%EF%BC%85",
        "/%E2%80%A5",
    ] {
        assert_eq!(path::plain(odd), None, "{odd}");
    }
    for (fine, plain) in [
        ("/%c3%a9", "/%C3%A9"),
        ("/%E6%97%A5", "/%E6%97%A5"),
        ("/%F0%9F%90%9D/a", "/%F0%9F%90%9D/a"),
    ] {
        assert_eq!(path::plain(fine).as_deref(), Some(plain));
    }
}
