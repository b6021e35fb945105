//! Rules put together, and the decision.

mod decide;
mod reach;

pub use decide::{Decision, Why, decide};

use super::{
    Asked, Error, Host, MAX_MATCHERS, PORTS, Part, Pattern, Preset, Registry, Rule, Users,
    endpoint,
    path::{self, Glob},
};
use reach::Reach;
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

/// The word of a rule that narrows.
const WITHIN: &str = "within";

/// The rules of an attempt, ready to decide.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    asked: Vec<Matcher>,
    is_granted: bool,
    users: Vec<Matcher>,
    within: Option<Vec<Matcher>>,
    reach: Reach,
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
    /// The registry whose preset it allows.
    registry: Option<Registry>,
    /// Whether what that one never changes is to be kept.
    keeps: bool,
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

    /// Whether requests are to be seen although nothing depends on what they ask for.
    fn is_kept(&self) -> bool {
        self.keeps && self.registry.is_some()
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

    /// Whether it is about this request, all of it.
    fn takes(&self, request: &Request<'_>) -> bool {
        self.is_near(request)
            && match &request.asked {
                None => !self.has_conditions(),
                Some(asks) => {
                    self.meets(asks.method, path::plain(asks.target).as_deref())
                        && (!asks.upgrade || self.upgrade)
                }
            }
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
        let keeps = users.cache;
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
                let from = list.len();
                matchers(list, rule, hosts, allow, word, file)?;
                let registry = rule.preset.as_deref().and_then(Registry::of);
                let registry = registry.filter(|_| allow && word != WITHIN);
                for matcher in list.iter_mut().skip(from) {
                    (matcher.registry, matcher.keeps) = (registry, keeps);
                }
            }
            Ok::<_, Error>(())
        };
        let (mut of_asked, mut of_users, mut within) = (Vec::new(), Vec::new(), Vec::new());
        let (theirs, own) = (crate::policy::FILE, "configuration");
        add(&mut of_asked, &asked.allow, true, "allow", theirs)?;
        add(&mut of_asked, &asked.deny, false, "deny", theirs)?;
        add(&mut of_users, &users.allow, true, "allow", own)?;
        add(&mut of_users, &users.deny, false, "deny", own)?;
        add(&mut within, &users.within, true, WITHIN, own)?;
        Ok(Self {
            asked: of_asked,
            is_granted: users.asked,
            users: of_users,
            within: (!users.within.is_empty()).then_some(within),
            reach: Reach::new(users),
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

    /// The registries whose presets are allowed for this part of the work.
    #[must_use]
    pub fn presets(&self, part: Part) -> Vec<Registry> {
        let asked = self.asked.iter().filter(|_| self.is_granted);
        let all = self.users.iter().chain(asked);
        let of_part = all.filter(|rule| rule.parts.contains(&part));
        of_part.filter_map(|rule| rule.registry).collect()
    }

    /// Whether any rule for this part of the work needs to see methods or paths.
    #[must_use]
    pub fn inspects(&self, part: Part) -> bool {
        let all = self.asked.iter().chain(&self.users);
        all.chain(self.within.iter().flatten()).any(|rule| {
            (rule.has_conditions() || rule.is_kept())
                && (rule.parts.is_empty() || rule.parts.contains(&part))
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
                registry: None,
                keeps: false,
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
