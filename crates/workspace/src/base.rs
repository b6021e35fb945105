//! Checked-out commits that workspaces share.
//!
//! A base is a whole tree, or a layer over another base: its directory then holds only what differs,
//! in the form that the kernel's overlay reads as a lower layer. A stack of such layers is bounded by
//! [`MAX_LAYERS`], and a base is not evicted while another lies over it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{self, Mode};

use crate::error::{Error, io, std_io};
use crate::lock::{Hold, Lock};
use crate::record::{self, Record, Stack};
use crate::setup;
use crate::store::{Store, check_name, names_in, rename_new};
use crate::usage;

/// How long a caller waits for another that builds the same base.
const BUILD_WAIT: Duration = Duration::from_secs(30 * 60);
/// Between two looks at another process's lock.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The most trees that a base consists of. Each costs a look at the first opening of a path.
pub const MAX_LAYERS: usize = 8;

/// A base that is present. While a handle lives, no process evicts it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Base {
    key: String,
    /// Never empty.
    trees: Arc<[PathBuf]>,
    _locks: Arc<[Lock]>,
}

impl Base {
    /// What these locks hold; `trees` is not empty.
    pub(crate) fn new(key: String, trees: Vec<PathBuf>, locks: Vec<Lock>) -> Base {
        Base {
            key,
            trees: trees.into(),
            _locks: locks.into(),
        }
    }

    /// The key under which it was built.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The directories with its files, the nearest first: what one has hides what those behind it
    /// have, and a character device 0:0 hides without putting anything there. Nobody writes to them
    /// once they are built.
    pub fn trees(&self) -> &[PathBuf] {
        &self.trees
    }

    /// Whether another base may lie over it.
    pub fn can_bear(&self) -> bool {
        self.trees.len() < MAX_LAYERS
    }
}

/// Whether to hold a base is to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Counts,
    DoesNotCount,
}

/// A base as [`Store::bases`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseInfo {
    /// The key under which it was built.
    pub key: String,
    /// Its size on disk in bytes, without what it lies over.
    pub bytes: u64,
    /// The key of the base that it lies over.
    pub parent: Option<String>,
    /// What uses it now: a workspace, or a process. What lies over it is another matter.
    pub used_by: Option<String>,
    /// When it was last asked for.
    pub last_use: SystemTime,
}

impl Store {
    /// The base `key`, built by `build` into the empty directory that it is given if it is not
    /// present. Whoever asks at the same time, in whatever process, waits for the one that builds.
    /// What a failed or killed build leaves is never seen.
    ///
    /// # Errors
    /// Those of `build`; [`Error::Name`], [`Error::BaseBusy`], [`Error::Io`].
    pub fn base<E: From<Error>>(
        &self,
        key: &str,
        build: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Base, E> {
        self.layered_base(key, |tree| build(tree).map(|()| None))
    }

    /// As [`Store::base`]; where `build` returns a base, what it wrote is a layer over that one: see
    /// [`Base::trees`].
    ///
    /// # Errors
    /// Those of [`Store::base`]; [`Error::TooManyLayers`] if that base cannot bear another.
    pub fn layered_base<E: From<Error>>(
        &self,
        key: &str,
        build: impl FnOnce(&Path) -> Result<Option<Base>, E>,
    ) -> Result<Base, E> {
        check_name("base", key)?;
        let start = Instant::now();
        let mut build = Some(build);
        loop {
            if let Some(base) = self.present(key, Use::Counts)? {
                return Ok(base);
            }
            if let Some(_lock) = Lock::file(&self.locks().join(key), Hold::Alone)? {
                if self.is_broken(key)? {
                    tracing::warn!(
                        base = key,
                        "a base is made again: what it lies over is gone"
                    );
                    self.discard(&self.base_dir(key))?;
                }
                if !self.is_present(key) {
                    // Evicted between the build and the next look: the caller may ask again.
                    let build = build.take().ok_or_else(|| Error::NoBase {
                        key: key.to_owned(),
                    })?;
                    self.build(key, build)?;
                    continue;
                }
            }
            if start.elapsed() > BUILD_WAIT {
                return Err(Error::BaseBusy {
                    key: key.to_owned(),
                    waited: start.elapsed(),
                }
                .into());
            }
            // The kernel tells nobody when a lock is released, and a blocking lock has no deadline.
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// The base `key` if it is present.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Io`].
    pub fn find_base(&self, key: &str) -> Result<Option<Base>, Error> {
        check_name("base", key)?;
        self.present(key, Use::Counts)
    }

    /// As [`Store::find_base`], for whoever only looks at it: that does not count as a use.
    ///
    /// # Errors
    /// Those of [`Store::find_base`].
    pub fn look_at_base(&self, key: &str) -> Result<Option<Base>, Error> {
        check_name("base", key)?;
        self.present(key, Use::DoesNotCount)
    }

    /// The keys of the bases that lie directly over a base, sorted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn bases_over(&self, key: &str) -> Result<Vec<String>, Error> {
        let mut over = names_in(&self.base_dir(""))?;
        // A base whose record is damaged is made again when it is asked for.
        over.retain(|other| {
            record::parent(&self.base_dir(other)).is_ok_and(|parent| parent.as_deref() == Some(key))
        });
        Ok(over)
    }

    /// The keys of the bases that are present and begin with `prefix`, the last used first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn recent_bases(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for key in names_in(&self.base_dir(""))? {
            if key.starts_with(prefix) {
                found.push((self.last_use(&key)?, key));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found.into_iter().map(|(_, key)| key).collect())
    }

    pub(crate) fn is_present(&self, key: &str) -> bool {
        fs::lstat(self.base_dir(key)).is_ok()
    }

    /// When a base was last asked for; long ago, if nobody knows.
    fn last_use(&self, key: &str) -> Result<SystemTime, Error> {
        let lock = self.locks().join(key);
        match std::fs::metadata(&lock).and_then(|metadata| metadata.modified()) {
            Ok(time) => Ok(time),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(SystemTime::UNIX_EPOCH)
            }
            Err(error) => Err(std_io("look at", &lock)(error)),
        }
    }

