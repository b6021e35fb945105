//! The decision.

use super::{Asks, Matcher, Request, Rules, Verdict};
use crate::egress::{Host, Part, Registry, path};
use serde::Serialize;
use std::sync::Arc;

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
    /// The registry that it is a request to, where that one's artefacts are kept. Of a tunnel: nothing
    /// but this asks for a look into it.
    pub registry: Option<Registry>,
}

impl Decision {
    /// Why it is refused, in words; for what is allowed, by which rule.
    #[must_use]
    pub fn reason(&self) -> String {
        let rule = self.rule.as_deref().unwrap_or_default();
        match (self.verdict, self.why) {
            (Verdict::Allowed, _) => format!("the rule `{rule}` allows it"),
            (Verdict::Inspected, _) if self.registry.is_some() => {
                format!("the rule `{rule}` allows it, as far as each request in it is allowed")
            }
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
            (_, Why::Path) => format!(
                "its path can be read in different ways, and rules for this host have paths, as \
                 `{rule}`"
            ),
            (_, Why::Upgrade) => {
                format!("the rule `{rule}` matches and does not allow another protocol (`upgrade`)")
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
            Why::Path => {
                "write the path without `.`, `..`, `//`, `;`, encoded slashes and what is no UTF-8"
                    .into()
            }
            Why::Upgrade => "set `upgrade = true` in it".into(),
        }
    }

    fn refused(why: Why, rule: Option<&Matcher>) -> Self {
        Self {
            verdict: Verdict::Refused,
            why,
            rule: rule.map(|rule| Arc::clone(&rule.words)),
            registry: None,
        }
    }
}

/// Of what matches, what counts: the most special; among equals a denial, and of equal rules that allow
/// one that allows other protocols, too.
fn first<'a>(all: impl Iterator<Item = &'a Matcher>) -> Option<&'a Matcher> {
    all.max_by_key(|one| (one.weight(), !one.allow, one.upgrade))
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
    let plain = path::plain(asks.target);
    if plain.is_none() {
        let all = rules.asked.iter().chain(&rules.users);
        let mut all = all.chain(rules.within.iter().flatten());
        if let Some(rule) = all.find(|rule| rule.path.is_some() && rule.is_near(request)) {
            return Decision::refused(Why::Path, Some(rule));
        }
    }
    let met = |rule: &&Matcher| rule.is_near(request) && rule.meets(asks.method, plain.as_deref());
    let fits = |rule: &Matcher| !asks.upgrade || rule.upgrade;
    let within = rules.within.as_deref();
    settle(
        rules,
        first(rules.users.iter().filter(met)),
        first(rules.asked.iter().filter(met)),
        fits,
        || within.is_none_or(|within| first(within.iter().filter(met)).is_some_and(fits)),
    )
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
    let kept = users.iter().chain(&asked).find(|rule| rule.is_kept());
    if may
        && !closed(&users)
        && !closed(&asked)
        && let Some(rule) = conditions.or(kept)
    {
        return Decision {
            verdict: Verdict::Inspected,
            why: Why::Rule,
            rule: Some(Arc::clone(&rule.words)),
            registry: rule.registry.filter(|_| conditions.is_none()),
        };
    }
    let users = first(users.into_iter().filter(|rule| !rule.has_conditions()));
    let asked = first(asked.into_iter().filter(|rule| !rule.has_conditions()));
    settle(
        rules,
        users,
        asked,
        |_| true,
        || within.is_none_or(|within| !within.is_empty()),
    )
}

/// What follows from the rule of each file that counts. `fits` says whether one that allows the request
/// allows that the connection becomes what it is to become; one that does not denies nothing by that.
fn settle(
    rules: &Rules,
    users: Option<&Matcher>,
    asked: Option<&Matcher>,
    fits: impl Fn(&Matcher) -> bool,
    is_within: impl FnOnce() -> bool,
) -> Decision {
    let allowed = |rule: &Matcher| Decision {
        verdict: Verdict::Allowed,
        why: Why::Rule,
        rule: Some(Arc::clone(&rule.words)),
        registry: rule.registry.filter(|_| rule.keeps),
    };
    let denies = |rule: &&Matcher| !rule.allow;
    if let Some(rule) = users.filter(denies).or(asked.filter(denies)) {
        return Decision::refused(Why::Rule, Some(rule));
    }
    let fitting = |rule: &&Matcher| fits(rule);
    match (users.filter(fitting), asked.filter(fitting)) {
        (Some(rule), _) => allowed(rule),
        (None, Some(rule)) if !rules.is_granted => Decision::refused(Why::NotAsked, Some(rule)),
        (None, Some(rule)) if is_within() => allowed(rule),
        (None, Some(rule)) => Decision::refused(Why::NotWithin, Some(rule)),
        (None, None) => match users.or(asked) {
            Some(rule) => Decision::refused(Why::Upgrade, Some(rule)),
            None => Decision::refused(Why::Nothing, None),
        },
    }
}
