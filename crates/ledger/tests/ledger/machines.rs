//! The ledger and the pure machines agree, step by step.

use crate::support::{new_attempt, passed, place};
use domain::{
    AttemptState, ChangeState, Failure, JobState, Reason, RequestState,
    event::{Agent, Body},
    machine::Machine,
    progress::{Dependency, Settled, request_command},
    state::{AttemptCommand, ChangeCommand, JobCommand, RequestCommand},
};
use ledger::{ChangeOutcome, ClaimedChange, ClaimedJob, Error, Settlement};
use proptest::prelude::*;
use std::time::Duration;

/// A request as the machines alone would have it.
struct Model {
    request: RequestState,
    jobs: Vec<ModelJob>,
    /// Counts the moments at which time passed.
    time: u64,
}

struct ModelJob {
    state: JobState,
    change: Option<ChangeState>,
    claims: u32,
    /// When it was ready for the first time.
    place: Option<u64>,
    /// Holders that were lost in a row without a step between.
    lost: u32,
    /// Integrators that were lost in a row.
    unmerged: u32,
    /// How often its change was put back, and whether it waits.
    postponed: u32,
    waits: bool,
    /// Whether its change may be on the branch.
    intended: bool,
    /// Whether a step was made since the claim.
    stepped: bool,
    /// The open attempt; where it is suspended, the state that it left besides.
    attempt: Option<(AttemptState, AttemptState)>,
    after: Vec<usize>,
}

impl Model {
    fn tell(&mut self, job: usize, command: JobCommand) {
        self.jobs[job].state = self.jobs[job].state.apply(command).unwrap();
        if self.jobs[job].state == JobState::Ready {
            self.jobs[job].place.get_or_insert(self.time);
        }
    }

    /// What is claimed next: what has waited longest, and then in the order of the plan.
    fn next(&self) -> Option<usize> {
        (0..self.jobs.len())
            .filter(|&job| self.jobs[job].state == JobState::Ready)
            .min_by_key(|&job| (self.jobs[job].place, job))
    }

    /// Time has passed: what sleeps is woken.
    fn pass(&mut self) {
        self.time += 1;
        for job in 0..self.jobs.len() {
            if self.jobs[job].state == JobState::Parked {
                self.tell(job, JobCommand::Wake);
            }
            self.jobs[job].waits = false;
        }
        self.follow();
    }

    fn settled(&self, job: usize) -> Settled {
        Settled {
            job: self.jobs[job].state,
            change: self.jobs[job].change,
        }
    }

    fn follow(&mut self) {
        // Jobs come after what they wait for, so one pass is enough.
        for job in 0..self.jobs.len() {
            if self.jobs[job].state != JobState::Blocked {
                continue;
            }
            let after: Vec<Dependency> = self.jobs[job]
                .after
                .iter()
                .map(|&at| self.settled(at).as_dependency())
                .collect();
            if after.contains(&Dependency::Failed) {
                self.tell(job, JobCommand::Die);
            } else if after.iter().all(|&one| one == Dependency::Satisfied) {
                self.tell(job, JobCommand::Unblock);
            }
        }
        let all: Vec<Settled> = (0..self.jobs.len()).map(|job| self.settled(job)).collect();
        if let Some(command) = request_command(self.request, &all) {
            self.request = self.request.apply(command).unwrap();
        }
    }

    /// The holder is lost: what its agent or gate was at waits for the next one.
    fn lose(&mut self, job: usize) {
        let one = &mut self.jobs[job];
        one.claims -= 1;
        one.lost = if one.stepped { 0 } else { one.lost + 1 };
        let may_go_on = one.lost < ledger::MAX_LOST;
        one.attempt = one.attempt.and_then(|(state, left)| match state {
            _ if !may_go_on => None,
            AttemptState::Suspended => Some((state, left)),
            AttemptState::Preparing => None,
            _ => Some((state.apply(AttemptCommand::Suspend).unwrap(), state)),
        });
        self.tell(
            job,
            if may_go_on {
                JobCommand::Retry
            } else {
                JobCommand::Die
            },
        );
        self.follow();
    }

