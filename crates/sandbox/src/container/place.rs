//! A private directory of this process: our program for containers, the socket of an engine that was
//! started, and where containers and their owner meet.

use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::meeting::Meeting;
use crate::Error;
use crate::namespace::layout::HOSTS;
use crate::namespace::start::PROGRAM;
use crate::owner;

const PREFIX: &str = "skep-engine-";

/// Removed on drop; what a killed process left is removed by the next one of the same user.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    meetings: AtomicU64,
}

impl Place {
    pub(super) fn new() -> Result<Self, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let failed = || Error::io("make a directory for containers");
        let parent = std::env::temp_dir();
        sweep(&parent);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", owner::this_process());
        let place = Self {
            path: parent.join(name),
            meetings: AtomicU64::new(0),
        };
        private(&place.path).map_err(failed())?;
        // Who uses them in a container may be another user; here nobody else comes to them.
        for (path, mode, content) in [
            (place.program(), 0o555, PROGRAM),
            (place.hosts(), 0o444, HOSTS.as_bytes()),
            (place.no_servers(), 0o444, b""),
        ] {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(path)
                .map_err(failed())?;
            file.write_all(content).map_err(failed())?;
        }
        Ok(place)
    }

    /// Its owner, and which of that one's it is.
    pub(super) fn name(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix(PREFIX))
            .unwrap_or_default()
    }

    /// The hosts that whatever runs beside a sandbox knows: an engine would tell it the machine's.
    pub(super) fn hosts(&self) -> PathBuf {
        self.path.join("hosts")
    }

    /// Servers for names: there are none.
    pub(super) fn no_servers(&self) -> PathBuf {
        self.path.join("resolv.conf")
    }

    /// Our program, as a container executes it.
    pub(super) fn program(&self) -> PathBuf {
        self.path.join("init")
    }

    /// Where an engine listens that this process starts.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("engine")
    }

    /// A new place to meet one container.
    pub(super) fn meeting(&self) -> Result<Meeting, Error> {
        let number = self.meetings.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(number.to_string());
        private(&path).map_err(Error::io("make a directory for a container"))?;
        Meeting::at(path)
    }
}

fn private(path: &Path) -> std::io::Result<()> {
    // One that is there already is somebody else's: this fails then.
    DirBuilder::new().mode(0o700).create(path)
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(%error, path = %path.display(), "a directory for containers stays");
    }
}

/// The owner of the directory with this name, if it is such a one.
pub(super) fn owner_in(name: &str) -> Option<&str> {
    let (owner, _) = name.strip_prefix(PREFIX)?.rsplit_once('-')?;
    Some(owner)
}

/// Removes what processes of this user left that have ended.
pub(super) fn sweep(parent: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner_in);
        let stale = owner.is_some_and(owner::has_ended);
        let mine = || {
            entry
                .metadata()
                .is_ok_and(|data| data.is_dir() && data.uid() == own)
        };
        if stale && mine() {
            remove(&entry.path());
        }
    }
}
