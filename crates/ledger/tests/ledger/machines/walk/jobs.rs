//! Verbs of those who hold a job.

use super::{
    super::draw::{End, Step},
    Walk, agree,
};
use crate::support::{new_attempt, passed};
use domain::{
    AttemptState, Failure, JobState, Reason,
    event::{Agent, Body},
    machine::Machine,
    state::{AttemptCommand, JobCommand},
};
use ledger::{MAX_ATTEMPTS, Settlement};
use std::time::Duration;

/// How long there is no quota.
const QUOTA: Duration = Duration::from_secs(45);

impl Walk<'_> {
    pub(super) async fn claim(&mut self) {
        let expected = self.model.next();
        let claimed = self.place.try_claim().await;
        let found = claimed.as_ref().map(|claimed| self.index(claimed.job.id));
        assert_eq!(found, expected);
        let (Some(job), Some(claimed)) = (found, claimed) else {
            return;
        };
        self.model.tell(job, JobCommand::Claim);
        let known = &mut self.model.jobs[job];
        known.claims += 1;
        known.stepped = false;
        let open = claimed.attempt.as_ref();
        let open = open.map(|open| (open.attempt.state, open.checking));
        let checking = known.left == Some(AttemptState::Checking);
        assert_eq!(open, known.open().map(|state| (state, checking)));
        self.held.push((job, claimed));
    }

    pub(super) async fn holder(&mut self, at: usize, step: Step) {
        match step {
            Step::Start(_) => self.start(at).await,
            Step::Run(_) => self.run(at).await,
            Step::Check(_) => self.check(at).await,
            Step::Resume(_) => self.resume(at).await,
            Step::GiveUp(_) => self.give_up(at).await,
            Step::Record(_) => self.record(at).await,
            Step::Settle(_, end) => self.settle(at, end).await,
            _ => unreachable!("{step:?} is not of a holder"),
        }
    }

    async fn start(&mut self, at: usize) {
        let (job, claimed) = &self.held[at];
        let result = self
            .place
            .ledger
            .start_attempt(&claimed.lease, new_attempt());
        let result = result.await;
        let known = &self.model.jobs[*job];
        let next = known.state.next(JobCommand::Start);
        let allowed = next.is_some() && known.open().is_none();
        agree(&result, allowed, "starting an attempt");
        if allowed {
            let job = *job;
            self.model.tell(job, JobCommand::Start);
            self.model.jobs[job].attempts.push(AttemptState::Preparing);
        }
    }

    async fn run(&mut self, at: usize) {
        let (job, claimed) = &self.held[at];
        let job = *job;
        let result = self.place.ledger.attempt_running(&claimed.lease).await;
        let (state, open) = (self.model.jobs[job].state, self.model.jobs[job].open());
        // While an attempt is prepared its job runs already.
        let revised = (state != JobState::Running).then_some(JobCommand::Revise);
        let allowed = open.is_some_and(|open| open.next(AttemptCommand::Run).is_some())
            && revised.is_none_or(|command| state.next(command).is_some());
        agree(&result, allowed, "letting an agent run");
        if allowed {
            self.model.jobs[job].attempt(AttemptCommand::Run);
            if let Some(command) = revised {
                self.model.tell(job, command);
            }
        }
    }

    async fn check(&mut self, at: usize) {
        let (job, claimed) = &self.held[at];
        let job = *job;
        let result = self
            .place
            .ledger
            .attempt_checking(&claimed.lease, "d".into());
        let result = result.await;
        let known = &self.model.jobs[job];
        let open = known.open();
        let allowed = open.is_some_and(|open| open.next(AttemptCommand::Check).is_some())
            && known.state.next(JobCommand::Check).is_some();
        agree(&result, allowed, "beginning a gate");
        if allowed {
            self.model.jobs[job].attempt(AttemptCommand::Check);
            self.model.tell(job, JobCommand::Check);
        }
    }

    async fn resume(&mut self, at: usize) {
        let (job, claimed) = &self.held[at];
        let job = *job;
        let result = self.place.ledger.resume_attempt(&claimed.lease).await;
        let left = self.model.jobs[job].left;
        agree(&result, left.is_some(), "going on with an attempt");
        let Some(left) = left else { return };
        assert_eq!(result.unwrap().state, left);
        self.model.tell(job, JobCommand::Start);
        if left == AttemptState::Checking {
            self.model.jobs[job].attempt(AttemptCommand::Check);
            self.model.tell(job, JobCommand::Check);
        } else {
            self.model.jobs[job].attempt(AttemptCommand::Run);
        }
    }

    async fn give_up(&mut self, at: usize) {
        let (job, claimed) = &self.held[at];
        let failure = Failure::new(Reason::OwnerLost, "");
        let result = self
            .place
            .ledger
            .lose_attempt(&claimed.lease, failure)
            .await;
        let known = &mut self.model.jobs[*job];
        let allowed = known.open() == Some(AttemptState::Suspended);
        agree(&result, allowed, "giving up an attempt");
        if allowed {
            known.attempt(AttemptCommand::Lose);
        }
    }

    async fn record(&mut self, at: usize) {
        let (job, claimed) = &self.held[at];
        if self.model.jobs[*job].open().is_none() {
            return;
        }
        let attempts = self.place.ledger.attempts(self.ids[*job]).await.unwrap();
        let body = Body::Agent {
            attempt: attempts.last().unwrap().id,
            event: Agent::Finished {
                summary: String::new(),
            },
        };
        let recorded = self.place.ledger.record(&claimed.lease, vec![body]);
        recorded.await.unwrap();
        self.model.jobs[*job].stepped = true;
    }

    async fn settle(&mut self, at: usize, end: End) {
        let (job, lease) = (self.held[at].0, self.held[at].1.lease.clone());
        let until = self.model.now.plus(QUOTA);
        let settlement = settlement(end, until);
        let result = self.place.ledger.settle_attempt(&lease, settlement).await;
        let known = &self.model.jobs[job];
        let may_retry = known.claims < MAX_ATTEMPTS;
        let (of_attempt, command) = match end {
            End::Pass => (Some(AttemptCommand::Pass), JobCommand::Deliver),
            End::Empty => (Some(AttemptCommand::Pass), JobCommand::SettleEmpty),
            End::Reject => (Some(AttemptCommand::Reject), JobCommand::Die),
            End::Fail { outside: true } if may_retry => {
                (Some(AttemptCommand::Fail), JobCommand::Park)
            }
            End::Fail { .. } => (Some(AttemptCommand::Fail), JobCommand::Die),
            End::Park => (None, JobCommand::Park),
            End::Lost if may_retry => (Some(AttemptCommand::Lose), JobCommand::Retry),
            End::Lost => (Some(AttemptCommand::Lose), JobCommand::Die),
            End::Cancel => (Some(AttemptCommand::Cancel), JobCommand::Cancel),
        };
        let can_end = |open: AttemptState| of_attempt.is_none_or(|it| open.next(it).is_some());
        let allowed = known.open().is_none_or(can_end) && known.state.next(command).is_some();
        agree(&result, allowed, &format!("settling by {end:?}"));
        if !allowed {
            return;
        }
        match of_attempt {
            Some(command) => self.model.jobs[job].attempt(command),
            None => self.model.let_go(job),
        }
        self.model.tell(job, command);
        match command {
            JobCommand::Deliver => self.model.make_change(job),
            JobCommand::Park => {
                let told = self.job_until(job).await;
                assert!(told == until || !matches!(end, End::Park));
                self.model.jobs[job].parked = Some(told);
            }
            _ => {}
        }
        self.model.follow();
        assert_eq!(result.unwrap().job, self.model.jobs[job].state);
        self.drop_holder(job);
    }
}

fn settlement(end: End, until: domain::Timestamp) -> Settlement {
    match end {
        End::Pass => passed(),
        End::Empty => Settlement::Empty {
            summary: String::new(),
        },
        End::Reject => Settlement::Rejected {
            failure: Failure::new(Reason::Stuck, ""),
            tree: None,
            summary: String::new(),
        },
        End::Fail { outside } => Settlement::Failed {
            failure: Failure::new(
                if outside {
                    Reason::Unreachable
                } else {
                    Reason::Stuck
                },
                "",
            ),
        },
        End::Park => Settlement::Parked {
            failure: Failure::new(Reason::RateLimited, ""),
            until,
        },
        End::Lost => Settlement::Lost {
            failure: Failure::new(Reason::OwnerLost, ""),
        },
        End::Cancel => Settlement::Cancelled,
    }
}
