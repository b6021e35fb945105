//! What a container leaves that is gone for its engine: control groups, which an engine that makes
//! them itself leaves where the container's watcher was killed, and what the runtime kept of it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where control groups are, of either version.
const TOP: &str = "/sys/fs/cgroup";
/// How the names of containers' groups begin, in a group that holds those of all. What that is called
/// depends on the engine, and on what it was asked for.
const PREFIXES: [&str; 2] = ["libpod-", ""];
/// How deep groups lie in that of a container.
const DEPTH: usize = 4;
/// Where runtimes keep a directory for each container, of which an engine knows no more when it was
/// killed at the wrong moment.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// Removes those of the container `id`, of which nothing runs any more. A group in which something
/// lives stays: the kernel sees to that.
pub(super) fn clear(id: &str) {
    if !is_id(id) {
        return;
    }
    let hierarchies = std::iter::once(TOP.into()).chain(below(Path::new(TOP)));
    for parent in hierarchies.flat_map(|hierarchy: PathBuf| below(&hierarchy)) {
        for prefix in PREFIXES {
            let group = parent.join(format!("{prefix}{id}"));
            if group.is_dir() {
                remove(&group, DEPTH);
            }
        }
    }
    let place = match rustix::process::geteuid().is_root() {
        true => Some("/run".into()),
        false => std::env::var_os("XDG_RUNTIME_DIR"),
    };
    let Some(place) = place.map(PathBuf::from) else {
        return;
    };
    for runtime in RUNTIMES {
        gone(fs::remove_dir_all(place.join(runtime).join(id)), id);
    }
}

/// Whether engines give such ids.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The groups in a group, or the hierarchies of version 1.
fn below(group: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(group).into_iter().flatten().flatten();
    let groups = listed.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

fn remove(group: &Path, depth: usize) {
    if depth > 0 {
        for inner in below(group) {
            remove(&inner, depth - 1);
        }
    }
    gone(fs::remove_dir(group), &group.to_string_lossy());
}

fn gone(removed: std::io::Result<()>, what: &str) {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::debug!(%error, what, "a trace of a container stays");
        }
        _ => {}
    }
}
