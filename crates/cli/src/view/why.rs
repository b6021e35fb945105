//! What something waits for, in words: what broke it first, then what a person can change, then
//! what only takes time.

use super::format;
use domain::{
    ChangeState, Failure, JobState, RequestId, RequestState, Timestamp, budget::Account,
    entity::Request, machine::Machine as _,
};
use ledger::{Holder, JobWaits, Limit, Limited, Position, RequestWaits, Restoration, Undelivered};
use std::time::Duration;

/// A holder that has recorded nothing for so long is worth a look.
const QUIET: Duration = Duration::from_secs(5 * 60);

/// One thing that explains where something stands.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Cause {
    /// What it is.
    pub(crate) what: String,
    /// What to do about it, if something can be done.
    pub(crate) remedy: Option<String>,
    /// When it ends by itself, if that is known.
    pub(crate) until: Option<Timestamp>,
}

fn cause(what: impl Into<String>) -> Cause {
    Cause {
        what: what.into(),
        remedy: None,
        until: None,
    }
}

fn mended(what: impl Into<String>, remedy: impl Into<String>) -> Cause {
    Cause {
        what: what.into(),
        remedy: Some(remedy.into()),
        until: None,
    }
}

fn failed(failure: &Failure) -> Cause {
    mended(failure.to_string(), failure.reason.remedy())
}

/// That nothing of a restored ledger goes on.
pub(crate) fn of_restored(restored: Restoration) -> Cause {
    mended(
        restored.to_string(),
        "when the ledger that was backed up does not work any more, run `skep ledger take-over`",
    )
}

/// That what was made was made without a sandbox.
pub(crate) fn of_unsealed() -> Cause {
    cause("unsealed: it was made on the host and not in a sandbox")
}

/// Why a notification was given up, sink by sink.
pub(crate) fn of_undelivered(lost: &Undelivered) -> Vec<Cause> {
    let again = format!("`skep retry {}` has it told again", lost.event);
    lost.unreached
        .iter()
        .map(|one| {
            let sink = one.sink.as_deref().unwrap_or("any of its sinks");
            mended(
                format!("{sink} was not told of {}: {}", lost.request, one.why),
                &*again,
            )
        })
        .collect()
}

/// Why a request stands where it stands.
pub(crate) fn of_request(request: &Request, waits: &RequestWaits, now: Timestamp) -> Vec<Cause> {
    let mut causes: Vec<Cause> = request.failure.as_ref().map(failed).into_iter().collect();
    causes.extend(budget(
        &waits.account,
        &request.id.to_string(),
        waits.state.is_terminal(),
    ));
    match waits.state {
        RequestState::Queued => causes.push(match (waits.not_before, waits.until) {
            (Some(time), _) => later("it", time, now, request.id),
            (None, Some(time)) => later(PUT_BACK, time, now, request.id),
            (None, None) => queued(waits.position, "to be planned"),
        }),
        RequestState::Planning => causes.push(held("plans it", waits.planner.as_ref(), now)),
        _ => {}
    }
    let mut jobs: Vec<&JobWaits> = waits.jobs.iter().collect();
    jobs.sort_by_key(|job| order(job));
    for job in jobs {
        let causes_of_job = match waits.state {
            RequestState::Cancelled if in_doubt(job) => vec![settled_later(request.id)],
            _ => of_job(job, now),
        };
        for mut cause in causes_of_job {
            let (name, state) = (&job.job.spec.name, job.job.state);
            cause.what = format!("{name} is {state}: {}", cause.what);
            causes.push(cause);
        }
    }
    if let Some(integrator) = &waits.integrator {
        causes.push(held("merges a change of it", Some(integrator), now));
    }
    if waits.changes_ahead > 0 {
        let changes = format::count(
            usize::try_from(waits.changes_ahead).unwrap_or(usize::MAX),
            "change",
        );
        causes.push(cause(format!(
            "{changes} of other requests on the same branch are merged first"
        )));
    }
    if waits.state == RequestState::Paused {
        causes.push(mended(
            "somebody paused it",
            format!("`skep resume {}`", request.id),
        ));
    }
    if causes.is_empty() {
        causes.push(cause(match waits.state {
            RequestState::Done => "all of it is integrated",
            RequestState::Cancelled => "somebody cancelled it",
            _ => "nothing keeps it",
        }));
    }
    causes
}

/// Whether the job's change was about to land when its request was cancelled: a cancellation rejects
/// every other change that is open.
fn in_doubt(job: &JobWaits) -> bool {
    job.change.is_some_and(|(_, state)| !state.is_settled())
}

fn settled_later(request: RequestId) -> Cause {
    mended(
        "its change was being put on the branch when somebody cancelled the request: it may be there",
        format!("`skep resume` looks and records it; `skep show {request}` says it then"),
    )
}

