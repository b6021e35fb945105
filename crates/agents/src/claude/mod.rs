//! Claude Code without a terminal: `claude -p --output-format stream-json`.
//!
//! It runs inside the sandbox with a private configuration, reaches its model through the
//! sandbox's gateway, and is told no key. A later turn continues its own session
//! (`--resume`); if that is gone, the turn fails: it never starts afresh in silence.

mod stream;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::agent::{Agent, Context, Error, Input, Outcome, Recovery, Session, Stopped, Task};
use crate::command::{briefing, last_words};
use crate::event::AgentEvent;
use crate::exec::{self, Output, Request, Running};
use crate::guard::Guard;
use crate::lines::Lines;
use crate::profile::Launch;
use crate::turn::{close, exec_failed, halted};

use stream::{Ending, Reader};

/// The longest line that is read, in bytes: a whole file can be in one.
const MAX_LINE: usize = 8 << 20;

/// How much of its error output is kept, in bytes.
const STDERR_BYTES: usize = 16 << 10;

/// How long it may take to end after it has told its result.
const LINGER: Duration = Duration::from_secs(10);

/// The events of all that it printed, for one that has no session yet.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_all(printed: &[u8]) -> Vec<AgentEvent> {
    let mut lines = Lines::new(MAX_LINE);
    let mut reader = Reader::new(None);
    let mut all = lines.feed(printed);
    all.extend(lines.finish());
    all.iter()
        .flat_map(|line| reader.read(&line.bytes, 0))
        .collect()
}

/// Claude Code as an agent.
#[derive(Debug, Clone)]
pub struct ClaudeCode {
    launch: Launch,
}

impl ClaudeCode {
    pub(crate) fn new(launch: Launch) -> Self {
        Self { launch }
    }
}

impl Agent for ClaudeCode {
    fn name(&self) -> &str {
        &self.launch.name
    }

    fn start(&self, task: Task) -> Box<dyn Session> {
        Box::new(ClaudeSession {
            launch: self.launch.clone(),
            task,
            kept: Kept::default(),
        })
    }

    fn recovery(&self) -> Recovery {
        Recovery::Memory
    }

    fn recover(&self, task: Task, named: Option<&str>) -> Box<dyn Session> {
        Box::new(ClaudeSession {
            launch: self.launch.clone(),
            task,
            kept: Kept {
                session: named.map(str::to_owned),
                turns: 0,
            },
        })
    }

    fn resume(&self, task: Task, state: &[u8]) -> Result<Box<dyn Session>, Error> {
        let kept = serde_json::from_slice(state).map_err(|source| Error::State {
            agent: self.name().to_owned(),
            source,
        })?;
        Ok(Box::new(ClaudeSession {
            launch: self.launch.clone(),
            task,
            kept,
        }))
    }
}

/// What a later process needs to continue.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// Claude Code's own id of its session.
    session: Option<String>,
    /// Steps of the model so far.
    turns: u32,
}

struct ClaudeSession {
    launch: Launch,
    task: Task,
    kept: Kept,
}

impl ClaudeSession {
    /// What it is told in this turn. Feedback without a session to say it in comes with the
    /// task.
    fn prompt(&self, input: Input) -> String {
        match (input, &self.kept.session) {
            (Input::Task, _) | (Input::Interrupted(None), None) => briefing(&self.task),
            (Input::Interrupted(text), Some(_)) => {
                let mut said = String::from(
                    "The work was interrupted: the process that ran you was ended. What a command \
that ran at that moment did is unknown. Look at the state of the checkout, then go on with the task.\n",
                );
                if let Some(text) = text {
                    said.push_str(&format!(
                        "\nYour work was checked before, and this was found:\n\n{text}\n"
                    ));
                }
                said
            }
            (Input::Feedback(text), Some(_)) => format!(
                "Your work was checked, and it is not finished:\n\n{text}\n\nPlease mend this. \
The checkout is as you left it.\n"
            ),
            (Input::Feedback(text) | Input::Interrupted(Some(text)), None) => {
                format!(
                    "{}\nWhat was found wrong so far:\n\n{text}\n",
                    briefing(&self.task)
                )
            }
        }
    }

    fn request(
        &self,
        input: Input,
        guard: &Guard,
        context: &Context<'_>,
    ) -> Result<Request, Error> {
        if context.gateway.is_none() {
            return Err(Error::Setup {
                agent: self.launch.name.clone(),
                missing: "the sandbox has no way to a model".into(),
            });
        }
        let prompt = self.prompt(input);
        let mut start = self.launch.fill(&prompt, &self.task.workspace, context);
        if let Some(session) = &self.kept.session {
            start.argv.extend(["--resume".into(), session.into()]);
        }
        Ok(Request {
            argv: start.argv,
            env: start.env,
            cwd: self.task.workspace.clone(),
            stdin: start.stdin,
            timeout: guard.left(),
            max_output: STDERR_BYTES,
        })
    }

