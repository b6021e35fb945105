//! Everything for an ordinary user: where root runs the tests it is another one.

use std::os::unix::fs::PermissionsExt;

use testkit::Repo;
use testkit::models::{Dialect, Job, Script, Step};

use crate::world::{DEADLINE, PROMPT, Told, World, entries, mending, ordinary_home, wrong_answer};

fn world() -> World {
    World::of_ordinary_user(Dialect::Messages, wrong_answer(), mending())
}

#[test]
fn an_ordinary_user_runs_a_request_and_replays_it() {
    let world = world();
    let was = world.repo.snapshot();
    let told = world.run();
    assert_eq!(told.verdicts("answer").first().unwrap(), "passed");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    was.assert_only_integration(&world.repo.snapshot());
    world.assert_no_secret(&[&told.ran]);
    world.assert_nothing_left();
    let calls = world.model.requests().len();
    let replayed = world
        .skep(&["replay", &told.attempt(), "--times", "3", "--json"])
        .expect_code(0);
    assert_eq!(replayed.json_lines()[0]["same_tree"], true);
    assert_eq!(world.model.requests().len(), calls, "no model is called");
    world.assert_nothing_left();
}

#[test]
fn an_ordinary_user_takes_the_work_or_throws_it_away() {
    let world = world();
    world.run();
    world.skep(&["apply"]).expect_code(0);
    let answer = std::fs::read_to_string(world.repo.path().join("answer.txt")).unwrap();
    assert_eq!(answer, "42\n");
    assert_eq!(world.repo.git(&["status", "--porcelain"]), "");
    world.skep(&["drop"]).expect_code(0);
    assert_eq!(world.repo.tip("skep/integration"), None);
    world.assert_nothing_left();
}

#[test]
fn a_ledger_that_could_not_be_written_for_a_moment_can_be_again() {
    let world = world();
    world.run();
    let file = world.data().join("ledger.db");
    let mode = |mode| {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    };
    let before = entries(&world.data());
    mode(0o400);
    let refused = world.skep(&["list"]).expect_code(1);
    assert!(
        refused.stderr.contains("read-only") && refused.stderr.contains("chmod u+w"),
        "{}",
        refused.stderr
    );
    assert_eq!(entries(&world.data()), before);
    mode(0o600);
    world.skep(&["list"]).expect_code(0);
    world.skep(&["ledger", "check"]).expect_code(0);
}

#[test]
fn the_python_tests_of_an_ordinary_user_are_the_check() {
    let repo = Repo::new();
    repo.file(
        "count.py",
        "def count(text):\n    return len(text.split(' '))\n",
    )
    .file(
        "test_count.py",
        "import unittest\n\nfrom count import count\n\n\nclass Count(unittest.TestCase):\n    \
             def test_spaces(self):\n        self.assertEqual(count(' one  two '), 2)\n",
    )
    .file(
        "skep.toml",
        "[[check]]\nname = \"unittest\"\ncommand = \"python3 -B -m unittest\"\n",
    );
    repo.commit("Count words, wrongly");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo '# mended' >> count.py"))
            .step(Step::say("It is mended."))
            .step(Step::shell("sed -i \"s/split(' ')/split()/\" count.py"))
            .step(Step::say("Now it is.")),
    );
    let world = World::of_ordinary_user(Dialect::Chat, repo, script);
    let was = world.repo.snapshot();
    let told: Told = world.run();
    assert_eq!(told.verdicts("unittest"), ["failed", "passed"]);
    was.assert_only_integration(&world.repo.snapshot());
    world.assert_nothing_left();
}

#[test]
fn an_ordinary_user_sees_the_demo() {
    let (home, skep) = ordinary_home();
    let ran = home
        .run(skep, ["demo"], &home.home(), DEADLINE)
        .expect_code(0);
    assert!(
        ran.stdout.contains("skep/integration is at"),
        "{}",
        ran.stdout
    );
    assert!(!ran.left_open);
    assert_eq!(
        crate::world::entries(&home.root().join("tmp")),
        Vec::<String>::new()
    );
    testkit::leaks::assert_none(home.root());
}