    /// The trees of a base, nearest first, as far as they are there.
    pub(crate) fn trees_of(&self, key: &str) -> Result<Vec<PathBuf>, Error> {
        let mut trees = vec![self.base_dir(key).join("tree")];
        let mut at = record::parent(&self.base_dir(key))?;
        while let Some(key) = at.filter(|_| trees.len() < MAX_LAYERS) {
            let dir = self.base_dir(&key);
            trees.push(dir.join("tree"));
            at = record::parent(&dir)?;
        }
        Ok(trees)
    }

    /// The trees that layers lie over, nearest first: what a setup left, then the base's.
    pub(crate) fn trees_under(&self, stack: &Stack) -> Result<Vec<PathBuf>, Error> {
        let over = stack.over.iter().map(|key| self.base_dir(key).join("tree"));
        let mut trees: Vec<PathBuf> = over.collect();
        trees.extend(self.trees_of(&stack.base)?);
        Ok(trees)
    }

    /// Whether a base is there without what it lies over. Somebody removed that by hand: the store
    /// does not.
    fn is_broken(&self, key: &str) -> Result<bool, Error> {
        match self.is_present(key).then(|| self.trees_of(key)) {
            None => Ok(false),
            Some(Ok(trees)) => Ok(trees.iter().any(|tree| fs::lstat(tree).is_err())),
            Some(Err(Error::Record { .. })) => Ok(true),
            Some(Err(error)) => Err(error),
        }
    }

    /// Holds a base with all that it lies over, if all of it is there.
    pub(crate) fn present(&self, key: &str, uses: Use) -> Result<Option<Base>, Error> {
        let (mut trees, mut locks) = (Vec::new(), Vec::new());
        let mut next = Some(key.to_owned());
        while let Some(at) = next {
            let dir = self.base_dir(&at);
            if !self.is_present(&at) || trees.len() >= MAX_LAYERS {
                return Ok(None);
            }
            let path = self.locks().join(&at);
            match Lock::file(&path, Hold::Shared)? {
                Some(lock) if self.is_present(&at) => {
                    if uses == Use::Counts {
                        lock.touch(&path)?;
                    }
                    locks.push(lock);
                }
                // Somebody builds or evicts it, or looks whether it may be evicted.
                _ => return Ok(None),
            }
            trees.push(dir.join("tree"));
            next = match record::parent(&dir) {
                Err(Error::Record { .. }) => return Ok(None),
                parent => parent?,
            };
        }
        Ok(Some(Base::new(key.to_owned(), trees, locks)))
    }

