//! Checked-out commits that workspaces share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{self, Mode};

use crate::error::{Error, io, std_io};
use crate::lock::{Hold, Lock};
use crate::record;
use crate::store::{Store, check_name, names_in, rename_new};
use crate::usage;

/// How long a caller waits for another that builds the same base.
const BUILD_WAIT: Duration = Duration::from_secs(30 * 60);
/// Between two looks at another process's lock.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A base that is present. While a handle lives, no process evicts it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Base {
    key: String,
    path: PathBuf,
    _lock: Arc<Lock>,
}

impl Base {
    /// The key under which it was built.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The directory with its files. Nobody writes to it once it is built.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A base as [`Store::bases`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseInfo {
    /// The key under which it was built.
    pub key: String,
    /// Its size on disk in bytes.
    pub bytes: u64,
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
        check_name("base", key)?;
        let start = Instant::now();
        let mut build = Some(build);
        loop {
            if let Some(base) = self.present(key)? {
                return Ok(base);
            }
            if let Some(_lock) = Lock::file(&self.locks().join(key), Hold::Alone)? {
                if !self.is_present(key) {
                    // Evicted between the build and the next look: the caller may ask again.
                    let build = build.take().ok_or_else(|| Error::NoBase {
                        key: key.to_owned(),
                    })?;
                    self.build(key, build)?;
                }
                continue;
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
        self.present(key)
    }

    fn is_present(&self, key: &str) -> bool {
        fs::lstat(self.base_dir(key)).is_ok()
    }

    fn present(&self, key: &str) -> Result<Option<Base>, Error> {
        if !self.is_present(key) {
            return Ok(None);
        }
        let path = self.locks().join(key);
        match Lock::file(&path, Hold::Shared)? {
            Some(lock) if self.is_present(key) => {
                lock.touch(&path)?;
                Ok(Some(Base {
                    key: key.to_owned(),
                    path: self.base_dir(key).join("tree"),
                    _lock: Arc::new(lock),
                }))
            }
            _ => Ok(None),
        }
    }

    fn build<E: From<Error>>(
        &self,
        key: &str,
        build: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let (fresh, _lock) = self.fresh(&self.new_bases(), key)?;
        let tree = fresh.join("tree");
        let built = make_dir(&tree)
            .map_err(E::from)
            .and_then(|()| build(&tree))
            .and_then(|()| {
                let place = self.base_dir(key);
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
        for key in names_in(&self.base_dir(""))? {
            // Held while it is measured, without counting as a use.
            let lock = self.locks().join(&key);
            let Some(_held) = Lock::file(&lock, Hold::Shared)? else {
                continue;
            };
            if !self.is_present(&key) {
                continue;
            }
            let last_use = std::fs::metadata(&lock)
                .and_then(|metadata| metadata.modified())
                .map_err(std_io("look at", &lock))?;
            let size = self.base_dir(&key).join("size");
            let bytes = match record::read_number(&size)? {
                Some(bytes) => bytes,
                None => {
                    let bytes = usage::bytes(&self.base_dir(&key).join("tree"))?;
                    record::write(&size, &bytes.to_string())?;
                    bytes
                }
            };
            infos.push(BaseInfo {
                key,
                bytes,
                last_use,
            });
        }
        Ok(infos)
    }

    /// Moves a base to the trash.
    ///
    /// # Errors
    /// [`Error::BaseInUse`] while a workspace lies over it or a process holds or builds it;
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
        for id in self.list()? {
            if record::Record::read(&self.workspace_dir(&id)).is_ok_and(|record| record.base == key)
            {
                return Err(Error::BaseInUse {
                    key: key.to_owned(),
                    user: format!("workspace {id}"),
                });
            }
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
