//! A model that answers by a script, over real HTTP on loopback.
//!
//! [`Scripted`] speaks Chat Completions and Messages, streamed and plain, records every request
//! and can misbehave. Which [`Job`] of the script answers is decided by the text of the
//! conversation, and which of its [`Step`]s by how many answers the conversation holds already,
//! so that several jobs, in any order and repeated, are served at once.

mod chat;
mod messages;
mod respond;
mod script;
mod server;

pub use script::{Call, Fault, Hold, Job, Script, Step, Usage};
pub use server::{Dialect, Recorded, Scripted};
