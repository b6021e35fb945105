//! For the fuzzing of this crate's parsers, and for nothing else: what they made of some bytes.

use crate::claude::read_all;
use crate::event::AgentEvent;
use crate::lines::Lines;

/// The lines of chunks, each of at most so many bytes, with how many more it had.
#[must_use]
pub fn lines(chunks: &[&[u8]], limit: usize) -> Vec<(Vec<u8>, u64)> {
    let mut lines = Lines::new(limit);
    let mut all: Vec<_> = chunks.iter().flat_map(|chunk| lines.feed(chunk)).collect();
    all.extend(lines.finish());
    all.into_iter()
        .map(|line| (line.bytes, line.omitted))
        .collect()
}

/// The events of what Claude Code printed, line for line.
#[must_use]
pub fn claude(printed: &[u8]) -> Vec<AgentEvent> {
    read_all(printed)
}
