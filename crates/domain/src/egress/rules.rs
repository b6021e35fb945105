//! Rules put together, and the decision.

use super::{
    Asked, Error, Host, MAX_MATCHERS, PORTS, Part, Pattern, Preset, Rule, Users, endpoint,
    path::{self, Glob},
};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

/// Hosts by the names of presets: what the machine knows besides the user's configuration.
pub type Presets = BTreeMap<String, Preset>;

/// A request that somebody in a sandbox makes.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who.
    pub part: Part,
    /// To which host.
    pub host: &'a Host,
    /// At which port.
    pub port: u16,
    /// What is asked for; none for a tunnel, of which only the two ends are known.
    pub asked: Option<Asks<'a>>,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asks<'a> {
    /// The method.
    pub method: &'a str,
    /// The target: its path, perhaps with a query.
    pub target: &'a str,
    /// Whether the connection is to become another protocol.
    pub upgrade: bool,
}

/// Whether a request may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may.
    Allowed,
    /// That depends on the requests within the tunnel: each of them is to be decided.
    Inspected,
    /// It may not.
    Refused,
}

/// Why, where it is not a rule that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The rule that is named.
    Rule,
    /// No rule allows it.
    Nothing,
    /// The repository asks for it, and the user's configuration grants nothing that repositories
    /// ask for.
    NotAsked,
    /// The repository asks for it, and it is not within what the user's configuration grants.
    NotWithin,
    /// The path can be read in different ways, and rules for this host have paths.
    Path,
    /// A rule would allow it if the connection were not to become another protocol.
    Upgrade,
}

/// What is decided, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be made.
    pub verdict: Verdict,
    /// Why.
    pub why: Why,
    /// The rule, in words: `allow *.example.com (skep.toml)`.
    pub rule: Option<Arc<str>>,
}

impl Decision {
    /// Why it is refused, in words; for what is allowed, by which rule.
    #[must_use]
    pub fn reason(&self) -> String {
        let rule = self.rule.as_deref().unwrap_or_default();
        match (self.verdict, self.why) {
            (Verdict::Allowed, _) => format!("the rule `{rule}` allows it"),
            (Verdict::Inspected, _) => {
                format!("the rule `{rule}` decides by method and path")
            }
            (_, Why::Rule) => format!("the rule `{rule}` refuses it"),
            (_, Why::Nothing) => "no rule allows it".into(),
            (_, Why::NotAsked) => format!(
                "the rule `{rule}` asks for it, and the configuration grants nothing that \
                 repositories ask for"
            ),
            (_, Why::NotWithin) => format!(
                "the rule `{rule}` asks for it, and it is not within what the configuration grants"
            ),
            (_, Why::Path) => {
                "its path can be read in different ways, and rules for this host have paths".into()
            }
            (_, Why::Upgrade) => {
                "the rule that matches does not allow another protocol (`upgrade`)".into()
            }
        }
    }

    /// What a person can do about a refusal.
    #[must_use]
    pub fn remedy(&self, part: Part, host: &Host) -> String {
        match self.why {
            Why::Rule => "change that rule".into(),
            Why::Nothing => format!(
                "allow it with `[[egress.allow]]`, `for = [\"{part}\"]`, `host = \"{}\"` in \
                 {} or in your configuration",
                host.to_string().trim_matches(['[', ']']),
                crate::policy::FILE,
            ),
            Why::NotAsked => {
                "set `asked` in `[egress]` of your configuration, or allow it there".into()
            }
            Why::NotWithin => {
                "widen `[[egress.within]]` in your configuration, or allow it there".into()
            }
            Why::Path => "write the path without `.`, `..`, `//`, `;` and encoded slashes".into(),
            Why::Upgrade => "set `upgrade = true` in it".into(),
        }
    }

    fn refused(why: Why, rule: Option<&Matcher>) -> Self {
        Self {
            verdict: Verdict::Refused,
            why,
            rule: rule.map(|rule| Arc::clone(&rule.words)),
        }
    }
}

/// The rules of an attempt, ready to decide.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    asked: Vec<Matcher>,
    is_granted: bool,
    users: Vec<Matcher>,
    within: Option<Vec<Matcher>>,
    unknown: Vec<String>,
}

/// One host and at most one path of a rule.
#[derive(Debug, Clone)]
struct Matcher {
    allow: bool,
    parts: Vec<Part>,
    host: Pattern,
    /// Empty means all.
    ports: Vec<u16>,
    has_ports: bool,
    methods: Vec<String>,
    path: Option<Glob>,
    upgrade: bool,
    words: Arc<str>,
}

/// How special a matcher is.
type Weight = ((u8, usize), bool, usize, bool);

impl Matcher {
    fn is_near(&self, request: &Request<'_>) -> bool {
        (self.parts.is_empty() || self.parts.contains(&request.part))
            && (self.ports.is_empty() || self.ports.contains(&request.port))
            && self.host.matches(request.host)
    }

    fn has_conditions(&self) -> bool {
        !self.methods.is_empty() || self.path.is_some()
    }

