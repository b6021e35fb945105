//! How work ends before it is done: cancelled, by a failure, by its budget.

use crate::world::{World, checked_repo, mend, new, run};
use dialects::Dialect;
use domain::{Amount, AttemptState, Reason, RequestState, event::Body};
use skep_server::New;
use std::{path::Path, time::Duration};
use testkit::{
    Repo,
    models::{Hold, Job, Script, Step},
};
use tokio_util::sync::CancellationToken;

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
        // Whoever holds the job says so again and again while its check runs.
        let mut changes = node.ledger().changes();
        while !holds(&workspaces, "began", 6) {
            changes.changed().await.unwrap();
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
        matches!(error, skep_server::Error::Role { .. }),
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
