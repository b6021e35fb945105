//! A repository that is given by a URL: a bare copy of it of our own, into which is fetched what is asked for.
//!
//! The copy takes the place of the user's repository ([`Source::discover`](crate::Source::discover) finds it):
//! everything else works on it as on a repository of this machine, but for what needs a working tree. It is written by
//! this module alone, and its configuration is as it was made.
//!
//! What comes from the network is hostile: nothing of the system's or the user's configuration is read but `credential.*`
//! ([`Access`]), one protocol is allowed, every object is checked as it comes in, no submodule is followed, no hook
//! runs, and time, silence, bytes on disk and memory are bounded ([`Bounds`]).

mod access;
mod fetch;
mod refusal;
mod watch;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::ids::CommitId;
use crate::mirror::{CONFIG, take_lock};
use crate::program::{Cancel, Program};
use crate::references::write_replacing;

pub use access::{Access, Token, variables};

/// Where the references are that were fetched.
pub(crate) const FETCHED: &str = "refs/skep/fetched/";

/// The file with the URL, in the copy.
const URL: &str = "skep/url";

/// The longest URL that is read back.
const MAX_URL: u64 = 4096;

/// The directories of a copy.
const PARTS: [&str; 6] = [
    "objects/pack",
    "objects/info",
    "refs/heads",
    "refs/skep",
    "info",
    "skep",
];

/// A repository that is given by a URL, and our copy of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote {
    url: String,
    protocol: Protocol,
    directory: PathBuf,
    program: Program,
    bounds: Bounds,
}

/// How a repository is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP over TLS.
    Https,
    /// HTTP: for this machine only, which whoever makes the URL sees to.
    Http,
    /// The user's own `ssh`, which asks nothing.
    Ssh,
    /// A path of this machine.
    File,
}

impl Protocol {
    /// Its name, as git writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Protocol::Https => "https",
            Protocol::Http => "http",
            Protocol::Ssh => "ssh",
            Protocol::File => "file",
        }
    }
}

/// What is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The default branch.
    Head,
    /// A branch, a tag, the full name of a reference, or what [`Want::Commit`] holds.
    Named(String),
    /// A branch or tag, perhaps with a path behind it.
    Tree(String),
    /// A commit: its name, or the beginning of it.
    Commit(String),
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The commit.
    pub commit: CommitId,
    /// The full name of the reference that led to it; none where a commit was named.
    pub reference: Option<String>,
}

/// How much a fetch may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The whole of it.
    pub time: Duration,
    /// How long nothing may come, until all objects are here.
    pub silence: Duration,
    /// What the copy may come to have on disk, in bytes.
    pub disk: u64,
    /// What each process may take of memory, in bytes.
    pub memory: u64,
}

impl Default for Bounds {
    /// An hour, two minutes of silence, 20 GiB and 4 GiB of memory.
    fn default() -> Bounds {
        Bounds {
            time: Duration::from_secs(60 * 60),
            silence: Duration::from_secs(120),
            disk: 20 << 30,
            memory: 4 << 30,
        }
    }
}

impl Remote {
    /// The copy in `directory` of the repository at `url`, made when there is none. Nothing is fetched. Only its owner
    /// can enter it. The URL must be one without credentials, of this protocol, and no option: whoever parses it sees
    /// to that.
    ///
    /// # Errors
    /// When the directory cannot be made, or is the copy of another URL.
    pub fn open_or_create(
        directory: &Path,
        url: &str,
        protocol: Protocol,
        program: Program,
    ) -> Result<Remote, Error> {
        let directory =
            std::path::absolute(directory).map_err(|e| Error::io("finding", directory, e))?;
        match url_of(&directory) {
            Some(known) if known == url => {}
            Some(known) => return Err(Error::OtherUrl { directory, known }),
            None => create(&directory, url, &program)?,
        }
        Ok(Remote {
            url: url.to_owned(),
            protocol,
            directory,
            program,
            bounds: Bounds::default(),
        })
    }

    /// The same within other bounds.
    #[must_use]
    pub fn with_bounds(self, bounds: Bounds) -> Remote {
        Remote { bounds, ..self }
    }

    /// The same whose processes end with `cancel`.
    #[must_use]
    pub fn with_cancel(self, cancel: Cancel) -> Remote {
        Remote {
            program: self.program.with_cancel(cancel),
            ..self
        }
    }

    /// Where the copy is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The URL that a bare repository is a copy of; none where it was not made here, or is not as it was made: git must not
/// read what somebody else has configured.
pub(crate) fn url_of(directory: &Path) -> Option<String> {
    if fs::read(directory.join("config")).ok()? != CONFIG.as_bytes() {
        return None;
    }
    let path = directory.join(URL);
    if fs::metadata(&path).ok()?.len() > MAX_URL {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    Some(text.strip_suffix('\n')?.to_owned())
}

/// Makes what is missing; the URL comes last, so that a copy that has it was made to its end.
fn create(directory: &Path, url: &str, program: &Program) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for part in PARTS {
        let path = directory.join(part);
        builder
            .create(&path)
            .map_err(|e| Error::io("creating", path, e))?;
    }
    let _lock = take_lock(&directory.join("skep/lock"), program)?;
    write_replacing(&directory.join("config"), CONFIG.as_bytes(), true)?;
    // It has no default branch until one is fetched: a name that no branch of anybody has.
    if let Err(e) = fs::symlink_metadata(directory.join("HEAD"))
        && e.kind() == ErrorKind::NotFound
    {
        write_replacing(&directory.join("HEAD"), b"ref: refs/heads/none\n", true)?;
    }
    write_replacing(&directory.join(URL), format!("{url}\n").as_bytes(), true)
}