    fn meets(&self, method: &str, plain: Option<&str>) -> bool {
        let path = match (&self.path, plain) {
            (None, _) => true,
            (Some(glob), Some(plain)) => glob.matches(plain),
            (Some(_), None) => false,
        };
        // To some servers `post` is `POST`: that is denied, too, and not allowed.
        let is =
            |known: &String| known == method || (!self.allow && known.eq_ignore_ascii_case(method));
        path && (self.methods.is_empty() || self.methods.iter().any(is))
    }

    fn weight(&self) -> Weight {
        let path = self.path.as_ref().map_or(0, |path| path.literal() + 1);
        (
            self.host.weight(),
            self.has_ports,
            path,
            !self.methods.is_empty(),
        )
    }
}

/// Of what matches, what counts: the most special; among equals a denial.
fn first<'a>(all: impl Iterator<Item = &'a Matcher>) -> Option<&'a Matcher> {
    all.max_by_key(|one| (one.weight(), !one.allow))
}

impl Rules {
    /// Puts together what a repository asks for and what the user says. A preset that neither the
    /// user nor the machine knows allows nothing.
    ///
    /// # Errors
    /// When a rule makes no sense.
    pub fn new(asked: &Asked, users: &Users, machine: &Presets) -> Result<Self, Error> {
        asked.validate()?;
        users.validate()?;
        let mut unknown = Vec::new();
        let mut add = |list: &mut Vec<Matcher>, rules: &[Rule], allow: bool, word, file| {
            for rule in rules {
                let hosts = match hosts(rule, users, machine) {
                    Some(hosts) => hosts,
                    None => {
                        let name = rule.preset.clone().unwrap_or_default();
                        // A denial that means nobody would protect nobody.
                        if !allow {
                            let what = format!("the preset `{name}` has no hosts on this machine");
                            return Err(Error::of(word, what));
                        }
                        unknown.push(name);
                        continue;
                    }
                };
                matchers(list, rule, hosts, allow, word, file)?;
            }
            Ok::<_, Error>(())
        };
        let (mut of_asked, mut of_users, mut within) = (Vec::new(), Vec::new(), Vec::new());
        let (theirs, own) = (crate::policy::FILE, "configuration");
        add(&mut of_asked, &asked.allow, true, "allow", theirs)?;
        add(&mut of_asked, &asked.deny, false, "deny", theirs)?;
        add(&mut of_users, &users.allow, true, "allow", own)?;
        add(&mut of_users, &users.deny, false, "deny", own)?;
        add(&mut within, &users.within, true, "within", own)?;
        Ok(Self {
            asked: of_asked,
            is_granted: users.asked,
            users: of_users,
            within: (!users.within.is_empty()).then_some(within),
            unknown,
        })
    }

    /// Presets that rules name and nobody knows.
    #[must_use]
    pub fn unknown_presets(&self) -> &[String] {
        &self.unknown
    }

    /// Whether anything may be allowed for this part of the work.
    #[must_use]
    pub fn grants(&self, part: Part) -> bool {
        let allows = |rule: &Matcher| rule.allow && rule.parts.contains(&part);
        self.users.iter().any(allows) || (self.is_granted && self.asked.iter().any(allows))
    }

    /// Whether any rule for this part of the work needs to see methods or paths.
    #[must_use]
    pub fn inspects(&self, part: Part) -> bool {
        let all = self.asked.iter().chain(&self.users);
        all.chain(self.within.iter().flatten()).any(|rule| {
            rule.has_conditions() && (rule.parts.is_empty() || rule.parts.contains(&part))
        })
    }
}

/// The hosts of a rule, each with the port that a preset names; none for an unknown preset.
fn hosts(rule: &Rule, users: &Users, machine: &Presets) -> Option<Vec<(Pattern, Option<u16>)>> {
    if let Some(host) = &rule.host {
        return Some(vec![(Pattern::parse(host)?, None)]);
    }
    let name = rule.preset.as_ref()?;
    let preset = users.presets.get(name).or_else(|| machine.get(name))?;
    Some(
        preset
            .hosts
            .iter()
            .filter_map(|host| endpoint(host))
            .collect(),
    )
}

fn matchers(
    list: &mut Vec<Matcher>,
    rule: &Rule,
    hosts: Vec<(Pattern, Option<u16>)>,
    allow: bool,
    word: &'static str,
    file: &'static str,
) -> Result<(), Error> {
    // Each of them is looked at for every request.
    if list.len() + hosts.len() * rule.paths.len().max(1) > MAX_MATCHERS {
        return Err(Error::of(
            word,
            format!("more than {MAX_MATCHERS} hosts and paths"),
        ));
    }
    for (host, port) in hosts {
        let mut words = format!("{word} {host}");
        if let Some(preset) = &rule.preset {
            words.push_str(&format!(", preset {preset}"));
        }
        let ports = match port {
            Some(port) if rule.ports.is_empty() => vec![port],
            _ if rule.ports.is_empty() && allow => PORTS.to_vec(),
            _ => rule.ports.clone(),
        };
        let has_ports = port.is_some() || !rule.ports.is_empty();
        if has_ports {
            let all: Vec<_> = ports.iter().map(ToString::to_string).collect();
            words.push_str(&format!(" port {}", all.join(", ")));
        }
        if !rule.methods.is_empty() {
            words.push_str(&format!(" {}", rule.methods.join(", ")));
        }
        let one = |path: Option<&String>| {
            let mut words = words.clone();
            let mut glob = None;
            if let Some(path) = path {
                words.push_str(&format!(" {path}"));
                glob = Some(Glob::new(path));
            }
            Matcher {
                allow,
                parts: rule.parts.clone(),
                host: host.clone(),
                ports: ports.clone(),
                has_ports,
                methods: rule.methods.clone(),
                path: glob,
                upgrade: rule.upgrade,
                words: format!("{words} ({file})").into(),
            }
        };
        if rule.paths.is_empty() {
            list.push(one(None));
        }
        for path in &rule.paths {
            list.push(one(Some(path)));
        }
    }
    Ok(())
}

