//! What ends a turn from outside: cancellation and the clock.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::Stopped;

/// Why a wait was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    Cancelled,
    TimeLimit,
}

impl From<Interrupt> for Stopped {
    fn from(interrupt: Interrupt) -> Self {
        match interrupt {
            Interrupt::Cancelled => Self::Cancelled,
            Interrupt::TimeLimit => Self::TimeLimit,
        }
    }
}

/// Watches over the waits of a turn.
#[derive(Debug)]
pub(crate) struct Guard {
    cancel: CancellationToken,
    deadline: Instant,
}

impl Guard {
    pub(crate) fn new(cancel: CancellationToken, wall: Duration) -> Self {
        let now = Instant::now();
        // A limit beyond any calendar means a year.
        let year = Duration::from_secs(365 * 24 * 3600);
        Self {
            cancel,
            deadline: now + wall.min(year),
        }
    }

    /// Waits for `work`, unless the turn ends first; then `work` is dropped.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Interrupt::Cancelled),
            () = tokio::time::sleep_until(self.deadline) => Err(Interrupt::TimeLimit),
            done = work => Ok(done),
        }
    }

    /// Whether the turn may go on.
    pub(crate) fn check(&self) -> Result<(), Interrupt> {
        if self.cancel.is_cancelled() {
            Err(Interrupt::Cancelled)
        } else if Instant::now() >= self.deadline {
            Err(Interrupt::TimeLimit)
        } else {
            Ok(())
        }
    }

    /// The time that is left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}
