//! Requests, jobs, attempts and changes as plain data.

use crate::{
    amount::Amount,
    failure::Failure,
    id::{AttemptId, BlobId, ChangeId, JobId, RepositoryId, RequestId, SessionId},
    plan,
    policy::Policy,
    state::{AttemptState, ChangeState, JobState, RequestState},
    time::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The full hexadecimal name of a git commit or tree.
pub type ObjectName = String;

/// How a request becomes a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Planning {
    /// A model plans; if its plan is not valid, the request goes on as one job and says so.
    #[default]
    Auto,
    /// A model plans; if its plan is not valid, the request fails.
    Required,
    /// One job does all that is asked.
    None,
    /// A person wrote the plan.
    Given,
}

/// How soon somebody wants it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A person waits for it.
    Interactive,
    /// Nobody waits, and it should be done soon.
    #[default]
    Normal,
    /// Whenever there is nothing else to do.
    Background,
}

impl Priority {
    /// How long it lets others go first: work is behind all that becomes ready within this time
    /// after it and is more urgent, and before all that comes later. So it ages by waiting, and
    /// nothing waits for ever.
    #[must_use]
    pub const fn patience(self) -> Duration {
        match self {
            Self::Interactive => Duration::ZERO,
            Self::Normal => Duration::from_secs(5 * 60),
            Self::Background => Duration::from_secs(60 * 60),
        }
    }
}

/// Where in the queues a request stands, and who may work on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// How soon it is wanted.
    #[serde(default)]
    pub priority: Priority,
    /// Who asked: users share the workers fairly.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// What a worker must be able to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The only worker that may take it, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// It does not begin before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

impl Placement {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a person asks for, before it has an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The repository.
    pub repository: RepositoryId,
    /// Where it is on this machine.
    pub repository_path: String,
    /// The commit that the work starts from.
    pub base: ObjectName,
    /// Whether that commit holds what was uncommitted in the user's tree, or is made from one that does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dirty: bool,
    /// What is asked.
    pub prompt: String,
    /// How it becomes a plan.
    pub planning: Planning,
    /// The plan, when a person wrote it.
    pub plan: Option<plan::Plan>,
    /// The profile of the agent.
    pub agent: String,
    /// The model: `provider/name`.
    pub model: Option<String>,
    /// The most that may be spent.
    pub budget: Amount,
    /// The policy at the base commit.
    pub policy: Policy,
    /// How many jobs may run at once.
    pub parallel: u32,
    /// Where in the queues it stands.
    #[serde(default, skip_serializing_if = "Placement::is_default")]
    pub placement: Placement,
    /// The request that this one tries again.
    pub retry_of: Option<RequestId>,
    /// Ignored files of the user's tree that every workspace gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<Included>,
    /// Where its repositories come from.
    #[serde(default, skip_serializing_if = "Sources::is_default")]
    pub sources: Sources,
    /// The kind of sandbox that was asked for; none in requests of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// Where the repositories of a request come from, besides a path of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sources {
    /// The URL that the repository was fetched from, without credentials; none for a repository of
    /// this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What of the repository is meant: the full name of a reference, a commit, or of a repository of
    /// this machine whatever git understands. Nothing is its default branch, or `HEAD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The issue whose text is part of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issue: Option<String>,
    /// Further repositories that every workspace shows, and that nobody changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
}

impl Sources {
    /// What whoever works is told of the further repositories, each in a line; `parent` is where they
    /// are shown.
    pub fn notes<'a>(&'a self, parent: &'a str) -> impl Iterator<Item = String> + 'a {
        self.beside.iter().map(move |one| {
            let short = one.commit.get(..10).unwrap_or(&one.commit);
            format!(
                "`{parent}/{}` is {} at commit {short}, to read and to use; it cannot be written.",
                one.name, one.origin
            )
        })
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A further repository, at one commit, that every workspace shows beside its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// The name of its directory.
    pub name: String,
    /// The repository.
    pub repository: RepositoryId,
    /// The URL or the path that it is from.
    pub origin: String,
    /// The commit.
    pub commit: ObjectName,
}

impl Ask {
    /// The blobs that it names.
    pub fn blobs(&self) -> impl Iterator<Item = BlobId> {
        self.included.iter().map(|file| file.content)
    }
}

/// An ignored file of the user's tree that every workspace gets a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Included {
    /// Its path in the repository.
    pub path: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// Its content.
    pub content: BlobId,
}

/// What a person asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// The session that it belongs to.
    pub session: SessionId,
    /// What was asked.
    pub ask: Ask,
    /// Where it stands.
    pub state: RequestState,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was asked.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// A unit of agent work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The request that it is part of.
    pub request: RequestId,
    /// What the plan says of it.
    pub spec: plan::Job,
    /// The jobs that it waits for.
    pub after: Vec<JobId>,
    /// Where it stands.
    pub state: JobState,
    /// How many attempts were started.
    pub attempts: u32,
    /// Why it died.
    pub failure: Option<Failure>,
    /// When it was planned.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// One execution of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// The job.
    pub job: JobId,
    /// The request that the job is part of.
    pub request: RequestId,
    /// Its place among the attempts of the job, from one.
    pub number: u32,
    /// The commit that its workspace started from.
    pub base: ObjectName,
    /// The profile of its agent.
    pub agent: String,
    /// Its model, as asked for.
    pub model: Option<String>,
    /// The kind of its sandbox.
    pub sandbox: String,
    /// Where it stands.
    pub state: AttemptState,
    /// Why it did not pass.
    pub failure: Option<Failure>,
    /// What the agent said at the end.
    pub summary: String,
    /// The tree that was extracted last.
    pub tree: Option<ObjectName>,
    /// What it spent.
    pub spent: Amount,
    /// When it started.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// How the name of a kind of sandbox ends that seals nothing.
pub const UNSEALED: &str = "(unsealed)";

/// Whether the kind of sandbox with this name seals what runs in it.
#[must_use]
pub fn is_sealed(sandbox: &str) -> bool {
    !sandbox.ends_with(UNSEALED)
}

/// The commits that a passed gate produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its id.
    pub id: ChangeId,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// The job.
    pub job: JobId,
    /// The request.
    pub request: RequestId,
    /// The repository.
    pub repository: RepositoryId,
    /// The commit that it starts from.
    pub base: ObjectName,
    /// The commit that the gate passed, on top of the base.
    pub commit: ObjectName,
    /// Where it stands.
    pub state: ChangeState,
    /// The commit on the integration branch that holds it.
    pub integrated: Option<ObjectName>,
    /// Files that do not merge.
    pub conflicts: Vec<String>,
    /// Why it was rejected.
    pub failure: Option<Failure>,
    /// Whether the repository's own checks ran on it.
    pub checked: bool,
    /// Whether it was made in a sandbox. If not, it is labelled "unsealed" wherever it is shown.
    pub sealed: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was settled.
    pub ended: Option<Timestamp>,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not hold.
    Failed,
    /// It was not run: the change touches none of its paths.
    NotNeeded,
    /// It could not be run to an end: a limit, a time-out, the sandbox.
    Broken,
}

/// What is kept of one check: enough to believe it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The name of the rule or command.
    pub check: String,
    /// What it found.
    pub verdict: Verdict,
    /// The command that ran, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What was found, for a person and for the agent: the end of the output, or the rule's words.
    pub findings: String,
    /// The whole output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<BlobId>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The tree that it ran on.
    pub tree: ObjectName,
}
