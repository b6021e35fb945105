//! The protocols that models speak, as pure parsers, meters and translators.
//!
//! This crate owns what a request asks for ([`Request`]), what a response used and how it
//! ended ([`Meter`]), the conversation of the built-in agent in each dialect
//! ([`Conversation`], [`Decoder`]), and what tokens cost ([`Prices`]). It never does I/O, reads
//! no clock, and changes no byte that passes through it, except where a function says so.
//!
//! Everything that it reads is hostile: sizes and depths are bounded, and a response that is
//! nonsense is metered as "unknown", never as zero and never as an error that would stop the
//! stream.
//!
//! The three main types are [`Dialect`], [`Meter`] and [`Conversation`].

mod assembly;
mod conversation;
mod decoder;
mod endpoint;
mod fault;
mod frames;
mod http_date;
mod meter;
mod prices;
mod request;
mod sse;
mod tally;
mod usage;
mod wire_chat;
mod wire_messages;

pub use conversation::{
    Arguments, Block, Conversation, RequestOptions, Tool, ToolCall, ToolResult, Turn,
};
pub use decoder::{Decoder, Delta, Reply};
pub use endpoint::{Dialect, Endpoint};
pub use fault::{Fault, FaultClass, retry_after};
pub use meter::{End, Meter, Report, StopReason};
pub use prices::{LongContext, Micros, Price, Prices};
pub use request::{Error as RequestError, MAX_REQUEST_BYTES, Request, TOKENS_PER_IMAGE};
pub use usage::Usage;
