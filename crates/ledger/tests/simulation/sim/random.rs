//! What a seed decides: numbers, times and ids. Nothing else in a run is left to chance.

use domain::Timestamp;
use skep_ledger::{Clock, Ids};
use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// The step of SplitMix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output of SplitMix64 for a state. It maps no two states to one number.
fn mixed(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The numbers of a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mixed(seed.wrapping_mul(GAMMA).wrapping_add(1)))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mixed(self.0)
    }

    /// A number below `end`; zero where that is zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        match end {
            0 => 0,
            end => self.bits() % end,
        }
    }

    /// True this often of a thousand times.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap())
    }
}

/// A clock that moves when the run moves it.
pub(crate) struct SimClock(AtomicI64);

impl SimClock {
    pub(crate) fn new() -> Self {
        // Some time in 2033: putting it back does not lead before the epoch.
        Self(AtomicI64::new(2_000_000_000_000_000))
    }

    pub(crate) fn forward(&self, span: Duration) {
        let micros = i64::try_from(span.as_micros()).unwrap();
        self.0.fetch_add(micros, Ordering::SeqCst);
    }

    pub(crate) fn back(&self, span: Duration) {
        let micros = i64::try_from(span.as_micros()).unwrap();
        self.0.fetch_sub(micros, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// The ids of a seed.
pub(crate) struct SimIds(AtomicU64);

impl SimIds {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(mixed(seed ^ GAMMA)))
    }
}

impl Ids for SimIds {
    fn bits(&self) -> u64 {
        mixed(self.0.fetch_add(GAMMA, Ordering::SeqCst))
    }
}
