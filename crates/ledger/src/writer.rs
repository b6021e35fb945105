//! The one thread that writes: it gathers the verbs that wait into one transaction.
//!
//! What wakes it: a verb in its queue. What it owns: the connection that writes. How it ends: a
//! close message, after which it finishes what is queued, or the last handle's end.

use crate::{
    admission::Admission,
    blob::directory::Directory,
    counts::Counts,
    durable::{Commit, Durable, Syncer},
    error::{Error, Trouble},
    event::Pending,
    kill::KillPoints,
    known::Known,
    lease,
    log::Log,
    options::{Clock, Ids},
    sql::{Key, Sql, run},
    vfs,
    wake::Wake,
};
use domain::{RequestId, SessionId, Timestamp, event::Body};
use std::{
    ops::Deref,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// The most verbs of one transaction.
pub(crate) const BATCH: usize = 512;
/// The most verbs that wait; a caller beyond it waits for its place.
pub(crate) const QUEUE: usize = 4_096;

/// How long the thread stays awake after its last verb.
const LINGER: Duration = Duration::from_micros(50);
/// Where there are so few, one transaction takes all.
const LEAST: usize = 4;
/// How long the next verbs are waited for at once; the kernel adds some fifty microseconds.
const MOMENT: Duration = Duration::from_micros(1);
/// And how often at the most.
const MOMENTS: usize = 4;

/// What every verb may use.
pub(crate) struct Context {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) lease: Duration,
    pub(crate) admission: Admission,
    /// Where all its data is.
    pub(crate) directory: PathBuf,
    /// Where owners' locks and sockets are.
    pub(crate) run: PathBuf,
    /// Where blobs are.
    pub(crate) blobs: Arc<Directory>,
}

/// What the writer is told.
pub(crate) enum Message {
    Verb(Box<dyn Task>),
    /// End the leases whose owners or times have ended.
    Sweep,
    Close,
}

/// A verb under way: one transaction's worth of work on the ledger.
pub(crate) struct Verb<'a> {
    pub(crate) sql: &'a Sql,
    pub(crate) now: Timestamp,
    pub(crate) context: &'a Context,
    pub(crate) events: Vec<Pending>,
    pub(crate) known: &'a mut Known,
    pub(crate) counts: &'a mut Counts,
    pub(crate) durable: &'a Durable,
    /// Where a test wants this process to die.
    pub(crate) kill: Option<&'a mut KillPoints>,
}

impl Deref for Verb<'_> {
    type Target = Sql;
    fn deref(&self) -> &Sql {
        self.sql
    }
}

impl Verb<'_> {
    /// A new id.
    pub(crate) fn id<K: Key>(&self) -> K {
        K::read(self.context.ids.bits().cast_signed())
    }

    /// An event that is recorded when the verb succeeds.
    pub(crate) fn event(&mut self, session: SessionId, request: Option<RequestId>, body: Body) {
        if let (Some(point), Some(step)) = (self.kill.as_mut(), body.step()) {
            point.passes(step);
        }
        self.events.push(Pending {
            session,
            request,
            body,
        });
    }
}

