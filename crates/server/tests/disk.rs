//! The bounds on the disk: what fills it is ended, said, and given back. And what several who use a sandbox
//! that is held may do at a time: so many commands, and snapshots beside those that forks are made of.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use dialects::{Dialect, Prices};
use domain::{RequestState, entity::Planning};
use gateway::{Providers, Settings, Times};
use skep_server::{
    DiskBounds, Error, New, Node, Options, Shares, StoreBounds,
    standing::{self, Berth, Hearing, Held, Of, Order, Run, Unable, Wish, find, fresh_id, hold},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use testkit::{
    Repo,
    models::{Job, Script, Scripted, Step},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// Much less than is written, and looked at often, so that no test waits.
const SMALL: DiskBounds = DiskBounds {
    store: StoreBounds {
        max: None,
        free: None,
    },
    bytes: 8 * MIB,
    files: 2_000,
    free: 0,
    free_files: 0,
    every: Duration::from_millis(20),
};

async fn node(data: &Path, model: &Scripted, disk: DiskBounds, kind: sandbox::Kind) -> Node {
    let settings = Settings {
        name: "chat".into(),
        dialects: vec![Dialect::ChatCompletions],
        base_url: model.openai_base_url(),
        key: None,
        default_model: Some("scripted".into()),
        models: Vec::new(),
        times: Times::default(),
    };
    Node::open(Options {
        data: data.to_owned(),
        path: std::env::var_os("PATH").unwrap(),
        home: std::env::var_os("HOME").unwrap().into(),
        env: Arc::new(|name| std::env::var_os(name)),
        providers: Providers::new([settings], Prices::default()).unwrap(),
        default_model: None,
        sandbox: kind,
        container: sandbox::container::Options {
            // The machine's own engine is not it.
            engine: sandbox::container::Choice::Podman(Vec::new()),
            ..sandbox::container::Options::default()
        },
        disk,
        devices: Vec::new(),
        nested: false,
        shares: Shares::default(),
        admission: ledger::Admission::default(),
        egress: std::sync::Arc::new(gateway::Fixed::default()),
        forges: Default::default(),
        notify: Vec::new(),
    })
    .await
    .unwrap()
}

/// A run of an agent that runs this command, under this policy: how it ended, what was said, and how
/// often the model was asked. Nothing of the workspace is left.
async fn run(
    policy: &str,
    command: &str,
    disk: DiskBounds,
    kind: sandbox::Kind,
) -> (RequestState, String, usize) {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n").file("skep.toml", policy);
    repo.commit("A wrong answer");
    let model = Scripted::start(
        Script::new().job(
            Job::on("Mend it")
                .with_tools()
                .step(Step::shell(command))
                .step(Step::say("It is mended.")),
        ),
    );
    let data = tempfile::tempdir().unwrap();
    let node = node(data.path(), &model, disk, kind).await;
    let new = New {
        path: repo.path().to_owned(),
        chosen: Default::default(),
        prompt: "Mend it".into(),
        planning: Planning::None,
        plan: None,
        agent: "builtin".into(),
        model: None,
        budget: None,
        dirty: false,
        parallel: 1,
        placement: domain::entity::Placement::default(),
        key: None,
        retry_of: None,
    };
    let submitted = node.submit(new).await.unwrap();
    let cancel = CancellationToken::new();
    let work = node.work(submitted.request, &cancel);
    let request = tokio::time::timeout(Duration::from_secs(60), work);
    let request = request.await.unwrap().unwrap();
    let events = node.ledger().request_events(request.id, 0, 1_000).await;
    let said = serde_json::to_string(&events.unwrap()).unwrap();
    node.close().await;
    for place in ["workspaces", "trash"] {
        let left = std::fs::read_dir(data.path().join(place)).unwrap();
        let left: Vec<_> = left
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
            .collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
    (request.state, said, model.conversations().len())
}

// docs/bad-input.md: An agent that fills the disk
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_fills_the_disk_is_ended_and_its_space_is_given_back() {
    use sandbox::Kind::{Host, Namespace};
    fills_the_disk([
        (Namespace, "."),
        (Namespace, "$HOME"),
        (Namespace, "/tmp"),
        (Host, "."),
    ])
    .await;
}

async fn fills_the_disk<const N: usize>(each: [(sandbox::Kind, &'static str); N]) {
    let mut all = tokio::task::JoinSet::new();
    for (kind, place) in each {
        all.spawn(async move {
            // It would go on for ever.
            let fill = format!("head -c 12000000 /dev/zero > {place}/big; sleep 1000");
            let (state, said, asked) = run("", &fill, SMALL, kind).await;
            assert_eq!(state, RequestState::Failed);
            let words = "the workspace took more than 8 MiB of the disk";
            assert!(
                said.contains("limit_reached") && said.contains(words),
                "{kind} {place}: {said}"
            );
            assert_eq!(asked, 1, "another attempt would only fill it again");
        });
    }
    all.join_all().await;
}

// docs/bad-input.md: An agent that makes files without end
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_makes_files_without_end_is_ended_and_they_are_deleted() {
    use sandbox::Kind::{Host, Namespace};
    makes_files_without_end([(Namespace, "."), (Namespace, "/tmp"), (Host, ".")]).await;
}

async fn makes_files_without_end<const N: usize>(each: [(sandbox::Kind, &'static str); N]) {
    let mut all = tokio::task::JoinSet::new();
    for (kind, place) in each {
        all.spawn(async move {
            // Empty, so that they take no bytes; new links to one file count too.
            let make = format!("cd {place}; mkdir d; cd d; touch $(seq 1900); mkdir e; for i in $(seq 200); do ln 1 e/$i; done; sleep 1000");
            let (state, said, asked) = run("", &make, SMALL, kind).await;
            assert_eq!(state, RequestState::Failed);
            let words = "the workspace holds more than 2000 new files and directories";
            assert!(
                said.contains("limit_reached") && said.contains(words),
                "{kind} {place}: {said}"
            );
            assert_eq!(asked, 1, "another attempt would only make them again");
        });
    }
    all.join_all().await;
}

#[test]
fn an_agent_of_an_ordinary_user_that_fills_the_disk_or_makes_files_without_end_is_ended_too() {
    let home = testkit::Home::new().as_user(65534);
    // Where another user can reach it.
    let program = home.root().join("disk");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let args = [
        "--exact",
        "an_agent_that_fills_the_disk_is_ended_and_its_space_is_given_back",
        "an_agent_that_makes_files_without_end_is_ended_and_they_are_deleted",
    ];
    let ran = home.run(&program, args, &home.home(), DEADLINE);
    assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("2 passed"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test, which has an engine"]
async fn an_agent_in_a_container_that_fills_the_disk() {
    let places = [".", "$HOME", "/tmp"];
    fills_the_disk(places.map(|place| (sandbox::Kind::Container, place))).await;
    let places = [".", "/tmp"];
    makes_files_without_end(places.map(|place| (sandbox::Kind::Container, place))).await;
}

fn ends_in_a_container(home: testkit::Home) {
    let podman = testkit::Podman::new(home);
    let test = "an_agent_in_a_container_that_fills_the_disk";
    podman.run_tests(["--exact", test, "--ignored"], Duration::from_secs(120));
    podman.assert_nothing_left();
}

#[test]
fn an_agent_in_a_container_that_fills_the_disk_or_makes_files_without_end_is_ended_too() {
    ends_in_a_container(testkit::Home::new());
}

#[test]
fn an_agent_in_a_container_of_an_ordinary_user_that_fills_the_disk_is_ended_too() {
    ends_in_a_container(testkit::Home::new().as_user(65534));
}

// docs/bad-input.md: A disk that is almost full
#[tokio::test(flavor = "multi_thread")]
async fn what_must_stay_free_on_the_disk_is_not_taken() {
    let full = DiskBounds {
        free: u64::MAX,
        ..SMALL
    };
    let (state, said, _) = run("", "sleep 1000", full, sandbox::Kind::Namespace).await;
    assert_eq!(state, RequestState::Failed);
    assert!(
        said.contains("\"storage\"") && said.contains("is free on the disk"),
        "{said}"
    );
}

// docs/bad-input.md: A setup command or a check that fills the disk
#[tokio::test(flavor = "multi_thread")]
async fn a_setup_command_or_a_check_that_fills_the_disk_is_ended_and_named() {
    let fill = "head -c 12000000 /dev/zero > big; sleep 1000";
    let kind = sandbox::Kind::Namespace;
    let policy = format!("[setup]\ncommand = \"{fill}\"\n");
    let (state, said, asked) = run(&policy, "true", SMALL, kind).await;
    assert_eq!((state, asked), (RequestState::Failed, 0));
    let words = "the setup command was ended: the workspace took more than 8 MiB";
    assert!(said.contains(words), "{said}");

    let policy = format!("[[check]]\nname = \"greedy\"\ncommand = \"{fill}\"\n");
    let (state, said, _) = run(&policy, "echo 42 > answer.txt", SMALL, kind).await;
    assert_eq!(state, RequestState::Failed);
    let words = "the limit of the disk of the sandbox was reached";
    assert!(said.contains(words), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_takes_less_than_the_bound_is_not_disturbed() {
    for kind in [sandbox::Kind::Namespace, sandbox::Kind::Host] {
        let work = "head -c 4000000 /dev/zero > /tmp/x; rm /tmp/x; echo 42 > answer.txt";
        let (state, said, _) = run("", work, SMALL, kind).await;
        assert_eq!(state, RequestState::Done, "{said}");
    }
}

/// Holds a sandbox while others use it, and sees that nothing is left of it.
async fn while_held<T>(disk: DiskBounds, used: impl AsyncFnOnce(&dyn Fn() -> Held) -> T) -> T {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n").commit("A wrong answer");
    let model = Scripted::start(Script::new());
    let data = tempfile::tempdir().unwrap();
    let node = node(data.path(), &model, disk, sandbox::Kind::Namespace).await;
    let id = fresh_id();
    // Who asks for a sandbox makes its directory, and another process holds it.
    let asked = Berth::make(data.path(), id, None).unwrap();
    let berth = Berth::join(data.path(), id).unwrap();
    drop(asked);
    let of = Of::Commit(Wish {
        path: repo.path().to_owned(),
        revision: None,
        setup: false,
        also: Vec::new(),
        beside: Vec::new(),
        more: Default::default(),
    });
    let order = Order {
        name: None,
        lasts: Some(Duration::from_secs(600)),
    };
    let (tell, ready) = oneshot::channel();
    let holder = tokio::spawn(async move {
        let hearing = Hearing {
            ready: Box::new(|_| true),
            stands: Box::pin(std::future::ready(true)),
            settled: Box::new(|| tell.send(()).unwrap()),
        };
        hold(node, berth, &of, order, hearing, std::future::pending()).await
    });
    ready.await.unwrap();
    let found = || find(data.path(), &id.to_string()).unwrap();
    let given = used(&found).await;
    found().destroy(data.path()).await.unwrap();
    holder.await.unwrap().unwrap();
    assert!(standing::list(data.path()).unwrap().is_empty());
    given
}

fn shell(script: &str) -> Run {
    Run {
        argv: ["sh", "-c", script].map(Into::into).into(),
        ..Run::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_filled_the_disk_says_so_and_starts_nothing_more() {
    while_held(SMALL, async |held| {
        let fill = shell("head -c 12000000 /dev/zero > big; sleep 1000");
        let mut running = held().exec(fill).await.unwrap();
        let exit = running.wait().await.unwrap();
        assert_eq!(exit.limit, Some(sandbox::Limit::Disk));
        // It is said a moment after what ran has ended.
        let end = Instant::now() + DEADLINE;
        let state = loop {
            let state = held().state(false).await.state.unwrap();
            if state.get("full").is_some() {
                break state;
            }
            assert!(Instant::now() < end, "{state}");
        };
        assert_eq!(state["alive"], true);
        let words = "the workspace took more than 8 MiB of the disk";
        assert_eq!(state["full"], words);
        assert!(held().exec(shell("true")).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_more_than_a_sandbox_takes_is_refused_as_too_many_at_a_time() {
    while_held(DiskBounds::default(), async |held| {
        let held = held();
        let mut running = Vec::new();
        for _ in 0..2 * sandbox::MOST_CONNECTIONS {
            running.push(held.exec(shell("exec sleep 1000")).await.unwrap());
        }
        let refused = held.exec(shell("true")).await;
        let why = match refused {
            Err(Error::Standing(standing::Error::Unable { why, .. })) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why, Unable::Busy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_somebody_took_stays_when_one_that_a_fork_was_lent_goes() {
    while_held(DiskBounds::default(), async |held| {
        let lent = held().lend().await.unwrap();
        // What was lent goes with what was written; its number is nobody else's as long as it may be
        // taken back.
        held().undo(None).await.unwrap();
        let taken = held().snapshot(None).await.unwrap().snapshot.unwrap();
        assert_ne!(taken, lent.snapshot);
        let asked = held().snapshot(Some(lent.snapshot.clone())).await;
        let why = match asked {
            Err(standing::Error::Unable { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why, Unable::Taken);
        let name = lent.snapshot.clone();
        drop(lent);
        // The holder hears of it a moment later.
        let end = Instant::now() + DEADLINE;
        while let Err(error) = held().snapshot(Some(name.clone())).await {
            assert!(Instant::now() < end, "{error:?}");
        }
        let now = held().undo(Some(name.clone())).await.unwrap();
        assert_eq!(now.snapshots, [taken, name]);
    })
    .await;
}
