//! The roles wired together in one process, and what a face asks of them.
//!
//! [`Node`] opens the ledger, the sites and the gateway, and runs planner, workers and integrator for
//! as long as a request lasts. It holds no rules of the domain: those are in `domain`, and each role
//! applies its own. It never prints and never reads the environment: a face passes in what it found.
//!
//! - [`Options`] says where data is, what is installed and which providers there are.
//! - [`Node::submit`] and [`Node::work`] take a request from a prompt to its end.
//! - [`Node::reach`] makes a path or a URL a repository to work on, before anything is asked of it.
//! - [`standing`] has sealed workspaces for people and programs, without an agent.
//! - [`Node::apply`], [`Node::drop_work`] and [`Node::diff`] are what a person does with the outcome.

mod agents;
mod doctor;
mod error;
mod forge;
mod given;
mod inspect;
mod issue;
mod node;
mod notify;
mod reach;
mod room;
mod shares;
mod sink;
pub mod standing;
mod submit;
mod take;
mod work;

pub use doctor::{Finding, Health, doctor};
pub use error::Error;
pub use forge::{Forge, Forges};
pub use git::{ApplyMode, FileChange, Leftovers, StatusEntry};
pub use inspect::Diff;
pub use node::{Node, Options};
pub use reach::{Chosen, Tell};
pub use room::Room;
pub use shares::Shares;
pub use sink::{Format, Sink, Target};
pub use site::{
    Collect, Collection, DiskBounds, Fetched, Step, StoreBounds, Usage, collect, sweep,
};
pub use submit::{DEFAULT_MONEY, DEFAULT_TOKENS, New, Submitted};
pub use take::{Applied, Dropped};
pub use worker::Replayed;
pub use workspace::{BaseInfo, LayerInfo, Space, TrashInfo, WorkspaceInfo};
