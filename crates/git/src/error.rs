//! What can go wrong, with what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use bstr::BString;

use crate::ids::{CommitId, ObjectId};

/// A failure of this crate. `Display` never repeats the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is integrated and what the work starts from do not merge.
    #[error("{branch} and the commit that the work starts from conflict in {}; take the integrated work with `skep apply`, or leave it with `skep drop`", files.join(", "))]
    Diverged {
        /// The branch.
        branch: String,
        /// Files that do not merge.
        files: Vec<String>,
    },
    /// No repository at a path or above it.
    #[error("{} is not in a git repository; run `git init` there, or start in a repository", path.display())]
    NotARepository {
        /// Where the search began.
        path: PathBuf,
    },
    /// A repository without a working tree.
    #[error("{} is a bare repository; start in a clone of it that has files", path.display())]
    Bare {
        /// The repository.
        path: PathBuf,
    },
    /// `HEAD` names a branch without a commit.
    #[error("{} has no commit yet; make a first commit (`git commit --allow-empty -m start`)", path.display())]
    NoCommits {
        /// The working tree.
        path: PathBuf,
    },
    /// The repository belongs to somebody else, and git's `safe.directory` does not allow it.
    #[error(
        "{} belongs to another user; if you trust it, run `git config --global --add safe.directory {}`",
        path.display(), path.display()
    )]
    NotTrusted {
        /// The repository.
        path: PathBuf,
    },
    /// The repository uses a format that is not supported.
    #[error("{} uses {what}, which is not supported; use a clone with SHA-1 objects and plain references", path.display())]
    Unsupported {
        /// The repository.
        path: PathBuf,
        /// The format.
        what: &'static str,
    },
    /// Opening a repository failed.
    #[error("cannot open the repository at {}; check it with `git fsck`", path.display())]
    Open {
        /// The repository.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A revision that names no commit.
    #[error("`{rev}` names no commit in this repository; see `git log --all`")]
    UnknownRevision {
        /// What was asked for.
        rev: String,
    },
    /// No `git` program in `PATH`.
    #[error("there is no `git` in PATH; install git 2.38 or newer")]
    ProgramMissing,
    /// The `git` program is too old.
    #[error("git {found} is too old; install git 2.38 or newer")]
    ProgramTooOld {
        /// What `git --version` says.
        found: String,
    },
    /// A git process ended with an error.
    #[error("git failed while {doing} ({status}): {message}")]
    Failed {
        /// What it was doing.
        doing: &'static str,
        /// Its exit status.
        status: String,
        /// The end of what it said.
        message: String,
    },
    /// A git process did not end in time and was killed with its group.
    #[error("git was still {doing} after {} s and was stopped; try again, or with a longer limit", after.as_secs())]
    TimedOut {
        /// What it was doing.
        doing: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The caller cancelled.
    #[error("cancelled while {doing}")]
    Cancelled {
        /// What was being done.
        doing: &'static str,
    },
    /// A process or object is larger than its bound.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The bound in bytes.
        limit: u64,
    },
    /// Nothing can lie over a directory that is no checkout, or one of another version.
    #[error("{} is not a checkout that another one can lie over", path.display())]
    NotBelow {
        /// The directory.
        path: PathBuf,
    },
    /// A commit has more files than a checkout may have.
    #[error("commit {commit} has more than {limit} files, or nests too deep")]
    TooManyFiles {
        /// The commit.
        commit: CommitId,
        /// The bound.
        limit: usize,
    },
    /// A file operation failed.
    #[error("{doing} {} failed", path.display())]
    Io {
        /// What was being done, as in "writing".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Reading or writing an object failed.
    #[error("{doing} git object {id} failed")]
    Object {
        /// What was being done.
        doing: &'static str,
        /// Which object.
        id: ObjectId,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object that is needed is not there.
    #[error(
        "git object {id} is missing; fetch it (a partial clone or a damaged repository: `git fsck`)"
    )]
    Missing {
        /// Which object.
        id: ObjectId,
    },
    /// An object is not what its place says.
    #[error("git object {id} is not a valid {expected}; check the repository with `git fsck`")]
    Malformed {
        /// Which object.
        id: ObjectId,
        /// What it should be.
        expected: &'static str,
    },
    /// The mirror lacks what it should have, and the user's repository does not have it either.
    #[error(
        "the mirror at {} is damaged; while no skep works, that directory may be removed: it is made \
         again from the repository",
        path.display()
    )]
    Damaged {
        /// The mirror.
        path: PathBuf,
        /// What cannot be read.
        source: Box<Error>,
    },
    /// A commit that skep made was nowhere but in the mirror, and is not there any more.
    #[error(
        "the candidate {commit} is lost: it was only in the mirror, which was removed or damaged since; \
         `skep retry` does the work again"
    )]
    CandidateLost {
        /// The commit.
        commit: CommitId,
    },
    /// Work that was integrated is neither in the mirror nor on a branch of the user's repository.
    #[error(
        "the integrated commit {commit} is lost: the mirror was removed or damaged since, and neither \
         `{branch}` nor another branch of the repository holds it, or it was taken as another commit; \
         if the work is not there, `skep retry` does it again"
    )]
    WorkLost {
        /// The commit.
        commit: CommitId,
        /// The integration branch.
        branch: String,
    },
    /// Work that was integrated is not in the mirror, and the user's repository is not where it was.
    #[error(
        "the integrated commit {commit} is not in the mirror, which was removed or damaged since, and \
         the repository that `{branch}` is in cannot be opened: move it back to where it was, then \
         `skep retry`"
    )]
    WorkOutOfReach {
        /// The commit.
        commit: CommitId,
        /// The integration branch.
        branch: String,
    },
    /// A path that may not be in a tree.
    #[error("the path `{path}` may not be in a commit: {why}")]
    BadPath {
        /// The path, relative to the top.
        path: BString,
        /// Why.
        why: &'static str,
    },
    /// The content of a file was shorter or longer than announced.
    #[error("`{path}` changed while it was read: {expected} bytes were announced, {found} came")]
    LengthChanged {
        /// The path.
        path: BString,
        /// The announced length.
        expected: u64,
        /// What came; one more than announced stands for "more".
        found: u64,
    },
    /// A name that cannot be a reference.
    #[error("`{name}` cannot be the name of a reference")]
    BadReference {
        /// The name.
        name: String,
    },
    /// A reference has another value than expected.
    #[error(
        "{name} is at {} and was expected at {}; read it again and retry",
        actual.map_or_else(|| "nothing".to_owned(), |id| id.to_string()),
        expected.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
    )]
    Moved {
        /// The reference.
        name: String,
        /// What was expected.
        expected: Option<CommitId>,
        /// What is there.
        actual: Option<CommitId>,
    },
    /// Somebody else has taken over what moves a reference.
    #[error("{name} is moved by another process now")]
    Fenced {
        /// The reference.
        name: String,
    },
    /// A reference of the user's repository could not be changed.
    #[error("cannot change {name} in {}; is another git process running, or a `{name}.lock` left behind?", path.display())]
    Reference {
        /// The reference.
        name: String,
        /// The repository.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A merge, rebase, cherry-pick, revert or bisect is in progress in the user's repository.
    #[error("a {what} is in progress in this repository; finish or abort it first")]
    InProgress {
        /// What is in progress.
        what: &'static str,
    },
    /// Uncommitted work cannot be taken along: a merge left conflicts in it.
    #[error(
        "a merge left conflicts in {}; resolve them and `git add` them first, or start without uncommitted work",
        list(files)
    )]
    Unmerged {
        /// The files, relative to the top.
        files: Vec<BString>,
    },
    /// Uncommitted work would be touched.
    #[error(
        "uncommitted changes in {} would be touched; commit or stash them first",
        list(files)
    )]
    Uncommitted {
        /// The files, relative to the top.
        files: Vec<BString>,
    },
    /// An earlier apply ended before it could put uncommitted files back.
    #[error(
        "an earlier `skep apply` ended early, and uncommitted files of yours are in {}; move them \
         back to where they belong, and remove that directory",
        place.display()
    )]
    Interrupted {
        /// Where the files are, by their paths.
        place: PathBuf,
    },
    /// The work changes a hook that git would run as the user.
    #[error(
        "git runs hooks from {}, and the work changes {file}, which is one of them or beside them; \
         look at it, then merge it yourself with `git -c core.hooksPath=/dev/null merge`",
        hooks.display()
    )]
    ChangesHook {
        /// Where git looks for hooks.
        hooks: PathBuf,
        /// The file that the work changes, relative to the top.
        file: BString,
    },
    /// The change conflicts with the user's branch. Nothing was changed.
    #[error(
        "the change conflicts with your branch in {}; nothing was changed",
        list(files)
    )]
    Conflicts {
        /// The files, relative to the top.
        files: Vec<BString>,
    },
    /// What was asked for needs a working tree, and a copy of a URL has none.
    #[error(
        "what was fetched from {url} has no working tree here: in a clone of it, take the work with \
         `git fetch {} BRANCH`", copy.display()
    )]
    NoWorkingTree {
        /// The URL.
        url: String,
        /// The copy.
        copy: PathBuf,
    },
    /// A directory that should be a copy of one URL is one of another.
    #[error("{} is a copy of {known}, and was wanted for another URL", directory.display())]
    OtherUrl {
        /// The directory.
        directory: PathBuf,
        /// The URL that it is a copy of.
        known: String,
    },
    /// The server wants credentials, or others.
    #[error(
        "{url} does not let you in ({said}); give credentials by git's credential helper for this host, by the \
         variable that `token_env` of `[forges.\"HOST\"]` in the configuration names, or, for ssh, by a key that \
         needs no question (`ssh-add`) and a host that `ssh` knows"
    )]
    Unauthorized {
        /// The URL.
        url: String,
        /// What was said.
        said: String,
    },
    /// Nobody is there.
    #[error("{url} cannot be reached ({said}); check the address and the network, then try again")]
    Unreachable {
        /// The URL.
        url: String,
        /// What was said.
        said: String,
    },
    /// There is no repository, or none for this user.
    #[error(
        "there is no repository at {url}, or not for you ({said}); check the address, and whether it \
         wants credentials"
    )]
    NoRemote {
        /// The URL.
        url: String,
        /// What was said.
        said: String,
    },
    /// The repository has no commit.
    #[error("{url} has no commit yet, or no default branch; name a branch with `--ref`")]
    EmptyRemote {
        /// The URL.
        url: String,
    },
    /// The repository does not have what was named.
    #[error("`{rev}` is no branch, tag or commit of {url}; see `git ls-remote {url}`")]
    NotThere {
        /// The URL.
        url: String,
        /// What was named.
        rev: String,
    },
    /// What was sent is no sound history.
    #[error(
        "what {url} sends is not sound and was not taken ({said}); its owner can find and mend it with \
         `git fsck`"
    )]
    Unsound {
        /// The URL.
        url: String,
        /// What was said.
        said: String,
    },
    /// Nothing came for too long.
    #[error("{url} sent nothing for {} s and was given up; try again", after.as_secs())]
    Silent {
        /// The URL.
        url: String,
        /// How long.
        after: Duration,
    },
    /// Fetching failed.
    #[error("cannot fetch from {url} ({status}): {said}")]
    Fetch {
        /// The URL.
        url: String,
        /// How git ended.
        status: String,
        /// What was said.
        said: String,
    },
    /// What git printed is not in the form that its documentation promises.
    #[error("cannot read what git printed while {doing}")]
    Output {
        /// What was being done.
        doing: &'static str,
    },
}

