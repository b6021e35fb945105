//! What may leave a sandbox besides calls of models: rules as data, and the one function that
//! decides.
//!
//! A repository asks ([`Asked`], in its `skep.toml`), the user's configuration forbids, narrows or
//! adds ([`Users`]). Both are put together to [`Rules`], which [`decide`] reads.

mod address;
mod artefact;
mod host;
mod path;
mod rules;
#[cfg(test)]
mod tests;

pub use address::{Address, Kind, kind};
pub use artefact::{Digest, Registry};
pub use host::{Host, Pattern};
pub use rules::{Asks, Decision, Presets, Request, Rules, Verdict, Why, decide};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// The most rules that one list may have.
pub const MAX_RULES: usize = 100;
/// The most ports, methods or paths of a rule, and the most hosts of a preset.
pub const MAX_PARTS: usize = 50;
/// The most hosts and paths of all rules of a file, each host counted with each path.
pub const MAX_MATCHERS: usize = 500;
/// The most addresses and pinned names of a configuration.
pub const MAX_ADDRESSES: usize = 500;
/// Ports that an allowing rule means where it names none.
pub const PORTS: [u16; 2] = [443, 80];
/// The longest path pattern, in bytes.
const MAX_PATH: usize = 500;
/// The most parts that stars cut a path pattern into.
const MAX_STARS: usize = 9;

/// Who is in a sandbox.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// An agent and its commands.
    Agent,
    /// The setup.
    Setup,
    /// The checks.
    Checks,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Setup, Self::Checks];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Setup => "setup",
            Self::Checks => "checks",
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One rule, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Whom it is about; empty in a denial, or in what narrows: everybody.
    #[serde(rename = "for", skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// A host: a name, `*.suffix`, `*`, an address or a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// In place of a host: hosts that the machine's configuration knows by this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Ports; empty means [`PORTS`], and in a denial all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Methods; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Globs of paths; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Whether a connection whose requests are seen may become another protocol.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub upgrade: bool,
}

/// What a repository asks for: the table `[egress]` of its `skep.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// What may leave.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Rule>,
    /// What may not, although it is allowed in general.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Rule>,
}

/// What a user's configuration says: its table `[egress]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Users {
    /// Whether anything that repositories ask for is granted.
    pub asked: bool,
    /// Whether what registries never change is kept for all sandboxes, and their TLS looked into for
    /// that.
    pub cache: bool,
    /// What may leave, whether a repository asks for it or not.
    pub allow: Vec<Rule>,
    /// What may not, whoever asks.
    pub deny: Vec<Rule>,
    /// What repositories ask for is granted within these only; empty means no such bound.
    pub within: Vec<Rule>,
    /// Addresses and networks that may be connected to although they are not public, for hosts that
    /// this configuration names.
    pub addresses: Vec<Address>,
    /// Names that are not looked up, with their addresses.
    pub hosts: BTreeMap<String, IpAddr>,
    /// Hosts by the names of presets.
    pub presets: BTreeMap<String, Preset>,
}

impl Default for Users {
    fn default() -> Self {
        Self {
            asked: true,
            cache: true,
            allow: Vec::new(),
            deny: Vec::new(),
            within: Vec::new(),
            addresses: Vec::new(),
            hosts: BTreeMap::new(),
            presets: BTreeMap::new(),
        }
    }
}

/// The hosts of a preset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Each a host as in a rule, or `HOST:PORT`.
    pub hosts: Vec<String>,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`egress.{list}`{}: {what}", .number.map(|n| format!(", rule {n}")).unwrap_or_default())]
pub struct Error {
    /// The list that it is in.
    pub list: &'static str,
    /// Its place in the list, from one.
    pub number: Option<usize>,
    /// What is wrong.
    pub what: String,
}

impl Error {
    fn of(list: &'static str, what: impl Into<String>) -> Self {
        Self {
            list,
            number: None,
            what: what.into(),
        }
    }
}

impl Asked {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Says what is wrong with it.
    ///
    /// # Errors
    /// The first rule that makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        validate("allow", &self.allow, true)?;
        validate("deny", &self.deny, false)
    }
}

