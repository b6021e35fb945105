//! The files of attempts: bases that many share, workspaces as layers over them, and what changed in
//! a workspace as a stream of entries.
//!
//! This crate owns one directory on disk: its `bases/`, among which lies what setups left, its
//! `workspaces/`, the `layers/` that several workspaces share, and its `trash/`. It never
//! knows git's object format, never runs or parses anything that it finds, never follows a link, and
//! never mounts: whoever runs the agent mounts the [`Layers`] that a workspace names. What an agent
//! wrote is read only through directory descriptors that are held, one name at a time.
//!
//! The three main types:
//!
//! - [`Store`] opens the directory, builds and evicts bases, creates, finds and sweeps workspaces.
//! - [`Workspace`] is the files of one attempt: [`Workspace::layers`], [`Workspace::changes`],
//!   [`Workspace::delete`]. It may hold further repositories, each over a base of its own.
//! - [`Change`] is one entry of what changed; a [`Summary`] says what was refused and why.

mod apart;
mod base;
mod change;
mod copy;
mod descent;
mod differs;
mod dir;
mod edit;
mod elsewhere;
mod error;
mod fold;
#[doc(hidden)]
#[cfg(feature = "fuzzing")]
pub mod hostile;
mod lock;
mod manifest;
mod meter;
mod names;
mod overlay;
mod record;
mod remove;
mod setup;
mod space;
mod store;
mod tree;
mod turns;
mod union;
mod usage;
mod workspace;

pub use apart::make_apart;
pub use base::{Base, BaseInfo, MAX_LAYERS};
pub use change::{Change, GitDir, Limits, Refused, Summary, Visitor, Why};
pub use edit::Edit;
pub use elsewhere::{Fetch, Fetched, Listing, Seen, changes_elsewhere};
pub use error::{Error, Limit};
pub use fold::{Built, Fold};
pub use meter::Meter;
pub use record::{MOST_ALSO, this_boot};
pub use remove::Emptied;
pub use setup::{Claim, Moment, SetupBuilder, SetupLayer, Tracked};
pub use space::{LayerInfo, Space, TrashInfo, WorkspaceInfo};
pub use store::{Layering, Store, Swept};
pub use turns::Before;
pub use usage::{Taken, disk_bytes};
pub use workspace::{Layers, Workspace};
