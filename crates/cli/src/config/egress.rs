//! What the configuration says of egress, as it is at each moment.

use super::{Environment, File, presets::Machine};
use domain::egress::{Presets, Users};
use gateway::Configured;
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use tokio::runtime::{Handle, RuntimeFlavor};

/// What tells one state of a file from another.
type Stamp = Option<(u64, u64, i64, i64, i64, i64)>;

/// The table `[egress]` of a configuration file, which is read again when the file has changed.
pub(crate) struct Watched {
    path: PathBuf,
    machine: Machine,
    known: Mutex<Known>,
    presets: OnceLock<Arc<Presets>>,
}

/// What was read last.
struct Known {
    stamp: Stamp,
    users: Result<Arc<Users>, String>,
    /// Whether there ever was anything in the file.
    filled: bool,
}

impl Known {
    fn new(path: &Path, filled: bool) -> Self {
        // Taken before the file is read: what is written meanwhile is read the next time.
        let stamp = stamp(path);
        let is_empty = stamp.is_none_or(|(_, length, ..)| length == 0);
        Self {
            stamp,
            // Whoever writes a file anew empties it first: what it denied must not be allowed then.
            users: match filled && is_empty {
                true => Err(format!(
                    "{} is gone or empty, as while it is being written; where nothing is to be in \
                     it, write a comment",
                    path.display()
                )),
                false => read(path),
            },
            filled: filled || !is_empty,
        }
    }
}

impl Watched {
    /// The one in this file.
    pub(crate) fn new(path: PathBuf, env: &Environment) -> Self {
        let known = Mutex::new(Known::new(&path, false));
        Self {
            path,
            machine: Machine::new(env),
            known,
            presets: OnceLock::new(),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    let written = (found.mtime(), found.mtime_nsec());
    Some((
        found.ino(),
        found.len(),
        written.0,
        written.1,
        changed.0,
        changed.1,
    ))
}

fn read(path: &Path) -> Result<Arc<Users>, String> {
    let file = File::read(path).map_err(|error| domain::failure::chain(&error))?;
    Ok(Arc::new(file.egress))
}

impl Configured for Watched {
    fn users(&self) -> Result<Arc<Users>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.stamp != stamp(&self.path) {
            *known = Known::new(&self.path, known.filled);
        }
        known.users.clone()
    }

    fn presets(&self) -> Arc<Presets> {
        if let Some(known) = self.presets.get() {
            return Arc::clone(known);
        }
        // Programs are waited for, by whoever asks first and by all that ask meanwhile: if all
        // threads of the runtime waited here, nobody would be left to see that a program has ended.
        let find = || {
            let found = self
                .presets
                .get_or_init(|| Arc::new(self.machine.presets()));
            Arc::clone(found)
        };
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(find),
            _ => find(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_seen_at_once_and_a_broken_file_is_an_error_until_it_is_mended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let watched = Watched::new(path.clone(), &Environment::of([]));
        let first = watched.users().unwrap();
        assert!(first.asked);
        assert!(Arc::ptr_eq(&first, &watched.users().unwrap()));
        fs::write(&path, "[egress]\nasked = false\n").unwrap();
        assert!(!watched.users().unwrap().asked);
        fs::write(&path, "[egress]\naskd = false\n").unwrap();
        let error = watched.users().unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("`asked`"),
            "{error}"
        );
        fs::write(&path, "[[egress.deny]]\nhost = 'a b'\n").unwrap();
        let error = watched.users().unwrap_err();
        assert!(error.contains("`egress.deny`, rule 1"), "{error}");
        fs::write(&path, "# nothing\n").unwrap();
        assert_eq!(*watched.users().unwrap(), Users::default());
    }

    #[test]
    fn a_file_that_is_being_written_allows_nothing_until_it_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let watched = Watched::new(path.clone(), &Environment::of([]));
        assert!(watched.users().is_ok(), "there was none");
        let denial = "[[egress.deny]]\nhost = 'example.com'\n";
        fs::write(&path, denial).unwrap();
        let denies = watched.users().unwrap();
        fs::write(&path, "").unwrap();
        assert!(watched.users().unwrap_err().contains("being written"));
        fs::remove_file(&path).unwrap();
        assert!(watched.users().unwrap_err().contains("gone or empty"));
        fs::write(&path, denial).unwrap();
        assert_eq!(watched.users().unwrap(), denies);
    }

    /// Whoever asks while a package manager is asked waits in a thread; were those all that the
    /// program has, it would wait for ever.
    #[test]
    fn presets_that_many_ask_for_at_once_are_found_all_the_same() {
        let home = tempfile::tempdir().unwrap();
        let npm = home.path().join("npm");
        let script = "#!/bin/sh\nread -r line < \"$HOME/go\"; echo https://npm.example/\n";
        fs::write(&npm, script).unwrap();
        fs::set_permissions(&npm, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let go = home.path().join("go");
        let made = std::process::Command::new("mkfifo").arg(&go).status();
        assert!(made.unwrap().success());
        let directory = home.path().to_str().unwrap();
        let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
        let env = Environment::of([("HOME", directory), ("PATH", &path)]);
        let watched = Arc::new(Watched::new(home.path().join("config.toml"), &env));
        let (done, all_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let asking: Vec<_> = (0..6)
                    .map(|_| {
                        let watched = Arc::clone(&watched);
                        tokio::spawn(async move { watched.presets() })
                    })
                    .collect();
                // Opened when the program reads; by then others wait, too.
                let writing = tokio::task::spawn_blocking(move || fs::write(go, "now\n"));
                writing.await.unwrap().unwrap();
                for one in asking {
                    assert_eq!(one.await.unwrap()["npm"].hosts, ["npm.example"]);
                }
            });
            done.send(()).unwrap();
        });
        let waited = all_done.recv_timeout(std::time::Duration::from_secs(60));
        waited.expect("all threads wait for each other");
    }
}
