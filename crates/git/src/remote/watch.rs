//! What is seen of a fetch while it runs: its words, its silence, what it takes on disk.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Bounds;
use crate::error::Error;

/// How often the copy is measured.
const MEASURE: Duration = Duration::from_millis(250);
/// How often a person is told.
const TELL: Duration = Duration::from_millis(200);
/// The longest line that is told, in bytes.
const MAX_LINE: usize = 200;

/// Sees a fetch at work.
pub(super) struct Watching<'a> {
    directory: &'a Path,
    url: &'a str,
    bounds: Bounds,
    tell: &'a mut dyn FnMut(&str),
    line: Vec<u8>,
    measured: Option<Instant>,
    told: Option<Instant>,
    heard: Instant,
    size: u64,
    /// All objects are here: what is left is work of this machine, which is silent.
    is_complete: bool,
}

impl<'a> Watching<'a> {
    pub(super) fn new(
        directory: &'a Path,
        url: &'a str,
        bounds: Bounds,
        tell: &'a mut dyn FnMut(&str),
    ) -> Watching<'a> {
        Watching {
            directory,
            url,
            bounds,
            tell,
            line: Vec::new(),
            measured: None,
            told: None,
            heard: Instant::now(),
            size: 0,
            is_complete: false,
        }
    }

    /// What git said since the last time, perhaps nothing.
    pub(super) fn see(&mut self, said: &[u8]) -> Result<(), Error> {
        if !said.is_empty() {
            self.heard = Instant::now();
            self.read(said);
        }
        if self.measured.is_none_or(|at| at.elapsed() >= MEASURE) {
            self.measured = Some(Instant::now());
            let size = size(self.directory);
            if size != self.size {
                self.size = size;
                self.heard = Instant::now();
            }
            if size > self.bounds.disk {
                return Err(Error::TooLarge {
                    what: format!("the copy of {}", self.url),
                    limit: self.bounds.disk,
                });
            }
        }
        if !self.is_complete && self.heard.elapsed() > self.bounds.silence {
            return Err(Error::Silent {
                url: self.url.to_owned(),
                after: self.bounds.silence,
            });
        }
        Ok(())
    }

    /// Git ends a line that it writes over with a carriage return.
    fn read(&mut self, said: &[u8]) {
        for byte in said {
            if !matches!(byte, b'\r' | b'\n') {
                if self.line.len() < MAX_LINE {
                    self.line.push(*byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim().to_owned();
            self.line.clear();
            self.is_complete |=
                line.starts_with("Receiving objects: 100%") || line.starts_with("Resolving deltas");
            let is_due = self.told.is_none_or(|at| at.elapsed() >= TELL);
            if is_due && !line.is_empty() {
                self.told = Some(Instant::now());
                (self.tell)(&line);
            }
        }
    }
}

/// What the objects take, in bytes. Fetched objects are in packs, which are in one directory; what cannot be read is
/// being removed.
fn size(directory: &Path) -> u64 {
    let packs = directory.join("objects/pack");
    let entries = fs::read_dir(packs).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .fold(0, |sum, file| sum.saturating_add(file.len()))
}
