//! `skep run` on real repositories whose own tests are the checks, over both protocols.

use std::path::Path;

use testkit::models::{Dialect, Hold, Job, Script, Step};
use testkit::{Repo, leaks};

use crate::world::{self, DEADLINE, PROMPT, Told, World, before, outside};

/// What the agent runs to find out what it can see: its environment, and that of every process.
const LOOK: &str = "env; id -u; for it in /proc/[0-9]*; do \
    tr '\\0' '\\n' < $it/environ; tr '\\0' '\\n' < $it/cmdline; done 2>/dev/null; echo LOOKED";

/// Runs a request on a repository, with every promise about the repository and the key.
fn lands(dialect: Dialect, repo: Repo, mend: &str, checks: &[&str]) -> (World, Told) {
    let hold = Hold::new();
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(LOOK))
            .step(Step::shell(mend).held_by(&hold))
            .step(Step::say("It is mended.")),
    );
    let world = World::new(dialect, repo, script);
    let was = before(&world.repo);
    let running = world.start(&["run", "--json", "--plan", "none", PROMPT]);
    // While the model thinks, the sandbox stands: the only process that holds the key is the one
    // that the user gave it to.
    let asked = world.model.wait_for(DEADLINE, |it| it.step == 1);
    let holders: Vec<_> = leaks::processes_holding(&world.key)
        .into_iter()
        .filter(|it| it.pid != running.pid())
        .collect();
    assert!(holders.is_empty(), "the key is seen by {holders:?}");
    let inside: Vec<_> = leaks::processes_of(&world.data())
        .into_iter()
        .filter(|it| it.pid != running.pid())
        .collect();
    assert!(!inside.is_empty(), "there is a sandbox");
    hold.release();
    let told = Told::of(running.finish(DEADLINE).expect_code(0));
    let seen = asked.text();
    assert!(seen.contains("LOOKED"), "the agent looked around: {seen}");
    for name in ["API_KEY", "BASE_URL", "SKEP_"] {
        assert!(!seen.contains(name), "the agent saw {name}: {seen}");
    }
    for check in checks {
        let verdicts = told.verdicts(check);
        assert!(
            !verdicts.is_empty() && verdicts.iter().all(|it| it == "passed"),
            "{check}: {verdicts:?}\n{}",
            told.ran.stdout
        );
    }
    was.assert_only_integration(&world.repo.snapshot());
    world.assert_no_secret(&[&told.ran]);
    world.assert_nothing_left();
    (world, told)
}

/// Asserts that a command fails in the user's tree and succeeds on what was integrated.
fn is_mended(world: &World, argv: &[&str]) {
    let (passes, said) = outside(world.repo.path(), argv);
    assert!(!passes, "the tests fail before: {said}");
    let tree = world.home.root().join("tmp").join("integrated");
    world::checkout(&world.repo, &tree);
    let (passes, said) = outside(&tree, argv);
    assert!(passes, "the tests pass on skep/integration: {said}");
}

fn python() -> Repo {
    let repo = Repo::new();
    repo.file("words/__init__.py", "")
        .file(
            "words/count.py",
            "def count(text):\n    return len(text.split(' '))\n",
        )
        .file("tests/__init__.py", "")
        .file(
            "tests/test_count.py",
            "import unittest\n\nfrom words.count import count\n\n\n\
             class Count(unittest.TestCase):\n    \
             def test_spaces_are_no_words(self):\n        \
             self.assertEqual(count(' one  two '), 2)\n",
        )
        .file(".gitignore", "__pycache__/\n")
        .file(
            "skep.toml",
            "[[check]]\nname = \"unittest\"\ncommand = \"python3 -m unittest\"\n",
        );
    repo.commit("Count words, wrongly");
    repo
}

const MEND_PYTHON: &str =
    "python3 -m unittest; sed -i \"s/split(' ')/split()/\" words/count.py && python3 -m unittest";

fn node() -> Repo {
    let repo = Repo::new();
    repo.file(
        "package.json",
        "{\n  \"name\": \"words\",\n  \"version\": \"1.0.0\",\n  \"private\": true,\n  \
         \"scripts\": { \"test\": \"node --test\" }\n}\n",
    )
    .file(
        "count.js",
        "exports.count = (text) => text.split(\" \").length;\n",
    )
    .file(
        "test/count.test.js",
        "const test = require(\"node:test\");\nconst assert = require(\"node:assert\");\n\
         const { count } = require(\"../count.js\");\n\n\
         test(\"spaces are no words\", () => assert.equal(count(\" one  two \"), 2));\n",
    )
    .file(
        "skep.toml",
        "[[check]]\nname = \"node\"\ncommand = \"node --test\"\n\n\
         [[check]]\nname = \"npm\"\ncommand = \"npm test\"\n",
    );
    repo.commit("Count words, wrongly");
    repo
}

