//! What an agent does, recorded in the ledger in the words of the domain.

use crate::{
    attempt::Place,
    redact,
    story::Mark,
    streamed::{Streamed, cut},
};
use agents::event::{AgentEvent, Halt, Observer};
use async_trait::async_trait;
use domain::{
    AttemptId,
    event::{Agent, Body, MAX_TEXT},
};
use gateway::{Cassette, Gateway};
use ledger::{Lease, Ledger};
use std::{collections::VecDeque, pin::pin, sync::PoisonError, time::Duration};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

/// Records an attempt's agent, without the keys of providers. Every event but streamed text is
/// durable when `record` returns; that is, soon after, while the agent works [`Recorder::beside`].
pub(crate) struct Recorder<'a> {
    ledger: &'a Ledger,
    gateway: &'a Gateway,
    lease: &'a Lease,
    attempt: AttemptId,
    /// Who holds it writes, too: what was said first is recorded first.
    waiting: Mutex<Option<Streamed>>,
    /// Text waits that nothing may follow.
    waits: Notify,
    past: Option<Past>,
}

/// How long a conversation that was told to end may take to. It is less than a node gives its roles.
const CLEANUP: Duration = Duration::from_secs(20);

/// Waits for a conversation that was told to end, so that all it did is on record. One that does not
/// heed that is left after a while: its sandbox is ended next, and it with that.
pub(crate) async fn let_end(work: impl Future) {
    if tokio::time::timeout(CLEANUP, work).await.is_err() {
        tracing::warn!("an agent did not end when it was told to; its sandbox is ended");
    }
}

/// What was recorded already of an agent that goes through its journal.
struct Past {
    marks: std::sync::Mutex<VecDeque<Mark>>,
    cassette: Cassette,
}

impl Past {
    /// Whether an event was recorded already. Words belong to a call of the model, and are recorded
    /// with it.
    fn holds(&self, event: &AgentEvent) -> bool {
        if self.cassette.is_passed() {
            return false;
        }
        let Some(mark) = Mark::of(event) else {
            return true;
        };
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let found = marks.iter().position(|known| *known == mark);
        if let Some(place) = found {
            marks.drain(..=place);
        }
        found.is_some()
    }
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(place: &Place<'a>) -> Self {
        Self {
            ledger: place.ledger,
            gateway: &place.worker.gateway,
            lease: place.lease,
            attempt: place.attempt,
            waiting: Mutex::default(),
            waits: Notify::new(),
            past: None,
        }
    }

    /// One that does not record again what is recorded: these events, until the cassette is over.
    pub(crate) fn after(self, marks: &[Mark], cassette: &Cassette) -> Self {
        Self {
            past: Some(Past {
                marks: std::sync::Mutex::new(marks.iter().cloned().collect()),
                cassette: cassette.clone(),
            }),
            ..self
        }
    }

    /// Does this work, and meanwhile records streamed text that nothing follows. Where that cannot
    /// be recorded, `stop` tells the work, which is waited for as by [`let_end`].
    pub(crate) async fn beside<T>(
        &self,
        work: impl Future<Output = T>,
        stop: &CancellationToken,
    ) -> Result<T, ledger::Error> {
        let mut work = pin!(work);
        tokio::select! {
            done = &mut work => Ok(done),
            error = self.keep_up() => {
                stop.cancel();
                let_end(work).await;
                Err(error)
            }
        }
    }

