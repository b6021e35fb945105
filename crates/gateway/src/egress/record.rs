//! What was decided, folded, for whoever records it.

use async_trait::async_trait;
use domain::egress::Part;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Different decisions that are told apart by their paths, of the allowed ones and of the refused ones
/// each.
const WITH_PATHS: usize = 100;
/// Different decisions that are told apart at all, of each.
const APART: usize = 250;
/// The longest wait before what was decided again is told again.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest reason that is told, in bytes.
const REASON_BYTES: usize = 500;
/// The host of what is not told apart any more.
const OTHERS: &str = "(others)";

/// Something that was decided, perhaps several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who asked.
    pub part: Part,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The method, where it is known.
    pub method: Option<String>,
    /// The path without its query, where it is known.
    pub path: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Whether it was allowed.
    pub allowed: bool,
    /// Why it was refused, or what ended it.
    pub reason: Option<String>,
    /// How often since it was told last.
    pub count: u64,
    /// Bytes that left since then.
    pub up: u64,
    /// Bytes that came in since then.
    pub down: u64,
    /// Whether the answer was one that is kept, and nothing was connected to.
    pub cached: bool,
}

/// Is told of decisions.
#[async_trait]
pub trait Witness: Send + Sync {
    /// These were made, the oldest first. What cannot be recorded is its own concern.
    async fn saw(&self, decisions: Vec<Seen>);
}

/// What makes a decision the same as another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) rule: Option<String>,
    pub(super) allowed: bool,
    pub(super) reason: Option<String>,
    pub(super) cached: bool,
}

#[derive(Debug)]
struct Entry {
    order: usize,
    count: u64,
    up: u64,
    down: u64,
    due: Instant,
    wait: Duration,
}

impl Entry {
    const fn is_dirty(&self) -> bool {
        self.count > 0 || self.up > 0 || self.down > 0
    }
}

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<Key, Entry>,
    /// How many of them were refused, and allowed.
    apart: [usize; 2],
    /// How many events were told of what was refused, and allowed.
    told: [usize; 2],
}

pub(super) struct Record {
    part: Part,
    witness: Arc<dyn Witness>,
    most: usize,
    book: Mutex<Book>,
}