    /// The integrator is lost: the next one looks, unless that was too often.
    fn lose_integrator(&mut self, job: usize) {
        let one = &mut self.jobs[job];
        one.unmerged += 1;
        let most = ledger::MAX_LOST_INTEGRATORS * if one.intended { 2 } else { 1 };
        let command = if one.unmerged < most {
            ChangeCommand::Requeue
        } else {
            ChangeCommand::Reject
        };
        one.change = one.change.map(|state| state.apply(command).unwrap());
        self.follow();
    }

    /// A fault of the machine keeps the change: it waits, unless that was too often.
    fn postpone(&mut self, job: usize) -> ChangeCommand {
        let one = &mut self.jobs[job];
        one.postponed += 1;
        if one.postponed == ledger::MAX_POSTPONED {
            return ChangeCommand::Reject;
        }
        one.waits = true;
        ChangeCommand::Requeue
    }

    fn fail(&mut self, job: usize, outside: bool) {
        self.jobs[job].attempt = None;
        let again = outside && self.jobs[job].claims < ledger::MAX_ATTEMPTS;
        self.tell(
            job,
            if again {
                JobCommand::Park
            } else {
                JobCommand::Die
            },
        );
        self.follow();
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Claim,
    Start(usize),
    Run(usize),
    Check(usize),
    Resume(usize),
    GiveUp(usize),
    Record(usize),
    Pass(usize),
    Empty(usize),
    Reject(usize),
    Fail(usize, bool),
    Lose,
    Sleep,
    Merge,
    CheckChange,
    Land,
    Integrate,
    Conflict,
    RejectChange,
    Requeue,
    Postpone,
    CancelJob(usize),
    Cancel,
}

fn steps() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    prop_oneof![
        10 => Just(Step::Claim),
        10 => any().prop_map(Step::Start),
        12 => any().prop_map(Step::Run),
        12 => any().prop_map(Step::Check),
        8 => any().prop_map(Step::Resume),
        2 => any().prop_map(Step::GiveUp),
        3 => any().prop_map(Step::Record),
        10 => any().prop_map(Step::Pass),
        2 => any().prop_map(Step::Empty),
        2 => any().prop_map(Step::Reject),
        4 => (any(), proptest::bool::ANY).prop_map(|(at, outside)| Step::Fail(at, outside)),
        2 => Just(Step::Lose),
        4 => Just(Step::Sleep),
        10 => Just(Step::Merge),
        3 => Just(Step::CheckChange),
        3 => Just(Step::Land),
        8 => Just(Step::Integrate),
        1 => Just(Step::Conflict),
        1 => Just(Step::RejectChange),
        2 => Just(Step::Requeue),
        3 => Just(Step::Postpone),
        1 => any().prop_map(Step::CancelJob),
        1 => Just(Step::Cancel),
    ]
}

/// Both said the same of a step.
fn agree<T: std::fmt::Debug>(result: &Result<T, Error>, allowed: bool, step: Step) {
    match result {
        Ok(_) => assert!(allowed, "{step:?} was done, and is not allowed"),
        Err(Error::Illegal(_) | Error::NotFound { .. }) => {
            assert!(!allowed, "{step:?} is allowed: {result:?}");
        }
        Err(error) => panic!("{step:?}: {error:?}"),
    }
}

