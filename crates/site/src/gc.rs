//! Taking back what bases, workspaces and mirrors take on disk and nobody needs, or more than they may.

mod fetched;
mod usage;

pub use self::fetched::{FETCHED, Fetched};
pub(crate) use self::usage::{MIRRORS, is_scarce};
pub use self::usage::{StoreBounds, Usage, packages};
use self::{
    fetched::{mark_needed, retire},
    usage::{mirrors, shrink, usage},
};
use crate::{
    error::Error,
    kept::is_kept,
    open::{blocking, open_attempts},
};
use git::Leftovers;
use ledger::Ledger;
use sandbox::container::Remains;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use workspace::{BaseInfo, Layering, Store};

/// How often it is looked whether to stop, while an engine is waited for.
const LOOK: Duration = Duration::from_millis(50);

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
    /// Engines in which some may be left, and that were not there for long: they are asked no more.
    pub engines: Vec<String>,
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
        () = stopped(&stop) => Remains::default(),
    };
    let mut collected = collect_files(directory, how, stop, told, open, needed).await?;
    (collected.containers, collected.engines) = (contained.containers, contained.forgotten);
    if let Some(error) = contained.failed {
        let why = domain::failure::chain(&error);
        collected.failed.push(("containers".to_owned(), why));
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
async fn containers(directory: &Path, dry_run: bool) -> Remains {
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
            engines: Vec::new(),
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
        engines: Vec::new(),
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

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::Directory {
        path: path.to_owned(),
        source,
    }
}
