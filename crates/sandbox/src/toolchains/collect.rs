//! Gathers mounts, `PATH` entries and variables, and keeps the bounds.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::gate::{
    CREDENTIAL_PLACES, CREDENTIALS, Gate, SYSTEM_CREDENTIALS, is_credential, is_visible,
};
use super::{
    Access, Found, INSIDE_HOME, Input, MAX_MOUNTS, MAX_PATH_ENTRIES, Note, ToolFile, ToolMount,
    Toolchains,
};

/// The most entries that are read of any directory.
pub(super) const MAX_ENTRIES: usize = 512;
/// What to do about a directory that cannot be read.
const UNREADABLE: &str = "let this user read it, or leave it out of PATH";
/// The most notes: a person reads them.
const MAX_NOTES: usize = 32;
/// The most masks over one mount.
const MAX_MASKS: usize = 64;
/// The most of any file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// A mount, and whether paths below it mean the same inside as on the host.
struct Placed {
    mount: ToolMount,
    at_own_path: bool,
}

/// What has been found so far.
pub(super) struct Collector<'a> {
    pub(super) input: &'a Input<'a>,
    pub(super) gate: Gate,
    mounts: Vec<Placed>,
    path: Vec<PathBuf>,
    /// Where tools are looked for: as `path`, without directories that are the same.
    searched: Vec<PathBuf>,
    seen: Vec<PathBuf>,
    /// Directories whose path without links is known: each is asked for many times.
    directories: HashMap<PathBuf, Option<PathBuf>>,
    env: Vec<(OsString, OsString)>,
    files: Vec<ToolFile>,
    found: Vec<Found>,
    notes: Vec<Note>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(input: &'a Input<'a>) -> Collector<'a> {
        Collector {
            input,
            gate: Gate::new(&input.home),
            mounts: Vec::new(),
            path: Vec::new(),
            searched: Vec::new(),
            seen: Vec::new(),
            directories: HashMap::new(),
            env: Vec::new(),
            files: Vec::new(),
            found: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A path inside the private home.
    pub(super) fn inside_home(&self, rest: &str) -> PathBuf {
        Path::new(INSIDE_HOME).join(rest)
    }

    /// The directory that a variable names, else one below the home.
    pub(super) fn root(&self, variable: &str, below_home: &str) -> PathBuf {
        super::env_path(self.input, variable).unwrap_or_else(|| self.input.home.join(below_home))
    }

    /// A directory's path without links.
    pub(super) fn real_directory(&mut self, dir: &Path) -> Option<PathBuf> {
        if let Some(real) = self.directories.get(dir) {
            return real.clone();
        }
        let real = dir.canonicalize().ok();
        self.directories.insert(dir.to_owned(), real.clone());
        real
    }

    pub(super) fn note(&mut self, what: String, remedy: impl Into<String>) {
        let remedy = remedy.into();
        let note = Note { what, remedy };
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Whether a path is seen inside, at the same place, with what is mounted so far.
    pub(super) fn covers(&self, path: &Path) -> bool {
        is_visible(path)
            || self.mounts.iter().any(|it| {
                it.at_own_path
                    && path.starts_with(&it.mount.inside)
                    && !it.mount.masked.iter().any(|mask| path.starts_with(mask))
            })
    }

    /// Mounts a directory or file at its own path, and at the path without links where that
    /// differs. False, with a note, when it may not or cannot be seen.
    pub(super) fn add(&mut self, path: &Path) -> bool {
        self.add_collection(path, 0)
    }

    /// As [`Self::add`], for a directory of installations that lie `depth` levels below it
    /// (at most 2): credentials at the top of each are masked too.
    pub(super) fn add_collection(&mut self, path: &Path, depth: u8) -> bool {
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) => {
                self.unreadable(path, &error);
                return false;
            }
        };
        if !self.push(&real, &real, true, Access::ReadOnly, depth) {
            return false;
        }
        if real != path && self.gate.refusal(path).is_none() && !self.covers(path) {
            return self.push(&real, path, true, Access::ReadOnly, depth);
        }
        true
    }

    /// Mounts a directory of the host at another place inside.
    pub(super) fn add_at(&mut self, path: &Path, inside: &Path, access: Access) -> bool {
        match path.canonicalize() {
            Ok(real) => self.push(&real, inside, false, access, 0),
            Err(error) => {
                self.unreadable(path, &error);
                false
            }
        }
    }

    /// Says that a path cannot be read; one that does not exist is not worth a note.
    pub(super) fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        if !matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
        ) {
            self.note(
                format!("{} is left out: this user cannot read it", path.display()),
                UNREADABLE,
            );
        }
    }

    fn push(
        &mut self,
        host: &Path,
        inside: &Path,
        at_own_path: bool,
        access: Access,
        depth: u8,
    ) -> bool {
        if at_own_path && self.covers(inside) {
            return true;
        }
        if let Some(reason) = self.gate.refusal(host) {
            self.note(
                format!("{} is left out: {reason}", host.display()),
                "to have it inside, install it in a directory that holds nothing else, and put \
                 that one in PATH",
            );
            return false;
        }
        let needed = if host.is_dir() {
            rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK
        } else {
            rustix::fs::Access::READ_OK
        };
        if rustix::fs::access(host, needed).is_err() {
            self.note(
                format!("{} is left out: this user cannot read it", host.display()),
                UNREADABLE,
            );
            return false;
        }
        let mut masked = Vec::new();
        masks(host, inside, depth, &mut masked);
        if masked.len() > MAX_MASKS {
            self.note(
                format!(
                    "{} is left out: more than {MAX_MASKS} files in it can hold credentials",
                    host.display()
                ),
                "keep credentials out of the directories of toolchains",
            );
            return false;
        }
        // A wider mount takes the place of those below it, and keeps their masks.
        if at_own_path {
            self.mounts.retain_mut(|it| {
                let below = it.at_own_path && it.mount.inside.starts_with(inside);
                if below {
                    masked.append(&mut it.mount.masked);
                }
                !below
            });
        }
        if self.mounts.len() >= MAX_MOUNTS {
            self.note(
                format!(
                    "{} is left out: there are {MAX_MOUNTS} mounts already",
                    host.display()
                ),
                "leave directories out of PATH that are not needed",
            );
            return false;
        }
        masked.sort();
        masked.dedup();
        self.mounts.push(Placed {
            mount: ToolMount {
                host: host.to_owned(),
                inside: inside.to_owned(),
                masked,
                access,
            },
            at_own_path,
        });
        true
    }

    /// Hides a path below a mount, where it exists.
    pub(super) fn mask(&mut self, path: &Path) {
        if path.symlink_metadata().is_err() {
            return;
        }
        if let Some(mount) = self
            .mounts
            .iter_mut()
            .map(|it| &mut it.mount)
            .find(|it| path.starts_with(&it.inside) && path != it.inside)
            && !mount.masked.iter().any(|it| it == path)
        {
            mount.masked.push(path.to_owned());
        }
    }

    /// Puts a directory that is seen inside at the end of the `PATH`.
    pub(super) fn push_path(&mut self, entry: &Path) {
        if self.path.len() < MAX_PATH_ENTRIES - 3
            && !self.path.iter().any(|it| it == entry)
            && entry.is_dir()
        {
            self.path.push(entry.to_owned());
            self.search(entry);
        }
    }

    fn search(&mut self, entry: &Path) {
        let real = entry.canonicalize().unwrap_or_else(|_| entry.to_owned());
        if !self.seen.contains(&real) && !entry.ends_with("sbin") {
            self.seen.push(real);
            self.searched.push(entry.to_owned());
        }
    }

    /// Ends the reading of the host's `PATH`: the system's directories come last.
    pub(super) fn end_of_path(&mut self) {
        for entry in SYSTEM_PATH {
            let entry = Path::new(entry);
            if !self.path.iter().any(|it| it == entry) {
                self.path.push(entry.to_owned());
                self.search(entry);
            }
        }
    }

    /// Whether a directory is on the `PATH` inside already.
    pub(super) fn on_path(&self, below: &Path) -> bool {
        self.path.iter().any(|it| it.starts_with(below))
    }

    /// Sets a variable inside, unless it is set.
    pub(super) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        if !self.env.iter().any(|(it, _)| it == name) {
            self.env.push((name.into(), value.into()));
        }
    }

    /// Writes a small file into the private home.
    pub(super) fn write(&mut self, inside: PathBuf, contents: Vec<u8>) {
        self.files.push(ToolFile { inside, contents });
    }

    pub(super) fn found(&mut self, name: &str, root: &Path, version_hint: Option<String>) {
        if !self.found.iter().any(|it| it.name == name) {
            self.found.push(Found {
                name: name.to_owned(),
                root: root.to_owned(),
                version_hint,
            });
        }
    }

    /// Whether a tool is among those found.
    pub(super) fn has(&self, name: &str) -> bool {
        self.found.iter().any(|it| it.name == name)
    }

    /// The first file of this name on the `PATH` inside.
    pub(super) fn which(&self, name: &str) -> Option<PathBuf> {
        self.searched
            .iter()
            .map(|dir| dir.join(name))
            .find(|file| is_executable(file))
    }

    pub(super) fn finish(mut self) -> Toolchains {
        self.end_of_path();
        // A colon in a directory's name would split it; such an entry cannot be on a PATH.
        self.path
            .retain(|it| !it.as_os_str().as_encoded_bytes().contains(&b':'));
        let mut mounts: Vec<ToolMount> = self.mounts.into_iter().map(|it| it.mount).collect();
        mounts.sort_by(|a, b| a.inside.cmp(&b.inside));
        let masked = SYSTEM_CREDENTIALS
            .iter()
            .map(PathBuf::from)
            .filter(|it| it.symlink_metadata().is_ok())
            .collect();
        Toolchains {
            mounts,
            env: self.env,
            path: std::env::join_paths(&self.path).unwrap_or_else(|_| SYSTEM_PATH.join(":").into()),
            files: self.files,
            masked,
            found: self.found,
            notes: self.notes,
        }
    }
}

