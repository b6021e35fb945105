//! What happened: one envelope and a closed list of bodies.

use crate::{
    amount::{Amount, Micros},
    egress::Part,
    entity::{Evidence, ObjectName},
    failure::Failure,
    id::{AttemptId, BlobId, ChangeId, EventId, JobId, RequestId, SessionId},
    state::{AttemptState, ChangeState, JobState, RequestState},
    time::Timestamp,
    trace::Trace,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};

/// The most bytes of text that one event carries; what is longer goes to a blob.
pub const MAX_TEXT: usize = 16 * 1024;

/// An event as it is stored and delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// Its id, the same wherever it is delivered.
    pub id: EventId,
    /// The session that it belongs to.
    pub session: SessionId,
    /// Its place in the session: from one, without gaps.
    pub sequence: u64,
    /// When it was recorded.
    pub time: Timestamp,
    /// The request that it belongs to: what all events have in common that one demand led to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// The trace of that request, as W3C Trace Context writes it: 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// The event that told of the beginning of what this one is about, or is a part of: of its
    /// change, its attempt or its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<EventId>,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

impl Envelope {
    /// An event with its trace and its parent, which follow from the rest.
    #[must_use]
    pub fn new(
        id: EventId,
        session: SessionId,
        sequence: u64,
        time: Timestamp,
        request: Option<RequestId>,
        body: Body,
    ) -> Self {
        Self {
            id,
            session,
            sequence,
            time,
            request,
            trace: request.map(Trace::from),
            parent: body.parent(request),
            body,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "payload", rename_all = "snake_case")]
pub enum Body {
    /// A session began.
    SessionCreated {
        /// Its name.
        name: String,
    },
    /// A session has another name.
    SessionRenamed {
        /// The name.
        name: String,
    },
    /// A request was accepted.
    RequestSubmitted {
        /// The request.
        request: RequestId,
        /// Its first line.
        title: String,
        /// The commit that it starts from.
        base: ObjectName,
        /// The most that it may spend.
        budget: Amount,
    },
    /// A request changed its state.
    RequestChanged {
        /// The request.
        request: RequestId,
        /// Before.
        from: RequestState,
        /// After.
        to: RequestState,
        /// Why, if it failed.
        failure: Option<Failure>,
    },
    /// A request has its plan.
    Planned {
        /// The request.
        request: RequestId,
        /// Its jobs, with their names and titles.
        jobs: Vec<PlannedJob>,
        /// What a person should know of how it was made: a plan that was not valid, say.
        note: Option<String>,
    },
    /// A job changed its state.
    JobChanged {
        /// The job.
        job: JobId,
        /// Before.
        from: JobState,
        /// After.
        to: JobState,
        /// Why, if it died or goes back.
        failure: Option<Failure>,
        /// Until when it sleeps, if it is parked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// An attempt began.
    AttemptStarted {
        /// The attempt.
        attempt: AttemptId,
        /// Its job.
        job: JobId,
        /// Its place among the attempts of the job.
        number: u32,
        /// The commit that it starts from.
        base: ObjectName,
        /// The profile of its agent.
        agent: String,
        /// Its model.
        model: Option<String>,
        /// The kind of its sandbox.
        sandbox: String,
    },
    /// An attempt changed its state.
    AttemptChanged {
        /// The attempt.
        attempt: AttemptId,
        /// Before.
        from: AttemptState,
        /// After.
        to: AttemptState,
        /// Why, if it did not pass.
        failure: Option<Failure>,
        /// Where the agent has ended its turn: the tree of what its workspace held then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tree: Option<ObjectName>,
    },
    /// An agent said or did something.
    Agent {
        /// The attempt.
        attempt: AttemptId,
        /// What.
        event: Agent,
    },
    /// A model was called and paid.
    ModelCalled {
        /// The attempt, unless a planner called.
        attempt: Option<AttemptId>,
        /// The provider and the model.
        model: String,
        /// The place of the call among those of its grant, from one.
        call: u64,
        /// Tokens and money. What could not be known is what was reserved.
        spent: Amount,
        /// Whether the provider said what was used.
        metered: bool,
        /// Whether the price of the model is known.
        priced: bool,
        /// The status of the answer; none if there was no answer.
        status: Option<u16>,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// A workspace is as the policy's setup leaves it.
    SetUp {
        /// The attempt whose work it is for.
        attempt: AttemptId,
        /// Who works in it: the agent, or checks.
        part: Part,
        /// Whether what an earlier setup left was used; else the command ran.
        cached: bool,
        /// How long the command took when it ran, in milliseconds.
        duration_ms: u64,
        /// A path that the command writes, and that the commit has without `setup.inputs` naming it:
        /// so the setup is of this commit alone.
        misfit: Option<String>,
        /// Globs of `setup.inputs` that no file of the commit matches.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unmatched: Option<Vec<String>>,
    },
    /// A check ran on what an attempt made, or on a merge.
    Checked {
        /// The attempt whose work it is.
        attempt: AttemptId,
        /// The change, once there is one: the check ran on the merged tree.
        change: Option<ChangeId>,
        /// The round, from one.
        round: u32,
        /// What it found.
        evidence: Evidence,
    },
    /// Something in a sandbox asked for something outside of it.
    Egress {
        /// The attempt whose work it is.
        attempt: AttemptId,
        /// Who asked.
        part: Part,
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The method, where it is known: of a tunnel only the two ends are.
        method: Option<String>,
        /// The path without its query, where it is known.
        path: Option<String>,
        /// The rule that decided; none where no rule allows it.
        rule: Option<String>,
        /// Whether it was allowed.
        allowed: bool,
        /// Why it was refused, or what ended it although it was allowed.
        reason: Option<String>,
        /// How often the same was decided.
        count: u64,
        /// Bytes that left the sandbox, in all of them.
        up: u64,
        /// Bytes that came in.
        down: u64,
        /// That the answers were kept ones of a package registry, and nothing was connected to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cached: Option<bool>,
    },
    /// A gate passed and made a change.
    ChangeMade {
        /// The change.
        change: ChangeId,
        /// The attempt.
        attempt: AttemptId,
        /// The commit.
        commit: ObjectName,
    },
    /// A change changed its state.
    ChangeChanged {
        /// The change.
        change: ChangeId,
        /// Before.
        from: ChangeState,
        /// After.
        to: ChangeState,
        /// The commit on the integration branch.
        integrated: Option<ObjectName>,
        /// Files that do not merge.
        conflicts: Vec<String>,
        /// Why, if it was rejected.
        failure: Option<Failure>,
    },
    /// The integration branch of the user's repository was moved, or could not be.
    Published {
        /// The request.
        request: RequestId,
        /// The branch.
        branch: String,
        /// Where it points.
        commit: ObjectName,
        /// Why it was not moved.
        refused: Option<String>,
    },
    /// Something that a person should read.
    Note {
        /// What.
        text: String,
    },
}

/// A job as its plan names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedJob {
    /// The job.
    pub job: JobId,
    /// Its name in the plan.
    pub name: String,
    /// What it is about.
    pub title: String,
    /// The jobs that it waits for.
    pub after: Vec<JobId>,
}

/// What an agent said or did, whatever agent it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Agent {
    /// A turn began: the agent was given a prompt.
    Turn {
        /// The round, from one.
        round: u32,
        /// What it was told about its work so far; the task itself in the first round.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feedback: Option<BlobId>,
    },
    /// Its own conversation has this name, by which it can be resumed.
    Session {
        /// The name.
        id: String,
    },
    /// Its model failed and is asked again.
    Retry {
        /// What happened.
        reason: String,
        /// The wait before the next try, in milliseconds.
        wait_ms: u64,
    },
    /// It said something.
    Text {
        /// What.
        text: String,
    },
    /// It thought aloud.
    Reasoning {
        /// What.
        text: String,
    },
    /// It wants to use a tool. Recorded before the tool runs.
    ToolCall {
        /// The name of the call, as the model gave it.
        id: String,
        /// The tool.
        tool: String,
        /// Its input.
        input: String,
    },
    /// A tool has run.
    ToolResult {
        /// The name of the call.
        id: String,
        /// What the agent was told: head and tail where it was long.
        output: String,
        /// How many bytes were left out.
        omitted: u64,
        /// Whether the tool did what was asked.
        ok: bool,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// The text that the agent was told, where it does not fit here.
        full: Option<BlobId>,
    },
    /// It used a model, by its own account.
    Usage {
        /// Tokens into the model.
        input: u64,
        /// Tokens out of the model.
        output: u64,
        /// Money, by its own account.
        money: Option<Micros>,
    },
    /// It asks a person.
    Question {
        /// What.
        text: String,
    },
    /// Something went wrong for it.
    Error {
        /// What.
        text: String,
    },
    /// It ended its turn.
    Finished {
        /// What it says it did.
        summary: String,
    },
}

/// A step of a machine, as an event tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    /// The machine: `request`, `job`, `attempt` or `change`.
    pub machine: &'static str,
    /// The state before.
    pub from: &'static str,
    /// The state after.
    pub to: &'static str,
}

