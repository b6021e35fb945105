//! What a scripted model says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

/// What a model answers, to whom.
#[derive(Clone, Debug, Default)]
pub struct Script {
    jobs: Vec<Job>,
    otherwise: Option<Step>,
}

impl Script {
    /// A script without jobs: every request is answered with "ok".
    pub fn new() -> Script {
        Script::default()
    }

    /// Adds a job. The first that fits a conversation answers it.
    #[must_use]
    pub fn job(mut self, job: Job) -> Script {
        self.jobs.push(job);
        self
    }

    /// What is answered when no job fits.
    #[must_use]
    pub fn otherwise(mut self, step: Step) -> Script {
        self.otherwise = Some(step);
        self
    }

    /// Where a conversation stands: the job's place in the script, and the step's place in a job that
    /// does not give its steps in the order of the requests.
    pub(super) fn place(&self, asked: &Asked) -> (Option<usize>, usize) {
        let fits = self.jobs.iter().position(|it| it.fits(asked));
        let job = fits.and_then(|n| self.jobs.get(n));
        (
            fits,
            job.map_or(0, |it| asked.answers.saturating_sub(it.skip)),
        )
    }

    /// The answer to a conversation: the job's place in the script, the step's place in the job,
    /// and the step itself.
    pub(super) fn answer(&self, asked: &Asked, given: &mut Given) -> (Option<usize>, usize, Step) {
        let (fits, place) = self.place(asked);
        let Some((n, job)) = fits.and_then(|n| Some((n, self.jobs.get(n)?))) else {
            let step = self.otherwise.clone().unwrap_or_else(|| Step::say("ok"));
            return (None, 0, step);
        };
        let at = if job.in_order {
            let next = given.next.entry(n).or_default();
            *next += 1;
            *next - 1
        } else {
            place
        };
        let Some(step) = job.steps.get(at) else {
            return (Some(n), at, Step::say("There is nothing left to do."));
        };
        // A failure is no answer: the next request of the same place gets the next one.
        let failures = given.failures.entry((n, at)).or_default();
        if let Some(fault) = step.faults.get(*failures) {
            *failures += 1;
            if job.in_order {
                given.next.entry(n).and_modify(|it| *it -= 1);
            }
            return (Some(n), at, Step::fault(fault.clone()));
        }
        (Some(n), at, step.clone())
    }
}

/// What a request asks, as far as a script looks at it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// All text of the conversation.
    pub(super) text: String,
    /// How many answers of the model it holds.
    pub(super) answers: usize,
    /// The tools it offers.
    pub(super) tools: Vec<String>,
}

/// What has been answered so far.
#[derive(Debug, Default)]
pub(super) struct Given {
    next: HashMap<usize, usize>,
    failures: HashMap<(usize, usize), usize>,
}

/// The answers to the conversations that hold some text.
#[derive(Clone, Debug, Default)]
pub struct Job {
    wants: Vec<String>,
    without: Vec<String>,
    needs_tools: bool,
    in_order: bool,
    skip: usize,
    steps: Vec<Step>,
}

impl Job {
    /// The conversations that hold this text: a marker in the task's prompt.
    pub fn on(text: impl Into<String>) -> Job {
        Job {
            wants: vec![text.into()],
            ..Job::default()
        }
    }

    /// Every conversation.
    pub fn always() -> Job {
        Job::default()
    }

    /// And this text.
    #[must_use]
    pub fn and(mut self, text: impl Into<String>) -> Job {
        self.wants.push(text.into());
        self
    }

    /// But not this text.
    #[must_use]
    pub fn but_not(mut self, text: impl Into<String>) -> Job {
        self.without.push(text.into());
        self
    }

    /// Only requests that offer tools: an agent's turns, not its housekeeping, nor a plan.
    #[must_use]
    pub fn with_tools(mut self) -> Job {
        self.needs_tools = true;
        self
    }

    /// Gives each step once, in the order of the requests, whatever the conversation holds.
    #[must_use]
    pub fn in_order(mut self) -> Job {
        self.in_order = true;
        self
    }

    /// Takes this many answers of a conversation as given before the first step.
    #[must_use]
    pub fn after(mut self, answers: usize) -> Job {
        self.skip = answers;
        self
    }

    /// Adds the next answer.
    #[must_use]
    pub fn step(mut self, step: Step) -> Job {
        self.steps.push(step);
        self
    }

    fn fits(&self, asked: &Asked) -> bool {
        self.wants.iter().all(|it| asked.text.contains(it))
            && !self.without.iter().any(|it| asked.text.contains(it))
            && !(self.needs_tools && asked.tools.is_empty())
    }
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The tool's name. `shell` stands for `Bash` where that is what is offered.
    pub name: String,
    /// Its arguments.
    pub arguments: Value,
}

