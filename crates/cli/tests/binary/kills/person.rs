//! What a person says to a run from other processes, the last of which is killed.

use rustix::process::Signal;
use serde_json::Value;
use testkit::Started;

use super::outcome::Outcome;
use super::row::{When, assert_killed, go_on, killed_at, stopped};
use super::scenario::Stage;
use crate::world::{DEADLINE, World};

/// A command, and the job that it is about; none where it is about the request.
pub type Said = (&'static str, Option<&'static str>);

/// A run that is stopped or killed at a point, and then the commands. The last of them is killed,
/// and given again where it was not done. The run learns of it and goes on, and what is paused by
/// then is resumed.
#[track_caller]
pub fn tells(stage: &Stage, at: &str, said: &[Said], point: &str, when: When) {
    let world = &stage.world;
    let args: Vec<&str> = stage.args.iter().map(String::as_str).collect();
    let run = killed_at(world, &args, at);
    let running = if at.contains(" stop ") {
        Some(stopped(run, at))
    } else {
        assert_killed(&run.finish(DEADLINE), at);
        None
    };
    let (last, earlier) = said.split_last().unwrap();
    for (command, job) in earlier {
        let id = id_of(world, *job);
        world.skep(&[command, &id]).expect_code(0);
    }
    let (command, job) = *last;
    let id = id_of(world, job);
    let ran = killed_at(world, &[command, &id], point).finish(DEADLINE);
    assert_killed(&ran, point);
    if command != "resume" && when == When::Before {
        world.skep(&[command, &id]).expect_code(0);
    }
    if command == "pause" {
        assert_eq!(state_of(world, job), "paused");
    }
    if let Some(running) = &running {
        running.signal(Signal::CONT);
    }
    if command == "pause" && job.is_none() {
        let others = world.skep(&["resume", "--json"]).expect_code(0);
        assert_eq!(others.stdout, "", "what is paused waits until it is named");
    }
    if command == "pause" || (command == "resume" && when == When::Before) {
        let ran = world.skep(&["resume", "--json", &id]);
        assert!(ran.code() == Some(0), "{}\n{}", ran.status, ran.stderr);
    }
    running.map(|it: Started| it.finish(DEADLINE));
    go_on(world);
}

/// Whether the last word was to cancel it all.
pub fn is_cancel(said: &[Said]) -> bool {
    said.last().is_some_and(|it| it.0 == "cancel")
}

/// Asserts that the request is cancelled, and that nothing of it is open.
#[track_caller]
pub fn assert_cancelled(got: &Outcome) {
    assert_eq!(got.requests, ["cancelled"], "{got:#?}");
    let open = [
        "ready", "leased", "running", "checking", "blocked", "parked", "paused",
    ];
    for state in got.jobs.values() {
        assert!(!open.iter().any(|it| state.contains(it)), "{got:#?}");
    }
}

fn shown(world: &World) -> Value {
    let ran = world.skep(&["show", "--json"]).expect_code(0);
    ran.json_lines().remove(0)
}

fn object(world: &World, job: Option<&str>) -> Value {
    let mut shown = shown(world);
    let Some(name) = job else {
        return shown["request"].take();
    };
    let jobs = shown["jobs"].as_array().unwrap().iter();
    let mut found = jobs
        .map(|it| &it["job"])
        .filter(|it| it["spec"]["name"] == name);
    found.next().unwrap().clone()
}

fn id_of(world: &World, job: Option<&str>) -> String {
    object(world, job)["id"].as_str().unwrap().to_owned()
}

fn state_of(world: &World, job: Option<&str>) -> String {
    object(world, job)["state"].as_str().unwrap().to_owned()
}
