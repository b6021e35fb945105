//! A request from a prompt to the integration branch, in one process.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic
)]

mod again;
mod ends;
mod lands;
mod limits;
mod world;
