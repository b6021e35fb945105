//! The last lines that a sidecar printed, on either stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::container::sidecar::Sidecar;

/// Lines that are kept, and the bytes of one.
const LINES: usize = 50;
const LONGEST: usize = 1024;
const CHUNK: usize = 4096;

/// What is kept. Values of the sidecar's variables are taken out when it is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Words {
    /// Reads a stream to its end.
    pub(super) async fn keep(&self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let (mut chunk, mut line) = ([0; CHUNK], Vec::new());
        // An error of a pipe is its end too.
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            for byte in chunk.iter().take(length) {
                match byte {
                    b'\n' => self.push(std::mem::take(&mut line)),
                    _ if line.len() < LONGEST => line.push(*byte),
                    _ => {}
                }
            }
        }
        if !line.is_empty() {
            self.push(line);
        }
    }

    fn push(&self, line: Vec<u8>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while lines.len() >= LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The last lines, without what is hidden.
    pub(super) fn last(&self, of: &Sidecar) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |line: &Vec<u8>| String::from_utf8_lossy(line).trim_end().to_owned();
        lines
            .iter()
            .map(|line| of.without_values(text(line)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_fifty_lines_are_kept_and_long_ones_are_cut() {
        let text: String = (0..100).map(|number| format!("{number}\n")).collect();
        let text = format!("{text}{}\nend", "x".repeat(5_000));
        let words = Words::default();
        words.keep(Some(text.as_bytes())).await;
        let lines = words.0.lock().unwrap();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[47], b"99");
        assert_eq!(
            (lines[48].len(), lines[49].as_slice()),
            (LONGEST, &b"end"[..])
        );
    }
}
