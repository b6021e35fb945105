//! What decides whether something leaves a sandbox.

use domain::egress::{Asked, Asks, Host, Part, Presets, Request, Rules, Users, Verdict, decide};
use gateway::hostile::{First, MOST, first, target as parsed};

use crate::text;

/// The first bytes of a tunnel mean the same however few of them have come: until they are enough
/// they are short, and a name that was found once does not change by what comes after it.
pub fn greeting(bytes: &[u8]) {
    let whole = first(bytes);
    let step = (bytes.len() / 16).max(1);
    for cut in (0..bytes.len()).step_by(step) {
        let part = first(&bytes[..cut]);
        assert!(
            part == First::Short || part == whole,
            "{part:?} became {whole:?}"
        );
    }
    assert!(
        whole != First::Short || bytes.len() < MOST,
        "nobody waits for ever"
    );
}

/// A target names one host and one port, and means the same when it is written again.
pub fn target(bytes: &[u8]) {
    let text = text(bytes);
    if let Some((host, port)) = parsed(&text, 443) {
        assert!(port != 0 && !text.contains('@'));
        let again = parsed(&format!("{host}:{port}"), 80);
        assert_eq!(again, Some((host, port)));
    }
}

/// A host is one name or one address, to every resolver.
pub fn host(bytes: &[u8]) {
    let text = text(bytes);
    let Some(host) = Host::parse(&text) else {
        return;
    };
    assert_eq!(Host::parse(&host.to_string()), Some(host.clone()));
    if let Host::Name(name) = &host {
        assert!(name.len() <= 253 && !name.ends_with('.'));
        assert!(
            name.bytes()
                .all(|it| it.is_ascii_graphic() && !it.is_ascii_uppercase())
        );
        assert!(!is_an_address_to_some(name), "{name} is an address to some");
    }
}

/// Whether `inet_aton` takes a text for an address: one to four numbers, of any of its bases.
fn is_an_address_to_some(text: &str) -> bool {
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|it| it.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit()),
    };
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() <= 4 && parts.into_iter().all(number)
}

/// What a repository asks for is not allowed without the user's leave, and nothing is where no rule
/// allows it. The bytes are what is asked for, what the user says, a host and a target, with a zero
/// byte between them.
pub fn rules(bytes: &[u8]) {
    let mut parts = bytes.split(|it| *it == 0).map(text);
    let mut next = || parts.next().unwrap_or_default();
    let (asked, users, name, path) = (next(), next(), next(), next());
    let Ok(asked) = toml::from_str::<Asked>(&asked) else {
        return;
    };
    let Ok(users) = toml::from_str::<Users>(&users) else {
        return;
    };
    let Ok(all) = Rules::new(&asked, &users, &Presets::new()) else {
        return;
    };
    let strict = Users {
        asked: false,
        ..users
    };
    let own = Rules::new(&Asked::default(), &strict, &Presets::new());
    let own = own.expect("a part of what makes sense makes sense");
    let strict = Rules::new(&asked, &strict, &Presets::new());
    let strict = strict.expect("it makes sense without the leave");
    let Some(host) = Host::parse(&name) else {
        return;
    };
    for part in [Part::Agent, Part::Setup, Part::Checks] {
        for asks in [
            None,
            Some(Asks {
                method: "GET",
                target: &path,
                upgrade: false,
            }),
        ] {
            let request = Request {
                part,
                host: &host,
                port: 443,
                asked: asks,
            };
            let decided = |rules: &Rules| decide(rules, &request).verdict;
            if !all.grants(part) {
                assert_eq!(decided(&all), Verdict::Refused, "no rule allows anything");
            }
            if decided(&own) == Verdict::Refused {
                assert_ne!(
                    decided(&strict),
                    Verdict::Allowed,
                    "a repository gave itself leave"
                );
            }
        }
    }
}
