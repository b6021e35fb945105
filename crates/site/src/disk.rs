//! What a site may take on disk, and the task that sees to it.
//!
//! No file system here has quotas that an ordinary user could set, so that the files are measured
//! from outside: the layer that is written, the home and the temporary directory. What measuring
//! cannot see (deleted files that are open, directories shut to us) is met by the second bound, on
//! what is left free.

use crate::{Error, gc::StoreBounds, open::blocking};
use domain::{Failure, Reason};
use sandbox::{Limit, Strike};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};
use workspace::{Layering, Meter, Taken, Workspace};

/// What each site may take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskBounds {
    /// The most that is written, in bytes.
    pub bytes: u64,
    /// The most files, directories and the like that are made: each takes an inode, and an empty one
    /// no bytes.
    pub files: u64,
    /// What must stay free on the file system, in bytes.
    pub free: u64,
    /// How many files must still fit on the file system, but never more than a twentieth of those
    /// that it is made for. Nothing where it knows no such number.
    pub free_files: u64,
    /// How often it is looked at. Measuring never takes more than a twentieth of the time, so that
    /// many files are measured more seldom; what is free is looked at each time.
    pub every: Duration,
    /// What all of it may take, bases and mirrors too.
    pub store: StoreBounds,
}

impl Default for DiskBounds {
    /// 10 GiB, 2,000,000 files; 1 GiB and 50,000 files; each second.
    fn default() -> Self {
        Self {
            bytes: 10 << 30,
            files: 2_000_000,
            free: 1 << 30,
            free_files: 50_000,
            every: Duration::from_secs(1),
            store: StoreBounds::default(),
        }
    }
}

impl DiskBounds {
    /// That as much is free where a directory is, or is to be, as must stay free there. Where it is not,
    /// whatever ran there would be ended at the first look.
    ///
    /// # Errors
    /// [`Error::NoRoom`], or when that cannot be looked at.
    pub fn check(&self, directory: &Path) -> Result<(), Error> {
        let there = directory.ancestors().find(|it| it.exists());
        let place = there.unwrap_or(directory);
        let Some(lack) = self.lack(place)? else {
            return Ok(());
        };
        let place = place.to_owned();
        Err(match lack {
            Lack::Bytes { free, bound } => Error::NoRoom {
                free: size(free),
                bound: size(bound),
                place,
            },
            Lack::Files { free, bound } => Error::NoRoom {
                free: format!("room for {free} files"),
                bound: format!("room for {bound}"),
                place,
            },
        })
    }

    /// What is lacking on the disk of a directory, if anything is.
    fn lack(&self, place: &Path) -> Result<Option<Lack>, Error> {
        let disk = rustix::fs::statvfs(place).map_err(|error| Error::Directory {
            path: place.to_owned(),
            source: error.into(),
        })?;
        let (free, bound) = (disk.f_bavail.saturating_mul(disk.f_frsize), self.free);
        if free < bound {
            return Ok(Some(Lack::Bytes { free, bound }));
        }
        let free = disk.f_favail;
        let bound = crowded(self.free_files, disk.f_files, free);
        Ok(bound.map(|bound| Lack::Files { free, bound }))
    }
}

/// What is free on a disk, and less than must stay free.
enum Lack {
    Bytes { free: u64, bound: u64 },
    Files { free: u64, bound: u64 },
}

/// How many looks in a row may fail.
const FAILURES: u32 = 10;

/// Which bound was passed. What ran in the site was ended for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The site took too much.
    #[error("the workspace took more than {} of the disk", size(*bound))]
    Taken {
        /// The bound in bytes.
        bound: u64,
    },
    /// The site made too many files.
    #[error("the workspace holds more than {bound} new files and directories")]
    Many {
        /// The bound.
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
    /// Too few files still fit, whoever made the others.
    #[error("fewer than {bound} files still fit on the disk that holds {} (its inodes are used up)", place.display())]
    Crowded {
        /// The bound.
        bound: u64,
        /// The workspace.
        place: PathBuf,
    },
    /// It could not be measured, many times in a row.
    #[error(
        "how much of the disk the workspace takes could not be measured: its directories changed all the time"
    )]
    Unmeasured,
}

