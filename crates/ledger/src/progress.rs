//! What follows when something has settled, in the same transaction: jobs that waited start or
//! die, and the request goes on or ends.

use crate::{
    error::{Error, Trouble},
    queue,
    sql::{Key, all, get, id, maybe_json, one, word},
    transition,
    writer::Verb,
};
use domain::{
    ChangeState, Failure, JobId, JobState, Reason, RequestId, RequestState,
    machine::Machine,
    progress::{Dependency, Settled, request_command},
    state::{JobCommand, RequestCommand},
};
use std::collections::HashMap;

struct Node {
    job: JobId,
    settled: Settled,
    failure: Option<Failure>,
    after: Vec<JobId>,
}

/// Applies [`domain::progress`] to a request until nothing more follows.
pub(crate) fn follow(verb: &mut Verb<'_>, request: RequestId) -> Result<(), Trouble> {
    let state = one(
        verb,
        "SELECT state FROM requests WHERE id = ?1",
        [request.key()],
        |row| word::<RequestState>(row, 0),
    )?
    .ok_or_else(|| Error::missing("request", request))?;
    if state.is_terminal() {
        return Ok(());
    }
    let mut nodes = nodes(verb, request)?;
    // Each round settles at least one job that waited, so there are no more rounds than jobs.
    while release(verb, &mut nodes)? {}
    let settled: Vec<Settled> = nodes.iter().map(|node| node.settled).collect();
    if let Some(command) = request_command(state, &settled) {
        let failure = match command {
            RequestCommand::Fail => nodes.into_iter().find_map(|node| node.failure),
            _ => None,
        };
        transition::request(verb, request, command, failure)?;
    }
    queue::offer_jobs(verb, request.key())
}

fn nodes(verb: &Verb<'_>, request: RequestId) -> Result<Vec<Node>, Trouble> {
    let mut nodes = all(
        verb,
        "SELECT j.id, j.state, j.failure, c.state, c.failure FROM jobs j \
         LEFT JOIN changes c ON c.job = j.id WHERE j.request = ?1 ORDER BY j.n",
        [request.key()],
        |row| {
            let change = match get::<Option<String>>(row, 3)? {
                Some(_) => Some(word::<ChangeState>(row, 3)?),
                None => None,
            };
            Ok(Node {
                job: id(row, 0)?,
                settled: Settled {
                    job: word(row, 1)?,
                    change,
                },
                failure: match maybe_json(row, 2)? {
                    Some(failure) => Some(failure),
                    None => maybe_json(row, 4)?,
                },
                after: Vec::new(),
            })
        },
    )?;
    for node in nodes
        .iter_mut()
        .filter(|node| node.settled.job == JobState::Blocked)
    {
        node.after = all(
            verb,
            "SELECT needs FROM dependencies WHERE job = ?1 ORDER BY place",
            [node.job.key()],
            |row| id(row, 0),
        )?;
    }
    Ok(nodes)
}

/// Tells jobs that waited what has become of what they waited for. Whether any was told.
fn release(verb: &mut Verb<'_>, nodes: &mut [Node]) -> Result<bool, Trouble> {
    let known: HashMap<JobId, Dependency> = nodes
        .iter()
        .map(|node| (node.job, node.settled.as_dependency()))
        .collect();
    let mut told = false;
    for node in nodes
        .iter_mut()
        .filter(|node| node.settled.job == JobState::Blocked)
    {
        let of = |job: &JobId| known.get(job).copied().unwrap_or(Dependency::Failed);
        let failed = node
            .after
            .iter()
            .find(|job| of(job) == Dependency::Failed)
            .copied();
        let satisfied = node
            .after
            .iter()
            .all(|job| of(job) == Dependency::Satisfied);
        let (command, failure) = match failed {
            Some(job) => (
                JobCommand::Die,
                Some(Failure::new(Reason::DependencyFailed, job.to_string())),
            ),
            None if satisfied => (JobCommand::Unblock, None),
            None => continue,
        };
        node.settled.job = transition::job(verb, node.job, command, failure.clone())?;
        node.failure = failure;
        told = true;
    }
    Ok(told)
}
