//! What is run, tried or published again.

use crate::world::{World, checked_repo, mend, new, run};
use dialects::Dialect;
use domain::{ChangeState, Reason, RequestState, entity::Planning, event::Body, plan::Plan};
use gateway::Providers;
use skep_server::New;
use std::time::Duration;
use testkit::{
    Repo,
    models::{Job, Script, Step},
};
use tokio_util::sync::CancellationToken;

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