/// The JSON Schema of every event, as it is stored and delivered.
#[must_use]
pub fn schema() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<Envelope>();
    schema.insert("title".into(), "Events of Skep".into());
    schema.to_value()
}

impl Body {
    /// The id of an event that tells of a beginning: that of the request, attempt or change that
    /// begins. Any other event has an id of its own.
    #[must_use]
    pub const fn own_id(&self) -> Option<EventId> {
        let bits = match self {
            Self::RequestSubmitted { request, .. } => request.bits(),
            Self::AttemptStarted { attempt, .. } => attempt.bits(),
            Self::ChangeMade { change, .. } => change.bits(),
            _ => return None,
        };
        Some(EventId::from_bits(bits))
    }

    /// The event that told of the beginning of what this one, of this request, is about or is a
    /// part of.
    fn parent(&self, request: Option<RequestId>) -> Option<EventId> {
        let bits = match self {
            Self::RequestSubmitted { .. } => return None,
            Self::ChangeChanged { change, .. }
            | Self::Checked {
                change: Some(change),
                ..
            } => change.bits(),
            Self::AttemptChanged { attempt, .. }
            | Self::Agent { attempt, .. }
            | Self::Checked { attempt, .. }
            | Self::Egress { attempt, .. }
            | Self::SetUp { attempt, .. }
            | Self::ChangeMade { attempt, .. }
            | Self::ModelCalled {
                attempt: Some(attempt),
                ..
            } => attempt.bits(),
            _ => request?.bits(),
        };
        Some(EventId::from_bits(bits))
    }