/// What broke first, then what a person can change, then what takes time.
fn order(job: &JobWaits) -> u8 {
    match job.job.state {
        JobState::Dead => 0,
        JobState::Waiting | JobState::Paused => 1,
        JobState::Parked => 2,
        JobState::Ready => 3,
        JobState::Leased | JobState::Running | JobState::Checking => 4,
        JobState::Blocked => 5,
        JobState::Delivered => 6,
        JobState::NothingToDo | JobState::Cancelled => 7,
    }
}

/// Why a job stands where it stands; nothing where it ended well.
pub(crate) fn of_job(waits: &JobWaits, now: Timestamp) -> Vec<Cause> {
    let job = &waits.job;
    let mut causes: Vec<Cause> = job.failure.as_ref().map(failed).into_iter().collect();
    causes.extend(budget(
        &waits.account,
        &job.request.to_string(),
        job.state.is_terminal(),
    ));
    match job.state {
        JobState::Blocked => causes.extend(waits.unmet.iter().map(|unmet| {
            let change = unmet
                .change
                .map(|(_, state)| format!(", its change is {state}"))
                .unwrap_or_default();
            cause(format!(
                "it waits for {}, which is {}{change}",
                unmet.name, unmet.state
            ))
        })),
        JobState::Ready => causes.extend(ready(waits)),
        JobState::Parked => {
            let left = waits.until.unwrap_or(now).since(now);
            let what = format!(
                "it sleeps for another {} and then begins by itself",
                format::span(left)
            );
            causes.push(Cause {
                until: waits.until,
                ..cause(what)
            });
        }
        JobState::Leased | JobState::Running | JobState::Checking => {
            let mut holder = held("works on it", waits.holder.as_ref(), now);
            if let Some(quiet) = waits
                .last
                .map(|last| now.since(last))
                .filter(|quiet| *quiet > QUIET)
            {
                holder.what.push_str(&format!(
                    "; nothing was recorded for {}",
                    format::span(quiet)
                ));
                holder.remedy.get_or_insert(format!(
                    "`skep log {} -f` shows what it does; `skep cancel {}` ends it",
                    job.request, job.id
                ));
            }
            causes.push(holder);
        }
        JobState::Waiting => causes.push(mended(
            "it asks a person",
            format!("`skep log {}` has the question", job.request),
        )),
        JobState::Paused => causes.push(mended(
            "somebody paused it",
            format!("`skep resume {}`", job.request),
        )),
        JobState::Delivered => causes.extend(delivered(waits, now)),
        JobState::Dead | JobState::NothingToDo | JobState::Cancelled => {}
    }
    causes
}

fn ready(waits: &JobWaits) -> Vec<Cause> {
    let mut causes: Vec<Cause> = waits.limits.iter().map(limit).collect();
    if waits.request_is_full {
        causes.push(cause(
            "its request has as many jobs under way as it allows (`--parallel`)",
        ));
    }
    if !waits.job.spec.needs.is_empty() {
        causes.push(cause(format!(
            "only a worker with {} can take it",
            waits.job.spec.needs.join(", ")
        )));
    }
    causes.push(queued(waits.position, "to be done"));
    causes
}

fn limit(limit: &Limit) -> Cause {
    let of = match &limit.of {
        Limited::Repository(_) => "this repository".to_owned(),
        Limited::Agent(name) => format!("the agent {name}"),
        Limited::Provider(name) => format!("the provider {name}"),
    };
    mended(
        format!(
            "{} of {of} are under way, and that is the limit",
            format::count(limit.most as usize, "job")
        ),
        "`skep limit` shows and changes limits",
    )
}

fn queued(position: Option<Position>, what: &str) -> Cause {
    let (ahead, wait) = position.map_or((0, None), |found| (found.ahead, found.wait));
    let wait = wait
        .filter(|wait| !wait.is_zero())
        .map(|wait| format!(", about {} by what ran before", format::span(wait)))
        .unwrap_or_default();
    match ahead {
        0 => mended(
            format!("it is the next one {what}"),
            "`skep resume` works on it, if no process does",
        ),
        ahead => cause(format!("{ahead} are before it in the queue{wait}")),
    }
}

/// What a fault of the machine hindered.
const PUT_BACK: &str = "a fault of the machine hindered it; it";

/// It waits for a time to come.
fn later(what: &str, time: Timestamp, now: Timestamp, request: RequestId) -> Cause {
    let zone = jiff::tz::TimeZone::system();
    Cause {
        until: Some(time),
        ..mended(
            format!("{what} {}", format::waits_until(time, now, &zone)),
            format!("`skep resume {request}` works on it then, if no process does"),
        )
    }
}

fn held(does: &str, holder: Option<&Holder>, now: Timestamp) -> Cause {
    let Some(holder) = holder else {
        return cause(format!("nobody {does}"));
    };
    let process = holder
        .process
        .map_or_else(|| "a process".to_owned(), |id| format!("process {id}"));
    if !holder.alive {
        return mended(
            format!("{process}, which has ended, had it"),
            "`skep resume` goes on with it",
        );
    }
    let late = now.since(holder.deadline);
    if late.is_zero() {
        return cause(format!("{process} {does}"));
    }
    mended(
        format!(
            "{process} {does}, and has not said so for {}",
            format::span(late)
        ),
        "if it hangs, end it: the work goes on elsewhere",
    )
}

