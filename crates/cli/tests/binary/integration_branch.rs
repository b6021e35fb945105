//! The integration branch belongs to Skep and lies in the user's repository: what a user does to it
//! meanwhile is respected, and no integrated work is lost by it.

use std::fs;

use testkit::Repo;
use testkit::models::{Dialect, Hold, Job, Script, Step};

use crate::world::{DEADLINE, World, before, mending};

const BRANCH: &str = "skep/integration";

fn file(world: &World, name: &str) -> String {
    fs::read_to_string(world.repo.path().join(name)).unwrap_or_default()
}

/// A repository whose check is content with any answer, and the request done that mends it.
fn mended() -> World {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n")
        .file("other.txt", "kept\n")
        .file(
            "skep.toml",
            "[[check]]\nname = \"answer\"\ncommand = \"test -s answer.txt\"\n",
        );
    repo.commit("A wrong answer");
    let world = World::new(Dialect::Chat, repo, mending());
    world.run();
    world
}

/// The change of the newest request.
fn newest_change(world: &World) -> String {
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let id = listed[0]["requests"][0]["id"].as_str().unwrap().to_owned();
    let shown = world
        .skep(&["log", "--json", &id])
        .expect_code(0)
        .json_lines();
    let made = shown.iter().find(|it| it["type"] == "change_made").unwrap();
    made["payload"]["change"].as_str().unwrap().to_owned()
}

/// A second request, on another file.
fn noting() -> Script {
    Script::new().job(
        Job::on("Write a note")
            .with_tools()
            .step(Step::shell("echo new > note.txt"))
            .step(Step::say("The note is written.")),
    )
}

const NOTE: [&str; 4] = ["run", "--plan", "none", "Write a note"];

// docs/bad-input.md: `skep/integration` is checked out: `skep run`
// docs/bad-input.md: `skep/integration` is checked out: `skep apply`
#[test]
fn a_branch_that_is_checked_out_stays_and_the_work_on_it_is_kept() {
    let world = mended();
    world.repo.checkout(BRANCH);
    let was = before(&world.repo);
    world.model.set_script(noting());
    let ran = world.skep(&NOTE).expect_code(0);
    let said = format!("{}{}", ran.stderr, ran.stdout);
    assert!(said.contains("checked out"), "{said}");
    was.assert_same(&world.repo.snapshot());
    // On it, it is brought to what is integrated, and its files with it.
    world.skep(&["apply"]).expect_code(0);
    assert_eq!(file(&world, "note.txt"), "new\n");
    // And from another branch all of it is taken.
    world.repo.checkout("main");
    world.skep(&["apply"]).expect_code(0);
    assert_eq!(file(&world, "answer.txt"), "42\n");
    assert_eq!(file(&world, "note.txt"), "new\n");
}

// docs/bad-input.md: `skep/integration` is deleted
#[test]
fn a_branch_that_is_deleted_begins_anew_and_what_was_on_it_can_still_be_taken() {
    let world = mended();
    let change = newest_change(&world);
    world.repo.git(&["branch", "--quiet", "-D", BRANCH]);
    let refused = world.skep(&["apply"]).expect_code(5);
    assert!(
        refused.stderr.contains("no integrated work"),
        "{}",
        refused.stderr
    );
    world.model.set_script(noting());
    world.skep(&NOTE).expect_code(0);
    assert_eq!(world.integrated("note.txt"), "new\n");
    assert_eq!(world.integrated("answer.txt"), "41\n");
    world.skep(&["apply", &change]).expect_code(0);
    assert_eq!(file(&world, "answer.txt"), "42\n");
}

// docs/bad-input.md: `skep/integration` is moved by the user
#[test]
fn a_branch_that_a_user_moved_is_taken_as_it_is() {
    let world = mended();
    // The user adds a commit of their own, with plumbing: the branch is not checked out.
    world.repo.checkout(BRANCH);
    world.repo.file("mine.txt", "of the user\n").commit("Mine");
    world.repo.checkout("main");
    world.model.set_script(noting());
    world.skep(&NOTE).expect_code(0);
    assert_eq!(world.integrated("mine.txt"), "of the user\n");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_eq!(world.integrated("note.txt"), "new\n");
}

// docs/bad-input.md: `skep/integration` is moved while a run works
#[test]
fn a_branch_that_a_user_moves_while_a_run_works_is_never_moved_back() {
    let hold = Hold::new();
    let script = Script::new().job(
        Job::on("Write a note")
            .with_tools()
            .step(Step::shell("echo new > note.txt").held_by(&hold))
            .step(Step::say("The note is written.")),
    );
    let world = mended();
    world.model.set_script(script);
    let asked = world.model.requests().len();
    let running = world.start(&NOTE);
    world.model.wait_for_count(DEADLINE, asked + 1);
    world.repo.checkout(BRANCH);
    world.repo.file("mine.txt", "of the user\n").commit("Mine");
    world.repo.checkout("main");
    hold.release();
    running.finish(DEADLINE).expect_code(0);
    assert_eq!(world.integrated("mine.txt"), "of the user\n");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_eq!(world.integrated("note.txt"), "new\n");
}

// docs/bad-input.md: `skep/integration` has diverged from the user's branch
#[test]
fn a_branch_that_diverged_is_merged_where_that_works_and_else_named_with_its_files() {
    let world = mended();
    world
        .repo
        .file("other.txt", "changed\n")
        .commit("Elsewhere");
    world.model.set_script(noting());
    world.skep(&NOTE).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_eq!(world.integrated("other.txt"), "changed\n");
    assert_eq!(world.integrated("note.txt"), "new\n");

    let world = mended();
    world
        .repo
        .file("answer.txt", "43\n")
        .commit("The same line");
    let was = before(&world.repo);
    world.model.set_script(noting());
    let ran = world.skep(&NOTE).expect_code(1);
    let said = format!("{}{}", ran.stderr, ran.stdout);
    assert!(said.contains("answer.txt"), "{said}");
    was.assert_same(&world.repo.snapshot());
    let refused = world.skep(&["apply"]).expect_code(6);
    assert!(refused.stderr.contains("answer.txt"), "{}", refused.stderr);
    was.assert_same(&world.repo.snapshot());
    // Thrown away, the next request begins at the user's branch.
    world.skep(&["drop"]).expect_code(0);
    world.skep(&NOTE).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "43\n");
}
