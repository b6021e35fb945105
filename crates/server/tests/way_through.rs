//! A request from a prompt to the integration branch, in one process.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic
)]

use dialects::{Dialect, Prices};
use domain::{
    Amount, AttemptState, ChangeState, JobState, Reason, RequestState,
    entity::{Planning, Request, Verdict},
    event::Body,
    plan::Plan,
};
use gateway::{Providers, Secret, Settings, Times};
use skep_server::{ApplyMode, New, Node, Options};
use std::{path::Path, sync::Arc, time::Duration};
use testkit::{
    Repo,
    models::{Hold, Job, Script, Scripted, Step},
};
use tokio_util::sync::CancellationToken;

const KEY: &str = "canary-key-5d41402abc4b2a76b9719d911017c592";

struct World {
    data: tempfile::TempDir,
    model: Scripted,
}

impl World {
    fn new(script: Script) -> Self {
        Self {
            data: tempfile::tempdir().unwrap(),
            model: Scripted::with_key(script, KEY),
        }
    }

    async fn node(&self, dialect: Dialect) -> Node {
        let (name, base_url) = match dialect {
            Dialect::Messages => ("messages", self.model.anthropic_base_url()),
            Dialect::ChatCompletions => ("chat", self.model.openai_base_url()),
        };
        let settings = Settings {
            name: name.into(),
            dialects: vec![dialect],
            base_url,
            key: Some(Secret::new(KEY)),
            default_model: Some("scripted".into()),
            models: Vec::new(),
            times: Times::default(),
        };
        self.open(Providers::new([settings], Prices::default()).unwrap())
            .await
    }

    async fn open(&self, providers: Providers) -> Node {
        Node::open(Options {
            data: self.data.path().to_owned(),
            path: std::env::var_os("PATH").unwrap(),
            home: std::env::var_os("HOME").unwrap().into(),
            env: Arc::new(|name| std::env::var_os(name)),
            providers,
            default_model: None,
            sandbox: sandbox::Kind::Namespace,
            notify: Vec::new(),
            disk: skep_server::DiskBounds::default(),
            admission: ledger::Admission::default(),
        })
        .await
        .unwrap()
    }
}

fn new(path: &Path, prompt: &str) -> New {
    New {
        path: path.to_owned(),
        prompt: prompt.into(),
        planning: Planning::None,
        plan: None,
        agent: "builtin".into(),
        model: None,
        budget: None,
        dirty: false,
        parallel: 3,
        placement: domain::entity::Placement::default(),
        key: None,
        retry_of: None,
    }
}

async fn run(node: &Node, new: New) -> Request {
    let submitted = node.submit(new).await.unwrap();
    let cancel = CancellationToken::new();
    let work = node.work(submitted.request, &cancel);
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .unwrap()
        .unwrap()
}

async fn evidence(node: &Node, request: &Request) -> Vec<(String, Verdict)> {
    let events = node
        .ledger()
        .request_events(request.id, 0, 1_000)
        .await
        .unwrap();
    let checked = events.into_iter().filter_map(|event| match event.body {
        Body::Checked { evidence, .. } => Some((evidence.check, evidence.verdict)),
        _ => None,
    });
    checked.collect()
}

fn checked_repo() -> Repo {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n");
    repo.file(
        "skep.toml",
        "[[check]]\nname = \"answer\"\ncommand = \"grep -qx 42 answer.txt\"\n",
    );
    repo.commit("A wrong answer");
    repo
}

