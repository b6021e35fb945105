//! Which host directories a sandbox needs to see so that the host's compilers, interpreters and
//! test runners work inside, offline, without the credentials that live beside them.
//!
//! [`discover`] reads the file system and runs nothing: it is on the way to the first model call.
//! It starts from the host's `PATH`, follows links and version managers' files to the real
//! roots, and answers with a [`Toolchains`]: what to mount, which `PATH` and environment to set,
//! and what was found. [`agent_roots`] does the same for one program.
//!
//! What holds for every mount:
//! - nothing is mounted writable: a mount is read-only, or a private layer lies on top of it;
//! - never a home itself, a directory that holds homes, or anything below `~/.ssh`, `~/.config`,
//!   `/run` and their like, whoever asks for it (see `gate`);
//! - a file that can hold a credential and lies at a known place in a mounted root is masked.

mod collect;
mod gate;
mod go;
mod java;
mod layer;
mod node;
mod place;
mod program;
mod python;
mod rust;
mod versions;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use collect::Collector;
pub use gate::is_credential;

use crate::{Mount, Spec};

/// The private home of whoever works in a sandbox; where [`ToolFile`]s go.
pub const INSIDE_HOME: &str = crate::AGENT_HOME;

/// The most mounts that [`discover`] asks for.
pub const MAX_MOUNTS: usize = 64;

/// The most entries in the `PATH` that [`discover`] answers with, and reads from the host's.
pub const MAX_PATH_ENTRIES: usize = 64;

/// What is known of the host.
pub struct Input<'a> {
    /// The host's `PATH`.
    pub path: OsString,
    /// The home of the user whose toolchains these are.
    pub home: PathBuf,
    /// The host's environment: asked for `CARGO_HOME`, `PYENV_ROOT`, `JAVA_HOME` and their like.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// Directories that the policy names as toolchains: absolute, or beginning with `~/`. They
    /// come from a repository, so they pass the same gate as everything else.
    pub extra_roots: Vec<PathBuf>,
}

/// What a sandbox needs in order to run the host's tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toolchains {
    /// What to mount, parents before children; at most [`MAX_MOUNTS`].
    pub mounts: Vec<ToolMount>,
    /// Variables to set inside, each name once.
    pub env: Vec<(OsString, OsString)>,
    /// The `PATH` inside. It contains `/usr/local/bin`, `/usr/bin` and `/bin`.
    pub path: OsString,
    /// Small files to write into the private home before anything runs.
    pub files: Vec<ToolFile>,
    /// Paths below `/usr`, visible in every sandbox, that hold credentials: to be hidden.
    pub masked: Vec<PathBuf>,
    /// The tools that will be found inside, for people.
    pub found: Vec<Found>,
    /// What was left out and why, for people.
    pub notes: Vec<Note>,
}

/// Something that a sandbox does not have as it is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What is left out, and why: one sentence.
    pub what: String,
    /// What a person does to have it inside, or to be told no more.
    pub remedy: String,
}

/// How a mount may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read-only.
    ReadOnly,
    /// Reads come from the host; writes go to a private layer that ends with the sandbox. Where
    /// no layer can be mounted, [`ToolMount::without_layer`] says what to mount instead.
    Layered,
}

/// A directory or file of the host that is seen inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolMount {
    /// The directory or file on the host, without links in its path.
    pub host: PathBuf,
    /// Where it is seen inside.
    pub inside: PathBuf,
    /// Absolute paths inside, below `inside`, to be hidden: an empty file over a file, an empty
    /// directory over a directory.
    pub masked: Vec<PathBuf>,
    /// Read-only, or with a private layer on top.
    pub access: Access,
}

impl ToolMount {
    /// What to mount where nothing can be layered: the same, read-only, when the tool that uses
    /// it then still works; nothing when it is better off with an empty directory of its own.
    ///
    /// Reads the names in cargo's cache to decide: some 0.1 ms for 200 crates.
    pub fn without_layer(&self) -> Option<ToolMount> {
        if self.access == Access::Layered && !layer::works_read_only(&self.host) {
            return None;
        }
        Some(ToolMount {
            access: Access::ReadOnly,
            ..self.clone()
        })
    }
}

impl Toolchains {
    /// Adds the mounts and masks to what a sandbox holds. A specification knows no layers:
    /// layered mounts become what [`ToolMount::without_layer`] says.
    pub fn mount_into(&self, spec: &mut Spec) {
        for mount in self.mounts.iter().filter_map(ToolMount::without_layer) {
            spec.mounts.push(Mount::read_only(mount.host, mount.inside));
            spec.masked.extend(mount.masked);
        }
        spec.masked.extend(self.masked.iter().cloned());
    }

    /// Writes [`Self::files`] into the directory of the host that becomes the private home. It
    /// must be new: a link in it would be followed.
    ///
    /// # Errors
    /// When a directory or file cannot be made.
    pub fn write_files(&self, home: &Path) -> std::io::Result<()> {
        for file in &self.files {
            if let Ok(rest) = file.inside.strip_prefix(INSIDE_HOME) {
                let path = home.join(rest);
                std::fs::create_dir_all(program::parent(&path))?;
                std::fs::write(path, &file.contents)?;
            }
        }
        Ok(())
    }
}

/// A file to write into the private home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolFile {
    /// Its path inside, below [`INSIDE_HOME`].
    pub inside: PathBuf,
    /// Its content. Nothing in it is secret.
    pub contents: Vec<u8>,
}

/// A tool that will be found inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The name by which it is started: `cargo`, `python3`.
    pub name: String,
    /// The directory that holds it.
    pub root: PathBuf,
    /// Its version as far as file names and small files tell, without running it.
    pub version_hint: Option<String>,
}

/// Finds what a sandbox needs to see of the host's toolchains.
///
/// Nothing fails: what cannot be read or may not be seen is left out and said in
/// [`Toolchains::notes`].
pub fn discover(input: &Input<'_>) -> Toolchains {
    let mut c = Collector::new(input);
    place::extra_roots(&mut c);
    for (n, entry) in std::env::split_paths(&input.path).enumerate() {
        if n == MAX_PATH_ENTRIES {
            c.note(
                format!("only the first {MAX_PATH_ENTRIES} entries of PATH are used"),
                "put what is needed first in PATH, and leave out what is not",
            );
            break;
        }
        place::path_entry(&mut c, &entry);
    }
    node::without_path_entry(&mut c);
    c.end_of_path();
    program::follow_links(&mut c, Path::new("/usr/local/bin"), false);
    program::known_tools(&mut c);
    rust::dependencies(&mut c);
    go::dependencies(&mut c);
    python::dependencies(&mut c);
    node::dependencies(&mut c);
    java::dependencies(&mut c);
    c.finish()
}

/// What a sandbox needs to see in order to run one program: the package or installation that
/// holds it, the interpreter that its first line names, and the links that lead to it.
///
/// Empty when everything it needs is below `/usr`, or when it may not be seen.
pub fn agent_roots(program: &Path, input: &Input<'_>) -> Vec<ToolMount> {
    let mut c = Collector::new(input);
    program::add(&mut c, program);
    c.finish().mounts
}

/// The value of a variable as an absolute path.
fn env_path(input: &Input<'_>, name: &str) -> Option<PathBuf> {
    (input.env)(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}
