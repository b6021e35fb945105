//! The moment at which a reference moves.

use std::{
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
    io::Errno,
};

/// Sees the files of a directory appear under their names: git moves a reference by renaming its
/// lock file over it.
#[derive(Debug)]
pub(crate) struct Watch {
    fd: OwnedFd,
    name: &'static str,
}

impl Watch {
    /// Watches for this name in a directory that is there.
    pub(crate) fn new(directory: &Path, name: &'static str) -> Result<Watch, String> {
        let failed = |error| format!("cannot watch {}: {error}", directory.display());
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).map_err(failed)?;
        inotify::add_watch(&fd, directory, inotify::WatchFlags::MOVED_TO).map_err(failed)?;
        Ok(Watch { fd, name })
    }

    /// Waits until the name appears: when that was seen. None after so long.
    pub(crate) fn appears(&self, within: Duration) -> Result<Option<Instant>, String> {
        let failed = |error: Errno| format!("cannot watch a reference: {error}");
        let end = Instant::now() + within;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let wait = Timespec::try_from(left).map_err(|error| error.to_string())?;
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
            let seen = Instant::now();
            let mut events = inotify::Reader::new(&self.fd, &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => {
                        let name = event.file_name().map(|name| name.to_bytes());
                        if name == Some(self.name.as_bytes()) {
                            return Ok(Some(seen));
                        }
                    }
                    Err(Errno::AGAIN | Errno::INTR) => break,
                    Err(error) => return Err(failed(error)),
                }
            }
        }
    }
}
