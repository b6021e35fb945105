//! What came of a scenario, so that two runs of it can be compared.

use std::collections::BTreeMap;

use ledger::{Depth, Ledger, Options};

use super::calls::Account;
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

/// What came of it, and what it cost. Nothing may be left behind, and the ledger must hold.
#[track_caller]
pub fn outcome(world: &World) -> (Outcome, Account) {
    world.assert_nothing_left();
    let (requests, jobs, account) = told(world);
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
    let outcome = Outcome {
        requests,
        jobs,
        files,
        landed,
    };
    (outcome, account)
}

fn told(world: &World) -> (Vec<String>, BTreeMap<String, String>, Account) {
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
        let account = Account::of(world, &ledger).await;
        let violations = ledger.check_to(Depth::Blobs, |_| {}).await.unwrap();
        ledger.close().await;
        assert!(violations.is_empty(), "{violations:#?}");
        (requests, jobs, account)
    })
}
