//! Where work happens: a commit made into a workspace with its sandbox, and what changed in it made
//! into a tree.
//!
//! This is the one place where git, workspace and sandbox meet. Agents and checks get their files
//! from here, so that the gate sees what the agent saw. It never decides whether a change is good,
//! and it runs nothing itself but the policy's setup command, once for all sites that it serves.
//!
//! - [`Sites`] opens sites: it shares bases, finds the host's toolchains once, and deletes in the
//!   background.
//! - [`Wanted`] says what a site should hold.
//! - [`Site`] is one: [`Site::run`], [`Site::extract`], [`Site::close`]; between turns
//!   [`Site::snapshot`], [`Site::undo`], [`Site::fork`]. It is of one repository, and may write further
//!   ones ([`Also`]) and show others ([`Beside`]).

mod again;
mod also;
mod beside;
mod disk;
mod dotfiles;
mod elsewhere;
mod error;
mod extract;
mod fill;
mod flights;
mod gc;
mod host;
#[doc(hidden)]
#[cfg(feature = "fuzzing")]
pub mod hostile;
mod ignored;
mod include;
mod java;
mod kept;
mod key;
mod make;
mod near;
mod open;
mod pool;
mod setup;
mod site;
mod stock;
mod turns;
mod wanted;
mod way;

pub use also::Also;
pub use beside::{Beside, SHOWN_IN};
pub use disk::{DiskBounds, Full};
pub use dotfiles::{Dotfiles, Installed};
pub use error::Error;
pub use extract::{Extracted, MAX_REPORTED, Part};
pub use gc::{Collect, Collection, FETCHED, Fetched, Step, StoreBounds, Usage, collect, packages};
pub use host::{Environment, Host, of_image, unsealed};
pub use include::{Included, MAX_INCLUDED_BYTES, MAX_INCLUDED_FILES, included, load};
pub use kept::{KEPT_RECORD, kept_in};
pub use open::{Options, Sites, sweep};
pub use pool::Warm;
pub use setup::SetUp;
pub use site::{Ran, Site, environment};
pub use stock::Stocked;
pub use turns::Parting;
pub use wanted::Wanted;
pub use way::environment_of;
