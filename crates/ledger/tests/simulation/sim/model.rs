//! What must be so, by what the run has seen: every event, every answer, whether or not the one
//! who asked has heard it. After each step the ledger is held against it.

use super::{
    Broken,
    blobs::Blobs,
    call::{Answer, Call},
    holders::Holders,
    log::Logs,
    money::Money,
    notifications::Notifications,
    outside::Outside,
    tries::Tries,
};
use domain::{
    AttemptId, AttemptState, ChangeId, ChangeState, EventId, JobId, JobState, Reason, RequestId,
    RequestState, Timestamp,
    entity::Placement,
    event::{Body, Envelope},
    machine::Machine,
};
use skep_ledger::{ChangeOutcome, Error, Seek, Subject};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

/// A change, as its events tell it.
pub(crate) struct KnownChange {
    pub(crate) job: JobId,
    pub(crate) state: ChangeState,
    pub(crate) integrated: Option<String>,
}

/// All that is known.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) events: Logs,
    pub(crate) blobs: Blobs,
    pub(crate) notifications: Notifications,
    pub(crate) requests: BTreeMap<RequestId, RequestState>,
    pub(crate) jobs: BTreeMap<JobId, (RequestId, JobState)>,
    pub(crate) attempts: BTreeMap<AttemptId, (JobId, AttemptState)>,
    /// What suspended attempts were doing.
    suspended: BTreeMap<AttemptId, AttemptState>,
    /// How often an attempt was gone on with.
    pub(crate) resumed: u64,
    pub(crate) changes: BTreeMap<ChangeId, KnownChange>,
    pub(crate) holders: Holders,
    /// What each change is about to land as.
    intents: BTreeMap<ChangeId, String>,
    /// The request of each key, and whether it is the other ask.
    pub(crate) keys: BTreeMap<String, (RequestId, bool)>,
    /// When requests, jobs and changes came to their end.
    pub(crate) ended: BTreeMap<u64, Timestamp>,
    /// Requests that were removed.
    pub(crate) gone: BTreeSet<RequestId>,
    /// How often a job has failed for a reason outside.
    pub(crate) failures: BTreeMap<JobId, u32>,
    tries: Tries,
    pub(crate) money: Money,
    /// The latest time that any call was answered at: the clock may have been put back since.
    latest: Timestamp,
}

