//! The control groups of a container that is gone. An engine that makes them itself leaves them where
//! whoever watched over the container was killed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where control groups are, of either version.
const TOP: &str = "/sys/fs/cgroup";
/// Below each hierarchy, what engines call the group of all their containers, and how the name of one
/// begins.
const PLACES: [(&str, &str); 2] = [("libpod_parent", "libpod-"), ("docker", "")];
/// How deep groups lie in that of a container.
const DEPTH: usize = 4;

/// Removes those of the container `id`. One in which something lives stays: the kernel sees to that.
pub(super) fn clear(id: &str) {
    for hierarchy in hierarchies() {
        for (parent, prefix) in PLACES {
            let group = hierarchy.join(parent).join(format!("{prefix}{id}"));
            if group.is_dir() {
                remove(&group, DEPTH);
            }
        }
    }
}

/// The one of version 2, and those of version 1.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let below = fs::read_dir(TOP).into_iter().flatten().flatten();
    let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    std::iter::once(TOP.into()).chain(below.map(|entry| entry.path()))
}

fn remove(group: &Path, depth: usize) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path(), depth - 1);
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::debug!(%error, path = %group.display(), "the group of a container stays");
        }
        _ => {}
    }
}
