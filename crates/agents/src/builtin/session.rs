//! The loop of the built-in agent.

use std::time::Instant;

use dialects::{
    Conversation, FaultClass, Reply, RequestOptions, StopReason, ToolCall, ToolResult, Usage,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::ask;
use super::repetition::{Repetition, Verdict};
use super::{Options, prompt, tools};
use crate::agent::{Before, Context, Error, Input, Outcome, Session, Stopped, Task, ToolOutput};
use crate::event::{AgentEvent, bounded};
use crate::guard::Guard;
use crate::model;
use crate::turn::{close, halted};

/// Answers in a row that are empty, cut off, or whose calls make no sense, before it ends.
const MAX_USELESS: u32 = 4;

/// The most calls of tools in one answer that are carried out.
const MAX_CALLS: usize = 64;

/// The last turns of the conversation that are never taken out.
const KEEP_TURNS: usize = 6;

/// The same, when the model has refused a conversation as too long.
const KEEP_TURNS_IN_NEED: usize = 2;

/// How often a conversation that is too long for the model is made smaller.
const MAX_SHRINKS: u32 = 3;

/// One conversation of the built-in agent.
pub(super) struct BuiltinSession {
    task: Task,
    options: Options,
    kept: Kept,
    repetition: Repetition,
}

/// What a later process needs to continue.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    conversation: Conversation,
    /// Steps of the model so far.
    turns: u32,
    /// Calls of tools so far.
    calls: u64,
}

/// What a turn has come to so far.
struct Progress {
    turns: u32,
    usage: Usage,
    summary: String,
}

/// What is to happen after a step of the model.
enum Next {
    Continue,
    Done,
}

impl BuiltinSession {
    pub(super) fn new(task: Task, options: Options) -> Self {
        let conversation = Conversation::new(
            prompt::system(&task),
            tools::described(task.reach.is_empty()),
        );
        let kept = Kept {
            conversation,
            turns: 0,
            calls: 0,
        };
        Self {
            task,
            options,
            kept,
            repetition: Repetition::default(),
        }
    }

    pub(super) fn restore(
        task: Task,
        options: Options,
        state: &[u8],
    ) -> Result<Self, serde_json::Error> {
        let kept = serde_json::from_slice(state)?;
        Ok(Self {
            task,
            options,
            kept,
            repetition: Repetition::default(),
        })
    }

    /// The loop. Woken by the model's answers and the ends of commands; owns the conversation;
    /// ends when the model is done, or must stop.
    async fn work(
        &mut self,
        input: Input,
        context: &Context<'_>,
        progress: &mut Progress,
    ) -> Result<(), Stopped> {
        let guard = Guard::new(context.cancel.clone(), self.task.limits.wall);
        let Some(model) = context.model else {
            return Err(Stopped::Failed(Error::Setup {
                agent: "builtin".into(),
                missing: "it was given no model".into(),
            }));
        };
        self.open(input);
        let mut useless = 0;
        let mut shrinks = 0;
        loop {
            guard.check()?;
            if self.kept.turns >= self.task.limits.turns {
                return Err(Stopped::TurnLimit);
            }
            self.kept
                .conversation
                .elide(self.options.context_tokens, KEEP_TURNS);
            let body = self.kept.conversation.request(
                model.dialect(),
                &RequestOptions {
                    model: model.model().to_owned(),
                    max_output: self.options.max_output,
                },
            );
            self.kept.turns += 1;
            progress.turns += 1;
            record(
                context,
                AgentEvent::TurnStarted {
                    turn: self.kept.turns,
                },
            )
            .await?;
            let reply = match ask(model, &body, &self.options, &guard, context).await {
                Ok(reply) => reply,
                Err(stopped) if too_long(&stopped) && shrinks < MAX_SHRINKS => {
                    // The estimate was too low for this model: half of it is the new limit.
                    shrinks += 1;
                    let half = self.kept.conversation.estimate() / 2;
                    if self.kept.conversation.elide(half, KEEP_TURNS_IN_NEED) {
                        continue;
                    }
                    return Err(stopped);
                }
                Err(stopped) => return Err(stopped),
            };
            progress.usage = progress.usage.plus(&reply.usage);
            record(context, AgentEvent::Usage { usage: reply.usage }).await?;
            match self
                .answer(reply, &guard, context, progress, &mut useless)
                .await?
            {
                Next::Done => return Ok(()),
                Next::Continue if useless > MAX_USELESS => {
                    return Err(Stopped::Stuck {
                        reason: format!("{useless} answers of the model in a row were of no use"),
                    });
                }
                Next::Continue => {}
            }
        }
    }

    /// Says what the turn begins with. Calls that have no result, because an earlier turn was
    /// interrupted, get one that says so; they are never run again.
    fn open(&mut self, input: Input) {
        let lost = self.kept.conversation.pending();
        self.kept.conversation.push_results(
            lost.into_iter()
                .map(|call| ToolResult {
                    id: call.id,
                    text: prompt::UNKNOWN_RESULT.to_owned(),
                    is_error: true,
                })
                .collect(),
        );
        self.kept.conversation.push_user(match input {
            Input::Task => self.task.prompt.clone(),
            Input::Feedback(text) => prompt::feedback(&text),
            Input::Interrupted(text) => prompt::interrupted(text.as_deref()),
        });
    }

