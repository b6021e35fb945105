//! The `namespace` kind: sealed by this kernel's namespaces, without root, daemon or image.
//!
//! A sandbox is a process 1 of our own in fresh user, mount, pid, ipc, uts, network and cgroup
//! namespaces. It hands its owner a listener on its loopback: the only way out. When the owner ends,
//! however it ends, the socket between them closes, process 1 ends, and the kernel ends the rest.

mod ahead;
pub(crate) mod cgroup;
mod filter;
mod first;
mod landlock;
pub(crate) mod layout;
pub(crate) mod link;
pub(crate) mod packet;
pub(crate) mod plan;
pub(crate) mod probe;
pub(crate) mod scratch;
pub(crate) mod start;
mod switch;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the other half is used by the inside"
)]
#[path = "../init/wire.rs"]
pub(crate) mod wire;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio::task::JoinHandle;

use self::cgroup::{Cgroup, Hierarchy, Parent};
use self::first::First;
use self::layout::Root;
use self::link::Link;
use self::plan::Plan;
use self::start::Inside;
use self::switch::Failed;
use crate::blocking::blocking;
use crate::{
    AGENT_HOME, Abilities, Backend, Carry, Channel, Command, Connection, Diagnosis, End,
    Enforcement, Error, Extras, Finding, Kind, Output, Process, Sandbox, Spec, Stats, Strike, Tmp,
    Total, Workspace,
};

/// The `namespace` kind.
#[derive(Debug, Clone)]
pub struct Namespace {
    hierarchy: Option<Hierarchy>,
    /// The group above those of all its sandboxes, made with the first of them.
    parent: Arc<OnceLock<Option<Arc<Parent>>>>,
    total: Total,
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Namespace {
    /// Finds out where limits can be put, and removes the groups that killed owners left behind.
    /// The machine is looked at once per process.
    pub fn new() -> Self {
        static HIERARCHY: OnceLock<Option<Hierarchy>> = OnceLock::new();
        let hierarchy = HIERARCHY.get_or_init(|| {
            let hierarchy = Hierarchy::find();
            hierarchy.iter().for_each(Hierarchy::sweep);
            hierarchy
        });
        Self {
            hierarchy: hierarchy.clone(),
            parent: Arc::default(),
            total: Total::default(),
        }
    }

    /// Bounds what all its sandboxes use together, those of its clones included.
    #[must_use]
    pub fn bounded(self, total: Total) -> Self {
        Self {
            parent: Arc::default(),
            total,
            ..self
        }
    }

    /// Whether a control group can limit processor time.
    fn bounds_processors(&self) -> bool {
        self.hierarchy
            .as_ref()
            .is_some_and(Hierarchy::bounds_processors)
    }

    /// Where the groups of its sandboxes are made, and the group above them, if there is one.
    fn groups(&self) -> (Option<Hierarchy>, Option<Arc<Parent>>) {
        let Some(hierarchy) = self.hierarchy.as_ref().filter(|_| self.total.is_some()) else {
            return (self.hierarchy.clone(), None);
        };
        let parent = self.parent.get_or_init(|| {
            Parent::create(hierarchy, &self.total)
                .inspect_err(|error| {
                    tracing::warn!(%error, "what all sandboxes use together is not limited");
                })
                .ok()
                .map(Arc::new)
        });
        let below = parent.as_ref().map_or(hierarchy, |parent| parent.below());
        (Some(below.clone()), parent.clone())
    }

    /// Removes what killed owners left: directories of probes in a place, and control groups, in
    /// whatever group of the machine the owners were. Blocks.
    pub fn clear(place: &Path) {
        scratch::clear(place);
        cgroup::sweep_everywhere();
    }

    /// Without control groups, even where they can be used: limits are kept by the kernel's limits
    /// per process and by a watcher, as on a machine without them.
    pub fn without_cgroups() -> Self {
        Self {
            hierarchy: None,
            parent: Arc::default(),
            total: Total::default(),
        }
    }
}

#[async_trait]
impl Backend for Namespace {
    fn kind(&self) -> Kind {
        Kind::Namespace
    }

    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    async fn probe(&self, place: &Path) -> Vec<Finding> {
        probe::probe(self, place).await
    }

    async fn create(&self, spec: Spec) -> Result<Box<dyn Sandbox>, Error> {
        let backend = self.clone();
        let built = blocking("start the sandbox", move || {
            let (hierarchy, parent) = backend.groups();
            build(hierarchy.as_ref(), parent, &spec)
        });
        let built = built.await?;
        Ok(Box::new(NamespaceSandbox::new(built)?))
    }

    async fn settle(&self) {
        let ended = blocking("end the helper of the next sandbox", || {
            ahead::end();
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "what waits ends with this process");
        }
    }
}

/// What the blocking part of a creation gives.
pub(crate) struct Built {
    pub(crate) inside: Inside,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) enforcement: Enforcement,
    pub(crate) landlock_abi: Option<u32>,
    pub(crate) workspace: PathBuf,
    /// Where all of them are, the one before them first.
    pub(crate) workspaces: Vec<PathBuf>,
    pub(crate) layered: bool,
    pub(crate) extras: Extras,
}

