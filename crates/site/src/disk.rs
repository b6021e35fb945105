//! What a site may take on disk, and the task that sees to it.
//!
//! No file system here has quotas that an ordinary user could set, so that the files are measured
//! from outside: the layer that is written, the home and the temporary directory. What measuring
//! cannot see (deleted files that are open, directories shut to us) is met by the second bound, on
//! what is left free.

use crate::open::blocking;
use domain::{Failure, Reason};
use sandbox::{Limit, Strike};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};
use workspace::{Layering, Meter, Workspace};

/// What each site may take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskBounds {
    /// The most that is written, in bytes.
    pub bytes: u64,
    /// What must stay free on the file system, in bytes.
    pub free: u64,
    /// How often it is looked at. Measuring never takes more than a twentieth of the time, so that
    /// many files are measured more seldom; what is free is looked at each time.
    pub every: Duration,
}

impl Default for DiskBounds {
    /// 10 GiB, 1 GiB, each second.
    fn default() -> Self {
        Self {
            bytes: 10 << 30,
            free: 1 << 30,
            every: Duration::from_secs(1),
        }
    }
}

/// Which bound was passed. What ran in the site was ended for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The site took too much.
    #[error("the workspace took more than {} of the disk", size(*bound))]
    Taken {
        /// The bound in bytes.
        bound: u64,
    },
    /// Too little is left, whoever took it.
    #[error("less than {} is free on the disk that holds {}", size(*bound), place.display())]
    Left {
        /// The bound in bytes.
        bound: u64,
        /// The workspace.
        place: PathBuf,
    },
}

impl Full {
    /// The reason, in the words of the domain.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Taken { .. } => Reason::LimitReached,
            Self::Left { .. } => Reason::Storage,
        }
    }

    /// The failure of whatever ran in the site.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure::caused(self.reason(), self)
    }
}

/// A size as people read it: whole units of 1,024.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

/// Looks at the disk as long as it lives, and strikes once.
pub(crate) struct Watch {
    task: JoinHandle<()>,
    full: watch::Receiver<Option<Full>>,
}

impl Watch {
    pub(crate) fn start(bounds: DiskBounds, files: &Workspace, strike: Arc<dyn Strike>) -> Self {
        let (tell, full) = watch::channel(None);
        let gauge = Gauge {
            bounds,
            meter: files.meter(),
            place: files.home(),
            // A copy holds its base already: what is added to it counts.
            before: match files.layering() {
                Layering::Overlay => Some(0),
                Layering::Copy => None,
            },
            due: Instant::now(),
        };
        let task = tokio::spawn(run(gauge, tell, strike));
        Self { task, full }
    }

    /// Which bound was passed, if one was.
    pub(crate) fn full(&self) -> Option<Full> {
        self.full.borrow().clone()
    }

    /// Waits until a bound is passed: for ever, where none is.
    pub(crate) async fn until_full(&self) -> Full {
        let mut full = self.full.clone();
        loop {
            if let Some(full) = full.borrow_and_update().clone() {
                return full;
            }
            if full.changed().await.is_err() {
                // Nobody looks any more: the workspace is gone.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Woken by the clock; owns the gauge; ends when a bound is passed, when the workspace is gone, or
/// with its site, which aborts it.
async fn run(mut gauge: Gauge, tell: watch::Sender<Option<Full>>, strike: Arc<dyn Strike>) {
    loop {
        let looked = blocking(move || {
            let full = gauge.look()?;
            Ok((gauge, full))
        });
        match looked.await {
            Ok((back, None)) => gauge = back,
            Ok((_, Some(full))) => {
                tracing::warn!(%full, "a sandbox is ended");
                strike.strike(Limit::Disk);
                tell.send_replace(Some(full));
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "a workspace is not measured any more");
                return;
            }
        }
        tokio::time::sleep(gauge.bounds.every).await;
    }
}

/// What is known of a workspace's size.
struct Gauge {
    bounds: DiskBounds,
    meter: Meter,
    place: PathBuf,
    /// What was there before anything ran; nothing before the first look.
    before: Option<u64>,
    /// When it may be measured again.
    due: Instant,
}

impl Gauge {
    fn look(&mut self) -> Result<Option<Full>, crate::Error> {
        let disk = rustix::fs::statvfs(&self.place).map_err(|error| crate::Error::Unreadable {
            path: self.place.display().to_string(),
            source: error.into(),
        })?;
        let bound = self.bounds.free;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < bound {
            let place = self.place.clone();
            return Ok(Some(Full::Left { bound, place }));
        }
        if Instant::now() < self.due {
            return Ok(None);
        }
        let began = Instant::now();
        let bytes = self.meter.bytes()?;
        self.due = Instant::now() + began.elapsed() * 20;
        let added = bytes.saturating_sub(*self.before.get_or_insert(bytes));
        let bound = self.bounds.bytes;
        Ok((added > bound).then_some(Full::Taken { bound }))
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_told_in_whole_units() {
        assert_eq!(size(10 << 30), "10 GiB");
        assert_eq!(size(24 << 20), "24 MiB");
        assert_eq!(size(5), "5 bytes");
    }
}
