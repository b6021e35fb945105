//! `skep init` and `skep doctor`.

use serde_json::Value;
use testkit::Repo;
use testkit::models::{Dialect, Job, Script, Step};

use crate::world::{PROMPT, Told, World, mending, wrong_answer};

/// Writes a policy in a repository, and reads it as TOML: the commands of its checks.
fn checks(files: &[(&str, &str)]) -> (World, Vec<String>) {
    let repo = Repo::new();
    for (path, content) in files {
        repo.file(path, content);
    }
    repo.commit("A repository");
    let world = World::new(Dialect::Chat, repo, mending());
    let head = world.repo.head();
    world.skep(&["init"]).expect_code(0);
    assert_eq!(world.repo.head(), head);
    assert_eq!(
        world.repo.git(&["status", "--porcelain"]),
        "?? skep.toml",
        "one file is written"
    );
    let text = std::fs::read_to_string(world.repo.path().join("skep.toml")).unwrap();
    let policy: toml::Table = text.parse().unwrap();
    let commands = policy["check"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["command"].as_str().unwrap().to_owned())
        .collect();
    (world, commands)
}

/// The policy as it was written is one that a run takes and obeys.
fn is_obeyed(world: World, write: &str, commands: usize) {
    world.repo.commit("Say what changes must pass");
    world.model.set_script(
        Script::new().job(
            Job::on(PROMPT)
                .with_tools()
                .step(Step::shell(write))
                .step(Step::say("It is written.")),
        ),
    );
    let ran = world.skep(&["run", "--json", "--plan", "none", PROMPT]);
    let told = Told::of(ran.expect_code(0));
    let ran: Vec<_> = told
        .all("checked")
        .filter(|it| it["evidence"]["command"].is_string())
        .collect();
    assert!(ran.len() >= commands, "{ran:?}");
    assert!(ran.iter().all(|it| it["evidence"]["verdict"] == "passed"));
}

#[test]
fn in_a_python_repository_its_tests_become_the_check() {
    let (world, commands) = checks(&[
        (
            "pyproject.toml",
            "[project]\nname = \"words\"\nversion = \"1\"\n",
        ),
        ("words.py", "COUNT = 1\n"),
        (
            "tests/test_words.py",
            "import unittest\n\n\nclass Words(unittest.TestCase):\n    \
             def test_count(self):\n        import words\n        \
             self.assertEqual(words.COUNT, 1)\n",
        ),
        ("tests/__init__.py", ""),
        (".gitignore", "__pycache__/\n"),
    ]);
    assert!(
        commands
            .iter()
            .any(|it| it.contains("unittest") || it.contains("pytest")),
        "{commands:?}"
    );
    is_obeyed(world, "echo 'NAME = 1' >> words.py", commands.len());
}

#[test]
fn in_a_node_repository_its_test_script_becomes_the_check() {
    let (world, commands) = checks(&[
        (
            "package.json",
            "{ \"name\": \"words\", \"version\": \"1.0.0\", \
             \"scripts\": { \"test\": \"node --test\" } }\n",
        ),
        (
            "test/words.test.js",
            "require(\"node:test\")(\"it works\", () => {});\n",
        ),
    ]);
    assert!(commands.iter().any(|it| it == "npm test"), "{commands:?}");
    is_obeyed(world, "echo 'exports.name = 1;' > words.js", commands.len());
}

#[test]
fn in_a_rust_repository_cargo_test_becomes_the_check() {
    let (world, commands) = checks(&[
        (
            "Cargo.toml",
            "[package]\nname = \"words\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
        ),
        (
            "Cargo.lock",
            "version = 3\n\n[[package]]\nname = \"words\"\nversion = \"0.1.0\"\n",
        ),
        ("src/lib.rs", "//! Words.\n"),
        (".gitignore", "target/\n"),
    ]);
    assert!(
        commands.iter().any(|it| it.starts_with("cargo test")),
        "{commands:?}"
    );
    is_obeyed(world, "echo '// More.' >> src/lib.rs", commands.len());
}

#[test]
fn in_a_go_repository_go_test_becomes_the_check() {
    let (_, commands) = checks(&[
        ("go.mod", "module example.org/words\n\ngo 1.19\n"),
        ("words.go", "package words\n"),
        ("words_test.go", "package words\n"),
    ]);
    assert!(
        commands.iter().any(|it| it.contains("go test ./...")),
        "{commands:?}"
    );
}

#[test]
fn a_policy_that_is_there_is_not_written_over() {
    let world = World::new(Dialect::Chat, wrong_answer(), mending());
    let was = world.repo.snapshot();
    let refused = world.skep(&["init"]).expect_code(6);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    let printed = world.skep(&["init", "--print"]).expect_code(0);
    printed.stdout.parse::<toml::Table>().unwrap();
    was.assert_same(&world.repo.snapshot());
}

#[test]
fn doctor_says_what_works_and_what_to_do_about_the_rest() {
    let world = World::simple();
    let ran = world.skep(&["doctor", "--json"]).expect_code(0);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["works"], true);
    let findings = lines[0]["findings"].as_array().unwrap();
    for finding in findings {
        assert!(
            finding["health"] == "good" || finding["remedy"].is_string(),
            "{finding}"
        );
        assert_ne!(finding["health"], "broken", "{finding}");
    }
    let has = |area: &str, name: &str| {
        findings
            .iter()
            .any(|it| it["area"] == area && it["name"] == name && it["health"] == "good")
    };
    for (area, name) in [
        ("git", "git"),
        ("data", "data directory"),
        ("sandbox", "user namespaces"),
        ("sandbox", "seccomp filters"),
        ("toolchains", "python3"),
        ("toolchains", "node"),
        ("toolchains", "cargo"),
        ("agents", "builtin"),
        ("models", "openai"),
    ] {
        assert!(has(area, name), "{area}, {name}: {}", ran.stdout);
    }
    for name in ["overlay workspaces", "Landlock", "limits"] {
        assert!(findings.iter().any(|it| it["name"] == name), "{name}");
    }
    let text = world.skep(&["doctor"]).expect_code(0);
    assert!(
        text.stdout.contains("`skep run` works here"),
        "{}",
        text.stdout
    );
    world.assert_no_secret(&[&ran, &text]);
    world.assert_nothing_left();
}

