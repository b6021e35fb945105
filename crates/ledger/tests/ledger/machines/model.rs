//! A request as the machines alone would have it.

use domain::{
    AttemptState, ChangeState, JobState, RequestState, Timestamp,
    machine::Machine,
    progress::{Dependency, Settled, request_command},
    state::{AttemptCommand, ChangeCommand, JobCommand, RequestCommand},
};

/// How often a request's planner may be lost, as the ledger's documentation has it.
const MAX_LOST_PLANNERS: u32 = 3;

pub(super) struct Model {
    pub(super) request: RequestState,
    /// There are none before it is planned.
    pub(super) jobs: Vec<ModelJob>,
    pub(super) now: Timestamp,
    /// Before which it does not begin, while that is still to come.
    pub(super) not_before: Option<Timestamp>,
    /// Until when it waits, where it was put back.
    pub(super) until: Option<Timestamp>,
    /// How often it was put back, and its planner lost.
    pub(super) postponed: u32,
    lost: u32,
    /// How many changes were made.
    changes: u32,
}

pub(super) struct ModelJob {
    pub(super) state: JobState,
    /// Its attempts; the last one may be open.
    pub(super) attempts: Vec<AttemptState>,
    /// The state that the open attempt was in when it was suspended.
    pub(super) left: Option<AttemptState>,
    pub(super) claims: u32,
    /// When it was ready for the first time.
    place: Option<Timestamp>,
    /// Until when it is parked.
    pub(super) parked: Option<Timestamp>,
    /// Holders that were lost in a row without a step between.
    lost: u32,
    /// Whether a step was made since the claim.
    pub(super) stepped: bool,
    after: Vec<usize>,
    pub(super) change: Option<ChangeState>,
    /// When its change was made, and as the how many-th.
    made: Option<(Timestamp, u32)>,
    /// Integrators that were lost in a row.
    pub(super) unmerged: u32,
    /// How often its change was put back, and until when it waits.
    pub(super) postponed: u32,
    pub(super) until: Option<Timestamp>,
    /// Whether its change may be on the branch.
    pub(super) intended: bool,
}

impl ModelJob {
    fn new(after: Vec<usize>, now: Timestamp) -> Self {
        let is_ready = after.is_empty();
        Self {
            state: if is_ready {
                JobState::Ready
            } else {
                JobState::Blocked
            },
            attempts: Vec::new(),
            left: None,
            claims: 0,
            place: is_ready.then_some(now),
            parked: None,
            lost: 0,
            stepped: false,
            after,
            change: None,
            made: None,
            unmerged: 0,
            postponed: 0,
            until: None,
            intended: false,
        }
    }

    pub(super) fn open(&self) -> Option<AttemptState> {
        let last = self.attempts.last().copied();
        last.filter(|state| !state.is_terminal())
    }

    /// Tells the open attempt, if there is one.
    pub(super) fn attempt(&mut self, command: AttemptCommand) {
        if let Some(state) = self.open() {
            *self.attempts.last_mut().unwrap() = state.apply(command).unwrap();
            self.left = None;
        }
    }

    /// Nobody holds it any more: what its agent or gate was at waits for the next one.
    fn suspend(&mut self) {
        match self.open() {
            Some(AttemptState::Preparing) => self.attempt(AttemptCommand::Lose),
            None | Some(AttemptState::Suspended) => {}
            left => {
                self.attempt(AttemptCommand::Suspend);
                self.left = left;
            }
        }
    }

    /// Tells its change.
    pub(super) fn change(&mut self, command: ChangeCommand) {
        self.change = self.change.map(|state| state.apply(command).unwrap());
        self.until = None;
    }

    fn settled(&self) -> Settled {
        Settled {
            job: self.state,
            change: self.change,
        }
    }
}

impl Model {
    pub(super) fn new(now: Timestamp, not_before: Option<Timestamp>) -> Self {
        Self {
            request: RequestState::Queued,
            jobs: Vec::new(),
            now,
            not_before,
            until: None,
            postponed: 0,
            lost: 0,
            changes: 0,
        }
    }

    pub(super) fn tell_request(&mut self, command: RequestCommand) {
        self.request = self.request.apply(command).unwrap();
        self.until = None;
    }

    pub(super) fn tell(&mut self, job: usize, command: JobCommand) {
        let now = self.now;
        let job = &mut self.jobs[job];
        job.state = job.state.apply(command).unwrap();
        job.parked = None;
        if job.state == JobState::Ready {
            job.place.get_or_insert(now);
        }
    }

    pub(super) fn plan(&mut self, after: Vec<Vec<usize>>) {
        self.tell_request(RequestCommand::Work);
        let jobs = after
            .into_iter()
            .map(|after| ModelJob::new(after, self.now));
        self.jobs = jobs.collect();
    }

    /// Whether a planner may claim it.
    pub(super) fn is_offered(&self) -> bool {
        self.request == RequestState::Queued && self.until.is_none() && self.not_before.is_none()
    }

    /// The job that is claimed next: what has waited longest, and then in the order of the plan.
    pub(super) fn next(&self) -> Option<usize> {
        if self.request != RequestState::Working {
            return None;
        }
        (0..self.jobs.len())
            .filter(|&job| self.jobs[job].state == JobState::Ready)
            .min_by_key(|&job| (self.jobs[job].place, job))
    }