fn build(
    hierarchy: Option<&Hierarchy>,
    parent: Option<Arc<Parent>>,
    spec: &Spec,
) -> Result<Built, Error> {
    if spec.extras.nested && rustix::process::geteuid().is_root() {
        return Err(Error::Spec {
            what: "no namespaces can be made within one of root's, whose writes to /proc would be the machine's; run it as an ordinary user".to_owned(),
        });
    }
    let mut plan = layout::files(spec, Plan::default(), Root::Host)?;
    let bounded = spec.limits.memory_bytes.is_some()
        || spec.limits.processes.is_some()
        || spec.limits.cpu_milli.is_some()
        || parent.is_some();
    let cgroup = hierarchy
        .filter(|_| bounded)
        .map(|hierarchy| Cgroup::create(hierarchy, parent, &spec.limits))
        .transpose();
    // A group that cannot be made is as good as none: the watcher steps in, and it is said.
    let cgroup = cgroup.unwrap_or_else(|error| {
        tracing::warn!(%error, "limits are kept by a watcher instead of a control group");
        None
    });
    let enforcement = match (&cgroup, hierarchy) {
        (Some(_), Some(hierarchy)) => hierarchy.enforcement(),
        _ => Enforcement::RlimitsAndWatcher,
    };
    plan.loopback();
    let landlock_abi = seal(&mut plan, spec, cgroup.is_some());
    let join = cgroup.as_ref().map(Cgroup::join).transpose()?;
    let inside = start::start(&plan, join.as_ref())?;
    Ok(Built {
        inside,
        cgroup,
        enforcement,
        landlock_abi,
        workspaces: spec
            .workspaces()?
            .into_iter()
            .map(|(place, _)| place)
            .collect(),
        workspace: spec.workspace_path()?,
        layered: spec.workspace.is_layered(),
        extras: spec.extras.clone(),
    })
}

/// The plan's part after the files: the channel, what limits a process, and what is taken from it.
/// Returns the version of Landlock's interface, if it is there.
pub(crate) fn seal(plan: &mut Plan, spec: &Spec, by_cgroup: bool) -> Option<u32> {
    if let Some(port) = spec.channel_port {
        plan.listen(port);
    }
    limits(plan, spec, by_cgroup);
    let nested = spec.extras.nested;
    let landlock_abi = landlock::abi();
    if let Some(abi) = landlock_abi {
        landlock::rules(plan, spec, abi);
    }
    let filters = filter::filters(nested);
    plan.seccomp(&filters.asking, &filters.plain);
    landlock_abi.filter(|_| !nested)
}

fn limits(plan: &mut Plan, spec: &Spec, by_cgroup: bool) {
    let limits = &spec.limits;
    // One byte and not none: it is what keeps the kernel from handing a core to a program of the
    // host, too (`do_coredump`).
    plan.rlimit(libc::RLIMIT_CORE, "core files", 1);
    if let Some(files) = limits.open_files {
        plan.rlimit(libc::RLIMIT_NOFILE, "open files", files);
    }
    if let Some(bytes) = limits.file_bytes {
        plan.rlimit(libc::RLIMIT_FSIZE, "the size of files", bytes);
    }
    if by_cgroup {
        return;
    }
    // Since Linux 5.14 processes are counted per user namespace, so that the limit is the sandbox's
    // own. Before, it would count everything that the owner's user runs.
    if let (Some(processes), true) = (limits.processes, kernel_at_least(5, 14)) {
        plan.rlimit(libc::RLIMIT_NPROC, "processes", processes);
    }
    if limits.memory_bytes.is_some() || limits.processes.is_some() {
        let tmp = match spec.tmp {
            Tmp::Memory { .. } => wire::PLACE_TMP,
            Tmp::Directory(_) => 0,
        };
        let home = match spec.home {
            None => wire::PLACE_HOME,
            Some(_) => 0,
        };
        let places = wire::PLACE_SHM | tmp | home;
        plan.watch(limits.memory_bytes, limits.processes, places);
    }
}

fn kernel_at_least(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let mut numbers = name
        .release()
        .to_str()
        .unwrap_or("")
        .split(|c: char| !c.is_ascii_digit());
    let mut next = || {
        numbers
            .next()
            .and_then(|number| number.parse::<u32>().ok())
            .unwrap_or(0)
    };
    (next(), next()) >= (major, minor)
}