impl Model {
    /// Takes note of an event, which must follow on the last one.
    pub(crate) fn observe(&mut self, envelope: &Envelope, outside: &Outside) -> Result<(), Broken> {
        self.is_allowed(envelope)?;
        self.counts_failures(&envelope.body)?;
        let intents = &self.intents;
        self.tries
            .observe(&envelope.body, |change| intents.contains_key(&change))?;
        self.events.push(envelope)?;
        self.notifications.observe(envelope);
        self.blobs.name(None, envelope.body.blobs().collect());
        match &envelope.body {
            Body::RequestSubmitted {
                request, budget, ..
            } => {
                begins(&mut self.requests, *request, RequestState::Queued)?;
                self.money.opens(*request, *budget);
            }
            Body::RequestChanged {
                request,
                from,
                to,
                failure,
                ..
            } => {
                let known = self.requests.insert(*request, *to);
                step(*request, known, *from, *to)?;
                self.ends(request.bits(), to.is_terminal(), envelope.time);
                if *to != RequestState::Planning {
                    let expired = *from == RequestState::Planning
                        && *to == RequestState::Queued
                        && failure.is_none();
                    self.holders.ended(request.bits(), expired, envelope.time)?;
                }
            }
            Body::Planned { request, jobs, .. } => {
                for job in jobs {
                    let state = match job.after.is_empty() {
                        true => JobState::Ready,
                        false => JobState::Blocked,
                    };
                    begins(&mut self.jobs, job.job, (*request, state))?;
                }
            }
            Body::JobChanged {
                job,
                from,
                to,
                failure,
                ..
            } => {
                let known = self.jobs.get_mut(job);
                let state = known.as_ref().map(|known| known.1);
                step(*job, state, *from, *to)?;
                known.into_iter().for_each(|known| known.1 = *to);
                self.ends(job.bits(), to.is_terminal(), envelope.time);
                if !to.is_held() {
                    let expired = failure
                        .as_ref()
                        .is_some_and(|f| f.reason == Reason::OwnerLost);
                    self.holders.ended(job.bits(), expired, envelope.time)?;
                }
            }
            Body::AttemptStarted { attempt, job, .. } => {
                let open = self
                    .attempts
                    .values()
                    .any(|(known, state)| known == job && !state.is_terminal());
                Broken::unless(!open, || format!("{job} has two attempts under way"))?;
                let state = (*job, AttemptState::Preparing);
                begins(&mut self.attempts, *attempt, state)?;
            }
            Body::AttemptChanged {
                attempt,
                from,
                to,
                tree,
                ..
            } => {
                let ended = (*from, *to) == (AttemptState::Running, AttemptState::Checking);
                Broken::unless(ended == tree.is_some(), || {
                    format!(
                        "{attempt} from {} to {} tells the tree {tree:?}",
                        from.as_str(),
                        to.as_str()
                    )
                })?;
                let known = self.attempts.get_mut(attempt);
                let state = known.as_ref().map(|known| known.1);
                step(*attempt, state, *from, *to)?;
                known.into_iter().for_each(|known| known.1 = *to);
                self.suspends(*attempt, *from, *to)?;
            }
            Body::ChangeMade {
                change, attempt, ..
            } => self.made(*change, *attempt)?,
            Body::ChangeChanged {
                change,
                from,
                to,
                integrated,
                failure,
                ..
            } => {
                self.changed(*change, (*from, *to), integrated.as_deref(), outside)?;
                self.ends(change.bits(), to.is_settled(), envelope.time);
                if !matches!(to, ChangeState::Merging | ChangeState::Checking) {
                    let lost = failure
                        .as_ref()
                        .is_some_and(|f| f.reason == Reason::OwnerLost);
                    let expired = lost && *to == ChangeState::Queued;
                    self.holders.ended(change.bits(), expired, envelope.time)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ends(&mut self, bits: u64, ended: bool, time: Timestamp) {
        if ended {
            self.ended.entry(bits).or_insert(time);
        }
    }

    /// It goes on where it was: a turn that has ended is not begun again.
    fn suspends(
        &mut self,
        attempt: AttemptId,
        from: AttemptState,
        to: AttemptState,
    ) -> Result<(), Broken> {
        if to == AttemptState::Suspended {
            self.suspended.insert(attempt, from);
        } else if from == AttemptState::Suspended && !to.is_terminal() {
            self.resumed += 1;
            let was = self.suspended.remove(&attempt);
            Broken::unless(was == Some(to), || {
                format!("{attempt} was {was:?}, and goes on as {to}")
            })?;
        }
        Ok(())
    }

    fn made(&mut self, change: ChangeId, attempt: AttemptId) -> Result<(), Broken> {
        let job = self.attempts.get(&attempt).map(|(job, _)| *job);
        let job = job.ok_or_else(|| Broken::new(format!("{change} is of no attempt")))?;
        let twice = self.changes.values().any(|known| known.job == job);
        Broken::unless(!twice, || format!("{job} has made two changes"))?;
        let known = KnownChange {
            job,
            state: ChangeState::Queued,
            integrated: None,
        };
        begins(&mut self.changes, change, known)
    }

    fn changed(
        &mut self,
        change: ChangeId,
        (from, to): (ChangeState, ChangeState),
        integrated: Option<&str>,
        outside: &Outside,
    ) -> Result<(), Broken> {
        let known = self.changes.get_mut(&change);
        let state = known.as_ref().map(|known| known.state);
        step(change, state, from, to)?;
        let known = known.unwrap();
        known.state = to;
        if to == ChangeState::Integrated {
            let commit = integrated.unwrap_or_default();
            let on_branch = outside.branches.values().any(|branch| {
                branch
                    .commits
                    .iter()
                    .any(|(held, of)| held == commit && *of == change)
            });
            Broken::unless(on_branch, || {
                format!("{change} is integrated as `{commit}`, which is not on the branch")
            })?;
            known.integrated = Some(commit.to_owned());
        }
        Ok(())
    }

    /// Holds what a call came to against what is known, and takes note of it. `stood` is whether
    /// its lease held before it, `recorded` how many events it recorded.
    pub(crate) fn answered(
        &mut self,
        call: &Call,
        answer: &Result<Answer, Error>,
        stood: Option<bool>,
        recorded: usize,
        (process, now): (usize, Timestamp),
    ) -> Result<(), Broken> {
        self.latest = self.latest.max(now);
        if let Err(error) = answer {
            Broken::unless(recorded == 0, || {
                format!("{call:?} failed ({error}) and recorded {recorded} events")
            })?;
        }
        match (stood, answer) {
            (Some(false), Ok(_)) => {
                return Err(Broken::new(format!(
                    "{call:?} was done with an ended lease"
                )));
            }
            (Some(true), Err(Error::LeaseLost(_))) if notified(call).is_some() => {
                let lease = call.lease().unwrap();
                self.holders.lost(lease.subject, now)?;
            }
            (Some(true), Err(Error::LeaseLost(_))) => {
                return Err(Broken::new(format!(
                    "{call:?} was refused, and its lease holds"
                )));
            }
            (_, Err(error @ (Error::Storage { .. } | Error::Closed))) => {
                return Err(Broken::new(format!("{call:?}: {error}: {error:?}")));
            }
            _ => {}
        }
        self.submitted(call, answer)?;
        self.stored(call, answer)?;
        self.money.answered(call, answer, |subject| match subject {
            Subject::Request(id) => Some(id),
            Subject::Job(id) => self.jobs.get(&id).map(|(request, _)| *request),
            Subject::Change(_) | Subject::Notification(_) => None,
        })?;
        match (call, answer) {
            (Call::ClaimRequest(seek), Ok(Answer::ToPlan(Some(claimed)))) => {
                let placement = &claimed.request.ask.placement;
                fits(seek, placement, &[])?;
                Broken::unless(
                    placement.not_before.is_none_or(|time| time <= self.latest),
                    || format!("{} has begun before its time", claimed.request.id),
                )?;
                self.holders.claimed(&claimed.lease, process)
            }
            (Call::ClaimJob(seek), Ok(Answer::ToDo(Some(claimed)))) => {
                let placement = &claimed.request.ask.placement;
                let needs = [&placement.needs[..], &claimed.job.spec.needs].concat();
                fits(seek, placement, &needs)?;
                self.holders.claimed(&claimed.lease, process)
            }
            (_, Ok(Answer::ToTell(Some(claimed)))) => {
                self.holders.lost(claimed.lease.subject, now)?;
                self.notifications.claimed(claimed)?;
                self.holders.claimed(&claimed.lease, process)
            }
            (Call::SettleNotification(lease, unreached), Ok(_)) => {
                self.holders.settled(lease);
                let id = notified(call).unwrap();
                self.notifications.settled(id, unreached)
            }
            (_, Ok(Answer::ToMerge(Some(claimed)))) => {
                let known = self.intents.get(&claimed.change.id);
                Broken::unless(claimed.change.integrated.as_ref() == known, || {
                    format!(
                        "{} is about to land as {:?}, and what was acknowledged is {known:?}",
                        claimed.change.id, claimed.change.integrated
                    )
                })?;
                self.holders.claimed(&claimed.lease, process)
            }
            (Call::Heartbeat(lease), Ok(_)) => {
                self.holders.beat(lease, now);
                Ok(())
            }
            (Call::Land(lease, commit), Ok(_)) => {
                if let Subject::Change(change) = lease.subject {
                    self.intents.insert(change, commit.clone());
                }
                Ok(())
            }
            (
                Call::SettleChange(
                    _,
                    ChangeOutcome::Postponed {
                        may_have_landed: true,
                        ..
                    },
                ),
                Ok(_),
            ) => Ok(()),
            (Call::SettleChange(lease, _), Ok(_)) => {
                if let Subject::Change(change) = lease.subject {
                    self.intents.remove(&change);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What has not come to its end.
    pub(crate) fn open(&self) -> Vec<String> {
        let requests = self
            .requests
            .iter()
            .filter(|(_, state)| !state.is_terminal());
        let changes = self.changes.iter();
        let changes = changes.filter(|(_, change)| !change.state.is_settled());
        let jobs = self
            .jobs
            .iter()
            .filter(|(_, (_, state))| !state.is_terminal());
        requests
            .map(|(id, state)| format!("{id} is {state}"))
            .chain(jobs.map(|(id, (_, state))| format!("{id} is {state}")))
            .chain(changes.map(|(id, change)| format!("{id} is {}", change.state)))
            .chain(self.holders.told())
            .chain(
                self.notifications
                    .untold()
                    .map(|id| format!("{id} is untold")),
            )
            .collect()
    }
}

fn begins<K: Ord + Display + Copy, V>(
    all: &mut BTreeMap<K, V>,
    id: K,
    state: V,
) -> Result<(), Broken> {
    match all.insert(id, state) {
        None => Ok(()),
        Some(_) => Err(Broken::new(format!("{id} began twice"))),
    }
}

/// The notification that a call settles.
fn notified(call: &Call) -> Option<EventId> {
    match call.lease()?.subject {
        Subject::Notification(id) => Some(id),
        _ => None,
    }
}

/// Only who can do it takes it.
fn fits(seek: &Seek, placement: &Placement, needs: &[String]) -> Result<(), Broken> {
    let pinned = placement.pin.is_none() || placement.pin == seek.worker;
    let able = needs.iter().all(|need| seek.capabilities.contains(need));
    Broken::unless(pinned && able, || {
        format!("{seek:?} has taken what is for {placement:?} and needs {needs:?}")
    })
}

/// A step that the machine allows, from where it stood.
fn step<S: Machine>(id: impl Display, known: Option<S>, from: S, to: S) -> Result<(), Broken> {
    Broken::unless(known == Some(from), || {
        format!("{id} goes from {from} to {to}, and was {known:?}")
    })?;
    let mut commands = S::COMMANDS.iter();
    Broken::unless(
        !from.is_terminal() && commands.any(|command| from.next(*command) == Some(to)),
        || format!("{id} may not go from {from} to {to}"),
    )
}