impl Error {
    /// Whether it is a fault of the machine that may pass by itself (a disk that others fill, one
    /// that does not answer, too much at once), so that the same may be tried again after a while.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Error::TimedOut { .. } | Error::Unreachable { .. } | Error::Silent { .. } => true,
            // What git calls the fault: it runs in the C locale.
            Error::Failed { message, .. } => [
                "No space left on device",
                "Disk quota exceeded",
                "Input/output error",
                "Cannot allocate memory",
                "Too many open files",
                "Resource temporarily unavailable",
            ]
            .iter()
            .any(|fault| message.contains(fault)),
            Error::Io { source, .. } => passes(source),
            Error::Open { source, .. }
            | Error::Object { source, .. }
            | Error::Reference { source, .. } => {
                let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&**source);
                while let Some(cause) = next {
                    if cause.downcast_ref().is_some_and(passes) {
                        return true;
                    }
                    next = cause.source();
                }
                false
            }
            _ => false,
        }
    }

    /// Whether it comes of objects that are not there or cannot be read.
    pub(crate) fn is_damage(&self) -> bool {
        let is_of_objects = matches!(
            self,
            Error::Missing { .. }
                | Error::Object { .. }
                | Error::Malformed { .. }
                | Error::Failed { .. }
        );
        is_of_objects && !self.may_pass()
    }

    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
        source: std::io::Error,
    ) -> Error {
        Error::Io {
            doing,
            path: path.into(),
            source,
        }
    }

    pub(crate) fn object(
        doing: &'static str,
        id: impl Into<ObjectId>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Object {
            doing,
            id: id.into(),
            source: source.into(),
        }
    }
}

