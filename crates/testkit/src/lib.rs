//! Support for tests, used from `tests/` only: it never ships.
//!
//! It owns what tests of several crates need to be real: git repositories, a model that answers
//! by a script over real HTTP, a server of repositories, and a user's home in which to run the binary. It never knows a
//! type of the code under test: formats are written here a second time, so that a mistake in one
//! is seen by the other.
//!
//! The main types are [`Repo`] (with [`Snapshot`]), [`models::Scripted`] and [`Home`] (with
//! [`leaks`]).
//!
//! Everything here stops the test when the test cannot be set up: a panic says what was missing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod docker;
mod generate;
pub mod home;
mod image;
pub mod leaks;
pub mod models;
mod podman;
mod repo;
mod snapshot;
mod started;
pub mod web;

pub use docker::Docker;
pub use home::Home;
pub use image::Image;
pub use podman::Podman;
pub use repo::Repo;
pub use snapshot::{Difference, Options, Snapshot};
pub use started::{Ran, Started};
pub use web::Web;