impl Record {
    pub(super) fn new(part: Part, witness: Arc<dyn Witness>, most: usize) -> Self {
        Self {
            part,
            witness,
            most,
            book: Mutex::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a decision, or bytes of one that was counted.
    pub(super) fn add(&self, mut key: Key, count: u64, up: u64, down: u64) {
        // It may hold words of a server: all the names in its certificate, say.
        if let Some(reason) = &mut key.reason {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        }
        let mut book = self.book();
        // Room of their own: what is refused a thousand times hides nothing that was allowed.
        let of_a_kind = book.apart.get(usize::from(key.allowed)).copied();
        let of_a_kind = of_a_kind.unwrap_or_default();
        if !book.entries.contains_key(&key) && of_a_kind >= WITH_PATHS {
            key.path = None;
        }
        if !book.entries.contains_key(&key) && of_a_kind >= APART {
            key = Key {
                host: OTHERS.into(),
                port: 0,
                method: None,
                path: None,
                rule: None,
                allowed: key.allowed,
                reason: None,
                cached: false,
            };
        }
        let order = book.entries.len();
        if !book.entries.contains_key(&key)
            && let Some(apart) = book.apart.get_mut(usize::from(key.allowed))
        {
            *apart += 1;
        }
        let entry = book.entries.entry(key).or_insert_with(|| Entry {
            order,
            count: 0,
            up: 0,
            down: 0,
            due: Instant::now(),
            wait: Duration::from_secs(1),
        });
        entry.count = entry.count.saturating_add(count);
        entry.up = entry.up.saturating_add(up);
        entry.down = entry.down.saturating_add(down);
    }

    /// When something is to be told next.
    pub(super) fn due(&self) -> Option<Instant> {
        let book = self.book();
        let dirty = book.entries.iter().filter(|(key, entry)| {
            let told = book.told.get(usize::from(key.allowed));
            entry.is_dirty() && told.is_some_and(|told| *told < self.most / 2)
        });
        dirty.map(|(_, entry)| entry.due).min()
    }

    /// Tells what is due, or at the end all. Past the most events the end is told as one for what was
    /// allowed and one for what was refused.
    pub(super) async fn write(&self, is_end: bool) {
        let ready = self.take(is_end);
        if !ready.is_empty() {
            self.witness.saw(ready).await;
        }
    }

    fn take(&self, is_end: bool) -> Vec<Seen> {
        let mut book = self.book();
        let now = Instant::now();
        let Book { entries, told, .. } = &mut *book;
        let mut ready: Vec<(usize, Seen)> = Vec::new();
        let mut rest = [(0, 0, 0); 2];
        for (key, entry) in entries.iter_mut() {
            if !entry.is_dirty() || !(is_end || entry.due <= now) {
                continue;
            }
            let Some(told) = told.get_mut(usize::from(key.allowed)) else {
                continue;
            };
            if *told >= self.most / 2 {
                if is_end && let Some(sums) = rest.get_mut(usize::from(key.allowed)) {
                    sums.0 += entry.count;
                    sums.1 += entry.up;
                    sums.2 += entry.down;
                }
                continue;
            }
            *told += 1;
            ready.push((entry.order, self.seen(key, entry)));
            (entry.count, entry.up, entry.down) = (0, 0, 0);
            entry.due = now + entry.wait;
            entry.wait = (entry.wait * 2).min(LONGEST);
        }
        ready.sort_by_key(|(order, _)| *order);
        let mut ready: Vec<Seen> = ready.into_iter().map(|(_, seen)| seen).collect();
        for (allowed, (count, up, down)) in [false, true].into_iter().zip(rest) {
            if count > 0 || up > 0 || down > 0 {
                ready.push(Seen {
                    part: self.part,
                    host: OTHERS.into(),
                    port: 0,
                    method: None,
                    path: None,
                    rule: None,
                    allowed,
                    reason: None,
                    count,
                    up,
                    down,
                    cached: false,
                });
            }
        }
        ready
    }

    fn seen(&self, key: &Key, entry: &Entry) -> Seen {
        Seen {
            part: self.part,
            host: key.host.clone(),
            port: key.port,
            method: key.method.clone(),
            path: key.path.clone(),
            rule: key.rule.clone(),
            allowed: key.allowed,
            reason: key.reason.clone(),
            count: entry.count,
            up: entry.up,
            down: entry.down,
            cached: key.cached,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf;

    #[async_trait]
    impl Witness for Deaf {
        async fn saw(&self, _: Vec<Seen>) {}
    }

    fn key(host: &str, path: &str) -> Key {
        Key {
            host: host.into(),
            port: 443,
            method: Some("GET".into()),
            path: Some(path.into()),
            rule: None,
            allowed: false,
            reason: None,
            cached: false,
        }
    }

    #[tokio::test]
    async fn equal_decisions_are_one_event_with_a_count() {
        let record = Record::new(Part::Agent, Arc::new(Deaf), 10);
        for _ in 0..5 {
            record.add(key("a.test", "/"), 1, 2, 3);
        }
        let told = record.take(false);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].count, told[0].up, told[0].down), (5, 10, 15));
        record.add(key("a.test", "/"), 1, 0, 0);
        assert!(record.take(false).is_empty(), "it waits for more");
        assert_eq!(record.take(true)[0].count, 1);
    }

    #[tokio::test]
    async fn however_much_is_decided_the_events_are_bounded_and_the_counts_are_right() {
        let record = Record::new(Part::Agent, Arc::new(Deaf), 50);
        let mut told = Vec::new();
        for number in 0..5_000 {
            record.add(key(&format!("h{number}.test"), "/"), 1, 0, 0);
            told.extend(record.take(false));
        }
        told.extend(record.take(true));
        assert!(told.len() <= 52, "{}", told.len());
        assert_eq!(told.iter().map(|seen| seen.count).sum::<u64>(), 5_000);
        assert!(record.book().entries.len() <= APART + 2);
    }

    #[tokio::test]
    async fn what_is_refused_a_thousand_times_hides_nothing_that_is_allowed() {
        let record = Record::new(Part::Agent, Arc::new(Deaf), 1_000);
        for number in 0..5_000 {
            record.add(key(&format!("h{number}.test"), "/"), 1, 0, 0);
            record.take(false);
        }
        let allowed = Key {
            allowed: true,
            reason: Some("x".repeat(10_000)),
            ..key("a.test", "/secret")
        };
        record.add(allowed, 1, 7, 0);
        let told = record.take(false);
        let allowed = told.iter().find(|seen| seen.allowed).unwrap();
        assert_eq!((allowed.host.as_str(), allowed.up), ("a.test", 7));
        assert_eq!(allowed.path.as_deref(), Some("/secret"));
        assert_eq!(allowed.reason.as_ref().map(String::len), Some(REASON_BYTES));
    }
}
