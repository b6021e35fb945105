//! The kernel's rules on paths (Landlock): what may be written, and where.
//!
//! Mounts are the first wall; these rules are a second one that holds even if a mount were left
//! writable by mistake. They go on directories that stay when a mount on them changes.

use std::path::Path;

use super::plan::Plan;
use crate::{AGENT_HOME, Spec, WORKSPACE_PARENT};

/// Rights on paths, as `include/uapi/linux/landlock.h` numbers them.
mod right {
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    /// `REMOVE_DIR` to `MAKE_SYM`, without `MAKE_CHAR` and `MAKE_BLOCK`, which nobody is given.
    pub(super) const CHANGE_DIRECTORY: u64 = 0b1_0111_1011_0000;
    pub(super) const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;
    pub(super) const REFER: u64 = 1 << 13;
    pub(super) const TRUNCATE: u64 = 1 << 14;
}

/// Scopes: abstract unix sockets, signals.
const SCOPES: u64 = 1 | 2;

/// The version of the kernel's interface, if it is there and enabled.
pub(super) fn abi() -> Option<u32> {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag and no attributes the call returns a number and reads nothing.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Adds the rules to the plan, as far as version `abi` knows them.
pub(super) fn rules(plan: &mut Plan, spec: &Spec, abi: u32) {
    let refer = if abi >= 2 { right::REFER } else { 0 };
    let truncate = if abi >= 3 { right::TRUNCATE } else { 0 };
    let inside = right::WRITE_FILE | right::CHANGE_DIRECTORY | refer | truncate;
    let handled = inside | right::MAKE_DEVICES;
    let scoped = if abi >= 6 { SCOPES } else { 0 };
    if spec.extras.nested {
        // The kernel lets nobody mount anything who has rules on paths: the mounts alone hold.
        if scoped != 0 {
            plan.landlock(0, scoped, 24, &[]);
        }
        return;
    }
    // The attribute structure grew: rights on paths; on networks (4); scopes (6).
    let attribute_bytes = match abi {
        ..=3 => 8,
        4..=5 => 16,
        _ => 24,
    };
    let mut rules = vec![
        (Path::new(WORKSPACE_PARENT), inside),
        (Path::new(AGENT_HOME), inside),
        (Path::new("/tmp"), inside),
        (Path::new("/dev/shm"), inside),
        (Path::new("/dev"), right::WRITE_FILE | truncate),
    ];
    let writable = spec.mounts.iter().filter(|mount| mount.writable);
    // A mounted file takes only the rights of files.
    rules.extend(writable.map(|mount| match mount.source.is_dir() {
        true => (mount.target.as_path(), inside),
        false => (mount.target.as_path(), right::WRITE_FILE | truncate),
    }));
    plan.landlock(handled, scoped, attribute_bytes, &rules);
}
