//! What every agent has in common.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use dialects::Usage;
use tokio_util::sync::CancellationToken;

use crate::event::{Halt, Observer};
use crate::exec::{self, Exec};
use crate::model::{self, Model};

/// What an agent is to do, and within which limits.
#[derive(Debug, Clone)]
pub struct Task {
    /// What is asked for.
    pub prompt: String,
    /// The checkout, as seen inside the sandbox.
    pub workspace: PathBuf,
    /// What the repository tells every agent (its `AGENTS.md` at the base commit).
    pub instructions: Option<String>,
    /// The checks that its work must pass.
    pub checks: Vec<CheckNote>,
    /// Rules for this task in plain sentences: its scope, say.
    pub rules: Vec<String>,
    /// Hosts that it may reach although there is no network, through the proxy that the environment
    /// names.
    pub reach: Vec<String>,
    /// What it may use.
    pub limits: Limits,
}

impl Task {
    /// What there is of a network, in a sentence's words: "there is no network".
    pub(crate) fn network(&self) -> String {
        if self.reach.is_empty() {
            return "there is no network".into();
        }
        format!(
            "there is no network but, through the proxy that HTTPS_PROXY names, what the policy \
             grants of {}",
            self.reach.join(", ")
        )
    }

    /// A task with default limits and nothing else.
    pub fn new(prompt: impl Into<String>, workspace: impl Into<PathBuf>) -> Self {
        Self {
            prompt: prompt.into(),
            workspace: workspace.into(),
            instructions: None,
            checks: Vec::new(),
            rules: Vec::new(),
            reach: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// A check, as the agent is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckNote {
    /// Its name.
    pub name: String,
    /// The command that is run.
    pub command: String,
}

/// What an agent may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps of its model, over the whole session.
    pub turns: u32,
    /// Wall time of one turn of the session.
    pub wall: Duration,
    /// Wall time of one command of the built-in agent.
    pub command: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            turns: 100,
            wall: Duration::from_secs(3600),
            command: Duration::from_secs(600),
        }
    }
}

/// The world that an agent acts in, as a role above provides it.
pub struct Context<'a> {
    /// Where commands run.
    pub exec: &'a dyn Exec,
    /// The model of an agent whose loop is on the trusted side.
    pub model: Option<&'a dyn Model>,
    /// Who records what happens.
    pub observer: &'a dyn Observer,
    /// In a replay, or where a session goes on, what the tools gave when it was recorded.
    pub recorded: Option<&'a dyn ToolResults>,
    /// Ends the turn.
    pub cancel: CancellationToken,
    /// What commands find in their environment: `PATH`, `HOME` and the like, as seen inside.
    pub env: Vec<(OsString, OsString)>,
    /// Where an agent inside the sandbox reaches models.
    pub gateway: Option<Gateway>,
}

impl Context<'_> {
    /// The private home, as seen inside: `HOME` of the environment, or `/home/agent`.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.env
            .iter()
            .rev()
            .find(|(name, _)| name == "HOME")
            .map_or_else(
                || PathBuf::from("/home/agent"),
                |(_, value)| PathBuf::from(value),
            )
    }
}

/// The way to models from inside a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The base URL, without a path and without a slash at its end: `http://127.0.0.1:8377`.
    pub url: String,
    /// The name of the model to ask for.
    pub model: String,
}

/// What a tool gave, as the model is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// The text.
    pub text: String,
    /// Whether the tool did what was asked.
    pub ok: bool,
    /// The exit code, where the tool has one.
    pub exit: Option<i32>,
    /// Bytes of the output that are not in the text.
    pub omitted: u64,
}

/// What tools gave in a recording.
///
/// In a replay the tools run for real, but the model is told what it was told then, so that a
/// duration that a command prints is no divergence. Where a session goes on whose process was
/// killed, what has run is not run again.
pub trait ToolResults: Send + Sync {
    /// What is known of a call before its tool runs. `index` counts the calls of the session from 0.
    fn before(&self, index: u64, id: &str) -> Before {
        let _unused = (index, id);
        Before::Run
    }

    /// What the model is told of a call.
    fn told(&self, index: u64, id: &str, fresh: ToolOutput) -> ToolOutput;

    /// Whether the waits before further tries are left out: they were waited for then.
    fn is_past(&self) -> bool {
        true
    }
}

