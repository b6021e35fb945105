//! Limits for a whole sandbox by control groups, of version 1 or 2, where this user may make them.
//!
//! A group's name says whose it is, so that a later process can remove what a killed one left behind,
//! and never what a living one uses.

mod above;
mod found;
mod parent;
mod stale;

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::above::Above;
pub(super) use self::parent::Parent;
use self::parent::{set, v1_limits, v2_limits};
pub(crate) use self::stale::{is_stale, sweep, sweep_everywhere};
use self::stale::{new_name, remove};
use crate::{Enforcement, Error, Limits, Stats, stats};

/// The process 1 of a sandbox is not counted among its processes.
const OWN_PROCESSES: u64 = 1;

/// Where groups can be made on this machine.
#[derive(Debug, Clone)]
pub(super) enum Hierarchy {
    /// One directory per controller. Where `shared_cpu`, the directory for processor time has a limit
    /// that all share, and whoever has none of its own is put into it.
    V1 {
        memory: PathBuf,
        pids: PathBuf,
        cpu: Option<PathBuf>,
        shared_cpu: bool,
    },
    /// One directory for all, in which children get the controllers.
    V2 { parent: PathBuf, cpu: bool },
}

/// The groups of one sandbox. Removed on drop, when their last process has ended.
#[derive(Debug)]
pub(crate) struct Cgroup {
    hierarchy: Hierarchy,
    /// A group for processor time that it shares with others.
    shared: Option<PathBuf>,
    name: String,
    /// Kept until this group is gone.
    _parent: Option<Arc<Parent>>,
    /// Whether somebody else made it, and removes it.
    theirs: bool,
}

/// What a new process needs in order to be in a group from its beginning.
pub(crate) enum Join {
    /// Files to which it writes "0".
    V1(Vec<OwnedFd>),
    /// The directory into which it is cloned.
    V2(OwnedFd),
}

/// How often a limit has struck so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Strikes {
    pub(crate) memory: u64,
    pub(crate) processes: u64,
}

impl Hierarchy {
    /// Looks for a place where both memory and processes can be limited.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::version_1(&mounts, &own).or_else(|| Self::version_2(&mounts, &own))
    }

    /// The same at the top of the hierarchies, where engines make their groups: one path has to name a
    /// group in each of them. In version 2 there is only one, and the nearest place serves.
    fn at_the_top() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::version_1(&mounts, "1:memory:/\n2:pids:/\n3:cpu:/").or_else(Self::find)
    }

    fn version_1(mounts: &str, own: &str) -> Option<Self> {
        let place = |controller: &str| {
            let path = own_path(own, |controllers| {
                controllers.split(',').any(|name| name == controller)
            })?;
            let directory = mounted(mounts, "cgroup", Some(controller), path)?;
            is_writable(&directory).then_some(directory)
        };
        Some(Self::V1 {
            memory: place("memory")?,
            pids: place("pids")?,
            cpu: place("cpu"),
            shared_cpu: false,
        })
    }

    /// The nearest ancestor of this process's own group in which children can be made that have the
    /// controllers. The own group is not one: a group with processes gives none to its children.
    fn version_2(mounts: &str, own: &str) -> Option<Self> {
        let path = own_path(own, str::is_empty)?;
        let directory = mounted(mounts, "cgroup2", None, path)?;
        directory
            .ancestors()
            .take_while(|dir| dir.join("cgroup.procs").exists())
            .find_map(|parent| {
                let given = fs::read_to_string(parent.join("cgroup.subtree_control")).ok()?;
                let has = |controller| given.split_whitespace().any(|name| name == controller);
                let usable = has("memory") && has("pids") && is_writable(parent);
                usable.then(|| Self::V2 {
                    parent: parent.to_owned(),
                    cpu: has("cpu"),
                })
            })
    }

    pub(super) fn enforcement(&self) -> Enforcement {
        match self {
            Self::V1 { .. } => Enforcement::CgroupV1,
            Self::V2 { .. } => Enforcement::CgroupV2,
        }
    }

    fn parents(&self) -> Vec<&Path> {
        match self {
            Self::V1 {
                memory, pids, cpu, ..
            } => {
                let mut parents = vec![memory.as_path(), pids];
                parents.extend(cpu.as_deref());
                parents
            }
            Self::V2 { parent, .. } => vec![parent],
        }
    }

    pub(super) fn bounds_processors(&self) -> bool {
        match self {
            Self::V1 { cpu, .. } => cpu.is_some(),
            Self::V2 { cpu, .. } => *cpu,
        }
    }
}

impl Cgroup {
    /// Makes a group with these limits.
    pub(super) fn create(
        hierarchy: &Hierarchy,
        parent: Option<Arc<Parent>>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let mut hierarchy = hierarchy.clone();
        let mut shared = None;
        // A group of its own for processor time would only cost time where none is limited.
        if let (
            Hierarchy::V1 {
                cpu, shared_cpu, ..
            },
            None,
        ) = (&mut hierarchy, limits.cpu_milli)
        {
            shared = cpu.take().filter(|_| *shared_cpu);
        }
        let group = Self {
            hierarchy,
            shared,
            name: new_name(),
            _parent: parent,
            theirs: false,
        };
        group
            .fill(limits)
            .map_err(Error::io("set up the sandbox's control group"))?;
        Ok(group)
    }

