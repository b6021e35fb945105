//! A data directory with a model that answers by a script, and requests on it.

use dialects::{Dialect, Prices};
use domain::{
    entity::{Planning, Request, Verdict},
    event::Body,
};
use gateway::{Providers, Secret, Settings, Times};
use skep_server::{New, Node, Options};
use std::{path::Path, sync::Arc, time::Duration};
use testkit::{
    Repo,
    models::{Script, Scripted, Step},
};
use tokio_util::sync::CancellationToken;

pub(crate) const KEY: &str = "canary-key-5d41402abc4b2a76b9719d911017c592";

pub(crate) struct World {
    pub(crate) data: tempfile::TempDir,
    pub(crate) model: Scripted,
}

impl World {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            data: tempfile::tempdir().unwrap(),
            model: Scripted::with_key(script, KEY),
        }
    }

    pub(crate) async fn node(&self, dialect: Dialect) -> Node {
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

    pub(crate) async fn open(&self, providers: Providers) -> Node {
        Node::open(Options {
            data: self.data.path().to_owned(),
            path: std::env::var_os("PATH").unwrap(),
            home: std::env::var_os("HOME").unwrap().into(),
            env: Arc::new(|name| std::env::var_os(name)),
            providers,
            default_model: None,
            sandbox: sandbox::Kind::Namespace,
            container: sandbox::container::Options::default(),
            notify: Vec::new(),
            disk: skep_server::DiskBounds::default(),
            devices: Vec::new(),
            nested: false,
            shares: skep_server::Shares::default(),
            admission: ledger::Admission::default(),
            egress: std::sync::Arc::new(gateway::Fixed::default()),
            forges: Default::default(),
        })
        .await
        .unwrap()
    }
}

pub(crate) fn new(path: &Path, prompt: &str) -> New {
    New {
        path: path.to_owned(),
        chosen: Default::default(),
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

pub(crate) async fn run(node: &Node, new: New) -> Request {
    let submitted = node.submit(new).await.unwrap();
    let cancel = CancellationToken::new();
    let work = node.work(submitted.request, &cancel);
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .unwrap()
        .unwrap()
}

pub(crate) async fn evidence(node: &Node, request: &Request) -> Vec<(String, Verdict)> {
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

pub(crate) fn checked_repo() -> Repo {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n");
    repo.file(
        "skep.toml",
        "[[check]]\nname = \"answer\"\ncommand = \"grep -qx 42 answer.txt\"\n",
    );
    repo.commit("A wrong answer");
    repo
}

pub(crate) fn mend() -> Step {
    Step::shell("echo 42 > answer.txt")
}
