//! What a directory of sites takes on disk, and what it may take.

use super::{
    fetched::{Fetched, fetched},
    unreadable,
};
use crate::error::Error;
use gateway::{PACKAGES_BYTES, Packages};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};
use workspace::{BaseInfo, Space, Store};

/// What bases, workspaces, mirrors and the trash may take on disk together. When it is passed, bases
/// that nobody uses are evicted, the longest unused first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreBounds {
    /// The most that they take, in bytes; a third of the disk where nothing is said.
    pub max: Option<u64>,
    /// What must stay free on the disk, in bytes; a tenth of it, at most 8 GiB, where nothing is said.
    pub free: Option<u64>,
}

/// The part of the disk that is taken where nothing is said.
const PART: u64 = 3;
/// The part of the disk that stays free where nothing is said.
const FREE_PART: u64 = 10;
/// The most that stays free where nothing is said.
const MOST_FREE: u64 = 8 << 30;

/// What a directory of sites takes on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Bases, workspaces and trash.
    pub space: Space,
    /// The mirrors of repositories, by name, in bytes.
    pub mirrors: Vec<(String, u64)>,
    /// The copies of repositories that were given by URLs, sorted by name.
    pub fetched: Vec<Fetched>,
    /// What is kept of package registries, in bytes.
    pub packages: u64,
    /// The most that all of it may take, in bytes.
    pub max: u64,
    /// What must stay free, in bytes.
    pub must_stay_free: u64,
    /// What is free on the disk now, in bytes.
    pub free: u64,
}

impl Usage {
    /// All of it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let mirrors = self.mirrors.iter().map(|(_, bytes)| *bytes);
        let fetched = self.fetched.iter().map(|copy| copy.bytes);
        let rest = self.space.bytes().saturating_add(self.packages);
        mirrors.chain(fetched).fold(rest, u64::saturating_add)
    }

    /// How much of it has to go for the bounds to hold, beside the trash.
    fn over(&self) -> u64 {
        let trash = self.space.trash.bytes;
        let taken = self.bytes().saturating_sub(trash);
        let free = self.free.saturating_add(trash);
        taken
            .saturating_sub(self.max)
            .max(self.must_stay_free.saturating_sub(free))
    }

    /// How much may stay of what is kept of registries, which goes before any base: each of its files
    /// comes again at once when it is asked for.
    pub(super) fn packages_may(&self, all: bool) -> u64 {
        match all {
            true => 0,
            false => self.packages.saturating_sub(self.over()),
        }
    }

    /// The same when so much of that has gone.
    pub(super) fn without_packages(mut self, freed: u64) -> Self {
        self.packages = self.packages.saturating_sub(freed);
        self.free = self.free.saturating_add(freed);
        self
    }

    /// The bases to evict, in this order.
    pub(super) fn to_evict(&self, all: bool) -> Vec<BaseInfo> {
        let over = self.over();
        let mut freed = 0_u64;
        let spare = self.space.spare_bases().into_iter();
        spare
            .take_while(|base| {
                let goes = all || freed < over;
                freed = freed.saturating_add(base.bytes);
                goes
            })
            .cloned()
            .collect()
    }
}

/// Measures a directory of sites.
pub(super) fn usage(
    store: &Store,
    directory: &Path,
    bounds: StoreBounds,
    stop: &AtomicBool,
) -> Result<Usage, Error> {
    let space = store.space(stop)?;
    let mut sizes = Vec::new();
    for mirror in mirrors(directory)? {
        let name = mirror.file_name().unwrap_or_default().to_string_lossy();
        sizes.push((name.into_owned(), workspace::disk_bytes(&mirror)?));
    }
    let disk =
        rustix::fs::statvfs(directory).map_err(|error| unreadable(directory, error.into()))?;
    let total = disk.f_blocks.saturating_mul(disk.f_frsize);
    Ok(Usage {
        space,
        mirrors: sizes,
        fetched: fetched(directory, stop)?,
        packages: packages(directory)
            .bytes()
            .map_err(|error| unreadable(&directory.join(PACKAGES), error))?,
        max: bounds.max.unwrap_or(total / PART),
        must_stay_free: must_stay_free(bounds, total),
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
    })
}

/// Whether too little is free on the disk.
pub(crate) fn is_scarce(directory: &Path, bounds: StoreBounds) -> bool {
    let disk = rustix::fs::statvfs(directory);
    disk.is_ok_and(|disk| {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        free < must_stay_free(bounds, disk.f_blocks.saturating_mul(disk.f_frsize))
    })
}

fn must_stay_free(bounds: StoreBounds, total: u64) -> u64 {
    bounds.free.unwrap_or((total / FREE_PART).min(MOST_FREE))
}

/// Where artefacts of package registries are kept, in a directory of sites.
const PACKAGES: &str = "packages";

/// What is kept of package registries in a directory of sites.
#[must_use]
pub fn packages(directory: &Path) -> Packages {
    Packages::new(directory.join(PACKAGES), PACKAGES_BYTES)
}

/// Removes of that what is too much.
pub(super) fn shrink(directory: &Path, most: u64) -> Result<u64, Error> {
    let shrunk = packages(directory).shrink(most);
    shrunk.map_err(|error| unreadable(&directory.join(PACKAGES), error))
}

/// Where mirrors are kept, in a directory of sites.
pub(crate) const MIRRORS: &str = "repositories";

/// The mirrors, sorted.
pub(super) fn mirrors(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let place = directory.join(MIRRORS);
    let listed = match fs::read_dir(&place) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&place, error)),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|error| unreadable(&place, error))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
