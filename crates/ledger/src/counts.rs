//! How much is offered and held of each queue: gathered over the verbs of a transaction, and stored
//! before somebody reads it, at the latest with the transaction.
//!
//! Most verbs change a count, and often that of the same queue; each time it is stored, its place
//! in two indexes moves. Who reads counts in a verb says [`Verb::store_counts`] first. What was
//! gathered by a verb that fails goes with what it wrote.

use crate::{
    error::Trouble,
    queue::{Kind, SHARE_MICROS},
    sql::{Sql, run},
    writer::Verb,
};
use std::collections::BTreeMap;

/// What is not stored yet.
#[derive(Default)]
pub(crate) struct Counts {
    queues: BTreeMap<i64, Change>,
    /// How often something was added, whatever has become of it.
    added: u64,
}

/// What a queue has gained.
#[derive(Clone, Copy, Default)]
pub(crate) struct Change {
    pub(crate) offered: i64,
    pub(crate) held: i64,
}

impl Counts {
    /// A number that changes with every change of a count.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// Nothing of it holds: the transaction is undone.
    pub(crate) fn undo(&mut self) {
        self.queues.clear();
    }

    /// Stores all.
    pub(crate) fn store(&mut self, sql: &Sql) -> Result<(), Trouble> {
        while let Some((queue, change)) = self.queues.pop_first() {
            store(sql, queue, change)?;
        }
        Ok(())
    }
}

impl Verb<'_> {
    /// Counts what a queue of this kind gains. What its first offer is must have been written.
    pub(crate) fn count(&mut self, kind: Kind, queue: i64, offered: i64, held: i64) {
        if offered == 0 && held == 0 {
            return;
        }
        self.known.offered(kind, offered);
        self.counts.added += 1;
        let known = self.counts.queues.entry(queue).or_default();
        known.offered += offered;
        known.held += held;
    }

    /// Stores what has been counted: before counts or ranks of queues are read.
    pub(crate) fn store_counts(&mut self) -> Result<(), Trouble> {
        self.counts.store(self.sql)
    }
}

/// Stores what a queue has gained, and gives it its rank.
pub(crate) fn store(sql: &Sql, queue: i64, change: Change) -> Result<(), Trouble> {
    run(
        sql,
        "UPDATE queues SET offered = offered + ?2, held = held + ?3, \
         rank = CASE WHEN held + ?3 >= most THEN NULL \
         ELSE (SELECT MIN(place) FROM offers WHERE queue = n) + (held + ?3) * ?4 END \
         WHERE n = ?1",
        (queue, change.offered, change.held, SHARE_MICROS),
    )?;
    Ok(())
}