/// Decides whether a request may be made.
///
/// In each of the two files the most special rule that matches counts, and among equals a denial.
/// A file whose rule denies has decided. Else it is allowed if the user's file allows it, or if the
/// repository's does within what the user grants.
#[must_use]
pub fn decide(rules: &Rules, request: &Request<'_>) -> Decision {
    match &request.asked {
        Some(asks) => decide_request(rules, request, asks),
        None => decide_tunnel(rules, request),
    }
}

fn decide_request(rules: &Rules, request: &Request<'_>, asks: &Asks<'_>) -> Decision {
    let near = |list: &[Matcher]| {
        let mut near = list.iter().filter(|rule| rule.is_near(request));
        near.any(|rule| rule.path.is_some())
    };
    let plain = path::plain(asks.target);
    let within = rules.within.as_deref();
    if plain.is_none() && (near(&rules.asked) || near(&rules.users) || within.is_some_and(near)) {
        return Decision::refused(Why::Path, None);
    }
    let met = |rule: &&Matcher| rule.is_near(request) && rule.meets(asks.method, plain.as_deref());
    // A rule without `upgrade` does not allow one; it denies one all the same.
    let fits = |rule: &&Matcher| met(rule) && (!rule.allow || !asks.upgrade || rule.upgrade);
    let mut decision = settle(
        rules,
        first(rules.users.iter().filter(fits)),
        first(rules.asked.iter().filter(fits)),
        || within.is_none_or(|within| within.iter().any(|rule| fits(&rule))),
    );
    let allows = |list: &[Matcher]| list.iter().any(|rule| rule.allow && met(&rule));
    if decision.why == Why::Nothing
        && asks.upgrade
        && (allows(&rules.users) || allows(&rules.asked))
    {
        decision.why = Why::Upgrade;
    }
    decision
}

fn decide_tunnel(rules: &Rules, request: &Request<'_>) -> Decision {
    let near = |rule: &&Matcher| rule.is_near(request);
    let users: Vec<_> = rules.users.iter().filter(near).collect();
    let asked: Vec<_> = rules.asked.iter().filter(near).collect();
    let within = rules.within.as_deref();
    let within: Option<Vec<_>> = within.map(|list| list.iter().filter(near).collect());
    // What no request within could get past.
    let closed = |list: &[&Matcher]| {
        list.iter().all(|rule| !rule.allow) && list.iter().any(|rule| !rule.has_conditions())
    };
    let may = users.iter().any(|rule| rule.allow)
        || (rules.is_granted
            && asked.iter().any(|rule| rule.allow)
            && within.as_ref().is_none_or(|within| !within.is_empty()));
    let conditions = users
        .iter()
        .chain(&asked)
        .chain(within.iter().flatten())
        .find(|rule| rule.has_conditions());
    if may
        && !closed(&users)
        && !closed(&asked)
        && let Some(rule) = conditions
    {
        return Decision {
            verdict: Verdict::Inspected,
            why: Why::Rule,
            rule: Some(Arc::clone(&rule.words)),
        };
    }
    let users = first(users.into_iter().filter(|rule| !rule.has_conditions()));
    let asked = first(asked.into_iter().filter(|rule| !rule.has_conditions()));
    settle(rules, users, asked, || {
        within.is_none_or(|within| !within.is_empty())
    })
}

fn settle(
    rules: &Rules,
    users: Option<&Matcher>,
    asked: Option<&Matcher>,
    is_within: impl FnOnce() -> bool,
) -> Decision {
    let allowed = |rule: &Matcher| Decision {
        verdict: Verdict::Allowed,
        why: Why::Rule,
        rule: Some(Arc::clone(&rule.words)),
    };
    match (users, asked) {
        (Some(rule), _) if !rule.allow => Decision::refused(Why::Rule, Some(rule)),
        (_, Some(rule)) if !rule.allow => Decision::refused(Why::Rule, Some(rule)),
        (Some(rule), _) => allowed(rule),
        (None, Some(rule)) if !rules.is_granted => Decision::refused(Why::NotAsked, Some(rule)),
        (None, Some(rule)) if is_within() => allowed(rule),
        (None, Some(rule)) => Decision::refused(Why::NotWithin, Some(rule)),
        (None, None) => Decision::refused(Why::Nothing, None),
    }
}
