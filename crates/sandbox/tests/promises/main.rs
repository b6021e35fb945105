//! What a sandbox promises, tried for real on this machine, as the user who runs the tests and (if
//! that is root) as an ordinary user too.
//!
//! A probe of the seal is first seen to succeed outside, so that its failure inside means something.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failed test says so by a panic"
)]

mod addresses;
mod ahead;
mod commands;
mod contained;
mod ends;
mod escapes;
mod extras;
mod host;
mod image;
mod layers;
mod limits;
mod nested;
mod network;
mod refusals;
mod room;
mod seal;
mod sidecars;
mod system_calls;
mod terminal;
mod unready;
mod users;
mod workspaces;
