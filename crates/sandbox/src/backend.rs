//! The traits that every kind of sandbox fulfils.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Carry, Command, Connection, End, Error, Exit, Last, Limit, Output, Process, Spec, Stats,
    Trouble, Workspace,
};

/// A kind of sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Namespaces of this kernel: no root, no daemon, no image.
    Namespace,
    /// The same, in a container of Podman or Docker.
    Container,
    /// Ordinary processes of this machine, **unsealed**.
    Host,
}

impl Kind {
    /// Whether what runs inside is kept from the rest of the machine.
    pub fn is_sealed(self) -> bool {
        match self {
            Self::Namespace | Self::Container => true,
            Self::Host => false,
        }
    }

    /// The word by which a person asks for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Container => "container",
            Self::Host => "host",
        }
    }

    /// The one that is asked for by this word.
    pub fn named(word: &str) -> Option<Self> {
        let all = [Self::Namespace, Self::Container, Self::Host];
        all.into_iter().find(|kind| kind.name() == word)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Namespace => "namespace",
            Self::Container => "container",
            Self::Host => "host (unsealed)",
        })
    }
}

/// The name of the finding that says whether workspaces can be overlays.
pub const OVERLAY: &str = "overlay workspaces";

/// One thing that a kind of sandbox needs, tried on this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was tried.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// Whether sandboxes of this kind work without it, with less.
    pub optional: bool,
    /// What was seen.
    pub detail: String,
    /// What the person can do, if it does not work.
    pub remedy: Option<String>,
}

/// Who enforces the limits of memory and processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// A cgroup of version 1.
    CgroupV1,
    /// A cgroup of version 2.
    CgroupV2,
    /// The kernel's limits per process, and a watcher that adds up and kills on excess.
    RlimitsAndWatcher,
    /// Nobody.
    None,
}

impl std::fmt::Display for Enforcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CgroupV1 => "cgroup v1",
            Self::CgroupV2 => "cgroup v2",
            Self::RlimitsAndWatcher => "rlimits and a watcher",
            Self::None => "none",
        })
    }
}

/// The state of a sandbox, for a person who asks why something failed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Diagnosis {
    /// Its kind.
    pub kind: Kind,
    /// Whether what runs inside is kept from the rest of the machine.
    pub sealed: bool,
    /// Whether it still runs.
    pub alive: bool,
    /// How it ended, if it has.
    pub ended: Option<End>,
    /// The process id, on the host, of its first process.
    pub first_process: Option<u32>,
    /// Who enforces the limits.
    pub limits_in_force: Enforcement,
    /// The version of Landlock's interface that is in force, if any.
    pub landlock_abi: Option<u32>,
    /// Whether calls that are refused are named: in [`Last::refused`], and where one may explain a failure.
    pub calls_named: bool,
    /// Memory in use, in bytes, where it is counted; nothing of a sandbox that has ended.
    pub memory_bytes: Option<u64>,
    /// Processes in it, where they are counted; nothing of a sandbox that has ended.
    pub processes: Option<u64>,
    /// How many processes were killed for want of memory, where it is counted.
    pub out_of_memory_kills: Option<u64>,
    /// Commands that run now.
    pub commands: usize,
    /// The command that ended, or failed to start, last.
    pub last: Last,
    /// Containers beside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Beside>,
}

/// A container beside a sandbox's, for a person who asks why something failed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Beside {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its container, as the engine knows it.
    pub container: String,
    /// Whether its command runs.
    pub alive: bool,
    /// Whether it can be used, and since when.
    pub health: Health,
    /// How its command ended, if it has, and which of its limits explains that.
    pub exit: Option<Exit>,
    /// What explains that it ended, if something does.
    pub trouble: Option<Trouble>,
    /// What a person can do about that.
    pub remedy: Option<&'static str>,
    /// Who enforces its limits.
    pub limits_in_force: Enforcement,
    /// Memory in use, in bytes, where it is counted.
    pub memory_bytes: Option<u64>,
    /// How many of its processes were killed for want of memory, where it is counted.
    pub out_of_memory_kills: Option<u64>,
    /// Its last lines, at most 50, without the values of its variables.
    pub output: Vec<String>,
}

/// Whether a container beside a sandbox's can be used: it shows what its configuration says shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// Whether it can.
    pub ready: bool,
    /// Since when, in microseconds since 1970.
    pub since: u64,
}

impl Diagnosis {
    /// What explains that something failed, if something does; [`Trouble::remedy`] says what to do.
    pub fn trouble(&self) -> Option<Trouble> {
        match self.ended {
            Some(end) => Some(end.trouble),
            None => self.last.trouble,
        }
    }
}

/// The one way out: a listener on the sandbox's own loopback, held by the owner.
#[derive(Debug)]
pub struct Channel {
    /// Accepts connections that are made inside. Blocking; set it to non-blocking for async use.
    pub listener: TcpListener,
    /// The port on 127.0.0.1 *inside*.
    pub port: u16,
    /// Which connections may be served, where others than the sandbox's commands can make some.
    pub guard: Option<crate::host::Guard>,
}

/// What a kind of sandbox can do beyond what all can. What it cannot do it refuses with
/// [`Error::Spec`]; limits it does not keep it says in [`Diagnosis::limits_in_force`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Abilities {
    /// [`crate::Workspace::Overlay`], where the machine can mount one.
    pub layers: bool,
    /// [`Spec::mounts`].
    pub mounts: bool,
    /// [`Spec::masked`].
    pub masks: bool,
    /// [`Spec::limits`].
    pub limits: bool,
    /// [`Spec::extras`].
    pub extras: bool,
    /// Its files are directories of this machine. Where they are not, its one workspace is
    /// [`crate::Workspace::Own`], and nothing of this machine is in it: no home, no mount.
    pub local_files: bool,
    /// [`Sandbox::switch`], in a sandbox whose workspace consists of layers. Snapshots need it.
    pub switch: bool,
}