/// Always on the `PATH` inside.
const SYSTEM_PATH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Names below `host` that can hold a credential, as paths below `inside`.
fn masks(host: &Path, inside: &Path, depth: u8, masked: &mut Vec<PathBuf>) {
    let names = entries(host);
    if names.len() >= MAX_ENTRIES {
        // Too many to see them all: ask for each name instead.
        masked.extend(
            CREDENTIALS
                .iter()
                .filter(|it| host.join(it).symlink_metadata().is_ok())
                .map(|it| inside.join(it)),
        );
    }
    for place in CREDENTIAL_PLACES {
        let top = place.split('/').next().unwrap_or_default();
        if names.iter().any(|(name, _)| name == top) && host.join(place).symlink_metadata().is_ok()
        {
            masked.push(inside.join(place));
        }
    }
    for (name, kind) in &names {
        if masked.len() > MAX_MASKS {
            return;
        }
        if is_credential(name) {
            masked.push(inside.join(name));
        } else if *kind == EntryKind::Directory && depth > 0 {
            masks(&host.join(name), &inside.join(name), depth - 1, masked);
        }
    }
    let settings = Path::new("conf/settings.xml");
    if names.iter().any(|(name, _)| name == "conf") && holds_password(&host.join(settings)) {
        masked.push(inside.join(settings));
    }
}

