//! One group above those of several sandboxes, for what they may use together; and how limits are
//! written, which is the same for both.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::Hierarchy;
use super::stale::{new_name, remove};
use crate::Total;

/// A group without processes above the groups of several sandboxes, with limits for all of them.
/// Removed on drop, when they are gone.
#[derive(Debug)]
pub(in crate::namespace) struct Parent {
    directories: Vec<PathBuf>,
    below: Hierarchy,
}

impl Parent {
    /// Makes a group with these limits for all that is made below it.
    pub(in crate::namespace) fn create(
        hierarchy: &Hierarchy,
        total: &Total,
    ) -> std::io::Result<Self> {
        let name = new_name();
        let made = |parent: &Path| -> std::io::Result<PathBuf> {
            let directory = parent.join(&name);
            fs::create_dir(&directory)?;
            Ok(directory)
        };
        let mut parent = Self {
            directories: Vec::new(),
            below: hierarchy.clone(),
        };
        for directory in hierarchy.parents() {
            parent.directories.push(made(directory)?);
        }
        match &mut parent.below {
            Hierarchy::V1 {
                memory,
                pids,
                cpu,
                shared_cpu,
            } => {
                for place in [Some(memory), Some(pids), cpu.as_mut()]
                    .into_iter()
                    .flatten()
                {
                    place.push(&name);
                }
                *shared_cpu = cpu.is_some() && total.cpu_milli.is_some();
            }
            Hierarchy::V2 { parent, cpu } => {
                parent.push(&name);
                let controllers = if *cpu {
                    "+memory +pids +cpu"
                } else {
                    "+memory +pids"
                };
                set(parent, "cgroup.subtree_control", controllers)?;
            }
        }
        match &parent.below {
            Hierarchy::V1 { memory, cpu, .. } => {
                // Kernels before 5.11 add up what is below only where they are told to.
                if fs::read_to_string(memory.join("memory.use_hierarchy"))
                    .is_ok_and(|now| now.trim() == "0")
                {
                    set(memory, "memory.use_hierarchy", "1")?;
                }
                v1_limits(memory, total.memory_bytes, cpu.as_deref(), total.cpu_milli)?;
            }
            Hierarchy::V2 { parent, cpu, .. } => {
                v2_limits(parent, total.memory_bytes, *cpu, total.cpu_milli)?;
            }
        }
        Ok(parent)
    }

    /// Where the groups of sandboxes are made.
    pub(in crate::namespace) fn below(&self) -> &Hierarchy {
        &self.below
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for directory in &self.directories {
            if let Err(error) = remove(directory, &mut 0) {
                tracing::warn!(%error, group = %directory.display(), "a control group stays");
            }
        }
    }
}

pub(super) fn set(directory: &Path, file: &str, value: impl AsRef<str>) -> std::io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(directory.join(file))
        .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_ref().as_bytes()))
}

/// The kernel's least quota is a millisecond in a tenth of a second.
fn quota(milli: u64) -> String {
    (milli.max(10) * 100).to_string()
}

pub(super) fn v1_limits(
    memory: &Path,
    bytes: Option<u64>,
    cpu: Option<&Path>,
    milli: Option<u64>,
) -> std::io::Result<()> {
    if let Some(bytes) = bytes {
        set(memory, "memory.limit_in_bytes", bytes.to_string())?;
        // Memory and swap together; missing where the kernel does not count swap.
        if memory.join("memory.memsw.limit_in_bytes").exists() {
            set(memory, "memory.memsw.limit_in_bytes", bytes.to_string())?;
        }
    }
    if let (Some(cpu), Some(milli)) = (cpu, milli) {
        set(cpu, "cpu.cfs_period_us", "100000")?;
        set(cpu, "cpu.cfs_quota_us", quota(milli))?;
    }
    Ok(())
}

pub(super) fn v2_limits(
    group: &Path,
    bytes: Option<u64>,
    cpu: bool,
    milli: Option<u64>,
) -> std::io::Result<()> {
    if let Some(bytes) = bytes {
        set(group, "memory.max", bytes.to_string())?;
        if group.join("memory.swap.max").exists() {
            set(group, "memory.swap.max", "0")?;
        }
    }
    if let (true, Some(milli)) = (cpu, milli) {
        set(group, "cpu.max", format!("{} 100000", quota(milli)))?;
    }
    Ok(())
}
