//! Every step that a machine allows: how a kill there is tried, or why nothing takes it yet.

use std::collections::BTreeSet;
use std::path::Path;

use domain::machine::{Machine, steps};
use domain::{AttemptState, ChangeState, JobState, RequestState};

use super::row::all;
use super::scenario::Scenario::{self, *};

/// A step and how it is reached.
#[derive(Debug)]
pub struct Row {
    /// The machine, from where, to where.
    pub step: &'static str,
    pub way: Way,
}

/// How a step is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The scenario reaches it. Where earlier points are named, the process was killed there, and
    /// each time the next one went on.
    Killed(Scenario, &'static [&'static str]),
    /// A person cancels from another process, which is the one that is killed. The run is stopped
    /// or was killed at this point.
    Cancelled(Scenario, &'static str),
}

use Way::{Cancelled, Killed};

const fn row(step: &'static str, way: Way) -> Row {
    Row { step, way }
}

const CLAIMED: &str = "job ready leased after 1";
const PREPARING: &str = "job leased running after 1";
const RUNNING: &str = "attempt preparing running after 1";
const INTEGRATED: &str = "change merging integrated after 2";
const RUNNING_ON: &str = "attempt suspended running after 1";
const CHECKING: &str = "attempt running checking after 1";
const CHECKING_ON: &str = "attempt suspended checking after 1";

/// The steps that are reached.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("request queued planning", Killed(Plain, &[])),
    row("request queued cancelled", Cancelled(Plain, "request queued planning before 1")),
    row("request planning queued", Killed(Plain, &["request queued planning after 1"])),
    row("request planning working", Killed(Story, &[])),
    row("request planning failed", Killed(Unplanned, &[])),
    row("request planning cancelled", Cancelled(Plain, "request queued planning stop 1")),
    row("request working integrating", Killed(Plain, &[])),
    row("request working done", Killed(Story, &[])),
    row("request working partial", Killed(Half, &[])),
    row("request working failed", Killed(Failing, &[])),
    row("request working cancelled", Cancelled(Story, "request planning working stop 1")),
    row("request integrating done", Killed(Plain, &[])),
    row("request integrating partial", Killed(HalfConflict, &[])),
    row("request integrating failed", Killed(Conflict, &[])),
    row("request integrating cancelled", Cancelled(Plain, "request working integrating stop 1")),

    row("job blocked ready", Killed(Story, &[])),
    row("job blocked dead", Killed(Failing, &[])),
    row("job blocked cancelled", Cancelled(Story, "request planning working stop 1")),
    row("job ready leased", Killed(Story, &[])),
    row("job ready cancelled", Cancelled(Plain, "request planning working stop 1")),
    row("job leased running", Killed(Story, &[])),
    row("job leased ready", Killed(Story, &[CLAIMED])),
    row("job leased dead", Killed(Plain, &[CLAIMED; 5])),
    row("job leased cancelled", Cancelled(Plain, "job ready leased stop 1")),
    row("job running checking", Killed(Story, &[])),
    row("job running ready", Killed(Story, &[RUNNING])),
    row("job running parked", Killed(Trouble, &[])),
    row("job running dead", Killed(Refused, &[])),
    row("job running cancelled", Cancelled(Story, "attempt preparing running stop 1")),
    row("job checking running", Killed(Story, &[])),
    row("job checking ready", Killed(Story, &[CHECKING])),
    row("job checking delivered", Killed(Story, &[])),
    row("job checking nothing_to_do", Killed(Story, &[])),
    row("job checking dead", Killed(Failing, &[])),
    row("job checking cancelled", Cancelled(Story, "attempt running checking stop 1")),
    row("job parked ready", Killed(Trouble, &[])),
    row("job parked cancelled", Cancelled(Trouble, "job running parked stop 1")),

    row("attempt preparing running", Killed(Story, &[])),
    row("attempt preparing failed", Killed(Unrouted, &[])),
    row("attempt preparing cancelled", Cancelled(Plain, "job leased running stop 1")),
    row("attempt preparing lost", Killed(Story, &[PREPARING])),
    row("attempt running suspended", Killed(Story, &[RUNNING])),
    row("attempt running checking", Killed(Story, &[])),
    row("attempt running failed", Killed(Refused, &[])),
    row("attempt running cancelled", Cancelled(Plain, "attempt preparing running stop 1")),
    row("attempt running lost", Killed(Plain,
        &[RUNNING, RUNNING_ON, RUNNING_ON, RUNNING_ON, RUNNING_ON])),
    row("attempt suspended running", Killed(Story, &[RUNNING])),
    row("attempt suspended checking", Killed(Story, &[CHECKING])),
    row("attempt suspended cancelled", Cancelled(Plain, RUNNING)),
    row("attempt suspended lost", Killed(Forgetful, &[INTEGRATED])),
    row("attempt checking running", Killed(Story, &[])),
    row("attempt checking suspended", Killed(Story, &[CHECKING])),
    row("attempt checking passed", Killed(Story, &[])),
    row("attempt checking rejected", Killed(Failing, &[])),
    row("attempt checking cancelled", Cancelled(Plain, "attempt running checking stop 1")),
    row("attempt checking lost", Killed(Plain,
        &[CHECKING, CHECKING_ON, CHECKING_ON, CHECKING_ON, CHECKING_ON, CHECKING_ON])),

    row("change queued merging", Killed(Story, &[])),
    row("change queued rejected", Cancelled(Plain, "request working integrating stop 1")),
    row("change merging checking", Killed(Story, &[])),
    row("change merging queued", Killed(Plain, &["change queued merging after 1"])),
    row("change merging integrated", Killed(Story, &[])),
    row("change merging conflicted", Killed(Conflict, &[])),
    row("change merging rejected", Cancelled(Plain, "change queued merging stop 1")),
    row("change checking queued", Killed(Story, &["change merging checking after 1"])),
    row("change checking integrated", Killed(Story, &[])),
    row("change checking rejected", Killed(Misfit, &[])),
];

