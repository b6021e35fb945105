//! The gateway itself: providers, connections and bounds that all grants share.

use std::{fmt, sync::Arc, time::Duration};

use domain::{AttemptId, egress::Asked};
use ledger::{Lease, Ledger};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    egress::{Configured, Egress, EgressSpec, Leads, Outlet},
    error::Error,
    grant::{Grant, GrantSpec},
    packages::Packages,
    provider::{Provider, Times},
    providers::Providers,
    redact::Redactor,
};

/// Bounds of every call.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long making a connection may take.
    pub connect: Duration,
    /// How long any provider may send nothing, before its answer and within it, whatever its own
    /// [`Times`] allow.
    pub idle: Duration,
    /// How long any call may take in all, whatever the [`Times`] of its provider allow.
    pub total: Duration,
    /// Largest request, in bytes.
    pub request_bytes: usize,
    /// Largest answer, in bytes. It is held in memory until it is recorded.
    pub response_bytes: usize,
    /// Tokens of output that are reserved for a request that sets no limit itself.
    pub default_output: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Times::MOST,
            total: Times::MOST,
            request_bytes: dialects::MAX_REQUEST_BYTES,
            response_bytes: 32 << 20,
            default_output: 16_384,
        }
    }
}

/// What a gateway is made of.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The providers.
    pub providers: Providers,
    /// Bounds of every call.
    pub bounds: Bounds,
}

/// The way out. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
    leads: Option<Arc<Leads>>,
}

pub(crate) struct Shared {
    pub(crate) providers: Providers,
    pub(crate) bounds: Bounds,
    pub(crate) client: Client,
    pub(crate) redactor: Redactor,
}

impl Shared {
    /// How long this provider may take.
    pub(crate) fn times(&self, provider: &Provider) -> Times {
        let times = provider.times();
        Times {
            silence: times.silence.min(self.bounds.idle),
            call: times.call.min(self.bounds.total),
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("providers", &self.shared.providers)
            .field("bounds", &self.shared.bounds)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway. Nothing is connected yet.
    ///
    /// # Errors
    /// When a provider needs TLS and the system has no certificates.
    pub fn new(options: Options) -> Result<Self, Error> {
        let Options { providers, bounds } = options;
        let secure = providers.iter().any(|p| p.is_secure());
        let keys = providers.iter().filter_map(|p| Some(p.key()?.expose()));
        Ok(Self {
            shared: Arc::new(Shared {
                redactor: Redactor::new(keys),
                client: Client::new(bounds.connect, secure)?,
                providers,
                bounds,
            }),
            leads: None,
        })
    }

    /// The providers.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.shared.providers
    }

    /// Makes a grant for one spender.
    #[must_use]
    pub fn grant(&self, spec: GrantSpec) -> Grant {
        Grant::new(Arc::clone(&self.shared), spec)
    }

    /// Lets out of sandboxes what repositories ask for, as far as this configuration grants it.
    #[must_use]
    pub fn letting_out(mut self, configured: Arc<dyn Configured>) -> Self {
        self.leads = Some(Arc::new(Leads::new(configured)));
        self
    }

    /// Keeps what package registries never change, for all sandboxes.
    #[must_use]
    pub fn keeping(mut self, packages: Packages) -> Self {
        if let Some(leads) = &self.leads {
            self.leads = Some(Arc::new(Leads {
                packages: Some(Arc::new(packages)),
                ..Leads::clone(leads)
            }));
        }
        self
    }

    /// What makes the egress of an attempt's sandboxes, recorded under this lease; none where nothing
    /// is let out.
    #[must_use]
    pub fn outlet(
        &self,
        ledger: &Ledger,
        lease: &Lease,
        attempt: AttemptId,
        asked: &Asked,
        cancel: &CancellationToken,
    ) -> Option<Outlet> {
        let leads = self.leads.as_ref()?;
        Some(Outlet::new(
            self, leads, ledger, lease, attempt, asked, cancel,
        ))
    }

    /// What makes the egress of a setup that is no attempt's, with its decisions in the log; none where
    /// nothing is let out.
    #[must_use]
    pub fn outlet_of_setup(&self, asked: &Asked, cancel: &CancellationToken) -> Option<Outlet> {
        let leads = self.leads.as_ref()?;
        Some(Outlet::of_setup(self, leads, asked, cancel))
    }

    /// Makes the egress of one sandbox.
    #[must_use]
    pub fn egress(&self, spec: EgressSpec) -> Egress {
        Egress::new(Arc::clone(&self.shared), spec)
    }

    /// The same text with asterisks in place of every key of a provider.
    #[must_use]
    pub fn redact(&self, text: impl Into<String>) -> String {
        self.shared.redactor.text(text.into())
    }

    /// The same of a text that may go on, and apart from it the end that could be the beginning of
    /// a key: it belongs before what follows.
    #[must_use]
    pub fn redact_begun(&self, text: String) -> (String, String) {
        self.shared.redactor.begun(text)
    }
}