/// The finding of this name.
fn finding<'a>(findings: &'a [Value], area: &str, name: &str) -> &'a Value {
    findings
        .iter()
        .find(|it| it["area"] == area && it["name"] == name)
        .unwrap_or_else(|| panic!("{area}, {name}: {findings:?}"))
}

/// What `doctor` finds, and the code that it ends with.
fn findings(world: &World, args: &[&str], code: i32) -> Vec<Value> {
    let mut all = vec!["doctor", "--json"];
    all.extend(args);
    let ran = world.skep(&all).expect_code(code);
    world.assert_no_secret(&[&ran]);
    let lines = ran.json_lines();
    assert_eq!(lines[0]["works"], code == 0);
    lines[0]["findings"].as_array().unwrap().clone()
}

#[test]
fn doctor_calls_a_provider_once_and_only_when_it_is_asked_to() {
    for (dialect, name) in [(Dialect::Chat, "openai"), (Dialect::Messages, "anthropic")] {
        let script = Script::new().job(Job::on("Say hello").step(Step::say("Hello.")));
        let world = World::new(dialect, wrong_answer(), script);
        let untried = findings(&world, &[], 0);
        let untried = finding(&untried, "models", name);
        let detail = untried["detail"].as_str().unwrap();
        assert!(detail.contains("configured, not tried"), "{detail}");
        assert_eq!(world.model.requests().len(), 0, "nobody was called");
        let tried = findings(&world, &["--online"], 0);
        let tried = finding(&tried, "models", name);
        assert_eq!(tried["health"], "good", "{tried}");
        let detail = tried["detail"].as_str().unwrap();
        assert!(detail.contains(" answered in "), "{detail}");
        let calls = world.model.requests();
        assert_eq!(calls.len(), 1);
        let asked: Value = serde_json::from_slice(&calls[0].body).unwrap();
        let most = ["max_tokens", "max_completion_tokens"].map(|it| asked[it].as_u64());
        assert_eq!(most.iter().flatten().collect::<Vec<_>>(), [&1], "{asked}");
    }
}

#[test]
fn doctor_says_what_is_wrong_with_a_provider_and_what_to_do() {
    let script = || Script::new().job(Job::on("Say hello").step(Step::say("Hello.")));
    let refused = World::new(Dialect::Messages, wrong_answer(), script())
        .env("ANTHROPIC_API_KEY", "sk-of-somebody-else");
    let all = findings(&refused, &["--online"], 4);
    let found = finding(&all, "models", "anthropic");
    assert_eq!(found["health"], "broken", "no other answers");
    assert!(
        found["remedy"].as_str().unwrap().contains("check the key"),
        "{found}"
    );
    // Nobody listens at the first port. The other provider answers, and one is enough.
    let other = World::new(Dialect::Messages, wrong_answer(), script())
        .env("OPENAI_API_KEY", "sk-of-nobody")
        .env("OPENAI_BASE_URL", "http://127.0.0.1:1/v1");
    let all = findings(&other, &["--online"], 0);
    assert_eq!(finding(&all, "models", "anthropic")["health"], "good");
    let found = finding(&all, "models", "openai");
    assert_eq!(found["health"], "lacking");
    assert!(
        found["detail"]
            .as_str()
            .unwrap()
            .contains("cannot be reached"),
        "{found}"
    );
    assert!(
        found["remedy"].as_str().unwrap().contains("base URL"),
        "{found}"
    );
}

#[test]
fn doctor_names_what_is_left_out_and_an_agent_that_does_not_start() {
    let world = World::simple();
    let root = world.home.file("home/pyenv/version", "9.9.9\n");
    let root = root.parent().unwrap().to_owned();
    for dir in ["shims", "versions/3.0.0/bin"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    let bin = world.home.file("home/broken/claude", "#!/bin/sh\nexit 1\n");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&bin, open).unwrap();
    let path = format!(
        "{}:{}:{}",
        root.join("shims").display(),
        bin.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let world = world.env("PATH", path).env("PYENV_ROOT", &root);
    let all = findings(&world, &[], 0);
    let left = all
        .iter()
        .find(|it| it["detail"].as_str().unwrap().contains("selects 9.9.9"))
        .unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(left["health"], "lacking");
    assert!(
        left["remedy"].as_str().unwrap().contains("install 9.9.9"),
        "{left}"
    );
    let claude = finding(&all, "agents", "claude-code");
    assert_eq!(claude["health"], "lacking");
    assert!(
        claude["remedy"]
            .as_str()
            .unwrap()
            .contains("claude --version"),
        "{claude}"
    );
}

#[test]
fn doctor_without_a_model_ends_with_4_and_names_the_demo() {
    let world = World::simple().env("OPENAI_API_KEY", "");
    let ran = world.skep(&["doctor"]).expect_code(4);
    assert!(ran.stdout.contains("skep demo"), "{}", ran.stdout);
    assert!(ran.stdout.contains("ANTHROPIC_API_KEY"), "{}", ran.stdout);
    let json = world
        .skep(&["doctor", "--json"])
        .expect_code(4)
        .json_lines();
    assert_eq!(json[0]["works"], false);
}
