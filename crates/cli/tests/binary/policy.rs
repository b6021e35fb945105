//! What a repository's `skep.toml` asks for, a run obeys.

use testkit::Repo;
use testkit::models::{Dialect, Job, Script, Step};

use std::fs;
use std::time::Instant;

use crate::world::{DEADLINE, PROMPT, Told, World, before, entries};

fn world(policy: &str, command: &str) -> World {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n")
        .file(".gitignore", ".env.test\n.env\nmade/\n")
        .file("skep.toml", policy);
    repo.commit("A policy");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(command))
            .step(Step::say("The answer is 42.")),
    );
    World::new(Dialect::Chat, repo, script)
}

#[test]
fn an_agent_cannot_change_its_own_checks_nor_a_protected_path() {
    for path in ["skep.toml", ".github/workflows/test.yml"] {
        let world = world(
            "[[check]]\nname = \"answer\"\ncommand = \"grep -qx 42 answer.txt\"\n\
             [paths]\nprotected = [\".github/**\"]\n",
            &format!("mkdir -p .github/workflows; echo 42 > answer.txt; echo '# x' > {path}"),
        );
        let was = before(&world.repo);
        let ran = world
            .skep(&["run", "--plan", "none", PROMPT])
            .expect_code(1);
        let said = format!("{}{}", ran.stderr, ran.stdout);
        assert!(said.contains(path), "{said}");
        was.assert_same(&world.repo.snapshot());
    }
}

#[test]
fn ignored_files_that_the_policy_takes_along_are_seen_and_are_no_part_of_the_change() {
    let world = world(
        "include = [\".env.test\"]\n[[check]]\nname = \"seen\"\n\
         command = \"grep -q setting .env.test && test ! -e .env\"\n",
        "cat .env.test > answer.txt; cat .env >> answer.txt",
    );
    world
        .repo
        .file(".env.test", "setting\n")
        .file(".env", "not yours\n");
    let was = before(&world.repo);
    let told = world.run();
    assert!(told.verdicts("seen").iter().all(|it| it == "passed"));
    assert_eq!(world.integrated("answer.txt"), "setting\n");
    assert_eq!(world.repo.read_at("skep/integration", ".env.test"), None);
    was.assert_only_integration(&world.repo.snapshot());
}

#[test]
fn setup_runs_before_the_agent_and_the_checks_and_leaves_nothing_in_the_change() {
    let world = world(
        "[setup]\ncommand = \"mkdir made && echo ready > made/it\"\n\
         [[check]]\nname = \"made\"\ncommand = \"grep -qx ready made/it\"\n",
        "cp made/it answer.txt",
    );
    let told = world.run();
    assert!(told.verdicts("made").iter().all(|it| it == "passed"));
    assert_eq!(world.integrated("answer.txt"), "ready\n");
    assert_eq!(world.repo.read_at("skep/integration", "made/it"), None);
}

/// A setup that leaves another number each time that it runs.
const NUMBER: &str = "mkdir made && od -An -N8 -tx8 /dev/urandom > made/number";

/// Whether each workspace of a run was set up by an earlier setup, and the number that its agent saw.
fn numbered(told: &Told) -> (Vec<bool>, String) {
    let cached = told.all("set_up").map(|event| event["cached"] == true);
    let seen = told
        .all("agent")
        .find(|told| told["event"]["kind"] == "tool_result");
    let seen = seen.unwrap()["event"]["output"].as_str().unwrap();
    (cached.collect(), seen.to_owned())
}

