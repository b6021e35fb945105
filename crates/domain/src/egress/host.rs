//! Hosts and patterns of them.

use super::Address;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name of a host, in bytes (RFC 1035).
const MAX_NAME: usize = 253;

/// A host of a request, in one form: names in lower case without a dot at the end, addresses as
/// such.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name.
    Name(String),
    /// An address literal.
    Address(IpAddr),
}

impl Host {
    /// Reads the host of a URL or of a `Host` header, without a port. None where resolvers or
    /// clients could read it in different ways: other characters than those of names, or a name
    /// that ends like an address and is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let literal = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(literal) = literal {
            let address: Ipv6Addr = literal.parse().ok()?;
            return Some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let name = name.to_ascii_lowercase();
        is_name(&name).then_some(Self::Name(name))
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(plain)
            && !label.starts_with('-')
    };
    // `127.1`, `0x7f.1` and `2130706433` are addresses to some.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with(|c: char| c.is_ascii_digit())
        && (last.bytes().all(|c| c.is_ascii_digit()) || last.starts_with("0x"));
    name.len() <= MAX_NAME && name.split('.').all(label) && !numeric
}

/// Which hosts a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Every name; no address literal.
    Any,
    /// Names below this one: `.example.com`.
    Suffix(String),
    /// One name.
    Name(String),
    /// Address literals of a network.
    Address(Address),
}

impl Pattern {
    /// Reads `*`, `*.suffix`, a name, an address or a network.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        if let Some(below) = text.strip_prefix("*.") {
            return is_name(below).then(|| Self::Suffix(format!(".{below}")));
        }
        if let Ok(address) = text.parse::<Address>() {
            return Some(Self::Address(address));
        }
        is_name(text).then(|| Self::Name(text.to_owned()))
    }

    /// Whether the host is one of them.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, Host::Name(_)) => true,
            (Self::Suffix(suffix), Host::Name(name)) => name.ends_with(suffix.as_str()),
            (Self::Name(wanted), Host::Name(name)) => wanted == name,
            (Self::Address(network), Host::Address(address)) => network.contains(*address),
            _ => false,
        }
    }

    /// How special it is: an exact host before a longer suffix before a shorter one.
    pub(super) fn weight(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Suffix(suffix) => (1, suffix.len()),
            Self::Name(name) => (2, name.len()),
            Self::Address(network) => (2, network.prefix().into()),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Name(name) => f.write_str(name),
            Self::Address(network) => write!(f, "{network}"),
        }
    }
}
