//! A command's output in bounded memory.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{Call, Command, Error, Exit, Last, Sandbox, Terminal};

/// How long the output may stay open after the exit of a command whose background goes on.
const DRAIN: Duration = Duration::from_millis(500);
const CHUNK: usize = 16 * 1024;

/// How a command ended, and what it printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it printed.
    pub stdout: Captured,
    /// What it printed to its error output.
    pub stderr: Captured,
    /// The calls that the sandbox refused to it, as [`crate::Last::refused`].
    pub refused: Vec<Call>,
}

/// The beginning and the end of a stream of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes.
    pub head: Vec<u8>,
    /// How many bytes between `head` and `tail` were thrown away.
    pub omitted: u64,
    /// The last bytes; empty unless the stream was longer than `head`.
    pub tail: Vec<u8>,
}

impl Captured {
    /// The text, with what is not UTF-8 replaced and a line in place of what was thrown away.
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if self.omitted == 0 {
            // Head and tail are one stream: decode them together, lest a character be split.
            let mut whole = self.head.clone();
            whole.extend_from_slice(&self.tail);
            return String::from_utf8_lossy(&whole).into_owned();
        }
        text.push_str(&format!("\n[{} bytes left out]\n", self.omitted));
        text.push_str(&String::from_utf8_lossy(&self.tail));
        text
    }

    /// How long the stream was, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.head.len() as u64 + self.omitted + self.tail.len() as u64
    }
}

/// Keeps at most `limit` bytes of a stream: half from its beginning, half from its end.
struct Keeper {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_limit: usize,
    tail_limit: usize,
    omitted: u64,
}

impl Keeper {
    fn new(limit: usize) -> Self {
        let tail_limit = limit / 2;
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_limit: limit - tail_limit,
            tail_limit,
            omitted: 0,
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        let room = self
            .head_limit
            .saturating_sub(self.head.len())
            .min(bytes.len());
        if let Some((first, rest)) = bytes.split_at_checked(room) {
            self.head.extend_from_slice(first);
            bytes = rest;
        }
        let surplus = bytes.len().saturating_sub(self.tail_limit);
        if let Some((gone, rest)) = bytes.split_at_checked(surplus) {
            self.omitted += gone.len() as u64;
            bytes = rest;
        }
        let overflow = (self.tail.len() + bytes.len()).saturating_sub(self.tail_limit);
        self.tail.drain(..overflow);
        self.omitted += overflow as u64;
        self.tail.extend(bytes);
    }

    fn finish(self) -> Captured {
        Captured {
            head: self.head,
            omitted: self.omitted,
            tail: self.tail.into(),
        }
    }
}

async fn keep_all(stream: Option<impl AsyncRead + Unpin>, keeper: &mut Keeper) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; CHUNK];
    // Ends with the stream; an error of a pipe is its end too.
    while let Ok(count) = stream.read(&mut chunk).await {
        match chunk.get(..count) {
            Some(bytes) if count > 0 => keeper.push(bytes),
            _ => break,
        }
    }
}

async fn keep_terminal(terminal: &Terminal, keeper: &mut Keeper) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count) = terminal.read(&mut chunk).await {
        match chunk.get(..count) {
            Some(bytes) if count > 0 => keeper.push(bytes),
            _ => break,
        }
    }
}

/// Reads a stream to its end and keeps at most `max_bytes` of it: the first half and the last half.
pub async fn keep(stream: impl AsyncRead + Unpin, max_bytes: usize) -> Captured {
    let mut keeper = Keeper::new(max_bytes);
    keep_all(Some(stream), &mut keeper).await;
    keeper.finish()
}

/// Runs a command to its end and keeps at most `max_output_bytes` of each of its two outputs (the
/// first half and the last half), however much it prints. What comes from a terminal counts as the
/// first of them.
///
/// # Errors
/// As [`Sandbox::exec`] and [`crate::Process::wait`].
pub async fn exec_captured(
    sandbox: &dyn Sandbox,
    command: Command,
    max_output_bytes: usize,
) -> Result<Output, Error> {
    let mut process = sandbox.exec(command).await?;
    process.stdin = None;
    let (mut stdout, mut stderr) = (Keeper::new(max_output_bytes), Keeper::new(max_output_bytes));
    let terminal = process.terminal.take();
    let exit = {
        let (out, err) = (process.stdout.take(), process.stderr.take());
        let reading = async {
            match &terminal {
                Some(terminal) => keep_terminal(terminal, &mut stdout).await,
                None => {
                    tokio::join!(keep_all(out, &mut stdout), keep_all(err, &mut stderr));
                }
            }
        };
        tokio::pin!(reading);
        let mut read_to_end = false;
        let exit = loop {
            tokio::select! {
                exit = process.wait() => break exit?,
                () = &mut reading, if !read_to_end => read_to_end = true,
            }
        };
        if !read_to_end && tokio::time::timeout(DRAIN, &mut reading).await.is_err() {
            tracing::debug!("a background process keeps the output open after the command's end");
        }
        exit
    };
    let mut output = Output {
        exit,
        refused: process.refused().to_vec(),
        stdout: stdout.finish(),
        stderr: stderr.finish(),
    };
    // One end has one cause: what the output says of it is known only now.
    if output.exit.refused.is_some() && !Last::is_of_refusal(&output) {
        output.exit.refused = None;
    }
    sandbox.remember(&output);
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(limit: usize, pieces: &[&[u8]]) -> Captured {
        let mut keeper = Keeper::new(limit);
        pieces.iter().for_each(|piece| keeper.push(piece));
        keeper.finish()
    }

    #[test]
    fn a_short_stream_is_kept_whole() {
        let captured = kept(10, &[b"abc", b"defgh", b"ij"]);
        assert_eq!(captured.text(), "abcdefghij");
        assert_eq!(captured.omitted, 0);
    }

    #[test]
    fn a_long_stream_keeps_its_beginning_and_its_end() {
        let pieces: [&[&[u8]]; 2] = [&[b"0123456789abcdef"], &[b"0123", b"456789a", b"bcdef"]];
        for pieces in pieces {
            let captured = kept(6, pieces);
            assert_eq!(captured.head, b"012");
            assert_eq!(captured.tail, b"def");
            assert_eq!(captured.omitted, 10);
            assert_eq!(captured.total_bytes(), 16);
            assert_eq!(captured.text(), "012\n[10 bytes left out]\ndef");
        }
    }
}