#[test]
fn what_the_setup_left_serves_checks_and_later_runs_until_what_it_reads_changes() {
    let world = world(
        &format!(
            "[setup]\ncommand = \"{NUMBER}\"\ninputs = []\n\
             [[check]]\nname = \"same\"\ncommand = \"grep -rqxFf made/number --include 'n-*' .\"\n"
        ),
        "cat made/number; cp made/number n-$(date +%s%N)",
    );
    let run = || {
        let told = world.run();
        assert!(told.verdicts("same").iter().all(|it| it == "passed"));
        let (cached, number) = numbered(&told);
        assert!(
            cached.len() >= 2 && cached[1..].iter().all(|it| *it),
            "{cached:?}"
        );
        let shown = world.skep(&["show", &told.attempt()]).expect_code(0);
        let words = if cached[0] { "cached" } else { "ran, " };
        assert!(shown.stdout.contains(words), "{}", shown.stdout);
        (number, cached[0])
    };
    let (number, cached) = run();
    assert!(!cached, "nothing was there");
    world.repo.file("source.txt", "another\n");
    world.repo.commit("Another source");
    assert_eq!(run(), (number.clone(), true));
    world.repo.file("Cargo.lock", "version = 4\n");
    world.repo.commit("A lock file");
    let (other, cached) = run();
    assert!(!cached && other != number, "{other}");
}

#[test]
fn a_setup_that_is_killed_leaves_nothing_that_is_used() {
    let world = world(
        &format!("[setup]\ncommand = \"{NUMBER}; sleep 5\"\n"),
        "cat made/number; echo 42 > answer.txt",
    );
    let mut running = world.start(&["run", "--plan", "none", PROMPT]);
    let workspaces = world.data().join("workspaces");
    let number = || {
        let one = |name: String| {
            let layers = workspaces.join(name);
            let mut all = entries(&layers).into_iter();
            all.find_map(|layer| fs::read_to_string(layers.join(layer).join("made/number")).ok())
        };
        entries(&workspaces).into_iter().find_map(one)
    };
    let begin = Instant::now();
    let first = loop {
        if let Some(number) = number().filter(|number| !number.is_empty()) {
            break number;
        }
        assert!(begin.elapsed() < DEADLINE, "the setup does not run");
        std::thread::yield_now();
    };
    running.kill();
    let told = Told::of(world.skep(&["retry", "--json"]).expect_code(0));
    let (cached, second) = numbered(&told);
    assert!(!cached[0], "it was built again");
    assert_ne!(first, second);
    let left: Vec<String> = entries(&workspaces);
    assert!(
        !left.iter().any(|name| name.starts_with("setup-")),
        "{left:?}"
    );
}

#[test]
fn commits_are_from_whom_and_say_what_the_policy_asks_on_the_branch_that_it_names() {
    let world = world(
        "[integration]\nbranch = \"agents/ready\"\n\
         [commit]\nname = \"Robot\"\nemail = \"robot@example.org\"\n\
         message = \"robot: {title}\\n\\nBy {agent} with {model}.\\n\"\n",
        "echo 42 > answer.txt",
    );
    world.run();
    assert_eq!(world.repo.tip("skep/integration"), None);
    let said = world
        .repo
        .git(&["log", "-1", "--format=%an <%ae>|%cn|%B", "agents/ready"]);
    assert!(
        said.starts_with("Robot <robot@example.org>|Robot|robot: "),
        "{said}"
    );
    assert!(said.contains("By builtin with openai/"), "{said}");
    world.skep(&["apply"]).expect_code(0);
    let answer = std::fs::read_to_string(world.repo.path().join("answer.txt")).unwrap();
    assert_eq!(answer, "42\n");
}

#[test]
fn a_check_runs_only_when_the_change_touches_what_it_is_for() {
    let world = world(
        "[[check]]\nname = \"docs\"\ncommand = \"false\"\nwhen = [\"docs/**\"]\n\
         [[check]]\nname = \"answer\"\ncommand = \"grep -qx 42 answer.txt\"\nwhen = [\"*.txt\"]\n",
        "echo 42 > answer.txt",
    );
    let told: Told = world.run();
    assert!(told.verdicts("answer").iter().all(|it| it == "passed"));
    assert!(!told.verdicts("docs").iter().any(|it| it == "failed"));
}

