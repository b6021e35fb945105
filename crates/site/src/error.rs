//! What can go wrong between a commit and its site.

use domain::{Failure, Reason};
use std::path::PathBuf;

/// A failure to make a site, or to read it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mirror refused.
    #[error("the mirror of the repository cannot be used")]
    Git(#[from] git::Error),
    /// The commit that a request starts from is lost.
    #[error(
        "the commit {commit} that the work starts from is lost: neither the mirror nor the repository \
         has it; {again}"
    )]
    BaseLost {
        /// The commit.
        commit: git::CommitId,
        /// What a person can do.
        again: &'static str,
    },
    /// The workspace refused.
    #[error("the workspace cannot be used")]
    Workspace(#[from] workspace::Error),
    /// The sandbox refused.
    #[error("the sandbox cannot be used")]
    Sandbox(#[from] sandbox::Error),
    /// The setup command did not succeed.
    #[error(
        "the setup command `{command}` did not succeed ({how}); the end of its output:\n{output}"
    )]
    Setup {
        /// The command.
        command: String,
        /// Its exit.
        how: String,
        /// The end of its output.
        output: String,
    },
    /// A bound on the disk was passed while the setup command ran.
    #[error("the setup command was ended")]
    Full(#[from] crate::Full),
    /// Less is free on the disk than must stay free: what is started there would be ended at once.
    #[error(
        "the disk that holds {} has {free} left, and {bound} must stay free: nothing could run in a \
         sandbox there",
        place.display()
    )]
    NoRoom {
        /// What is free.
        free: String,
        /// What must stay free.
        bound: String,
        /// The directory.
        place: PathBuf,
    },
    /// A pattern of `.gitignore` or `include` cannot be read.
    #[error("the included files cannot be read: {0}")]
    Include(String),
    /// The files that a setup sees cannot be told.
    #[error("`setup.inputs` cannot be used: {0}")]
    Inputs(String),
    /// A person's dotfiles cannot be taken.
    #[error("the dotfiles cannot be taken: {0}")]
    Dotfiles(String),
    /// The workspace holds more than a change may.
    #[error("the file {path} is too large for a change, or grew while it was read")]
    Unreadable {
        /// The file.
        path: String,
        /// What the file system answered.
        #[source]
        source: std::io::Error,
    },
    /// A directory of the program's own cannot be read.
    #[error("the directory {} cannot be read", path.display())]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// What the file system answered.
        source: std::io::Error,
    },
    /// The ledger does not have what it should.
    #[error("the files that are taken along cannot be read from the ledger")]
    Ledger(#[from] ledger::Error),
    /// Processes of a killed holder do not end.
    #[error("processes {pids} of the killed holder still use the workspace {id}")]
    InUse {
        /// The workspace.
        id: String,
        /// Their ids.
        pids: String,
    },
    /// The workspace lies over another commit than the attempt.
    #[error("the workspace {id} lies over {found} instead of {wanted}")]
    OtherBase {
        /// The workspace.
        id: String,
        /// The key of the base that it lies over.
        found: String,
        /// The one that was meant.
        wanted: String,
    },
    /// The way out of a sandbox cannot be served.
    #[error("the channel of the sandbox cannot be served")]
    Channel(#[source] std::io::Error),
    /// What programs inside find the way out by cannot be written.
    #[error("{} cannot be written in the sandbox ({why})", file.display())]
    Settings {
        /// The file, as it would be seen inside.
        file: PathBuf,
        /// How the command that writes it ended.
        why: String,
    },
    /// Nothing here can freeze a workspace's layers: neither snapshots nor what is made of them.
    #[error("a sandbox of the kind {kind} has no snapshots, no undo and no forks here: {why}")]
    NoSnapshots {
        /// The kind.
        kind: sandbox::Kind,
        /// Why not.
        why: &'static str,
    },
    /// A change of the workspace's layers was given up half-way.
    #[error(
        "the workspace's layers are not known since a change of them was given up: open the site again"
    )]
    Unsettled,
    /// What stands for the commit of a further repository is the name of none.
    #[error("`{name}` is not the name of a commit: the ledger is damaged; see `skep doctor`")]
    NotACommit {
        /// What stands there.
        name: String,
    },
    /// A task of the program itself ended early.
    #[error("a task ended before its work was done")]
    Ended,
}

impl Error {
    /// The reason, in the words of the domain, with every cause named.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure::caused(self.reason(), self)
    }

    /// Whether nothing was tried, because the disk has too little left.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::NoRoom { .. })
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Setup { .. } => Reason::SetupFailed,
            Self::Git(error) if error.may_pass() => Reason::Storage,
            Self::Git(_)
            | Self::BaseLost { .. }
            | Self::Include(_)
            | Self::Dotfiles(_)
            | Self::Inputs(_) => Reason::Repository,
            Self::Workspace(workspace::Error::Limit { .. }) => Reason::LimitReached,
            Self::Workspace(_) | Self::Unreadable { .. } | Self::Directory { .. } => {
                Reason::Storage
            }
            Self::Full(full) => full.reason(),
            Self::Sandbox(sandbox::Error::Struck { .. }) => Reason::LimitReached,
            Self::Sandbox(sandbox::Error::ImageMissing { .. }) => Reason::ImageMissing,
            Self::Sandbox(_)
            | Self::NoSnapshots { .. }
            | Self::Channel(_)
            | Self::Settings { .. } => Reason::SandboxUnavailable,
            Self::NoRoom { .. } | Self::InUse { .. } | Self::OtherBase { .. } => Reason::Storage,
            Self::Ledger(_) | Self::NotACommit { .. } => Reason::Storage,
            Self::Unsettled | Self::Ended => Reason::Bug,
        }
    }
}
