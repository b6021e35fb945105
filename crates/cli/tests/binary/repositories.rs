//! `skep run` on a user's repository: a second round, no checks, uncommitted work, hooks.

use testkit::Repo;
use testkit::models::{Dialect, Job, Script, Step};

use crate::lands::{MEND_PYTHON, python};
use crate::world::{self, DEADLINE, PROMPT, World, before};

#[test]
fn tests_that_fail_send_the_agent_back_and_the_repair_lands() {
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo '# mended' >> words/count.py"))
            .step(Step::say("It is mended."))
            .step(Step::shell(MEND_PYTHON))
            .step(Step::say("Now it is.")),
    );
    let world = World::new(Dialect::Messages, python(), script);
    let was = before(&world.repo);
    let told = world.run();
    assert_eq!(told.verdicts("unittest"), ["failed", "passed"]);
    // The second round was told what the tests said.
    let second = world.model.wait_for(DEADLINE, |it| it.step == 2);
    assert!(second.text().contains("spaces_are_no_words"));
    was.assert_only_integration(&world.repo.snapshot());
    world.assert_no_secret(&[&told.ran]);
}

#[test]
fn what_an_agent_did_in_each_round_is_shown_apart() {
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo first > one.txt"))
            .step(Step::say("It is mended."))
            .step(Step::shell("echo second > two.txt; echo 42 > answer.txt"))
            .step(Step::say("Now it is.")),
    );
    let world = World::new(Dialect::Chat, world::wrong_answer(), script);
    let told = world.run();
    let (attempt, request, change) = (told.attempt(), told.request(), told.change());
    let round = |round: &str, id: &str| {
        let ran = world.skep(&["diff", "--round", round, id]);
        ran.expect_code(0).stdout
    };
    let first = round("1", &attempt);
    assert!(
        first.contains("+first") && !first.contains("second"),
        "{first}"
    );
    let second = round("2", &attempt);
    assert!(
        second.contains("+second") && !second.contains("first"),
        "{second}"
    );
    assert!(second.contains("+42"), "{second}");
    // The only job of a request, and the attempt of a change.
    assert_eq!(round("2", &request), second);
    assert_eq!(round("1", &change), first);
    let stat = world.skep(&["diff", "--json", "--stat", "--round", "1", &attempt]);
    let stat = stat.expect_code(0).json_lines().remove(0);
    assert_eq!(stat["files"].as_array().unwrap().len(), 1);
    let none = world
        .skep(&["diff", "--round", "3", &attempt])
        .expect_code(5);
    assert!(none.stderr.contains("no round 3"), "{}", none.stderr);
    world
        .skep(&["diff", "--round", "0", &attempt])
        .expect_code(2);
}

#[test]
fn a_repository_without_checks_works_and_says_that_nothing_was_checked() {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n");
    repo.commit("A wrong answer");
    let world = World::new(Dialect::Chat, repo, world::mending());
    let ran = world
        .skep(&["run", "--plan", "none", PROMPT])
        .expect_code(0);
    let all = format!("{}{}", ran.stderr, ran.stdout);
    assert!(all.contains("unchecked"), "{all}");
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

#[test]
fn uncommitted_work_is_named_as_not_seen_and_taken_along_when_asked() {
    let world = World::simple();
    world
        .repo
        .file("notes.txt", "mine\n")
        .file("other.txt", "changed\n");
    let was = before(&world.repo);
    let ran = world
        .skep(&["run", "--plan", "none", PROMPT])
        .expect_code(0);
    assert!(ran.stderr.contains("do not see 2 files"), "{}", ran.stderr);
    assert!(ran.stderr.contains("notes.txt") && ran.stderr.contains("other.txt"));
    assert_eq!(world.repo.read_at("skep/integration", "notes.txt"), None);
    assert_eq!(world.integrated("other.txt"), "kept\n");
    was.assert_only_integration(&world.repo.snapshot());
    world.skep(&["drop"]).expect_code(0);
    world
        .skep(&["run", "--dirty", "--plan", "none", PROMPT])
        .expect_code(0);
    assert_eq!(world.integrated("notes.txt"), "mine\n");
    assert_eq!(world.integrated("other.txt"), "changed\n");
    was.assert_only_integration(&world.repo.snapshot());
}

#[test]
fn no_hook_of_the_repository_runs_and_its_configuration_stays() {
    let world = World::simple();
    let tripped = world.home.root().join("tripped");
    world.repo.trap_hooks(&tripped);
    world
        .repo
        .config("core.fsmonitor", ".git/hooks/fsmonitor-watchman");
    world.repo.config("filter.x.clean", "touch tripped");
    let was = world.repo.snapshot();
    world.run();
    was.assert_only_integration(&world.repo.snapshot());
    assert!(!tripped.exists(), "a hook was run");
}
