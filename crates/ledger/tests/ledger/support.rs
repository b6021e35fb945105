//! A ledger in a temporary directory, with a clock that the test sets.

use domain::{
    Amount, Micros, RequestId, SessionId, Timestamp,
    entity::{Ask, Planning},
    plan,
    policy::Policy,
};
use ledger::{
    ClaimedChange, ClaimedJob, Clock, Ledger, NewAttempt, Options, Owner, Settled, Settlement,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

/// A clock that moves when it is told.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, span: Duration) {
        let micros = i64::try_from(span.as_micros()).unwrap();
        self.0.fetch_add(micros, Ordering::SeqCst);
    }

    pub(crate) fn turn_back(&self, span: Duration) {
        let micros = i64::try_from(span.as_micros()).unwrap();
        self.0.fetch_sub(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct Place {
    pub(crate) ledger: Ledger,
    pub(crate) owner: Owner,
    pub(crate) session: SessionId,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) directory: TempDir,
}

pub(crate) async fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock(AtomicI64::new(1_000_000)));
    let ledger = open(directory.path(), &clock).await;
    Place {
        owner: ledger.owner().await.unwrap(),
        session: ledger.session("work").await.unwrap(),
        ledger,
        clock,
        directory,
    }
}

pub(crate) async fn open(directory: &Path, clock: &Arc<TestClock>) -> Ledger {
    Ledger::open(Options {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        ..Options::new(directory)
    })
    .await
    .unwrap()
}

pub(crate) const BUDGET: Amount = Amount {
    tokens: 1_000,
    money: Micros(1_000),
    wall_ms: 1_000_000,
    iterations: 1_000,
};

pub(crate) fn tokens(tokens: u64) -> Amount {
    Amount {
        tokens,
        ..Amount::ZERO
    }
}

/// A plan from `name after,after` lines.
pub(crate) fn plan(jobs: &[&str]) -> plan::Plan {
    let jobs = jobs
        .iter()
        .map(|line| {
            let mut words = line.split([' ', ',']);
            let name = words.next().unwrap().to_owned();
            plan::Job {
                prompt: format!("do {name}"),
                name,
                after: words.map(str::to_owned).collect(),
                ..plan::Job::default()
            }
        })
        .collect();
    plan::Plan { jobs }
}

pub(crate) fn new_attempt() -> NewAttempt {
    NewAttempt {
        base: "b".repeat(40),
        agent: "built-in".into(),
        model: Some("test/model".into()),
        sandbox: "namespace".into(),
    }
}

pub(crate) fn passed() -> Settlement {
    Settlement::Passed {
        commit: "c".repeat(40),
        tree: "d".repeat(40),
        summary: "done".into(),
        checked: true,
    }
}

impl Place {
    pub(crate) async fn ask(&self) -> Ask {
        Ask {
            repository: self.ledger.repository("/r").await.unwrap(),
            repository_path: "/r".into(),
            base: "a".repeat(40),
            dirty: false,
            prompt: "Mend the parser\n\nIt fails on commas.".into(),
            planning: Planning::Auto,
            plan: None,
            agent: "built-in".into(),
            model: None,
            budget: BUDGET,
            policy: Policy::default(),
            parallel: 8,
            placement: domain::entity::Placement::default(),
            retry_of: None,
            included: Vec::new(),
            sources: Default::default(),
            sandbox: None,
        }
    }

    pub(crate) async fn submit(&self) -> RequestId {
        let ask = self.ask().await;
        self.ledger.submit(self.session, ask, None).await.unwrap()
    }

    /// A request with these jobs.
    pub(crate) async fn planned(&self, jobs: &[&str]) -> RequestId {
        let request = self.submit().await;
        let claimed = self
            .ledger
            .claim_request(&self.owner, Some(request))
            .await
            .unwrap()
            .unwrap();
        self.ledger
            .plan_request(&claimed.lease, plan(jobs), None)
            .await
            .unwrap();
        request
    }

    /// Lets the ledger look at what is due, and claims nothing.
    pub(crate) async fn look(&self) {
        let nothing = Some(RequestId::from_bits(1));
        let none = self.ledger.claim_request(&self.owner, nothing).await;
        assert!(none.unwrap().is_none());
    }

    /// Lets so much time pass without a heartbeat that every lease ends: its own time, and the
    /// one that a living holder gets beyond it.
    pub(crate) async fn lose(&self) {
        for _ in 0..2 {
            self.clock.advance(ledger::options::LEASE);
            self.look().await;
        }
    }

    /// And lets what was lost be claimable again, however often it was.
    pub(crate) async fn lose_and_wait(&self) {
        self.lose().await;
        self.clock.advance(Duration::from_secs(8 * 60));
    }

    pub(crate) async fn claim(&self) -> ClaimedJob {
        self.try_claim().await.expect("a job is ready")
    }

    pub(crate) async fn try_claim(&self) -> Option<ClaimedJob> {
        self.ledger.claim_job(&self.owner, None).await.unwrap()
    }

    /// The next job, with its agent at work.
    pub(crate) async fn running(&self) -> ClaimedJob {
        let claimed = self.claim().await;
        let lease = &claimed.lease;
        self.ledger
            .start_attempt(lease, new_attempt())
            .await
            .unwrap();
        self.ledger.attempt_running(lease).await.unwrap();
        claimed
    }

    /// The next job, up to its gate.
    pub(crate) async fn checking(&self) -> ClaimedJob {
        let claimed = self.running().await;
        self.ledger
            .attempt_checking(&claimed.lease, "d".repeat(40))
            .await
            .unwrap();
        claimed
    }

    /// The next job, up to its change.
    pub(crate) async fn deliver(&self) -> Settled {
        let claimed = self.checking().await;
        self.ledger
            .settle_attempt(&claimed.lease, passed())
            .await
            .unwrap()
    }

    pub(crate) async fn claim_change(&self) -> Option<ClaimedChange> {
        self.ledger.claim_change(&self.owner, None).await.unwrap()
    }

    /// Everything that must hold.
    pub(crate) async fn holds(&self) {
        let violations = self.ledger.check().await.unwrap();
        let said: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert!(said.is_empty(), "{said:#?}");
    }
}
