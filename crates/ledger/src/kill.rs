//! Killing this process at a step of a machine, so that tests see what becomes of it.
//!
//! `SKEP_KILL_AT="job running checking before 1"`: at the first step of a job from running to
//! checking, before it is committed; `after` is once it is durable and before anybody is told.
//! Only in builds with debug assertions: a released program does not know it.

use domain::event::Step;
use std::str::FromStr;

/// The environment variable.
const VARIABLE: &str = "SKEP_KILL_AT";

/// Where to die.
#[derive(Debug)]
pub(crate) struct KillPoint {
    machine: String,
    from: String,
    to: String,
    is_after: bool,
    /// How many such steps are left, this one included.
    left: u32,
    is_reached: bool,
}

impl FromStr for KillPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [machine, from, to, when, count] = words.as_slice() else {
            return Err(format!("{VARIABLE} is not five words: `{text}`"));
        };
        Ok(Self {
            machine: (*machine).to_owned(),
            from: (*from).to_owned(),
            to: (*to).to_owned(),
            is_after: *when == "after",
            left: count
                .parse()
                .map_err(|_| format!("`{count}` is no count"))?,
            is_reached: false,
        })
    }
}

impl KillPoint {
    /// What the environment asks for.
    pub(crate) fn wanted() -> Option<Self> {
        if !cfg!(debug_assertions) {
            return None;
        }
        let text = std::env::var(VARIABLE).ok()?;
        text.parse()
            .inspect_err(|error| tracing::error!(%error, "nothing is killed"))
            .ok()
    }

    /// A step is about to be committed.
    pub(crate) fn passes(&mut self, step: Step) {
        if step.machine == self.machine && step.from == self.from && step.to == self.to {
            self.left = self.left.saturating_sub(1);
            self.is_reached |= self.left == 0;
        }
    }

    /// Everything of a transaction was done, and is not committed.
    pub(crate) fn before_commit(&self) {
        if self.is_reached && !self.is_after {
            die();
        }
    }

    /// A transaction was committed, and nobody knows.
    pub(crate) fn after_commit(&self) {
        if self.is_reached {
            die();
        }
    }
}

/// Ends the process as `kill -9` does. It does not come back.
fn die() {
    let own = rustix::process::getpid();
    if let Err(error) = rustix::process::kill_process(own, rustix::process::Signal::KILL) {
        tracing::error!(%error, "this process cannot be killed");
    }
}