/// What a recording knows of a call before its tool runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// The tool is to run.
    Run,
    /// It has run and gave this.
    Done(ToolOutput),
    /// It was about to run, and nobody knows whether it did: it is not run again.
    Unknown,
    /// In its place another call was recorded: the session cannot go on.
    Other {
        /// The id of that one.
        recorded: String,
    },
}

/// What a turn begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The task itself: the first turn.
    Task,
    /// What the checks found wrong with the work so far, or what else there is to say.
    Feedback(String),
    /// The turn was under way when its process was killed, and goes on. What it began with, where
    /// that was not the task.
    Interrupted(Option<String>),
}

/// How a session goes on whose process was killed in the middle of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It is begun anew and given what was recorded of its model and tools, up to where it was.
    Journal,
    /// It has a memory of its own in its home, and is told that it was interrupted.
    Memory,
    /// Not at all; only a new turn can begin.
    Nothing,
}

/// A kind of agent.
pub trait Agent: Send + Sync {
    /// Its name, as in its profile.
    fn name(&self) -> &str;

    /// Starts a session for a task. Nothing happens before its first turn.
    fn start(&self, task: Task) -> Box<dyn Session>;

    /// Continues a session from what [`Session::state`] gave, perhaps in another process.
    ///
    /// # Errors
    ///
    /// When `state` is not a state of this agent.
    fn resume(&self, task: Task, state: &[u8]) -> Result<Box<dyn Session>, Error>;

    /// How a session goes on whose process was killed.
    fn recovery(&self) -> Recovery {
        Recovery::Nothing
    }

    /// A session after its process was killed. `named` is the name that it gave its own conversation
    /// by [`crate::event::AgentEvent::Session`].
    fn recover(&self, task: Task, named: Option<&str>) -> Box<dyn Session> {
        let _unused = named;
        self.start(task)
    }
}

/// One conversation with an agent.
#[async_trait]
pub trait Session: Send {
    /// Lets the agent work until it has finished or must stop. Later turns continue the same
    /// conversation.
    async fn turn(&mut self, input: Input, context: &Context<'_>) -> Outcome;

    /// What [`Agent::resume`] needs to continue.
    fn state(&self) -> Vec<u8>;
}

/// How a turn ended.
#[derive(Debug)]
pub struct Outcome {
    /// What the agent says it did.
    pub summary: String,
    /// Steps of its model in this turn.
    pub turns: u32,
    /// What it used in this turn, by the provider's account.
    pub usage: Usage,
    /// Why it ended.
    pub stopped: Stopped,
    /// Tools that the agent wanted and was not given.
    pub denied: Vec<String>,
}

/// Why a turn ended.
#[derive(Debug)]
pub enum Stopped {
    /// The agent says that it has finished.
    Completed,
    /// It used its steps.
    TurnLimit,
    /// It used its wall time.
    TimeLimit,
    /// Its budget is used up.
    Budget,
    /// It was cancelled.
    Cancelled,
    /// It made no progress.
    Stuck {
        /// In which way.
        reason: String,
    },
    /// It failed.
    Failed(Error),
}

/// Why an agent failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be called.
    #[error("the model could not be called")]
    Model(#[from] model::Error),
    /// The model, or a filter of its provider, refused the task.
    #[error("the model refused to go on: {said}")]
    Refused {
        /// What it said.
        said: String,
    },
    /// A command could not be run.
    #[error("a command of the agent could not be run")]
    Exec(#[from] exec::Error),
    /// The agent's program failed.
    #[error("the agent's program failed ({exit}): {said}")]
    Program {
        /// How it ended.
        exit: String,
        /// The last that it said.
        said: String,
    },
    /// The agent's program did not say what its protocol wants.
    #[error("the agent's program ended without a result: {said}")]
    NoResult {
        /// The last that it said.
        said: String,
    },
    /// Its own conversation, which was to go on, is not there.
    #[error("the conversation of {agent} cannot be continued: {said}")]
    Forgotten {
        /// The agent.
        agent: String,
        /// The last that it said.
        said: String,
    },
    /// What it does cannot be recorded.
    #[error("the agent was stopped")]
    Halted(#[from] Halt),
    /// The profile or the context lacks something.
    #[error("the agent {agent} cannot run: {missing}")]
    Setup {
        /// The agent.
        agent: String,
        /// What is missing.
        missing: String,
    },
    /// A state that is not of this agent.
    #[error("the session of {agent} cannot be continued")]
    State {
        /// The agent.
        agent: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}
