//! One kill point: the run, its kill, and what the next process makes of it.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;
use testkit::{Ran, Started};

use super::calls::{Account, Calls};
use super::loss::Loss;
use super::outcome::{Outcome, outcome};
use super::person;
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

/// What the scenarios come to without the kill in question, and with none at all.
#[derive(Default)]
pub struct Known {
    without: HashMap<(Scenario, Way), Outcome>,
    undisturbed: HashMap<Scenario, (Outcome, Calls)>,
}

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
pub fn killed_at(world: &World, args: &[&str], point: &str) -> Started {
    world.start_with(args, "SKEP_KILL_AT", point)
}

#[track_caller]
pub fn assert_killed(ran: &Ran, point: &str) {
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
                let (got, account) = outcome(&stage.world);
                let wanted = self.without(scenario, row.way, earlier);
                assert_eq!(&got, wanted, "killed at `{point}`");
                self.assert_paid(scenario, &got, &account, earlier.len() + 1);
            }
            Way::Told(scenario, stopped, said) => {
                let stage = scenario.stage();
                person::tells(&stage, stopped, said, &point, when);
                let (got, account) = outcome(&stage.world);
                if person::is_cancel(said) {
                    person::assert_cancelled(&got);
                } else {
                    let (wanted, _) = self.undisturbed(scenario);
                    assert_eq!(&got, wanted, "killed at `{point}`");
                }
                self.assert_paid(scenario, &got, &account, said.len());
            }
            Way::Struck(scenario, earlier, loss) => {
                let stage = scenario.stage();
                loss.strike(&stage, earlier, Some(&point));
                let (got, account) = outcome(&stage.world);
                let wanted = self.struck(scenario, row.way, earlier, loss);
                assert_eq!(&got, wanted, "killed at `{point}`");
                self.assert_paid(scenario, &got, &account, earlier.len() + 1);
            }
        }
    }

    /// A settled call is never made again, and one in flight at a kill once more at the most.
    #[track_caller]
    fn assert_paid(&mut self, scenario: Scenario, got: &Outcome, account: &Account, kills: usize) {
        let (outcome, calls) = self.undisturbed(scenario);
        account.assert_paid_once(calls, kills);
        if got == outcome {
            account.assert_complete(calls);
        }
    }

    fn without(&mut self, scenario: Scenario, way: Way, earlier: &[&str]) -> &Outcome {
        // A single loss changes nothing: what it comes to is what the scenario comes to.
        if earlier.len() < 2 {
            return &self.undisturbed(scenario).0;
        }
        self.without.entry((scenario, way)).or_insert_with(|| {
            let stage = scenario.stage();
            killed(&stage, earlier, None);
            outcome(&stage.world).0
        })
    }

    fn struck(&mut self, scenario: Scenario, way: Way, earlier: &[&str], loss: Loss) -> &Outcome {
        if loss.is_made_good() {
            return &self.undisturbed(scenario).0;
        }
        self.without.entry((scenario, way)).or_insert_with(|| {
            let stage = scenario.stage();
            loss.strike(&stage, earlier, None);
            outcome(&stage.world).0
        })
    }

    fn undisturbed(&mut self, scenario: Scenario) -> &(Outcome, Calls) {
        self.undisturbed.entry(scenario).or_insert_with(|| {
            let stage = scenario.stage();
            let first = scenario.ends_after();
            killed(&stage, first, None);
            let (outcome, account) = outcome(&stage.world);
            let calls = account.settled();
            account.assert_paid_once(&calls, first.len());
            (outcome, calls)
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

/// Waits until a process is stopped at a point.
#[track_caller]
pub fn stopped(running: Started, point: &str) -> Started {
    if running.stops_within(DEADLINE) {
        return running;
    }
    let ran = running.finish(DEADLINE);
    panic!(
        "`{point}` was never reached\n{}\n{}",
        ran.stdout, ran.stderr
    );
}
