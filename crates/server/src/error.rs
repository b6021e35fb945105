//! Why something that a person asked of a node could not be done.

use domain::{Reason, plan, policy};
use std::path::PathBuf;

/// Why something that a person asked could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The repository cannot be used as asked.
    #[error(transparent)]
    Git(#[from] git::Error),
    /// A site cannot be made.
    #[error(transparent)]
    Site(#[from] site::Error),
    /// The sandbox cannot be used.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// No sandbox of this kind can be made here.
    #[error("no sandbox of the kind `{kind}` can be made here ({what}); {remedy}{below}")]
    Unusable {
        /// The kind.
        kind: sandbox::Kind,
        /// What is missing.
        what: String,
        /// What to do.
        remedy: String,
        /// Lines that belong to what is missing, such as the last ones of what failed: below it.
        below: String,
    },
    /// A sandbox that a process holds cannot be used as asked.
    #[error(transparent)]
    Standing(#[from] crate::standing::Error),
    /// The gateway cannot be made.
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    /// No provider, or more than one, could be meant.
    #[error(transparent)]
    Model(#[from] gateway::RouteError),
    /// `skep.toml` at the base commit cannot be read.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// The plan cannot be carried out.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// The agent cannot run here.
    #[error("{0}")]
    Agent(domain::Failure),
    /// The agent of a job of a plan cannot run here.
    #[error("job `{job}` of the plan cannot run: {failure}")]
    JobAgent {
        /// The job.
        job: String,
        /// Why.
        failure: domain::Failure,
    },
    /// No provider, or more than one, could be meant by the model of a job of a plan.
    #[error(
        "job `{job}` of the plan has no model that can be called: correct its `model`, or leave it \
         out, so that the job has the request's"
    )]
    JobModel {
        /// The job.
        job: String,
        /// Why.
        source: gateway::RouteError,
    },
    /// The prompt is empty or too long.
    #[error(
        "the request is empty, or longer than {} bytes: say in a few sentences what should change",
        domain::plan::MAX_PROMPT
    )]
    Prompt,
    /// There is nothing to take or to drop.
    #[error("there is no integrated work on {branch}: run `skep list` to see what was done")]
    NothingIntegrated {
        /// The branch.
        branch: String,
    },
    /// What was fetched from a URL has no working tree.
    #[error(
        "what was fetched from {url} has no working tree here: in a clone of it, `git fetch {} \
         {branch}` brings the work, and `git merge FETCH_HEAD` takes it", copy.display()
    )]
    NoCheckout {
        /// The URL.
        url: String,
        /// The copy that holds the work.
        copy: PathBuf,
        /// The integration branch.
        branch: String,
    },
    /// A change is one of another repository.
    #[error("{id} is a change of the repository {other}: start there")]
    OtherRepository {
        /// The change.
        id: String,
        /// The repository.
        other: String,
    },
    /// Nothing was fetched from a URL yet.
    #[error("nothing was fetched from {url} yet: `skep run --repo {url}` starts something")]
    NotFetched {
        /// The URL.
        url: String,
    },
    /// The sources make no sense together.
    #[error(transparent)]
    Origin(#[from] domain::origin::Error),
    /// Nobody says what serves an issue.
    #[error(
        "nothing tells what serves the issues of {host}: write `kind = \"github\"`, `\"gitlab\"` or \
         `\"forgejo\"` below `[forges.\"{host}\"]` in the configuration"
    )]
    UnknownForge {
        /// The host.
        host: String,
    },
    /// An issue cannot be read.
    #[error(
        "the issue {issue} cannot be read; if it is not public, set the variable that holds a token \
         for its host (`token_env` in `[forges]`)"
    )]
    Issue {
        /// The issue.
        issue: String,
        /// Why.
        source: Box<gateway::PageError>,
    },
    /// What a forge answers is no issue.
    #[error(
        "what {host} answers for the issue {issue} is none: check `kind` and `api` in `[forges]`"
    )]
    NoIssue {
        /// The host.
        host: String,
        /// The issue.
        issue: String,
    },
    /// A URL is of no issue.
    #[error("`--issue` takes the URL of an issue, like https://github.com/OWNER/NAME/issues/7")]
    NotAnIssue,
    /// Further repositories are shown in a sandbox only.
    #[error(
        "the sandbox `host` shows no further repositories: leave out `--with` and `--also`, or the kind"
    )]
    NothingBeside,
    /// Two further repositories have one name.
    #[error("two further repositories are named `{name}`: write NAME=SOURCE for one of them")]
    SameName {
        /// The name.
        name: String,
    },
    /// Uncommitted work is asked of a repository that has none.
    #[error("there is no uncommitted work at {url}: leave out `--dirty`")]
    NothingUncommitted {
        /// The URL.
        url: String,
    },
    /// Nothing was asked of the repository.
    #[error("nothing was asked of this repository yet: `skep run` starts something")]
    NoRequests,
    /// What was named has no diff.
    #[error("{id} has nothing to show: it made no change")]
    NoDiff {
        /// What was named.
        id: String,
    },
    /// An attempt has no such round, or it did not come to its end.
    #[error(
        "{id} has no round {round} that its agent ended: `skep log {id}` tells its rounds; name an \
         attempt or a job where a request has several"
    )]
    NoRound {
        /// What was named.
        id: String,
        /// The round.
        round: u32,
    },
    /// What was changed is known, and its commits are gone.
    #[error("the commits of {id} are not on this machine any more")]
    CommitsLost {
        /// What was named.
        id: String,
    },
    /// What was named cannot be tried again.
    #[error("{id} cannot be tried again: {why}")]
    NotRetryable {
        /// What was named.
        id: String,
        /// Why not.
        why: String,
    },
    /// The integration branch is checked out, so that it is not touched.
    #[error("{branch} is checked out in {place}: switch to another branch first")]
    CheckedOut {
        /// The branch.
        branch: String,
        /// Where.
        place: String,
    },
    /// The integration branch is not where it was when it was looked at.
    #[error("{branch} was moved meanwhile: look again, then repeat the command")]
    Moved {
        /// The branch.
        branch: String,
    },
    /// What stands for a commit or a tree in the ledger is the name of none.
    #[error(
        "`{name}` is not the name of a commit or a tree: the ledger is damaged; see `skep doctor`"
    )]
    NotACommit {
        /// What stands there.
        name: String,
    },
    /// A role cannot go on.
    #[error("{message}")]
    Role {
        /// What happened, with its causes.
        message: String,
        /// What of the storage failed, where that was it.
        fault: Option<ledger::Fault>,
    },
    /// The replay is not what was recorded, or cannot be run.
    #[error(transparent)]
    Replay(#[from] worker::ReplayError),
    /// A task of the program itself ended early.
    #[error("a task ended before its work was done")]
    Ended,
}

impl Error {
    /// The reason, where it is one of the domain.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Site(error) => Some(error.failure().reason),
            Self::Sandbox(sandbox::Error::ImageMissing { .. }) => Some(Reason::ImageMissing),
            Self::Sandbox(_) | Self::Unusable { .. } => Some(Reason::SandboxUnavailable),
            Self::Policy(_) => Some(Reason::PolicyInvalid),
            Self::Plan(_) => Some(Reason::PlanInvalid),
            Self::Agent(failure) | Self::JobAgent { failure, .. } => Some(failure.reason),
            Self::Gateway(error) => Some(error.reason()),
            Self::Standing(crate::standing::Error::Refused { reason, .. }) => *reason,
            _ => None,
        }
    }

    /// A role cannot go on because of this.
    pub(crate) fn of_role(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Some(error);
        let mut fault = None;
        while let Some(error) = cause {
            if let Some(ledger::Error::Storage { kind, .. }) = error.downcast_ref() {
                fault = Some(*kind);
            }
            cause = error.source();
        }
        Self::Role {
            message: domain::failure::chain(error),
            fault,
        }
    }
}