fn delivered(waits: &JobWaits, now: Timestamp) -> Vec<Cause> {
    let Some((change, state)) = waits.change else {
        return Vec::new();
    };
    match state {
        ChangeState::Integrated | ChangeState::Promoted => Vec::new(),
        ChangeState::Queued => vec![match waits.change_until {
            Some(time) => {
                let what = "a fault of the machine hindered its change; it";
                later(what, time, now, waits.job.request)
            }
            None => cause("its change waits for its turn to be merged"),
        }],
        ChangeState::Merging | ChangeState::Checking => {
            vec![cause(format!("its change is {state}"))]
        }
        ChangeState::Conflicted | ChangeState::Rejected | ChangeState::Reverted => vec![mended(
            format!("its change is {state}"),
            format!("`skep show {change}` says why"),
        )],
    }
}

fn budget(account: &Account, request: &str, ended: bool) -> Option<Cause> {
    let overdrawn = account.overdraft != domain::Amount::ZERO;
    let used = account.total.tokens > 0 && account.free.tokens == 0 && account.reserved.tokens == 0;
    if ended || !(overdrawn || used) {
        return None;
    }
    Some(mended(
        "its budget is used up",
        format!("`skep top-up {request} 500k` adds to it"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::sample;

    /// A job that has delivered a change, which waits to be merged.
    fn delivered_job(change_until: Option<Timestamp>) -> JobWaits {
        let mut job = JobWaits {
            job: sample::job_entity(1),
            account: Account::new(domain::Amount::ZERO),
            unmet: Vec::new(),
            position: None,
            limits: Vec::new(),
            request_is_full: false,
            until: None,
            holder: None,
            last: None,
            change: Some((sample::change(1), ChangeState::Queued)),
            change_until,
        };
        job.job.state = JobState::Delivered;
        job.job.failure = None;
        job
    }

    fn waits(state: RequestState, until: Option<Timestamp>, jobs: Vec<JobWaits>) -> RequestWaits {
        RequestWaits {
            state,
            not_before: None,
            until,
            position: None,
            planner: None,
            account: Account::new(domain::Amount::ZERO),
            jobs,
            changes_ahead: 0,
            integrator: None,
        }
    }

    #[test]
    fn a_change_that_was_landing_when_its_request_was_cancelled_is_not_said_to_wait() {
        let mut request = sample::request(RequestState::Cancelled);
        request.failure = None;
        let waits = waits(RequestState::Cancelled, None, vec![delivered_job(None)]);
        let said = of_request(&request, &waits, Timestamp(0));
        assert_eq!(said.len(), 1);
        assert!(said[0].what.contains("it may be there"), "{}", said[0].what);
        assert!(said[0].remedy.as_ref().unwrap().contains("skep resume"));
    }

    #[test]
    fn what_a_fault_of_the_machine_hinders_says_until_when_it_waits() {
        let until = Some(Timestamp(90_000_000));
        let job = delivered_job(until);
        let said = of_job(&job, Timestamp(0));
        assert_eq!((said.len(), said[0].until), (1, until));
        let what = &said[0].what;
        assert!(what.contains("its change; it waits until"), "{what}");
        assert!(what.contains("another 1m30s"), "{what}");
        let mut request = sample::request(RequestState::Queued);
        request.failure = None;
        let waits = waits(RequestState::Queued, until, Vec::new());
        let said = of_request(&request, &waits, Timestamp(0));
        assert_eq!((said.len(), said[0].until), (1, until));
        let what = &said[0].what;
        assert!(what.contains("hindered it; it waits until"), "{what}");
        assert!(said[0].remedy.as_ref().unwrap().contains("skep resume"));
    }

    #[test]
    fn a_dead_holder_names_the_way_on() {
        let holder = Holder {
            process: Some(7),
            alive: false,
            deadline: Timestamp(0),
        };
        let said = held("works on it", Some(&holder), Timestamp(1));
        assert_eq!(said.what, "process 7, which has ended, had it");
        assert!(said.remedy.unwrap().contains("skep resume"));
    }

    #[test]
    fn a_place_in_the_queue_says_how_long_that_is() {
        let place = Position {
            ahead: 4,
            wait: Some(Duration::from_secs(90)),
        };
        assert_eq!(
            queued(Some(place), "to be done").what,
            "4 are before it in the queue, about 1m30s by what ran before"
        );
    }

    #[test]
    fn a_budget_that_is_used_up_says_how_to_add_to_it() {
        let total = domain::Amount {
            tokens: 10,
            ..domain::Amount::ZERO
        };
        let account = Account {
            committed: total,
            free: domain::Amount::ZERO,
            ..Account::new(total)
        };
        let said = budget(&account, "r-1", false).unwrap();
        assert!(said.remedy.unwrap().contains("skep top-up r-1"));
        assert_eq!(budget(&account, "r-1", true), None);
        assert_eq!(budget(&Account::new(total), "r-1", false), None);
    }
}
