//! Agents: the programs that do the work, behind one trait and one stream of events.
//!
//! This crate owns the profiles of agents as data, the built-in agent's loop, and the adapters
//! that run other agents in a sandbox and read what they print. It never knows a job or the
//! ledger, never makes a sandbox, never opens a connection, and never touches an agent's files
//! from the trusted side: what it needs of those worlds it asks for through three small traits,
//! which a role above implements: [`exec::Exec`], [`model::Model`] and [`event::Observer`].
//!
//! The three main types are [`Agent`] (what can be started), [`Session`] (one conversation, of
//! one or more turns) and [`event::AgentEvent`] (what happened, whatever the agent).

mod agent;
pub mod builtin;
pub mod claude;
pub mod command;
pub mod event;
pub mod exec;
pub mod find;
mod guard;
#[doc(hidden)]
#[cfg(feature = "fuzzing")]
pub mod hostile;
mod lines;
pub mod model;
pub mod profile;
mod turn;

pub use agent::{
    Agent, Before, CheckNote, Context, Error, Gateway, Input, Limits, Outcome, Recovery, Session,
    Stopped, Task, ToolOutput, ToolResults,
};
