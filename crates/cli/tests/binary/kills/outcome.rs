//! What came of a scenario, so that two runs of it can be compared.

use std::collections::BTreeMap;

use ledger::{Depth, Ledger, Options};

use crate::world::World;

/// How a request ended, and what is on the branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Each request's end, by its number of jobs.
    pub requests: Vec<String>,
    /// Each job's end, and its change's.
    pub jobs: BTreeMap<String, String>,
    /// The files on the integration branch.
    pub files: BTreeMap<String, String>,
    /// What the commits on it say, sorted: each change is there once.
    pub landed: Vec<String>,
}

/// How often the model was asked for which step of which job.
pub type Calls = BTreeMap<(Option<usize>, usize), usize>;

/// What came of it. Nothing may be left behind, and the ledger must hold.
#[track_caller]
pub fn outcome(world: &World) -> Outcome {
    world.assert_nothing_left();
    let (requests, jobs) = told(world);
    let mut files = BTreeMap::new();
    let mut landed = Vec::new();
    if world.repo.tip("skep/integration").is_some() {
        let names = world
            .repo
            .git(&["ls-tree", "-r", "--name-only", "skep/integration"]);
        for name in names.lines() {
            files.insert(name.to_owned(), world.integrated(name));
        }
        let log = world
            .repo
            .git(&["log", "--format=%s", "main..skep/integration"]);
        landed = log.lines().map(str::to_owned).collect();
        landed.sort();
    }
    Outcome {
        requests,
        jobs,
        files,
        landed,
    }
}

fn told(world: &World) -> (Vec<String>, BTreeMap<String, String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ledger = Ledger::open(Options::new(world.data())).await.unwrap();
        let mut requests = Vec::new();
        let mut jobs = BTreeMap::new();
        for (n, request) in ledger
            .requests(100, None)
            .await
            .unwrap()
            .iter()
            .rev()
            .enumerate()
        {
            requests.push(request.state.to_string());
            let changes = ledger.changes_of(request.id).await.unwrap();
            for job in ledger.jobs(request.id).await.unwrap() {
                let change = changes.iter().find(|it| it.job == job.id);
                let change = change.map_or_else(String::new, |it| format!(", {}", it.state));
                jobs.insert(
                    format!("{n} {}", job.spec.name),
                    format!("{}{change}", job.state),
                );
            }
        }
        let violations = ledger.check_to(Depth::Blobs, |_| {}).await.unwrap();
        ledger.close().await;
        assert!(violations.is_empty(), "{violations:#?}");
        (requests, jobs)
    })
}

/// How often the model was asked for what.
pub fn calls(world: &World) -> Calls {
    let mut calls = Calls::new();
    for request in world.model.conversations() {
        *calls.entry((request.job, request.step)).or_default() += 1;
    }
    calls
}

/// Asserts that no call was made more often than so, nor all of them together.
#[track_caller]
pub fn assert_no_call_twice(calls: &Calls, without: &Calls, repeats: usize, more: usize) {
    for (at, count) in calls {
        let before = without.get(at).copied().unwrap_or_default();
        assert!(
            *count <= before + repeats,
            "the call {at:?} was made {count} times, {before} without a kill"
        );
    }
    let (all, before) = (
        calls.values().sum::<usize>(),
        without.values().sum::<usize>(),
    );
    assert!(
        all <= before + more,
        "{all} calls, {before} without a kill: {calls:?}, {without:?}"
    );
}
