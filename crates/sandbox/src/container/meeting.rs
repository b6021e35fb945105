//! Where a container's first process comes to its owner: a socket in a directory that only this
//! container has. It is there for one connection, made before anything of the agent's runs.

use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;

use super::engine::Engine;
use crate::Error;
use crate::namespace::wire::{MEETING, MEETING_SOCKET};

/// How long the first process may take to come, and how often its container is looked at meanwhile.
const WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(500);

/// Removed on drop.
#[derive(Debug)]
pub(super) struct Meeting {
    directory: PathBuf,
    listener: OwnedFd,
}

/// Where a container is met, in its directory.
fn socket(directory: &Path) -> PathBuf {
    let name = MEETING_SOCKET.strip_prefix(MEETING).unwrap_or_default();
    directory.join(name.trim_start_matches('/'))
}

/// Who has come.
pub(super) struct Met {
    pub(super) socket: OwnedFd,
    /// Its number here, if it can be seen from here.
    pub(super) pid: Option<u32>,
}

impl Meeting {
    /// Waits in this directory, which is empty.
    pub(super) fn at(directory: PathBuf) -> Result<Self, Error> {
        let failed = |errno: rustix::io::Errno| Error::Io {
            doing: "listen for a container (the temporary directory's path must be short)",
            source: errno.into(),
        };
        let address = SocketAddrUnix::new(socket(&directory)).map_err(failed)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let listener = rustix::net::socket_with(family, kind, flags, None).map_err(failed)?;
        rustix::net::bind(&listener, &address).map_err(failed)?;
        rustix::net::listen(&listener, 1).map_err(failed)?;
        Ok(Self {
            directory,
            listener,
        })
    }

    /// Lets any user of the container come, who may be none that is known here. Here nobody else can:
    /// the directory above is private.
    pub(super) fn for_anyone(self) -> Result<Self, Error> {
        for (path, mode) in [
            (self.directory.clone(), 0o755),
            (socket(&self.directory), 0o666),
        ] {
            fs::set_permissions(path, Permissions::from_mode(mode))
                .map_err(Error::io("make a directory for a container"))?;
        }
        Ok(self)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits for the first process of the container `id`, or for its end.
    pub(super) async fn wait(&self, engine: &Engine, id: &str) -> Result<Met, Error> {
        let failed = || Error::io("wait for a container");
        let own = self.listener.try_clone().map_err(failed())?;
        // SAFETY: the descriptor is owned, never replaced, and lives as long as its registration.
        let listener =
            unsafe { AsyncFd::register(own) }.map_err(|error| failed()(error.into_parts().1))?;
        let deadline = Instant::now() + WITHIN;
        loop {
            match tokio::time::timeout(LOOK, listener.readable()).await {
                Ok(ready) => {
                    let mut ready = ready.map_err(failed())?;
                    match rustix::net::accept_with(listener.get_ref(), SocketFlags::CLOEXEC) {
                        Ok(socket) => return Ok(Met::of(socket)),
                        Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                        Err(error) => return Err(failed()(error.into())),
                    }
                }
                Err(_) if Instant::now() > deadline => {
                    return Err(Error::Silent {
                        seconds: WITHIN.as_secs(),
                        doing: "starting",
                    });
                }
                Err(_) if !engine.runs(id).await => return Err(engine.why_ended(id).await),
                Err(_) => {}
            }
        }
    }
}

impl Met {
    fn of(socket: OwnedFd) -> Self {
        let pid = peer(&socket);
        Self { socket, pid }
    }
}

/// Not by rustix, whose process ids are never 0: the kernel says 0 of one that is not seen from here.
fn peer(socket: &OwnedFd) -> Option<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    // SAFETY: the kernel writes at most the length that is said, which is the structure's.
    let read = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    let pid = u32::try_from(credentials.pid).ok()?;
    (read == 0 && pid > 0).then_some(pid)
}

impl Drop for Meeting {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, path = %self.directory.display(), "it stays until the end");
        }
    }
}