    fn fill(&self, limits: &Limits) -> std::io::Result<()> {
        for parent in self.hierarchy.parents() {
            fs::create_dir(parent.join(&self.name))?;
        }
        let processes = limits
            .processes
            .map(|count| (count + OWN_PROCESSES).to_string());
        match &self.hierarchy {
            Hierarchy::V1 {
                memory, pids, cpu, ..
            } => {
                let cpu = cpu.as_ref().map(|cpu| cpu.join(&self.name));
                let memory = memory.join(&self.name);
                v1_limits(
                    &memory,
                    limits.memory_bytes,
                    cpu.as_deref(),
                    limits.cpu_milli,
                )?;
                if let Some(processes) = processes {
                    set(&pids.join(&self.name), "pids.max", processes)?;
                }
            }
            Hierarchy::V2 { parent, cpu, .. } => {
                let group = parent.join(&self.name);
                v2_limits(&group, limits.memory_bytes, *cpu, limits.cpu_milli)?;
                if let Some(processes) = processes {
                    set(&group, "pids.max", processes)?;
                }
            }
        }
        Ok(())
    }

    /// What the first process needs to be in the group.
    pub(super) fn join(&self) -> Result<Join, Error> {
        let failed = || Error::io("open the sandbox's control group");
        match &self.hierarchy {
            // `tasks` and not `cgroup.procs`: a thread that moves itself does not wait for the lock
            // of the whole machine, which takes milliseconds.
            Hierarchy::V1 { .. } => self
                .directories()
                .chain(self.shared.clone())
                .map(|directory| {
                    let file = OpenOptions::new().write(true).open(directory.join("tasks"));
                    file.map(OwnedFd::from).map_err(failed())
                })
                .collect::<Result<_, _>>()
                .map(Join::V1),
            Hierarchy::V2 { parent, .. } => File::open(parent.join(&self.name))
                .map(|file| Join::V2(file.into()))
                .map_err(failed()),
        }
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchy
            .parents()
            .into_iter()
            .map(|parent| parent.join(&self.name))
    }

    fn read_number(&self, v1: (usize, &str), v2: &str) -> Option<u64> {
        let file = match &self.hierarchy {
            Hierarchy::V1 { .. } => self.directories().nth(v1.0)?.join(v1.1),
            Hierarchy::V2 { .. } => self.directories().next()?.join(v2),
        };
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Memory in use, in bytes.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        self.read_number((0, "memory.usage_in_bytes"), "memory.current")
    }

    /// Processes and threads, process 1 included. The first process of a container, in whose group it is,
    /// is none of them.
    pub(super) fn processes(&self) -> Option<u64> {
        let all = self.read_number((1, "pids.current"), "pids.current")?;
        Some(all.saturating_sub(u64::from(self.theirs)))
    }

    /// What the group counts.
    pub(super) fn stats(&self) -> Stats {
        let v2 = |file: &str| match &self.hierarchy {
            Hierarchy::V1 { .. } => None,
            Hierarchy::V2 { .. } => fs::read_to_string(self.directories().next()?.join(file)).ok(),
        };
        let micros = v2("cpu.stat").and_then(|text| stats::line(&text, "usage_usec "));
        Stats {
            cpu_millis: micros.map(|micros| micros / 1000),
            memory_bytes: self.memory_bytes(),
            peak_memory_bytes: self.read_number((0, "memory.max_usage_in_bytes"), "memory.peak"),
            processes: self.processes(),
            ..Stats::default()
        }
    }

    /// How often the limits have struck.
    pub(crate) fn strikes(&self) -> Strikes {
        let mut directories = self.directories();
        let (memory, pids) = match &self.hierarchy {
            Hierarchy::V1 { .. } => {
                let memory = directories.next().map(|dir| dir.join("memory.oom_control"));
                (
                    memory,
                    directories.next().map(|dir| dir.join("pids.events")),
                )
            }
            Hierarchy::V2 { .. } => {
                let group = directories.next();
                (
                    group.as_ref().map(|dir| dir.join("memory.events")),
                    group.map(|dir| dir.join("pids.events")),
                )
            }
        };
        let count = |file: Option<PathBuf>, key: &str| {
            let text = fs::read_to_string(file?).ok()?;
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
        };
        Strikes {
            memory: count(memory, "oom_kill ").unwrap_or(0),
            processes: count(pids, "max ").unwrap_or(0),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.theirs {
            return;
        }
        for group in self.directories() {
            if let Err(error) = remove(&group, &mut 0) {
                tracing::warn!(%error, group = %group.display(), "a control group stays");
            }
        }
    }
}

/// The path of this process in the hierarchy whose controllers `wanted` accepts.
fn own_path(own: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        wanted(controllers).then_some(path)
    })
}

/// Where the group `path` of a hierarchy is in the file system.
fn mounted(mounts: &str, kind: &str, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut system = system.split(' ');
        let (this, options) = (system.next()?, system.nth(1)?);
        let right = this == kind
            && controller.is_none_or(|wanted| options.split(',').any(|option| option == wanted));
        let below = Path::new(path).strip_prefix(root).ok()?;
        let directory = Path::new(point).join(below);
        (right && directory.is_dir()).then_some(directory)
    })
}

fn is_writable(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_below_the_mounts_root() {
        let mounts = "30 25 0:26 / / rw - tmpfs tmpfs rw\n\
                      31 30 0:27 /a / rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n\
                      32 30 0:28 / /tmp rw - cgroup cgroup rw,memory";
        let own = "4:memory:/x\n0::/a/usr";
        assert_eq!(own_path(own, str::is_empty), Some("/a/usr"));
        assert_eq!(own_path(own, |name| name == "memory"), Some("/x"));
        assert_eq!(
            mounted(mounts, "cgroup2", None, "/a/usr"),
            Some("/usr".into())
        );
        assert_eq!(
            mounted(mounts, "cgroup", Some("memory"), "/no-such-group"),
            None
        );
    }
}
