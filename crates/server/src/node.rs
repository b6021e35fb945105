//! Opening a node: ledger, sites, gateway and roles in one process.

use crate::{Error, Forges, agents::HostAgents, shares::Shares, sink::Sink};
use gateway::{Bounds, Gateway, Providers};
use integrator::Integrator;
use ledger::Ledger;
use planner::Planner;
use sandbox::{Backend, Kind};
use site::{DiskBounds, Environment, Host, Sites};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};
use worker::{Agents, Worker};
use workspace::Layering;

/// What a node is made of.
#[derive(Clone)]
pub struct Options {
    /// Where everything is kept.
    pub data: PathBuf,
    /// The `PATH` of the host: toolchains and agents are found there.
    pub path: OsString,
    /// The home of the user.
    pub home: PathBuf,
    /// The host's variables, asked only for those of toolchains.
    pub env: Environment,
    /// The models that may be called.
    pub providers: Providers,
    /// The model that is meant where none is named.
    pub default_model: Option<String>,
    /// The kind of sandbox.
    pub sandbox: Kind,
    /// What containers are made of, where they are of that kind.
    pub container: sandbox::container::Options,
    /// Who is told when a request has ended or waits for a person.
    pub notify: Vec<Sink>,
    /// What each sandbox may take on disk.
    pub disk: DiskBounds,
    /// What sandboxes get of the machine.
    pub shares: Shares,
    /// Devices of the host that every sandbox gets but that of a setup, as the user's configuration names
    /// them.
    pub devices: Vec<String>,
    /// Whether namespaces can be made in every sandbox but that of a setup.
    pub nested: bool,
    /// What is taken before a submission is refused.
    pub admission: ledger::Admission,
    /// What the user's configuration says of egress, as it is now.
    pub egress: Arc<dyn gateway::Configured>,
    /// What is known of hosts that serve repositories and issues.
    pub forges: Forges,
}

/// A whole Skep in one process. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    pub(crate) ledger: Ledger,
    pub(crate) sites: Sites,
    pub(crate) gateway: Gateway,
    pub(crate) agents: Arc<dyn Agents>,
    pub(crate) planner: Planner,
    pub(crate) worker: Worker,
    pub(crate) integrator: Integrator,
    pub(crate) options: Arc<Options>,
}

impl Node {
    /// Opens the data directory, making it where it is new. No role runs yet.
    ///
    /// # Errors
    /// When the directory, git or the sandbox cannot be used.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let git = git::Program::find(&options.path)?;
        let backend = backend(&options);
        let ledger = Ledger::open(ledger::Options {
            admission: options.admission,
            ..ledger::Options::new(&options.data)
        })
        .await?;
        let layering = layering(&options.data, &*backend).await?;
        let sites = Sites::open(site::Options {
            directory: options.data.clone(),
            backend,
            layering,
            host: Host {
                path: options.path.clone(),
                home: options.home.clone(),
                env: Arc::clone(&options.env),
            },
            limits: options.shares.one,
            disk: options.disk,
            warm: options.shares.warm(),
            git,
        })?
        .giving(&options.devices, options.nested);
        let gateway = Gateway::new(gateway::Options {
            providers: options.providers.clone(),
            bounds: Bounds::default(),
        })?
        .letting_out(Arc::clone(&options.egress))
        .keeping(site::packages(&options.data));
        let agents: Arc<dyn Agents> = Arc::new(HostAgents {
            path: options.path.clone(),
        });
        Ok(Self {
            planner: Planner::new(planner::Options {
                ledger: ledger.clone(),
                sites: sites.clone(),
                gateway: gateway.clone(),
            }),
            worker: Worker::new(worker::Options {
                ledger: ledger.clone(),
                sites: sites.clone(),
                gateway: gateway.clone(),
                agents: Arc::clone(&agents),
            }),
            integrator: Integrator::new(integrator::Options {
                ledger: ledger.clone(),
                sites: sites.clone(),
            })
            .letting_out(gateway.clone())
            .redacting({
                let gateway = gateway.clone();
                move |text| gateway.redact(text)
            }),
            ledger,
            sites,
            gateway,
            agents,
            options: Arc::new(options),
        })
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether namespaces can be made in every sandbox but that of a setup.
    #[must_use]
    pub fn nested(&self) -> bool {
        self.options.nested
    }

    /// The devices that every sandbox gets but that of a setup, as the user names them.
    #[must_use]
    pub fn devices(&self) -> &[String] {
        &self.options.devices
    }

    /// Waits until what was closed is deleted, and ends the threads of the ledger.
    pub async fn close(self) {
        self.sites.close(false).await;
        self.ledger.close().await;
    }
}

pub(crate) fn backend(options: &Options) -> Arc<dyn Backend> {
    match options.sandbox {
        Kind::Host => Arc::new(sandbox::Host),
        Kind::Container => Arc::new(sandbox::Container::new(sandbox::container::Options {
            data: Some(options.data.clone()),
            total: options.shares.all,
            ..options.container.clone()
        })),
        _ => Arc::new(sandbox::Namespace::new().bounded(options.shares.all)),
    }
}

/// How workspaces lie over their bases. Whether the kernel makes sandboxes and mounts overlays is
/// tried once for each kernel, and remembered where it works: trying takes longer than a workspace. That
/// it does not work is tried again each time, because it may be mended meanwhile.
///
/// # Errors
/// [`Error::Unusable`] when no sandbox of this kind can be made here; [`Error::Sandbox`] when its images
/// are not to be had.
async fn layering(data: &Path, backend: &dyn Backend) -> Result<Layering, Error> {
    if backend.kind() == Kind::Host {
        return Ok(Layering::Copy);
    }
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let remembered = data.join("layering");
    match std::fs::read_to_string(&remembered) {
        Ok(text) if text == format!("overlay on {kernel}") => return Ok(Layering::Overlay),
        _ => {}
    }
    // One that is missing has a reason of its own, and an engine that says nothing is asked once.
    backend.images().await?;
    let findings = backend.probe(data).await;
    if let Some(broken) = findings
        .iter()
        .find(|finding| !finding.ok && !finding.optional)
    {
        let (said, below) = match broken.detail.split_once('\n') {
            Some((said, below)) => (said, format!("\n{below}")),
            None => (broken.detail.as_str(), String::new()),
        };
        return Err(Error::Unusable {
            kind: backend.kind(),
            what: format!("{}: {said}", broken.name),
            below,
            remedy: broken
                .remedy
                .clone()
                .unwrap_or_else(|| "run `skep doctor`".into()),
        });
    }
    let overlay = findings
        .iter()
        .any(|finding| finding.name == sandbox::OVERLAY && finding.ok);
    if !overlay {
        return Ok(Layering::Copy);
    }
    if let Err(error) = std::fs::write(&remembered, format!("overlay on {kernel}")) {
        tracing::debug!(%error, "the kind of workspaces could not be remembered");
    }
    Ok(Layering::Overlay)
}
