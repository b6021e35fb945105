//! The last lines that a sidecar printed, on either stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::container::sidecar::{LONGEST_VALUE, Sidecar};

/// Lines that are kept, and the bytes of one that are shown.
const LINES: usize = 50;
const LONGEST: usize = 1024;
/// The bytes of a line that are kept, so that a value is whole when it is taken out.
const KEPT: usize = LONGEST + 2 * LONGEST_VALUE;
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
                    _ if line.len() < KEPT => line.push(*byte),
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
        lines.iter().map(|line| shown(line, of)).collect()
    }
}

/// The beginning of a line, without what is hidden.
fn shown(line: &[u8], of: &Sidecar) -> String {
    let mut text = of.without_values(String::from_utf8_lossy(line).trim_end().to_owned());
    if line.len() >= KEPT {
        // What it ends with may be the beginning of a value.
        let sure = text.len().saturating_sub(LONGEST_VALUE);
        cut(&mut text, sure);
    }
    cut(&mut text, LONGEST);
    text
}

fn cut(text: &mut String, at: usize) {
    text.truncate(text.floor_char_boundary(at));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::sidecar::Hidden;

    #[tokio::test]
    async fn the_last_fifty_lines_are_kept_and_long_ones_are_cut() {
        let text: String = (0..100).map(|number| format!("{number}\n")).collect();
        let text = format!("{text}{}\nend", "x".repeat(5_000));
        let words = Words::default();
        words.keep(Some(text.as_bytes())).await;
        let lines = words.last(&Sidecar::default());
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[47], "99");
        assert_eq!((lines[48].len(), lines[49].as_str()), (LONGEST, "end"));
    }

    #[tokio::test]
    async fn a_value_is_hidden_however_long_it_is_and_wherever_a_line_is_cut() {
        let values = ["s".repeat(2_000), "t".repeat(LONGEST_VALUE)];
        let sidecar = Sidecar {
            env: values
                .iter()
                .map(|value| ("A".to_owned(), Hidden::new(value)))
                .collect(),
            ..Sidecar::default()
        };
        for value in &values {
            for before in [0, LONGEST - 10, KEPT - value.len(), KEPT - 10] {
                let text = format!("{}{value}{value}\n", ".".repeat(before));
                let words = Words::default();
                words.keep(Some(text.as_bytes())).await;
                let shown = words.last(&sidecar).concat();
                assert!(!shown.contains(['s', 't']), "{before}: {shown}");
            }
            // However much of it there is.
            let words = Words::default();
            words.keep(Some(value.repeat(100).as_bytes())).await;
            let shown = words.last(&sidecar).concat().replace("[hidden]", "");
            assert!(!shown.contains(['s', 't']), "{shown}");
        }
    }
}