/// Whether Maven's settings hold a password outside of comments.
pub(super) fn holds_password(settings: &Path) -> bool {
    let Some(text) = read(settings) else {
        return false;
    };
    let live: String = text
        .split("<!--")
        .enumerate()
        .map(|(n, part)| match (n, part.split_once("-->")) {
            (0, _) => part,
            (_, Some((_, after))) => after,
            (_, None) => "",
        })
        .collect();
    ["<password>", "<passphrase>", "<value>", "<privateKey>"]
        .iter()
        .any(|it| live.contains(it))
}

/// What a name in a directory is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    Directory,
    Link,
    Other,
}

/// Names in a directory and what they are; at most [`MAX_ENTRIES`]; empty when it cannot be read.
pub(super) fn entries(dir: &Path) -> Vec<(OsString, EntryKind)> {
    let Ok(list) = fs::read_dir(dir) else {
        return Vec::new();
    };
    list.take(MAX_ENTRIES)
        .filter_map(Result::ok)
        .map(|it| {
            let kind = match it.file_type() {
                Ok(kind) if kind.is_dir() => EntryKind::Directory,
                Ok(kind) if kind.is_symlink() => EntryKind::Link,
                _ => EntryKind::Other,
            };
            (it.file_name(), kind)
        })
        .collect()
}

/// The text of a small file; nothing when it is missing, large or not text.
pub(super) fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    // A fifo would wait for a writer: only regular files are opened.
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    File::open(path)
        .ok()?
        .take(MAX_FILE)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// Whether a file can be started by this user.
pub(super) fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        && path.metadata().is_ok_and(|it| it.is_file())
}

/// A name as text, for comparing versions.
pub(super) fn text(name: &OsStr) -> &str {
    name.to_str().unwrap_or_default()
}
