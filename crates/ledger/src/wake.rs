//! Waking whoever waits for a change: in this process by a counter, in others by a datagram.
//!
//! Each open ledger binds a socket in `run/`; after a commit the writer sends one byte to each of
//! the others. A socket nobody listens on is removed. Where the directory's path is too long for
//! a socket (108 bytes), and in case a process dies between its commit and the waking, the writer
//! looks with each tick whether another process has committed.

use crate::writer::Message;
use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{mpsc, watch};

/// How often the listener looks whether it should end, where nothing else wakes it.
const LOOK: Duration = Duration::from_secs(1);
/// A path of a socket and its ending zero fit into 108 bytes.
const MAX_PATH: usize = 107;
/// The most processes that are woken; more find out by their tick.
const MAX_PEERS: usize = 256;

/// The counter that changes after each commit.
pub(crate) struct Wake {
    counter: watch::Sender<u64>,
    stop: AtomicBool,
    socket: Option<PathBuf>,
}

impl Wake {
    pub(crate) fn new(socket: Option<PathBuf>) -> Self {
        Self {
            counter: watch::Sender::new(0),
            stop: AtomicBool::new(false),
            socket,
        }
    }

    pub(crate) fn bump(&self) {
        self.counter
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.counter.subscribe()
    }

    /// Ends the listening thread soon. The thread must be unparked too where it has no socket.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(path) = &self.socket
            && let Err(error) = UnixDatagram::unbound().and_then(|out| {
                out.set_nonblocking(true)?;
                out.send_to(&[0], path)
            })
        {
            tracing::debug!(%error, "the listener finds out by its tick");
        }
    }
}

/// Binds this process's socket, unless its path would be too long.
pub(crate) fn bind(
    run: &Path,
    bits: u64,
    tick: Option<Duration>,
) -> (Option<UnixDatagram>, Option<PathBuf>) {
    let path = run.join(format!("{bits:016x}.wake"));
    if path.as_os_str().len() > MAX_PATH {
        tracing::info!("the path of the ledger is too long for a socket: it is polled instead");
        return (None, None);
    }
    match UnixDatagram::bind(&path).and_then(|socket| {
        socket.set_read_timeout(Some(tick.unwrap_or(LOOK)))?;
        Ok(socket)
    }) {
        Ok(socket) => (Some(socket), Some(path)),
        Err(error) => {
            tracing::warn!(%error, "the ledger has no socket: it is polled instead");
            (None, None)
        }
    }
}

/// Listens for other processes' commits, and ticks, if it should.
///
/// What wakes it: a datagram, or a tick. What it owns: the socket. How it ends:
/// [`Wake::stop`], or the writer's end.
pub(crate) fn listen(
    socket: Option<UnixDatagram>,
    wake: &Wake,
    writer: &mpsc::WeakSender<Message>,
    tick: Option<Duration>,
) {
    let wait = tick.unwrap_or(LOOK);
    let mut ticked = Instant::now();
    let mut byte = [0u8; 1];
    while !wake.stop.load(Ordering::Acquire) {
        match &socket {
            Some(socket) => match socket.recv(&mut byte) {
                Ok(_) => wake.bump(),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    tracing::warn!(%error, "the ledger's socket failed: it is polled instead");
                    std::thread::park_timeout(wait);
                }
            },
            None => std::thread::park_timeout(wait),
        }
        if ticked.elapsed() >= wait {
            ticked = Instant::now();
            let Some(writer) = writer.upgrade() else {
                break;
            };
            if tick.is_some() {
                // A full queue is busy enough to find lost owners by its claims.
                drop(writer.try_send(Message::Sweep));
            }
        }
    }
    if let Some(path) = &wake.socket
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::debug!(%error, "the ledger's socket was removed by another process");
    }
}

/// The other processes' sockets, as the writer knows them.
pub(crate) struct Peers {
    run: PathBuf,
    own: Option<PathBuf>,
    out: Option<UnixDatagram>,
    known: Vec<PathBuf>,
    /// When the directory had last changed as it was listed; none where it must be listed again.
    listed: Option<SystemTime>,
}

impl Peers {
    pub(crate) fn new(run: PathBuf, own: Option<PathBuf>) -> Self {
        let out = UnixDatagram::unbound()
            .and_then(|out| {
                out.set_nonblocking(true)?;
                Ok(out)
            })
            .ok();
        Self {
            run,
            own,
            out,
            known: Vec::new(),
            listed: None,
        }
    }

    /// Sends each of them a byte. One whose buffer is full has bytes enough.
    pub(crate) fn tell(&mut self) {
        self.list();
        let Some(out) = &self.out else { return };
        self.known.retain(|path| match out.send_to(&[0], path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                // Its process has ended: nobody can listen on this file again.
                if let Err(error) = std::fs::remove_file(path) {
                    tracing::debug!(%error, "a stale socket stays");
                }
                false
            }
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            _ => true,
        });
    }

    /// Lists the directory again if it has changed. Its time of change is as coarse as the
    /// kernel's clock, so a listing is trusted only when it was made well after the change.
    fn list(&mut self) {
        const COARSE: Duration = Duration::from_millis(50);
        let changed = std::fs::metadata(&self.run).and_then(|found| found.modified());
        let Ok(changed) = changed else { return };
        if self.listed == Some(changed) {
            return;
        }
        let settled = SystemTime::now()
            .duration_since(changed)
            .is_ok_and(|age| age > COARSE);
        let Ok(entries) = std::fs::read_dir(&self.run) else {
            return;
        };
        self.known = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|ending| ending == "wake"))
            .filter(|path| Some(path) != self.own.as_ref())
            .take(MAX_PEERS)
            .collect();
        self.listed = settled.then_some(changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_wakes_every_listener_and_removes_the_socket_of_a_dead_one() {
        let run = tempfile::tempdir().unwrap();
        let (own, own_path) = bind(run.path(), 1, None);
        let mut peers = Peers::new(run.path().into(), own_path);
        let (first, _) = bind(run.path(), 2, None);
        peers.tell();
        // One that comes within the same tick of the kernel's clock is seen too.
        let (second, _) = bind(run.path(), 3, None);
        let (dead, dead_path) = bind(run.path(), 4, None);
        drop(dead);
        peers.tell();
        let (first, second, own) = (first.unwrap(), second.unwrap(), own.unwrap());
        let mut byte = [9u8; 4];
        assert_eq!(first.recv(&mut byte).unwrap(), 1);
        assert_eq!(first.recv(&mut byte).unwrap(), 1);
        assert_eq!(second.recv(&mut byte).unwrap(), 1);
        own.set_nonblocking(true).unwrap();
        assert!(own.recv(&mut byte).is_err(), "it does not wake itself");
        assert!(!dead_path.unwrap().exists());
    }
}
