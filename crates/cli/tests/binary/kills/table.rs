//! Every step that a machine allows, and how a kill there is tried; and the commands that no verb
//! gives yet.

use std::collections::BTreeSet;
use std::path::Path;

use domain::machine::{Machine, steps};
use domain::{AttemptState, ChangeState, JobState, RequestState};

use super::loss::Loss;
use super::person::{Said, is_cancel};
use super::row::all;
use super::scenario::{
    INTEGRATED,
    Scenario::{self, *},
};

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
    /// A person says this from other processes, the last of which is the one that is killed. The
    /// run is stopped or was killed at this point.
    Told(Scenario, &'static str, &'static [Said]),
    /// The machine fails, so that the run comes to the step. Where earlier points are named, the
    /// process was killed there before.
    Struck(Scenario, &'static [&'static str], Loss),
}

use Way::{Killed, Struck, Told};

const fn row(step: &'static str, way: Way) -> Row {
    Row { step, way }
}

const CLAIMED: &str = "job ready leased after 1";
const PREPARING: &str = "job leased running after 1";
const RUNNING: &str = "attempt preparing running after 1";
const RUNNING_ON: &str = "attempt suspended running after 1";
const CHECKING: &str = "attempt running checking after 1";
const CHECKING_ON: &str = "attempt suspended checking after 1";

const QUEUED: &str = "request queued planning before 1";
const PLANNED: &str = "request queued planning stop 1";
const WORKING: &str = "request planning working stop 1";
const INTEGRATING: &str = "request working integrating stop 1";

const CANCEL: &[Said] = &[("cancel", None)];
const PAUSE: &[Said] = &[("pause", None)];
const RESUME: &[Said] = &[("pause", None), ("resume", None)];
const PAUSE_AND_CANCEL: &[Said] = &[("pause", None), ("cancel", None)];
const PAUSE_ONLY: &[Said] = &[("pause", Some("only"))];
const RESUME_ONLY: &[Said] = &[("pause", Some("only")), ("resume", Some("only"))];
const PAUSE_ONLY_AND_CANCEL: &[Said] = &[("pause", Some("only")), ("cancel", None)];
const PAUSE_BOTH: &[Said] = &[("pause", Some("both"))];
const RESUME_BOTH: &[Said] = &[("pause", Some("both")), ("resume", Some("both"))];

