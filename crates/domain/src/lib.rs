//! What Skep works with, as plain data and pure functions.
//!
//! Owns the ids, the entities and their state machines, budgets, scopes, events, plans and
//! policy. It never does I/O, never knows a database, and never reads a clock or a random
//! number: times and random bits are passed in.
//!
//! Start with [`machine::Machine`] (how a state may change), [`event::Body`] (what happened) and
//! [`policy::Policy`] (what a repository asks of its changes).

pub mod amount;
pub mod budget;
pub mod egress;
pub mod entity;
pub mod event;
pub mod failure;
pub mod id;
pub mod machine;
pub mod origin;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod scope;
pub mod state;
pub mod time;
pub mod trace;

pub use amount::{Amount, Micros};
pub use failure::{Class, Failure, Reason};
pub use id::{
    AttemptId, BlobId, ChangeId, EventId, GrantId, JobId, LeaseId, RepositoryId, RequestId,
    SandboxId, SessionId,
};
pub use state::{AttemptState, ChangeState, JobState, RequestState};
pub use time::Timestamp;
