//! The host's programs and settings.
//!
//! Which there are is found out once, and again when a directory in which it was looked has changed:
//! that takes longer than all other looks for a plan together. Nothing inside has a say in it; whoever
//! may change these directories may change what is shown anyway.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::places::Places;
use super::{Layout, attribute};

/// Parts of `/etc` that programs need and that hold no secret.
const ETC: [&str; 26] = [
    "alternatives",
    "ca-certificates.conf",
    "debian_version",
    "fonts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "protocols",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];
/// Parts of `/etc` with a version in their names.
const ETC_PREFIXES: [&str; 2] = ["python3", "java-"];
/// The host's links and directories of programs beside `/usr`.
const BESIDE_USR: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// A directory that was changed so shortly before it was looked at could change again without another
/// time.
const SETTLED: Duration = Duration::from_secs(2);

/// What of the host is shown at a path.
enum Shown {
    /// A link, as it is: it leads to what is inside too.
    Link(PathBuf),
    /// What is there.
    Bind(PathBuf),
}

/// What was found, and how the directories were in which it was looked.
struct Found {
    directories: Vec<State>,
    shown: Arc<Vec<(PathBuf, Shown)>>,
}

/// How a directory is: which one, and when it was changed last.
type State = Option<(u64, u64, [i64; 4])>;

/// What was found last.
static KNOWN: Mutex<Option<Found>> = Mutex::new(None);

/// What is shown, in the order of the plan.
fn shown() -> Arc<Vec<(PathBuf, Shown)>> {
    // Before anything is looked at: what changes meanwhile is seen the next time.
    let directories: Vec<State> = directories().iter().map(|path| state(path)).collect();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.as_ref().filter(|it| it.directories == directories) {
        return Arc::clone(&found.shown);
    }
    let shown = Arc::new(look());
    let is_settled = directories.iter().flatten().all(is_settled);
    *known = is_settled.then(|| Found {
        directories,
        shown: Arc::clone(&shown),
    });
    shown
}

/// The directories of all names, whether they are there or not.
fn directories() -> BTreeSet<PathBuf> {
    let etc = Path::new("/etc");
    let parents = ETC.iter().filter_map(|name| Path::new(name).parent());
    let above = parents.flat_map(|parent| parent.ancestors().map(|path| etc.join(path)));
    above.chain([PathBuf::from("/")]).collect()
}

fn state(directory: &Path) -> State {
    let found = std::fs::metadata(directory).ok()?;
    let times = [
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ];
    Some((found.dev(), found.ino(), times))
}

fn is_settled((_, _, [_, _, seconds, _]): &(u64, u64, [i64; 4])) -> bool {
    let changed = u64::try_from(*seconds).unwrap_or(0);
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
    SystemTime::now()
        .duration_since(changed)
        .is_ok_and(|age| age > SETTLED)
}

/// Looks what there is.
fn look() -> Vec<(PathBuf, Shown)> {
    let mut places = Places::default();
    let mut all = Vec::new();
    let usr = PathBuf::from("/usr");
    if let Ok(source) = std::fs::canonicalize(&usr) {
        all.push((usr, Shown::Bind(source)));
    }
    let etc = Path::new("/etc");
    let versioned = std::fs::read_dir(etc).into_iter().flatten().flatten();
    let versioned = versioned.map(|entry| entry.file_name()).filter(|name| {
        let name = name.to_string_lossy();
        ETC_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    let root = Path::new("/");
    let programs = BESIDE_USR.iter().map(|name| root.join(name));
    let settings = ETC.iter().map(Into::into).chain(versioned);
    let settings = settings.map(|name: std::ffi::OsString| etc.join(name));
    for path in programs.chain(settings) {
        if let Some(shown) = link_or_bind(&mut places, &path) {
            all.push((path, shown));
        }
    }
    all
}

/// A link of the host stays a link if it leads to what is inside too; else its end is shown.
fn link_or_bind(places: &mut Places, path: &Path) -> Option<Shown> {
    match std::fs::read_link(path) {
        Ok(target) => {
            let source = std::fs::canonicalize(path).ok()?;
            Some(match source.starts_with("/usr") {
                true => Shown::Link(target),
                false => Shown::Bind(source),
            })
        }
        // It is there, and no link.
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            places.beside(path).map(Shown::Bind)
        }
        Err(_) => None,
    }
}

impl Layout {
    /// Shows the host's programs, and what they need of its settings.
    pub(super) fn host(&mut self) {
        let etc = Path::new("/etc");
        self.parents(&etc.join("passwd"));
        self.own_files(etc);
        for (path, shown) in shown().iter() {
            self.parents(path);
            match shown {
                Shown::Link(target) => self.plan.symlink(target, path),
                // A part of it may go meanwhile, `/usr` may not.
                Shown::Bind(source) => {
                    let may_be_missing = path != Path::new("/usr");
                    self.plan
                        .bind(source, path, attribute::HOST, may_be_missing);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_with_a_listed_name_is_watched() {
        let all = directories();
        for directory in ["/", "/etc", "/etc/ssl", "/etc/pki", "/etc/pki/tls"] {
            assert!(all.contains(Path::new(directory)), "{directory}");
        }
    }

    #[test]
    fn a_directory_that_changes_has_another_state() {
        let place = tempfile::tempdir().unwrap();
        let was = state(place.path());
        assert!(!is_settled(&was.unwrap()), "it was made just now");
        assert_eq!(state(place.path()), was);
        std::fs::write(place.path().join("new"), "").unwrap();
        assert_ne!(state(place.path()), was);
        assert_eq!(state(&place.path().join("none")), None);
    }

    #[test]
    fn what_is_known_is_what_is_found() {
        let names = |all: &[(PathBuf, Shown)]| -> Vec<PathBuf> {
            all.iter().map(|(path, _)| path.clone()).collect()
        };
        let (first, again) = (shown(), shown());
        assert_eq!(names(&first), names(&look()));
        assert_eq!(names(&again), names(&first));
        assert!(names(&first).contains(&PathBuf::from("/usr")));
    }
}
