//! The group of a process that somebody else put into one, such as the engine of containers.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Cgroup, Hierarchy, mounted, own_path};
use crate::{Enforcement, Limits};

impl Cgroup {
    /// The group of the process `pid`, if there is one in which these limits are in force for sure.
    /// `beside` is how many processes of ours are in it that do not count.
    pub(crate) fn of_process(
        pid: u32,
        limits: &Limits,
        beside: u64,
    ) -> Option<(Self, Enforcement)> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let found = version_1(&mounts, &groups).or_else(|| version_2(&mounts, &groups))?;
        let enforcement = found.hierarchy.enforcement();
        found.keeps(limits, beside).then_some((found, enforcement))
    }

    fn keeps(&self, limits: &Limits, beside: u64) -> bool {
        let memory = self.read_number((0, "memory.limit_in_bytes"), "memory.max");
        let processes = self.read_number((1, "pids.max"), "pids.max");
        let at_most = |found: Option<u64>, wanted: Option<u64>| {
            wanted.is_none_or(|wanted| found.is_some_and(|found| found <= wanted))
        };
        at_most(memory, limits.memory_bytes)
            && at_most(processes, limits.processes.map(|wanted| wanted + beside))
    }
}

fn theirs(hierarchy: Hierarchy, name: String) -> Cgroup {
    Cgroup {
        hierarchy,
        shared: None,
        name,
        _parent: None,
        theirs: true,
    }
}

/// The directory above a group, and the group's name.
fn split(group: &Path) -> Option<(PathBuf, String)> {
    let name = group.file_name()?.to_str()?.to_owned();
    Some((group.parent()?.to_owned(), name))
}

fn version_1(mounts: &str, groups: &str) -> Option<Cgroup> {
    let place = |controller: &str| {
        let path = own_path(groups, |controllers| {
            controllers.split(',').any(|name| name == controller)
        })?;
        split(&mounted(mounts, "cgroup", Some(controller), path)?)
    };
    let ((memory, name), (pids, other)) = (place("memory")?, place("pids")?);
    let hierarchy = Hierarchy::V1 {
        memory,
        pids,
        cpu: None,
        shared_cpu: false,
    };
    (name == other).then(|| theirs(hierarchy, name))
}

fn version_2(mounts: &str, groups: &str) -> Option<Cgroup> {
    let path = own_path(groups, str::is_empty)?;
    let (parent, name) = split(&mounted(mounts, "cgroup2", None, path)?)?;
    Some(theirs(Hierarchy::V2 { parent, cpu: false }, name))
}
