//! What happened in an attempt, as its events tell: for a replay, and for going on with it.

use crate::{replay::Error, worker::Worker};
use agents::{Before, ToolOutput, ToolResults, event::AgentEvent};
use domain::{
    AttemptId, AttemptState, BlobId,
    entity::Request,
    event::{Agent, Body},
};
use gateway::{Cassette, Diverged, Gateway};
use std::sync::{Mutex, PoisonError};

/// The most events of an attempt that are read.
const MAX_EVENTS: usize = 200_000;
/// How many events are read at once.
const PAGE: usize = 1_000;
/// The most bytes of one recorded body.
pub(crate) const MAX_BODY: u64 = 64 << 20;

/// What happened in an attempt.
pub(crate) struct Story {
    /// What was recorded is redacted, so what happens now is redacted before it is compared.
    gateway: Gateway,
    /// What each round began with: nothing for the task.
    pub(crate) rounds: Vec<Option<String>>,
    /// Whether the agent had ended the turn of the last round, and its tree was recorded.
    pub(crate) ended: bool,
    /// What it said at the end of its last turn.
    pub(crate) summary: String,
    /// The name of its own conversation.
    pub(crate) session: Option<String>,
    /// How many answers of the model it used.
    pub(crate) answers: u32,
    /// What else was recorded, in its order.
    pub(crate) marks: Vec<Mark>,
    /// The calls of tools that were about to run, by their ids.
    intents: Vec<String>,
    /// What the model was told of each tool call, in order.
    told: Vec<Told>,
    /// How many calls of the model were made so far.
    calls: u64,
    differing: Mutex<Vec<String>>,
}

/// What the model was told of a call.
struct Told {
    id: String,
    text: String,
    ok: bool,
    omitted: u64,
}

/// An event, as far as it is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    Session(String),
    Call(String),
    Result(String),
    Usage,
    Retry,
    Question,
    Error,
    Finished,
}

impl Mark {
    /// The mark of an event of an agent. Words have none.
    pub(crate) fn of(event: &AgentEvent) -> Option<Self> {
        Some(match event {
            AgentEvent::Session { id } => Self::Session(id.clone()),
            AgentEvent::ToolCall { id, .. } => Self::Call(id.clone()),
            AgentEvent::ToolResult { id, .. } => Self::Result(id.clone()),
            AgentEvent::Usage { .. } => Self::Usage,
            AgentEvent::Retry { .. } => Self::Retry,
            AgentEvent::Question { .. } => Self::Question,
            AgentEvent::Error { .. } => Self::Error,
            AgentEvent::Finished { .. } => Self::Finished,
            AgentEvent::TurnStarted { .. }
            | AgentEvent::Text { .. }
            | AgentEvent::Reasoning { .. } => return None,
        })
    }

    fn of_recorded(event: &Agent) -> Option<Self> {
        Some(match event {
            Agent::Session { id } => Self::Session(id.clone()),
            Agent::ToolCall { id, .. } => Self::Call(id.clone()),
            Agent::ToolResult { id, .. } => Self::Result(id.clone()),
            Agent::Usage { .. } => Self::Usage,
            Agent::Retry { .. } => Self::Retry,
            Agent::Question { .. } => Self::Question,
            Agent::Error { .. } => Self::Error,
            Agent::Finished { .. } => Self::Finished,
            Agent::Turn { .. } | Agent::Text { .. } | Agent::Reasoning { .. } => return None,
        })
    }
}

impl Story {
    fn new(gateway: &Gateway) -> Self {
        Self {
            gateway: gateway.clone(),
            rounds: Vec::new(),
            ended: false,
            summary: String::new(),
            session: None,
            answers: 0,
            marks: Vec::new(),
            intents: Vec::new(),
            told: Vec::new(),
            calls: 0,
            differing: Mutex::default(),
        }
    }

    /// Whether a text of now is the recorded one.
    fn is_same(&self, recorded: &str, now: &str) -> bool {
        recorded == now || recorded == self.gateway.redact(now)
    }