    /// The job whose change is claimed next, where nobody merges: also while the request is paused.
    pub(super) fn next_change(&self) -> Option<usize> {
        let waits = |job: &ModelJob| job.change != Some(ChangeState::Queued) || job.until.is_some();
        (0..self.jobs.len())
            .filter(|&job| !waits(&self.jobs[job]))
            .min_by_key(|&job| self.jobs[job].made)
    }

    /// It is so late now: what has waited until now waits no more.
    pub(super) fn pass(&mut self, now: Timestamp) {
        self.now = now;
        let due = |until: &mut Option<Timestamp>| until.take_if(|until| *until <= now).is_some();
        due(&mut self.not_before);
        due(&mut self.until);
        for job in 0..self.jobs.len() {
            due(&mut self.jobs[job].until);
            if due(&mut self.jobs[job].parked) {
                self.tell(job, JobCommand::Wake);
            }
        }
        self.follow();
    }

    /// When nothing waits for a time any more.
    pub(super) fn last_wait(&self) -> Option<Timestamp> {
        let jobs = self.jobs.iter().flat_map(|job| [job.until, job.parked]);
        jobs.chain([self.until, self.not_before]).flatten().max()
    }

    pub(super) fn follow(&mut self) {
        if self.request.is_terminal() {
            return;
        }
        // Jobs come after what they wait for, so one pass is enough.
        for job in 0..self.jobs.len() {
            if self.jobs[job].state != JobState::Blocked {
                continue;
            }
            let after = self.jobs[job].after.iter();
            let after: Vec<Dependency> = after
                .map(|&at| self.jobs[at].settled().as_dependency())
                .collect();
            if after.contains(&Dependency::Failed) {
                self.tell(job, JobCommand::Die);
            } else if after.iter().all(|&one| one == Dependency::Satisfied) {
                self.tell(job, JobCommand::Unblock);
            }
        }
        let all: Vec<Settled> = self.jobs.iter().map(ModelJob::settled).collect();
        if let Some(command) = request_command(self.request, &all) {
            self.tell_request(command);
        }
    }

    /// The planner is lost: another one may plan it, unless that was too often. Whether it waits
    /// first.
    pub(super) fn lose_planner(&mut self) -> bool {
        self.lost += 1;
        self.tell_request(if self.lost < MAX_LOST_PLANNERS {
            RequestCommand::Requeue
        } else {
            RequestCommand::Fail
        });
        (2..MAX_LOST_PLANNERS).contains(&self.lost)
    }

    /// A fault of the machine keeps it: it waits, unless that was too often. Whether it waits.
    pub(super) fn postpone_request(&mut self) -> bool {
        self.postponed += 1;
        let waits = self.postponed < ledger::MAX_POSTPONED;
        self.tell_request(if waits {
            RequestCommand::Requeue
        } else {
            RequestCommand::Fail
        });
        waits
    }

    /// A person stops it: what is held is let go of, at no cost.
    pub(super) fn pause(&mut self) {
        self.tell_request(RequestCommand::Pause);
        for job in 0..self.jobs.len() {
            if self.jobs[job].state.is_held() {
                self.let_go(job);
                self.tell(job, JobCommand::Retry);
            }
        }
    }

    /// Nobody holds the job any more, as somebody wanted: that claim does not count.
    pub(super) fn let_go(&mut self, job: usize) {
        self.jobs[job].claims -= 1;
        self.jobs[job].suspend();
    }

    /// A person cancels it with all that is open, but for what may be on the branch.
    pub(super) fn cancel(&mut self) {
        for job in 0..self.jobs.len() {
            if !self.jobs[job].state.is_terminal() {
                self.jobs[job].attempt(AttemptCommand::Cancel);
                self.tell(job, JobCommand::Cancel);
            }
            let one = &mut self.jobs[job];
            let can = |state: ChangeState| state.next(ChangeCommand::Reject).is_some();
            if !one.intended && one.change.is_some_and(can) {
                one.change(ChangeCommand::Reject);
            }
        }
        self.tell_request(RequestCommand::Cancel);
    }

    /// The holder is lost: the next one goes on, unless that was too often. Whether it sleeps first.
    pub(super) fn lose(&mut self, job: usize) -> bool {
        let one = &mut self.jobs[job];
        one.claims -= 1;
        one.lost = if one.stepped { 0 } else { one.lost + 1 };
        let sleeps = (2..ledger::MAX_LOST).contains(&one.lost);
        let command = if one.lost < ledger::MAX_LOST {
            one.suspend();
            match sleeps {
                true => JobCommand::Park,
                false => JobCommand::Retry,
            }
        } else {
            one.attempt(AttemptCommand::Lose);
            JobCommand::Die
        };
        self.tell(job, command);
        self.follow();
        sleeps
    }

    /// The gate passed: there is a change.
    pub(super) fn make_change(&mut self, job: usize) {
        self.changes += 1;
        self.jobs[job].change = Some(ChangeState::Queued);
        self.jobs[job].made = Some((self.now, self.changes));
    }

    /// The integrator is lost: the next one looks, unless that was too often. Whether it waits first.
    pub(super) fn lose_integrator(&mut self, job: usize) -> bool {
        let one = &mut self.jobs[job];
        one.unmerged += 1;
        let most = ledger::MAX_LOST_INTEGRATORS * if one.intended { 2 } else { 1 };
        one.change(if one.unmerged < most {
            ChangeCommand::Requeue
        } else {
            ChangeCommand::Reject
        });
        let waits = (2..most).contains(&one.unmerged);
        self.follow();
        waits
    }
}
