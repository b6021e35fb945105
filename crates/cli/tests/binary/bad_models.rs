//! Models that answer badly: what can pass by itself is tried again, the rest is said.

use std::fs;
use std::time::Duration;

use testkit::models::{Dialect, Fault, Job, Script, Step};

use crate::world::{DEADLINE, PROMPT, World, before, mending, wrong_answer};

const RUN: [&str; 4] = ["run", "--plan", "none", PROMPT];
/// How often a job is tried that failed for a reason from outside.
const ATTEMPTS: usize = 3;
/// How often the built-in agent asks in each of them.
const TRIES: usize = 6;

/// A failure that asks to be tried again at once, so that no test waits.
fn at_once(status: u16, kind: &str) -> Fault {
    let body = format!(
        "{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"not today\"}}}}"
    );
    Fault::Response {
        status,
        headers: vec![("retry-after-ms".into(), "1".into())],
        content_type: "application/json".into(),
        body: body.into_bytes(),
    }
}

/// Runs against a model that does nothing else: it is asked so often, the run fails with these
/// words, and nothing is changed or left.
#[track_caller]
fn fails(dialect: Dialect, fault: Fault, asked: usize, words: &[&str]) {
    let script = Script::new().otherwise(Step::fault(fault));
    fails_in(&World::new(dialect, wrong_answer(), script), asked, words);
}

