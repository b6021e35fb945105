//! Every file below a directory, to compare byte for byte before and after.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What a [`Snapshot`] looks at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Paths relative to the directory that are left out with everything below them.
    pub exclude: Vec<PathBuf>,
    /// Whether the times of last change count too.
    pub mtimes: bool,
    /// Paths relative to the directory at which, and below which, times never count.
    pub timeless: Vec<PathBuf>,
}

/// What one path was.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    digest: [u8; 32],
    mtime: Option<(i64, i64)>,
}

/// Every path below a directory: kind, mode, owner, and what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Entry>,
}

/// How a path differs between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is only in the later one.
    Added(PathBuf),
    /// It is only in the earlier one.
    Removed(PathBuf),
    /// It is in both, and something of it is not the same.
    Changed(PathBuf, &'static str),
}

impl Difference {
    /// The path that differs.
    pub fn path(&self) -> &Path {
        match self {
            Difference::Added(path) | Difference::Removed(path) | Difference::Changed(path, _) => {
                path
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Added(path) => write!(f, "added {}", path.display()),
            Difference::Removed(path) => write!(f, "removed {}", path.display()),
            Difference::Changed(path, what) => write!(f, "{what} changed of {}", path.display()),
        }
    }
}

impl Snapshot {
    /// Reads everything below a directory. Links are not followed.
    pub fn of(dir: &Path, options: &Options) -> Snapshot {
        let mut entries = BTreeMap::new();
        let mut queue = vec![PathBuf::new()];
        while let Some(relative) = queue.pop() {
            let path = dir.join(&relative);
            let list = fs::read_dir(&path)
                .unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
            for entry in list {
                let name = entry.expect("an entry").file_name();
                let relative = relative.join(name);
                if options.exclude.iter().any(|it| relative.starts_with(it)) {
                    continue;
                }
                let path = dir.join(&relative);
                let metadata = path.symlink_metadata().expect("what was listed");
                if metadata.is_dir() {
                    queue.push(relative.clone());
                }
                let timed =
                    options.mtimes && !options.timeless.iter().any(|it| relative.starts_with(it));
                entries.insert(relative, read(&path, &metadata, timed));
            }
        }
        Snapshot { entries }
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no path.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is different in a later snapshot, in the order of the paths.
    pub fn differences(&self, later: &Snapshot) -> Vec<Difference> {
        let mut all = Vec::new();
        for (path, before) in &self.entries {
            match later.entries.get(path) {
                None => all.push(Difference::Removed(path.clone())),
                Some(after) => all.extend(
                    before
                        .change(after)
                        .map(|what| Difference::Changed(path.clone(), what)),
                ),
            }
        }
        let added = later
            .entries
            .keys()
            .filter(|it| !self.entries.contains_key(*it));
        all.extend(added.map(|it| Difference::Added(it.clone())));
        all.sort_by(|a, b| a.path().cmp(b.path()));
        all
    }

    /// Asserts that a later snapshot is the same.
    pub fn assert_same(&self, later: &Snapshot) {
        self.assert_only_added(later, &[]);
    }

    /// Asserts that a later snapshot has the same paths with the same content, and no more than
    /// new ones at or below the ones named here.
    pub fn assert_only_added(&self, later: &Snapshot, below: &[&str]) {
        let wrong: Vec<String> = self
            .differences(later)
            .iter()
            .filter(|it| {
                !(matches!(it, Difference::Added(_))
                    && below.iter().any(|top| it.path().starts_with(top)))
            })
            .map(Difference::to_string)
            .collect();
        assert!(
            wrong.is_empty(),
            "{} differences:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }

    /// Asserts that of a user's repository nothing has changed except the branch
    /// `skep/integration`: its reference, its log, and objects that were added.
    pub fn assert_only_integration(&self, later: &Snapshot) {
        self.assert_only_branch(later, "skep/integration");
    }

    /// The same for an integration branch of another name.
    pub fn assert_only_branch(&self, later: &Snapshot, branch: &str) {
        let ours = [".git/refs/heads", ".git/logs/refs/heads"].map(|it| Path::new(it).join(branch));
        let is_ours = |it: &Difference| {
            let path = it.path();
            let is_added = matches!(it, Difference::Added(_));
            // The branch itself, the directories that its name needs, and new objects.
            ours.iter()
                .any(|own| path == own || (is_added && own.starts_with(path)))
                || (is_added && path.starts_with(".git/objects"))
        };
        let wrong: Vec<String> = self
            .differences(later)
            .iter()
            .filter(|it| !is_ours(it))
            .map(Difference::to_string)
            .collect();
        assert!(
            wrong.is_empty(),
            "{} differences:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

impl Entry {
    fn change(&self, after: &Entry) -> Option<&'static str> {
        if self.mode != after.mode {
            Some("the mode or kind")
        } else if self.owner != after.owner {
            Some("the owner")
        } else if self.digest != after.digest || self.size != after.size {
            Some("the content")
        } else if self.mtime != after.mtime {
            Some("the time of last change")
        } else {
            None
        }
    }
}

fn read(path: &Path, metadata: &fs::Metadata, timed: bool) -> Entry {
    let bytes = if metadata.is_file() {
        fs::read(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
    } else if metadata.is_symlink() {
        fs::read_link(path)
            .expect("the link's target")
            .as_os_str()
            .as_bytes()
            .to_vec()
    } else {
        Vec::new()
    };
    Entry {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        size: bytes.len() as u64,
        digest: Sha256::digest(&bytes).into(),
        mtime: timed.then(|| (metadata.mtime(), metadata.mtime_nsec())),
    }
}