    /// Acts on what the model said.
    async fn answer(
        &mut self,
        reply: Reply,
        guard: &Guard,
        context: &Context<'_>,
        progress: &mut Progress,
        useless: &mut u32,
    ) -> Result<Next, Stopped> {
        let text = reply.text();
        if reply.stop == Some(StopReason::Refusal) {
            return Err(Stopped::Failed(Error::Refused {
                said: bounded(text.trim()),
            }));
        }
        let has_calls = reply.calls().next().is_some();
        if has_calls {
            let calls = self.kept.conversation.push_reply(&reply);
            return self.use_tools(calls, guard, context, useless).await;
        }
        let nudge = match reply.stop {
            Some(StopReason::MaxTokens) => prompt::CUT,
            Some(StopReason::Pause) => {
                // The provider wants the same conversation again, with what it has said.
                self.kept.conversation.push_reply(&reply);
                *useless += 1;
                return Ok(Next::Continue);
            }
            _ if text.trim().is_empty() => prompt::EMPTY,
            _ => {
                self.kept.conversation.push_reply(&reply);
                progress.summary = bounded(text.trim());
                return Ok(Next::Done);
            }
        };
        *useless += 1;
        if !text.trim().is_empty() {
            self.kept.conversation.push_reply(&reply);
        }
        self.kept.conversation.push_user(nudge);
        Ok(Next::Continue)
    }

    /// Carries out the calls of an answer, one after the other.
    async fn use_tools(
        &mut self,
        calls: Vec<ToolCall>,
        guard: &Guard,
        context: &Context<'_>,
        useless: &mut u32,
    ) -> Result<Next, Stopped> {
        let mut verdict = Verdict::Fine;
        let mut understood = false;
        for (n, call) in calls.into_iter().enumerate() {
            guard.check()?;
            let action = tools::understand(&call).and_then(|action| {
                if n < MAX_CALLS {
                    Ok(action)
                } else {
                    Err(format!(
                        "Only the first {MAX_CALLS} calls of an answer are carried out. Nothing \
was done."
                    ))
                }
            });
            understood |= action.is_ok();
            let shown = shown_input(&call);
            let key = format!("{} {shown}", call.name);
            // The intent is on record before anything runs.
            let intent = AgentEvent::ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
                input: shown,
            };
            record(context, intent).await?;
            let started = Instant::now();
            let known = context.recorded.map_or(Before::Run, |recorded| {
                recorded.before(self.kept.calls, &call.id)
            });
            let fresh = match (known, action) {
                (Before::Run, Err(why)) => tools::not_done(why),
                (Before::Run, Ok(action)) => guard
                    .run(tools::carry_out(&action, &self.task, context))
                    .await?
                    .map_err(Stopped::Failed)?,
                (Before::Done(output), _) => output,
                (Before::Unknown, _) => tools::not_done(prompt::UNKNOWN_RESULT.to_owned()),
                (Before::Other { recorded }, _) => {
                    let place = format!("the call `{recorded}` of a tool is now `{}`", call.id);
                    return Err(Stopped::Failed(model::Error::Diverged { place }.into()));
                }
            };
            let told = self.told(&call.id, fresh, context);
            let event = AgentEvent::ToolResult {
                id: call.id.clone(),
                output: told.text.clone(),
                omitted: told.omitted,
                exit: told.exit,
                ok: told.ok,
                duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            };
            record(context, event).await?;
            verdict = self.repetition.see(&key, &told.text);
            self.kept.conversation.push_results(vec![ToolResult {
                id: call.id,
                text: told.text,
                is_error: !told.ok,
            }]);
        }
        *useless = if understood { 0 } else { *useless + 1 };
        match verdict {
            Verdict::Fine => {}
            Verdict::Nudge => self.kept.conversation.push_user(prompt::REPEATED),
            Verdict::Stop => {
                return Err(Stopped::Stuck {
                    reason: "the model did the same thing again and again".into(),
                });
            }
        }
        Ok(Next::Continue)
    }

    fn told(&mut self, id: &str, fresh: ToolOutput, context: &Context<'_>) -> ToolOutput {
        let index = self.kept.calls;
        self.kept.calls += 1;
        match context.recorded {
            Some(recorded) => recorded.told(index, id, fresh),
            None => fresh,
        }
    }
}

/// What an event shows of a call's arguments: long texts are cut.
fn shown_input(call: &ToolCall) -> Value {
    match &call.arguments {
        dialects::Arguments::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| {
                    let value = match value {
                        Value::String(text) => Value::String(bounded(text)),
                        other => other.clone(),
                    };
                    (key.clone(), value)
                })
                .collect(),
        ),
        dialects::Arguments::Invalid { text, .. } => Value::String(bounded(text)),
    }
}

fn too_long(stopped: &Stopped) -> bool {
    matches!(
        stopped,
        Stopped::Failed(Error::Model(model::Error::Provider { fault, .. }))
            if matches!(fault.class, FaultClass::ContextTooLong | FaultClass::TooLarge)
    )
}

async fn record(context: &Context<'_>, event: AgentEvent) -> Result<(), Stopped> {
    context.observer.record(event).await.map_err(halted)
}

#[async_trait::async_trait]
impl Session for BuiltinSession {
    async fn turn(&mut self, input: Input, context: &Context<'_>) -> Outcome {
        let mut progress = Progress {
            turns: 0,
            usage: Usage::ZERO,
            summary: String::new(),
        };
        let stopped = match self.work(input, context, &mut progress).await {
            Ok(()) => Stopped::Completed,
            Err(stopped) => stopped,
        };
        let stopped = close(&progress.summary, stopped, context).await;
        Outcome {
            summary: progress.summary,
            turns: progress.turns,
            usage: progress.usage,
            stopped,
            denied: Vec::new(),
        }
    }

    fn state(&self) -> Vec<u8> {
        // Text, numbers and maps with text keys always serialize.
        serde_json::to_vec(&self.kept).unwrap_or_default()
    }
}
