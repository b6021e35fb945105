//! What this crate promises, tried on real repositories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // A failure is the message.

mod apply;
mod checkout;
mod fetch;
mod integration;
mod layer;
mod merge;
mod publish;
mod remote;
mod repo;
mod source;
mod tree;
