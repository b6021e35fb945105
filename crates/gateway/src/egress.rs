//! What leaves a sandbox besides calls of models: a forward proxy on its one channel.
//!
//! Every request is decided by the rules that hold at that moment, made on the trusted side to an
//! address that was checked, measured, bounded and recorded. What is refused is refused at once.

mod authority;
mod connect;
mod counted;
mod greeting;
mod headers;
#[cfg(feature = "fuzzing")]
pub mod hostile;
mod inner;
mod kept;
mod meter;
mod outlet;
mod passage;
mod proxy;
mod record;
mod refused;
mod tunnel;

pub use connect::{Resolver, SystemResolver};
pub use outlet::{Configured, Fixed, Outlet, rules};
pub use record::{Seen, Witness};

pub(crate) use meter::own;
pub(crate) use outlet::Leads;
pub(crate) use proxy::{Answer, answer, is_for_proxy};

use crate::{gateway::Shared, packages::Packages, serve::Served};
use authority::Authority;
use domain::egress::{Part, Registry, Rules, Users};
use passage::Open;
use record::Record;
use rustls::ClientConfig;
use std::{
    fmt, io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often open connections are decided again, and at the latest.
const LOOK: Duration = Duration::from_millis(500);

/// Tunnels of one sandbox at once.
const TUNNELS: usize = 64;

/// Names of one sandbox that are looked up at once.
const LOOKUPS: usize = 8;

/// What holds at a moment.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The rules.
    pub rules: Arc<Rules>,
    /// What the user's configuration says of addresses.
    pub users: Arc<Users>,
}

/// Knows what holds now. It is asked for every decision, so it must answer from memory unless
/// something has changed.
pub trait Policies: Send + Sync {
    /// What holds now.
    ///
    /// # Errors
    /// Why that cannot be known; everything is refused then.
    fn standing(&self) -> Result<Standing, String>;
}

/// Bounds of one sandbox's egress.
#[derive(Debug, Clone, Copy)]
pub struct EgressBounds {
    /// How long a name may be looked up.
    pub resolve: Duration,
    /// How long making a connection to one address may take, and twice that to all of them.
    pub connect: Duration,
    /// How long the first bytes in a tunnel may take.
    pub greeting: Duration,
    /// How long nothing may pass on a connection.
    pub idle: Duration,
    /// How long one connection may last.
    pub total: Duration,
    /// Bytes that may leave, in all.
    pub up: u64,
    /// Bytes that may come in, in all.
    pub down: u64,
    /// Requests and tunnels, in all.
    pub requests: u64,
    /// Events, in all; what comes after is counted in one more.
    pub events: usize,
}

impl Default for EgressBounds {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            greeting: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            total: Duration::from_secs(30 * 60),
            up: 1 << 30,
            down: 16 << 30,
            requests: 100_000,
            events: 1_000,
        }
    }
}

/// What the egress of a sandbox is made of.
pub struct EgressSpec {
    /// Who is in the sandbox.
    pub part: Part,
    /// Knows what holds.
    pub policies: Arc<dyn Policies>,
    /// Looks up names.
    pub resolver: Arc<dyn Resolver>,
    /// Is told of every decision.
    pub witness: Arc<dyn Witness>,
    /// Bounds.
    pub bounds: EgressBounds,
    /// How real servers are recognized; by the system's certificates where this is none.
    pub tls: Option<Arc<ClientConfig>>,
    /// What is kept of package registries.
    pub packages: Option<Arc<Packages>>,
    /// Ends it.
    pub cancel: CancellationToken,
}

/// The egress of one sandbox. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    pub(crate) state: Arc<State>,
}