/// A verb that waits, with its caller.
pub(crate) trait Task: Send {
    /// Does the work; the caller is told later. False where it failed and must be undone. It may
    /// be asked again, on what others did then, until it was told that this time is the last.
    fn run(&mut self, verb: &mut Verb<'_>, last: bool) -> bool;
    /// Tells the caller, once it is durable or known to be lost.
    fn reply(self: Box<Self>, commit: Result<(), &Error>);
}

/// A verb with a result.
pub(crate) struct Call<T, F> {
    pub(crate) doing: &'static str,
    pub(crate) work: Option<F>,
    pub(crate) outcome: Option<Result<T, Error>>,
    pub(crate) reply: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Task for Call<T, F>
where
    T: Send,
    F: FnOnce(&mut Verb<'_>) -> Result<T, Trouble> + Clone + Send,
{
    fn run(&mut self, verb: &mut Verb<'_>, last: bool) -> bool {
        let work = if last {
            self.work.take()
        } else {
            self.work.clone()
        };
        let Some(work) = work else {
            return false;
        };
        let outcome = work(verb).and_then(|value| {
            crate::event::append(verb)?;
            Ok(value)
        });
        let outcome = outcome.map_err(|trouble| trouble.during(self.doing));
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn reply(self: Box<Self>, commit: Result<(), &Error>) {
        let outcome = match (commit, self.outcome) {
            (Err(error), None | Some(Ok(_))) => Err(error.clone()),
            (_, Some(outcome)) => outcome,
            (Ok(()), None) => Err(Error::Closed),
        };
        // A caller that no longer waits has not asked to undo its verb.
        drop(self.reply.send(outcome));
    }
}

/// The writing thread's state.
pub(crate) struct Writer {
    pub(crate) sql: Sql,
    pub(crate) context: Arc<Context>,
    pub(crate) wake: Arc<Wake>,
    pub(crate) durable: Arc<Durable>,
    pub(crate) syncer: Syncer,
    pub(crate) known: Known,
    pub(crate) counts: Counts,
    pub(crate) log: Log,
    /// The threads that read. They end before this one does.
    pub(crate) readers: Vec<JoinHandle<()>>,
    /// Where a test wants this process to die.
    pub(crate) kill: Option<KillPoints>,
    /// The version of the data at the last look.
    pub(crate) seen: Option<i64>,
}

impl Writer {
    pub(crate) fn work(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH);
        while self.take(&mut queue, &mut messages) {
            let mut tasks = Vec::with_capacity(messages.len());
            let mut look = false;
            for message in messages.drain(..) {
                match message {
                    Message::Verb(task) => tasks.push(task),
                    Message::Sweep => {
                        look = true;
                        tasks.push(sweep());
                    }
                    Message::Close => queue.close(),
                }
            }
            self.commit(tasks, queue.is_empty());
            self.log.keep_ahead(&self.sql, queue.is_empty());
            if look {
                self.look();
            }
        }
        // Of connections that close at the same moment none is the last, and the log stays.
        for reader in self.readers {
            if reader.join().is_err() {
                tracing::error!("a thread of the ledger ended with a panic");
            }
        }
        self.syncer.end();
        if let Err(error) = self.sql.close() {
            tracing::warn!(%error, "the ledger's connection did not close");
        }
    }

    /// Waits for the next messages; false at the queue's end.
    ///
    /// While a commit is synced, the next one is made. So callers end up in two halves, of which
    /// one is told while the other's verbs are done: no more is taken than leaves the two alike.
    fn take(&self, queue: &mut mpsc::Receiver<Message>, messages: &mut Vec<Message>) -> bool {
        linger(queue);
        if queue.blocking_recv_many(messages, 1) == 0 {
            return false;
        }
        // Whoever wants to see one step wants nothing else in its transaction.
        if self.kill.is_some() {
            return true;
        }
        let written = self.durable.verbs();
        gather(queue, written);
        let all = written + messages.len() + queue.len();
        let more = queue.len().min(all.div_ceil(2).clamp(LEAST, BATCH) - 1);
        if more > 0 {
            queue.blocking_recv_many(messages, more);
        }
        true
    }

    /// Wakes this process if another one has committed since the last look: its datagram may not
    /// have come. The number changes with the commits of other connections only.
    fn look(&mut self) {
        vfs::begin();
        let seen = self
            .sql
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .inspect_err(|error| tracing::warn!(%error, "the ledger cannot be looked at"));
        let seen: Option<i64> = seen.ok();
        if self.seen.is_some() && self.seen != seen {
            self.wake.bump();
        }
        self.seen = seen;
    }

    /// One transaction: all tasks and the commit. What makes it durable tells the callers.
    fn commit(&mut self, mut tasks: Vec<Box<dyn Task>>, is_last: bool) {
        if let Err(error) = self.durable.begin() {
            return fail(tasks, &error);
        }
        let before = self.sql.total_changes();
        let commit = match self.run(&mut tasks) {
            Ok(()) => Commit {
                // An answer that rests on what another process has just committed waits for it.
                changed: self.sql.total_changes() != before || self.known.take_others(),
                tasks,
            },
            Err(trouble) => {
                let error = trouble.during("commit");
                tracing::warn!(%error, "a transaction of the ledger failed");
                fail(tasks, &error);
                Commit {
                    changed: false,
                    tasks: Vec::new(),
                }
            }
        };
        // A caller that is alone waits for no other thread.
        if is_last && commit.tasks.len() <= 1 && self.durable.verbs() == 0 {
            self.durable.finish(vec![commit]);
        } else {
            self.syncer.hand(commit);
        }
    }

    /// A verb that fails has nearly always written nothing yet, and nothing is to be undone then.
    /// So verbs are first tried without a savepoint each, which would cost more than the verb; where
    /// one fails after all when it had written, everything is undone and done again with them.
    fn run(&mut self, tasks: &mut [Box<dyn Task>]) -> Result<(), Trouble> {
        let outcome = match self.attempt(tasks, false) {
            Ok(false) => self.attempt(tasks, true).map(|_| ()),
            other => other.map(|_| ()),
        };
        if outcome.is_err() {
            self.known.undo();
            self.counts.undo();
            // Whatever failed, the next transaction can begin.
            if !self.sql.is_autocommit() {
                run(&self.sql, "ROLLBACK", [])?;
            }
        }
        outcome
    }

    /// All tasks in one transaction. False where it was undone because savepoints are needed.
    fn attempt(&mut self, tasks: &mut [Box<dyn Task>], savepoints: bool) -> Result<bool, Trouble> {
        let alone = tasks.len() == 1;
        vfs::begin();
        run(&self.sql, "BEGIN IMMEDIATE", [])?;
        self.known.begin(&self.sql)?;
        for task in tasks {
            if savepoints {
                run(&self.sql, "SAVEPOINT verb", [])?;
            }
            let before = (self.sql.total_changes(), self.counts.added());
            let now = self.context.clock.now();
            self.known.tick(now);
            let mut verb = Verb {
                sql: &self.sql,
                now,
                context: &self.context,
                events: Vec::new(),
                known: &mut self.known,
                counts: &mut self.counts,
                durable: &self.durable,
                kill: self.kill.as_mut(),
            };
            let kept = task.run(&mut verb, alone || savepoints);
            // Some failures of the disk end the whole transaction.
            if self.sql.is_autocommit() {
                return Err(Trouble::Sql(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR),
                    Some("the transaction was undone by the storage".into()),
                )));
            }
            let written = (self.sql.total_changes(), self.counts.added()) != before;
            if !kept {
                self.known.undo();
            }
            if savepoints {
                match kept {
                    true => self.counts.store(&self.sql)?,
                    false => self.counts.undo(),
                }
            }
            match (kept, savepoints) {
                (true, true) => {
                    run(&self.sql, "RELEASE verb", [])?;
                }
                (false, true) => {
                    run(&self.sql, "ROLLBACK TO verb", [])?;
                    run(&self.sql, "RELEASE verb", [])?;
                }
                (false, false) if written => {
                    self.counts.undo();
                    run(&self.sql, "ROLLBACK", [])?;
                    return Ok(alone);
                }
                (_, false) => {}
            }
        }
        self.counts.store(&self.sql)?;
        if let Some(point) = &self.kill {
            point.before_commit();
        }
        run(&self.sql, "COMMIT", [])?;
        if let Some(point) = &mut self.kill {
            self.durable.sync()?;
            point.after_commit();
        }
        Ok(true)
    }
}

/// Waits a moment for the next verbs of callers that were just told: the more verbs share a
/// transaction, the fewer pages each of them takes. There is time while as many others are synced;
/// it ends as soon as a moment brings nothing new, and a caller that is alone never waits.
fn gather(queue: &mpsc::Receiver<Message>, written: usize) {
    let mut known = queue.len();
    for _ in 0..MOMENTS {
        if known + 1 >= written {
            return;
        }
        std::thread::park_timeout(MOMENT);
        let now = queue.len();
        if now == known {
            return;
        }
        known = now;
    }
}

/// Looks for the next verb of somebody who was just told, before the thread goes to sleep: to wake
/// it takes longer than that, for both.
fn linger(queue: &mpsc::Receiver<Message>) {
    let begun = Instant::now();
    while queue.is_empty() && begun.elapsed() < LINGER {
        std::thread::yield_now();
    }
}

/// Tells callers that nothing of their verbs was done.
fn fail(tasks: Vec<Box<dyn Task>>, error: &Error) {
    for task in tasks {
        task.reply(Err(error));
    }
}

/// A sweep as a task nobody waits for.
fn sweep() -> Box<dyn Task> {
    let (reply, _) = oneshot::channel();
    Box::new(Call {
        doing: "end the leases of lost owners",
        work: Some(|verb: &mut Verb<'_>| lease::sweep(verb)),
        outcome: None,
        reply,
    })
}
