//! What owners that have ended left in an engine.
//!
//! An owner leaves a mark in its data directory before it starts an engine, and takes it away at its
//! end. The mark of one that was killed is the only reason to ask an engine what is left: whoever
//! clears up after users of other kinds starts nothing and waits for nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::{Options, Way, blocking, find, orphans, owner, place, traces};
use crate::namespace::cgroup;
use crate::{Error, Trouble};

/// Where marks are, in a data directory, and how their names begin.
const PLACE: &str = "run";
const PREFIX: &str = "engine.";
/// How long an engine of a killed owner is waited for: it ends some seconds after what it was asked
/// last, and may be making a container until then.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// That a process uses an engine. Removed on drop, unless something of it may be left.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    stays: AtomicBool,
}

impl Mark {
    /// Marks that this process uses an engine whose socket is `socket`, if it starts that itself.
    pub(super) fn make(data: &Path, name: &str, socket: &Path) -> Option<Self> {
        let name = format!("{PREFIX}{}.{name}", owner::boot());
        let path = data.join(PLACE).join(name);
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(socket.as_os_str().as_encoded_bytes()));
        match made {
            Ok(()) => Some(Self {
                path,
                stays: AtomicBool::new(false),
            }),
            // Nothing was ever kept in such a data directory.
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "the use of an engine is not marked");
                None
            }
        }
    }
}

impl Mark {
    /// Something may be left when this process has ended: it is looked for then.
    pub(super) fn keep(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if !self.stays.load(Ordering::Relaxed) {
            forget(&self.path);
        }
    }
}

fn forget(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(%error, path = %path.display(), "the mark of an engine's user stays");
    }
}

/// The marks of owners that have ended.
pub(super) struct Stale(Vec<PathBuf>);

impl Stale {
    pub(super) fn of(data: Option<&Path>) -> Self {
        let place = data.map(|data| data.join(PLACE));
        let listed = place.and_then(|place| fs::read_dir(place).ok());
        let is_stale = |name: &str| {
            // The boot, the owner, and which of its engines.
            let mut parts = name.strip_prefix(PREFIX)?.split('.');
            let (boot, owner) = (parts.next()?, parts.next()?);
            let owner = owner.rsplit_once('-').map_or(owner, |(owner, _)| owner);
            Some(boot != owner::boot() || owner::has_ended(owner))
        };
        let found = listed
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_str().and_then(is_stale) == Some(true));
        Self(found.map(|entry| entry.path()).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes away those whose engines have ended: nothing more comes from them.
    pub(super) fn forget(self) {
        for path in &self.0 {
            if !still_serves(path) {
                forget(path);
            }
        }
    }
}

/// Whether the engine that a mark names serves its socket.
fn still_serves(mark: &Path) -> bool {
    let socket = fs::read_to_string(mark).unwrap_or_default();
    is_served(&socket)
}

/// Whether a process listens, or talks, at this socket.
pub(super) fn is_served(socket: &str) -> bool {
    let listening = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let end = format!(" {socket}");
    !socket.is_empty() && listening.lines().any(|line| line.ends_with(&end))
}

/// The containers that owners of this data directory, or of others, left when they ended, by their
/// ids. The engine is asked only if an owner of this one ended without clearing up.
///
/// # Errors
/// When there is an engine and it cannot be asked.
pub async fn left(options: &Options) -> Result<Vec<String>, Error> {
    if Stale::of(options.data.as_deref()).is_empty() {
        return Ok(Vec::new());
    }
    match reach(options).await? {
        Some(engine) => engine.stale().await,
        None => Ok(Vec::new()),
    }
}

/// Removes them, and what killed owners left in the temporary directory. Waits, within bounds, for
/// engines of killed owners, which may be at work. The ids of the containers.
///
/// # Errors
/// When there is an engine and it cannot be asked, or a container cannot be removed.
pub async fn clear(options: &Options) -> Result<Vec<String>, Error> {
    place::sweep(&std::env::temp_dir());
    let stale = Stale::of(options.data.as_deref());
    if stale.is_empty() {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + ENDS_WITHIN;
    while stale.0.iter().any(|mark| still_serves(mark)) && Instant::now() < deadline {
        // There is no event for the end of a process of somebody else's.
        tokio::time::sleep(LOOK).await;
    }
    let Some(engine) = reach(options).await? else {
        return Ok(Vec::new());
    };
    take_away(&engine, stale).await
}

/// Removes what owners left that have ended, those of these marks among them.
pub(super) async fn take_away(engine: &Engine, stale: Stale) -> Result<Vec<String>, Error> {
    let mut orphans = Vec::new();
    if !stale.is_empty() {
        let ended = || Ok(orphans::end());
        orphans = blocking("end what a killed process left", ended).await?;
    }
    let removed = engine.sweep().await?;
    for id in &orphans {
        traces::clear(id);
    }
    if !stale.is_empty() {
        // Those above the containers' can only go after them.
        let swept = || {
            cgroup::sweep();
            Ok(())
        };
        blocking("remove control groups", swept).await?;
    }
    stale.forget();
    Ok(removed)
}

/// The engine; none where there is none any more.
async fn reach(options: &Options) -> Result<Option<Engine>, Error> {
    let choice = options.engine.clone();
    let way = blocking("look for an engine", move || find::look(&choice)).await;
    let way: Way = match way {
        Err(Error::Engine {
            trouble: Trouble::EngineMissing,
            ..
        }) => return Ok(None),
        other => other?,
    };
    Engine::reach(way, options.data.as_deref()).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lasts_as_long_as_its_owner_and_that_of_a_killed_one_until_it_is_forgotten() {
        let data = tempfile::tempdir().unwrap();
        let run = data.path().join(PLACE);
        assert!(Mark::make(data.path(), "1-2-3-0", Path::new("")).is_none());
        fs::create_dir(&run).unwrap();
        fs::write(run.join("open.lock"), "").unwrap();
        let name = format!("{}-0", owner::this_process());
        let socket = data.path().join("engine");
        let own = Mark::make(data.path(), &name, &socket).unwrap();
        assert!(Stale::of(Some(data.path())).is_empty(), "it lives");
        // Of this process's number, but another start.
        let (pid, rest) = name.split_once('-').unwrap();
        let (_, rest) = rest.split_once('-').unwrap();
        let killed = run.join(format!("{PREFIX}{}.{pid}-1-{rest}", owner::boot()));
        let earlier = run.join(format!("{PREFIX}another-boot.{name}"));
        fs::write(&killed, socket.to_str().unwrap()).unwrap();
        fs::write(&earlier, "").unwrap();
        let stale = Stale::of(Some(data.path()));
        assert_eq!(stale.0.len(), 2);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        stale.forget();
        assert!(killed.exists(), "its engine is still at work");
        assert!(!earlier.exists() && own.path.exists());
        drop(listener);
        Stale::of(Some(data.path())).forget();
        own.keep();
        let kept = own.path.clone();
        drop(own);
        assert!(kept.exists(), "something of it may be left");
        fs::remove_file(kept).unwrap();
        let left: Vec<_> = fs::read_dir(&run).unwrap().collect();
        assert_eq!(left.len(), 1, "what is no mark stays");
    }
}
