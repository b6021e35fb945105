//! The user's repository: found, asked for its head and its uncommitted work, and not written.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bstr::{BString, ByteSlice};
use gix::bstr::BStr;

use crate::error::Error;
use crate::ids::CommitId;
use crate::objects::Objects;
use crate::program::{Cancel, Program};

/// How many packs a user's repository may come to have while it is open, beyond half as many again.
const PACK_SLOTS: usize = 256;

/// A user's repository with a working tree. Cheap to make; shared by threads.
#[derive(Clone)]
pub struct Source {
    repository: gix::ThreadSafeRepository,
    top: PathBuf,
    git_dir: PathBuf,
    common_dir: PathBuf,
    head: Head,
    objects: Objects,
    program: Program,
    copy_of: Option<String>,
}

/// Where `HEAD` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The commit.
    pub commit: CommitId,
    /// The branch without `refs/heads/`, or nothing when `HEAD` is detached.
    pub branch: Option<BString>,
}

impl Source {
    /// Finds the repository that `path` is in, as `git` would, whatever `GIT_DIR` and the like say.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::Bare`], [`Error::NoCommits`], [`Error::NotTrusted`],
    /// [`Error::Unsupported`], each with what to do.
    pub fn discover(path: &Path, program: Program) -> Result<Source, Error> {
        let path = fs::canonicalize(path).map_err(|e| Error::io("finding", path, e))?;
        let isolated = gix::sec::trust::Mapping {
            full: gix::open::Options::isolated(),
            reduced: gix::open::Options::isolated(),
        };
        let git_path = find_upwards(&path)?;
        let repository =
            gix::ThreadSafeRepository::discover_opts(&path, Default::default(), isolated).map_err(
                |source| {
                    unsupported(&git_path).unwrap_or_else(|| Error::Open {
                        path: path.clone(),
                        source: source.into(),
                    })
                },
            )?;
        let local = repository.to_thread_local();
        let canonical =
            |dir: &Path| fs::canonicalize(dir).map_err(|e| Error::io("finding", dir, e));
        let git_dir = canonical(local.git_dir())?;
        let common_dir = canonical(local.common_dir())?;
        if let Some(error) = unsupported(&common_dir) {
            return Err(error);
        }
        let copy_of = match local.workdir() {
            Some(_) => None,
            None => crate::remote::url_of(&git_dir),
        };
        let top = match (local.workdir(), &copy_of) {
            (Some(top), _) => canonical(top)?,
            (None, Some(_)) => git_dir.clone(),
            (None, None) => return Err(Error::Bare { path: git_dir }),
        };
        if local.git_dir_trust() != gix::sec::Trust::Full {
            ask_trust(&program, &top)?;
        }
        let head = read_head(&local, &top)?;
        let objects = Objects::open(&common_dir.join("objects"), PACK_SLOTS)?;
        Ok(Source {
            repository,
            top,
            git_dir,
            common_dir,
            head,
            objects,
            program,
            copy_of,
        })
    }

    /// The same repository, found again: its head is read anew.
    pub fn reopen(&self) -> Result<Source, Error> {
        Source::discover(&self.top, self.program.clone())
    }

