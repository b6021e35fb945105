//! The last of what a command printed: its client reads that, and tells the holder when it has ended.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The most that is told of each stream, in bytes.
const MOST: usize = 16 << 10;

/// The last of what a command printed.
#[derive(Debug, Default)]
pub struct Said {
    /// To its output.
    pub stdout: Tail,
    /// To its error output.
    pub stderr: Tail,
}

/// The end of a stream.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
    is_cut: bool,
}

impl Tail {
    /// More of it.
    pub fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.get(bytes.len().saturating_sub(MOST)..);
        let kept = kept.unwrap_or_default();
        let surplus = (self.bytes.len() + kept.len()).saturating_sub(MOST);
        self.is_cut |= surplus > 0 || kept.len() < bytes.len();
        self.bytes.drain(..surplus);
        self.bytes.extend(kept);
    }

    /// The whole lines that are kept. Of one that was cut nothing is told: it may begin within a secret, which
    /// would not be known for one.
    fn text(&mut self) -> String {
        let bytes = self.bytes.make_contiguous();
        let begin = match (self.is_cut, bytes.iter().position(|byte| *byte == b'\n')) {
            (false, _) => 0,
            (true, Some(end)) => end + 1,
            (true, None) => bytes.len(),
        };
        String::from_utf8_lossy(bytes.get(begin..).unwrap_or_default()).into_owned()
    }
}

/// The same, as the client says it to the holder.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl From<&mut Said> for Told {
    fn from(said: &mut Said) -> Self {
        Self {
            stdout: said.stdout.text(),
            stderr: said.stderr.text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_lines_are_kept_however_a_stream_comes() {
        let all = (0..4_000)
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        for piece in [1, 7, MOST, all.len()] {
            let mut tail = Tail::default();
            all.as_bytes().chunks(piece).for_each(|it| tail.push(it));
            let kept = tail.text();
            assert!(all.ends_with(&kept) && kept.len() > MOST - 10, "{piece}");
            assert!(kept.len() <= MOST && all.contains(&format!("\n{kept}")));
        }
        let mut tail = Tail::default();
        tail.push(b"no end");
        assert_eq!(tail.text(), "no end", "what is whole is not cut");
        tail.push(&[b'x'; MOST]);
        assert_eq!(tail.text(), "", "a line that was cut is none");
    }
}
