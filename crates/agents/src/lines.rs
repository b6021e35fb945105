//! Lines of bounded length from chunks of bytes.

/// A line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The line, or its beginning.
    pub(crate) bytes: Vec<u8>,
    /// Bytes beyond the limit, which were thrown away.
    pub(crate) omitted: u64,
}

/// Splits chunks into lines. A line longer than the limit is cut.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    bytes: Vec<u8>,
    omitted: u64,
}

impl Lines {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: Vec::new(),
            omitted: 0,
        }
    }

    /// Takes a chunk; returns the lines that it completes.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut pieces = chunk.split(|b| *b == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = self.limit.saturating_sub(self.bytes.len()).min(piece.len());
            let (kept, lost) = piece.split_at_checked(room).unwrap_or((piece, &[]));
            self.bytes.extend_from_slice(kept);
            self.omitted += lost.len() as u64;
            if pieces.peek().is_some() {
                lines.push(self.take());
            }
        }
        lines
    }

    /// The last line, if it has no end.
    pub(crate) fn finish(mut self) -> Option<Line> {
        (!self.bytes.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Line {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Line {
            bytes,
            omitted: std::mem::take(&mut self.omitted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"one\ntwo\r\n\nlonger than ten\nlast";
        let line = |bytes: &[u8], omitted| Line {
            bytes: bytes.to_vec(),
            omitted,
        };
        let expected = vec![
            line(b"one", 0),
            line(b"two", 0),
            line(b"", 0),
            line(b"longer tha", 5),
            line(b"last", 0),
        ];
        for size in 1..text.len() {
            let mut lines = Lines::new(10);
            let mut out: Vec<Line> = text.chunks(size).flat_map(|c| lines.feed(c)).collect();
            out.extend(lines.finish());
            assert_eq!(out, expected, "chunks of {size}");
        }
    }
}
