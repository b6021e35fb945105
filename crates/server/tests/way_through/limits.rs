//! A limit for a provider holds for the jobs of a plan, however their models are written.

use crate::world::{KEY, World, new, run};
use dialects::{Dialect, Prices};
use domain::{RequestState, entity::Planning, plan::Plan};
use gateway::{Providers, Secret, Settings, Times};
use ledger::Limited;
use skep_server::{Error, New};
use testkit::{
    Repo,
    models::{Job, Script, Step},
};

/// A plan of jobs that change different files, with this in each of them.
fn plan(jobs: usize, with: &str) -> Plan {
    let jobs: String = (0..jobs)
        .map(|n| format!("[[job]]\nname = 'job-{n}'\nprompt = 'Write {n}.'\n{with}\n"))
        .collect();
    Plan::from_toml(&jobs).unwrap()
}

fn given(repo: &Repo, plan: Plan) -> New {
    New {
        planning: Planning::Given,
        plan: Some(plan),
        parallel: 4,
        ..new(repo.path(), "")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_whose_model_is_a_bare_name_count_towards_the_limit_of_its_provider() {
    let repo = Repo::new();
    repo.file("a", "a\n");
    repo.commit("A file");
    let script = (0..4).fold(Script::new(), |script, n| {
        script.job(
            Job::on(format!("Write {n}."))
                .step(Step::shell(format!("echo {n} > {n}")))
                .step(Step::say("done")),
        )
    });
    let world = World::new(script);
    let node = world.node(Dialect::Messages).await;
    let limited = Limited::Provider("messages".into());
    node.ledger().set_limit(limited, Some(1)).await.unwrap();
    let request = run(&node, given(&repo, plan(4, "model = 'scripted'"))).await;
    assert_eq!(request.state, RequestState::Done, "{:?}", request.failure);
    let mut times = Vec::new();
    for job in node.ledger().jobs(request.id).await.unwrap() {
        assert_eq!(job.spec.model.as_deref(), Some("messages/scripted"));
        for attempt in node.ledger().attempts(job.id).await.unwrap() {
            times.push((attempt.created, attempt.ended.unwrap()));
        }
    }
    times.sort();
    assert_eq!(times.len(), 4);
    let one_by_one = times.windows(2).all(|pair| pair[0].1 <= pair[1].0);
    assert!(one_by_one, "{times:?}");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_model_or_agent_cannot_be_had_is_refused_with_the_job_named() {
    let repo = Repo::new();
    repo.file("a", "a\n");
    repo.commit("A file");
    let world = World::new(Script::new());
    let provider = |name: &str, dialect| Settings {
        name: name.into(),
        dialects: vec![dialect],
        base_url: "http://127.0.0.1:9/v1".into(),
        key: Some(Secret::new(KEY)),
        default_model: Some(format!("{name}-default")),
        models: Vec::new(),
        times: Times::default(),
    };
    let providers = [
        provider("chat", Dialect::ChatCompletions),
        provider("messages", Dialect::Messages),
    ];
    let providers = Providers::new(providers, Prices::default()).unwrap();
    let node = world.open(providers).await;
    for (with, cause) in [
        ("model = 'some'", "chat/some, messages/some"),
        ("model = 'chta/some'", "did you mean `chat`?"),
        ("model = 'chat/'", "no model was chosen"),
        (
            "agent = 'command:true'\nmodel = 'x/some'",
            "no provider `x`",
        ),
    ] {
        let refused = node.submit(given(&repo, plan(1, with))).await.unwrap_err();
        let text = domain::failure::chain(&refused);
        assert!(matches!(refused, Error::JobModel { .. }), "{text}");
        assert!(
            text.contains("job `job-0`") && text.contains("its `model`") && text.contains(cause),
            "{text}"
        );
    }
    let nobody = node.submit(given(&repo, plan(1, "agent = 'nobody'"))).await;
    let text = nobody.unwrap_err().to_string();
    assert!(
        text.contains("job `job-0`") && text.contains("nobody"),
        "{text}"
    );
    assert!(
        node.ledger().interrupted().await.unwrap().is_empty(),
        "nothing is stored"
    );

    // A model of its own; one that calls none; the request's.
    for (with, model) in [
        (
            "model = 'messages-default'",
            Some("messages/messages-default"),
        ),
        ("model = 'messages/other'", Some("messages/other")),
        ("agent = 'command:true'", None),
        ("", None),
    ] {
        let taken = node.submit(given(&repo, plan(1, with))).await.unwrap();
        let stored = node.ledger().request(taken.request).await.unwrap().ask;
        assert_eq!(stored.model.as_deref(), Some("chat/chat-default"));
        assert_eq!(
            stored.plan.unwrap().jobs[0].model.as_deref(),
            model,
            "{with}"
        );
    }
    node.close().await;
}