    /// The same repository whose processes end with `cancel`.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Cancel) -> Source {
        self.program = self.program.with_cancel(cancel);
        self
    }

    /// The URL that it is fetched from, where it is a copy of our own: a bare repository, without a
    /// working tree and so without uncommitted work.
    pub fn copy_of(&self) -> Option<&str> {
        self.copy_of.as_deref()
    }

    /// A command that reads in it: as the user in their repository, as in the mirror in a copy.
    fn reading(&self) -> Result<std::process::Command, Error> {
        match self.copy_of {
            Some(_) => self.program.trusted(&self.common_dir),
            None => self.program.as_user_reading(&self.top),
        }
    }

    /// The top of the working tree; of a copy, where it is.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The directory with `HEAD` and the index of this working tree.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The directory with objects and references, which all working trees of the repository share. Canonical: it names
    /// the repository.
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// Where `HEAD` was when the repository was found.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The commit that a revision names, in git's syntax (`main~2`, `v1.0`, a hash, its beginning).
    pub fn resolve(&self, rev: &str) -> Result<CommitId, Error> {
        let unknown = || Error::UnknownRevision {
            rev: rev.to_owned(),
        };
        let repository = self.repository.to_thread_local();
        let id = repository
            .rev_parse_single(BStr::new(rev))
            .map_err(|_| unknown())?;
        let commit = id
            .object()
            .map_err(|_| unknown())?
            .peel_to_commit()
            .map_err(|_| unknown())?;
        Ok(CommitId(commit.id))
    }

    /// The commit of a local branch (`skep/integration`), or nothing.
    pub fn branch(&self, branch: &str) -> Result<Option<CommitId>, Error> {
        let name = format!("refs/heads/{branch}");
        let repository = self.repository.to_thread_local();
        let failed = |source: gix::Error| Error::Reference {
            name: name.clone(),
            path: self.common_dir.clone(),
            source: source.into(),
        };
        match repository
            .try_find_reference(name.as_str())
            .map_err(failed)?
        {
            None => Ok(None),
            Some(mut reference) => Ok(Some(CommitId(
                reference.peel_to_id().map_err(failed)?.detach(),
            ))),
        }
    }

    /// Whether a commit is there and is part of the history of `HEAD` or of a local branch.
    pub fn is_on_a_branch(&self, commit: CommitId) -> Result<bool, Error> {
        match self.objects.reader().commit(commit) {
            Ok(_) => {}
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        }
        let doing = "looking for a commit on the branches";
        let mut command = self.reading()?;
        command.args(["rev-list", "--max-count=1"]);
        command.args([&commit.to_string(), "--not", "HEAD", "--branches"]);
        if self.copy_of.is_some() {
            command.arg(format!("--glob={}*", crate::remote::FETCHED));
        }
        command.arg("--");
        let output = self
            .program
            .execute(crate::process::Call::new(doing, command).limit(1 << 10))?
            .success(doing)?;
        Ok(output.stdout.is_empty())
    }

    /// What the repository's configuration says as the user sees it, by name (`user.name`).
    pub fn setting(&self, name: &str) -> Result<Option<BString>, Error> {
        let doing = "reading a setting";
        let mut command = self.reading()?;
        command.args(["config", "--null", "--get", name]);
        let output = self
            .program
            .execute(crate::process::Call::new(doing, command).limit(1 << 20))?;
        match output.code {
            Some(0) => Ok(Some(output.stdout.trim_end_with(|c| c == '\0').into())),
            Some(1) => Ok(None),
            _ => Err(output.failure(doing)),
        }
    }

    pub(crate) fn repository(&self) -> gix::Repository {
        self.repository.to_thread_local()
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The commits whose parents the repository does not have.
    pub(crate) fn shallow(&self) -> Result<HashSet<CommitId>, Error> {
        read_shallow(&self.common_dir.join("shallow"))
    }

    /// Whether objects may be missing because they are fetched when needed.
    pub(crate) fn is_partial(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.common_dir.join("objects/pack")) else {
            return false;
        };
        entries
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|e| e == "promisor"))
    }

    /// The directories with a `HEAD`: of the main working tree and of every other.
    pub(crate) fn heads(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = vec![self.common_dir.clone()];
        let worktrees = self.common_dir.join("worktrees");
        match fs::read_dir(&worktrees) {
            Ok(entries) => {
                for entry in entries {
                    found.push(
                        entry
                            .map_err(|e| Error::io("reading", &worktrees, e))?
                            .path(),
                    );
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("reading", worktrees, e)),
        }
        Ok(found)
    }
}

/// Reads a `shallow` file; none is an empty set.
pub(crate) fn read_shallow(path: &Path) -> Result<HashSet<CommitId>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(HashSet::new()),
        Err(e) => Err(Error::io("reading", path, e)),
    }
}

/// The repository's directory, found upwards.
fn find_upwards(path: &Path) -> Result<PathBuf, Error> {
    for dir in path.ancestors() {
        if dir.join(".git").exists() {
            return Ok(dir.join(".git"));
        }
        if dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir() {
            return Ok(dir.to_owned());
        }
    }
    Err(Error::NotARepository {
        path: path.to_owned(),
    })
}

/// The formats that this crate does not read, found in the repository's own configuration file.
fn unsupported(git_dir: &Path) -> Option<Error> {
    let text = fs::read_to_string(git_dir.join("config")).ok()?;
    let mut in_extensions = false;
    for line in text.lines() {
        let line = line.trim().to_ascii_lowercase();
        if line.starts_with('[') {
            in_extensions = line.starts_with("[extensions]");
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let what = match (in_extensions, key.trim(), value.trim()) {
            (true, "objectformat", "sha256") => "SHA-256 objects",
            (true, "refstorage", "reftable") => "the reftable format",
            _ => continue,
        };
        return Some(Error::Unsupported {
            path: git_dir.to_owned(),
            what,
        });
    }
    None
}

/// Lets git decide about a repository of another owner: it knows `safe.directory`.
fn ask_trust(program: &Program, top: &Path) -> Result<(), Error> {
    let doing = "looking at the repository's owner";
    let mut command = program.as_user_reading(top)?;
    command.args(["rev-parse", "--git-dir"]);
    let output = program.execute(crate::process::Call::new(doing, command).limit(64 * 1024))?;
    if output.code == Some(0) {
        return Ok(());
    }
    if output.stderr.contains_str("dubious ownership") {
        return Err(Error::NotTrusted {
            path: top.to_owned(),
        });
    }
    Err(output.failure(doing))
}

fn read_head(repository: &gix::Repository, top: &Path) -> Result<Head, Error> {
    let open = |source: gix::Error| Error::Open {
        path: top.to_owned(),
        source: source.into(),
    };
    let mut head = repository.head().map_err(open)?;
    if head.is_unborn() {
        return Err(Error::NoCommits {
            path: top.to_owned(),
        });
    }
    let branch = head.referent_name().map(|name| {
        let full = name.as_bstr();
        BString::from(full.strip_prefix(b"refs/heads/").unwrap_or(full))
    });
    let commit = head.peel_to_commit().map_err(open)?;
    Ok(Head {
        commit: CommitId(commit.id),
        branch,
    })
}
