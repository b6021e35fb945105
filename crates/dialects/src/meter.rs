//! Metering a response while it passes.

use serde::{Deserialize, Serialize};

use crate::endpoint::Dialect;
use crate::fault::Fault;
use crate::frames::Framer;
use crate::tally::{self, Tally};
use crate::usage::Usage;

/// How much of an error's body is kept when it is no JSON.
const HEAD_BYTES: usize = 1024;

/// Why a model stopped writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It had said everything.
    EndTurn,
    /// It waits for the results of tools.
    ToolUse,
    /// It reached the limit of its output.
    MaxTokens,
    /// It came upon a sequence that it was told to stop at.
    StopSequence,
    /// It, or a filter, refused.
    Refusal,
    /// The provider paused a long turn; the same conversation continues it.
    Pause,
    /// The conversation filled its context.
    ContextFull,
    /// Another reason, in the provider's word.
    Other(String),
}

impl StopReason {
    /// From a Chat Completions `finish_reason`.
    pub(crate) fn from_chat(reason: &str) -> Self {
        match reason {
            "stop" => Self::EndTurn,
            "tool_calls" | "function_call" => Self::ToolUse,
            "length" => Self::MaxTokens,
            "content_filter" => Self::Refusal,
            other => Self::other(other),
        }
    }

    /// From a Messages `stop_reason`.
    pub(crate) fn from_messages(reason: &str) -> Self {
        match reason {
            "end_turn" => Self::EndTurn,
            "tool_use" => Self::ToolUse,
            "max_tokens" => Self::MaxTokens,
            "stop_sequence" => Self::StopSequence,
            "refusal" => Self::Refusal,
            "pause_turn" => Self::Pause,
            "model_context_window_exceeded" => Self::ContextFull,
            other => Self::other(other),
        }
    }

    fn other(reason: &str) -> Self {
        Self::Other(
            reason
                .chars()
                .filter(|c| !c.is_control())
                .take(60)
                .collect(),
        )
    }
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With the terminator of its dialect, or as one whole JSON value.
    Complete,
    /// The model had stopped, but the terminator is missing. Some servers never send one.
    Unterminated,
    /// In the middle.
    Cut,
    /// With an error of the provider.
    Failed,
}

/// What a meter saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The tokens, as far as they were told.
    pub usage: Usage,
    /// Why the model stopped, if it told.
    pub stop: Option<StopReason>,
    /// The provider's error, if there was one.
    pub fault: Option<Fault>,
    /// How the response ended.
    pub end: End,
    /// The model that answered, in the provider's word, which can be more exact than what was
    /// asked for.
    pub model: Option<String>,
    /// The provider's id of the response.
    pub id: Option<String>,
    /// Events that were too large to be read; they passed unmetered.
    pub dropped: u64,
    /// Events that were no JSON; they passed unmetered.
    pub garbage: u64,
    /// Bytes that passed.
    pub bytes: u64,
}

/// Reads a response while it streams past, to know what it used and how it ended.
///
/// It takes the decoded body (without a content encoding), in any chunks, streamed or not. It
/// never fails, holds a bounded amount of memory, and tells of anything that it could not read.
///
/// ```
/// use skep_dialects::{Dialect, End, Meter};
/// let mut meter = Meter::new(Dialect::ChatCompletions, 200);
/// meter.feed(b"data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n");
/// meter.feed(b"data: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n");
/// let report = meter.finish();
/// assert_eq!(report.usage.output, Some(4));
/// assert_eq!(report.end, End::Complete);
/// ```
#[derive(Debug)]
pub struct Meter {
    framer: Framer,
    tally: Tally,
    status: u16,
    head: Vec<u8>,
    bytes: u64,
}

impl Meter {
    /// A meter for a response in `dialect` with this HTTP status.
    #[must_use]
    pub fn new(dialect: Dialect, status: u16) -> Self {
        Self {
            framer: Framer::new(match dialect {
                Dialect::ChatCompletions => tally::chat_says_nothing,
                Dialect::Messages => tally::messages_says_nothing,
            }),
            tally: Tally::new(dialect, status),
            status,
            head: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        if self.status >= 400 {
            let room = HEAD_BYTES.saturating_sub(self.head.len());
            self.head.extend(chunk.iter().take(room));
        }
        let Self { framer, tally, .. } = self;
        framer.feed(chunk, &mut |frame| tally.see(&frame));
    }

    /// What is known so far. The output stays unknown until the model has stopped.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.tally.usage()
    }

    /// The body is over, or the connection is gone.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let Self { framer, tally, .. } = &mut self;
        let dropped = framer.finish(&mut |frame| tally.see(&frame));
        if self.tally.fault.is_none() {
            self.tally.fault = Fault::from_bytes(self.status, &self.head);
        }
        Report {
            usage: self.tally.usage(),
            end: self.tally.end(),
            stop: self.tally.stop,
            fault: self.tally.fault,
            model: self.tally.model,
            id: self.tally.id,
            dropped,
            garbage: self.tally.garbage,
            bytes: self.bytes,
        }
    }
}