/// The same in a world that is there.
#[track_caller]
fn fails_in(world: &World, asked: usize, words: &[&str]) {
    let was = before(&world.repo);
    let ran = world.skep(&RUN).expect_code(1);
    let request = newest(world);
    let shown = world.skep(&["show", &request, "--json"]).expect_code(0);
    let shown = &shown.json_lines()[0];
    assert_eq!(shown["request"]["state"], "failed", "{shown}");
    assert_eq!(shown["jobs"][0]["job"]["state"], "dead", "{shown}");
    for word in words {
        assert!(
            ran.stdout.contains(word) || ran.stderr.contains(word),
            "`{word}` in {ran:?}"
        );
    }
    assert_eq!(world.model.conversations().len(), asked);
    was.assert_same(&world.repo.snapshot());
    world.assert_nothing_left();
    world.assert_no_secret(&[&ran]);
    // Nothing is lost: the same request is tried again once the model works.
    world.model.set_script(mending());
    world.skep(&["retry", &request]).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

/// The newest request.
fn newest(world: &World) -> String {
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    listed[0]["requests"][0]["id"].as_str().unwrap().to_owned()
}

// docs/bad-input.md: A model that answers 403
#[test]
fn a_key_that_may_not_use_the_model_is_said_and_not_tried_again() {
    for dialect in [Dialect::Chat, Dialect::Messages] {
        fails(dialect, Fault::Status(403), 1, &["403"]);
    }
}

// docs/bad-input.md: A model that answers 500
// docs/bad-input.md: A model that answers 529
#[test]
fn a_provider_that_fails_is_asked_again_and_again_before_that_is_said() {
    fails(
        Dialect::Messages,
        at_once(500, "api_error"),
        ATTEMPTS * TRIES,
        &["500", "not today"],
    );
    fails(
        Dialect::Messages,
        at_once(529, "overloaded_error"),
        ATTEMPTS * TRIES,
        &["529", "not today"],
    );
    fails(
        Dialect::Chat,
        at_once(500, "server_error"),
        ATTEMPTS * TRIES,
        &["500"],
    );
}

// docs/bad-input.md: A model that answers with garbage
#[test]
fn bytes_that_mean_nothing_are_said_and_not_printed() {
    fails(
        Dialect::Chat,
        Fault::Garbage,
        ATTEMPTS,
        &["not its protocol"],
    );
}

// docs/bad-input.md: A model that breaks off in mid-answer
#[test]
fn half_an_answer_is_asked_for_again_and_never_taken_for_a_whole_one() {
    for dialect in [Dialect::Chat, Dialect::Messages] {
        let script = Script::new().job(
            Job::on(PROMPT)
                .with_tools()
                .step(Step::shell("echo 42 > answer.txt").after_fault(Fault::HalfStream))
                .step(Step::say("The answer is 42.")),
        );
        let world = World::new(dialect, wrong_answer(), script);
        world.run();
        assert_eq!(world.integrated("answer.txt"), "42\n");
        assert_eq!(world.model.conversations().len(), 3);
    }
}

/// A configuration that waits no longer for a silent model.
const SILENCE: &str = "silence_timeout = \"1s\"";
/// How often the built-in agent asks when the network fails each time.
const NETWORK_TRIES: usize = 4;

/// A user who gives the model less time, and a model that misbehaves so.
fn impatient(dialect: Dialect, script: Script, times: &str) -> World {
    let world = World::new(dialect, wrong_answer(), script);
    let (name, protocol, base_url) = match dialect {
        Dialect::Chat => ("openai", "chat-completions", world.model.openai_base_url()),
        Dialect::Messages => ("anthropic", "messages", world.model.anthropic_base_url()),
    };
    let directory = world.home.config().join("skep");
    fs::create_dir_all(&directory).unwrap();
    let config = format!(
        "[providers.{name}]\ndialect = \"{protocol}\"\nbase_url = \"{base_url}\"\n\
         default_model = \"scripted\"\n{times}\n"
    );
    fs::write(directory.join("config.toml"), config).unwrap();
    world
}

fn silent(dialect: Dialect, fault: Fault) -> World {
    let script = Script::new().otherwise(Step::fault(fault));
    impatient(dialect, script, SILENCE)
}

// docs/bad-input.md: A model that never answers
#[test]
fn a_model_that_never_answers_is_given_up_and_nothing_is_lost() {
    let cases = [
        (Dialect::Chat, Fault::Never, "no answer for 1 s"),
        (
            Dialect::Messages,
            Fault::Stalled,
            "not one byte came for 1 s",
        ),
    ];
    std::thread::scope(|all| {
        for (dialect, fault, words) in cases {
            all.spawn(move || {
                let words = ["it took too long", words, "`silence_timeout`", "skep retry"];
                fails_in(&silent(dialect, fault), NETWORK_TRIES, &words);
            });
        }
    });
}

// docs/bad-input.md: A model that never answers
#[test]
fn a_model_that_is_silent_once_is_asked_again_in_the_same_attempt() {
    let step = Step::shell("echo 42 > answer.txt").after_fault(Fault::Never);
    let job = Job::on(PROMPT).with_tools().step(step);
    let script = Script::new().job(job.step(Step::say("The answer is 42.")));
    let world = impatient(Dialect::Chat, script, SILENCE);
    let told = world.run();
    assert_eq!(told.all("attempt_started").count(), 1);
    assert_eq!(world.model.conversations().len(), 3);
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

// docs/bad-input.md: A model that never answers
#[test]
fn a_run_that_is_killed_while_its_model_is_silent_goes_on_with_resume() {
    let script = Script::new().otherwise(Step::fault(Fault::Never));
    let world = World::new(Dialect::Chat, wrong_answer(), script);
    let mut running = world.start(&["run", "--plan", "none", PROMPT]);
    world.model.wait_for_count(DEADLINE, 1);
    running.kill();
    world.model.set_script(mending());
    world.skep(&["resume"]).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    world.assert_nothing_left();
}

// docs/bad-input.md: A model that sends one byte a minute
#[test]
fn a_model_that_sends_a_byte_now_and_then_is_given_up_when_its_whole_time_is_over() {
    // Never silent for long, so that only the whole time ends it.
    let drip = Step::fault(Fault::Drip(Duration::from_millis(50)));
    let script = Script::new().otherwise(drip);
    let times = "silence_timeout = \"30s\"\ncall_timeout = \"1s\"";
    let words = [
        "it took too long",
        "its answer was not over for 1 s",
        "`call_timeout`",
    ];
    std::thread::scope(|all| {
        for dialect in [Dialect::Chat, Dialect::Messages] {
            let world = impatient(dialect, script.clone(), times);
            all.spawn(move || fails_in(&world, NETWORK_TRIES, &words));
        }
    });
}

// docs/bad-input.md: Tool calls that do not parse
#[test]
fn a_model_whose_calls_make_no_sense_is_told_and_then_stopped() {
    let nonsense = || Step::call("shell", serde_json::json!({ "cmd": ["ls"] }));
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(nonsense())
            .step(nonsense())
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Chat, wrong_answer(), script);
    world.skep(&RUN).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    world.skep(&["drop"]).expect_code(0);

    let endless = (0..20).fold(Job::on(PROMPT).with_tools(), |job, _| job.step(nonsense()));
    world.model.set_script(Script::new().job(endless));
    let was = before(&world.repo);
    let asked = world.model.conversations().len();
    let ran = world.skep(&RUN).expect_code(1);
    assert!(ran.stdout.contains("repeated itself"), "{ran:?}");
    assert!(world.model.conversations().len() - asked < 10);
    was.assert_same(&world.repo.snapshot());
}
