//! The `git` program: found once, run with a fixed environment.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::Error;
use crate::process::Call;

/// Variables that would lead git in the user's repository to another place than the one named.
const LOCATION_VARIABLES: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INDEX_VERSION",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_EXTERNAL_DIFF",
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
];

/// A flag that stops what runs: cheap to clone, checked at least every 50 ms.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Sets it, for ever.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn check(&self, doing: &'static str) -> Result<(), Error> {
        if self.is_cancelled() {
            Err(Error::Cancelled { doing })
        } else {
            Ok(())
        }
    }
}

/// A version of git, comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 2 of 2.39.5.
    pub major: u32,
    /// The 39 of 2.39.5.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The oldest git with `merge-tree --write-tree`.
const OLDEST: Version = Version {
    major: 2,
    minor: 38,
};

/// The `git` program and the limits under which it runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Program {
    found: Arc<Found>,
    cancel: Cancel,
    deadline: Duration,
}

#[derive(Debug)]
struct Found {
    path: PathBuf,
    search: OsString,
    version: OnceLock<Version>,
}

impl Program {
    /// Finds `git` in a list of directories in the form of `PATH`. Its version is checked at its first use.
    pub fn find(path_list: &OsStr) -> Result<Program, Error> {
        let path = std::env::split_paths(path_list)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join("git"))
            .find(|file| {
                rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
            })
            .ok_or(Error::ProgramMissing)?;
        Ok(Program {
            found: Arc::new(Found {
                path,
                search: path_list.to_owned(),
                version: OnceLock::new(),
            }),
            cancel: Cancel::new(),
            deadline: Duration::from_secs(600),
        })
    }

    /// The same program under another cancellation.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Cancel) -> Program {
        self.cancel = cancel;
        self
    }

    /// The same program with another limit for one process; ten minutes without this.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Program {
        self.deadline = deadline;
        self
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.found.path
    }

    /// Its version.
    ///
    /// # Errors
    /// [`Error::ProgramTooOld`] below 2.38.
    pub fn version(&self) -> Result<Version, Error> {
        if let Some(version) = self.found.version.get() {
            return Ok(*version);
        }
        let doing = "asking for its version";
        let mut command = Command::new(&self.found.path);
        command
            .env_clear()
            .env("PATH", &self.found.search)
            .env("LC_ALL", "C")
            .arg("--version");
        let output = self
            .execute(Call::new(doing, command).limit(4096))?
            .success(doing)?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let version = parse_version(&text).ok_or(Error::Output { doing })?;
        if version < OLDEST {
            return Err(Error::ProgramTooOld {
                found: text.trim_start_matches("git version ").to_owned(),
            });
        }
        Ok(*self.found.version.get_or_init(|| version))
    }

    /// The directories in which programs are found, in the form of `PATH`.
    pub(crate) fn search(&self) -> &OsStr {
        &self.found.search
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// A command in a repository of our own: nothing is inherited, nothing of the host is read.
    pub(crate) fn trusted(&self, git_dir: &Path) -> Result<Command, Error> {
        self.version()?;
        let mut command = Command::new(&self.found.path);
        command
            .env_clear()
            .env("PATH", &self.found.search)
            .env("HOME", "/nonexistent")
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_PAGER", "cat")
            .current_dir(git_dir)
            .arg("--no-pager")
            .arg({
                let mut arg = OsString::from("--git-dir=");
                arg.push(git_dir);
                arg
            });
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "protocol.allow=never",
            "gc.auto=0",
            "maintenance.auto=false",
        ] {
            command.arg("-c").arg(setting);
        }
        Ok(command)
    }

    /// A command in the user's repository, as the user: their environment and settings, but for what would lead it to
    /// another repository.
    pub(crate) fn as_user(&self, directory: &Path) -> Result<Command, Error> {
        self.version()?;
        let mut command = Command::new(&self.found.path);
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_PAGER", "cat")
            .current_dir(directory)
            .arg("--no-pager");
        for name in LOCATION_VARIABLES {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// As [`Program::as_user`], for reading only: no hook, no monitor, no optional lock.
    pub(crate) fn as_user_reading(&self, directory: &Path) -> Result<Command, Error> {
        let mut command = self.as_user(directory)?;
        command.env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
        for setting in [
            "core.fsmonitor=false",
            "core.hooksPath=/dev/null",
            "core.untrackedCache=keep",
            "gc.auto=0",
            "maintenance.auto=false",
        ] {
            command.arg("-c").arg(setting);
        }
        Ok(command)
    }
}

/// `git version 2.39.5 (Apple Git-154)` and the like.
fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.strip_prefix("git version ")?.split(['.', ' ', '-']);
    Some(Version {
        major: parts.next()?.parse().ok()?,
        minor: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_vendors_are_read() {
        let v = |minor| Some(Version { major: 2, minor });
        assert_eq!(parse_version("git version 2.39.5 (Apple Git-154)"), v(39));
        assert_eq!(parse_version("git version 2.47.3"), v(47));
        assert_eq!(parse_version("git version 2.45.windows.1"), v(45));
        assert_eq!(parse_version("something else"), None);
    }
}
