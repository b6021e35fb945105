//! Which addresses may be connected to.
//!
//! A public address may, wherever a rule allows the request. Any other only where the user's own
//! configuration leads there: it has the address, and it names the host with the port. So nothing that
//! a repository asks for, under whatever name, opens a network of the user's.

use super::{Matcher, PORTS, Request, Rules};
use crate::egress::{Address, Host, Kind, Pattern, Registry, Users, endpoint, kind};
use std::{collections::BTreeMap, net::IpAddr};

/// What the user's configuration says of addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    addresses: Vec<Address>,
    pinned: BTreeMap<String, IpAddr>,
    /// Hosts of the user's presets.
    presets: Vec<(Pattern, Option<u16>)>,
}

impl Reach {
    pub(super) fn new(users: &Users) -> Self {
        let hosts = users.presets.values().flat_map(|preset| &preset.hosts);
        Self {
            addresses: users.addresses.clone(),
            pinned: users.hosts.clone(),
            presets: hosts.filter_map(|host| endpoint(host)).collect(),
        }
    }

    fn is_pinned(&self, host: &Host, address: Option<IpAddr>) -> bool {
        let pinned = match host {
            Host::Name(name) => self.pinned.get(name),
            Host::Address(_) => None,
        };
        pinned.is_some_and(|pinned| {
            address.is_none_or(|address| pinned.to_canonical() == address.to_canonical())
        })
    }
}

impl Rules {
    /// Whether this address may be connected to for an allowed request.
    #[must_use]
    pub fn may_connect(&self, request: &Request<'_>, address: IpAddr) -> bool {
        kind(address.to_canonical()) == Kind::Public || self.opens(request, address)
    }

    /// Whether the user's configuration itself leads from this request to this address.
    #[must_use]
    pub fn opens(&self, request: &Request<'_>, address: IpAddr) -> bool {
        self.has_address(request.host, address) && self.is_named(request)
    }

    /// Whether the user's configuration has this address: in `addresses`, or as that of the host.
    #[must_use]
    pub fn has_address(&self, host: &Host, address: IpAddr) -> bool {
        let mut all = self.reach.addresses.iter();
        all.any(|known| known.contains(address)) || self.reach.is_pinned(host, Some(address))
    }

    /// The registries whose presets name where this request leads, where their artefacts are kept.
    #[must_use]
    pub fn registries(&self, request: &Request<'_>) -> Vec<Registry> {
        let all = self.users.iter().chain(&self.asked);
        let near = all.filter(|rule| rule.keeps && rule.is_near(request));
        near.filter_map(|rule| rule.registry).collect()
    }

    /// Whether the user's configuration names the host of this request with its port: in a rule of
    /// `allow` or `within` that the request meets, in a preset, or, at the usual ports, in `hosts`. `*`
    /// names nobody.
    #[must_use]
    pub fn is_named(&self, request: &Request<'_>) -> bool {
        let names = |pattern: &Pattern| *pattern != Pattern::Any && pattern.matches(request.host);
        let rule = |rule: &Matcher| rule.allow && names(&rule.host) && rule.takes(request);
        let usual = PORTS.contains(&request.port);
        let preset = |(host, port): &(Pattern, Option<u16>)| {
            names(host) && port.map_or(usual, |port| port == request.port)
        };
        let within = self.within.iter().flatten();
        self.users.iter().chain(within).any(rule)
            || self.reach.presets.iter().any(preset)
            || (usual && self.reach.is_pinned(request.host, None))
    }
}
