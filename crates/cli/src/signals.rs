//! What tells the program to end.

use crate::{exit::Exit, report::Error};
use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// `Ctrl-C`, a closed terminal, and the request to terminate.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    hang_up: Signal,
    terminate: Signal,
}

/// Listens for one from now on: it ends the program no more by itself.
///
/// # Errors
/// When the system refuses.
pub(crate) fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|source| Error::System {
        doing: "listening for signals",
        source,
    })
}

impl Signals {
    /// Listens from now on: the signals end the program no more by themselves.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> Result<Self, Error> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// What the future comes to, unless a signal comes first, or came before: then the program ends at once.
    ///
    /// # Errors
    /// [`Error::Quit`] when a signal came.
    pub(crate) async fn or<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            exit = self.next() => Err(Error::Quit(exit)),
            done = future => Ok(done),
        }
    }

    /// Waits for the next one, and says how the program should end. To stop waiting loses none.
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Cancelled,
            _ = self.hang_up.recv() => Exit::HungUp,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}
