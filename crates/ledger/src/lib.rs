//! The durable truth: queues, leases, fencing, events, budgets and blobs.
//!
//! Owns what Skep knows: every request, job, attempt and change with its state, the events of each
//! session, who holds what until when, what was spent, and bulk content. One verb is one
//! transaction: the change of state and its events, durable when the verb returns. It never
//! decides policy, never looks at a repository or a workspace, and never runs anything.
//!
//! Start with [`Ledger`] (the handle, with a method for each verb), [`Lease`] (the claim that
//! verbs on held work carry) and [`Error`] (why a verb did nothing).
//!
//! Inside, one thread writes (`writer`), one makes what it wrote durable and tells the callers
//! (`durable`), and two read (`reader`). States are written by `transition` alone, events by `event`.
//!
//! The engine is SQLite, and nothing of it is seen from outside: another engine follows behind the
//! same verbs.

mod account;
mod admission;
mod attempt;
mod backup;
mod blob;
mod budget;
mod cancel;
mod cassette;
mod chain;
mod change;
mod check;
mod claim;
mod counts;
mod dead;
mod durable;
mod error;
pub mod event;
pub mod find;
mod grant;
mod held;
mod history;
mod key;
mod kill;
mod known;
mod later;
mod lease;
mod ledger;
mod limit;
mod log;
mod opening;
pub mod options;
mod outbox;
mod owner;
mod park;
mod pause;
mod pending;
mod plan;
mod postpone;
mod progress;
mod queue;
mod read;
mod reader;
mod requeue;
mod resume;
mod retention;
mod schema;
mod session;
mod sql;
mod submit;
mod subscription;
mod top_up;
mod transition;
mod undelivered;
mod vfs;
mod wake;
mod why;
mod writer;

pub use admission::Admission;
pub use attempt::{MAX_ATTEMPTS, NewAttempt, Settled, Settlement};
pub use backup::{Backup, Progress as BackupProgress, Restoration, Restored};
pub use blob::{BlobReader, Collected, MAX_BYTES as MAX_BLOB, MAX_STREAM as MAX_BLOB_STREAM};
pub use budget::Spender;
pub use cassette::Exchange;
pub use change::ChangeOutcome;
pub use check::{Depth, Progress as CheckProgress, Violation};
pub use claim::{ClaimedChange, ClaimedJob, ClaimedRequest};
pub use dead::Dead;
pub use error::{Cause, Error, Fault};
pub use find::Found;
pub use held::held;
pub use history::{Position, Quantiles, Statistics};
pub use later::MOST_AHEAD;
pub use lease::{Lease, Subject};
pub use ledger::Ledger;
pub use limit::{Limit, Limited};
pub use options::{Clock, Ids, Options};
pub use outbox::{ClaimedNotification, MAX_SINKS, MAX_TRIES, Unreached};
pub use owner::Owner;
pub use postpone::{MAX_LOST_INTEGRATORS, MAX_POSTPONED};
pub use queue::{SHARE, Seek};
pub use resume::{MAX_LOST, OpenAttempt};
pub use retention::Pruned;
pub use schema::VERSION;
pub use session::Session;
pub use subscription::Subscription;
pub use undelivered::{Delivery, GivenUp, Undelivered};
pub use why::{Holder, JobWaits, RequestWaits, Unmet};