// docs/bad-input.md: A check that hangs
#[test]
fn a_check_that_takes_too_long_is_ended_and_said() {
    let world = world(
        "[[check]]\nname = \"slow\"\ncommand = \"sleep 1000\"\ntimeout = \"1s\"\n",
        "echo 42 > answer.txt",
    );
    let ran = world
        .skep(&["run", "--plan", "none", PROMPT])
        .expect_code(1);
    let said = format!("{}{}", ran.stderr, ran.stdout);
    assert!(said.contains("slow"), "{said}");
    assert_eq!(world.repo.tip("skep/integration"), None);
    world.assert_nothing_left();
}

// docs/bad-input.md: A check that edits files
#[test]
fn what_a_check_writes_is_seen_by_the_checks_after_it_and_is_no_part_of_the_change() {
    let world = world(
        "[[check]]\nname = \"writes\"\n\
         command = \"echo spoiled > answer.txt; echo made > made.txt; rm skep.toml; rm -rf .git\"\n\
         [[check]]\nname = \"after\"\ncommand = \"grep -qx made made.txt\"\n",
        "echo 42 > answer.txt",
    );
    let was = before(&world.repo);
    let told = world.run();
    assert!(told.verdicts("after").iter().all(|it| it == "passed"));
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_eq!(world.repo.read_at("skep/integration", "made.txt"), None);
    assert!(world.integrated("skep.toml").contains("writes"));
    was.assert_only_integration(&world.repo.snapshot());
}

// docs/bad-input.md: A check that passes only sometimes
#[test]
fn a_check_that_passes_only_sometimes_counts_as_it_ran_and_every_run_is_on_record() {
    let repo = Repo::new();
    let counter = tempfile::NamedTempFile::new().unwrap();
    // Unsealed, a check can know that it ran before.
    let path = counter.path().display();
    repo.file("answer.txt", "41\n").file(
        "skep.toml",
        format!(
            "[[check]]\nname = \"moody\"\n\
             command = \"echo ran >> {path}; test $(wc -l < {path}) -ge 2\"\n"
        ),
    );
    repo.commit("A policy");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42."))
            .step(Step::say("I see nothing that is wrong.")),
    );
    let world = World::new(Dialect::Chat, repo, script);
    let ran = world
        .skep(&[
            "run",
            "--json",
            "--sandbox",
            "host",
            "--plan",
            "none",
            PROMPT,
        ])
        .expect_code(0);
    let told = Told::of(ran);
    assert_eq!(told.verdicts("moody"), ["failed", "passed"]);
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

#[test]
fn a_change_that_was_made_without_a_sandbox_is_called_unsealed_wherever_it_is_shown() {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n");
    repo.commit("A wrong answer");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Chat, repo, script);
    let plain = ["run", "--sandbox", "host", "--plan", "none", PROMPT];
    let ran = world.skep(&plain).expect_code(0);
    assert!(ran.stdout.contains("unsealed:"), "{}", ran.stdout);
    let mut shown = vec![
        world.skep(&["list"]).expect_code(0).stdout,
        world.skep(&["show"]).expect_code(0).stdout,
        world.skep(&["why"]).expect_code(0).stdout,
    ];
    let told = world.skep(&["show", "--json"]).expect_code(0).stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let text = told.to_string();
    assert!(text.contains("\"sealed\":false"), "{text}");
    let change = text.split("\"c-").nth(1).unwrap().split('"').next();
    let change = format!("c-{}", change.unwrap());
    shown.push(world.skep(&["show", &change]).expect_code(0).stdout);
    shown.push(world.skep(&["why", &change]).expect_code(0).stdout);
    for text in shown {
        assert!(text.contains("unsealed"), "{text}");
    }
    for args in [["list", "--json"], ["dead-letters", "--json"]] {
        let text = world.skep(&args).expect_code(0).stdout;
        assert!(!text.contains("\"sealed\":true"), "{text}");
    }
    let listed = world.skep(&["list", "--json"]).expect_code(0).stdout;
    assert!(listed.contains("\"sealed\":false") || listed.contains("\"sealed\": false"));
}