    /// Reads the events of an attempt.
    ///
    /// # Errors
    /// When they cannot be read, or what they refer to is not there.
    pub(crate) async fn read(
        worker: &Worker,
        request: &Request,
        attempt: AttemptId,
    ) -> Result<Self, Error> {
        let mut story = Self::new(&worker.gateway);
        let mut after = 0;
        let mut read = 0;
        loop {
            let page = worker
                .ledger
                .request_events(request.id, after, PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = last.sequence;
            read += page.len();
            for envelope in page {
                match envelope.body {
                    Body::Agent { attempt: of, event } if of == attempt => {
                        story.take(worker, event).await?;
                    }
                    Body::ModelCalled {
                        attempt: Some(of), ..
                    } if of == attempt => story.calls += 1,
                    Body::AttemptChanged {
                        attempt: of,
                        to: AttemptState::Checking,
                        ..
                    } if of == attempt => story.ended = true,
                    _ => {}
                }
            }
            if read >= MAX_EVENTS {
                break;
            }
        }
        Ok(story)
    }

    async fn take(&mut self, worker: &Worker, event: Agent) -> Result<(), Error> {
        // What is told belongs to the next call.
        let call = self.calls + 1;
        let text = async |id: BlobId, field: &str| {
            let changed = |now: &str| {
                Error::Diverged(Diverged {
                    call,
                    field: field.to_owned(),
                    recorded: id.to_string(),
                    now: now.to_owned(),
                })
            };
            match worker.ledger.blob(id, MAX_BODY).await {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(ledger::Error::BlobCorrupt { .. }) => Err(changed("(damaged)")),
                Err(ledger::Error::NotFound { .. }) => Err(changed("(absent)")),
                Err(error) => Err(error.into()),
            }
        };
        self.marks.extend(Mark::of_recorded(&event));
        match event {
            Agent::Turn { feedback, .. } => {
                let feedback = match feedback {
                    Some(id) => Some(text(id, "feedback").await?),
                    None => None,
                };
                self.rounds.push(feedback);
                self.ended = false;
            }
            Agent::ToolCall { id, .. } => self.intents.push(id),
            Agent::ToolResult {
                id,
                output,
                omitted,
                ok,
                full,
                ..
            } => {
                let text = match full {
                    Some(full) => text(full, &format!("output of {id}")).await?,
                    None => output,
                };
                self.told.push(Told {
                    id,
                    text,
                    ok,
                    omitted,
                });
            }
            Agent::Usage { .. } => self.answers += 1,
            Agent::Session { id } => self.session = Some(id),
            Agent::Finished { summary } => self.summary = summary,
            _ => {}
        }
        Ok(())
    }

    /// The calls of tools whose output was another one than recorded, by their ids.
    pub(crate) fn differing(&self) -> Vec<String> {
        self.differing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn told_at(&self, index: u64) -> Option<&Told> {
        self.told.get(usize::try_from(index).ok()?)
    }
}

/// In a replay.
impl ToolResults for Story {
    fn told(&self, index: u64, id: &str, fresh: ToolOutput) -> ToolOutput {
        let Some(recorded) = self.told_at(index) else {
            return fresh;
        };
        if !self.is_same(&recorded.id, id) || !self.is_same(&recorded.text, &fresh.text) {
            let mut differing = self
                .differing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            differing.push(id.to_owned());
        }
        ToolOutput {
            text: recorded.text.clone(),
            ok: recorded.ok,
            ..fresh
        }
    }
}

/// Where an attempt goes on: what has run is told and not run again.
pub(crate) struct Journal<'a> {
    pub(crate) story: &'a Story,
    pub(crate) cassette: &'a Cassette,
}

impl ToolResults for Journal<'_> {
    fn before(&self, index: u64, id: &str) -> Before {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(intent) = self.story.intents.get(place) else {
            return Before::Run;
        };
        if !self.story.is_same(intent, id) {
            return Before::Other {
                recorded: intent.clone(),
            };
        }
        match self.story.told_at(index) {
            None => Before::Unknown,
            Some(told) if !self.story.is_same(&told.id, id) => Before::Other {
                recorded: told.id.clone(),
            },
            Some(told) => Before::Done(ToolOutput {
                text: told.text.clone(),
                ok: told.ok,
                exit: None,
                omitted: told.omitted,
            }),
        }
    }

    fn told(&self, _: u64, _: &str, fresh: ToolOutput) -> ToolOutput {
        fresh
    }

    fn is_past(&self) -> bool {
        !self.cassette.is_over()
    }
}