pub(crate) struct State {
    gateway: Arc<Shared>,
    part: Part,
    policies: Arc<dyn Policies>,
    resolver: Arc<dyn Resolver>,
    bounds: EgressBounds,
    record: Record,
    packages: Option<Arc<Packages>>,
    open: Open,
    up: AtomicU64,
    down: AtomicU64,
    requests: AtomicU64,
    /// Tunnels, which outlive the request that made them.
    tasks: TaskTracker,
    /// How many of them there may be.
    room: Arc<Semaphore>,
    /// How many names may be looked up at once.
    lookups: Arc<Semaphore>,
    pub(crate) cancel: CancellationToken,
    /// Wakes who records and who looks again.
    wake: Notify,
    authority: OnceLock<Option<Authority>>,
    /// Whether programs inside were given its certificate.
    trusted: AtomicBool,
    upstream: OnceLock<Option<Arc<ClientConfig>>>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("part", &self.state.part)
            .field("bounds", &self.state.bounds)
            .finish_non_exhaustive()
    }
}

impl Egress {
    pub(crate) fn new(gateway: Arc<Shared>, spec: EgressSpec) -> Self {
        let state = State {
            gateway,
            part: spec.part,
            policies: spec.policies,
            resolver: spec.resolver,
            record: Record::new(spec.part, spec.witness, spec.bounds.events),
            bounds: spec.bounds,
            packages: spec.packages,
            open: Open::default(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(TUNNELS)),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            cancel: spec.cancel.child_token(),
            wake: Notify::new(),
            authority: OnceLock::new(),
            trusted: AtomicBool::new(false),
            upstream: spec
                .tls
                .map_or_else(OnceLock::new, |tls| OnceLock::from(Some(tls))),
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// Serves it alone on a listener inside the sandbox, until the result is dropped or closed. Call
    /// it inside a runtime.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn serve(&self, listener: std::net::TcpListener) -> io::Result<Served> {
        Served::start(None, Some(self.clone()), listener, None)
    }

    /// The package registries whose presets are allowed to it.
    #[must_use]
    pub fn registries(&self) -> Vec<Registry> {
        let standing = self.state.policies.standing();
        standing.map_or_else(
            |_| Vec::new(),
            |standing| standing.rules.presets(self.state.part),
        )
    }

    /// The certificates that programs inside must trust: the system's, and that of this sandbox's
    /// own authority. None where no rule needs to see into TLS, or it cannot be done.
    #[must_use]
    pub fn certificates(&self) -> Option<String> {
        let standing = self.state.policies.standing().ok()?;
        if !standing.rules.inspects(self.state.part) {
            return None;
        }
        let bundle = self.state.authority()?.bundle();
        self.state.trusted.store(true, Ordering::Relaxed);
        Some(bundle)
    }
}

impl State {
    fn standing(&self) -> Result<Standing, String> {
        self.policies.standing()
    }

    fn authority(&self) -> Option<&Authority> {
        self.authority
            .get_or_init(|| match Authority::new() {
                Ok(authority) => Some(authority),
                Err(error) => {
                    tracing::error!(%error, "no authority could be made for a sandbox");
                    None
                }
            })
            .as_ref()
    }

    /// How real servers are recognized.
    fn upstream(&self) -> Option<Arc<ClientConfig>> {
        self.upstream
            .get_or_init(|| match crate::client::tls(true) {
                Ok(mut config) => {
                    config.alpn_protocols = vec![b"http/1.1".to_vec()];
                    Some(Arc::new(config))
                }
                Err(error) => {
                    tracing::error!(%error, "no server can be recognized");
                    None
                }
            })
            .clone()
    }

    fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }

    /// Room for one more tunnel.
    fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Counts a request; false when there were too many.
    fn count(&self) -> bool {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        before < self.bounds.requests
    }

    /// Records what is due and ends what is not allowed any more, until `stop`. Woken by a decision,
    /// and by the clock while anything is open or waits to be recorded.
    pub(crate) async fn keep(&self, stop: &CancellationToken) {
        let mut looked = Instant::now();
        loop {
            let due = if self.open.is_empty() {
                self.record.due()
            } else {
                let look = looked + LOOK;
                Some(self.record.due().map_or(look, |due| due.min(look)))
            };
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = wait => {}
            }
            // Not for each decision: who makes many would have all that is open decided each time.
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.open.look(self);
            }
            self.record.write(false).await;
        }
    }

    /// Ends what is open and records the rest.
    pub(crate) async fn finish(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.record.write(true).await;
    }
}
