//! What users are promised of egress, tried with real clients against servers on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod events;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod inspected;
#[cfg(test)]
mod origin;
#[cfg(test)]
mod packages;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod tunnels;
#[cfg(test)]
mod websockets;