impl Abilities {
    /// All of it.
    pub const ALL: Self = Self {
        layers: true,
        mounts: true,
        masks: true,
        limits: true,
        extras: true,
        local_files: true,
        switch: true,
    };
}

/// A kind of sandbox on this machine.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Which kind.
    fn kind(&self) -> Kind;

    /// What it can do; nothing, unless it says so.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// The image whose root its sandboxes have, by its name, where that is not the host's: nothing of
    /// the host's toolchains is inside then.
    fn image(&self) -> Option<&str> {
        None
    }

    /// Which images its sandboxes are made of, whatever their names may come to mean: the root's, and
    /// those of what runs beside it, with what that is told; nothing where there are none. It stays the
    /// same for as long as this lives.
    ///
    /// # Errors
    /// [`Error::ImageMissing`] where it is not there; others where nobody can say.
    async fn images(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Tries everything that this kind needs, for real, and says what to do about what is missing.
    /// What it needs on a disk it makes in `place`, and removes: the directory that workspaces will
    /// be in, because not every file system can hold the layers of an overlay.
    async fn probe(&self, place: &Path) -> Vec<Finding>;

    /// Makes a sandbox that is ready for commands.
    ///
    /// # Errors
    /// Says what the machine refuses and the remedy.
    async fn create(&self, spec: Spec) -> Result<Box<dyn Sandbox>, Error>;

    /// Waits until what was begun for those who did not wait for it is made and taken away again, and until
    /// sandboxes that were dropped are gone: some seconds at the most. For whoever is about to end.
    async fn settle(&self) {}
}

/// Ends what runs in a sandbox because a limit was reached that its owner keeps.
pub trait Strike: Send + Sync {
    /// Kills every command with all that it started; their exits name the limit. No other command
    /// is started: [`Error::Struck`]. Files are still carried out.
    fn strike(&self, limit: Limit);
}

/// A place in which commands run. Dropping it ends everything in it, as does the end of the owning
/// process, however that comes about.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Which kind.
    fn kind(&self) -> Kind;

    /// Where the workspace is, as seen by commands.
    fn workspace(&self) -> &Path;

    /// Where the private home is, as seen by commands.
    fn home(&self) -> &Path;

    /// The environment that most commands need (`PATH`, `HOME`, `USER`, `LANG`, `TMPDIR`, …), with
    /// nothing of the owner's.
    fn base_env(&self) -> Vec<(OsString, OsString)>;

    /// Hands out the channel, once, if [`Spec::channel_port`] asked for one.
    fn take_channel(&self) -> Option<Channel>;

    /// Starts a command. Dropping the process kills all that it started.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such program inside; [`Error::Gone`] if the sandbox has
    /// ended.
    async fn exec(&self, command: Command) -> Result<Process, Error>;

    /// Starts to carry files in or out, in place of a command: its streams are those of an archive, and
    /// what failed is said on the third, which [`crate::copy_in`] and [`crate::copy_out`] read. It has
    /// the rights of commands, its time and its end are as theirs, and it counts as one.
    ///
    /// # Errors
    /// As [`Sandbox::exec`].
    async fn carry(&self, carry: Carry) -> Result<Process, Error>;

    /// Connects to what listens on a port of the sandbox's own loopback: on 127.0.0.1, or else on ::1.
    /// Where nobody does, that is said at once. What is inside gets bytes by it, and nothing else.
    ///
    /// # Errors
    /// [`Error::NobodyListens`]; [`Error::NotConnected`] where what listens takes no connection;
    /// [`Error::TooManyConnections`] beyond [`crate::MOST_CONNECTIONS`]; [`Error::Gone`] if the sandbox
    /// has ended.
    async fn connect(&self, port: u16) -> Result<Connection, Error>;

    /// Puts other layers in the place of each workspace's, in the order of the specification, while the
    /// sandbox lives on: what was the upper layer may become one of the lower ones. Nothing may run
    /// inside; what is started meanwhile waits. Where this fails, the sandbox has all of its old layers,
    /// or has ended ([`Error::Gone`] from then on). Not to be cancelled: it would be carried out all the same.
    ///
    /// # Errors
    /// [`Error::Busy`] while anything runs inside; [`Error::CannotSwitch`] where
    /// [`Abilities::switch`] says no, or the workspace is a plain directory; otherwise as
    /// [`Backend::create`].
    async fn switch(&self, layers: Vec<Workspace>) -> Result<(), Error> {
        drop(layers);
        Err(Error::CannotSwitch {
            kind: self.kind(),
            why: "this kind cannot",
        })
    }

    /// A handle for whoever keeps a limit that the sandbox cannot keep itself. It does not keep the
    /// sandbox alive.
    fn strike(&self) -> Arc<dyn Strike>;

    /// Says how the sandbox is.
    async fn diagnose(&self) -> Diagnosis;

    /// Says what it uses and has used, as far as this kind knows it.
    async fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Keeps the last lines of a command whose output was captured, for [`Sandbox::diagnose`].
    fn remember(&self, _output: &Output) {}

    /// Ends everything in the sandbox and waits until it is gone.
    ///
    /// # Errors
    /// If it does not end within some seconds.
    async fn destroy(self: Box<Self>) -> Result<(), Error>;
}
