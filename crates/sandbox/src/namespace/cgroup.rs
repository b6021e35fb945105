//! Limits for a whole sandbox by control groups, of version 1 or 2, where this user may make them.
//!
//! A group's name carries its owner's process id and start time, so that a later process can remove
//! what a killed one left behind, and never what a living one uses.

mod above;
mod found;
mod parent;

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use self::above::Above;
pub(super) use self::parent::Parent;
use self::parent::{set, v1_limits, v2_limits};
use crate::{Enforcement, Error, Limits, Stats, stats};

const PREFIX: &str = "skep-";
/// The process 1 of a sandbox is not counted among its processes.
const OWN_PROCESSES: u64 = 1;
/// How often, and with which pause, the removal of a group that is just emptying is tried.
const REMOVALS: u32 = 250;
const PAUSE: Duration = Duration::from_millis(2);

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

    /// Removes the groups whose owners are gone: their processes go with them.
    pub(super) fn sweep(&self) {
        // What stays must not keep every new process waiting.
        let mut tries = 0;
        let parents = self.parents();
        // Those above an engine's groups are in all hierarchies.
        let roots = match self {
            Self::V1 { .. } => above::roots(),
            Self::V2 { .. } => Vec::new(),
        };
        let roots = roots.iter().map(PathBuf::as_path);
        let roots = roots.filter(|place| !parents.contains(place));
        for parent in parents.iter().copied().chain(roots) {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let stale = name
                    .to_str()
                    .and_then(owner_of)
                    .is_some_and(|(pid, start)| start_time(pid) != Some(start));
                if stale && let Err(error) = remove_with_children(&entry.path(), &mut tries) {
                    tracing::debug!(%error, group = %entry.path().display(), "a stale group stays");
                }
            }
        }
    }
}

/// Removes the groups whose owners are gone, those above an engine's among them. Blocks.
pub(crate) fn sweep() {
    if let Some(hierarchy) = Hierarchy::find() {
        hierarchy.sweep();
    }
}

/// A name that names this process as the owner, and no other group.
fn new_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let pid = std::process::id();
    let start = start_time(pid).unwrap_or(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{pid}-{start}-{number}")
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

    /// Processes and threads, process 1 included.
    pub(super) fn processes(&self) -> Option<u64> {
        self.read_number((1, "pids.current"), "pids.current")
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

/// Removes a group whose processes have been killed, trying again for as long as [`REMOVALS`]
/// allows: a process leaves its group a moment after it can be waited for, and one whose owner was
/// killed a moment after its owner.
fn remove(group: &Path, tries: &mut u32) -> std::io::Result<()> {
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == std::io::ErrorKind::ResourceBusy && *tries + 1 < REMOVALS =>
            {
                *tries += 1;
                pause();
            }
            ended => return ended,
        }
    }
}

/// The same, with the groups in it, which have none of their own. They may be gone already.
fn remove_with_children(group: &Path, tries: &mut u32) -> std::io::Result<()> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path(), tries)?;
        }
    }
    remove(group, tries)
}

/// There is no event for "the last process has left" that both versions have.
fn pause() {
    let time = rustix::event::Timespec::try_from(PAUSE).ok();
    if let Err(error) = rustix::event::poll(&mut [], time.as_ref()) {
        tracing::trace!(%error, "a pause was cut short");
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

/// The owner that a group's name names: process id and start time.
fn owner_of(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// When a process started, in clock ticks since the machine did (field 22 of `/proc/PID/stat`); none
/// of one that has ended, whether it was waited for or not.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    if rest.starts_with(['Z', 'X']) {
        return None;
    }
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_owns_nothing_although_nobody_has_waited_for_it() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert_eq!(start_time(child.id()), None);
        child.wait().unwrap();
    }

    #[test]
    fn a_groups_name_names_its_owner() {
        assert_eq!(owner_of("skep-12-345-0"), Some((12, 345)));
        assert_eq!(owner_of("skep-x-345-0"), None);
        assert_eq!(owner_of("other-12-345-0"), None);
        assert!(start_time(std::process::id()).is_some());
    }

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