/// What an answer says it used, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Of the question, without what came from a cache.
    pub input: u64,
    /// Of the question, read from a cache.
    pub cached: u64,
    /// Of the answer.
    pub output: u64,
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Step {
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) usage: Option<Usage>,
    pub(super) no_usage: bool,
    pub(super) pace: Option<Duration>,
    pub(super) hold: Option<Hold>,
    pub(super) cut_at_limit: bool,
    faults: Vec<Fault>,
    pub(super) fault: Option<Fault>,
}

impl Step {
    /// Says something and ends the turn.
    pub fn say(text: impl Into<String>) -> Step {
        Step {
            text: text.into(),
            ..Step::default()
        }
    }

    /// Calls a tool.
    pub fn call(name: impl Into<String>, arguments: Value) -> Step {
        Step::default().and_call(name, arguments)
    }

    /// Runs a command with the shell tool that the request offers: `shell` or `Bash`.
    pub fn shell(command: impl Into<String>) -> Step {
        Step::call("shell", json!({ "command": command.into() }))
    }

    /// Misbehaves instead of answering, every time.
    pub fn fault(fault: Fault) -> Step {
        Step {
            fault: Some(fault),
            ..Step::default()
        }
    }

    /// Calls another tool in the same answer.
    #[must_use]
    pub fn and_call(mut self, name: impl Into<String>, arguments: Value) -> Step {
        self.calls.push(Call {
            name: name.into(),
            arguments,
        });
        self
    }

    /// Says something before the calls.
    #[must_use]
    pub fn saying(mut self, text: impl Into<String>) -> Step {
        self.text = text.into();
        self
    }

    /// Misbehaves once before this answer; several times when given several times.
    #[must_use]
    pub fn after_fault(mut self, fault: Fault) -> Step {
        self.faults.push(fault);
        self
    }

    /// Says that it used so much.
    #[must_use]
    pub fn using(mut self, input: u64, output: u64) -> Step {
        self.usage = Some(Usage {
            input,
            cached: 0,
            output,
        });
        self
    }

    /// Says that it used so much, some of it from a cache.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Step {
        self.usage = Some(usage);
        self
    }

    /// Does not say what it used.
    #[must_use]
    pub fn without_usage(mut self) -> Step {
        self.no_usage = true;
        self
    }

    /// Waits so long before each piece of the answer.
    #[must_use]
    pub fn slowly(mut self, pace: Duration) -> Step {
        self.pace = Some(pace);
        self
    }

    /// Answers only when the hold is released.
    #[must_use]
    pub fn held_by(mut self, hold: &Hold) -> Step {
        self.hold = Some(hold.clone());
        self
    }

    /// Ends as if the limit of tokens cut it off.
    #[must_use]
    pub fn cut_at_limit(mut self) -> Step {
        self.cut_at_limit = true;
        self
    }
}

/// Keeps answers back until a test releases them.
#[derive(Clone, Debug)]
pub struct Hold(Arc<watch::Sender<bool>>);

impl Default for Hold {
    fn default() -> Self {
        Hold::new()
    }
}

impl Hold {
    /// A hold that keeps answers back.
    pub fn new() -> Hold {
        Hold(Arc::new(watch::Sender::new(false)))
    }

    /// Lets every answer go, now and later.
    pub fn release(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn released(&self) {
        // The sender lives in `self`, so this ends only by a release.
        drop(self.0.subscribe().wait_for(|it| *it).await);
    }
}

/// How a model misbehaves.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, with the dialect's own error document.
    Status(u16),
    /// This status, these headers and this body.
    Response {
        /// The status.
        status: u16,
        /// Headers besides `content-type`.
        headers: Vec<(String, String)>,
        /// The content type.
        content_type: String,
        /// The body.
        body: Vec<u8>,
    },
    /// 429 with `retry-after` in seconds.
    RateLimited(u64),
    /// A web page with status 200, as a captive portal gives it.
    Html,
    /// Status 200 and the announced content type, and bytes that mean nothing.
    Garbage,
    /// The beginning of an answer; then the connection ends.
    HalfStream,
    /// The beginning of an answer; then nothing, until the client leaves.
    Stalled,
    /// A byte of an answer so often, and no end of it, until the client leaves.
    Drip(Duration),
    /// A stream that says in its middle that it failed.
    ErrorInStream,
    /// An answer of so many bytes that a client must not keep.
    Endless,
    /// No answer, until the client leaves.
    Never,
    /// The connection ends before any answer.
    Hangup,
}

impl Fault {
    /// A status with a body of one's own.
    pub fn response(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Fault {
        Fault::Response {
            status,
            headers: Vec::new(),
            content_type: content_type.to_owned(),
            body: body.into(),
        }
    }
}
