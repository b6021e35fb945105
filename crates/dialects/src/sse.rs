//! Server-sent events, one chunk of bytes at a time.
//!
//! The format is the WHATWG's: lines end with LF, CR or CRLF; `data` lines of one event are
//! joined with LF; lines that begin with a colon are comments; an empty line ends an event.
//! Two liberties: names and ids of events are not kept (the dialects repeat them in the data),
//! and data that the stream's end cuts off is still handed out, because the last `[DONE]`
//! often lacks its empty line.

/// Splits a stream into the data of its events.
#[derive(Debug)]
pub(crate) struct Sse {
    limit: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The event grew over the limit: it is dropped when it ends.
    too_large: bool,
    /// The last byte was CR: an LF now belongs to it.
    after_cr: bool,
    dropped: u64,
}

impl Sse {
    /// A splitter that drops every event whose lines or data exceed `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            too_large: false,
            after_cr: false,
            dropped: 0,
        }
    }

    /// Events that were dropped because they were too large.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes the next bytes; `sink` gets the data of every event that they complete.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], sink: &mut dyn FnMut(&[u8])) {
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
        }
        while let Some(at) = chunk.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (head, tail) = chunk.split_at(at);
            self.push(head);
            self.end_line(sink);
            let (end, rest) = tail.split_at(1);
            chunk = rest;
            if end == b"\r" {
                match chunk.strip_prefix(b"\n") {
                    Some(rest) => chunk = rest,
                    None => self.after_cr = chunk.is_empty(),
                }
            }
        }
        self.push(chunk);
    }

    /// The stream is over: hands out what its last event had.
    pub(crate) fn finish(&mut self, sink: &mut dyn FnMut(&[u8])) {
        if !self.line.is_empty() {
            self.end_line(sink);
        }
        self.end_event(sink);
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.line.len());
        if bytes.len() > room {
            self.too_large = true;
        }
        // The head of a line that is too long still tells whether it is a comment.
        self.line
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn end_line(&mut self, sink: &mut dyn FnMut(&[u8])) {
        if self.line.is_empty() {
            self.end_event(sink);
            return;
        }
        let line = self.line.as_slice();
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let value = match line.strip_prefix(b"data") {
            Some([]) => Some(&[][..]),
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => Some(value),
            _ => None,
        };
        if let Some(value) = value {
            // One that is too large grows no more, however many lines without a word it has.
            if self.data.len() + usize::from(self.has_data) + value.len() > self.limit {
                self.too_large = true;
            } else {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            self.has_data = true;
        }
        self.line.clear();
    }

    fn end_event(&mut self, sink: &mut dyn FnMut(&[u8])) {
        if self.too_large {
            self.dropped += 1;
            // The memory of a giant goes with it.
            self.data = Vec::new();
            self.line = Vec::new();
        } else if self.has_data {
            sink(&self.data);
        }
        self.data.clear();
        self.has_data = false;
        self.too_large = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]], limit: usize) -> (Vec<String>, u64) {
        let mut sse = Sse::new(limit);
        let mut out = Vec::new();
        let mut sink = |data: &[u8]| out.push(String::from_utf8_lossy(data).into_owned());
        for chunk in chunks {
            sse.feed(chunk, &mut sink);
        }
        sse.finish(&mut sink);
        (out, sse.dropped())
    }

    #[test]
    fn every_way_to_write_an_event_is_read() {
        for (text, expected) in [
            ("data: a\n\ndata: b\n\n", vec!["a", "b"]),
            ("data:a\r\n\r\ndata:b\r\rdata:c\n\n", vec!["a", "b", "c"]),
            (": comment\ndata: a\n\n:\n\n", vec!["a"]),
            (
                "event: x\nid: 7\nretry: 1\ndata: a\ndata: b\n\n",
                vec!["a\nb"],
            ),
            ("data\n\ndata:  two\n\n", vec!["", " two"]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            ("database: x\n\ndata: a", vec!["a"]),
            ("\n\n\n", vec![]),
        ] {
            assert_eq!(split(&[text.as_bytes()], 100).0, expected, "{text:?}");
        }
    }

    #[test]
    fn a_pair_of_cr_and_lf_may_come_in_two_chunks() {
        assert_eq!(
            split(&[b"data: a\r", b"\n\r", b"\n", b"data: b\r", b"\r"], 100).0,
            ["a", "b"]
        );
        assert_eq!(
            split(&[b"data: a\r", b"", b"\ndata: b\r\n\r\n"], 100).0,
            ["a\nb"]
        );
    }

    #[test]
    fn an_event_of_empty_lines_without_end_takes_no_more_than_its_limit() {
        let mut sse = Sse::new(100);
        let mut sink = |_: &[u8]| panic!("it has no end");
        for _ in 0..10_000 {
            sse.feed(b"data:\n", &mut sink);
            assert!(sse.data.len() <= 100 && sse.line.len() <= 100);
        }
        sse.finish(&mut |_| panic!("it is too large"));
        assert_eq!(sse.dropped(), 1);
    }

    #[test]
    fn what_is_too_large_is_dropped_and_said_so() {
        let huge = format!("data: {}\n\ndata: ok\n\n", "x".repeat(200));
        assert_eq!(split(&[huge.as_bytes()], 100), (vec!["ok".into()], 1));
        let many = format!("{}\ndata: ok\n\n", "data: 0123456789\n".repeat(20));
        assert_eq!(split(&[many.as_bytes()], 100), (vec!["ok".into()], 1));
    }
}
