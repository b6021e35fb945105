//! What the ledger promises, tried through its handle alone.

// As every other room calls it.
extern crate skep_ledger as ledger;

mod blobs;
mod budgets;
mod errors;
mod events;
mod leases;
mod lifecycle;
mod machines;
mod processes;
mod support;
