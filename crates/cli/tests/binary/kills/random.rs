//! Kills at random moments, of one or more processes on one data directory, agents at work.
//!
//! A round is a repository, a data directory, one to three runs at once and up to [`KILLS`] kills.
//! What is random in it comes from its seed; when exactly a kill comes, in the machine's own time,
//! does not: whoever has ended by then is not killed, and another round makes up for it.
//! `SKEP_KILLS` and `SKEP_SEED` choose other rounds: `cargo xtask kills` sets them.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use testkit::Started;

use super::calls::Calls;
use super::outcome::outcome;
use super::row::go_on;
use super::story::{JOBS, Story, start};
use crate::dice::{Dice, wanted};
use crate::world::{DEADLINE, World};

/// The most kills of one round: fewer than the losses in a row after which a job dies.
const KILLS: usize = 4;
/// The kills of each of the two ordinary tests.
const ORDINARY: usize = 30;
/// The latest that a kill comes after the one before, in milliseconds: a run takes some two seconds.
const LATEST: u64 = 2_000;
/// How often a command is given: once more than it can be interrupted.
const COMMANDS: usize = KILLS + 1;

const STORY: Story = Story {
    policy: "[[check]]\nname = \"good\"\ncommand = \"! grep -q bad *.txt\"\n",
    command: |word, file| format!("grep -qx {word} {file} || echo {word} > {file}"),
    commands: COMMANDS,
};

/// One round, with everything that must hold after it. Says at how many moments somebody was
/// killed at work.
fn round(seed: u64) -> usize {
    let mut dice = Dice(seed);
    let requests = 1 + dice.below(3);
    eprintln!("{requests} requests; to repeat: cargo xtask kills --kills 1 --seed {seed}");
    let world = STORY.world(requests);
    let mut running: Vec<Started> = (0..requests).map(|it| start(&world, it)).collect();
    let mut kills = 0;
    for _ in 0..KILLS {
        let wait = Duration::from_millis(dice.below(LATEST));
        let victim = dice.below(running.len() as u64) as usize;
        // Whoever ends before is not killed: its end is as good a moment for the others.
        running[victim].ends_within(wait);
        let victims = match dice.below(3) {
            0 => 0..running.len(),
            _ => victim..victim + 1,
        };
        let mut killed = false;
        for mut dead in running.drain(victims) {
            if !dead.ends_within(Duration::ZERO) {
                killed |= dead.kill().signal() == Some(Signal::KILL.as_raw());
            }
        }
        kills += usize::from(killed);
        running.push(world.start(&["resume", "--json"]));
    }
    for it in running {
        it.finish(DEADLINE);
    }
    // A run that was killed before its request was there is what its user repeats.
    for request in 0..requests {
        start(&world, request).finish(DEADLINE).expect_code(0);
    }
    go_on(&world);
    assert_held(&world, requests);
    kills
}

fn assert_held(world: &World, requests: u64) {
    let (got, account) = outcome(world);
    assert_eq!(got.requests, vec!["done"; requests as usize], "{got:#?}");
    let heads = crate::world::entries(&world.repo.path().join(".git/refs/heads/skep"));
    let landed = JOBS.len() * requests as usize;
    assert_eq!(got.landed.len(), landed, "{got:#?}, {heads:?}");
    let mut without = Calls::new();
    for request in 0..requests as usize {
        for (place, (name, rounds)) in JOBS.iter().enumerate() {
            let file = format!("{request}-{name}.txt");
            assert_eq!(got.files.get(&file).map(String::as_str), Some("good\n"));
            for step in 0..rounds * (COMMANDS + 1) {
                without.insert((Some(request * JOBS.len() + place), step), 1);
            }
        }
    }
    account.assert_paid_once(&without, KILLS);
    account.assert_complete(&without);
}

/// At least so many kills, in whole rounds of seeds that follow each other: no more rounds than
/// kills.
fn rounds(first: u64, wanted: usize) {
    let mut kills = 0;
    for seed in (first..).take(wanted) {
        kills += round(seed);
        eprintln!("{kills} of {wanted} kills");
        if kills >= wanted {
            return;
        }
    }
    panic!("{wanted} rounds came to {kills} kills: the others ended before they were killed");
}

#[test]
fn killed_at_any_moment_every_request_ends_as_it_would_have() {
    let kills = wanted("SKEP_KILLS").map_or(ORDINARY, |it| it as usize);
    rounds(wanted("SKEP_SEED").unwrap_or(1), kills);
}

#[test]
fn killed_at_any_other_moment_every_request_ends_as_it_would_have() {
    // A person who chooses the kills has them in the other test.
    if wanted("SKEP_KILLS").is_none() {
        rounds(1_000, ORDINARY);
    }
}