    /// Woken by the program's output; owns the program, which ends when this does.
    async fn work(
        &mut self,
        input: Input,
        context: &Context<'_>,
        reader: &mut Reader,
    ) -> Result<String, Stopped> {
        let guard = Guard::new(context.cancel.clone(), self.task.limits.wall);
        let request = self
            .request(input, &guard, context)
            .map_err(Stopped::Failed)?;
        let mut running = guard
            .run(context.exec.spawn(request))
            .await?
            .map_err(exec_failed)?;
        let mut lines = Lines::new(MAX_LINE);
        while reader.ending.is_none() {
            let Some(chunk) = guard.run(running.read()).await?.map_err(exec_failed)? else {
                break;
            };
            for line in lines.feed(&chunk) {
                self.see(&line.bytes, reader, context).await?;
            }
            if self.kept.turns > self.task.limits.turns {
                return Err(Stopped::TurnLimit);
            }
        }
        if let Some(line) = lines.finish() {
            self.see(&line.bytes, reader, context).await?;
        }
        let wait = if reader.ending.is_some() {
            LINGER
        } else {
            guard.left()
        };
        let output = guard
            .run(tokio::time::timeout(wait, drain(running)))
            .await?;
        let output = output.ok().transpose().map_err(exec_failed)?;
        judge(output, reader)
    }

    async fn see(
        &mut self,
        line: &[u8],
        reader: &mut Reader,
        context: &Context<'_>,
    ) -> Result<(), Stopped> {
        for event in reader.read(line, self.kept.turns) {
            match &event {
                AgentEvent::Session { id } => self.kept.session = Some(id.clone()),
                AgentEvent::TurnStarted { turn } => self.kept.turns = *turn,
                _ => {}
            }
            context.observer.record(event).await.map_err(halted)?;
        }
        Ok(())
    }
}

/// Waits for the end of a program of which nothing more is expected.
async fn drain(mut running: Box<dyn Running>) -> Result<Output, exec::Error> {
    while running.read().await?.is_some() {}
    running.wait().await
}

/// How a turn ended, by what the program told and how it ended. Without `output` it told its
/// result and then did not end by itself.
fn judge(output: Option<Output>, reader: &mut Reader) -> Result<String, Stopped> {
    let exit = output
        .as_ref()
        .map_or_else(String::new, |output| output.exit.to_string());
    let failed = |said| {
        Err(Stopped::Failed(Error::Program {
            exit: exit.clone(),
            said,
        }))
    };
    match (reader.ending.take(), output) {
        (Some(Ending::Success { summary }), _) => Ok(summary),
        (Some(Ending::TurnLimit), _) => Err(Stopped::TurnLimit),
        (Some(Ending::Failure { said }), _) => failed(said),
        (None, None) => Err(Stopped::TimeLimit),
        (None, Some(output)) if output.exit.timed_out => Err(Stopped::TimeLimit),
        (None, Some(output)) => {
            let said = last_words(&output, &reader.last_line);
            if output.exit.success() {
                return Err(Stopped::Failed(Error::NoResult { said }));
            }
            failed(said)
        }
    }
}

#[async_trait]
impl Session for ClaudeSession {
    async fn turn(&mut self, input: Input, context: &Context<'_>) -> Outcome {
        let before = self.kept.turns;
        let mut reader = Reader::new(self.kept.session.clone());
        let resumed = self.kept.session.is_some();
        let (summary, stopped) = match self.work(input, context, &mut reader).await {
            Ok(summary) => (summary, Stopped::Completed),
            // It ended before a step of its model: there was nothing to continue.
            Err(Stopped::Failed(Error::Program { said, .. } | Error::NoResult { said }))
                if resumed && self.kept.turns == before =>
            {
                let agent = self.launch.name.clone();
                let gone = Error::Forgotten { agent, said };
                (String::new(), Stopped::Failed(gone))
            }
            Err(stopped) => (String::new(), stopped),
        };
        let stopped = close(&summary, stopped, context).await;
        Outcome {
            summary,
            turns: self.kept.turns.saturating_sub(before),
            usage: reader.usage.unwrap_or_default(),
            stopped,
            denied: reader.denied,
        }
    }

    fn state(&self) -> Vec<u8> {
        // Text and numbers always serialize.
        serde_json::to_vec(&self.kept).unwrap_or_default()
    }
}
