//! Any program as an agent: it gets a prompt, works on the files around it, and ends. What it
//! prints is shown; its exit code decides.

use async_trait::async_trait;
use dialects::Usage;

use crate::agent::{Agent, Context, Error, Input, Outcome, Session, Stopped, Task};
use crate::event::{AgentEvent, bounded};
use crate::exec::{Output, Request};
use crate::guard::Guard;
use crate::lines::{Line, Lines};
use crate::profile::Launch;
use crate::turn::{close, exec_failed, halted};

/// The longest line that is shown, in bytes.
const MAX_LINE: usize = 8 << 10;

/// How much of a turn's output is shown, in bytes.
const MAX_SHOWN: usize = 4 << 20;

/// How much of the end of its output becomes the summary, in bytes.
const SUMMARY_BYTES: usize = 2_000;

/// How much of its error output is kept, in bytes.
const STDERR_BYTES: usize = 16 << 10;

/// A program as an agent.
#[derive(Debug, Clone)]
pub struct Command {
    launch: Launch,
}

impl Command {
    pub(crate) fn new(launch: Launch) -> Self {
        Self { launch }
    }
}

impl Agent for Command {
    fn name(&self) -> &str {
        &self.launch.name
    }

    fn start(&self, task: Task) -> Box<dyn Session> {
        Box::new(CommandSession {
            launch: self.launch.clone(),
            task,
        })
    }

    /// A program without a session of its own: the state is empty.
    fn resume(&self, task: Task, _state: &[u8]) -> Result<Box<dyn Session>, Error> {
        Ok(self.start(task))
    }
}

struct CommandSession {
    launch: Launch,
    task: Task,
}

/// What a program with no memory of its own is told: the task, and, in later turns, what was
/// wrong with what it did.
pub(crate) fn briefing(task: &Task) -> String {
    let mut text = task.prompt.trim_end().to_owned();
    if !task.rules.is_empty() {
        text.push_str("\n\nRules for this task:");
        for rule in &task.rules {
            text.push_str(&format!("\n- {rule}"));
        }
    }
    if !task.checks.is_empty() {
        text.push_str("\n\nThe work counts only if these checks pass on it, in a fresh checkout:");
        for check in &task.checks {
            text.push_str(&format!("\n- {}: {}", check.name, check.command));
        }
    }
    text.push_str(&format!(
        "\n\nHere {}. Leave the work in the files of the checkout; it need not be committed.\n",
        task.network()
    ));
    text
}

impl CommandSession {
    async fn work(&self, input: Input, context: &Context<'_>) -> Result<String, Stopped> {
        let guard = Guard::new(context.cancel.clone(), self.task.limits.wall);
        let prompt = match input {
            Input::Task | Input::Interrupted(None) => briefing(&self.task),
            Input::Feedback(text) | Input::Interrupted(Some(text)) => format!(
                "{}\nThis was worked on already, and the checkout holds that work. It was \
checked, and it is not finished:\n\n{text}\n",
                briefing(&self.task)
            ),
        };
        let start = self.launch.fill(&prompt, &self.task.workspace, context);
        let request = Request {
            argv: start.argv,
            env: start.env,
            cwd: self.task.workspace.clone(),
            stdin: start.stdin,
            timeout: guard.left(),
            max_output: STDERR_BYTES,
        };
        let turn = AgentEvent::TurnStarted { turn: 1 };
        context.observer.record(turn).await.map_err(halted)?;
        let mut running = guard
            .run(context.exec.spawn(request))
            .await?
            .map_err(exec_failed)?;
        let mut lines = Lines::new(MAX_LINE);
        let mut shown = Shown::default();
        while let Some(chunk) = guard.run(running.read()).await?.map_err(exec_failed)? {
            shown.show(&lines.feed(&chunk), context).await?;
        }
        if let Some(line) = lines.finish() {
            shown.show(&[line], context).await?;
        }
        let output = guard.run(running.wait()).await?.map_err(exec_failed)?;
        if output.exit.timed_out {
            return Err(Stopped::TimeLimit);
        }
        if output.exit.success() {
            return Ok(shown.summary());
        }
        let said = last_words(&output, &shown.summary());
        Err(Stopped::Failed(Error::Program {
            exit: output.exit.to_string(),
            said,
        }))
    }
}

/// What was printed last: to the error output, or else at all.
pub(crate) fn last_words(output: &Output, otherwise: &str) -> String {
    let stderr = [output.stderr.head.as_slice(), output.stderr.tail.as_slice()].concat();
    let text = String::from_utf8_lossy(&stderr);
    let text = text.trim();
    let text = if text.is_empty() {
        otherwise.trim()
    } else {
        text
    };
    let start = text.ceil_char_boundary(text.len().saturating_sub(SUMMARY_BYTES));
    text.get(start..).unwrap_or_default().to_owned()
}

/// The lines that were shown, within their limit.
#[derive(Default)]
struct Shown {
    bytes: usize,
    last: String,
}

impl Shown {
    /// Shows lines that came together, as one event.
    async fn show(&mut self, lines: &[Line], context: &Context<'_>) -> Result<(), Stopped> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for line in lines {
            text.push_str(&String::from_utf8_lossy(&line.bytes));
            text.push('\n');
        }
        self.last.push_str(&text);
        if self.last.len() > 2 * (SUMMARY_BYTES + MAX_LINE) {
            let start = self
                .last
                .ceil_char_boundary(self.last.len() - SUMMARY_BYTES);
            self.last.drain(..start);
        }
        let before = self.bytes;
        self.bytes = self.bytes.saturating_add(text.len());
        let event = if self.bytes <= MAX_SHOWN {
            AgentEvent::Text {
                text: bounded(&text),
            }
        } else if before <= MAX_SHOWN {
            AgentEvent::Error {
                text: format!("more than {MAX_SHOWN} bytes of output: the rest is not shown"),
            }
        } else {
            return Ok(());
        };
        context.observer.record(event).await.map_err(halted)
    }

    fn summary(&self) -> String {
        let text = self.last.trim();
        let start = text.ceil_char_boundary(text.len().saturating_sub(SUMMARY_BYTES));
        text.get(start..).unwrap_or_default().to_owned()
    }
}

#[async_trait]
impl Session for CommandSession {
    async fn turn(&mut self, input: Input, context: &Context<'_>) -> Outcome {
        let (summary, stopped) = match self.work(input, context).await {
            Ok(summary) => (summary, Stopped::Completed),
            Err(stopped) => (String::new(), stopped),
        };
        let stopped = close(&summary, stopped, context).await;
        Outcome {
            summary,
            turns: 1,
            usage: Usage::default(),
            stopped,
            denied: Vec::new(),
        }
    }

    fn state(&self) -> Vec<u8> {
        Vec::new()
    }
}
