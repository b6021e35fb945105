//! What the ledger promises, tried through its handle alone.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what goes wrong in a test or its support ends the test"
)]

// As every other room calls it.
extern crate skep_ledger as ledger;

mod ageing;
mod backups;
mod blobs;
mod budgets;
mod chain;
mod clock;
mod dead;
mod disk;
mod errors;
mod events;
mod garbage;
mod later;
mod leases;
mod lifecycle;
mod machines;
mod opening;
mod outbox;
mod pauses;
mod postponed;
mod processes;
mod queues;
mod retention;
mod sessions;
mod statistics;
mod support;
mod versions;
