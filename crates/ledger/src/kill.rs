//! Killing this process at a step of a machine, so that tests see what becomes of it.
//!
//! `SKEP_KILL_AT="job running checking before 1"`: at the first step of a job from running to
//! checking, before it is committed; `after` is once it is durable and before anybody is told.
//! `stop` is there, too, and only stops the process as a suspended laptop does: a test that sends
//! SIGCONT lets it go on.
//! Several points stand one after the other with `;` between them: each is waited for by itself.
//! Only in builds with debug assertions: a released program does not know it.

use domain::event::Step;
use rustix::process::Signal;
use std::str::FromStr;

/// The environment variable.
const VARIABLE: &str = "SKEP_KILL_AT";

/// Where to die, or to stop on the way there.
#[derive(Debug)]
pub(crate) struct KillPoints(Vec<KillPoint>);

/// One of these places.
#[derive(Debug)]
struct KillPoint {
    machine: String,
    from: String,
    to: String,
    how: How,
    /// How many such steps are left, this one included.
    left: u32,
    is_reached: bool,
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It is killed before the commit.
    Before,
    /// It is killed after the commit.
    After,
    /// It is stopped after the commit, and goes on when it is told to.
    Stop,
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
            how: match *when {
                "before" => How::Before,
                "after" => How::After,
                "stop" => How::Stop,
                other => return Err(format!("`{other}` is not before, after or stop")),
            },
            left: count
                .parse()
                .map_err(|_| format!("`{count}` is no count"))?,
            is_reached: false,
        })
    }
}

impl KillPoints {
    /// What the environment asks for.
    pub(crate) fn wanted() -> Option<Self> {
        if !cfg!(debug_assertions) {
            return None;
        }
        let text = std::env::var(VARIABLE).ok()?;
        let points: Result<_, String> = text.split(';').map(str::parse).collect();
        points
            .inspect_err(|error| tracing::error!(%error, "nothing is killed"))
            .map(Self)
            .ok()
    }

    /// A step is about to be committed.
    pub(crate) fn passes(&mut self, step: Step) {
        for point in &mut self.0 {
            point.passes(step);
        }
    }

    /// Everything of a transaction was done, and is not committed.
    pub(crate) fn before_commit(&self) {
        self.0.iter().for_each(KillPoint::before_commit);
    }

    /// A transaction was committed, and nobody knows.
    pub(crate) fn after_commit(&mut self) {
        self.0.iter_mut().for_each(KillPoint::after_commit);
    }
}

impl KillPoint {
    fn passes(&mut self, step: Step) {
        if step.machine == self.machine && step.from == self.from && step.to == self.to {
            self.is_reached |= self.left == 1;
            self.left = self.left.saturating_sub(1);
        }
    }

    fn before_commit(&self) {
        if self.is_reached && self.how == How::Before {
            signal_self(Signal::KILL);
        }
    }

    fn after_commit(&mut self) {
        if !std::mem::take(&mut self.is_reached) {
            return;
        }
        match self.how {
            How::Before => {}
            How::After => signal_self(Signal::KILL),
            How::Stop => {
                signal_self(Signal::STOP);
                // Another thread may take the signal, and this one would begin the next
                // transaction before it is stopped, too.
                std::thread::park_timeout(std::time::Duration::from_millis(100));
            }
        }
    }
}

/// Ends or stops the process as anybody's `kill` does.
fn signal_self(signal: Signal) {
    let own = rustix::process::getpid();
    if let Err(error) = rustix::process::kill_process(own, signal) {
        tracing::error!(%error, "this process cannot be killed");
    }
}
