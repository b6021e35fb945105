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
    nothing_is_lost_whatever_goes_wrong_in_seeds_0_to_29: 0..30,
    nothing_is_lost_whatever_goes_wrong_in_seeds_30_to_59: 30..60,
    nothing_is_lost_whatever_goes_wrong_in_seeds_60_to_89: 60..90,
    nothing_is_lost_whatever_goes_wrong_in_seeds_90_to_119: 90..120,
    nothing_is_lost_whatever_goes_wrong_in_seeds_120_to_149: 120..150,
    nothing_is_lost_whatever_goes_wrong_in_seeds_150_to_179: 150..180,
    nothing_is_lost_whatever_goes_wrong_in_seeds_180_to_209: 180..210,
    nothing_is_lost_whatever_goes_wrong_in_seeds_210_to_239: 210..240,
    nothing_is_lost_whatever_goes_wrong_in_seeds_240_to_269: 240..270,
    nothing_is_lost_whatever_goes_wrong_in_seeds_270_to_299: 270..300,
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
fn a_seed_runs_the_same_each_time() {
    let told =
        |seed| simulate(seed, STEPS, Mistake::None).map_err(|(broken, _)| broken.to_string());
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
}
