//! How the sandboxes of an attempt get their egress: what its repository asks for, put together with
//! what the user says at each moment, and recorded in the ledger.

use super::{
    Egress, EgressBounds, EgressSpec, Policies, Resolver, Seen, Standing, SystemResolver, Witness,
};
use crate::{gateway::Gateway, packages::Packages};
use async_trait::async_trait;
use domain::{
    AttemptId,
    egress::{Asked, Part, Presets, Rule, Rules, Users},
    event::Body,
};
use ledger::{Lease, Ledger};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Knows what the user's configuration says, as it is now.
pub trait Configured: Send + Sync {
    /// The user's part of the rules. As long as it is the same, the answer is the same [`Arc`].
    ///
    /// # Errors
    /// Why it cannot be read; everything is refused then.
    fn users(&self) -> Result<Arc<Users>, String>;

    /// Presets that this machine knows, by the settings of its package managers.
    fn presets(&self) -> Arc<Presets>;
}

/// A configuration that does not change.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    /// The user's part of the rules.
    pub users: Arc<Users>,
    /// Presets.
    pub presets: Arc<Presets>,
}

impl Configured for Fixed {
    fn users(&self) -> Result<Arc<Users>, String> {
        Ok(Arc::clone(&self.users))
    }

    fn presets(&self) -> Arc<Presets> {
        Arc::clone(&self.presets)
    }
}

/// What a gateway needs to make egress.
#[derive(Clone)]
pub(crate) struct Leads {
    pub(crate) configured: Arc<dyn Configured>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) bounds: EgressBounds,
    pub(crate) packages: Option<Arc<Packages>>,
}

impl Leads {
    pub(crate) fn new(configured: Arc<dyn Configured>) -> Self {
        Self {
            configured,
            resolver: Arc::new(SystemResolver),
            bounds: EgressBounds::default(),
            packages: None,
        }
    }
}

/// The rules of one attempt: what its repository asks for, and what the user says now.
struct Asking {
    asked: Asked,
    configured: Arc<dyn Configured>,
    last: Mutex<Option<(Arc<Users>, Arc<Rules>)>>,
}

impl Policies for Asking {
    fn standing(&self) -> Result<Standing, String> {
        let users = self.configured.users()?;
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, rules)) = &*last()
            && Arc::ptr_eq(known, &users)
        {
            return Ok(Standing {
                rules: Arc::clone(rules),
                users,
            });
        }
        // Not under the lock: package managers may be asked, and all threads could wait for it.
        let rules = rules(&self.asked, &users, &*self.configured);
        let rules = Arc::new(rules.map_err(|error| error.to_string())?);
        *last() = Some((Arc::clone(&users), Arc::clone(&rules)));
        Ok(Standing { rules, users })
    }
}

/// What a repository asks for, put together with what the user says. The machine is asked for presets
/// only where a rule names one that the user's configuration does not have.
///
/// # Errors
/// When a rule makes no sense.
pub fn rules(
    asked: &Asked,
    users: &Users,
    configured: &dyn Configured,
) -> Result<Rules, domain::egress::Error> {
    let lists = [
        &asked.allow,
        &asked.deny,
        &users.allow,
        &users.deny,
        &users.within,
    ];
    let mut named = lists
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.preset.as_ref());
    let presets = if named.any(|name| !users.presets.contains_key(name)) {
        configured.presets()
    } else {
        Arc::default()
    };
    Rules::new(asked, users, &presets)
}

/// Records in the ledger, as long as the lease holds.
struct LedgerWitness {
    ledger: Ledger,
    lease: Lease,
    attempt: AttemptId,
}

#[async_trait]
impl Witness for LedgerWitness {
    async fn saw(&self, decisions: Vec<Seen>) {
        let body = |seen: Seen| Body::Egress {
            attempt: self.attempt,
            part: seen.part,
            host: seen.host,
            port: seen.port,
            method: seen.method,
            path: seen.path,
            rule: seen.rule,
            allowed: seen.allowed,
            reason: seen.reason,
            count: seen.count,
            up: seen.up,
            down: seen.down,
            cached: seen.cached.then_some(true),
        };
        let bodies = decisions.into_iter().map(body).collect();
        if let Err(error) = self.ledger.record(&self.lease, bodies).await {
            // Whoever holds the lease now knows nothing of this sandbox, which is ended.
            tracing::warn!(%error, attempt = %self.attempt, "what left a sandbox was not recorded");
        }
    }
}

