//! One kill point: the run, its kill, and what the next process makes of it.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;
use testkit::{Ran, Started};

use super::outcome::{Calls, Outcome, assert_no_call_twice, calls, outcome};
use super::scenario::{Scenario, Stage};
use super::table::{Row, Way};
use crate::world::{DEADLINE, World};

/// Whether the step is durable when the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

impl When {
    fn word(self) -> &'static str {
        match self {
            When::Before => "before",
            When::After => "after",
        }
    }
}

/// What the scenarios come to without the kill in question.
#[derive(Default)]
pub struct Known(HashMap<(Scenario, Way), (Outcome, Calls)>);

/// Tries rows, before and after; every one that fails is told.
#[track_caller]
pub fn all(rows: impl IntoIterator<Item = &'static Row>) {
    let mut known = Known::default();
    let mut tried = 0;
    for row in rows {
        for when in [When::Before, When::After] {
            tried += 1;
            let began = std::time::Instant::now();
            known.kill(row, when);
            println!("{} {}: {:.1?}", row.step, when.word(), began.elapsed());
        }
    }
    assert!(tried > 0, "no row is tried");
}

/// Sends SIGKILL to itself at this point.
fn killed_at(world: &World, args: &[&str], point: &str) -> Started {
    world.start_with(args, "SKEP_KILL_AT", point)
}

#[track_caller]
fn assert_killed(ran: &Ran, point: &str) {
    assert_eq!(
        ran.status.signal(),
        Some(Signal::KILL.as_raw()),
        "`{point}` was never reached: {}\n--- stdout\n{}\n--- stderr\n{}",
        ran.status,
        ran.stdout,
        ran.stderr
    );
}

/// The run of a scenario, to its end or to where it is killed.
fn first(stage: &Stage, point: Option<&str>) -> Ran {
    let args: Vec<&str> = stage.args.iter().map(String::as_str).collect();
    let running = match point {
        Some(point) => killed_at(&stage.world, &args, point),
        None => stage.world.start(&args),
    };
    if let Some(meanwhile) = &stage.meanwhile {
        meanwhile.happen(&stage.world, DEADLINE);
    }
    running.finish(DEADLINE)
}

impl Known {
    #[track_caller]
    fn kill(&mut self, row: &'static Row, when: When) {
        let point = format!("{} {} 1", row.step, when.word());
        eprintln!("killed at `{point}`, {:?}", row.way);
        match row.way {
            Way::Killed(scenario, earlier) => {
                let stage = scenario.stage();
                killed(&stage, earlier, Some(&point));
                let got = outcome(&stage.world);
                let (wanted, without) = self.without(scenario, row.way, earlier);
                assert_eq!(&got, wanted, "killed at `{point}`");
                let called = calls(&stage.world);
                // Each kill may cost the calls that were in flight; by chance it did so in what this
                // is compared with, for the earlier ones.
                let kills = earlier.len() + 1;
                let (repeats, more) = (stage.repeats * kills, stage.parallel * kills);
                assert_no_call_twice(&called, without, repeats, more);
            }
            Way::Cancelled(scenario, stopped) => cancelled(scenario, stopped, &point, when),
        }
    }

    fn without(&mut self, scenario: Scenario, way: Way, earlier: &[&str]) -> &(Outcome, Calls) {
        // A single loss changes nothing: what it comes to is what the scenario comes to.
        let (way, earlier): (Way, &[&str]) = match earlier.len() {
            0 | 1 if scenario != Scenario::Forgetful => (Way::Killed(scenario, &[]), &[]),
            _ => (way, earlier),
        };
        self.0.entry((scenario, way)).or_insert_with(|| {
            let stage = scenario.stage();
            killed(&stage, earlier, None);
            (outcome(&stage.world), calls(&stage.world))
        })
    }
}

/// A run that is killed at each of the earlier points, and the last one, each time the next
/// process goes on; then once more without a kill.
#[track_caller]
fn killed(stage: &Stage, earlier: &[&str], last: Option<&str>) {
    let mut points = earlier.iter().copied().chain(last);
    let ran = match points.next() {
        Some(point) => {
            let ran = first(stage, Some(point));
            assert_killed(&ran, point);
            ran
        }
        None => first(stage, None),
    };
    drop(ran);
    for point in points {
        let ran = killed_at(&stage.world, &["resume", "--json"], point).finish(DEADLINE);
        assert_killed(&ran, point);
    }
    go_on(&stage.world);
}

/// Goes on until nothing is left to go on with.
#[track_caller]
pub fn go_on(world: &World) {
    let ran = world.skep(&["resume", "--json"]);
    assert!(
        ran.code().is_some_and(|it| it != 101),
        "{}\n{}",
        ran.status,
        ran.stderr
    );
    let again = world.skep(&["resume", "--json"]).expect_code(0);
    assert_eq!(again.stdout, "", "nothing is left to go on with");
}

/// A run that is stopped at a point, cancelled by another process that is killed, and then by one
/// that is not; the run goes on and learns of it.
#[track_caller]
fn cancelled(scenario: Scenario, stopped: &str, point: &str, when: When) {
    let stage = scenario.stage();
    let world = &stage.world;
    let args: Vec<&str> = stage.args.iter().map(String::as_str).collect();
    let mut running = Some(killed_at(world, &args, stopped));
    if !stopped.contains(" stop ") {
        let ran = running.take().unwrap().finish(DEADLINE);
        assert_killed(&ran, stopped);
    } else if let Some(running) = running.take_if(|it| !it.stops_within(DEADLINE)) {
        let ran = running.finish(DEADLINE);
        panic!(
            "`{stopped}` was never reached\n{}\n{}",
            ran.stdout, ran.stderr
        );
    }
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let id = listed[0]["requests"][0]["id"].as_str().unwrap().to_owned();
    let ran = killed_at(world, &["cancel", &id], point).finish(DEADLINE);
    assert_killed(&ran, point);
    if when == When::Before {
        world.skep(&["cancel", &id]).expect_code(0);
    }
    if let Some(running) = running {
        running.signal(Signal::CONT);
        running.finish(DEADLINE);
    }
    go_on(world);
    let got = outcome(world);
    assert_eq!(got.requests, ["cancelled"], "{got:#?}");
    let open = [
        "ready", "leased", "running", "checking", "blocked", "parked",
    ];
    for state in got.jobs.values() {
        assert!(!open.iter().any(|it| state.contains(it)), "{got:#?}");
    }
}