fn mend() -> Step {
    Step::shell("echo 42 > answer.txt")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_becomes_a_tested_commit_on_the_integration_branch_in_both_dialects() {
    for dialect in [Dialect::ChatCompletions, Dialect::Messages] {
        let repo = checked_repo();
        let before = repo.snapshot();
        let script = Script::new().job(
            Job::on("Mend the answer")
                .step(mend())
                .step(Step::say("The answer is 42.")),
        );
        let world = World::new(script);
        let node = world.node(dialect).await;
        let request = run(&node, new(repo.path(), "Mend the answer")).await;
        assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
        let seen = evidence(&node, &request).await;
        assert!(
            seen.contains(&("answer".into(), Verdict::Passed)),
            "{seen:?}"
        );
        let content = repo.read_at("skep/integration", "answer.txt").unwrap();
        assert_eq!(content, b"42\n");
        before.assert_only_integration(&repo.snapshot());
        let spent = node.ledger().spent(request.id).await.unwrap();
        assert!(spent.tokens > 0);
        node.close().await;
        assert_eq!(
            testkit::leaks::paths_holding(world.data.path(), KEY),
            Vec::<std::path::PathBuf>::new()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_the_checks_is_mended_in_a_second_round() {
    let repo = checked_repo();
    let script = Script::new().job(
        Job::on("Mend the answer")
            .step(Step::shell("echo 43 > answer.txt"))
            .step(Step::say("Done."))
            .step(mend())
            .step(Step::say("Now it is right.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let request = run(&node, new(repo.path(), "Mend the answer")).await;
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    let seen = evidence(&node, &request).await;
    let answers: Vec<_> = seen.iter().filter(|(name, _)| name == "answer").collect();
    assert_eq!(answers.len(), 2);
    assert_eq!(
        (answers[0].1, answers[1].1),
        (Verdict::Failed, Verdict::Passed)
    );
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_never_passes_is_rejected_and_lands_nowhere() {
    let repo = checked_repo();
    let script = Script::new().job(
        Job::on("Mend the answer")
            .step(Step::shell("echo 43 > answer.txt"))
            .step(Step::say("Done."))
            .step(Step::say("I think it is right.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let request = run(&node, new(repo.path(), "Mend the answer")).await;
    assert_eq!(request.state, RequestState::Failed);
    let jobs = node.ledger().jobs(request.id).await.unwrap();
    assert_eq!(jobs[0].state, JobState::Dead);
    let attempts = node.ledger().attempts(jobs[0].id).await.unwrap();
    assert_eq!(attempts.last().unwrap().state, AttemptState::Rejected);
    assert_eq!(repo.tip("skep/integration"), None);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_depend_start_from_what_was_integrated_and_others_merge() {
    let repo = Repo::new();
    repo.file("list.txt", "one\n\n\n\n\n\n\n\ntwo\n");
    repo.commit("A list");
    let script = Script::new()
        .job(
            Job::on("Say top")
                .step(Step::shell("sed -i '1s/.*/ONE/' list.txt"))
                .step(Step::say("top")),
        )
        .job(
            Job::on("Say end")
                .step(Step::shell("sed -i '$s/.*/TWO/' list.txt"))
                .step(Step::say("end")),
        )
        .job(
            Job::on("Count")
                .step(Step::shell("grep -c '^[A-Z]' list.txt > count.txt"))
                .step(Step::say("counted")),
        );
    let plan = Plan::from_toml(
        "[[job]]\nname='top'\nprompt='Say top'\n[[job]]\nname='end'\nprompt='Say end'\n\
         [[job]]\nname='count'\nprompt='Count'\nafter=['top','end']\n",
    )
    .unwrap();
    let world = World::new(script);
    let node = world.node(Dialect::Messages).await;
    let given = New {
        planning: Planning::Given,
        plan: Some(plan),
        ..new(repo.path(), "")
    };
    let request = run(&node, given).await;
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    let count = repo.read_at("skep/integration", "count.txt").unwrap();
    assert_eq!(count, b"2\n");
    let changes = node.ledger().changes_of(request.id).await.unwrap();
    assert!(
        changes
            .iter()
            .all(|change| change.state == ChangeState::Integrated && !change.checked)
    );
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_same_line_conflict_with_the_file_named_and_the_candidate_kept() {
    let repo = Repo::new();
    repo.file("line.txt", "base\n");
    repo.commit("A line");
    let script = Script::new()
        .job(
            Job::on("Write left")
                .step(Step::shell("echo left > line.txt"))
                .step(Step::say("l")),
        )
        .job(
            Job::on("Write right")
                .step(Step::shell("echo right > line.txt"))
                .step(Step::say("r")),
        );
    let plan = Plan::from_toml(
        "[[job]]\nname='left'\nprompt='Write left'\n[[job]]\nname='right'\nprompt='Write right'\n",
    )
    .unwrap();
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let given = New {
        planning: Planning::Given,
        plan: Some(plan),
        ..new(repo.path(), "")
    };
    let request = run(&node, given).await;
    assert_eq!(request.state, RequestState::Partial);
    let changes = node.ledger().changes_of(request.id).await.unwrap();
    let conflicted: Vec<_> = changes
        .iter()
        .filter(|change| change.state == ChangeState::Conflicted)
        .collect();
    assert_eq!(conflicted.len(), 1);
    assert_eq!(conflicted[0].conflicts, ["line.txt"]);
    let candidate = conflicted[0].id;
    let diff = node
        .diff(ledger::Found::Change(candidate), 1_000)
        .await
        .unwrap();
    let patch = String::from_utf8(diff.patch).unwrap();
    assert!(patch.contains("-base\n+"), "{patch}");
    let taken = node.apply(repo.path(), ApplyMode::CherryPick, Some(candidate));
    taken.await.unwrap();
    let line = std::fs::read_to_string(repo.path().join("line.txt")).unwrap();
    assert!(patch.contains(&format!("+{line}")), "{line} of {patch}");
    assert_ne!(
        repo.read_at("skep/integration", "line.txt").unwrap(),
        line.as_bytes(),
        "the other one is what landed"
    );
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_a_rename_on_the_branch_carries_below_a_protected_path_is_rejected() {
    let repo = Repo::new();
    repo.file("src/a", "one\ntwo\nthree\nfour\nfive\n");
    repo.file("skep.toml", "[paths]\nprotected = [\"ci/**\"]\n");
    repo.commit("A file");
    // A person moved the file on the integration branch, and not on the branch that the work starts from.
    repo.git(&["checkout", "--quiet", "-b", "skep/integration"]);
    repo.git(&["rm", "--quiet", "src/a"]);
    repo.file("ci/a", "one\ntwo\nthree\nfour\nfive\n");
    let moved = repo.commit("Moved");
    repo.checkout("main");
    let script = Script::new().job(
        Job::on("Edit the file")
            .step(Step::shell("sed -i 's/three/THREE/' src/a"))
            .step(Step::say("Done.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let request = run(&node, new(repo.path(), "Edit the file")).await;
    assert_eq!(request.state, RequestState::Failed);
    let changes = node.ledger().changes_of(request.id).await.unwrap();
    assert_eq!(changes[0].state, ChangeState::Rejected);
    let seen = evidence(&node, &request).await;
    let protected: Vec<_> = seen
        .iter()
        .filter(|(name, _)| name == "protected paths")
        .map(|(_, verdict)| *verdict)
        .collect();
    assert_eq!(protected, [Verdict::Passed, Verdict::Failed]);
    assert_eq!(repo.tip("skep/integration"), Some(moved));
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_replays_with_no_divergence_and_the_same_tree() {
    let repo = checked_repo();
    let script = Script::new().job(
        Job::on("Mend the answer")
            .step(Step::shell("date +%N; echo 43 > answer.txt"))
            .step(Step::say("Done."))
            .step(mend())
            .step(Step::say("Now it is right.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::Messages).await;
    let request = run(&node, new(repo.path(), "Mend the answer")).await;
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    let calls = world.model.requests().len();
    let jobs = node.ledger().jobs(request.id).await.unwrap();
    let attempts = node.ledger().attempts(jobs[0].id).await.unwrap();
    for _ in 0..20 {
        let replayed = node
            .replay(attempts[0].id, &CancellationToken::new())
            .await
            .unwrap();
        assert!(replayed.same_tree);
        assert_eq!(replayed.calls, 4);
    }
    assert_eq!(
        world.model.requests().len(),
        calls,
        "a replay calls no model"
    );
    node.close().await;
    let offline = world.open(Providers::default()).await;
    let replayed = offline
        .replay(attempts[0].id, &CancellationToken::new())
        .await
        .unwrap();
    assert!(replayed.same_tree, "a replay needs no provider");
    offline.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_ends_with_nothing_left_running() {
    let repo = checked_repo();
    let script = Script::new().job(
        Job::on("Wait")
            .step(Step::shell("sleep 1000"))
            .step(Step::say("x")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let submitted = node.submit(new(repo.path(), "Wait")).await.unwrap();
    let cancel = CancellationToken::new();
    let work = node.work(submitted.request, &cancel);
    let stop = async {
        let mut events = node.ledger().subscribe(submitted.session, 0).await.unwrap();
        loop {
            let event = events.next().await.unwrap();
            if matches!(
                event.body,
                Body::Agent {
                    event: domain::event::Agent::ToolCall { .. },
                    ..
                }
            ) {
                break cancel.cancel();
            }
        }
    };
    let both = async { tokio::join!(work, stop) };
    let (request, ()) = tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .unwrap();
    assert_eq!(request.unwrap().state, RequestState::Cancelled);
    node.close().await;
    let workspaces = std::fs::read_dir(world.data.path().join("workspaces")).unwrap();
    let names = workspaces.map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names
        .filter(|name| !name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_cancelled_while_a_check_runs_ends_soon_and_leaves_nothing() {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n");
    repo.file(
        "skep.toml",
        "[[check]]\nname = \"slow\"\ncommand = \"touch began; sleep 1000\"\n",
    );
    repo.commit("A slow check");
    let script = Script::new().job(
        Job::on("Mend the answer")
            .step(mend())
            .step(Step::say("Done.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let submitted = node
        .submit(new(repo.path(), "Mend the answer"))
        .await
        .unwrap();
    let cancel = CancellationToken::new();
    let work = node.work(submitted.request, &cancel);
    let workspaces = world.data.path().join("workspaces");
    let stop = async {
        while !holds(&workspaces, "began", 6) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancel.cancel();
        std::time::Instant::now()
    };
    let both = async { tokio::join!(work, stop) };
    let (request, cancelled) = tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .unwrap();
    assert!(cancelled.elapsed() < Duration::from_secs(10));
    assert_eq!(request.unwrap().state, RequestState::Cancelled);
    node.close().await;
    let names = std::fs::read_dir(&workspaces)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names
        .filter(|name| !name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Whether a file of this name is below the directory, so many levels deep at the most.
fn holds(dir: &Path, name: &str, levels: usize) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    levels > 0
        && entries.into_iter().any(|entry| {
            entry.file_name() == name
                || (entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && holds(&entry.path(), name, levels - 1))
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_writes_the_plan_and_a_plan_that_stays_invalid_becomes_one_job() {
    let repo = checked_repo();
    let plan = r#"{"job": [{"name": "mend", "prompt": "MEND-NOW"}]}"#;
    let script = Script::new()
        .job(
            Job::on("You plan work")
                .and("First")
                .step(Step::say("no"))
                .step(Step::say(plan)),
        )
        .job(
            Job::on("You plan work")
                .and("Second")
                .step(Step::say("no"))
                .step(Step::say("no")),
        )
        .job(Job::on("MEND-NOW").step(mend()).step(Step::say("ok")))
        .job(
            Job::on("Second")
                .step(Step::shell("echo 42 > answer.txt; echo x > x"))
                .step(Step::say("ok")),
        );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let auto = |prompt| New {
        planning: Planning::Auto,
        ..new(repo.path(), prompt)
    };
    let first = run(&node, auto("First")).await;
    assert_eq!(first.state, RequestState::Done, "{:?}", first.failure);
    assert_eq!(
        node.ledger().jobs(first.id).await.unwrap()[0].spec.name,
        "mend"
    );
    let second = run(&node, auto("Second")).await;
    assert_eq!(second.state, RequestState::Done, "{:?}", second.failure);
    assert_eq!(
        node.ledger().jobs(second.id).await.unwrap()[0].spec.name,
        "work"
    );
    let events = node
        .ledger()
        .request_events(second.id, 0, 1_000)
        .await
        .unwrap();
    let said = events
        .iter()
        .any(|event| matches!(&event.body, Body::Planned { note: Some(_), .. }));
    assert!(said, "the request says that it goes on as one job");
    let required = New {
        planning: Planning::Required,
        ..new(repo.path(), "Second")
    };
    world
        .model
        .set_script(Script::new().otherwise(Step::say("no")));
    assert_eq!(run(&node, required).await.state, RequestState::Failed);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_conflicted_is_tried_again_on_top_of_what_was_integrated() {
    let repo = Repo::new();
    repo.file("line.txt", "base\n");
    repo.commit("A line");
    let script = Script::new()
        .job(
            Job::on("Add left")
                .step(Step::shell("echo left >> line.txt"))
                .step(Step::say("l")),
        )
        .job(
            Job::on("Add right")
                .step(Step::shell("echo right >> line.txt"))
                .step(Step::say("r")),
        );
    let plan = Plan::from_toml(
        "[[job]]\nname='left'\nprompt='Add left'\n[[job]]\nname='right'\nprompt='Add right'\n",
    )
    .unwrap();
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let given = New {
        planning: Planning::Given,
        plan: Some(plan),
        ..new(repo.path(), "")
    };
    let request = run(&node, given).await;
    assert_eq!(request.state, RequestState::Partial);
    let again = node
        .retry(ledger::Found::Request(request.id))
        .await
        .unwrap();
    let cancel = CancellationToken::new();
    let request = node.work(again.request, &cancel).await.unwrap();
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    let content = repo.read_at("skep/integration", "line.txt").unwrap();
    let text = String::from_utf8(content).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn included_files_are_there_for_the_agent_and_the_checks_and_no_part_of_the_change() {
    let repo = Repo::new();
    repo.file(".gitignore", ".env*\n");
    repo.file("answer.txt", "41\n");
    repo.file(
        "skep.toml",
        "include = ['.env.test']\n[[check]]\nname='env'\ncommand='grep -q SECRETLESS .env.test && test -f made'\n\
         [setup]\ncommand='echo built > built.txt'\n",
    );
    repo.commit("An answer");
    repo.file(".env.test", "SECRETLESS=1\n");
    repo.file(".env.prod", "NO=1\n");
    let script = Script::new().job(
        Job::on("Use it")
            .step(Step::shell(
                "cat .env.test built.txt && test ! -e .env.prod && echo yes > made",
            ))
            .step(Step::say("done")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::Messages).await;
    let request = run(&node, new(repo.path(), "Use it")).await;
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    assert_eq!(
        repo.git(&["diff", "--name-only", "main", "skep/integration"])
            .trim(),
        "made"
    );
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_alone_and_fails_together_is_rejected_and_the_branch_still_passes() {
    let repo = Repo::new();
    repo.file("start.txt", "x\n");
    repo.file(
        "skep.toml",
        "[[check]]\nname = \"not both\"\ncommand = \"! { test -e left && test -e right; }\"\n",
    );
    repo.commit("A check");
    let make = |name: &str| {
        Job::on(format!("Make {name}"))
            .step(Step::shell(format!("echo x > {name}")))
            .step(Step::say("made"))
    };
    let plan = Plan::from_toml(
        "[[job]]\nname='left'\nprompt='Make left'\n[[job]]\nname='right'\nprompt='Make right'\n",
    )
    .unwrap();
    let world = World::new(Script::new().job(make("left")).job(make("right")));
    let node = world.node(Dialect::ChatCompletions).await;
    let given = New {
        planning: Planning::Given,
        plan: Some(plan),
        ..new(repo.path(), "")
    };
    let request = run(&node, given).await;
    assert_eq!(request.state, RequestState::Partial);
    let changes = node.ledger().changes_of(request.id).await.unwrap();
    let mut states: Vec<_> = changes.iter().map(|change| change.state).collect();
    states.sort_by_key(|state| *state == ChangeState::Rejected);
    assert_eq!(states, [ChangeState::Integrated, ChangeState::Rejected]);
    let seen = evidence(&node, &request).await;
    let both = seen.iter().filter(|(name, _)| name == "not both");
    let mut verdicts: Vec<_> = both.map(|(_, verdict)| *verdict).collect();
    verdicts.sort_by_key(|verdict| *verdict == Verdict::Failed);
    assert_eq!(
        verdicts,
        [Verdict::Passed, Verdict::Passed, Verdict::Failed]
    );
    let landed = repo.git(&["diff", "--name-only", "main", "skep/integration"]);
    assert!(["left", "right"].contains(&landed.as_str()), "{landed}");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_from_the_uncommitted_work_that_was_taken_along() {
    let repo = checked_repo();
    repo.file("note.txt", "mine\n");
    let script = Script::new().job(
        Job::on("Mend the answer")
            .step(Step::shell("echo 43 > answer.txt"))
            .step(Step::say("Done."))
            .step(Step::say("I think it is right.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let dirty = New {
        dirty: true,
        ..new(repo.path(), "Mend the answer")
    };
    let failed = run(&node, dirty).await;
    assert_eq!(failed.state, RequestState::Failed);
    repo.remove("note.txt");
    repo.file("later.txt", "later\n");
    repo.commit("Later");
    world.model.set_script(
        Script::new().job(
            Job::on("Mend the answer")
                .step(Step::shell(
                    "grep -q mine note.txt && grep -q later later.txt && echo 42 > answer.txt",
                ))
                .step(Step::say("Now it is right.")),
        ),
    );
    let again = node.retry(ledger::Found::Request(failed.id)).await.unwrap();
    let cancel = CancellationToken::new();
    let request = node.work(again.request, &cancel).await.unwrap();
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    let note = repo.read_at("skep/integration", "note.txt").unwrap();
    assert_eq!(note, b"mine\n");
    let later = repo.read_at("skep/integration", "later.txt").unwrap();
    assert_eq!(later, b"later\n");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_landed_when_a_process_ended_is_published_by_the_next() {
    let repo = checked_repo();
    let script = Script::new().job(
        Job::on("Mend the answer")
            .step(mend())
            .step(Step::say("Done.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let request = run(&node, new(repo.path(), "Mend the answer")).await;
    let landed = repo.tip("skep/integration").unwrap();
    // As a process leaves it that ends between landing and publishing.
    let place = world
        .data
        .path()
        .join("repositories")
        .join(request.ask.repository.to_string());
    let program = git::Program::find(&std::env::var_os("PATH").unwrap()).unwrap();
    let mirror = git::Mirror::open_or_create(&place, program).unwrap();
    let branch = git::IntegrationBranch::new(mirror.clone(), "skep/integration");
    let who = git::Signature::new("Skep", "skep@localhost", 1_700_000_000);
    let tip = landed.parse().unwrap();
    let next = mirror
        .commit(&git::NewCommit {
            tree: mirror.tree_of(tip).unwrap(),
            parents: &[tip],
            author: &who,
            committer: &who,
            message: "More\n".into(),
        })
        .unwrap();
    branch.advance(Some(tip), next).unwrap();
    let cancel = CancellationToken::new();
    node.work(request.id, &cancel).await.unwrap();
    assert_eq!(repo.tip("skep/integration"), Some(next.to_string()));
    let events = node
        .ledger()
        .request_events(request.id, 0, 1_000)
        .await
        .unwrap();
    let said = events.iter().any(|event| {
        matches!(&event.body, Body::Published { commit, refused: None, .. }
            if *commit == next.to_string())
    });
    assert!(said, "the log says so");
    node.close().await;
}

// docs/bad-input.md: A disk that others fill while a change lands
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_a_full_disk_hinders_waits_and_lands_when_there_is_space() {
    let repo = checked_repo();
    let script = Script::new().job(
        Job::on("Mend the answer")
            .step(mend())
            .step(Step::say("Done.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let submitted = node
        .submit(new(repo.path(), "Mend the answer"))
        .await
        .unwrap();
    let ledger = node.ledger();
    let request = ledger.request(submitted.request).await.unwrap();
    // Where the branch is written, there is no space.
    let mirror = world.data.path().join("repositories");
    let tips = mirror.join(request.ask.repository.to_string());
    let tips = tips.join("refs/skep/tip/skep");
    std::fs::create_dir_all(&tips).unwrap();
    let full = tips.join("integration.tmp");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let mut changes = ledger.changes();
    let cancel = CancellationToken::new();
    let work = tokio::spawn({
        let (node, cancel) = (node.clone(), cancel.clone());
        async move { node.work(submitted.request, &cancel).await }
    });
    let put_back = async {
        loop {
            let events = ledger.request_events(request.id, 0, 1_000).await.unwrap();
            let found = events.into_iter().find_map(|event| match event.body {
                Body::ChangeChanged {
                    to: ChangeState::Queued,
                    failure,
                    ..
                } => failure,
                _ => None,
            });
            match found {
                Some(failure) => return failure,
                None => changes.changed().await.unwrap(),
            }
        }
    };
    let failure = tokio::time::timeout(Duration::from_secs(60), put_back);
    let failure = failure.await.unwrap();
    assert_eq!(failure.reason, Reason::Storage);
    assert!(failure.detail.contains("No space left"), "{failure}");
    assert_eq!(repo.tip("skep/integration"), None);
    // Others give space back.
    std::fs::remove_file(&full).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), work);
    let request = ended.await.unwrap().unwrap().unwrap();
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    assert!(repo.tip("skep/integration").is_some());
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_fails_ends_the_work_and_what_was_under_way_is_gone_on_with_later() {
    let repo = checked_repo();
    let hold = Hold::new();
    let script = Script::new().job(
        Job::on("Mend the answer")
            .step(mend().held_by(&hold))
            .step(Step::say("Done.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let submitted = node
        .submit(new(repo.path(), "Mend the answer"))
        .await
        .unwrap();
    let database = rusqlite::Connection::open(world.data.path().join("ledger.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let cancel = CancellationToken::new();
    let work = tokio::spawn({
        let (node, cancel) = (node.clone(), cancel.clone());
        async move { node.work(submitted.request, &cancel).await }
    });
    tokio::task::block_in_place(|| {
        world.model.wait_for_count(Duration::from_secs(30), 1);
        // Whoever looks for work fails then; what is under way does not need it while the model thinks.
        database
            .execute_batch("ALTER TABLE offers RENAME TO away")
            .unwrap();
    });
    let ended = tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .unwrap()
        .unwrap();
    let error = ended.unwrap_err();
    assert!(
        matches!(error, skep_server::Error::Role(_)),
        "{error} is not of a role"
    );
    database
        .execute_batch("ALTER TABLE away RENAME TO offers")
        .unwrap();
    let jobs = node.ledger().jobs(submitted.request).await.unwrap();
    let attempts = node.ledger().attempts(jobs[0].id).await.unwrap();
    // Its holder is gone: whoever looks first has noticed that already.
    let state = attempts[0].state;
    assert!(
        matches!(state, AttemptState::Running | AttemptState::Suspended),
        "{state}"
    );
    node.close().await;
    hold.release();
    let node = world.node(Dialect::ChatCompletions).await;
    let again = node.retry(ledger::Found::Request(submitted.request));
    let again = again.await.unwrap();
    assert_eq!(again.request, submitted.request, "it is gone on with");
    let work = node.work(again.request, &cancel);
    let request = tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    let attempts = node.ledger().attempts(jobs[0].id).await.unwrap();
    let states: Vec<_> = attempts.iter().map(|attempt| attempt.state).collect();
    assert_eq!(states, [AttemptState::Passed], "it is the same attempt");
    node.close().await;
}

#[tokio::test]
async fn a_budget_bounds_the_turns_and_the_time_of_an_agent() {
    let script = Script::new().job(
        Job::on("Turn")
            .with_tools()
            .step(Step::shell("true"))
            .step(Step::shell("true"))
            .step(Step::shell("true")),
    );
    let script = script.job(
        Job::on("Wait")
            .with_tools()
            .step(Step::shell("sleep 1000"))
            .step(Step::say("It is done.")),
    );
    let world = World::new(script);
    let node = world.node(Dialect::ChatCompletions).await;
    let repo = checked_repo();
    let bounded = |prompt, budget| New {
        budget: Some(budget),
        ..new(repo.path(), prompt)
    };
    let turns = Amount {
        iterations: 2,
        ..Amount::unbounded()
    };
    let request = run(&node, bounded("Turn and turn", turns)).await;
    let failure = request.failure.unwrap();
    assert_eq!(failure.reason, Reason::TurnLimit, "{failure:?}");
    assert_eq!(world.model.conversations().len(), 2);
    let spent = node.ledger().spent(request.id).await.unwrap();
    assert_eq!(spent.iterations, 2);

    let time = Amount {
        wall_ms: 3_000,
        ..Amount::unbounded()
    };
    let request = run(&node, bounded("Wait for ever", time)).await;
    let failure = request.failure.unwrap();
    assert_eq!(failure.reason, Reason::TimedOut, "{failure:?}");
    assert!(node.ledger().check().await.unwrap().is_empty());
    node.close().await;
}
