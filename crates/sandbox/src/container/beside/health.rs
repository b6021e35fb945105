//! Whether a sidecar can be used, and since when.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::AsyncRead;

use super::Mate;
use super::words::Words;
use crate::container::sidecar::When;
use crate::{Command, Error, Health};

/// How often it is asked whether it is ready: nothing tells.
const LOOK: Duration = Duration::from_millis(100);
/// How long a command that looks may take.
const LOOKS_WITHIN: Duration = Duration::from_secs(10);
/// How long somebody who asks how it is may wait.
const GLANCES_WITHIN: Duration = Duration::from_secs(2);

/// What is known of it. Its clones are one.
#[derive(Debug, Clone)]
pub(super) struct Known(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    health: Health,
    /// It has ended: it is never ready again, whatever was seen before.
    is_over: bool,
}

impl Known {
    pub(super) fn not_ready() -> Self {
        let health = Health {
            ready: false,
            since: now(),
        };
        let is_over = false;
        Self(Arc::new(Mutex::new(State { health, is_over })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, ready: bool) {
        let mut state = self.state();
        if state.health.ready != ready && !state.is_over {
            let since = now();
            state.health = Health { ready, since };
        }
    }

    pub(super) fn end(&self) {
        let (mut state, since) = (self.state(), now());
        state.health = Health {
            ready: false,
            since,
        };
        state.is_over = true;
    }

    pub(super) fn told(&self) -> Health {
        self.state().health
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX))
}

impl Mate {
    /// Asks until it is ready.
    pub(super) async fn becomes_ready(&self, when: &When) -> Result<(), Error> {
        while !self.shows(when).await? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether it is ready now.
    async fn shows(&self, when: &When) -> Result<bool, Error> {
        // Its first process answers one who asks at a time.
        let _alone = self.looks.lock().await;
        match when {
            When::Port(port) => self.link.reach(*port).await,
            When::Command(words) => self.succeeds(self.command(words.clone())).await,
        }
    }

    async fn succeeds(&self, command: Command) -> Result<bool, Error> {
        let mut process = self.link.exec(command.with_timeout(LOOKS_WITHIN)).await?;
        // What it prints is nobody's: it must not fill the pipes.
        let (out, err) = (process.stdout.take(), process.stderr.take());
        let (exit, (), ()) = tokio::join!(process.wait(), thrown_away(out), thrown_away(err));
        Ok(exit?.success())
    }

    /// Looks once whether it is as ready as it was.
    pub(super) async fn look_again(&self) {
        let Some(ready) = &self.sidecar.ready else {
            return;
        };
        let shown = tokio::time::timeout(GLANCES_WITHIN, self.shows(&ready.when)).await;
        self.health.note(matches!(shown, Ok(Ok(true))));
    }
}

async fn thrown_away(stream: Option<impl AsyncRead + Unpin>) {
    Words::default().keep(stream).await;
}
