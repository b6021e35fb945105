//! What a user is promised of the toolchains seen inside a sandbox, on homes made for the test.
#![allow(clippy::unwrap_used)]

mod bounds;
mod host;
mod installers;
mod versions;