impl Full {
    /// The reason, in the words of the domain.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Taken { .. } | Self::Many { .. } | Self::Unmeasured => Reason::LimitReached,
            Self::Left { .. } | Self::Crowded { .. } => Reason::Storage,
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
        let now = Instant::now();
        let (before, due) = match files.layering() {
            // Nothing runs in it yet, so that its first measuring can wait for its turn: whoever forks has
            // other use for the processors now.
            Layering::Overlay => (Some(Taken::default()), now + bounds.every),
            // A copy holds its base already: what is added to it counts.
            Layering::Copy => (None, now),
        };
        let mut gauge = Gauge {
            bounds,
            meter: files.meter(),
            place: files.home(),
            before,
            due,
        };
        let task = tokio::spawn(run(
            Box::new(move || gauge.look()),
            bounds.every,
            tell,
            strike,
        ));
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

/// Looks whether a bound is passed.
type Look = Box<dyn FnMut() -> Result<Option<Full>, Error> + Send>;

/// Woken by the clock; owns the gauge; ends when a bound is passed, or with its site, which aborts
/// it.
///
/// What runs inside can make a look fail, by what it does to its directories at that moment. So the
/// next look is tried, and what fails each time is a bound that is passed.
async fn run(
    mut look: Look,
    every: Duration,
    tell: watch::Sender<Option<Full>>,
    strike: Arc<dyn Strike>,
) {
    let mut failed = 0;
    let full = loop {
        let looked = blocking(move || {
            let found = look();
            Ok((look, found))
        });
        let Ok((back, found)) = looked.await else {
            // Only a panic or the end of the runtime explains it: nothing is looked at any more.
            break Full::Unmeasured;
        };
        look = back;
        match found {
            Ok(Some(full)) => break full,
            Ok(None) => failed = 0,
            Err(error) => {
                failed += 1;
                tracing::debug!(%error, failed, "a workspace was not measured");
                if failed >= FAILURES {
                    break Full::Unmeasured;
                }
            }
        }
        tokio::time::sleep(every).await;
    };
    tracing::warn!(%full, "a sandbox is ended");
    strike.strike(Limit::Disk);
    tell.send_replace(Some(full));
}

/// What is known of a workspace's size.
struct Gauge {
    bounds: DiskBounds,
    meter: Meter,
    place: PathBuf,
    /// What was there before anything ran; nothing before the first look.
    before: Option<Taken>,
    /// When it may be measured again.
    due: Instant,
}

impl Gauge {
    fn look(&mut self) -> Result<Option<Full>, Error> {
        if let Some(lack) = self.bounds.lack(&self.place)? {
            let place = self.place.clone();
            return Ok(Some(match lack {
                Lack::Bytes { bound, .. } => Full::Left { bound, place },
                Lack::Files { bound, .. } => Full::Crowded { bound, place },
            }));
        }
        if Instant::now() < self.due {
            return Ok(None);
        }
        let began = Instant::now();
        let taken = self.meter.taken()?;
        self.due = Instant::now() + began.elapsed() * 20;
        let before = *self.before.get_or_insert(taken);
        let DiskBounds { bytes, files, .. } = self.bounds;
        if taken.bytes.saturating_sub(before.bytes) > bytes {
            return Ok(Some(Full::Taken { bound: bytes }));
        }
        let many = taken.files.saturating_sub(before.files) > files;
        Ok(many.then_some(Full::Many { bound: files }))
    }
}

/// The bound that is passed where so few of so many files can still be made. A file system that makes
/// inodes as they are needed counts none, and none is asked of it.
fn crowded(bound: u64, all: u64, left: u64) -> Option<u64> {
    let bound = bound.min(all / 20);
    (left < bound).then_some(bound)
}

#[cfg(test)]
mod tests {
    use super::{DiskBounds, FAILURES, Full, Look, crowded, run, size};
    use sandbox::{Limit, Strike};
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
        time::Duration,
    };
    use tokio::sync::watch;

    #[derive(Default)]
    struct Struck(Mutex<Vec<Limit>>);

    impl Strike for Struck {
        fn strike(&self, limit: Limit) {
            self.0.lock().unwrap().push(limit);
        }
    }

    /// What looks find, one after the other, and what becomes of the site.
    async fn looked(found: impl IntoIterator<Item = Result<Option<Full>, crate::Error>>) -> Full {
        let mut found: VecDeque<_> = found.into_iter().collect();
        let look: Look = Box::new(move || found.pop_front().expect("it has struck before"));
        let struck = Arc::new(Struck::default());
        let (tell, full) = watch::channel(None);
        run(look, Duration::ZERO, tell, struck.clone()).await;
        assert_eq!(struck.0.lock().unwrap().len(), 1, "it strikes once");
        full.borrow().clone().unwrap()
    }

    fn failed() -> Result<Option<Full>, crate::Error> {
        Err(crate::Error::Ended)
    }

    #[tokio::test]
    async fn a_workspace_that_cannot_be_measured_now_is_measured_again() {
        let bound = 7;
        let few = (1..FAILURES).map(|_| failed());
        let again = (1..FAILURES).map(|_| failed());
        let looks = few
            .chain([Ok(None)])
            .chain(again)
            .chain([Ok(Some(Full::Taken { bound }))]);
        assert_eq!(looked(looks).await, Full::Taken { bound });
    }

    #[tokio::test]
    async fn what_keeps_itself_from_being_measured_is_ended() {
        let looks = (0..FAILURES).map(|_| failed());
        assert_eq!(looked(looks).await, Full::Unmeasured);
    }

    // docs/bad-input.md: A disk that is almost full
    #[test]
    fn some_inodes_stay_free_where_the_file_system_counts_them() {
        assert_eq!(crowded(50_000, 16_000_000, 49_999), Some(50_000));
        assert_eq!(crowded(50_000, 16_000_000, 50_000), None);
        assert_eq!(crowded(50_000, 60_000, 3_000), None, "a small file system");
        assert_eq!(crowded(50_000, 60_000, 2_999), Some(3_000));
        assert_eq!(crowded(50_000, 0, 0), None, "no such number");
    }

    // docs/bad-input.md: A new sandbox on a disk that is almost full (`create`, `fork`, `skep shell`)
    #[test]
    fn a_disk_with_less_than_must_stay_free_is_refused_with_what_is_free_and_what_is_needed() {
        let disk = tempfile::tempdir().unwrap();
        let (free, free_files) = (0, 0);
        let bounds = DiskBounds {
            free,
            free_files,
            ..DiskBounds::default()
        };
        // Also where the directory is not made yet.
        let place = disk.path().join("not/yet");
        bounds.check(&place).unwrap();
        let free = u64::MAX;
        let refused = DiskBounds { free, ..bounds }.check(&place).unwrap_err();
        let there = disk.path().display();
        let text = refused.to_string();
        assert!(text.contains(&format!("that holds {there}")), "{text}");
        assert!(text.contains("17179869183 GiB must stay free"), "{text}");
        assert_eq!(refused.failure().reason, domain::Reason::Storage);
    }

    #[test]
    fn sizes_are_told_in_whole_units() {
        assert_eq!(size(10 << 30), "10 GiB");
        assert_eq!(size(24 << 20), "24 MiB");
        assert_eq!(size(5), "5 bytes");
    }
}