    /// Records streamed text when it has waited long enough. Woken by text that waits; ends only by
    /// a failure.
    async fn keep_up(&self) -> ledger::Error {
        loop {
            self.waits.notified().await;
            let due = self.waiting.lock().await.as_ref().map(Streamed::due);
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
                // Else another text waits by now, and has said so.
                let mut waiting = self.waiting.lock().await;
                let ready = self.due(&mut waiting);
                if let Err(error) = self.write(ready).await {
                    return error;
                }
            }
        }
    }

    /// Records what still waits.
    pub(crate) async fn flush(&self) -> Result<(), ledger::Error> {
        self.events(Vec::new()).await
    }

    /// Records events of the agent after what still waits.
    pub(crate) async fn events(&self, events: Vec<Agent>) -> Result<(), ledger::Error> {
        let mut waiting = self.waiting.lock().await;
        let streamed = waiting.take();
        let mut all = streamed
            .map(|streamed| streamed.into_events(self.gateway))
            .unwrap_or_default();
        all.extend(events);
        self.write(all).await
    }

    async fn write(&self, events: Vec<Agent>) -> Result<(), ledger::Error> {
        if events.is_empty() {
            return Ok(());
        }
        let attempt = self.attempt;
        let bodies = events
            .into_iter()
            .map(|event| Body::Agent { attempt, event })
            .collect();
        self.ledger.record(self.lease, bodies).await
    }

    async fn stream(&self, reasoning: bool, text: String) -> Result<(), ledger::Error> {
        let mut waiting = self.waiting.lock().await;
        let other = waiting.take_if(|streamed| streamed.reasoning != reasoning);
        waiting
            .get_or_insert_with(|| Streamed::new(reasoning))
            .push(&text);
        let mut ready = other
            .map(|streamed| streamed.into_events(self.gateway))
            .unwrap_or_default();
        ready.extend(self.due(&mut waiting));
        if waiting.is_some() {
            self.waits.notify_one();
        }
        self.write(ready).await
    }

    /// What has waited long enough. What could be the beginning of a key goes on waiting: for more
    /// text, or for its end.
    fn due(&self, waiting: &mut Option<Streamed>) -> Vec<Agent> {
        let Some(streamed) = waiting.as_mut().filter(|streamed| streamed.is_due()) else {
            return Vec::new();
        };
        let ready = streamed.take_begun(self.gateway);
        waiting.take_if(|streamed| streamed.is_empty());
        ready
    }
}

#[async_trait]
impl Observer for Recorder<'_> {
    async fn record(&self, event: AgentEvent) -> Result<(), Halt> {
        let event = match event {
            streamed @ (AgentEvent::Text { .. } | AgentEvent::Reasoning { .. }) => streamed,
            other => redact::event(self.gateway, other),
        };
        if self.past.as_ref().is_some_and(|past| past.holds(&event)) {
            return Ok(());
        }
        let recorded = match event {
            // A key may be in several pieces of these, so they are redacted when they are together.
            AgentEvent::Text { text } => self.stream(false, text).await,
            AgentEvent::Reasoning { text } => self.stream(true, text).await,
            other => match self.translate(other).await {
                Ok(event) => self.events(event.into_iter().collect()).await,
                Err(error) => Err(error),
            },
        };
        recorded.map_err(|error| Halt {
            reason: error.to_string(),
        })
    }
}

