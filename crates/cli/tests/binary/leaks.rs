//! Processes of every kind that Skep starts are killed at random while agents work and sandboxes
//! stand: nothing of it is left on the machine.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails shows which round it was, and how to repeat it"
)]

mod disk;
mod family;
mod round;
mod strike;
