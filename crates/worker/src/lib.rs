//! From a job to an attempt to a checked change.
//!
//! A worker claims a job, opens a site for it, lets an agent work there, extracts what changed,
//! asks the gate, gives the agent the findings for one more round, and settles the attempt. It
//! never merges. All that it knows is in the ledger and the workspace: when it dies, the next worker
//! goes on where it was, within the turn of the agent.
//!
//! - [`Worker`] claims and works: [`Worker::step`].
//! - [`replay`] runs an attempt again from its recording, without a model and without spending.

mod again;
mod attempt;
mod candidate;
mod events;
mod exec;
mod failure;
mod gate;
mod message;
mod model;
mod redact;
mod replay;
mod rounds;
mod story;
mod streamed;
mod task;
mod worker;

pub use replay::{Error as ReplayError, Replayed, replay};
pub use worker::{Agents, Error, Options, Ready, Worker};

/// How often an agent may work on one attempt: the first round, and one more with the findings of
/// the gate.
pub const ROUNDS: u32 = 2;
