//! Marks of owners that use an engine, in their data directories.
//!
//! A mark is there before an engine is started or asked, and goes at its owner's end. That of an owner
//! that was killed is the only reason to ask an engine what is left. It goes when the engine has been
//! asked, or when there has been no such engine for [`ABSENT_FOR`]: whoever uses one that comes back
//! later removes what is left in it, with a mark or without.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::{Choice, Way};
use crate::owner;

/// Where marks are, in a data directory, and how their names begin.
const PLACE: &str = "run";
const PREFIX: &str = "engine.";
/// What a mark says of the engine: that its owner started one, with its socket, or where one listens.
const STARTED: &str = "started ";
const LISTENS: &str = "listens ";
/// The longest mark that is read, in bytes: a path, and a word.
const LONGEST: u64 = 8192;
/// How the name of a mark ends whose engine was not there when it was looked for. Its time of change is
/// when that was found first.
const ABSENT: &str = ".absent";
/// How long there must be no such engine.
pub(super) const ABSENT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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

/// Whether it is gone.
fn forget(path: &Path) -> bool {
    match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "the mark of an engine's user stays");
            false
        }
    }
}

/// The marks of owners that have ended.
pub(super) struct Stale(Vec<Left>);

/// One of them.
pub(super) struct Left {
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

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which engines are to be asked, each once.
    pub(super) fn choices(&self, chosen: &Choice) -> Vec<Choice> {
        let mut all = Vec::new();
        for left in &self.0 {
            let choice = left.used.choice(chosen);
            if !all.contains(&choice) {
                all.push(choice);
            }
        }
        all
    }

    /// Those of owners whose engines are reached so, for somebody who would choose so.
    pub(super) fn reached_by(
        &self,
        choice: &Choice,
        chosen: &Choice,
    ) -> impl Iterator<Item = &Left> {
        self.0
            .iter()
            .filter(|left| left.used.choice(chosen) == *choice)
    }

    /// Whether an engine that an owner started goes on.
    pub(super) fn still_serve(&self) -> bool {
        self.0.iter().any(Left::still_serves)
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

    /// Which engine that is, for people.
    pub(super) fn engine(&self) -> String {
        match &self.used {
            Used::At(socket) => socket.display().to_string(),
            Used::Started(_) => "podman".to_owned(),
            Used::Unknown => "unknown".to_owned(),
        }
    }

    fn is_noted(&self) -> bool {
        self.path
            .as_os_str()
            .as_bytes()
            .ends_with(ABSENT.as_bytes())
    }

    /// Whether its engine has been away for so long that it can be forgotten.
    pub(super) fn is_long_absent(&self, now: SystemTime) -> bool {
        let since = fs::metadata(&self.path).and_then(|it| it.modified());
        let age = since.ok().and_then(|since| now.duration_since(since).ok());
        self.is_noted() && age.is_some_and(|age| age > ABSENT_FOR)
    }

    /// Notes that its engine is not there, from now on if that is new; one that can be forgotten is.
    /// Whether it was.
    pub(super) fn is_absent(&self, now: SystemTime) -> bool {
        if self.is_long_absent(now) {
            return forget(&self.path);
        }
        if !self.is_noted() {
            let mut name = self.path.clone().into_os_string();
            name.push(ABSENT);
            noted(
                set_time(&self.path, now).and_then(|()| fs::rename(&self.path, name)),
                &self.path,
            );
        }
        false
    }

    /// Notes that its engine is there again, although it cannot be asked.
    pub(super) fn is_back(&self, now: SystemTime) {
        if self.is_noted() {
            noted(set_time(&self.path, now), &self.path);
        }
    }
}

fn set_time(path: &Path, now: SystemTime) -> std::io::Result<()> {
    fs::File::options()
        .append(true)
        .open(path)?
        .set_modified(now)
}

fn noted(done: std::io::Result<()>, path: &Path) {
    if let Err(error) = done {
        tracing::debug!(%error, path = %path.display(), "that an engine is away is not noted");
    }
}

/// Whether a process listens, or talks, at this socket.
pub(super) fn is_served(socket: &str) -> bool {
    let listening = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let end = format!(" {socket}");
    !socket.is_empty() && listening.lines().any(|line| line.ends_with(&end))
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
    fn a_mark_whose_engine_was_away_for_a_week_is_forgotten_and_not_before() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join(PLACE)).unwrap();
        let socket = data.path().join("docker.sock");
        let mark = data.path().join(PLACE).join("engine.another-boot.1-2-3-0");
        fs::write(&mark, format!("{LISTENS}{}", socket.display())).unwrap();
        let only = || Stale::of(Some(data.path())).0.pop().unwrap();
        let (begin, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
        // However long its owner had lived.
        set_time(&mark, begin - 30 * day).unwrap();
        assert!(!only().is_long_absent(begin));
        assert!(!only().is_absent(begin), "it was not looked for before");
        assert!(!only().is_absent(begin + 6 * day));
        assert_eq!(only().engine(), socket.display().to_string());
        // It was there meanwhile.
        only().is_back(begin + 6 * day);
        assert!(!only().is_absent(begin + 8 * day));
        assert!(
            !only().is_absent(begin - 8 * day),
            "nor where a clock went back"
        );
        assert!(only().is_long_absent(begin + 14 * day));
        assert!(only().is_absent(begin + 14 * day));
        assert!(Stale::of(Some(data.path())).is_empty());
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
