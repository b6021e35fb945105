//! Several processes on one ledger, and what is left when one is killed.
//!
//! The children are this test's own program, started with a word for what to do.

use crate::support::{new_attempt, plan};
use domain::{
    JobState, RequestId,
    entity::{Ask, Planning},
    event::Body,
    policy::Policy,
    state::AttemptState,
};
use ledger::{Ledger, Options};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

const DIRECTORY: &str = "SKEP_LEDGER_TEST_DIRECTORY";
const DEADLINE: Duration = Duration::from_secs(60);
const NOTES: usize = 200;

/// What a child does; without a directory it is not a child.
pub(crate) fn as_child(work: impl AsyncFnOnce(Ledger)) {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ledger = Ledger::open(Options::new(directory)).await.unwrap();
        work(ledger).await;
    });
}

/// A child that is killed when the test ends, however it ends.
pub(crate) struct Running(pub(crate) Child, pub(crate) BufReader<ChildStdout>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(crate) fn child(test: &str, directory: &Path) -> Running {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    Running(child, output)
}

/// Waits until the child has said this, and returns what it said after it on the line.
pub(crate) fn said(child: &mut Running, word: &str) -> String {
    for line in (&mut child.1).lines() {
        if let Some((_, rest)) = line.unwrap().split_once(word) {
            return rest.trim().to_owned();
        }
    }
    panic!("the child ended without `{word}`");
}

pub(crate) async fn submit(ledger: &Ledger, jobs: &[&str]) -> RequestId {
    let session = ledger.session("work").await.unwrap();
    let ask = Ask {
        repository: ledger.repository("/r").await.unwrap(),
        repository_path: "/r".into(),
        base: "a".repeat(40),
        dirty: false,
        prompt: "do it".into(),
        planning: Planning::None,
        plan: None,
        agent: "built-in".into(),
        model: None,
        budget: crate::support::BUDGET,
        policy: Policy::default(),
        parallel: 4,
        placement: domain::entity::Placement::default(),
        retry_of: None,
        included: Vec::new(),
        sources: Default::default(),
        sandbox: None,
    };
    let request = ledger.submit(session, ask, None).await.unwrap();
    let owner = ledger.owner().await.unwrap();
    let claimed = ledger
        .claim_request(&owner, Some(request))
        .await
        .unwrap()
        .unwrap();
    ledger
        .plan_request(&claimed.lease, plan(jobs), None)
        .await
        .unwrap();
    request
}

pub(crate) async fn holds(ledger: &Ledger) {
    let violations = ledger.check().await.unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn child_that_claims_a_job_and_a_request_and_stays() {
    as_child(async |ledger| {
        let owner = ledger.owner().await.unwrap();
        let job = ledger.claim_job(&owner, None).await.unwrap().unwrap();
        ledger
            .start_attempt(&job.lease, new_attempt())
            .await
            .unwrap();
        ledger.attempt_running(&job.lease).await.unwrap();
        println!("holds {}", job.job.id);
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn the_leases_of_a_killed_process_end_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Options::new(directory.path())).await.unwrap();
    let request = submit(&ledger, &["a"]).await;
    let mut holder = child(
        "processes::child_that_claims_a_job_and_a_request_and_stays",
        directory.path(),
    );
    let job = said(&mut holder, "holds ");
    let owner = ledger.owner().await.unwrap();
    assert!(ledger.claim_job(&owner, None).await.unwrap().is_none());

    let mut changes = ledger.changes();
    changes.mark_unchanged();
    drop(holder);
    // Its deadline is a minute away; a claimer that waits for changes gets it much sooner.
    let claimed = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Some(claimed) = ledger.claim_job(&owner, None).await.unwrap() {
                break claimed;
            }
            changes.changed().await.unwrap();
        }
    })
    .await
    .expect("the job is free again");
    assert_eq!(claimed.job.id.to_string(), job);
    assert_eq!(claimed.job.attempts, 1);
    let attempts = ledger.attempts(claimed.job.id).await.unwrap();
    assert_eq!(attempts[0].state, AttemptState::Suspended);
    assert_eq!(claimed.attempt.unwrap().attempt.id, attempts[0].id);
    assert_eq!(
        ledger.jobs(request).await.unwrap()[0].state,
        JobState::Leased
    );
    holds(&ledger).await;
    ledger.close().await;
    drop(owner);
    let left: Vec<_> = std::fs::read_dir(directory.path().join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "open.lock")
        .collect();
    // The dead process's socket goes with the first byte that is sent to it.
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn child_that_takes_notes() {
    as_child(async |ledger| {
        let session = ledger.session("work").await.unwrap();
        let notes: Vec<_> = (0..NOTES)
            .map(|_| {
                let ledger = ledger.clone();
                tokio::spawn(async move { ledger.note(session, None, "child").await })
            })
            .collect();
        for note in notes {
            note.await.unwrap().unwrap();
        }
        submit(&ledger, &["a", "b"]).await;
        println!("wrote all");
        ledger.close().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_ledger_and_each_sees_the_others_events() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Options::new(directory.path())).await.unwrap();
    let session = ledger.session("work").await.unwrap();
    let mut subscription = ledger.subscribe(session, 0).await.unwrap();
    let _child = child("processes::child_that_takes_notes", directory.path());
    let notes: Vec<_> = (0..NOTES)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.note(session, None, "parent").await })
        })
        .collect();
    for note in notes {
        note.await.unwrap().unwrap();
    }
    let (mut parent, mut children, mut expected) = (0, 0, 1);
    loop {
        let envelope = tokio::time::timeout(DEADLINE, subscription.next())
            .await
            .expect("the other process's events come")
            .unwrap();
        assert_eq!(envelope.sequence, expected);
        expected += 1;
        match envelope.body {
            Body::Note { text } if text == "parent" => parent += 1,
            Body::Note { .. } => children += 1,
            // The child's last verb.
            Body::RequestChanged {
                to: domain::RequestState::Working,
                ..
            } => break,
            _ => {}
        }
    }
    assert_eq!((parent, children), (NOTES, NOTES));
    holds(&ledger).await;
}

#[test]
fn child_that_opens_the_ledger() {
    as_child(async |ledger| {
        println!("opened {}", ledger.sessions(None, 10).await.unwrap().len());
        ledger.close().await;
    });
}

#[tokio::test]
async fn processes_that_make_the_ledger_at_the_same_time_agree() {
    let directory = tempfile::tempdir().unwrap();
    let mut children: Vec<Running> = (0..4)
        .map(|_| child("processes::child_that_opens_the_ledger", directory.path()))
        .collect();
    for child in &mut children {
        assert_eq!(said(child, "opened "), "0");
    }
}
