//! What bases, workspaces and mirrors may take on disk, and taking it back.

use crate::{
    error::Error,
    kept::is_kept,
    open::{blocking, open_attempts},
};
use gateway::{PACKAGES_BYTES, Packages};
use git::Leftovers;
use ledger::Ledger;
use std::{
    collections::HashSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use workspace::{BaseInfo, Layering, Space, Store};

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

/// The copy of a repository that was given by a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The name of its directory.
    pub name: String,
    /// The URL; none where the copy was never made to its end.
    pub url: Option<String>,
    /// What it takes on disk, in bytes.
    pub bytes: u64,
    /// When something was fetched into it last.
    pub last_use: SystemTime,
    /// Why it stays, however long it is not used.
    pub stays: Option<&'static str>,
}

/// A copy that was not used for so long goes; it is fetched again when it is needed.
const UNUSED: Duration = Duration::from_secs(30 * 86_400);
/// As [`UNUSED`], where all goes that nobody needs. Whoever has just fetched has asked nothing yet.
const JUST_USED: Duration = Duration::from_secs(86_400);
/// How often it is looked whether to stop, while an engine is waited for.
const LOOK: Duration = Duration::from_millis(50);

impl Fetched {
    fn goes(&self, all: bool, now: SystemTime) -> bool {
        let age = now.duration_since(self.last_use).unwrap_or_default();
        self.stays.is_none() && age > if all { JUST_USED } else { UNUSED }
    }
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
    fn packages_may(&self, all: bool) -> u64 {
        match all {
            true => 0,
            false => self.packages.saturating_sub(self.over()),
        }
    }

    /// The same when so much of that has gone.
    fn without_packages(mut self, freed: u64) -> Self {
        self.packages = self.packages.saturating_sub(freed);
        self.free = self.free.saturating_add(freed);
        self
    }

    /// The bases to evict, in this order.
    fn to_evict(&self, all: bool) -> Vec<BaseInfo> {
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

/// How to collect garbage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Collect {
    /// The bounds.
    pub bounds: StoreBounds,
    /// Evict every base that nobody uses and all that is kept of registries, within the bounds or not.
    pub all: bool,
    /// Only find out what would be done.
    pub dry_run: bool,
}

/// What was, or would be, taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// What was there before.
    pub before: Usage,
    /// Workspaces that nobody owned.
    pub workspaces: Vec<String>,
    /// Bases and workspaces whose builder died.
    pub unfinished: u64,
    /// Containers whose owners had ended, by their ids.
    pub containers: Vec<String>,
    /// Bases that were evicted.
    pub bases: Vec<String>,
    /// Layers that workspaces shared, and that none needs any more.
    pub layers: u64,
    /// Copies of repositories given by URLs that were not used for long.
    pub fetched: Vec<String>,
    /// Temporary files of killed processes in mirrors.
    pub leftovers: Leftovers,
    /// What went of what is kept of package registries, in bytes.
    pub packages: u64,
    /// What was deleted, in bytes: what was in the trash before too.
    pub freed: u64,
    /// What could not be deleted, and why.
    pub failed: Vec<(String, String)>,
}

/// What is being done, for a person who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Files are looked at.
    Measuring,
    /// The trash is deleted: so many of so many.
    Deleting(u64, u64),
}

/// Sweeps a directory of sites, evicts what is over the bounds, and deletes the trash. It is safe
/// beside processes that work there: what they use stays.
///
/// # Errors
/// When the ledger or the store cannot be read; [`workspace::Error::Stopped`] once `stop` is set: what
/// was deleted until then is gone, and the rest waits for the next time.
pub async fn collect(
    ledger: &Ledger,
    directory: &Path,
    how: Collect,
    stop: Arc<AtomicBool>,
    mut told: impl FnMut(Step) + Send + 'static,
) -> Result<Collection, Error> {
    // Asked first: an attempt that opens after this is held by its process.
    let open = open_attempts(ledger).await?;
    let needed = ledger.open_repositories().await?;
    let directory = directory.to_owned();
    told(Step::Measuring);
    // First: what runs in them may hold workspaces.
    let contained = tokio::select! {
        contained = containers(&directory, how.dry_run) => contained,
        () = stopped(&stop) => Ok(Vec::new()),
    };
    let mut collected = collect_files(directory, how, stop, told, open, needed).await?;
    match contained {
        Ok(containers) => collected.containers = containers,
        Err(error) => {
            let why = domain::failure::chain(&error);
            collected.failed.push(("containers".to_owned(), why));
        }
    }
    Ok(collected)
}

