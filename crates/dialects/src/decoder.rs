//! Reading what a model says while it says it.

use crate::assembly::{Assembly, Limits};
use crate::conversation::{Block, ToolCall};
use crate::endpoint::Dialect;
use crate::fault::Fault;
use crate::frames::Framer;
use crate::meter::{End, StopReason};
use crate::tally::Tally;
use crate::usage::Usage;

/// A piece of a reply, as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// More words of the answer.
    Text(String),
    /// More words of the reasoning.
    Reasoning(String),
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// What the model said, in order.
    pub blocks: Vec<Block>,
    /// Why it stopped, if it told.
    pub stop: Option<StopReason>,
    /// What it used, as far as it told.
    pub usage: Usage,
    /// The provider's error, if there was one.
    pub fault: Option<Fault>,
    /// How the response ended.
    pub end: End,
    /// Pieces that were dropped because they exceeded a limit; the reply lacks them.
    pub dropped: u64,
}

impl Reply {
    /// All words of the answer.
    #[must_use]
    pub fn text(&self) -> String {
        self.blocks
            .iter()
            .filter_map(|block| match block {
                Block::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The calls of tools, in order.
    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Call(call) => Some(call),
            _ => None,
        })
    }
}

/// Reads a response into a [`Reply`], in any chunks, streamed or not. Never fails: what cannot
/// be read is counted, and a call whose arguments make no sense is kept as it is.
#[derive(Debug)]
pub struct Decoder {
    framer: Framer,
    tally: Tally,
    assembly: Assembly,
    status: u16,
}

impl Decoder {
    /// A decoder for a response in `dialect` with this HTTP status.
    #[must_use]
    pub fn new(dialect: Dialect, status: u16) -> Self {
        Self {
            framer: Framer::new(|_| false),
            tally: Tally::new(dialect, status),
            assembly: Assembly::new(dialect, Limits::default()),
            status,
        }
    }

    /// Takes the next bytes, and returns the words that they bring.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let Self {
            framer,
            tally,
            assembly,
            ..
        } = self;
        framer.feed(chunk, &mut |frame| {
            tally.see(&frame);
            assembly.see(&frame, &mut deltas);
        });
        deltas
    }

    /// The response is over, or the connection is gone. The deltas are the last ones: all of
    /// them, when the response was no stream.
    #[must_use]
    pub fn finish(mut self) -> (Reply, Vec<Delta>) {
        let mut deltas = Vec::new();
        let Self {
            framer,
            tally,
            assembly,
            ..
        } = &mut self;
        let dropped = framer.finish(&mut |frame| {
            tally.see(&frame);
            assembly.see(&frame, &mut deltas);
        });
        if self.tally.fault.is_none() {
            self.tally.fault = Fault::from_bytes(self.status, b"");
        }
        let usage = self.tally.usage();
        let end = self.tally.end();
        let (blocks, lost) = self.assembly.finish();
        let reply = Reply {
            blocks,
            stop: self.tally.stop,
            usage,
            fault: self.tally.fault,
            end,
            dropped: dropped + lost,
        };
        (reply, deltas)
    }
}