/// The steps that are reached.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("request queued planning", Killed(Plain, &[])),
    row("request queued cancelled", Told(Plain, "request queued planning before 1", CANCEL)),
    row("request planning queued", Killed(Plain, &["request queued planning after 1"])),
    row("request planning working", Killed(Planned, &[])),
    row("request planning failed", Killed(Unplanned, &[])),
    row("request planning cancelled", Told(Plain, "request queued planning stop 1", CANCEL)),
    row("request working integrating", Killed(Plain, &[])),
    row("request working done", Killed(Story, &[])),
    row("request working partial", Killed(Half, &[])),
    row("request working failed", Killed(Failing, &[])),
    row("request working cancelled", Told(Story, "request planning working stop 1", CANCEL)),
    row("request integrating done", Killed(Plain, &[])),
    row("request integrating partial", Killed(HalfConflict, &[])),
    row("request integrating failed", Killed(Conflict, &[])),
    row("request integrating cancelled", Told(Plain, "request working integrating stop 1", CANCEL)),
    row("request queued paused", Told(Plain, QUEUED, PAUSE)),
    row("request planning paused", Told(Plain, PLANNED, PAUSE)),
    row("request working paused", Told(Story, WORKING, PAUSE)),
    row("request integrating paused", Told(Plain, INTEGRATING, PAUSE)),
    row("request paused queued", Told(Plain, PLANNED, RESUME)),
    row("request paused working", Told(Story, WORKING, RESUME)),
    row("request paused cancelled", Told(Plain, WORKING, PAUSE_AND_CANCEL)),

    row("job blocked ready", Killed(Story, &[])),
    row("job blocked dead", Killed(Failing, &[])),
    row("job blocked cancelled", Told(Story, "request planning working stop 1", CANCEL)),
    row("job ready leased", Killed(Story, &[])),
    row("job ready cancelled", Told(Plain, "request planning working stop 1", CANCEL)),
    row("job leased running", Killed(Story, &[])),
    row("job leased ready", Killed(Story, &[CLAIMED])),
    row("job leased dead", Killed(Plain, &[CLAIMED; 5])),
    row("job leased cancelled", Told(Plain, "job ready leased stop 1", CANCEL)),
    row("job running checking", Killed(Story, &[])),
    row("job running ready", Killed(Story, &[RUNNING])),
    row("job running parked", Killed(Trouble, &[])),
    row("job running dead", Killed(Refused, &[])),
    row("job running cancelled", Told(Story, "attempt preparing running stop 1", CANCEL)),
    row("job checking running", Killed(Story, &[])),
    row("job checking ready", Killed(Story, &[CHECKING])),
    row("job checking delivered", Killed(Story, &[])),
    row("job checking nothing_to_do", Killed(Story, &[])),
    row("job checking dead", Killed(Failing, &[])),
    row("job checking cancelled", Told(Story, "attempt running checking stop 1", CANCEL)),
    row("job parked ready", Killed(Trouble, &[])),
    row("job parked cancelled", Told(Trouble, "job running parked stop 1", CANCEL)),
    row("job blocked paused", Told(Story, WORKING, PAUSE_BOTH)),
    row("job ready paused", Told(Plain, WORKING, PAUSE_ONLY)),
    row("job leased paused", Told(Plain, "job ready leased stop 1", PAUSE_ONLY)),
    row("job running paused", Told(Plain, "attempt preparing running stop 1", PAUSE_ONLY)),
    row("job checking paused", Told(Plain, "attempt running checking stop 1", PAUSE_ONLY)),
    row("job parked paused", Told(Trouble, "job running parked stop 1", PAUSE_ONLY)),
    row("job paused ready", Told(Plain, "attempt preparing running stop 1", RESUME_ONLY)),
    row("job paused blocked", Told(Story, WORKING, RESUME_BOTH)),
    row("job paused cancelled", Told(Plain, WORKING, PAUSE_ONLY_AND_CANCEL)),
    row("job leased parked", Struck(Taken, &[RUNNING], Loss::Blobs("job ready leased stop 1"))),
    row("job checking parked", Struck(Plain, &[],
        Loss::Workspaces("attempt running checking stop 1"))),

    row("attempt preparing running", Killed(Story, &[])),
    row("attempt preparing failed", Killed(Unready, &[])),
    row("attempt preparing cancelled", Told(Plain, "job leased running stop 1", CANCEL)),
    row("attempt preparing lost", Killed(Story, &[PREPARING])),
    row("attempt running suspended", Killed(Story, &[RUNNING])),
    row("attempt running checking", Killed(Story, &[])),
    row("attempt running failed", Killed(Refused, &[])),
    row("attempt running cancelled", Told(Plain, "attempt preparing running stop 1", CANCEL)),
    row("attempt running lost", Killed(Plain,
        &[RUNNING, RUNNING_ON, RUNNING_ON, RUNNING_ON, RUNNING_ON])),
    row("attempt suspended running", Killed(Story, &[RUNNING])),
    row("attempt suspended checking", Killed(Story, &[CHECKING])),
    row("attempt suspended cancelled", Told(Plain, RUNNING, CANCEL)),
    row("attempt suspended lost", Killed(Forgetful, &[INTEGRATED])),
    row("attempt checking running", Killed(Story, &[])),
    row("attempt checking suspended", Killed(Story, &[CHECKING])),
    row("attempt checking passed", Killed(Story, &[])),
    row("attempt checking rejected", Killed(Failing, &[])),
    row("attempt checking cancelled", Told(Plain, "attempt running checking stop 1", CANCEL)),
    row("attempt checking lost", Killed(Plain,
        &[CHECKING, CHECKING_ON, CHECKING_ON, CHECKING_ON, CHECKING_ON, CHECKING_ON])),
    row("attempt suspended failed", Struck(Taken, &[RUNNING],
        Loss::Blobs("job ready leased stop 1"))),
    row("attempt checking failed", Struck(Plain, &[],
        Loss::Workspaces("attempt running checking stop 1"))),

    row("change queued merging", Killed(Story, &[])),
    row("change queued rejected", Told(Plain, "request working integrating stop 1", CANCEL)),
    row("change merging checking", Killed(Story, &[])),
    row("change merging queued", Killed(Plain, &["change queued merging after 1"])),
    row("change merging integrated", Killed(Story, &[])),
    row("change merging conflicted", Killed(Conflict, &[])),
    row("change merging rejected", Told(Plain, "change queued merging stop 1", CANCEL)),
    row("change checking queued", Killed(Story, &["change merging checking after 1"])),
    row("change checking integrated", Killed(Story, &[])),
    row("change checking conflicted", Struck(Built, &[], Loss::Work("change merging checking stop 1"))),
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
    let texts = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../ledger/src"));
    texts.iter().any(|text| {
        text.match_indices(command).any(|(at, _)| {
            let next = text[at + command.len()..].chars().next();
            !next.is_some_and(char::is_alphanumeric)
        })
    })
}

/// The texts of the sources in a directory and below it.
fn sources(dir: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
    texts
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
    for step in ROWS.iter().map(|it| it.step) {
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
    assert!(
        is_given("AttemptCommand::Suspend"),
        "it is given in a directory below the others, which nobody looked into"
    );
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

fn is_told(way: &Way, cancelled: bool) -> bool {
    matches!(way, Told(_, _, said) if is_cancel(said) == cancelled)
}

fn is_struck(way: &Way) -> bool {
    matches!(way, Struck(..))
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

fn told(cancelled: bool) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(move |it| is_told(&it.way, cancelled))
}

fn is_whole(row: &Row) -> bool {
    row.step.starts_with("request") || row.step.starts_with("change")
}

#[test]
fn a_request_that_is_cancelled_stays_so_whenever_who_cancels_is_killed() {
    all(told(true).filter(|it| is_whole(it)));
}

#[test]
fn work_that_is_cancelled_stays_so_whenever_who_cancels_is_killed() {
    all(told(true).filter(|it| !is_whole(it)));
}

#[test]
fn a_request_that_is_paused_ends_the_same_whenever_who_pauses_or_resumes_is_killed() {
    all(told(false).filter(|it| is_whole(it)));
}

#[test]
fn a_job_that_is_paused_ends_the_same_whenever_who_pauses_or_resumes_is_killed() {
    all(told(false).filter(|it| !is_whole(it)));
}

#[test]
fn work_on_a_machine_that_fails_ends_the_same_wherever_it_is_killed_then() {
    all(ROWS.iter().filter(|it| is_struck(&it.way)));
}
