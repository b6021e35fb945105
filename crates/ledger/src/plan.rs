//! Planning: a claimed request gets its jobs, each with a part of its budget, or fails.

use crate::{
    account,
    error::{Error, Trouble},
    lease::{self, Lease},
    ledger::Ledger,
    postpone, progress,
    queue::{self, Kind, Queue},
    read,
    sql::{Key, Sql, get, id, one, run, to_json},
    transition,
    writer::Verb,
};
use domain::{
    Amount, Failure, JobId, JobState, Micros, RequestId, SessionId,
    amount::Measure,
    budget::Refused,
    entity::Ask,
    event::{Body, PlannedJob},
    plan,
    state::RequestCommand,
};
use std::collections::BTreeMap;

impl Ledger {
    /// Gives a request its jobs, carves their budgets from what it has left, and ends the lease.
    /// The answer is the jobs in the order of the plan.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Plan`]; [`Error::Refused`] when the jobs ask for more
    /// tokens than the request has left. The lease is kept then.
    pub async fn plan_request(
        &self,
        lease: &Lease,
        plan: plan::Plan,
        note: Option<String>,
    ) -> Result<Vec<JobId>, Error> {
        let plan = plan.validated()?;
        let lease = lease.clone();
        self.write("plan a request", move |verb| {
            plan_request(verb, &lease, plan, note)
        })
        .await
    }

    /// Ends a request that could not be planned, and the lease.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn fail_request(&self, lease: &Lease, failure: Failure) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("fail a request", move |verb| {
            let request = lease.request()?;
            lease::end(verb, &lease)?;
            transition::request(verb, request, RequestCommand::Fail, Some(failure))?;
            Ok(())
        })
        .await
    }

    /// Puts a request back that cannot be planned for now, since the machine has a fault that may
    /// pass, and ends the lease. It waits longer each time; the [`crate::MAX_POSTPONED`]th time it
    /// ends with this failure instead.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn postpone_request(&self, lease: &Lease, failure: Failure) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("put a request back", move |verb| {
            let request = lease.request()?;
            lease::end(verb, &lease)?;
            postpone::request(verb, request, failure)
        })
        .await
    }
}

fn plan_request(
    verb: &mut Verb<'_>,
    lease: &Lease,
    plan: plan::Plan,
    note: Option<String>,
) -> Result<Vec<JobId>, Trouble> {
    let request = lease.request()?;
    // Its grants close first: what the planner spent is not there to be carved.
    lease::end(verb, lease)?;
    let (session, account) = one(
        verb,
        "SELECT session, account FROM requests WHERE id = ?1",
        [request.key()],
        |row| Ok((id::<SessionId>(row, 0)?, get::<i64>(row, 1)?)),
    )?
    .ok_or_else(|| Error::missing("request", request))?;
    let ask = read::request(verb, request)?.ask;
    let shares = shares(account::load(verb, account)?.free, &plan.jobs)?;

    let names: BTreeMap<String, JobId> = plan
        .jobs
        .iter()
        .map(|job| (job.name.clone(), verb.id()))
        .collect();
    let mut planned = Vec::with_capacity(plan.jobs.len());
    for (spec, share) in plan.jobs.iter().zip(shares) {
        // The plan is valid: every name is there.
        let after = spec
            .after
            .iter()
            .filter_map(|name| names.get(name).copied());
        let Some(&job) = names.get(&spec.name) else {
            continue;
        };
        let job = PlannedJob {
            job,
            name: spec.name.clone(),
            title: spec.title.clone(),
            after: after.collect(),
        };
        let account = account::carve(verb, account, share)?;
        insert(verb, request, &ask, &job, spec, account)?;
        planned.push(job);
    }
    let jobs = planned.iter().map(|planned| planned.job).collect();
    verb.event(
        session,
        Some(request),
        Body::Planned {
            request,
            jobs: planned,
            note,
        },
    );
    transition::request(verb, request, RequestCommand::Work, None)?;
    progress::follow(verb, request)?;
    Ok(jobs)
}

fn insert(
    verb: &mut Verb<'_>,
    request: RequestId,
    ask: &Ask,
    job: &PlannedJob,
    spec: &plan::Job,
    account: i64,
) -> Result<(), Trouble> {
    let state = if job.after.is_empty() {
        JobState::Ready
    } else {
        JobState::Blocked
    };
    let place = match state {
        JobState::Ready => {
            let patience = queue::patience(ask.placement.priority);
            queue::place(verb.now, patience)
        }
        _ => 0,
    };
    let queue = queue_of(verb, ask, spec)?;
    run(
        verb,
        "INSERT INTO jobs (id, request, account, state, claims, attempts, created, queue, place) \
         VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, ?7)",
        (
            job.job.key(),
            request.key(),
            account,
            state.as_str(),
            verb.now.0,
            queue,
            place,
        ),
    )?;
    let row = verb.last_insert_rowid();
    run(
        verb,
        "INSERT INTO specs (job, body) VALUES (?1, ?2)",
        (row, to_json(spec)?),
    )?;
    for (place, needs) in (0i64..).zip(&job.after) {
        run(
            verb,
            "INSERT INTO dependencies (job, place, needs) VALUES (?1, ?2, ?3)",
            (job.job.key(), place, needs.key()),
        )?;
    }
    Ok(())
}

/// The queue of a job.
pub(crate) fn queue_of(sql: &Sql, ask: &Ask, spec: &plan::Job) -> Result<i64, Trouble> {
    let model = spec.model.as_deref().or(ask.model.as_deref());
    Queue {
        kind: Kind::Job,
        repository: ask.repository.key(),
        branch: "",
        user: &ask.placement.user,
        agent: spec.agent.as_deref().unwrap_or(&ask.agent),
        provider: queue::provider(model),
        needs: &queue::needs(&ask.placement, &spec.needs)?,
        pin: ask.placement.pin.as_deref().unwrap_or_default(),
    }
    .row(sql)
}

/// What each job gets of what is free: the tokens it asks for, and of all else an equal share of
/// what nobody asks for.
fn shares(free: Amount, jobs: &[plan::Job]) -> Result<Vec<Amount>, Refused> {
    let asked = jobs
        .iter()
        .filter_map(|job| job.tokens)
        .fold(0u64, u64::saturating_add);
    if asked > free.tokens {
        return Err(Refused::Exhausted(Measure::Tokens));
    }
    let all = (jobs.len() as u64).max(1);
    let others = (jobs.iter().filter(|job| job.tokens.is_none()).count() as u64).max(1);
    let tokens = (free.tokens - asked) / others;
    Ok(jobs
        .iter()
        .map(|job| Amount {
            tokens: job.tokens.unwrap_or(tokens),
            money: Micros(free.money.0 / all),
            wall_ms: free.wall_ms / all,
            iterations: free.iterations / all,
        })
        .collect())
}
