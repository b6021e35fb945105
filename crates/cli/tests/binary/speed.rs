//! What a person is not kept waiting for. Other programs may be busy on the machine: of three tries
//! the middle one counts.

use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use testkit::leaks::{self, Process};
use testkit::models::{Dialect, Hold, Job, Script, Step};
use testkit::{Repo, Started};

use crate::resume::assert_whole;
use crate::world::{DEADLINE, PROMPT, World, wrong_answer};

/// How often a time is taken.
const TRIES: usize = 3;

/// From the end of `skep cancel` until the agent of another process has gone.
fn cancelled(world: &World) -> Duration {
    // Short texts are kept until more comes; long ones are told at once.
    let agent = "command:sh -c 'printf \"at work %08192d\\n\" 1; sleep 100000'";
    let mut running = world.start(&["run", "--json", "--plan", "none", "--agent", agent, PROMPT]);
    running.line(DEADLINE, |it| it.contains("at work 000"));
    let own = running.pid();
    let agents: Vec<Process> = leaks::processes_of(&world.data())
        .into_iter()
        .filter(|it| it.pid != own && it.command.contains("sleep 100000"))
        .collect();
    assert!(!agents.is_empty(), "an agent is at work");
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let id = listed[0]["requests"][0]["id"].as_str().unwrap();
    world.skep(&["cancel", id]).expect_code(0);
    let begin = Instant::now();
    for agent in &agents {
        assert!(agent.ends_within(DEADLINE), "{agent:?} is still there");
    }
    let took = begin.elapsed();
    running.finish(DEADLINE).expect_code(130);
    took
}

#[test]
fn a_cancellation_from_another_process_reaches_a_running_agent_within_a_second() {
    let world = World::new(Dialect::Chat, wrong_answer(), Script::new());
    let mut times: Vec<Duration> = (0..TRIES).map(|_| cancelled(&world)).collect();
    times.sort();
    assert!(times[TRIES / 2] <= Duration::from_secs(1), "{times:?}");
    world.assert_nothing_left();
}

/// A job that writes a file once the model is let go on.
fn writes(name: &str, hold: Option<&Hold>) -> Job {
    let last = Step::say("It is written.");
    Job::on(format!("Write {name}."))
        .with_tools()
        .step(Step::shell(format!("echo {name} > {name}.txt")))
        .step(match hold {
            Some(hold) => last.held_by(hold),
            None => last,
        })
}

/// From the start of `skep resume` until so many jobs that were cut off are under way again.
fn resumed(world: &World, jobs: usize) -> (Started, Duration) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap().as_micros();
    let begin = Instant::now();
    let mut resumed = world.start(&["resume", "--json"]);
    for _ in 0..jobs {
        // What happened before is told first.
        resumed.line(DEADLINE, |line| {
            let event: Value = serde_json::from_str(line).unwrap();
            let time = u128::from(event["time"].as_u64().unwrap());
            event["type"] == "job_changed" && event["payload"]["to"] == "leased" && time >= since
        });
    }
    (resumed, begin.elapsed())
}

#[test]
fn resume_goes_on_within_two_seconds_of_its_start() {
    const FINISHED: usize = 4;
    const INTERRUPTED: usize = 3;
    let hold = Hold::new();
    let repo = Repo::new();
    repo.file("list.txt", "one\n");
    repo.commit("Nothing to check");
    let names: Vec<String> = (0..FINISHED + INTERRUPTED)
        .map(|n| format!("file{n}"))
        .collect();
    let (finished, interrupted) = names.split_at(FINISHED);
    let mut script = Script::new();
    for name in finished {
        script = script.job(writes(name, None));
    }
    for name in interrupted {
        script = script.job(writes(name, Some(&hold)));
    }
    let world = World::new(Dialect::Chat, repo, script);
    let run = |name: &String| {
        let prompt = format!("Write {name}.");
        world.start(&["run", "--json", "--plan", "none", &prompt])
    };
    for name in finished {
        run(name).finish(DEADLINE).expect_code(0);
    }
    for (name, asked) in interrupted.iter().zip(1..) {
        let mut running = run(name);
        let calls = FINISHED * 2 + asked * 2;
        world.model.wait_for_count(DEADLINE, calls);
        running.kill();
    }
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let (mut running, took) = resumed(&world, INTERRUPTED);
        running.kill();
        times.push(took);
    }
    times.sort();
    assert!(times[TRIES / 2] <= Duration::from_secs(2), "{times:?}");
    hold.release();
    world.skep(&["resume"]).expect_code(0);
    for name in &names {
        assert_eq!(
            world.integrated(&format!("{name}.txt")),
            format!("{name}\n")
        );
    }
    assert_whole(&world);
}
