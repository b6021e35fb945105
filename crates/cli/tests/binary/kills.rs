//! Processes that are killed at every step that a machine allows, and at random: the next one goes
//! on, and the request ends as it would have.
//!
//! The steps come from the machines. Each is in the table, with how it is reached, or among those
//! that nothing takes yet, with the reason.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails shows which kill it was, and how to repeat it"
)]

mod calls;
mod loss;
mod outcome;
mod person;
mod random;
pub mod row;
mod scenario;
pub mod story;
mod table;
