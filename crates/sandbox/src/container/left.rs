//! What owners that have ended left in an engine.
//!
//! An owner leaves a mark in its data directory before it starts an engine, and takes it away at its
//! end. The mark of one that was killed is the only reason to ask an engine what is left: whoever
//! clears up after users of other kinds starts nothing and waits for nothing.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::engine::{Engine, clear_traces};
use super::{Choice, Options, Way, blocking, find, orphans, place};
use crate::namespace::cgroup;
use crate::{Error, Trouble, owner};

/// Where marks are, in a data directory, and how their names begin.
const PLACE: &str = "run";
const PREFIX: &str = "engine.";
/// What a mark says of the engine: that its owner started one, with its socket, or where one listens.
const STARTED: &str = "started ";
const LISTENS: &str = "listens ";
/// The longest mark that is read, in bytes: a path, and a word.
const LONGEST: u64 = 8192;
/// How long an engine of a killed owner is waited for: it ends some seconds after what it was asked
/// last, and may be making a container until then.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// That a process uses an engine. Removed on drop, unless something of it may be left.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    /// For so many reasons.
    stays: AtomicUsize,
}

impl Mark {
    /// Marks that this process uses the engine that is reached so; its socket is `own`, if this process
    /// starts it.
    pub(super) fn make(data: &Path, name: &str, way: &Way, own: &Path) -> Option<Self> {
        let (word, socket) = match way {
            Way::Socket(path) => (LISTENS, path.as_path()),
            Way::Start { .. } => (STARTED, own),
        };
        let name = format!("{PREFIX}{}.{name}", owner::boot());
        let path = data.join(PLACE).join(name);
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(word.as_bytes())?;
                file.write_all(socket.as_os_str().as_encoded_bytes())
            });
        match made {
            Ok(()) => Some(Self {
                path,
                stays: AtomicUsize::new(0),
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
        self.stays.fetch_add(1, Ordering::Relaxed);
    }

    /// One of the reasons is gone.
    pub(super) fn let_go(&self) {
        self.stays.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if self.stays.load(Ordering::Relaxed) == 0 {
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
pub(super) struct Stale(Vec<Left>);

/// One of them.
struct Left {
    path: PathBuf,
    used: Used,
}

/// Which engine an owner used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Used {
    /// One that it started itself, with this socket: any Podman of this user finds what it left.
    Started(PathBuf),
    /// One that listens there.
    At(PathBuf),
    /// Nobody knows.
    Unknown,
}

impl Used {
    fn of(mark: &Path) -> Self {
        let mut bytes = Vec::new();
        let read = fs::File::open(mark).and_then(|it| it.take(LONGEST).read_to_end(&mut bytes));
        let after = |word: &str| {
            let path = bytes.strip_prefix(word.as_bytes())?;
            (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
        };
        match (read, after(STARTED), after(LISTENS)) {
            (Ok(_), Some(socket), _) => Self::Started(socket),
            (Ok(_), None, Some(socket)) => Self::At(socket),
            _ => Self::Unknown,
        }
    }

    /// Whether what was left is found by an engine that is reached so.
    fn is_found(&self, way: &Way) -> bool {
        match (self, way) {
            (Self::Unknown, _) | (Self::Started(_), Way::Start { .. }) => true,
            (Self::At(path), Way::Socket(other)) => path == other,
            _ => false,
        }
    }

    /// How to reach it, for somebody who would choose so.
    fn choice(&self, chosen: &Choice) -> Choice {
        match (self, chosen) {
            (Self::At(path), _) => Choice::Socket(path.clone()),
            (Self::Started(_), Choice::Found) => Choice::Podman(Vec::new()),
            (Self::Started(_) | Self::Unknown, chosen) => chosen.clone(),
        }
    }
}

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
        let left = found.map(|entry| {
            let path = entry.path();
            let used = Used::of(&path);
            Left { path, used }
        });
        Self(left.collect())
    }

    /// Those of owners of whom an engine that is reached so knows what they left.
    pub(super) fn found_by(self, way: &Way) -> Self {
        let found = self.0.into_iter().filter(|left| left.used.is_found(way));
        Self(found.collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which engines are to be asked, each once.
    fn choices(&self, chosen: &Choice) -> Vec<Choice> {
        let mut all = Vec::new();
        for left in &self.0 {
            let choice = left.used.choice(chosen);
            if !all.contains(&choice) {
                all.push(choice);
            }
        }
        all
    }

    /// Takes away those whose engines have ended: nothing more comes from them.
    pub(super) fn forget(self) {
        for left in &self.0 {
            if !left.still_serves() {
                forget(&left.path);
            }
        }
    }
}

impl Left {
    /// Whether the engine that its owner started serves its socket.
    fn still_serves(&self) -> bool {
        match &self.used {
            Used::Started(socket) => is_served(&socket.to_string_lossy()),
            Used::At(_) | Used::Unknown => false,
        }
    }
}

/// Whether a process listens, or talks, at this socket.
pub(super) fn is_served(socket: &str) -> bool {
    let listening = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let end = format!(" {socket}");
    !socket.is_empty() && listening.lines().any(|line| line.ends_with(&end))
}

/// The containers that owners of this data directory, or of others, left when they ended, by their
/// ids. An engine is asked only if an owner of this one used it and ended without clearing up.
///
/// # Errors
/// When there is an engine and it cannot be asked.
pub async fn left(options: &Options) -> Result<Vec<String>, Error> {
    let stale = Stale::of(options.data.as_deref());
    let mut found = Vec::new();
    for choice in stale.choices(&options.engine) {
        if let Some((engine, _)) = reach(&choice, options).await? {
            found.extend(engine.stale().await?);
        }
    }
    // The same one may have been asked in two ways.
    found.sort_unstable();
    found.dedup();
    Ok(found)
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
    while stale.0.iter().any(Left::still_serves) && Instant::now() < deadline {
        // There is no event for the end of a process of somebody else's.
        tokio::time::sleep(LOOK).await;
    }
    let (mut removed, mut failed) = (Vec::new(), None);
    for choice in stale.choices(&options.engine) {
        let done = async {
            let Some((engine, way)) = reach(&choice, options).await? else {
                return Ok(Vec::new());
            };
            let its = Stale::of(options.data.as_deref()).found_by(&way);
            take_away(&engine, its).await
        };
        // One that does not answer keeps nobody from asking the others.
        match done.await {
            Ok(some) => removed.extend(some),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// Removes what owners left that have ended, those of these marks among them.
pub(super) async fn take_away(engine: &Engine, stale: Stale) -> Result<Vec<String>, Error> {
    let mut orphans = Vec::new();
    if !stale.is_empty() {
        let ended = || Ok(orphans::end());
        orphans = blocking("end what a killed process left", ended).await?;
    }
    let removed = engine.sweep().await?;
    clear_traces(orphans).await?;
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

/// The engine, and how it was reached; none where there is none any more.
async fn reach(choice: &Choice, options: &Options) -> Result<Option<(Engine, Way)>, Error> {
    let choice = choice.clone();
    let way = blocking("look for an engine", move || find::look(&choice)).await;
    let way: Way = match way {
        Err(Error::Engine {
            trouble: Trouble::EngineMissing,
            ..
        }) => return Ok(None),
        other => other?,
    };
    let engine = Engine::reach(way.clone(), options.data.as_deref()).await?;
    Ok(Some((engine, way)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lasts_as_long_as_its_owner_and_that_of_a_killed_one_until_it_is_forgotten() {
        let data = tempfile::tempdir().unwrap();
        let run = data.path().join(PLACE);
        let started = Way::Start {
            podman: "/usr/bin/podman".into(),
            arguments: Vec::new(),
        };
        let none = Mark::make(data.path(), "1-2-3-0", &started, Path::new("/x"));
        assert!(none.is_none());
        fs::create_dir(&run).unwrap();
        fs::write(run.join("open.lock"), "").unwrap();
        let name = format!("{}-0", owner::this_process());
        let socket = data.path().join("engine");
        let own = Mark::make(data.path(), &name, &started, &socket).unwrap();
        assert!(Stale::of(Some(data.path())).is_empty(), "it lives");
        // Of this process's number, but another start.
        let (pid, rest) = name.split_once('-').unwrap();
        let (_, rest) = rest.split_once('-').unwrap();
        let killed = run.join(format!("{PREFIX}{}.{pid}-1-{rest}", owner::boot()));
        let earlier = run.join(format!("{PREFIX}another-boot.{name}"));
        fs::copy(&own.path, &killed).unwrap();
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

    #[test]
    fn a_mark_says_which_engine_its_owner_used_whatever_is_chosen_now() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join(PLACE)).unwrap();
        let docker = Way::Socket("/run/docker.sock".into());
        let started = Way::Start {
            podman: "/usr/bin/podman".into(),
            arguments: Vec::new(),
        };
        let own = Path::new("/tmp/skep-engine/engine");
        let used = |name: &str, way: &Way| {
            let mark = Mark::make(data.path(), name, way, own).unwrap();
            Used::of(&mark.path)
        };
        let (at, of_own) = (used("1-2-3-0", &docker), used("1-2-3-1", &started));
        assert_eq!(at, Used::At("/run/docker.sock".into()));
        assert_eq!(of_own, Used::Started(own.to_owned()));
        for chosen in [Choice::Found, Choice::Socket("/other".into())] {
            assert_eq!(
                at.choice(&chosen),
                Choice::Socket("/run/docker.sock".into())
            );
        }
        assert_eq!(of_own.choice(&Choice::Found), Choice::Podman(Vec::new()));
        assert!(at.is_found(&docker) && !at.is_found(&started));
        assert!(of_own.is_found(&started) && !of_own.is_found(&docker));
        assert!(!at.is_found(&Way::Socket("/other".into())));
        // One that says nothing, or something else, is nobody's.
        let odd = data.path().join("odd");
        fs::write(&odd, "listens ").unwrap();
        assert_eq!(Used::of(&odd), Used::Unknown);
        assert!(Used::Unknown.is_found(&docker));
    }
}
