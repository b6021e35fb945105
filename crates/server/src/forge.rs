//! What is known of hosts that serve repositories and issues.

use domain::origin;
use std::{collections::BTreeMap, fmt};

/// What a person has said of one host.
#[derive(Clone, Default)]
pub struct Forge {
    /// What serves there, where no URL tells.
    pub kind: Option<origin::Forge>,
    /// The address of its interface, where it is not the usual one.
    pub api: Option<String>,
    /// What lets in there. It is given to this host alone.
    pub token: Option<String>,
}

impl fmt::Debug for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forge")
            .field("kind", &self.kind)
            .field("api", &self.api)
            .field("token", &self.token.is_some())
            .finish()
    }
}

/// What a person has said of hosts, by their names, with the port where a URL has one.
#[derive(Debug, Clone, Default)]
pub struct Forges(pub BTreeMap<String, Forge>);

impl Forges {
    /// What is known of a host.
    pub(crate) fn of(&self, host: &str) -> Forge {
        self.0.get(host).cloned().unwrap_or_default()
    }

    /// What lets git in at a host.
    pub(crate) fn token(&self, host: &str) -> Option<git::Token> {
        let forge = self.of(host);
        let username = match forge.kind {
            // What GitHub wants for the tokens of its applications, and takes for all.
            Some(origin::Forge::GitHub) => "x-access-token",
            _ => "oauth2",
        };
        forge.token.map(|secret| git::Token {
            username: username.into(),
            secret,
        })
    }
}
