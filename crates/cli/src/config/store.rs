//! What bases, workspaces and mirrors may take on disk together.

use super::shares::size;
use serde::Deserialize;
use server::StoreBounds;

/// The table `[store]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// The most that they take.
    #[serde(deserialize_with = "size")]
    max: Option<u64>,
    /// What must stay free on the disk.
    #[serde(deserialize_with = "size")]
    free: Option<u64>,
}

impl Store {
    /// The bounds.
    pub(crate) fn bounds(self) -> StoreBounds {
        StoreBounds {
            max: self.max,
            free: self.free,
        }
    }
}