/// Waits until this is to stop.
async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes, or only finds, containers whose owners have ended.
async fn containers(directory: &Path, dry_run: bool) -> Result<Vec<String>, sandbox::Error> {
    let options = sandbox::container::Options {
        data: Some(directory.to_owned()),
        ..sandbox::container::Options::default()
    };
    match dry_run {
        true => sandbox::container::left(&options).await,
        false => sandbox::container::clear(&options).await,
    }
}

/// Collects what lies in the directory.
async fn collect_files(
    directory: PathBuf,
    how: Collect,
    stop: Arc<AtomicBool>,
    mut told: impl FnMut(Step) + Send + 'static,
    open: HashSet<String>,
    needed: Vec<String>,
) -> Result<Collection, Error> {
    blocking(move || {
        // How new workspaces would lie over their bases does not matter: none is made.
        let store = Store::open(&directory, Layering::Copy)?;
        let mut before = usage(&store, &directory, how.bounds, &stop)?;
        mark_needed(&directory, &mut before.fetched, &needed);
        let stays = |id: &str| open.contains(id) || is_kept(&directory, id);
        if how.dry_run {
            return would(&store, &directory, before, how, stays);
        }
        let swept = store.sweep(stays)?;
        let layers = store.collect_layers()?;
        let fetched = retire(&directory, &before.fetched, how.all)?;
        let mut leftovers = Leftovers::default();
        for mirror in mirrors(&directory)? {
            let found = git::leftovers(&mirror, true)?;
            leftovers.entries += found.entries;
            leftovers.bytes += found.bytes;
        }
        // It removes the control groups of processes that have ended when it looks at the machine.
        drop(sandbox::Namespace::new());
        sandbox::Namespace::clear(&directory);
        let now = usage(&store, &directory, how.bounds, &stop)?;
        let packages = shrink(&directory, now.packages_may(how.all))?;
        let now = now.without_packages(packages);
        let evicted = evict(&store, &now.to_evict(how.all))?;
        let trash = store.space(&stop)?.trash;
        let emptied =
            store.empty_trash_telling(&stop, &mut |done, of| told(Step::Deleting(done, of)))?;
        let left = store.space(&stop)?.trash;
        Ok(Collection {
            before,
            workspaces: swept.workspaces,
            unfinished: swept.unfinished,
            containers: Vec::new(),
            bases: evicted,
            layers,
            fetched,
            leftovers,
            packages,
            freed: trash
                .bytes
                .saturating_sub(left.bytes)
                .saturating_add(packages)
                .saturating_add(leftovers.bytes),
            failed: emptied
                .failed
                .into_iter()
                .map(|(name, error)| (name, domain::failure::chain(&error)))
                .collect(),
        })
    })
    .await
}

/// What [`collect`] would do now.
fn would(
    store: &Store,
    directory: &Path,
    before: Usage,
    how: Collect,
    live: impl Fn(&str) -> bool,
) -> Result<Collection, Error> {
    let swept = store.would_sweep(live)?;
    let mut after = before.clone();
    let mut freed = before.space.trash.bytes;
    after.space.workspaces.retain(|workspace| {
        let goes = swept.workspaces.contains(&workspace.id);
        if goes {
            freed = freed.saturating_add(workspace.bytes);
        }
        !goes
    });
    let mut layers = 0;
    after.space.layers.retain(|layer| {
        let is_swept = |user: &String| swept.workspaces.contains(user);
        let goes = layer
            .users
            .as_ref()
            .is_some_and(|users| users.iter().all(is_swept));
        if goes {
            layers += 1;
            freed = freed.saturating_add(layer.bytes);
        }
        !goes
    });
    let now = SystemTime::now();
    let mut fetched = Vec::new();
    after.fetched.retain(|copy| {
        let goes = copy.goes(how.all, now);
        if goes {
            fetched.push(copy.name.clone());
            freed = freed.saturating_add(copy.bytes);
        }
        !goes
    });
    for base in &mut after.space.bases {
        let by_a_dead_one = |user: &str| {
            let id = user.strip_prefix("workspace ");
            id.is_some_and(|id| swept.workspaces.iter().any(|swept| swept == id))
        };
        if base.used_by.as_deref().is_some_and(by_a_dead_one) {
            base.used_by = None;
        }
    }
    let packages = after.packages.saturating_sub(after.packages_may(how.all));
    let after = after.without_packages(packages);
    let bases = after.to_evict(how.all);
    let mut leftovers = Leftovers::default();
    for mirror in mirrors(directory)? {
        let found = git::leftovers(&mirror, false)?;
        leftovers.entries += found.entries;
        leftovers.bytes += found.bytes;
    }
    freed = bases
        .iter()
        .map(|base| base.bytes)
        .fold(freed.saturating_add(leftovers.bytes), u64::saturating_add)
        .saturating_add(packages);
    Ok(Collection {
        before,
        workspaces: swept.workspaces,
        unfinished: swept.unfinished,
        containers: Vec::new(),
        bases: bases.into_iter().map(|base| base.key).collect(),
        layers,
        fetched,
        leftovers,
        packages,
        freed,
        failed: Vec::new(),
    })
}