impl Users {
    /// Says what is wrong with it.
    ///
    /// # Errors
    /// The first rule, name or address that makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        validate("allow", &self.allow, true)?;
        validate("deny", &self.deny, false)?;
        validate("within", &self.within, false)?;
        if self.addresses.len() > MAX_ADDRESSES || self.hosts.len() > MAX_ADDRESSES {
            let what = format!("more than {MAX_ADDRESSES} entries");
            return Err(Error::of("addresses", what));
        }
        for name in self.hosts.keys() {
            if !matches!(Host::parse(name), Some(Host::Name(host)) if host == *name) {
                let what = format!("`{}` is no name of a host", name.escape_debug());
                return Err(Error::of("hosts", what));
            }
        }
        if self.presets.len() > MAX_PARTS {
            return Err(Error::of("presets", format!("more than {MAX_PARTS}")));
        }
        for (name, preset) in &self.presets {
            if !is_preset(name) || preset.hosts.len() > MAX_PARTS {
                let what = format!("`{}` is no preset", name.escape_debug());
                return Err(Error::of("presets", what));
            }
            if let Some(bad) = preset.hosts.iter().find(|host| endpoint(host).is_none()) {
                let what = format!("`{}` in `{name}` is no host", bad.escape_debug());
                return Err(Error::of("presets", what));
            }
        }
        Ok(())
    }

    /// The address of a name that is not looked up.
    #[must_use]
    pub fn pinned(&self, name: &str) -> Option<IpAddr> {
        self.hosts.get(name).copied()
    }
}

/// A host with its port, as presets name them.
pub(crate) fn endpoint(text: &str) -> Option<(Pattern, Option<u16>)> {
    if let Some(pattern) = Pattern::parse(text) {
        return Some((pattern, None));
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((Pattern::parse(host)?, Some(port)))
}

fn is_preset(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 50 && name.chars().all(plain)
}

fn is_method(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_uppercase() || c == '-';
    !text.is_empty() && text.len() <= 30 && text.chars().all(plain)
}

fn validate(list: &'static str, rules: &[Rule], names_parts: bool) -> Result<(), Error> {
    if rules.len() > MAX_RULES {
        return Err(Error::of(list, format!("more than {MAX_RULES} rules")));
    }
    let paths: usize = rules.iter().map(|rule| rule.paths.len().max(1)).sum();
    if paths > MAX_MATCHERS {
        let what = format!("more than {MAX_MATCHERS} hosts and paths");
        return Err(Error::of(list, what));
    }
    for (index, rule) in rules.iter().enumerate() {
        let wrong = |what: String| Error {
            list,
            number: Some(index + 1),
            what,
        };
        rule.validate(names_parts).map_err(wrong)?;
    }
    Ok(())
}

impl Rule {
    fn validate(&self, names_parts: bool) -> Result<(), String> {
        if names_parts && self.parts.is_empty() {
            return Err("`for` says who may: any of agent, setup, checks".into());
        }
        match (&self.host, &self.preset) {
            (Some(host), None) if Pattern::parse(host).is_none() => {
                return Err(format!(
                    "`{}` is no host: write a name in lower case, `*.suffix`, or an address",
                    host.escape_debug()
                ));
            }
            (None, Some(preset)) if !is_preset(preset) => {
                return Err(format!("`{}` is no preset", preset.escape_debug()));
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => return Err("it needs either `host` or `preset`".into()),
        }
        let lengths = [self.ports.len(), self.methods.len(), self.paths.len()];
        if lengths.iter().any(|length| *length > MAX_PARTS) {
            return Err(format!("more than {MAX_PARTS} ports, methods or paths"));
        }
        if self.ports.contains(&0) {
            return Err("0 is no port".into());
        }
        if let Some(method) = self.methods.iter().find(|method| !is_method(method)) {
            return Err(format!(
                "`{}` is no method: write it in capitals, as in `GET`",
                method.escape_debug()
            ));
        }
        let bad = |path: &&String| !path.starts_with('/') || path.len() > MAX_PATH;
        if let Some(path) = self.paths.iter().find(bad) {
            return Err(format!(
                "the path `{}` does not begin with `/`",
                path.escape_debug()
            ));
        }
        // A pattern that never matches would allow nothing, but protect nothing in a denial either.
        let odd = |path: &&String| {
            path.contains(['[', ']', '{', '}'])
                || path::plain(path).as_deref() != Some(path.as_str())
                || path.split('*').count() > MAX_STARS
        };
        if let Some(path) = self.paths.iter().find(odd) {
            return Err(format!(
                "the path `{}` matches nothing, or with too much effort: only `*` and `**` stand for \
                 others, a few times, and characters that can be seen are written without `%`",
                path.escape_debug()
            ));
        }
        Ok(())
    }
}
