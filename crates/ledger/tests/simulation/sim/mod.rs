//! A simulation of the ledger and of everybody who uses it, on the real engine.
//!
//! One thread and the numbers of a seed decide who does what next, what is lost, comes late or is
//! done twice, when a process ends and when the power is cut. Nothing depends on real time or on
//! the order of threads, so a seed that fails fails again.

mod actor;
mod asked;
mod blobs;
mod call;
mod client;
mod disk;
mod faults;
mod finish;
mod holders;
mod integrator;
mod keeper;
mod log;
mod look;
mod model;
mod money;
mod notifications;
mod outside;
mod pauses;
mod person;
mod planner;
mod process;
mod random;
mod reader;
mod retained;
mod spend;
mod teller;
mod tries;
mod worker;
mod world;

use std::{collections::BTreeMap, fmt};

/// How many steps a run takes before everything may come to its end.
pub(crate) const STEPS: u64 = 320;

/// Mistakes that are made on purpose, to see that they are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mistake {
    /// None.
    #[default]
    None,
    /// Integrators go on though their lease was lost, and the branch lets them.
    Stubborn,
    /// The branch lets everybody move it who knows its tip, however old the lease; and integrators
    /// stand still more often.
    Unfenced,
    /// Whoever removes what is old removes blobs that something names, too.
    Careless,
    /// What is said to be told is not.
    Mute,
    /// After the power was cut the disk has lost what was acknowledged, too.
    Forgetful,
}

/// Something that must hold and did not.
#[derive(Debug)]
pub(crate) struct Broken(String);

impl Broken {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    fn unless(holds: bool, what: impl FnOnce() -> String) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self(what())) }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<skep_ledger::Error> for Broken {
    fn from(error: skep_ledger::Error) -> Self {
        Self(format!("the ledger failed: {error}: {error:?}"))
    }
}

/// What happened in a run, to see that a simulation reaches what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Verbs and other calls that were done.
    pub(crate) calls: u64,
    /// Calls whose lease had ended.
    pub(crate) stale: u64,
    /// Changes that were integrated.
    pub(crate) integrated: u64,
    /// Of these, those that were while everything could go wrong.
    pub(crate) amid: u64,
    /// Attempts that were gone on with after their holder was lost.
    pub(crate) resumed: u64,
    /// Processes that ended.
    pub(crate) crashes: u64,
    /// Times that everything ended at once.
    pub(crate) cuts: u64,
    /// Of these, those in which a verb was half written.
    pub(crate) torn: u64,
    /// Calls of models that were made and never settled.
    pub(crate) unsettled: u64,
    /// Events of all sessions.
    pub(crate) events: u64,
    /// How often each kind of call was done while everything could go wrong, and what else is worth
    /// counting.
    pub(crate) did: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Adds another run's.
    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.stale += other.stale;
        self.integrated += other.integrated;
        self.amid += other.amid;
        self.resumed += other.resumed;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.torn += other.torn;
        self.unsettled += other.unsettled;
        self.events += other.events;
        for (what, count) in other.did {
            *self.did.entry(what).or_default() += count;
        }
    }
}

/// What a call came to, where that is worth counting.
fn came_to(
    call: &call::Call,
    answer: &Result<call::Answer, skep_ledger::Error>,
) -> Option<&'static str> {
    use skep_ledger::Error as E;
    Some(match answer {
        Ok(answer) if answer.is_empty() => return None,
        Ok(_) => call.kind(),
        Err(E::BlobMissing { .. }) => "refused: the blob is missing",
        Err(E::KeyTaken { .. }) => "refused: the key is taken",
        Err(E::CallTaken { .. }) => "refused: the call is taken",
        Err(E::Settled { .. }) => "refused: the call is over",
        Err(E::LeaseLost(_)) => "refused: the lease is lost",
        Err(E::NotFound { .. }) => "refused: it is not there",
        Err(E::Refused(_)) => "refused: the budget",
        Err(_) => return None,
    })
}

/// Runs a seed. What is answered besides a mistake is the last that happened before it.
pub(crate) fn simulate(
    seed: u64,
    steps: u64,
    mistake: Mistake,
) -> Result<Tally, (Broken, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = world::World::new(seed, mistake).await;
        let done = match world.run(steps).await {
            Ok(()) => world.finish().await,
            Err(broken) => Err(broken),
        };
        let told = match done {
            Ok(()) => Ok(world.tally()),
            Err(broken) => Err((broken, world.trace())),
        };
        world.close().await;
        told
    })
}