const MEND_NODE: &str =
    "npm test; sed -i 's/text.split(\" \")/text.trim().split(\\/\\\\s+\\/)/' count.js && npm test";

fn rust() -> Repo {
    let repo = Repo::new();
    repo.file(
        "Cargo.toml",
        "[package]\nname = \"words\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
    )
    .file(
        "Cargo.lock",
        "version = 3\n\n[[package]]\nname = \"words\"\nversion = \"0.1.0\"\n",
    )
    .file(
        "src/lib.rs",
        "//! Words.\n\n/// How many words there are.\npub fn count(text: &str) -> usize {\n    \
         text.split(' ').count()\n}\n\n#[test]\nfn spaces_are_no_words() {\n    \
         assert_eq!(count(\" one  two \"), 2);\n}\n",
    )
    .file(".gitignore", "target/\n")
    .file(
        "skep.toml",
        "[[check]]\nname = \"cargo\"\ncommand = \"cargo test --offline\"\n",
    );
    repo.commit("Count words, wrongly");
    repo
}

const MEND_RUST: &str =
    "sed -i \"s/split(' ')/split_whitespace()/\" src/lib.rs && cargo check --offline";

/// A shallow clone of the commit of this project that is checked out, with checks of its own.
fn this_project() -> Repo {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().unwrap();
    let url = format!("file://{}", root.display());
    let repo = Repo::new();
    let fetched = repo.try_git(&["fetch", "--quiet", "--depth=1", &url, "HEAD"]);
    assert!(
        fetched.status.success(),
        "this test clones the project: run it in a git checkout of it\n{}",
        String::from_utf8_lossy(&fetched.stderr)
    );
    repo.git(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
    repo.file(
        "skep.toml",
        "[[check]]\nname = \"workspace\"\n\
         command = \"cargo metadata --offline --no-deps --format-version 1 > /dev/null\"\n\n\
         [[check]]\nname = \"script\"\ncommand = \"sh -n .ci/run\"\n\n\
         [[check]]\nname = \"sentence\"\ncommand = \"grep -q 'words of its own' CONTRIBUTING.md\"\n",
    );
    repo.commit("Say what changes must pass");
    repo
}

#[test]
fn a_python_repository_is_mended_over_chat_completions() {
    let (world, _) = lands(Dialect::Chat, python(), MEND_PYTHON, &["unittest"]);
    is_mended(&world, &["python3", "-B", "-m", "unittest"]);
}

#[test]
fn a_python_repository_is_mended_over_messages() {
    let (world, _) = lands(Dialect::Messages, python(), MEND_PYTHON, &["unittest"]);
    is_mended(&world, &["python3", "-B", "-m", "unittest"]);
}

#[test]
fn a_node_repository_is_mended_over_chat_completions() {
    let (world, _) = lands(Dialect::Chat, node(), MEND_NODE, &["node", "npm"]);
    is_mended(&world, &["node", "--test"]);
}

#[test]
fn a_node_repository_is_mended_over_messages() {
    let (world, _) = lands(Dialect::Messages, node(), MEND_NODE, &["node", "npm"]);
    is_mended(&world, &["node", "--test"]);
}

#[test]
fn a_rust_repository_is_mended_over_chat_completions() {
    let (world, _) = lands(Dialect::Chat, rust(), MEND_RUST, &["cargo"]);
    assert!(world.integrated("src/lib.rs").contains("split_whitespace"));
}

#[test]
fn a_rust_repository_is_mended_over_messages() {
    let (world, _) = lands(Dialect::Messages, rust(), MEND_RUST, &["cargo"]);
    assert!(world.integrated("src/lib.rs").contains("split_whitespace"));
}

#[test]
fn this_project_itself_is_worked_on_over_both_protocols() {
    for dialect in [Dialect::Chat, Dialect::Messages] {
        let mend = "printf '\\nA sentence in words of its own.\\n' >> CONTRIBUTING.md";
        let checks = ["workspace", "script", "sentence"];
        let (world, _) = lands(dialect, this_project(), mend, &checks);
        assert!(
            world
                .integrated("CONTRIBUTING.md")
                .ends_with("A sentence in words of its own.\n")
        );
    }
}

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
