//! What is open: one allowed connection or exchange, measured, bounded, and ended when it is not
//! allowed any more.

use super::{Standing, State, record::Key};
use domain::egress::{Asks, Host, Request, Verdict, decide};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;

/// What a request asks for, owned.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) upgrade: bool,
}

impl Asked {
    pub(super) fn as_asks(&self) -> Asks<'_> {
        Asks {
            method: &self.method,
            target: &self.target,
            upgrade: self.upgrade,
        }
    }
}

/// What was decided, so that it can be decided again.
#[derive(Debug, Clone)]
struct Question {
    host: Host,
    port: u16,
    asked: Option<Asked>,
    verdict: Verdict,
    /// Where it leads.
    address: Option<IpAddr>,
    end: CancellationToken,
}

/// All that is open in one sandbox.
#[derive(Debug, Default)]
pub(super) struct Open(Mutex<(u64, HashMap<u64, Question>)>);

impl Open {
    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Question>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().1.is_empty()
    }

    /// Ends what is not allowed any more.
    pub(super) fn look(&self, state: &State) {
        let open = self.lock();
        if open.1.is_empty() {
            return;
        }
        let standing = state.standing();
        for question in open.1.values() {
            if !question.holds(state, &standing) {
                question.end.cancel();
            }
        }
    }
}

impl Question {
    /// Whether it would be decided in the same way now.
    fn holds(&self, state: &State, standing: &Result<Standing, String>) -> bool {
        standing.as_ref().is_ok_and(|standing| {
            let request = Request {
                part: state.part,
                host: &self.host,
                port: self.port,
                asked: self.asked.as_ref().map(Asked::as_asks),
            };
            let now = decide(&standing.rules, &request);
            // A tunnel that nobody looks into does not become one that somebody must look into.
            let is_same = match now.verdict {
                Verdict::Allowed => true,
                Verdict::Inspected => self.verdict == Verdict::Inspected || now.registry.is_some(),
                Verdict::Refused => false,
            };
            let may = |address| standing.rules.may_connect(&request, address);
            is_same && self.address.is_none_or(may)
        })
    }
}

/// What is said of what was allowed and is not any more.
pub(super) const NOT_ANY_MORE: &str = "it is not allowed any more";

/// One allowed connection or exchange. It is recorded when it is dropped.
pub(super) struct Passage {
    state: Arc<State>,
    number: u64,
    key: Key,
    up: AtomicU64,
    down: AtomicU64,
    begun: Instant,
    /// When something passed, in milliseconds since it was opened.
    last: AtomicU64,
    ended: Mutex<Option<String>>,
    /// Cancelled when it is not allowed any more, or the sandbox's egress ends.
    pub(super) end: CancellationToken,
    /// When it has lasted too long.
    pub(super) deadline: Instant,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Out of the sandbox.
    Up,
    /// Into it.
    Down,
}

impl Passage {
    /// Opens one, if it is still allowed: looking up a name and connecting take their time, and the
    /// rules may have changed meanwhile. One that is not is recorded as refused.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn open(
        state: &Arc<State>,
        key: Key,
        host: &Host,
        port: u16,
        asked: Option<Asked>,
        verdict: Verdict,
        outside: &TcpStream,
    ) -> Result<Arc<Self>, &'static str> {
        let end = state.cancel.child_token();
        let question = Question {
            host: host.clone(),
            port,
            asked,
            verdict,
            address: outside.peer_addr().ok().map(|address| address.ip()),
            end: end.clone(),
        };
        // First among those that are looked at again, then decided: no edit falls in between.
        let number = {
            let mut open = state.open.lock();
            open.0 += 1;
            let number = open.0;
            open.1.insert(number, question.clone());
            number
        };
        if !question.holds(state, &state.standing()) {
            state.open.lock().1.remove(&number);
            state.refuse(Key {
                reason: Some(NOT_ANY_MORE.into()),
                ..key
            });
            return Err(NOT_ANY_MORE);
        }
        state.record.add(key.clone(), 1, 0, 0);
        state.wake.notify_one();
        Ok(Arc::new(Self {
            state: Arc::clone(state),
            number,
            key,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            begun: Instant::now(),
            last: AtomicU64::new(0),
            ended: Mutex::default(),
            end,
            deadline: Instant::now() + state.bounds.total,
        }))
    }

    /// Counts bytes that passed.
    pub(super) fn count(&self, way: Way, bytes: u64) {
        let (mine, all) = match way {
            Way::Up => (&self.up, &self.state.up),
            Way::Down => (&self.down, &self.state.down),
        };
        mine.fetch_add(bytes, Ordering::Relaxed);
        all.fetch_add(bytes, Ordering::Relaxed);
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }

    /// How many bytes may still pass, of all connections of the sandbox.
    pub(super) fn room(&self, way: Way) -> u64 {
        let (all, most) = self.passed(way);
        most.saturating_sub(all)
    }

    /// Whether more have passed than may.
    pub(super) fn is_over(&self, way: Way) -> bool {
        let (all, most) = self.passed(way);
        all > most
    }

    /// Which bound that is.
    pub(super) fn too_much(&self, way: Way) -> String {
        let (_, most) = self.passed(way);
        let word = match way {
            Way::Up => "out of",
            Way::Down => "into",
        };
        format!("more than {most} bytes {word} this sandbox")
    }

    fn passed(&self, way: Way) -> (u64, u64) {
        let (all, most) = match way {
            Way::Up => (&self.state.up, self.state.bounds.up),
            Way::Down => (&self.state.down, self.state.bounds.down),
        };
        (all.load(Ordering::Relaxed), most)
    }

    pub(super) fn idle(&self) -> std::time::Duration {
        self.state.bounds.idle
    }

    /// Whether something has passed lately, whichever way.
    pub(super) fn is_busy(&self) -> bool {
        let last = std::time::Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(last) < self.idle()
    }

    /// Returns when it has lasted too long or nothing has passed for too long, and says which. Wakes
    /// when that could be.
    pub(super) async fn over(&self) -> String {
        loop {
            if Instant::now() >= self.deadline {
                return "the connection lasted too long".into();
            }
            if !self.is_busy() {
                return format!("nothing passed for {} s", self.idle().as_secs());
            }
            let last = std::time::Duration::from_millis(self.last.load(Ordering::Relaxed));
            let quiet = self.begun + last + self.idle();
            tokio::time::sleep_until(quiet.min(self.deadline)).await;
        }
    }

    /// Says what ended it, unless that was said.
    pub(super) fn ended(&self, why: impl Into<String>) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert_with(|| why.into());
    }

    /// Why its token is cancelled.
    pub(super) fn stopped(&self) -> &'static str {
        if self.state.cancel.is_cancelled() {
            "the sandbox ended"
        } else {
            NOT_ANY_MORE
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.state.open.lock().1.remove(&self.number);
        let (up, down) = (
            self.up.load(Ordering::Relaxed),
            self.down.load(Ordering::Relaxed),
        );
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = self.key.clone();
        key.reason.clone_from(&ended);
        // It was counted when it was opened; one that was cut is told as such besides.
        self.state
            .record
            .add(key, u64::from(ended.is_some()), up, down);
        self.state.wake.notify_one();
    }
}
