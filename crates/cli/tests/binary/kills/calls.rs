//! Which calls came to the model, which of them the ledger has settled, and which a kill cost.
//!
//! The ledger reserves a call before it is made, and settles it with its recording. What was reserved
//! and never settled counts as spent: it was in flight when its process ended, or when its work was
//! taken away. Such a call may be made once more; one that is settled never is.

use std::collections::{BTreeMap, BTreeSet};

use domain::event::Body;
use domain::{AttemptId, RequestId};
use ledger::{Exchange, Ledger};

use crate::world::World;

/// The job of the script, and its step.
pub type Place = (Option<usize>, usize);
/// How often each call was made.
pub type Calls = BTreeMap<Place, usize>;

/// The largest request to a model, in bytes.
const MAX_BODY: u64 = 1 << 20;
/// More events than any of these requests has, and no more than are read at once.
const MAX_EVENTS: usize = 10_000;

/// The calls of an attempt, or of the planning of a request.
#[derive(Debug)]
struct Spender {
    /// Those that are settled, in their order.
    settled: Vec<Settled>,
    /// How many were reserved and never settled.
    lost: u64,
}

#[derive(Debug)]
struct Settled {
    place: Place,
    /// Whether it is the first of its holder: a lost one may have been the same.
    is_first: bool,
    /// Whether the model refused it, so that it is made again.
    is_refused: bool,
}

impl Spender {
    /// Where one of its lost calls can have been: where a holder began, or after all.
    fn can_lose(&self, place: Place) -> bool {
        let Some(last) = self.settled.last() else {
            return place.1 == 0;
        };
        let next = last.place.1 + usize::from(!last.is_refused);
        let mut begins = self.settled.iter().filter(|it| it.is_first);
        place == (last.place.0, next) || begins.any(|it| it.place == place)
    }
}

/// All calls of a world.
#[derive(Debug)]
pub struct Account {
    spenders: Vec<Spender>,
    made: Calls,
}

impl Account {
    /// What the ledger and the model say.
    pub async fn of(world: &World, ledger: &Ledger) -> Account {
        let mut spenders = Vec::new();
        for request in ledger.requests(100, None).await.unwrap() {
            let called = called(ledger, request.id).await;
            let mut left = ledger.spent(request.id).await.unwrap().iterations;
            for job in ledger.jobs(request.id).await.unwrap() {
                for attempt in ledger.attempts(job.id).await.unwrap() {
                    let spent = attempt.spent.iterations;
                    left -= spent;
                    let exchanges = ledger.exchanges(attempt.id).await.unwrap();
                    let paid = called.get(&Some(attempt.id)).copied().unwrap_or_default();
                    spenders.push(spender(world, ledger, exchanges, spent - paid).await);
                }
            }
            let exchanges = ledger.plan_exchanges(request.id).await.unwrap();
            let paid = called.get(&None).copied().unwrap_or_default();
            spenders.push(spender(world, ledger, exchanges, left - paid).await);
        }
        let mut made = Calls::new();
        for request in world.model.conversations() {
            *made.entry((request.job, request.step)).or_default() += 1;
        }
        Account { spenders, made }
    }

    /// How often each call was settled.
    pub fn settled(&self) -> Calls {
        let mut all = Calls::new();
        for one in self.spenders.iter().flat_map(|it| &it.settled) {
            *all.entry(one.place).or_default() += 1;
        }
        all
    }

    /// Asserts that no spender settled a call more often than without a kill, and that what was
    /// called besides had been in flight: once at the most for each of its holders that was lost.
    #[track_caller]
    pub fn assert_paid_once(&self, without: &Calls, kills: usize) {
        for spender in &self.spenders {
            let mut settled = Calls::new();
            for one in &spender.settled {
                let count = settled.entry(one.place).or_default();
                *count += 1;
                let before = without.get(&one.place).copied().unwrap_or_default();
                assert!(
                    *count <= before,
                    "the call {:?} was paid {count} times, {before} without a kill: {self:#?}",
                    one.place
                );
            }
            assert!(
                spender.lost <= kills as u64,
                "more calls were lost than {kills} kills can cost: {self:#?}"
            );
        }
        let settled = self.settled();
        let places: BTreeSet<&Place> = self.made.keys().chain(settled.keys()).collect();
        let mut again = 0;
        for place in places {
            let made = self.made.get(place).copied().unwrap_or_default();
            let settled = settled.get(place).copied().unwrap_or_default();
            assert!(
                settled <= made,
                "the call {place:?} was settled {settled} times and made {made} times: {self:#?}"
            );
            let losing = self.spenders.iter().filter(|it| it.can_lose(*place));
            let may: u64 = losing.map(|it| it.lost).sum();
            assert!(
                (made - settled) as u64 <= may,
                "the call {place:?} was made {made} times, settled {settled} times, and {may} times \
                 in flight: {self:#?}"
            );
            again += (made - settled) as u64;
        }
        let lost: u64 = self.spenders.iter().map(|it| it.lost).sum();
        assert!(
            again <= lost,
            "{again} calls were made and not settled, {lost} in flight: {self:#?}"
        );
    }

    /// Asserts besides that each call that there is without a kill is settled.
    #[track_caller]
    pub fn assert_complete(&self, without: &Calls) {
        let settled = self.settled();
        for (place, count) in without {
            let found = settled.get(place).copied().unwrap_or_default();
            assert!(
                found >= *count,
                "the call {place:?} was settled {found} times, {count} without a kill: {self:#?}"
            );
        }
    }
}

/// The calls that settled calls of a request cost, by spender: one each, or none where the model did
/// nothing.
async fn called(ledger: &Ledger, request: RequestId) -> BTreeMap<Option<AttemptId>, u64> {
    let mut called = BTreeMap::new();
    let events = ledger.request_events(request, 0, MAX_EVENTS).await.unwrap();
    assert!(events.len() < MAX_EVENTS, "more events than are read");
    for event in events {
        if let Body::ModelCalled { attempt, spent, .. } = event.body {
            *called.entry(attempt).or_default() += spent.iterations;
        }
    }
    called
}

async fn spender(world: &World, ledger: &Ledger, exchanges: Vec<Exchange>, lost: u64) -> Spender {
    let mut settled = Vec::new();
    for exchange in exchanges {
        let body = ledger.blob(exchange.request, MAX_BODY).await.unwrap();
        settled.push(Settled {
            place: world.model.place_of(&body),
            is_first: exchange.call == 1,
            is_refused: exchange.status != 200,
        });
    }
    Spender { settled, lost }
}