    fn build<E: From<Error>>(
        &self,
        key: &str,
        build: impl FnOnce(&Path) -> Result<Option<Base>, E>,
    ) -> Result<(), E> {
        let (fresh, _lock) = self.fresh(&self.new_bases(), key)?;
        let tree = fresh.join("tree");
        let place = self.base_dir(key);
        let built = make_dir(&tree)
            .map_err(E::from)
            .and_then(|()| build(&tree))
            .and_then(|parent| {
                if let Some(parent) = &parent {
                    if !parent.can_bear() {
                        let key = key.to_owned();
                        return Err(Error::TooManyLayers { key }.into());
                    }
                    record::write_parent(&fresh, parent.key())?;
                }
                // The base below is held until this one is in place, where its record keeps it.
                rename_new(&fresh, &place).map_err(|errno| io("put in place", &place)(errno).into())
            });
        if built.is_err() {
            self.discard(&fresh)?;
        }
        built
    }

    /// All bases with size and last use, sorted by key. The first listing of a base measures it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn bases(&self) -> Result<Vec<BaseInfo>, Error> {
        let mut infos = Vec::new();
        let under = self.under_workspaces()?;
        for key in names_in(&self.base_dir(""))? {
            let used_by = match under.get(&key) {
                Some(id) => Some(format!("workspace {id}")),
                None => match Lock::file(&self.locks().join(&key), Hold::Alone)? {
                    Some(_free) => None,
                    None => Some("a process".to_owned()),
                },
            };
            // Held while it is measured, without counting as a use.
            let lock = self.locks().join(&key);
            let Some(_held) = Lock::file(&lock, Hold::Shared)? else {
                continue;
            };
            if !self.is_present(&key) {
                continue;
            }
            let last_use = self.last_use(&key)?;
            let size = self.base_dir(&key).join("size");
            let bytes = match record::read_number(&size)? {
                Some(bytes) => bytes,
                None => {
                    let bytes = self.measure(&self.base_dir(&key))?;
                    record::write(&size, &bytes.to_string())?;
                    bytes
                }
            };
            infos.push(BaseInfo {
                // A base whose record is damaged is made again when it is asked for.
                parent: record::parent(&self.base_dir(&key)).unwrap_or_default(),
                key,
                bytes,
                used_by,
                last_use,
            });
        }
        Ok(infos)
    }

    /// What a base takes on disk: its files, and for what a setup left the home, too.
    fn measure(&self, dir: &Path) -> Result<u64, Error> {
        let bytes = usage::bytes(&dir.join("tree"))?;
        let home = dir.join(setup::HOME);
        if fs::lstat(&home).is_err() {
            return Ok(bytes);
        }
        Ok(bytes.saturating_add(usage::bytes(&home)?))
    }

    /// The bases that workspaces lie over, each with one of them; what setups left, too.
    fn under_workspaces(&self) -> Result<HashMap<String, String>, Error> {
        let mut under = HashMap::new();
        for id in self.list()? {
            if let Ok(record) = Record::read(&self.workspace_dir(&id)) {
                for stack in record.stacks() {
                    let bases = stack.over.iter().chain([&stack.base]);
                    under.extend(bases.map(|base| (base.clone(), id.clone())));
                }
            }
        }
        Ok(under)
    }

    /// Moves a base to the trash.
    ///
    /// # Errors
    /// [`Error::BaseInUse`] while a workspace or another base lies over it, or a process holds or builds it;
    /// [`Error::NoBase`], [`Error::Name`], [`Error::Io`].
    pub fn evict(&self, key: &str) -> Result<(), Error> {
        check_name("base", key)?;
        if !self.is_present(key) {
            return Err(Error::NoBase {
                key: key.to_owned(),
            });
        }
        let lock = self.locks().join(key);
        let Some(_held) = Lock::file(&lock, Hold::Alone)? else {
            return Err(Error::BaseInUse {
                key: key.to_owned(),
                user: "a process".to_owned(),
            });
        };
        if let Some(id) = self.under_workspaces()?.get(key) {
            return Err(Error::BaseInUse {
                key: key.to_owned(),
                user: format!("workspace {id}"),
            });
        }
        if let Some(other) = self.bases_over(key)?.first() {
            return Err(Error::BaseInUse {
                key: key.to_owned(),
                user: format!("base {other}"),
            });
        }
        self.discard(&self.base_dir(key))?;
        std::fs::remove_file(&lock).map_err(std_io("remove", &lock))
    }
}

/// Makes a directory that an agent will see: readable by all, whatever the umask.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    let mode = Mode::from_raw_mode(0o755);
    fs::mkdir(path, mode).map_err(io("make", path))?;
    let made = fs::lstat(path).map_err(io("look at", path))?;
    if made.st_mode & 0o777 != 0o755 {
        fs::chmod(path, mode).map_err(io("set the permissions of", path))?;
    }
    Ok(())
}
