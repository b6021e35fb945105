//! Sealed processes: create, exec, diagnose, destroy.
//!
//! This crate owns the place where an agent's commands run: what they see of the machine, what
//! they may do, how much they may use, and that nothing of them is left when their owner is gone.
//! It never knows what an agent is, holds no credential but what a person puts into their own sandbox
//! ([`Extras`]), and never gives a sandbox a network:
//! the one way out is a listener that is *handed out of* the sandbox to its owner.
//!
//! The three main types are [`Backend`] (a kind of sandbox that can create one), [`Sandbox`]
//! (a place in which commands run), and [`Process`] (one running command). [`Spec`] says what a
//! sandbox holds.

pub mod archive;
mod backend;
mod blocking;
mod calls;
mod capture;
pub mod carry;
mod command;
mod connection;
pub mod container;
pub mod devices;
mod end;
mod error;
pub mod extras;
mod hidden;
pub mod host;
#[cfg(feature = "fuzzing")]
pub mod hostile;
mod inherit;
pub mod namespace;
mod owner;
mod process;
mod spec;
mod stats;
mod stdio;
mod terminal;
pub mod toolchains;
mod trouble;

pub use backend::{
    Abilities, Backend, Beside, Channel, Diagnosis, Enforcement, Finding, Health, Kind, OVERLAY,
    Sandbox, Strike,
};
pub use calls::Call;
pub use capture::{Captured, Output, exec_captured, keep};
pub use carry::{Carry, Task, copy_in, copy_out};
pub use command::{Command, Exit, Limit, Stdin};
pub use connection::{Connection, MOST_CONNECTIONS};
pub use container::Container;
pub use end::End;
pub use error::{Error, Unready};
pub use extras::{Extras, Secret};
pub use host::Host;
pub use inherit::pass_nothing_on;
pub use namespace::Namespace;
pub use process::Process;
pub use spec::{AGENT_HOME, Limits, Mount, Spec, Tmp, Total, WORKSPACE_PARENT, Workspace};
pub use stats::Stats;
pub use terminal::{Size, Terminal};
pub use trouble::{Last, Trouble};
