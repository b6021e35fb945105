//! Agents that do harm: they reach nothing but their own workspace, and that is bounded.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::Ran;
use testkit::models::{Dialect, Job, Script, Step};

use crate::world::{PROMPT, World, before, wrong_answer};

const RUN: [&str; 4] = ["run", "--plan", "none", PROMPT];

/// A model that runs these commands, one after the other, and says that it is done.
fn doing(commands: &[&str]) -> Script {
    let job = Job::on(PROMPT).with_tools();
    let job = commands
        .iter()
        .fold(job, |job, it| job.step(Step::shell(*it)));
    Script::new().job(job.step(Step::say("The answer is 42.")))
}

fn world(commands: &[&str]) -> World {
    World::new(Dialect::Chat, wrong_answer(), doing(commands))
}

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.stderr, ran.stdout)
}

/// The bytes of the files below a directory.
fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        bytes += if metadata.is_dir() {
            bytes_below(&entry.path())
        } else {
            metadata.len()
        };
    }
    bytes
}

/// The run lands the answer, and leaves nothing but the integration branch.
#[track_caller]
fn lands(commands: &[&str]) -> World {
    let world = world(commands);
    let was = before(&world.repo);
    world.skep(&RUN).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_eq!(world.integrated("other.txt"), "kept\n");
    was.assert_only_integration(&world.repo.snapshot());
    world.assert_nothing_left();
    world
}

// docs/bad-input.md: An agent that writes nothing
#[test]
fn an_agent_that_writes_nothing_has_failed_whatever_it_says() {
    let world = world(&["true"]);
    let was = before(&world.repo);
    let ran = world.skep(&RUN).expect_code(1);
    assert!(said(&ran).contains("changed nothing"), "{}", said(&ran));
    was.assert_same(&world.repo.snapshot());
}

// docs/bad-input.md: An agent that writes outside its scope
#[test]
fn an_agent_that_writes_outside_its_scope_is_rejected_and_its_work_is_kept() {
    let world = world(&["echo 42 > answer.txt; echo mine > other.txt"]);
    let plan = world.home.file(
        "home/plan.toml",
        format!(
            "[[job]]\nname = \"answer\"\nprompt = \"{PROMPT}\"\n\
             [job.scope]\nwrite = [\"answer.txt\"]\n"
        ),
    );
    let was = before(&world.repo);
    let ran = world
        .skep(&["run", "--plan", plan.to_str().unwrap()])
        .expect_code(1);
    assert!(said(&ran).contains("scope"), "{}", said(&ran));
    was.assert_same(&world.repo.snapshot());
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let id = listed[0]["requests"][0]["id"].as_str().unwrap();
    let shown = world.skep(&["show", id]).expect_code(0);
    assert!(shown.stdout.contains("other.txt"), "{}", shown.stdout);
}

// docs/bad-input.md: An agent that deletes `.git`
// docs/bad-input.md: An agent that makes `.git` a link
#[test]
fn an_agent_that_deletes_its_repository_or_links_it_elsewhere_reaches_nothing_of_the_users() {
    lands(&["rm -rf .git; echo 42 > answer.txt"]);
    lands(&["rm -rf .git; ln -s / .git; echo 42 > answer.txt"]);
    lands(&["rm -rf .git; ln -s ../../repo/other.txt .git; echo 42 > answer.txt"]);
    // A repository of its own with hooks is no more than a directory.
    lands(&[
        "rm -rf .git; git init -q; echo 'touch tripped' > .git/hooks/post-checkout; \
         chmod +x .git/hooks/post-checkout; echo 42 > answer.txt",
    ]);
}

// docs/bad-input.md: An agent that forks without end
#[test]
fn an_agent_that_multiplies_is_bounded_and_nothing_of_it_is_left() {
    lands(&["f() { f | f & }; f; sleep 1", "echo 42 > answer.txt"]);
}

// docs/bad-input.md: An agent that prints a gigabyte
#[test]
fn a_gigabyte_of_output_is_told_in_part_and_kept_in_part() {
    let began = Instant::now();
    let world = lands(&["head -c 1000000000 /dev/zero; echo 42 > answer.txt"]);
    assert!(began.elapsed() < Duration::from_secs(60));
    let told = world.model.conversations();
    assert!(told.iter().all(|it| it.body.len() < 1 << 20));
    assert!(bytes_below(&world.data()) < 32 << 20, "and kept in part");
}
