//! How far a copy has come, where a person waits for it.

use crate::{context::Context, view::format};
use sandbox::archive::Progress;
use std::time::Duration;

/// What is over by then needs no word.
const PATIENCE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);

/// Does the work, and shows on a terminal how far it has come. Woken by its end and by a clock.
pub(super) async fn show<T>(
    context: &Context,
    progress: &Progress,
    work: impl Future<Output = T>,
) -> T {
    if !context.output.progress_is_seen() || context.output.is_json() {
        return work.await;
    }
    let line = Line(context);
    let mut clock = tokio::time::interval_at(tokio::time::Instant::now() + PATIENCE, EVERY);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = clock.tick() => line.say(progress),
        }
    }
}

/// The line that is written over; it goes away however this ends.
struct Line<'a>(&'a Context);

/// Back to the beginning of the line, and nothing behind it.
const CLEAR: &str = "\r\x1b[K";

impl Line<'_> {
    fn say(&self, progress: &Progress) {
        let entries = progress.entries();
        let bytes = format::bytes(progress.bytes());
        self.0
            .output
            .aside(&format!("{CLEAR}{entries} entries, {bytes}"));
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.output.aside(CLEAR);
    }
}