    /// The step that the event tells of, if it tells of one.
    #[must_use]
    pub const fn step(&self) -> Option<Step> {
        let (machine, from, to) = match self {
            Self::RequestChanged { from, to, .. } => ("request", from.as_str(), to.as_str()),
            Self::JobChanged { from, to, .. } => ("job", from.as_str(), to.as_str()),
            Self::AttemptChanged { from, to, .. } => ("attempt", from.as_str(), to.as_str()),
            Self::ChangeChanged { from, to, .. } => ("change", from.as_str(), to.as_str()),
            _ => return None,
        };
        Some(Step { machine, from, to })
    }

    /// The name of the kind of event.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SessionCreated { .. } => "session_created",
            Self::SessionRenamed { .. } => "session_renamed",
            Self::RequestSubmitted { .. } => "request_submitted",
            Self::RequestChanged { .. } => "request_changed",
            Self::Planned { .. } => "planned",
            Self::JobChanged { .. } => "job_changed",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::AttemptChanged { .. } => "attempt_changed",
            Self::Agent { .. } => "agent",
            Self::ModelCalled { .. } => "model_called",
            Self::SetUp { .. } => "set_up",
            Self::Checked { .. } => "checked",
            Self::Egress { .. } => "egress",
            Self::ChangeMade { .. } => "change_made",
            Self::ChangeChanged { .. } => "change_changed",
            Self::Published { .. } => "published",
            Self::Note { .. } => "note",
        }
    }
}

impl Body {
    /// The blobs that it names.
    pub fn blobs(&self) -> impl Iterator<Item = BlobId> + use<> {
        match self {
            Self::Agent { event, .. } => match event {
                Agent::Turn { feedback, .. } => *feedback,
                Agent::ToolResult { full, .. } => *full,
                _ => None,
            },
            Self::Checked { evidence, .. } => evidence.output,
            _ => None,
        }
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_one_flat_object_whose_type_is_the_kind() {
        let envelope = Envelope::new(
            EventId::from_bits(1),
            SessionId::from_bits(2),
            3,
            Timestamp(4),
            Some(RequestId::from_bits(5)),
            Body::Note {
                text: "hello".into(),
            },
        );
        let text = serde_json::to_string(&envelope).unwrap();
        insta::assert_snapshot!(text, @r#"{"id":"e-000000000001","session":"s-000000000002","sequence":3,"time":4,"request":"r-000000000005","trace":"00000000000000000000000000000005","parent":"e-000000000005","type":"note","payload":{"text":"hello"}}"#);
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), envelope);
        assert!(text.contains(&format!("\"type\":\"{}\"", envelope.body.kind())));
    }

    #[test]
    fn every_event_of_a_request_leads_to_its_submission() {
        let (request, job) = (RequestId::from_bits(5), JobId::from_bits(6));
        let (attempt, change) = (AttemptId::from_bits(7), ChangeId::from_bits(8));
        let submitted = Body::RequestSubmitted {
            request,
            title: String::new(),
            base: String::new(),
            budget: Amount::default(),
        };
        let started = Body::AttemptStarted {
            attempt,
            job,
            number: 1,
            base: String::new(),
            agent: String::new(),
            model: None,
            sandbox: String::new(),
        };
        let made = Body::ChangeMade {
            change,
            attempt,
            commit: String::new(),
        };
        let integrated = Body::ChangeChanged {
            change,
            from: ChangeState::Merging,
            to: ChangeState::Integrated,
            integrated: None,
            conflicts: Vec::new(),
            failure: None,
        };
        let known = [&submitted, &started, &made].map(|body| (body.own_id(), body));
        let mut body = &integrated;
        let mut way = Vec::new();
        while let Some(parent) = body.parent(Some(request)) {
            body = known
                .iter()
                .find(|(id, _)| *id == Some(parent))
                .map(|(_, body)| *body)
                .unwrap();
            way.push(body.kind());
        }
        assert_eq!(way, ["change_made", "attempt_started", "request_submitted"]);
    }
}
