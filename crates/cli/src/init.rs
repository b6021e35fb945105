//! What `skep init` finds in a repository, and the `skep.toml` that it writes.

mod detect;
mod write;

pub(crate) use detect::{Found, detect};
pub(crate) use write::policy_text;