async fn walk(after: Vec<Vec<usize>>, sequence: Vec<Step>) {
    let place = place().await;
    let ledger = &place.ledger;
    let lines: Vec<String> = after
        .iter()
        .enumerate()
        .map(|(job, after)| {
            let names: Vec<String> = after.iter().map(|at| format!("j{at}")).collect();
            format!("j{job} {}", names.join(",")).trim().to_owned()
        })
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let request = place.planned(&lines).await;
    let mut model = Model {
        request: RequestState::Working,
        time: 0,
        jobs: after
            .into_iter()
            .map(|after| ModelJob {
                state: if after.is_empty() {
                    JobState::Ready
                } else {
                    JobState::Blocked
                },
                change: None,
                claims: 0,
                place: after.is_empty().then_some(0),
                lost: 0,
                unmerged: 0,
                postponed: 0,
                waits: false,
                intended: false,
                stepped: false,
                attempt: None,
                after,
            })
            .collect(),
    };
    let ids: Vec<_> = ledger
        .jobs(request)
        .await
        .unwrap()
        .iter()
        .map(|job| job.id)
        .collect();
    let index = |id| ids.iter().position(|&known| known == id).unwrap();
    let mut held: Vec<(usize, ClaimedJob)> = Vec::new();
    let mut merging: Option<(usize, ClaimedChange)> = None;

    for step in sequence {
        let picked =
            |at: usize, held: &[(usize, ClaimedJob)]| (!held.is_empty()).then(|| at % held.len());
        match step {
            Step::Claim => {
                let expected = model.next();
                let claimed = place.try_claim().await;
                let found = claimed.as_ref().map(|claimed| index(claimed.job.id));
                assert_eq!(found, expected);
                if let Some(claimed) = claimed {
                    let job = index(claimed.job.id);
                    model.tell(job, JobCommand::Claim);
                    model.jobs[job].claims += 1;
                    model.jobs[job].stepped = false;
                    let open = claimed.attempt.as_ref();
                    let open = open.map(|open| (open.attempt.state, open.checking));
                    let known = model.jobs[job].attempt;
                    let known = known.map(|(state, left)| (state, left == AttemptState::Checking));
                    assert_eq!(open, known);
                    held.push((job, claimed));
                }
            }
            Step::Start(at) | Step::Run(at) | Step::Check(at) => {
                let Some(at) = picked(at, &held) else {
                    continue;
                };
                let (job, lease) = (held[at].0, &held[at].1.lease);
                let (command, result) = match step {
                    Step::Start(_) => (
                        JobCommand::Start,
                        ledger.start_attempt(lease, new_attempt()).await.map(drop),
                    ),
                    Step::Run(_) => (JobCommand::Revise, ledger.attempt_running(lease).await),
                    _ => (
                        JobCommand::Check,
                        ledger.attempt_checking(lease, "d".into()).await,
                    ),
                };
                let next = model.jobs[job].state.next(command);
                let suspended =
                    matches!(model.jobs[job].attempt, Some((AttemptState::Suspended, _)));
                if suspended && matches!(step, Step::Start(_)) {
                    assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
                    continue;
                }
                if result.is_ok() {
                    let state = match step {
                        Step::Start(_) => AttemptState::Preparing,
                        Step::Run(_) => AttemptState::Running,
                        _ => AttemptState::Checking,
                    };
                    model.jobs[job].attempt = Some((state, state));
                }
                // An attempt that is being prepared runs while its job does already; its gate
                // begins only after that.
                match (step, &result) {
                    (Step::Run(_), Ok(())) if next.is_none() => {
                        assert_eq!(model.jobs[job].state, JobState::Running);
                    }
                    (Step::Check(_), Err(Error::Illegal(_))) if next.is_some() => {}
                    _ => {
                        agree(&result, next.is_some(), step);
                        model.jobs[job].state = next.unwrap_or(model.jobs[job].state);
                    }
                }
            }
            Step::Resume(at) | Step::GiveUp(at) | Step::Record(at) => {
                let Some(at) = picked(at, &held) else {
                    continue;
                };
                let (job, lease) = (held[at].0, held[at].1.lease.clone());
                let open = model.jobs[job].attempt;
                let suspended = matches!(open, Some((AttemptState::Suspended, _)));
                match step {
                    Step::Resume(_) => {
                        let result = ledger.resume_attempt(&lease).await;
                        agree(&result, suspended, step);
                        if let (Ok(attempt), Some((_, left))) = (result, open) {
                            assert_eq!(attempt.state, left);
                            model.jobs[job].attempt = Some((left, left));
                            model.tell(job, JobCommand::Start);
                            if left == AttemptState::Checking {
                                model.tell(job, JobCommand::Check);
                            }
                        }
                    }
                    Step::GiveUp(_) => {
                        let failure = Failure::new(Reason::OwnerLost, "");
                        match ledger.lose_attempt(&lease, failure).await {
                            Ok(()) => {
                                assert!(suspended);
                                model.jobs[job].attempt = None;
                            }
                            Err(Error::Invalid(_)) => assert!(open.is_some() && !suspended),
                            result => agree(&result, false, step),
                        }
                    }
                    _ => {
                        let Some(attempt) = ledger.attempts(ids[job]).await.unwrap().pop() else {
                            continue;
                        };
                        if open.is_none() {
                            continue;
                        }
                        let event = Agent::Finished {
                            summary: String::new(),
                        };
                        let body = Body::Agent {
                            attempt: attempt.id,
                            event,
                        };
                        ledger.record(&lease, vec![body]).await.unwrap();
                        model.jobs[job].stepped = true;
                    }
                }
            }
            Step::Pass(at) | Step::Empty(at) | Step::Reject(at) | Step::Fail(at, _) => {
                let Some(at) = picked(at, &held) else {
                    continue;
                };
                let (job, lease) = (held[at].0, held[at].1.lease.clone());
                let state = model.jobs[job].state;
                let failure = |outside: bool| {
                    Failure::new(
                        if outside {
                            Reason::Unreachable
                        } else {
                            Reason::Stuck
                        },
                        "",
                    )
                };
                let settlement = match step {
                    Step::Pass(_) => passed(),
                    Step::Empty(_) => Settlement::Empty {
                        summary: String::new(),
                    },
                    Step::Reject(_) => Settlement::Rejected {
                        failure: failure(false),
                        tree: None,
                        summary: String::new(),
                    },
                    Step::Fail(_, outside) => Settlement::Failed {
                        failure: failure(outside),
                    },
                    _ => unreachable!(),
                };
                let result = ledger.settle_attempt(&lease, settlement).await;
                match (&result, step) {
                    (Ok(_), Step::Pass(_)) => {
                        model.tell(job, JobCommand::Deliver);
                        model.jobs[job].attempt = None;
                        model.jobs[job].change = Some(ChangeState::Queued);
                        model.follow();
                    }
                    (Ok(_), Step::Empty(_)) => {
                        model.tell(job, JobCommand::SettleEmpty);
                        model.jobs[job].attempt = None;
                        model.follow();
                    }
                    (Ok(_), Step::Reject(_)) => model.fail(job, false),
                    (Ok(_), Step::Fail(_, outside)) => model.fail(job, outside),
                    (Err(Error::Illegal(_)), _) => {
                        let legal = match step {
                            Step::Pass(_) => state == JobState::Checking,
                            Step::Fail(..) => true,
                            // Illegal for an attempt whose agent has not run.
                            _ => state == JobState::Checking,
                        };
                        assert!(!legal, "{step:?} of a job that is {state}: {result:?}");
                    }
                    (result, _) => panic!("{step:?}: {result:?}"),
                }
                if result.is_ok() {
                    held.remove(at);
                }
            }
            Step::Lose => {
                place.lose().await;
                model.pass();
                if let Some((job, _)) = merging.take() {
                    model.lose_integrator(job);
                }
                for (job, _) in held.drain(..) {
                    model.lose(job);
                }
            }
            Step::Sleep => {
                // Longer than any of three failures makes a job sleep, or four a change, and shorter
                // than a lease.
                place.clock.advance(Duration::from_secs(20));
                for (_, claimed) in &held {
                    ledger.heartbeat(&claimed.lease).await.unwrap();
                }
                if let Some((_, claimed)) = &merging {
                    ledger.heartbeat(&claimed.lease).await.unwrap();
                }
                place.look().await;
                model.pass();
            }
            Step::Merge => {
                let free = merging.is_none();
                let any = model
                    .jobs
                    .iter()
                    .any(|job| job.change == Some(ChangeState::Queued) && !job.waits);
                let claimed = place.claim_change().await;
                assert_eq!(claimed.is_some(), free && any);
                if let Some(claimed) = claimed {
                    let job = index(claimed.change.job);
                    model.jobs[job].change = Some(ChangeState::Merging);
                    merging = Some((job, claimed));
                }
            }
            Step::CheckChange | Step::Land => {
                let Some((job, claimed)) = &merging else {
                    continue;
                };
                let state = model.jobs[*job].change.unwrap();
                if matches!(step, Step::Land) {
                    let result = ledger.land_change(&claimed.lease, "e".into()).await;
                    let allowed = state.next(ChangeCommand::Integrate).is_some();
                    agree(&result, allowed, step);
                    model.jobs[*job].intended |= result.is_ok();
                } else {
                    let result = ledger.change_checking(&claimed.lease).await;
                    let next = state.next(ChangeCommand::Check);
                    agree(&result, next.is_some(), step);
                    model.jobs[*job].change = next.or(Some(state));
                }
            }
            Step::Integrate
            | Step::Conflict
            | Step::RejectChange
            | Step::Requeue
            | Step::Postpone => {
                let Some((job, claimed)) = merging.take() else {
                    continue;
                };
                let (command, outcome) = match step {
                    Step::Integrate => (
                        ChangeCommand::Integrate,
                        ChangeOutcome::Integrated { commit: "e".into() },
                    ),
                    Step::Conflict => (
                        ChangeCommand::Conflict,
                        ChangeOutcome::Conflicted {
                            files: vec!["a".into()],
                        },
                    ),
                    Step::RejectChange => (
                        ChangeCommand::Reject,
                        ChangeOutcome::Rejected {
                            failure: Failure::new(Reason::ChecksFailed, ""),
                        },
                    ),
                    // It waits for no longer than `Step::Sleep` lasts.
                    Step::Postpone if model.jobs[job].postponed < 4 => (
                        model.postpone(job),
                        ChangeOutcome::Postponed {
                            failure: Failure::new(Reason::Storage, ""),
                            may_have_landed: true,
                        },
                    ),
                    _ => {
                        model.jobs[job].intended = false;
                        (ChangeCommand::Requeue, ChangeOutcome::Requeued)
                    }
                };
                model.jobs[job].unmerged = 0;
                ledger.settle_change(&claimed.lease, outcome).await.unwrap();
                let state = model.jobs[job].change.unwrap();
                model.jobs[job].change = Some(state.apply(command).unwrap());
                model.follow();
            }
            Step::CancelJob(at) => {
                let job = at % ids.len();
                let result = ledger.cancel_job(ids[job]).await;
                let next = model.jobs[job].state.next(JobCommand::Cancel);
                agree(&result, next.is_some(), step);
                if next.is_some() {
                    model.tell(job, JobCommand::Cancel);
                    model.jobs[job].attempt = None;
                    model.follow();
                    held.retain(|(known, _)| *known != job);
                }
            }
            Step::Cancel => {
                let result = ledger.cancel_request(request).await;
                let next = model.request.next(RequestCommand::Cancel);
                agree(&result, next.is_some(), step);
                let Some(next) = next else { continue };
                model.request = next;
                held.clear();
                for job in 0..model.jobs.len() {
                    if !model.jobs[job].state.is_terminal() {
                        model.tell(job, JobCommand::Cancel);
                        model.jobs[job].attempt = None;
                    }
                    let intended = ledger
                        .changes_of(request)
                        .await
                        .unwrap()
                        .into_iter()
                        .any(|change| index(change.job) == job && change.integrated.is_some());
                    if !intended {
                        let change = model.jobs[job].change;
                        model.jobs[job].change =
                            change.map(|state| state.next(ChangeCommand::Reject).unwrap_or(state));
                    }
                }
                if merging
                    .as_ref()
                    .is_some_and(|(job, _)| model.jobs[*job].change == Some(ChangeState::Rejected))
                {
                    merging = None;
                }
            }
        }
        let stored = ledger.request(request).await.unwrap().state;
        assert_eq!(stored, model.request, "after {step:?}");
        for (job, stored) in ledger.jobs(request).await.unwrap().iter().enumerate() {
            assert_eq!(
                stored.state, model.jobs[job].state,
                "job {job} after {step:?}"
            );
        }
        for (job, known) in model.jobs.iter().enumerate() {
            let attempts = ledger.attempts(ids[job]).await.unwrap();
            let open = attempts.iter().find(|attempt| attempt.ended.is_none());
            let open = open.map(|attempt| attempt.state);
            let known = known.attempt.map(|(state, _)| state);
            assert_eq!(open, known, "attempt of job {job} after {step:?}");
        }
        for change in ledger.changes_of(request).await.unwrap() {
            let known = model.jobs[index(change.job)].change;
            assert_eq!(Some(change.state), known, "after {step:?}");
        }
    }
    place.holds().await;
}

/// Up to six jobs, each after some of those before it.
fn dags() -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1..7usize).prop_flat_map(|jobs| {
        (0..jobs)
            .map(|job| {
                proptest::collection::btree_set(0..job.max(1), 0..=job.min(2))
                    .prop_map(move |after| after.into_iter().filter(|&at| at < job).collect())
            })
            .collect::<Vec<_>>()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_verbs_leads_where_the_machines_do_not(
        after in dags(),
        sequence in proptest::collection::vec(steps(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(walk(after, sequence));
    }
}
