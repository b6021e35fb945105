//! What lands, and what does not.

use crate::world::{KEY, World, checked_repo, evidence, mend, new, run};
use dialects::Dialect;
use domain::{
    AttemptState, ChangeState, JobState, RequestState,
    entity::{Planning, Verdict},
    event::Body,
    plan::Plan,
};
use skep_server::{ApplyMode, New};
use testkit::{
    Repo,
    models::{Job, Script, Step},
};

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
