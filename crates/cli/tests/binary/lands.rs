//! `skep run` on real repositories whose own tests are the checks: each agent, over each protocol
//! that it speaks, as the user who runs the tests and as an ordinary one.
//!
//! The built-in agent speaks both protocols, Claude Code only Messages. An ordinary user differs in
//! what is readable and how the sandbox is made, not in the protocol: one is enough there.

use std::path::Path;
use std::time::Duration;

use testkit::models::{Dialect, Hold, Job, Script, Step};
use testkit::{Repo, leaks};

use crate::claude_code;
use crate::world::{self, DEADLINE, PROMPT, Told, World, before, outside};

/// What the agent runs to find out what it can see: its environment, and that of every process.
const LOOK: &str = "env; id -u; for it in /proc/[0-9]*; do \
    tr '\\0' '\\n' < $it/environ; tr '\\0' '\\n' < $it/cmdline; done 2>/dev/null; echo LOOKED";

/// How long a run may take that builds a crate from nothing.
const BUILD: Duration = Duration::from_secs(300);

/// The agent that works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    BuiltIn,
    ClaudeCode,
}

/// Whose repository it is: of who runs the tests, or of an ordinary user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Running,
    Ordinary,
}

use Agent::{BuiltIn, ClaudeCode};
use User::{Ordinary, Running};

/// A repository with a mistake, what mends it, and the checks that see it.
struct Case {
    repo: Repo,
    mend: &'static str,
    checks: &'static [&'static str],
}

/// Runs a request on a repository, with every promise about the repository and the key.
fn lands(dialect: Dialect, agent: Agent, user: User, case: Case) -> World {
    let hold = Hold::new();
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(LOOK))
            .step(Step::shell(case.mend).held_by(&hold))
            .step(Step::say("It is mended.")),
    );
    let world = match user {
        Running => World::new(dialect, case.repo, script),
        Ordinary => World::of_ordinary_user(dialect, case.repo, script),
    };
    let mut args = vec!["run", "--json", "--plan", "none", PROMPT];
    let world = match agent {
        BuiltIn => world,
        ClaudeCode => {
            args.extend(["--agent", "claude-code"]);
            claude_code::with_claude(world)
        }
    };
    let was = before(&world.repo);
    let running = world.start(&args);
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
    let told = Told::of(running.finish(BUILD).expect_code(0));
    let seen = asked.text();
    assert!(seen.contains("LOOKED"), "the agent looked around: {seen}");
    // Claude Code is told an address and a word in the place of a key: neither is a secret.
    let names: &[&str] = match agent {
        BuiltIn => &["API_KEY", "BASE_URL", "SKEP_"],
        ClaudeCode => &["API_KEY=", "SKEP_"],
    };
    for name in names {
        assert!(!seen.contains(name), "the agent saw {name}: {seen}");
    }
    // The key reached the model all the same: it was put in outside.
    for request in world.model.conversations() {
        assert_eq!(request.key(), Some(world.key.as_str()));
    }
    for check in case.checks {
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
    world
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

pub fn python() -> Repo {
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

pub const MEND_PYTHON: &str =
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

/// A shallow clone of the commit of this project that is checked out. Its checks are the tests of
/// one of its crates, built from nothing without the network, and a sentence that is to be written.
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
        "[[check]]\nname = \"tests\"\ntimeout = \"10m\"\n\
         command = \"cargo test --offline --locked --package skep-dialects --lib\"\n\n\
         [[check]]\nname = \"sentence\"\ncommand = \"grep -q 'words of its own' CONTRIBUTING.md\"\n",
    );
    repo.commit("Say what changes must pass");
    repo
}

fn python_is_mended(dialect: Dialect, agent: Agent, user: User) {
    let case = Case {
        repo: python(),
        mend: MEND_PYTHON,
        checks: &["unittest"],
    };
    let world = lands(dialect, agent, user, case);
    is_mended(&world, &["python3", "-B", "-m", "unittest"]);
}

fn node_is_mended(dialect: Dialect, agent: Agent, user: User) {
    let case = Case {
        repo: node(),
        mend: MEND_NODE,
        checks: &["node", "npm"],
    };
    let world = lands(dialect, agent, user, case);
    is_mended(&world, &["node", "--test"]);
}

fn rust_is_mended(dialect: Dialect, agent: Agent, user: User) {
    let case = Case {
        repo: rust(),
        mend: MEND_RUST,
        checks: &["cargo"],
    };
    let world = lands(dialect, agent, user, case);
    assert!(world.integrated("src/lib.rs").contains("split_whitespace"));
}

fn this_project_is_worked_on(dialect: Dialect, agent: Agent) {
    let case = Case {
        repo: this_project(),
        mend: "printf '\\nA sentence in words of its own.\\n' >> CONTRIBUTING.md",
        checks: &["tests", "sentence"],
    };
    let world = lands(dialect, agent, Running, case);
    assert!(
        world
            .integrated("CONTRIBUTING.md")
            .ends_with("A sentence in words of its own.\n")
    );
}

#[test]
fn a_python_repository_is_mended_over_chat_completions() {
    python_is_mended(Dialect::Chat, BuiltIn, Running);
}

#[test]
fn a_python_repository_is_mended_over_messages() {
    python_is_mended(Dialect::Messages, BuiltIn, Running);
}

#[test]
fn a_python_repository_is_mended_by_claude_code() {
    python_is_mended(Dialect::Messages, ClaudeCode, Running);
}

#[test]
fn a_python_repository_of_an_ordinary_user_is_mended() {
    python_is_mended(Dialect::Chat, BuiltIn, Ordinary);
}

#[test]
fn a_node_repository_is_mended_over_chat_completions() {
    node_is_mended(Dialect::Chat, BuiltIn, Running);
}

#[test]
fn a_node_repository_is_mended_over_messages() {
    node_is_mended(Dialect::Messages, BuiltIn, Running);
}

#[test]
fn a_node_repository_is_mended_by_claude_code() {
    node_is_mended(Dialect::Messages, ClaudeCode, Running);
}

#[test]
fn a_node_repository_of_an_ordinary_user_is_mended() {
    node_is_mended(Dialect::Messages, BuiltIn, Ordinary);
}

#[test]
fn a_rust_repository_is_mended_over_chat_completions() {
    rust_is_mended(Dialect::Chat, BuiltIn, Running);
}

#[test]
fn a_rust_repository_is_mended_over_messages() {
    rust_is_mended(Dialect::Messages, BuiltIn, Running);
}

#[test]
fn a_rust_repository_is_mended_by_claude_code() {
    rust_is_mended(Dialect::Messages, ClaudeCode, Running);
}

#[test]
fn a_rust_repository_of_an_ordinary_user_is_mended() {
    rust_is_mended(Dialect::Chat, BuiltIn, Ordinary);
}

#[test]
fn a_node_repository_of_an_ordinary_user_is_mended_by_claude_code() {
    node_is_mended(Dialect::Messages, ClaudeCode, Ordinary);
}

#[test]
fn this_project_itself_is_worked_on_over_chat_completions() {
    this_project_is_worked_on(Dialect::Chat, BuiltIn);
}

#[test]
fn this_project_itself_is_worked_on_over_messages() {
    this_project_is_worked_on(Dialect::Messages, BuiltIn);
}

#[test]
fn this_project_itself_is_worked_on_by_claude_code() {
    this_project_is_worked_on(Dialect::Messages, ClaudeCode);
}