/// Commands that no verb of the ledger gives yet, and what will. Who adds the verb adds the rows.
const NO_VERB: &[(&str, &str)] = &[
    ("RequestCommand::Ask", "nothing asks a person yet"),
    ("JobCommand::Ask", "nothing asks a person yet"),
    ("JobCommand::Answer", "nothing asks a person yet"),
    ("ChangeCommand::Promote", "nothing is pushed yet"),
    ("ChangeCommand::Revert", "nothing is taken back yet"),
];

/// Steps of pausing and resuming: one transaction each, by the process of a person and not by one
/// that works. The tests of the ledger take them; no kill is tried at them yet.
const PAUSING: &[&str] = &[
    "request queued paused",
    "request planning paused",
    "request working paused",
    "request integrating paused",
    "request paused queued",
    "request paused working",
    "request paused cancelled",
    "job blocked paused",
    "job ready paused",
    "job leased paused",
    "job running paused",
    "job checking paused",
    "job parked paused",
    "job paused ready",
    "job paused blocked",
    "job paused cancelled",
];

/// Steps that the machine allows, and that the verbs that give their command do not take.
const NOT_TAKEN: &[(&str, &str)] = &[
    (
        "request paused failed",
        "what fails a request has claimed it before, and nothing paused is claimed",
    ),
    (
        "job paused dead",
        "what lets a job die holds it, or it is blocked",
    ),
    (
        "request queued failed",
        "what fails a request has claimed it before",
    ),
    (
        "request integrating working",
        "no job opens again once all have settled",
    ),
    (
        "job ready dead",
        "what lets a job die holds it, or it waits for another",
    ),
    (
        "job parked dead",
        "what lets a job die holds it, or it waits for another",
    ),
    (
        "job leased parked",
        "an attempt starts before anything can fail outside",
    ),
    (
        "job running nothing_to_do",
        "the gate is what sees that nothing changed",
    ),
    ("attempt running rejected", "the gate is what rejects"),
    (
        "change checking conflicted",
        "one process at a time merges onto a branch, so the tip stays",
    ),
];

/// Steps that only a failing machine takes (no room, no memory, a lost mirror): the tests of the
/// ledger take them.
const MACHINE_FAILS: &[&str] = &[
    "job checking parked",
    "attempt suspended failed",
    "attempt checking failed",
];

/// The machine's steps, each once, with the commands that lead there.
fn all_steps<M: Machine>() -> Vec<(String, Vec<String>)> {
    let kind = M::NAME;
    let title = format!("{}{}", kind[..1].to_uppercase(), &kind[1..]);
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (from, command, to) in steps::<M>() {
        let step = format!("{kind} {from} {to}");
        let command = format!("{title}Command::{command:?}");
        match found.iter_mut().find(|it| it.0 == step) {
            Some(known) => known.1.push(command),
            None => found.push((step, vec![command])),
        }
    }
    found
}

fn every_step() -> Vec<(String, Vec<String>)> {
    let mut every = all_steps::<RequestState>();
    every.extend(all_steps::<JobState>());
    every.extend(all_steps::<AttemptState>());
    every.extend(all_steps::<ChangeState>());
    every
}

