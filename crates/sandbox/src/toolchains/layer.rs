//! Which caches of a tool are of use without a private layer on top.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::name_of;

/// The most crates that are compared; beyond, cargo unpacks what it needs.
const MAX_CRATES: usize = 8192;

/// Whether a tool that expects to write into a cache works when it cannot.
pub(super) fn works_read_only(cache: &Path) -> bool {
    match name_of(cache).to_str() {
        // Cargo fails when it has to unpack a crate here: only if all are unpacked.
        Some("src") => cache
            .parent()
            .is_some_and(|registry| all_unpacked(&registry.join("cache"), cache)),
        // A checkout of a commit, a module, an artifact, a distribution: read if there.
        Some("checkouts" | "mod" | "repository" | "dists" | "corepack") => true,
        // npm, uv, Bun and Deno write into their caches at every use.
        _ => false,
    }
}

/// Whether every crate file of every registry has its unpacked directory.
fn all_unpacked(cache: &Path, src: &Path) -> bool {
    let Ok(registries) = fs::read_dir(cache) else {
        return false;
    };
    let mut count = 0;
    for registry in registries.filter_map(Result::ok) {
        let Ok(unpacked) = fs::read_dir(src.join(registry.file_name())) else {
            return false;
        };
        let unpacked: HashSet<_> = unpacked
            .filter_map(Result::ok)
            .take(MAX_CRATES)
            .map(|it| it.file_name())
            .collect();
        let Ok(crates) = fs::read_dir(registry.path()) else {
            return false;
        };
        for file in crates.filter_map(Result::ok) {
            count += 1;
            let name = file.file_name();
            let stem = Path::new(&name).file_stem().unwrap_or_default();
            if count > MAX_CRATES || !unpacked.contains(stem) {
                return false;
            }
        }
    }
    true
}
