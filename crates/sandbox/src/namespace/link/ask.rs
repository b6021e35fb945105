//! What is asked of process 1 besides commands: one question at a time.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::sync::{OwnedRwLockWriteGuard, oneshot};

use super::super::{packet, wire};
use super::{Link, STARTED_WITHIN};
use crate::Error;

/// The mount namespace of a sandbox in which nothing runs. While this lives, nothing starts there.
pub(in super::super) struct Quiet {
    pub(in super::super) namespace: OwnedFd,
    _none_starts: OwnedRwLockWriteGuard<()>,
}

impl Link {
    /// Whether anything answers at a port of the loopback inside. One at a time asks.
    pub(crate) async fn reach(&self, port: u16) -> Result<bool, Error> {
        let (sender, reached) = oneshot::channel();
        {
            let mut state = self.state();
            if state.gone {
                return Err(Error::Gone);
            }
            state.reached = Some(sender);
        }
        let words = [wire::REACH, u32::from(port)];
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            packet::send(socket, &words, &[], SendFlags::empty())
        });
        sent.await.map_err(|_| Error::Gone)?;
        match tokio::time::timeout(STARTED_WITHIN, reached).await {
            Ok(Ok(errno)) => Ok(errno == 0),
            Ok(Err(_)) => Err(Error::Gone),
            Err(_) => Err(Error::Silent {
                seconds: STARTED_WITHIN.as_secs(),
                doing: "looking at a port",
            }),
        }
    }

    /// Sees to it that nothing runs in the sandbox, and that nothing starts.
    pub(in super::super) async fn quiet(&self) -> Result<Quiet, Error> {
        let none_starts = Arc::clone(&self.starting).write_owned().await;
        let (sender, lent) = oneshot::channel();
        {
            let mut state = self.state();
            if state.gone {
                return Err(Error::Gone);
            }
            // Also one whose start nobody waits for any more: it is in this list until its end.
            if !state.running.is_empty() {
                return Err(Error::Busy {
                    processes: state.running.len(),
                });
            }
            state.lent = Some(sender);
        }
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            packet::send(socket, &[wire::LEND], &[], SendFlags::empty())
        });
        if let Err(error) = sent.await {
            tracing::debug!(%error, "the sandbox is not asked for its namespace");
            return Err(Error::Gone);
        }
        match tokio::time::timeout(STARTED_WITHIN, lent).await {
            Ok(Ok((0, namespace))) => Ok(Quiet {
                namespace,
                _none_starts: none_starts,
            }),
            Ok(Ok((processes, _))) => Err(Error::Busy {
                processes: usize::try_from(processes).unwrap_or(usize::MAX),
            }),
            Ok(Err(_)) => Err(Error::Gone),
            Err(_) => Err(Error::Silent {
                seconds: STARTED_WITHIN.as_secs(),
                doing: "counting its processes",
            }),
        }
    }
}