/// Whether a verb of the ledger gives a command.
fn is_given(command: &str) -> bool {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ledger/src");
    let files = std::fs::read_dir(source).unwrap();
    let mut texts = files
        .map(|it| it.unwrap().path())
        .filter(|it| it.extension().is_some_and(|it| it == "rs"))
        .map(|it| std::fs::read_to_string(it).unwrap());
    texts.any(|text| {
        text.match_indices(command).any(|(at, _)| {
            let next = text[at + command.len()..].chars().next();
            !next.is_some_and(char::is_alphanumeric)
        })
    })
}

#[test]
fn every_step_of_a_machine_is_killed_at_or_says_why_not() {
    let no_verb = |command: &String| NO_VERB.iter().any(|it| it.0 == command);
    let every = every_step();
    // A state that only such commands lead to is one that nothing is in yet.
    let empty = |machine: &str, state: &str| {
        let beginning = [
            "request queued",
            "job blocked",
            "attempt preparing",
            "change queued",
        ];
        if beginning.contains(&format!("{machine} {state}").as_str()) {
            return false;
        }
        let mut into = every
            .iter()
            .filter(|(step, _)| step.starts_with(machine) && step.ends_with(&format!(" {state}")))
            .peekable();
        into.peek().is_some() && into.all(|(_, commands)| commands.iter().all(no_verb))
    };
    let mut known = BTreeSet::new();
    let said = NOT_TAKEN
        .iter()
        .map(|it| it.0)
        .chain(MACHINE_FAILS.iter().copied())
        .chain(PAUSING.iter().copied());
    for step in ROWS.iter().map(|it| it.step).chain(said) {
        assert!(known.insert(step), "`{step}` is there twice");
        assert!(
            every.iter().any(|it| it.0 == step),
            "no machine has `{step}`"
        );
    }
    let mut open = Vec::new();
    for (step, commands) in &every {
        let mut words = step.split(' ');
        let (machine, from) = (words.next().unwrap(), words.next().unwrap());
        let not_yet = commands.iter().all(no_verb) || empty(machine, from);
        assert!(
            !(not_yet && known.contains(step.as_str())),
            "`{step}` is reached, but said to have no verb"
        );
        if !not_yet && !known.contains(step.as_str()) {
            open.push(step);
        }
    }
    assert!(
        open.is_empty(),
        "no kill is tried at these steps: {open:#?}"
    );
}

#[test]
fn a_verb_that_takes_a_new_step_must_be_killed_there() {
    for (command, why) in NO_VERB {
        assert!(
            !is_given(command),
            "the ledger gives {command} now, so \"{why}\" is over: add its steps to the table"
        );
    }
    assert!(is_given("RequestCommand::Plan"), "the sources are found");
}

fn rows(machine: &str, fits: impl Fn(&Way) -> bool) -> impl Iterator<Item = &'static Row> {
    let rows = ROWS.iter();
    rows.filter(move |it| it.step.starts_with(machine) && fits(&it.way))
}

fn is_story(way: &Way) -> bool {
    matches!(way, Killed(Story, []))
}

fn is_story_again(way: &Way) -> bool {
    matches!(way, Killed(Story, [_, ..]))
}

fn is_small(way: &Way) -> bool {
    matches!(way, Killed(scenario, _) if *scenario != Story)
}

fn is_cancel(way: &Way) -> bool {
    matches!(way, Cancelled(..))
}

#[test]
fn a_request_is_gone_on_with_from_every_step() {
    all(rows("request", is_story));
}

#[test]
fn a_request_ends_the_same_from_every_step() {
    all(rows("request", is_small));
}

#[test]
fn a_job_is_gone_on_with_from_every_step() {
    all(rows("job", is_story));
}

#[test]
fn a_job_is_gone_on_with_from_every_step_of_the_next_process() {
    all(rows("job", is_story_again));
}

#[test]
fn a_job_ends_the_same_from_every_step() {
    all(rows("job", is_small));
}

#[test]
fn an_attempt_is_gone_on_with_from_every_step() {
    all(rows("attempt", is_story));
}

#[test]
fn an_attempt_is_gone_on_with_from_every_step_of_the_next_process() {
    all(rows("attempt", is_story_again));
}

#[test]
fn an_attempt_ends_the_same_from_every_step() {
    all(rows("attempt", is_small));
}

#[test]
fn a_change_lands_once_from_every_step() {
    all(rows("change", |way| is_story(way) || is_story_again(way)));
}

#[test]
fn a_change_ends_the_same_from_every_step() {
    all(rows("change", is_small));
}

#[test]
fn a_request_that_is_cancelled_stays_so_whenever_who_cancels_is_killed() {
    all(rows("request", is_cancel).chain(rows("change", is_cancel)));
}

#[test]
fn work_that_is_cancelled_stays_so_whenever_who_cancels_is_killed() {
    all(rows("job", is_cancel).chain(rows("attempt", is_cancel)));
}
