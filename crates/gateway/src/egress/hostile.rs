//! For the fuzzing of these parsers, and for nothing else: what they made of some bytes.

use super::{
    greeting::{self, Greeting},
    headers,
};
use domain::egress::Host;
use http::uri::Authority;

/// What the first bytes in a tunnel are taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// Not to be known yet.
    Short,
    /// TLS, with the name of the server, if there is one.
    Tls(Option<String>),
    /// Perhaps HTTP/1.
    Plain,
    /// Neither.
    Other,
}

/// The most of first bytes that are waited for.
pub const MOST: usize = greeting::MOST;

/// What the first bytes in a tunnel are.
#[must_use]
pub fn first(bytes: &[u8]) -> First {
    match greeting::read(bytes) {
        Greeting::Short => First::Short,
        Greeting::Tls(name) => First::Tls(name),
        Greeting::Plain => First::Plain,
        Greeting::Other => First::Other,
    }
}

/// The host and port of a CONNECT, or of a `Host` header.
#[must_use]
pub fn target(text: &str, usual: u16) -> Option<(Host, u16)> {
    let authority: Authority = text.parse().ok()?;
    headers::parts(&authority, usual)
}
