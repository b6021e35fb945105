//! Roles, clients and the ledger on a seeded clock, with everything going wrong.
//!
//! `cargo xtask simulate` runs many more seeds, and a single one.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what goes wrong in a test or its support ends the test"
)]

mod sim;

use sim::{Mistake, STEPS, Tally, simulate};

/// What must have happened in the seeds of each test while everything could go wrong, and at least
/// how often: what nobody does is not tried.
const LEAST: u64 = 5;
const DONE: [&str; 48] = [
    "submit",
    "submit with a file",
    "cancel a request",
    "cancel a job",
    "top up",
    "note",
    "limit",
    "pause a request",
    "resume a request",
    "pause a job",
    "resume a job",
    "put a blob",
    "collect garbage",
    "leave a blob aside",
    "prune",
    "remove a request",
    "cursor expired",
    "claim a request",
    "claim a job",
    "claim a change",
    "claim a notification",
    "settle a notification",
    "settle a notification in part",
    "tell",
    "heartbeat",
    "plan",
    "fail a request",
    "put a request back",
    "open a grant",
    "reserve",
    "call a model",
    "unreserve",
    "settle a call",
    "settle a call with its exchange",
    "start an attempt",
    "resume an attempt",
    "lose an attempt",
    "run",
    "record",
    "record a blob",
    "check",
    "settle an attempt",
    "check a change",
    "land",
    "move a branch",
    "put a change back",
    "settle a change",
    "publish",
];
const REFUSED: [&str; 6] = [
    "refused: the blob is missing",
    "refused: the key is taken",
    "refused: the call is taken",
    "refused: the lease is lost",
    "refused: it is not there",
    "refused: the budget",
];

/// Runs seeds; one that fails says so, and how to see it again.
fn run(seeds: std::ops::Range<u64>) {
    let mut all = Tally::default();
    for seed in seeds {
        match simulate(seed, STEPS, Mistake::None) {
            Ok(tally) => all.add(tally),
            Err((broken, trace)) => panic!(
                "{}\nseed {seed}: {broken}\nagain: cargo xtask simulate --from {seed} --seeds 1",
                trace.join("\n")
            ),
        }
    }
    println!("{all:#?}");
    assert!(all.amid > 0 && all.crashes > 0 && all.torn > 0 && all.stale > 0);
    for what in DONE.iter().chain(&REFUSED) {
        let times = all.did.get(what).copied().unwrap_or_default();
        assert!(times >= LEAST, "{what}: {times} times");
    }
}

macro_rules! seeds {
    ($($name:ident: $from:literal..$to:literal,)*) => {$(
        #[test]
        fn $name() {
            run($from..$to);
        }
    )*};
}

// In parts, which run side by side.
seeds! {
    nothing_is_lost_whatever_goes_wrong_in_seeds_0_to_59: 0..60,
    nothing_is_lost_whatever_goes_wrong_in_seeds_60_to_119: 60..120,
    nothing_is_lost_whatever_goes_wrong_in_seeds_120_to_179: 120..180,
    nothing_is_lost_whatever_goes_wrong_in_seeds_180_to_239: 180..240,
    nothing_is_lost_whatever_goes_wrong_in_seeds_240_to_299: 240..300,
}

/// The first seed in which a mistake is noticed, and what is said of it.
fn noticed(mistake: Mistake) -> String {
    (0..100)
        .find_map(|seed| simulate(seed, 2 * STEPS, mistake).err())
        .map_or_else(
            || panic!("nobody notices {mistake:?}"),
            |(broken, _)| broken.to_string(),
        )
}

#[test]
fn an_integrator_that_goes_on_without_its_lease_is_noticed() {
    let said = noticed(Mistake::Stubborn);
    assert!(said.contains("branch"), "{said}");
}

#[test]
fn a_branch_that_lets_an_old_lease_move_it_is_noticed() {
    let said = noticed(Mistake::Unfenced);
    assert!(said.contains("branch"), "{said}");
}

#[test]
fn a_disk_that_loses_what_was_acknowledged_is_noticed() {
    noticed(Mistake::Forgetful);
}

#[test]
fn a_blob_that_is_removed_though_something_names_it_is_noticed() {
    let said = noticed(Mistake::Careless);
    assert!(said.contains("is named and is not there"), "{said}");
}

#[test]
fn a_notification_that_nobody_was_told_is_noticed() {
    let said = noticed(Mistake::Mute);
    assert!(said.contains("never told"), "{said}");
}

#[test]
fn a_seed_runs_the_same_each_time() {
    let told =
        |seed| simulate(seed, STEPS, Mistake::None).map_err(|(broken, _)| broken.to_string());
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
}
