//! How a ledger is opened, and what it takes from outside: time and random bits.

use crate::admission::Admission;
use domain::Timestamp;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// How long a lease lasts without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(60);

/// How often lost owners and unheard commits are looked for.
pub const TICK: Duration = Duration::from_secs(1);

/// How a ledger is opened.
#[derive(Clone)]
pub struct Options {
    /// Where its data is; it is made where it does not exist.
    pub directory: PathBuf,
    /// What says the time.
    pub clock: Arc<dyn Clock>,
    /// What ids are made of.
    pub ids: Arc<dyn Ids>,
    /// How long a lease lasts without a heartbeat.
    pub lease: Duration,
    /// How often it looks by itself for lost owners and for commits that nobody told it of. With
    /// none it looks only when it is opened and when a claim finds nothing: for a simulation, in
    /// which nothing may depend on real time.
    pub tick: Option<Duration>,
    /// What is taken before a submission is refused.
    pub admission: Admission,
}

impl Options {
    /// The data in this directory, with the system's clock and random bits.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds::default()),
            lease: LEASE,
            tick: Some(TICK),
            admission: Admission::default(),
        }
    }
}

/// What says the time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The clock of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::default().plus(since)
    }
}

/// What ids are made of.
pub trait Ids: Send + Sync + 'static {
    /// Sixty-four bits that nobody can guess and that do not come again.
    fn bits(&self) -> u64;
}

/// Random bits of the system, fetched some hundred at a time.
#[derive(Debug, Default)]
pub struct RandomIds(Mutex<Vec<u64>>);

impl Ids for RandomIds {
    fn bits(&self) -> u64 {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_empty() {
            let mut bytes = [0u8; 2_048];
            if getrandom::fill(&mut bytes).is_ok() {
                let (words, _) = bytes.as_chunks::<8>();
                held.extend(words.iter().map(|word| u64::from_ne_bytes(*word)));
            }
        }
        // Without random bits of the system there is still a hasher with random keys.
        held.pop().unwrap_or_else(|| {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(SystemClock.now().0)
        })
    }
}