impl Recorder<'_> {
    async fn translate(&self, event: AgentEvent) -> Result<Option<Agent>, ledger::Error> {
        Ok(Some(match event {
            AgentEvent::TurnStarted { .. } => return Ok(None),
            AgentEvent::Text { text } => Agent::Text { text: cut(text).0 },
            AgentEvent::Reasoning { text } => Agent::Reasoning { text: cut(text).0 },
            AgentEvent::Session { id } => Agent::Session { id },
            AgentEvent::ToolCall { id, name, input } => Agent::ToolCall {
                id,
                tool: name,
                input: cut(input.to_string()).0,
            },
            AgentEvent::ToolResult {
                id,
                output,
                omitted,
                ok,
                duration_ms,
                ..
            } => {
                let full = if output.len() > MAX_TEXT {
                    Some(self.ledger.put_blob(output.clone().into_bytes()).await?)
                } else {
                    None
                };
                let (output, cut) = cut(output);
                Agent::ToolResult {
                    id,
                    output,
                    omitted: omitted + cut,
                    ok,
                    duration_ms,
                    full,
                }
            }
            AgentEvent::Usage { usage } => Agent::Usage {
                input: usage.input.unwrap_or_default(),
                output: usage.output.unwrap_or_default(),
                money: None,
            },
            AgentEvent::Retry { reason, wait_ms } => Agent::Retry {
                reason: cut(reason).0,
                wait_ms,
            },
            AgentEvent::Question { text } => Agent::Question { text: cut(text).0 },
            AgentEvent::Error { text } => Agent::Error { text: cut(text).0 },
            AgentEvent::Finished { summary } => Agent::Finished {
                summary: cut(summary).0,
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streamed::tests::{KEY, STARS, gateway};
    use domain::{
        Amount, SessionId,
        entity::{Ask, Placement, Planning},
        plan::{Job, Plan},
        policy::Policy,
    };
    use ledger::{NewAttempt, Options, Owner};

    /// An agent at work in a ledger of its own.
    struct AtWork {
        ledger: Ledger,
        session: SessionId,
        lease: Lease,
        attempt: AttemptId,
        gateway: Gateway,
        /// With it goes the lease.
        _owner: Owner,
        _directory: tempfile::TempDir,
    }

    impl AtWork {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(Options::new(directory.path())).await.unwrap();
            let owner = ledger.owner().await.unwrap();
            let session = ledger.session("work").await.unwrap();
            let ask = Ask {
                repository: ledger.repository("/r").await.unwrap(),
                repository_path: "/r".into(),
                base: "a".repeat(40),
                dirty: false,
                prompt: "Think".into(),
                planning: Planning::None,
                plan: None,
                agent: "built-in".into(),
                model: None,
                budget: Amount::ZERO,
                policy: Policy::default(),
                parallel: 1,
                placement: Placement::default(),
                retry_of: None,
                included: Vec::new(),
                sources: Default::default(),
                sandbox: None,
            };
            ledger.submit(session, ask, None).await.unwrap();
            let request = ledger.claim_request(&owner, None).await.unwrap().unwrap();
            let plan = Plan {
                jobs: vec![Job {
                    name: "think".into(),
                    prompt: "Think".into(),
                    ..Job::default()
                }],
            };
            ledger
                .plan_request(&request.lease, plan, None)
                .await
                .unwrap();
            let job = ledger.claim_job(&owner, None).await.unwrap().unwrap();
            let attempt = NewAttempt {
                base: "b".repeat(40),
                agent: "built-in".into(),
                model: None,
                sandbox: "namespace".into(),
            };
            let attempt = ledger.start_attempt(&job.lease, attempt).await.unwrap();
            ledger.attempt_running(&job.lease).await.unwrap();
            Self {
                ledger,
                session,
                lease: job.lease,
                attempt: attempt.id,
                gateway: gateway(),
                _owner: owner,
                _directory: directory,
            }
        }

        fn recorder(&self) -> Recorder<'_> {
            Recorder {
                ledger: &self.ledger,
                gateway: &self.gateway,
                lease: &self.lease,
                attempt: self.attempt,
                waiting: Mutex::default(),
                waits: Notify::new(),
                past: None,
            }
        }
    }

    /// The next event of the agent, which comes although nothing else happens.
    async fn next(events: &mut ledger::Subscription) -> Agent {
        let next = async {
            loop {
                if let Body::Agent { event, .. } = events.next().await.unwrap().body {
                    break event;
                }
            }
        };
        let deadline = Duration::from_secs(30);
        tokio::time::timeout(deadline, next).await.unwrap()
    }

    fn said(text: &str) -> AgentEvent {
        AgentEvent::Text { text: text.into() }
    }

    #[tokio::test]
    async fn the_last_words_before_a_long_thought_are_recorded_though_nothing_follows() {
        let place = AtWork::new().await;
        let recorder = place.recorder();
        let mut events = place.ledger.subscribe(place.session, 0).await.unwrap();
        let stop = CancellationToken::new();
        let thinks = async {
            recorder.record(said("I look ")).await.unwrap();
            recorder.record(said("at it.")).await.unwrap();
            let mut heard = String::new();
            while heard != "I look at it." {
                let Agent::Text { text } = next(&mut events).await else {
                    panic!("it only spoke");
                };
                heard += &text;
            }
            let text = "Hm".into();
            let thought = AgentEvent::Reasoning { text };
            recorder.record(thought).await.unwrap();
            let thought = Agent::Reasoning { text: "Hm".into() };
            assert_eq!(next(&mut events).await, thought);
        };
        recorder.beside(thinks, &stop).await.unwrap();
        assert!(!stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_key_that_comes_in_pieces_is_kept_nowhere_and_what_follows_comes_after_it() {
        let place = AtWork::new().await;
        let recorder = place.recorder();
        let mut events = place.ledger.subscribe(place.session, 0).await.unwrap();
        let (begin, end) = KEY.split_at(6);
        let speaks = async {
            let begun = said(&format!("The key is {begin}"));
            recorder.record(begun).await.unwrap();
            let text = "The key is ".into();
            assert_eq!(next(&mut events).await, Agent::Text { text });
            recorder.record(said(end)).await.unwrap();
            let asked = AgentEvent::Question { text: KEY.into() };
            recorder.record(asked).await.unwrap();
            let text = STARS.into();
            assert_eq!(next(&mut events).await, Agent::Text { text });
            let text = STARS.into();
            assert_eq!(next(&mut events).await, Agent::Question { text });
        };
        let stop = CancellationToken::new();
        recorder.beside(speaks, &stop).await.unwrap();
    }

    #[tokio::test]
    async fn an_agent_whose_words_cannot_be_recorded_is_stopped() {
        let place = AtWork::new().await;
        let recorder = place.recorder();
        let stop = CancellationToken::new();
        let thinks = async {
            let attempt = place.ledger.attempt(place.attempt).await.unwrap();
            recorder.record(said("I go on.")).await.unwrap();
            place.ledger.cancel_job(attempt.job).await.unwrap();
            stop.cancelled().await;
        };
        let done = recorder.beside(thinks, &stop).await;
        assert!(matches!(done, Err(ledger::Error::LeaseLost(_))), "{done:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_does_not_heed_its_end_is_not_waited_for_longer_than_a_node_ends() {
        let begin = tokio::time::Instant::now();
        let_end(std::future::pending::<()>()).await;
        assert!(begin.elapsed() < Duration::from_secs(30));
        let_end(std::future::ready(())).await;
    }

    #[test]
    fn every_text_of_an_event_is_free_of_keys_and_as_long_as_it_was() {
        let gateway = gateway();
        let said = format!("\"{KEY}\"\n");
        let input = serde_json::json!({ KEY: [said.clone(), { "deep": KEY }], "z": 1 });
        let events = [
            AgentEvent::Session { id: KEY.into() },
            AgentEvent::ToolCall {
                id: KEY.into(),
                name: KEY.into(),
                input,
            },
            AgentEvent::ToolResult {
                id: KEY.into(),
                output: said.clone(),
                omitted: 0,
                exit: None,
                ok: true,
                duration_ms: 0,
            },
            AgentEvent::Retry {
                reason: said.clone(),
                wait_ms: 0,
            },
            AgentEvent::Question { text: said.clone() },
            AgentEvent::Error { text: said.clone() },
            AgentEvent::Finished { summary: said },
        ];
        for event in events {
            let as_value =
                |event: &AgentEvent| serde_json::json!([format!("{event:?}")]).to_string();
            let before = as_value(&event);
            let after = as_value(&redact::event(&gateway, event));
            assert_eq!(after, before.replace(KEY, STARS));
        }
    }
}