/// Evicts what is over the bounds, for a process that works there.
pub(crate) fn keep(
    store: &Store,
    directory: &Path,
    bounds: StoreBounds,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let usage = usage(store, directory, bounds, stop)?;
    let freed = shrink(directory, usage.packages_may(false))?;
    let evicted = evict(store, &usage.without_packages(freed).to_evict(false))?;
    if !evicted.is_empty() {
        tracing::info!(?evicted, "bases that nobody used made room");
    }
    Ok(())
}

/// Moves bases to the trash; those that somebody uses by now stay.
fn evict(store: &Store, bases: &[BaseInfo]) -> Result<Vec<String>, Error> {
    let mut evicted = Vec::new();
    for base in bases {
        match store.evict(&base.key) {
            Ok(()) => evicted.push(base.key.clone()),
            Err(workspace::Error::BaseInUse { .. } | workspace::Error::NoBase { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(evicted)
}

/// Measures a directory of sites.
fn usage(
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

/// Where copies of repositories that were given by URLs are kept, in a directory of sites.
pub const FETCHED: &str = "fetched";

/// The copies, each measured. Whether a request needs one is not looked at.
fn fetched(directory: &Path, stop: &AtomicBool) -> Result<Vec<Fetched>, Error> {
    let mut found = Vec::new();
    for copy in git::copies(&directory.join(FETCHED))? {
        if stop.load(Ordering::Relaxed) {
            return Err(workspace::Error::Stopped.into());
        }
        let name = copy.directory.file_name().unwrap_or_default();
        found.push(Fetched {
            name: name.to_string_lossy().into_owned(),
            bytes: workspace::disk_bytes(&copy.directory)?,
            last_use: copy.last_use,
            stays: copy.holds_work.then_some("holds integrated work"),
            url: copy.url,
        });
    }
    Ok(found)
}

/// Says of copies that a request has not ended that works on them: what it does is published there.
fn mark_needed(directory: &Path, fetched: &mut [Fetched], needed: &[String]) {
    let needed: Vec<PathBuf> = needed
        .iter()
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    for copy in fetched {
        let place = directory.join(FETCHED).join(&copy.name);
        let is_needed = fs::canonicalize(place).is_ok_and(|place| needed.contains(&place));
        if is_needed {
            copy.stays = Some("a request works on it");
        }
    }
}

/// Moves copies that were not used for long to the trash; those that somebody uses by now stay.
fn retire(directory: &Path, fetched: &[Fetched], all: bool) -> Result<Vec<String>, Error> {
    let now = SystemTime::now();
    let mut retired = Vec::new();
    let goes = |name: &str| {
        let copy = fetched.iter().find(|copy| copy.name == name);
        copy.is_some_and(|copy| copy.goes(all, now))
    };
    for copy in git::copies(&directory.join(FETCHED))? {
        let name = copy.directory.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let age = now.duration_since(copy.last_use).unwrap_or_default();
        if !goes(&name) || copy.holds_work || age <= JUST_USED {
            continue;
        }
        let to = directory.join("trash").join(format!(
            "{FETCHED}-{name}.{:x}.{:x}",
            std::process::id(),
            now.duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |age| age.as_micros())
        ));
        if copy.move_away(&to)? {
            retired.push(name);
        }
    }
    Ok(retired)
}

/// Where artefacts of package registries are kept, in a directory of sites.
const PACKAGES: &str = "packages";

/// What is kept of package registries in a directory of sites.
#[must_use]
pub fn packages(directory: &Path) -> Packages {
    Packages::new(directory.join(PACKAGES), PACKAGES_BYTES)
}

/// Removes of that what is too much.
fn shrink(directory: &Path, most: u64) -> Result<u64, Error> {
    let shrunk = packages(directory).shrink(most);
    shrunk.map_err(|error| unreadable(&directory.join(PACKAGES), error))
}

/// Where mirrors are kept, in a directory of sites.
pub(crate) const MIRRORS: &str = "repositories";

/// The mirrors, sorted.
fn mirrors(directory: &Path) -> Result<Vec<PathBuf>, Error> {
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

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::Directory {
        path: path.to_owned(),
        source,
    }
}
