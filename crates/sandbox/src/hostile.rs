//! For the fuzzing of this crate's parsers, and for nothing else: what they made of some bytes.
//!
//! The inside's first process is a program of its own. What it reads is read here by the same files, so
//! that both sides of what is written can be compared.

mod packets;
mod plans;

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "the inside's own files"
)]
#[path = "../init/payload.rs"]
mod payload;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "the inside's own files"
)]
#[path = "../init/plan.rs"]
mod plan_inside;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "the inside's own files"
)]
#[path = "../init/status.rs"]
mod status;

pub use packets::{Conversation, Packet, converse};
pub use plans::{Said, layers, plan, written};

use crate::archive::read;
use crate::namespace::{link, wire};
use crate::{Call, Command};

pub use wire::{CALL_REFUSED, CONNECTED, EXITED, MOST_TOLD, REFUSED, STARTED, WORDS};

/// What process 1 reads of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The working directory.
    pub directory: Vec<u8>,
    /// The words and then the variables.
    pub strings: Vec<Vec<u8>>,
    /// How many of them are words.
    pub words: usize,
    /// The paths to try as the program.
    pub candidates: Vec<Vec<u8>>,
}

/// A command, as process 1 reads the bytes of one; none where it refuses them.
#[must_use]
pub fn command(bytes: &[u8]) -> Option<Read> {
    let payload = payload::Payload::read(bytes).ok()?;
    Some(Read {
        directory: payload.directory().bytes().to_vec(),
        strings: payload.strings().map(|it| it.bytes().to_vec()).collect(),
        words: payload.words,
        candidates: payload.candidates().map(|it| it.bytes().to_vec()).collect(),
    })
}

/// The bytes of a command, as its owner writes them; none where it refuses the command.
#[must_use]
pub fn command_bytes(command: &Command) -> Option<Vec<u8>> {
    let program = command.argv.first()?;
    link::payload(command, program).ok()
}

/// A call that process 1 says was refused.
#[must_use]
pub fn call(number: u32, arguments: [u32; 2]) -> Call {
    Call::new(number, arguments)
}

/// The parent that process 1 reads in `/proc/PID/stat`.
#[must_use]
pub fn living_parent(stat: &[u8]) -> Option<i32> {
    status::living_parent(stat)
}

/// The sum of the numbers that process 1 reads in `/proc/PID/status` on the lines that begin with a key.
#[must_use]
pub fn sum(status: &[u8], keys: &[&[u8]]) -> u64 {
    status::sum(status, keys)
}
