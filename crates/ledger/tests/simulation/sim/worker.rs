//! Workers: they claim jobs, run an agent, let the gate look, and settle in every way.

use super::{
    actor::{Actor, Heard, View},
    call::{Answer, Call},
    spend::{Spend, put},
};
use domain::{
    AttemptId, BlobId, Failure, JobId, Reason,
    event::{Agent, Body},
};
use skep_ledger::{Error, Lease, Seek, Settlement};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Claimed,
    /// Its last holder left an attempt; whether its agent had ended its turn.
    Left(bool),
    /// Its attempt may have started.
    Unsure,
    Prepared,
    Running,
    Checking,
    /// What it is told makes no sense: it ends its attempt.
    Leaving,
}

struct Held {
    lease: Lease,
    job: JobId,
    attempt: Option<AttemptId>,
    phase: Phase,
    spend: Spend,
}

pub(crate) struct Worker {
    /// Who it is and what it can do.
    seek: Seek,
    held: Option<Held>,
}

impl Worker {
    pub(crate) fn new(seek: Seek) -> Self {
        Self { seek, held: None }
    }
}

fn failed(reason: Reason) -> Settlement {
    Settlement::Failed {
        failure: Failure::new(reason, ""),
    }
}

fn passed(attempt: AttemptId) -> Settlement {
    Settlement::Passed {
        commit: format!("{:040x}", attempt.bits()),
        tree: "d".repeat(40),
        summary: "done".into(),
        checked: true,
    }
}

/// Something that the agent does; with a blob, its whole output.
fn said(full: Option<BlobId>) -> Agent {
    match full {
        None => Agent::Text {
            text: "I look at it".into(),
        },
        full => Agent::ToolResult {
            id: "1".into(),
            output: "a part of it".into(),
            omitted: 100,
            ok: true,
            duration_ms: 1,
            full,
        },
    }
}

/// An end of an agent's turn before its gate.
fn early_end(view: &mut View<'_>) -> Settlement {
    match view.random.below(3) {
        0 => failed(Reason::Stuck),
        1 => Settlement::Cancelled,
        _ => failed(Reason::Unreachable),
    }
}

/// An end at the gate other than a change.
fn other_end(view: &mut View<'_>) -> Settlement {
    match view.random.below(5) {
        0 => Settlement::Empty {
            summary: "nothing".into(),
        },
        1 => Settlement::Rejected {
            failure: Failure::new(Reason::ChecksFailed, ""),
            tree: None,
            summary: String::new(),
        },
        _ => early_end(view),
    }
}

impl Held {
    fn next(&self, view: &mut View<'_>) -> Option<Call> {
        let lease = self.lease.clone();
        let dice = view.random.below(100);
        match (self.phase, self.attempt) {
            (Phase::Claimed, _) if dice < 3 => {
                Some(Call::SettleAttempt(lease, failed(Reason::Storage)))
            }
            (Phase::Claimed, _) => Some(Call::Start(lease)),
            (Phase::Left(_), _) if dice < 25 => Some(Call::Lose(lease)),
            (Phase::Left(_), _) => Some(Call::Resume(lease)),
            (Phase::Unsure, _) => Some(Call::Find(self.job)),
            (Phase::Prepared, _) if dice < 10 => Some(Call::Heartbeat(lease)),
            (Phase::Prepared, _) => Some(Call::Run(lease)),
            (Phase::Running, Some(attempt)) => match dice {
                0..8 if self.spend.blob.is_none() => put(view.random),
                0..18 => {
                    let event = said(self.spend.blob);
                    Some(Call::Record(lease, vec![Body::Agent { attempt, event }]))
                }
                18..62 => self.spend.next(view, &lease),
                62..68 => Some(Call::Heartbeat(lease)),
                68..93 => Some(Call::Check(lease)),
                93..97 => Some(Call::SettleAttempt(lease, early_end(view))),
                _ => None,
            },
            (Phase::Checking, Some(attempt)) => match dice {
                0..60 => Some(Call::SettleAttempt(lease, passed(attempt))),
                60..70 => Some(Call::Run(lease)),
                70..80 => Some(Call::Heartbeat(lease)),
                80..90 => Some(Call::SettleAttempt(lease, other_end(view))),
                _ => None,
            },
            _ => Some(Call::SettleAttempt(lease, failed(Reason::ProviderFailed))),
        }
    }

    /// Whether it goes on.
    fn hear(&mut self, call: &Call, heard: Heard) -> bool {
        let again = match &heard {
            Heard::Nothing => return false,
            Heard::Answer { again, .. } | Heard::Error { again, .. } => *again,
        };
        if self.spend.hear(call, &heard) {
            return true;
        }
        self.phase = match (call, heard) {
            (Call::SettleAttempt(..), Heard::Answer { .. }) => return false,
            // What it says of its end is refused: then it says less.
            (Call::SettleAttempt(..), _) if self.phase == Phase::Leaving => return false,
            (Call::Start(_) | Call::Find(..), Heard::Answer { answer, .. }) => match answer {
                Answer::Attempt(Some(attempt)) => {
                    self.attempt = Some(attempt);
                    self.spend = Spend::new(Some(attempt));
                    Phase::Prepared
                }
                _ => Phase::Leaving,
            },
            (Call::Resume(_), _) => match self.phase {
                Phase::Left(true) => Phase::Checking,
                _ => Phase::Running,
            },
            (Call::Lose(_), _) => {
                self.attempt = None;
                Phase::Claimed
            }
            (Call::Start(_), Heard::Error { .. }) if again => Phase::Unsure,
            (Call::Run(_), Heard::Answer { .. }) => Phase::Running,
            (Call::Run(_), Heard::Error { .. }) if again => Phase::Running,
            (Call::Check(_), Heard::Answer { .. }) => Phase::Checking,
            (Call::Check(_), Heard::Error { .. }) if again => Phase::Checking,
            (_, Heard::Answer { .. }) => self.phase,
            _ => Phase::Leaving,
        };
        true
    }
}

impl Actor for Worker {
    fn next(&mut self, view: &mut View<'_>) -> Option<Call> {
        match &self.held {
            Some(held) => held.next(view),
            None => Some(Call::ClaimJob(self.seek.clone())),
        }
    }

    fn hear(&mut self, _: &mut View<'_>, call: &Call, heard: Heard) {
        let Some(held) = &mut self.held else {
            if let Heard::Answer {
                answer: Answer::ToDo(Some(claimed)),
                ..
            } = heard
            {
                let left = claimed.attempt;
                let attempt = left.as_ref().map(|left| left.attempt.id);
                self.held = Some(Held {
                    lease: claimed.lease,
                    job: claimed.job.id,
                    attempt,
                    phase: left.map_or(Phase::Claimed, |left| Phase::Left(left.checking)),
                    spend: Spend::new(attempt),
                });
            }
            return;
        };
        let lost = matches!(
            heard,
            Heard::Error {
                error: Error::LeaseLost(_),
                ..
            }
        );
        if lost || !held.hear(call, heard) {
            self.held = None;
        }
    }

    fn is_idle(&self) -> bool {
        self.held.is_none()
    }
}