/// A running sandbox. The fields are dropped in this order: the loop ends, process 1 is killed, and
/// only then can its group be removed.
pub(crate) struct NamespaceSandbox {
    _listening: AbortOnDrop,
    link: Arc<Link>,
    first: Arc<Mutex<First>>,
    /// Whether its workspace consists of layers.
    layered: bool,
    channel: Mutex<Option<Channel>>,
    cgroup: Option<Arc<Cgroup>>,
    enforcement: Enforcement,
    landlock_abi: Option<u32>,
    calls_named: bool,
    workspace: PathBuf,
    /// Where all workspaces are, that one first.
    workspaces: Vec<PathBuf>,
    /// Its secrets are in nothing that is kept.
    extras: Extras,
    pid: u32,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl NamespaceSandbox {
    pub(crate) fn new(built: Built) -> Result<Self, Error> {
        let Built {
            mut inside,
            cgroup,
            enforcement,
            landlock_abi,
            workspace,
            workspaces,
            layered,
            extras,
        } = built;
        let cgroup = cgroup.map(Arc::new);
        let socket = inside.socket.take().ok_or(Error::Gone)?;
        let link = Link::new(socket, cgroup.clone())?;
        let listening = AbortOnDrop(tokio::spawn(Arc::clone(&link).run()));
        Ok(Self {
            _listening: listening,
            link,
            pid: inside.first.pid,
            calls_named: inside.calls_named,
            first: Arc::new(Mutex::new(inside.first)),
            layered,
            channel: Mutex::new(inside.channel),
            cgroup,
            enforcement,
            landlock_abi,
            workspace,
            workspaces,
            extras,
        })
    }

    /// How it ended, if it has.
    async fn ended(&self) -> Option<End> {
        let first = || self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.link.has_ended(|| first().has_ended()).await {
            return None;
        }
        let status = first().status();
        Some(self.link.end(status))
    }
}

#[async_trait]
impl Sandbox for NamespaceSandbox {
    fn kind(&self) -> Kind {
        Kind::Namespace
    }

    fn workspace(&self) -> &Path {
        &self.workspace
    }

    fn home(&self) -> &Path {
        Path::new(AGENT_HOME)
    }

    fn base_env(&self) -> Vec<(OsString, OsString)> {
        crate::stdio::base_env(crate::stdio::DEFAULT_PATH.into(), self.home())
    }

    fn take_channel(&self) -> Option<Channel> {
        self.channel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn exec(&self, command: Command) -> Result<Process, Error> {
        self.link.exec(command).await
    }

    async fn carry(&self, carry: Carry) -> Result<Process, Error> {
        self.link.carry(&carry, &self.workspace).await
    }

    async fn connect(&self, port: u16) -> Result<Connection, Error> {
        self.link.connect(port).await
    }

    async fn switch(&self, layers: Vec<Workspace>) -> Result<(), Error> {
        if !self.layered {
            return Err(Error::CannotSwitch {
                kind: Kind::Namespace,
                why: "its workspace is a plain directory",
            });
        }
        let quiet = self.link.quiet().await?;
        let (first, targets) = (Arc::downgrade(&self.first), self.workspaces.clone());
        let switched = blocking("change the workspace's layers", move || {
            let plan = layout::switch(&layers, &targets)?;
            match switch::switch(&plan, &quiet.namespace) {
                Ok(()) => Ok(()),
                Err(Failed::Unchanged(error)) => Err(error),
                Err(Failed::Unknown(error)) => {
                    tracing::warn!(%error, "a sandbox ends: its workspace may have either layers");
                    if let Some(first) = first.upgrade() {
                        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                        first.end()?;
                    }
                    Err(error)
                }
            }
        });
        switched.await
    }

    fn strike(&self) -> Arc<dyn Strike> {
        Arc::clone(&self.link) as Arc<dyn Strike>
    }

    async fn diagnose(&self) -> Diagnosis {
        let ended = self.ended().await;
        let cgroup = self.cgroup.as_deref();
        // Of one that has ended the group counts what nobody uses any more.
        let in_use = cgroup.filter(|_| ended.is_none());
        Diagnosis {
            kind: Kind::Namespace,
            sealed: true,
            alive: ended.is_none(),
            ended,
            first_process: Some(self.pid),
            limits_in_force: self.enforcement,
            landlock_abi: self.landlock_abi,
            calls_named: self.calls_named && !self.link.calls_are_over(),
            memory_bytes: in_use.and_then(Cgroup::memory_bytes),
            processes: in_use.and_then(Cgroup::processes),
            out_of_memory_kills: cgroup.map(|cgroup| cgroup.strikes().memory),
            commands: self.link.commands(),
            last: self.link.last(),
            sidecars: Vec::new(),
        }
    }

    async fn stats(&self) -> Stats {
        let (pid, cgroup) = (self.pid, self.cgroup.clone());
        let alive = self.ended().await.is_none();
        let read = tokio::task::spawn_blocking(move || {
            let counted = cgroup.map(|cgroup| cgroup.stats()).unwrap_or_default();
            match alive {
                true => counted.or(Stats::of_tree(pid)),
                false => counted.after_the_end(),
            }
        });
        read.await.unwrap_or_default()
    }

    fn remember(&self, output: &Output) {
        self.link.remember(output, |text| self.extras.hide(text));
    }

    async fn destroy(self: Box<Self>) -> Result<(), Error> {
        let ended = blocking("end the sandbox", move || {
            self.first
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .end()
        });
        ended.await
    }
}
