//! What the person has set: flags over the environment, over the configuration file, over what
//! Skep takes by itself.

pub(crate) mod budget;
pub(crate) mod egress;
pub(crate) mod file;
pub(crate) mod forges;
pub(crate) mod limits;
pub(crate) mod notify;
pub(crate) mod place;
pub(crate) mod presets;
pub(crate) mod providers;
pub(crate) mod shares;
mod sidecars;
pub(crate) mod store;

pub(crate) use budget::Budget;
pub(crate) use file::{Error, File};
pub(crate) use place::Environment;

/// The agent that needs nothing installed.
pub(crate) const DEFAULT_AGENT: &str = "builtin";
/// How many jobs run at once where nothing says so.
pub(crate) const DEFAULT_PARALLEL: u32 = 3;
/// The most jobs that may run at once.
pub(crate) const MAX_PARALLEL: u32 = 64;
