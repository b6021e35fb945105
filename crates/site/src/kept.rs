//! Workspaces of sandboxes that stay although nothing runs in them: no sweep takes them.

use std::path::{Path, PathBuf};

/// The file in such a sandbox's directory that says what it is. As long as it is there, its workspace
/// stays.
pub const KEPT_RECORD: &str = "record.json";

/// Where these sandboxes have their directories, each under its id, in a directory of sites.
#[must_use]
pub fn kept_in(directory: &Path) -> PathBuf {
    directory.join("run").join("sandboxes")
}

/// Whether the workspace is one of these.
pub(crate) fn is_kept(directory: &Path, id: &str) -> bool {
    let record = kept_in(directory).join(id).join(KEPT_RECORD);
    // What cannot be looked at is nothing to take away.
    record.try_exists().unwrap_or(true)
}