/// Writes to the log: for a sandbox that is no attempt's.
struct LogWitness;

#[async_trait]
impl Witness for LogWitness {
    async fn saw(&self, decisions: Vec<Seen>) {
        for seen in decisions {
            let Seen {
                part,
                host,
                port,
                method,
                path,
                rule,
                reason,
                count,
                up,
                down,
                allowed,
                cached,
            } = seen;
            if allowed {
                tracing::info!(
                    %part, host, port, method, path, rule, count, up, down, cached, "egress"
                );
            } else {
                tracing::warn!(%part, host, port, method, path, reason, count, "egress was refused");
            }
        }
    }
}

/// Makes the egress of the sandboxes of one attempt, or of a setup. Cheap to clone.
#[derive(Clone)]
pub struct Outlet {
    gateway: Gateway,
    leads: Leads,
    asked: Asked,
    policies: Arc<dyn Policies>,
    witness: Arc<dyn Witness>,
    /// The one part of the work that gets any, where that is not all of them.
    only: Option<Part>,
    cancel: CancellationToken,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

impl Outlet {
    pub(crate) fn new(
        gateway: &Gateway,
        leads: &Leads,
        ledger: &Ledger,
        lease: &Lease,
        attempt: AttemptId,
        asked: &Asked,
        cancel: &CancellationToken,
    ) -> Self {
        let witness = LedgerWitness {
            ledger: ledger.clone(),
            lease: lease.clone(),
            attempt,
        };
        Self::telling(gateway, leads, Arc::new(witness), asked, cancel)
    }

    /// For a setup that is no attempt's; nothing else gets any egress of it.
    pub(crate) fn of_setup(
        gateway: &Gateway,
        leads: &Leads,
        asked: &Asked,
        cancel: &CancellationToken,
    ) -> Self {
        Self {
            only: Some(Part::Setup),
            ..Self::telling(gateway, leads, Arc::new(LogWitness), asked, cancel)
        }
    }

    fn telling(
        gateway: &Gateway,
        leads: &Leads,
        witness: Arc<dyn Witness>,
        asked: &Asked,
        cancel: &CancellationToken,
    ) -> Self {
        let policies = Asking {
            asked: asked.clone(),
            configured: Arc::clone(&leads.configured),
            last: Mutex::default(),
        };
        Self {
            gateway: gateway.clone(),
            leads: leads.clone(),
            asked: asked.clone(),
            policies: Arc::new(policies),
            witness,
            only: None,
            cancel: cancel.clone(),
        }
    }

    /// The egress of a sandbox in which this part of the work happens; none where nothing may leave
    /// it. Where the configuration cannot be read there is one, which says so.
    #[must_use]
    pub fn egress(&self, part: Part) -> Option<Egress> {
        if self.only.is_some_and(|only| only != part) {
            return None;
        }
        let standing = self.policies.standing();
        if standing.is_ok_and(|standing| !standing.rules.grants(part)) {
            return None;
        }
        Some(self.any(part))
    }

    /// The same where nothing may leave it, too: what is asked for is refused and recorded, for a
    /// sandbox that has a channel in any case.
    #[must_use]
    pub fn any(&self, part: Part) -> Egress {
        self.gateway.egress(EgressSpec {
            part,
            policies: Arc::clone(&self.policies),
            resolver: Arc::clone(&self.leads.resolver),
            witness: Arc::clone(&self.witness),
            bounds: self.leads.bounds,
            tls: None,
            packages: self.leads.packages.clone(),
            cancel: self.cancel.clone(),
        })
    }

    /// What may leave a sandbox in which this part of the work happens, as a text that is the same as
    /// long as the rules for it are; empty where nothing may.
    #[must_use]
    pub fn terms(&self, part: Part) -> String {
        let Ok(users) = self.leads.configured.users() else {
            return "nobody knows".into();
        };
        let standing = self.policies.standing();
        if standing.is_ok_and(|standing| !standing.rules.grants(part)) {
            return String::new();
        }
        let lists = [
            &self.asked.allow,
            &self.asked.deny,
            &users.allow,
            &users.deny,
            &users.within,
        ];
        let of_part = lists.map(|rules| {
            let concerns = |rule: &&Rule| rule.parts.is_empty() || rule.parts.contains(&part);
            rules.iter().filter(concerns).collect::<Vec<_>>()
        });
        serde_json::json!([users.asked, of_part, users.presets]).to_string()
    }
}
