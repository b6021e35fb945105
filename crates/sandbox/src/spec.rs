//! What a sandbox holds.

use std::path::PathBuf;

use crate::namespace::wire;
use crate::{Error, Extras};

/// The directory inside that holds the workspace, one level below. Rules on paths are put on it and
/// not on the workspace itself, so that they outlive a change of the mount.
pub const WORKSPACE_PARENT: &str = "/workspace";

/// Workspaces in one sandbox, at most.
const MOST_WORKSPACES: usize = wire::MOST_WORKSPACES as usize;

/// The private home inside.
pub const AGENT_HOME: &str = "/home/agent";

/// What a sandbox holds, and how much it may use.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The files to work on.
    pub workspace: Workspace,
    /// The workspace's name below [`WORKSPACE_PARENT`]: one path component.
    pub workspace_name: String,
    /// Further files to work on, each with its name beside the workspace's: layers where the workspace
    /// is layers.
    pub also: Vec<(String, Workspace)>,
    /// A directory of the host that becomes [`AGENT_HOME`]; without one the home is in memory.
    pub home: Option<PathBuf>,
    /// What `/tmp` is.
    pub tmp: Tmp,
    /// Further directories and files of the host, such as toolchains.
    pub mounts: Vec<Mount>,
    /// Absolute paths inside that appear as an empty file or directory, such as credentials that
    /// lie beside a toolchain. One that does not exist is ignored.
    pub masked: Vec<PathBuf>,
    /// Whether a TCP listener is made on the sandbox's loopback and handed out, and on which port
    /// (0: the kernel chooses).
    pub channel_port: Option<u16>,
    /// What it gets beyond what every sandbox has.
    pub extras: Extras,
    /// How much may be used.
    pub limits: Limits,
}

impl Spec {
    /// A sandbox around `workspace`, with everything else at its default.
    pub fn new(workspace: Workspace) -> Self {
        Self {
            workspace,
            workspace_name: "repo".to_owned(),
            also: Vec::new(),
            home: None,
            tmp: Tmp::default(),
            mounts: Vec::new(),
            masked: Vec::new(),
            channel_port: None,
            extras: Extras::default(),
            limits: Limits::default(),
        }
    }

    /// Where the workspace appears inside.
    ///
    /// # Errors
    /// [`Error::Spec`] if the name is not one ordinary path component.
    pub fn workspace_path(&self) -> Result<PathBuf, Error> {
        place_of(&self.workspace_name)
    }

    /// Where each of the workspaces appears inside, with what it is.
    ///
    /// # Errors
    /// [`Error::Spec`] if a name is not one ordinary path component, or comes twice; where there are
    /// more than there can be, or layers beside what is none.
    pub(crate) fn workspaces(&self) -> Result<Vec<(PathBuf, &Workspace)>, Error> {
        let refuse = |what: String| Err(Error::Spec { what });
        let mut all = vec![(self.workspace_path()?, &self.workspace)];
        for (name, workspace) in &self.also {
            let place = place_of(name)?;
            if all.iter().any(|(other, _)| *other == place) {
                return refuse(format!("two workspaces have the name {name:?}"));
            }
            if workspace.is_layered() != self.workspace.is_layered() {
                return refuse("some of its workspaces are layers, and some are not".to_owned());
            }
            all.push((place, workspace));
        }
        match all.len() > MOST_WORKSPACES {
            true => refuse(format!("it has more than {MOST_WORKSPACES} workspaces")),
            false => Ok(all),
        }
    }
}

/// Where a workspace of this name appears.
fn place_of(name: &str) -> Result<PathBuf, Error> {
    let ordinary = !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= 200
        && !name.contains(['/', '\0']);
    if !ordinary {
        return Err(Error::Spec {
            what: format!("the workspace's name {name:?} is not one path component"),
        });
    }
    Ok(PathBuf::from(WORKSPACE_PARENT).join(name))
}

/// The files to work on.
#[derive(Debug, Clone)]
pub enum Workspace {
    /// A directory of the host, written in place.
    Directory(PathBuf),
    /// An empty directory of the sandbox's own, wherever that is; what is in it comes and goes by
    /// [`crate::Sandbox::carry`]. See [`crate::Abilities::local_files`].
    Own,
    /// Layers, of which only the upper one is written. The merged view exists only inside and ends
    /// with the sandbox.
    Overlay {
        /// Read-only layers, the nearest first.
        lowers: Vec<PathBuf>,
        /// The layer that takes the writes.
        upper: PathBuf,
        /// The overlay's own directory: empty, and on the upper layer's file system.
        work: PathBuf,
        /// Whether to skip the sync of the whole upper file system at the end. After a crash of the
        /// machine the layer must then be thrown away.
        volatile: bool,
    },
}

impl Workspace {
    pub(crate) fn is_layered(&self) -> bool {
        matches!(self, Self::Overlay { .. })
    }
}

/// What `/tmp` is.
#[derive(Debug, Clone)]
pub enum Tmp {
    /// In memory, with at most this many bytes.
    Memory {
        /// Bytes.
        bytes: u64,
    },
    /// A directory of the host.
    Directory(PathBuf),
}

impl Default for Tmp {
    fn default() -> Self {
        Self::Memory { bytes: 1 << 30 }
    }
}

/// A directory or file of the host that appears inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The path on the host, absolute.
    pub source: PathBuf,
    /// The path inside, absolute. Missing parents are made, empty.
    pub target: PathBuf,
    /// Whether the inside may write to it.
    pub writable: bool,
}

impl Mount {
    /// A read-only mount at the same path as on the host.
    pub fn same_path(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            source: path.clone(),
            target: path,
            writable: false,
        }
    }

    /// A read-only mount at another path.
    pub fn read_only(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            writable: false,
        }
    }
}

/// How much all sandboxes of a kind may use together. Only where a control group can do it; what is
/// not set is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time per second of wall time, in thousandths of one processor.
    pub cpu_milli: Option<u64>,
}

impl Total {
    pub(crate) fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

/// How much a sandbox may use. What is not set is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Memory of all processes together, in bytes. A control group counts files in memory (`/tmp`)
    /// too; without one, each directory in memory takes at most this much besides.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at a time; each running command counts one more, its minder.
    pub processes: Option<u64>,
    /// Open files per process.
    pub open_files: Option<u64>,
    /// The size of one file, in bytes.
    pub file_bytes: Option<u64>,
    /// Processor time per second of wall time, in thousandths of one processor; only where a
    /// cgroup can do it.
    pub cpu_milli: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            processes: Some(4096),
            open_files: Some(16384),
            file_bytes: None,
            cpu_milli: None,
        }
    }
}
