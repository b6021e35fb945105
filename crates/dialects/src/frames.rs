//! A response body as a series of JSON values, streamed or not.

use serde_json::Value;

use crate::sse::Sse;

/// Largest event of a stream that is read, in bytes. A whole file can be in one.
const EVENT_LIMIT: usize = 4 << 20;

/// Largest body that is read when it is one JSON value.
const BODY_LIMIT: usize = 16 << 20;

/// One piece of a response.
#[derive(Debug)]
pub(crate) enum Frame {
    /// An event of a stream that is not skipped.
    Event(Value),
    /// The whole body, which is no stream.
    Body(Value),
    /// The terminator of Chat Completions.
    Done,
    /// Data that is no JSON.
    Garbage,
}

/// Cuts a response into [`Frame`]s, whatever the chunks it comes in. Whether it is a stream is
/// seen from its first byte, since servers send errors without one and content types lie.
#[derive(Debug)]
pub(crate) struct Framer {
    shape: Shape,
    /// Events of which this is true are not parsed and give no frame, but for the first.
    skip: fn(&[u8]) -> bool,
    any: bool,
}

#[derive(Debug)]
enum Shape {
    Unknown,
    Stream(Sse),
    Body { bytes: Vec<u8>, too_large: bool },
}

impl Framer {
    pub(crate) fn new(skip: fn(&[u8]) -> bool) -> Self {
        Self {
            shape: Shape::Unknown,
            skip,
            any: false,
        }
    }

    pub(crate) fn feed(&mut self, chunk: &[u8], sink: &mut dyn FnMut(Frame)) {
        let mut chunk = chunk;
        if matches!(self.shape, Shape::Unknown) {
            let Some(first) = chunk.iter().position(|b| !b.is_ascii_whitespace()) else {
                return;
            };
            chunk = chunk.get(first..).unwrap_or_default();
            self.shape = match chunk.first() {
                Some(b'{' | b'[') => Shape::Body {
                    bytes: Vec::new(),
                    too_large: false,
                },
                _ => Shape::Stream(Sse::new(EVENT_LIMIT)),
            };
        }
        let Self { skip, any, .. } = self;
        match &mut self.shape {
            Shape::Unknown => {}
            Shape::Stream(sse) => sse.feed(chunk, &mut |data| {
                if !(*any && skip(data)) {
                    *any = true;
                    sink(event(data));
                }
            }),
            Shape::Body { bytes, too_large } => {
                if *too_large || bytes.len() + chunk.len() > BODY_LIMIT {
                    *too_large = true;
                    *bytes = Vec::new();
                } else {
                    bytes.extend_from_slice(chunk);
                }
            }
        }
    }

    /// The response is over. Returns how many pieces were dropped because they were too large.
    pub(crate) fn finish(&mut self, sink: &mut dyn FnMut(Frame)) -> u64 {
        match &mut self.shape {
            Shape::Unknown => 0,
            Shape::Stream(sse) => {
                sse.finish(&mut |data| sink(event(data)));
                sse.dropped()
            }
            Shape::Body {
                too_large: true, ..
            } => 1,
            Shape::Body { bytes, .. } => {
                sink(serde_json::from_slice(bytes).map_or(Frame::Garbage, Frame::Body));
                *bytes = Vec::new();
                0
            }
        }
    }
}

fn event(data: &[u8]) -> Frame {
    if data.trim_ascii() == b"[DONE]" {
        return Frame::Done;
    }
    serde_json::from_slice(data).map_or(Frame::Garbage, Frame::Event)
}