/// Whether the machine is short of something now, or its disk does not answer.
fn passes(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    use std::io::ErrorKind as K;
    let short = matches!(
        error.kind(),
        K::StorageFull
            | K::QuotaExceeded
            | K::OutOfMemory
            | K::ResourceBusy
            | K::WouldBlock
            | K::TimedOut
            | K::StaleNetworkFileHandle
            | K::ExecutableFileBusy
    );
    let unnamed = [Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOBUFS];
    let code = error.raw_os_error();
    short
        || unnamed
            .iter()
            .any(|known| code == Some(known.raw_os_error()))
}

/// The first names of a list for a message.
fn list(files: &[BString]) -> String {
    const SHOWN: usize = 5;
    let mut text = files
        .iter()
        .take(SHOWN)
        .map(|f| f.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    if files.len() > SHOWN {
        text.push_str(&format!(" and {} more", files.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_the_machine_is_short_of_may_pass_and_what_is_wrong_stays_wrong() {
        let written = |source| Error::io("writing", "/mirror", source);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let id: ObjectId = "7".repeat(40).parse().unwrap();
        for error in [
            written(full()),
            written(io::Error::from_raw_os_error(5)),
            Error::object("writing", id, full()),
            Error::Failed {
                doing: "merging",
                status: "exit status: 128".into(),
                message: "fatal: write error: No space left on device".into(),
            },
        ] {
            assert!(error.may_pass(), "{error:?}");
        }
        for error in [
            written(io::ErrorKind::NotFound.into()),
            written(io::ErrorKind::ReadOnlyFilesystem.into()),
            Error::Missing { id },
            Error::Failed {
                doing: "merging",
                status: "exit status: 128".into(),
                message: "fatal: bad object".into(),
            },
        ] {
            assert!(!error.may_pass(), "{error:?}");
        }
    }
}
