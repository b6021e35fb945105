//! Making commits durable, and telling whoever waits for that.
//!
//! A commit puts its pages into the log, where every process sees them at once; the log is synced
//! by a thread of its own, so that the next verbs are done while the disk works. No caller is told
//! of a verb before its commit is synced, and no reader of this process answers with what is not.
//! After a power cut the log ends before the first commit that is not whole, so what is lost is
//! never in the middle.
//!
//! A disk that fails to sync may have dropped what it was to write, and a later sync would not say
//! so. Nothing is trusted after that: every later verb and question fails.

use crate::{
    error::Error,
    wake::{Peers, Wake},
    writer::Task,
};
use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    time::{Duration, Instant},
};

/// The most commits that wait for one sync.
const COMMITS: usize = 64;

/// How long the thread stays awake after a sync.
const LINGER: Duration = Duration::from_micros(200);

/// The most answers that wait for it.
const WAITING: usize = 4_096;

/// Runs once all that it waits for is durable, or never will be.
type Waiting = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A commit that was written, or that failed and changed nothing.
pub(crate) struct Commit {
    /// Its verbs, with their callers.
    pub(crate) tasks: Vec<Box<dyn Task>>,
    /// Whether it changed anything, or saw what another process may not have synced yet.
    pub(crate) changed: bool,
}

/// Syncs the log's file.
pub(crate) type Disk = Box<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// How far the log is written and synced, and what is told then.
pub(crate) struct Durable {
    place: Mutex<Place>,
    log: PathBuf,
    /// The log's file, once something is in it.
    file: Mutex<Option<File>>,
    wake: Arc<Wake>,
    peers: Mutex<Peers>,
    /// What tells callers that their verbs are durable.
    runtime: tokio::runtime::Handle,
    disk: Disk,
}

/// How far it is, counted in commits.
#[derive(Default)]
struct Place {
    written: u64,
    synced: u64,
    /// How many verbs are written and not synced.
    verbs: usize,
    /// Why nothing can be made durable any more.
    failed: Option<Error>,
    /// Who waits, and for which commit.
    waiting: Vec<(u64, Waiting)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Durable {
    pub(crate) fn new(
        log: PathBuf,
        wake: Arc<Wake>,
        peers: Peers,
        runtime: tokio::runtime::Handle,
        disk: Disk,
    ) -> Self {
        Self {
            place: Mutex::default(),
            log,
            file: Mutex::new(None),
            wake,
            peers: Mutex::new(peers),
            runtime,
            disk,
        }
    }

    /// A commit is about to be written: readers may see it from now on. Whatever becomes of it, it
    /// is handed to [`Durable::finish`].
    ///
    /// # Errors
    /// Why nothing can be made durable any more.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        let mut place = lock(&self.place);
        match &place.failed {
            Some(error) => Err(error.clone()),
            None => {
                place.written += 1;
                Ok(())
            }
        }
    }

    /// How many verbs are written and not synced.
    pub(crate) fn verbs(&self) -> usize {
        lock(&self.place).verbs
    }

    /// Runs this as soon as all that is visible now is durable.
    pub(crate) fn after(&self, waiting: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let mut place = lock(&self.place);
        let outcome = match &place.failed {
            Some(error) => Err(error.clone()),
            None if place.synced < place.written && place.waiting.len() >= WAITING => {
                Err(Error::Busy {
                    what: "the disk does not keep up".into(),
                    retry_after: Duration::from_secs(1),
                })
            }
            None if place.synced < place.written => {
                let commit = place.written;
                place.waiting.push((commit, Box::new(waiting)));
                return;
            }
            None => Ok(()),
        };
        drop(place);
        waiting(outcome);
    }

    /// Syncs commits, in the order in which they were begun, and tells whoever waits for them.
    pub(crate) fn finish(&self, commits: Vec<Commit>) {
        let changed = commits.iter().any(|commit| commit.changed);
        if changed {
            // Whoever waits learns of a failure below.
            drop(self.sync());
        }
        // Before the replies: a caller that waits for changes after its verb is not woken by that
        // verb.
        if changed {
            self.wake.bump();
        }
        let (outcome, waiting) = self.advance(&commits);
        let tasks = commits.into_iter().flat_map(|commit| commit.tasks);
        let replies = Replies {
            outcome: outcome.clone(),
            tasks: tasks.collect(),
        };
        // Many callers are told by their runtime: each that this thread woke would cost it a call
        // into the kernel, and the next commit waits.
        if replies.tasks.len() > 1 {
            drop(self.runtime.spawn(async move { drop(replies) }));
        } else {
            drop(replies);
        }
        for waiting in waiting {
            waiting(outcome.clone());
        }
        if changed {
            lock(&self.peers).tell();
        }
    }

    /// Syncs the log, unless that has failed once.
    ///
    /// # Errors
    /// When the disk fails or has failed, whoever asked for it: nothing may be told of as durable
    /// then.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        const DOING: &str = "make a commit durable";
        let mut file = lock(&self.file);
        if let Some(error) = &lock(&self.place).failed {
            return Err(error.clone());
        }
        let synced = match &*file {
            Some(file) => (self.disk)(file),
            None => self.first_sync().map(|opened| {
                *file = Some(opened);
            }),
        };
        synced.map_err(|error| {
            tracing::error!(%error, "the ledger's log cannot be synced: it takes nothing more");
            let error = Error::file(DOING, error);
            lock(&self.place).failed = Some(error.clone());
            error
        })
    }

    /// The log's file, synced with its entry in the directory.
    fn first_sync(&self) -> io::Result<File> {
        let file = File::open(&self.log)?;
        (self.disk)(&file)?;
        if let Some(directory) = self.log.parent() {
            File::open(directory)?.sync_data()?;
        }
        Ok(file)
    }

    /// So many commits more are synced, or nothing will ever be again.
    fn advance(&self, commits: &[Commit]) -> (Result<(), Error>, Vec<Waiting>) {
        let mut place = lock(&self.place);
        place.synced += commits.len() as u64;
        let verbs: usize = commits.iter().map(|commit| commit.tasks.len()).sum();
        place.verbs = place.verbs.saturating_sub(verbs);
        let outcome = place.failed.clone().map_or(Ok(()), Err);
        let synced = place.synced;
        let ready = place
            .waiting
            .extract_if(.., |(commit, _)| *commit <= synced || outcome.is_err())
            .map(|(_, waiting)| waiting)
            .collect();
        (outcome, ready)
    }
}

/// Verbs whose outcome is known, whose callers are told wherever this is dropped: also where the
/// runtime has ended that should have told them.
struct Replies {
    outcome: Result<(), Error>,
    tasks: Vec<Box<dyn Task>>,
}

impl Drop for Replies {
    fn drop(&mut self) {
        for task in self.tasks.drain(..) {
            task.reply(self.outcome.as_ref().copied());
        }
    }
}

/// The thread that syncs.
///
/// What wakes it: a commit. How it ends: the writer's end, after the last commit.
pub(crate) struct Syncer {
    commits: SyncSender<Commit>,
    durable: Arc<Durable>,
    thread: std::thread::JoinHandle<()>,
}

impl Syncer {
    pub(crate) fn start(durable: Arc<Durable>) -> io::Result<Self> {
        let (commits, written) = sync_channel(COMMITS);
        let shared = Arc::clone(&durable);
        let thread = std::thread::Builder::new()
            .name("ledger-sync".into())
            .spawn(move || work(&shared, &written))?;
        Ok(Self {
            commits,
            durable,
            thread,
        })
    }

    /// Hands over what was written.
    pub(crate) fn hand(&self, commit: Commit) {
        lock(&self.durable.place).verbs += commit.tasks.len();
        if let Err(error) = self.commits.send(commit) {
            // The thread is gone, which only a panic explains: its work is done here.
            self.durable.finish(vec![error.0]);
        }
    }

    /// Waits until all is synced.
    pub(crate) fn end(self) {
        drop(self.commits);
        if self.thread.join().is_err() {
            tracing::error!("the thread that syncs the ledger's log ended with a panic");
        }
    }
}

fn work(durable: &Durable, written: &Receiver<Commit>) {
    while let Some(first) = next(written) {
        let mut commits = vec![first];
        commits.extend(written.try_iter().take(COMMITS - 1));
        durable.finish(commits);
    }
}

/// The next commit. It is looked for a while before the thread goes to sleep: to wake it would keep
/// the writer from the next verbs.
fn next(written: &Receiver<Commit>) -> Option<Commit> {
    let begun = Instant::now();
    while begun.elapsed() < LINGER {
        match written.try_recv() {
            Ok(commit) => return Some(commit),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
    written.recv().ok()
}

#[cfg(test)]
mod tests {
    use super::{Durable, Peers, Wake};
    use crate::{Error, Fault, Ledger, Options};
    use domain::SessionId;
    use rusqlite::Connection;
    use std::{
        io,
        path::Path,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
    };
    use tokio::task::JoinSet;

    /// What a disk holds back until it is let go, and how often it was asked.
    #[derive(Default)]
    struct Gate {
        is_closed: AtomicBool,
        syncs: AtomicU64,
        fails: AtomicBool,
    }

    async fn on(directory: &Path, gate: &Arc<Gate>) -> Ledger {
        let gate = Arc::clone(gate);
        let disk = move |log: &std::fs::File| {
            while gate.is_closed.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            gate.syncs.fetch_add(1, Ordering::SeqCst);
            if gate.fails.load(Ordering::SeqCst) {
                return Err(io::Error::from_raw_os_error(5));
            }
            log.sync_data()
        };
        Ledger::open_on(Options::new(directory), Box::new(disk))
            .await
            .unwrap()
    }

    fn notes(ledger: &Ledger, session: SessionId, count: usize) -> JoinSet<Result<(), Error>> {
        (0..count)
            .map(|number| {
                let ledger = ledger.clone();
                async move { ledger.note(session, None, number.to_string()).await }
            })
            .collect()
    }

    /// The events that are in the file, as any process sees them.
    fn visible(directory: &Path) -> i64 {
        let file = Connection::open(directory.join("ledger.db")).unwrap();
        file.query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0))
            .unwrap()
    }

    async fn until(mut holds: impl FnMut() -> bool) {
        while !holds() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_is_told_of_what_the_disk_has_not_yet() {
        let directory = tempfile::tempdir().unwrap();
        let gate = Arc::new(Gate::default());
        let ledger = on(directory.path(), &gate).await;
        let session = ledger.session("s").await.unwrap();
        let before = visible(directory.path());
        let syncs = gate.syncs.load(Ordering::SeqCst);
        gate.is_closed.store(true, Ordering::SeqCst);
        // Verbs are done while an earlier commit waits for the disk: all of them can be seen. The
        // first is not alone in the queue, or the thread that writes would wait for the disk itself.
        let begun = Arc::new(AtomicBool::new(false));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let (other, begins) = (ledger.clone(), Arc::clone(&begun));
        let first = tokio::spawn(async move {
            let wait = move |_: &mut crate::writer::Verb<'_>| {
                begins.store(true, Ordering::SeqCst);
                drop(wait.lock().map(|wait| wait.recv()));
                Ok(())
            };
            other.write("wait for others", wait).await
        });
        until(|| begun.load(Ordering::SeqCst)).await;
        let mut verbs = notes(&ledger, session, 20);
        let queue = ledger.weak_writer().upgrade().unwrap();
        until(|| queue.max_capacity() - queue.capacity() >= 20).await;
        drop((go, queue));
        until(|| visible(directory.path()) == before + 20).await;
        let reader = ledger.clone();
        let mut read = tokio::spawn(async move { reader.last_sequence(session).await });
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
            assert!(verbs.try_join_next().is_none(), "a verb has returned");
            assert!(!read.is_finished(), "a question was answered");
        }
        gate.is_closed.store(false, Ordering::SeqCst);
        while let Some(verb) = verbs.join_next().await {
            verb.unwrap().unwrap();
        }
        first.await.unwrap().unwrap();
        let last = (&mut read).await.unwrap().unwrap();
        assert_eq!(i64::try_from(last).unwrap(), before + 20);
        let taken = gate.syncs.load(Ordering::SeqCst) - syncs;
        assert!(
            taken < 20,
            "{taken} syncs for 20 verbs that waited together"
        );
        ledger.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_fails_to_sync_is_trusted_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let gate = Arc::new(Gate::default());
        let ledger = on(directory.path(), &gate).await;
        let session = ledger.session("s").await.unwrap();
        let failed = |error: Error| {
            let Error::Storage { kind, .. } = &error else {
                panic!("{error:?}");
            };
            assert_eq!(*kind, Fault::Io, "{error}");
        };
        gate.fails.store(true, Ordering::SeqCst);
        failed(ledger.note(session, None, "lost?").await.unwrap_err());
        gate.fails.store(false, Ordering::SeqCst);
        let syncs = gate.syncs.load(Ordering::SeqCst);
        failed(ledger.note(session, None, "after").await.unwrap_err());
        failed(ledger.last_sequence(session).await.unwrap_err());
        assert_eq!(
            gate.syncs.load(Ordering::SeqCst),
            syncs,
            "it is not tried again"
        );
        ledger.close().await;
        // Whoever opens it anew goes on with what is there.
        let ledger = Ledger::open(Options::new(directory.path())).await.unwrap();
        ledger.note(session, None, "again").await.unwrap();
        assert!(ledger.check().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_sync_that_fails_ends_it_whoever_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        std::fs::write(&log, "").unwrap();
        let tries = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&tries);
        let disk = move |_: &std::fs::File| {
            counted.fetch_add(1, Ordering::SeqCst);
            Err(io::Error::from_raw_os_error(5))
        };
        let durable = Durable::new(
            log,
            Arc::new(Wake::new(None)),
            Peers::new(directory.path().into(), None),
            tokio::runtime::Handle::current(),
            Box::new(disk),
        );
        durable.begin().unwrap();
        // Who removes blobs syncs before it does.
        assert!(durable.sync().is_err());
        assert!(durable.sync().is_err() && durable.begin().is_err());
        assert_eq!(tries.load(Ordering::SeqCst), 1, "it is not tried again");
    }

    /// What a power cut leaves is no more than what was synced, and no less.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_acknowledged_is_on_the_disk_after_a_power_cut() {
        let directory = tempfile::tempdir().unwrap();
        let cuts = tempfile::tempdir().unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let (from, to, counted) = (
            directory.path().to_owned(),
            cuts.path().to_owned(),
            Arc::clone(&count),
        );
        // At each sync: a copy of what is on the disk from then on.
        let disk = move |_: &std::fs::File| {
            let cut = to.join(counted.load(Ordering::SeqCst).to_string());
            std::fs::create_dir(&cut)?;
            for name in ["ledger.db", "ledger.db-wal"] {
                std::fs::copy(from.join(name), cut.join(name))?;
            }
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let ledger = Ledger::open_on(Options::new(directory.path()), Box::new(disk))
            .await
            .unwrap();
        let session = ledger.session("s").await.unwrap();
        for round in 0..20u64 {
            let mut verbs = notes(&ledger, session, 7);
            while let Some(verb) = verbs.join_next().await {
                verb.unwrap().unwrap();
            }
            let last = count.load(Ordering::SeqCst) - 1;
            let cut = cuts.path().join(last.to_string());
            assert_eq!(visible(&cut), 1 + 7 * (i64::try_from(round).unwrap() + 1));
        }
        ledger.close().await;
        for cut in 0..count.load(Ordering::SeqCst) {
            let cut = cuts.path().join(cut.to_string());
            let ledger = Ledger::open(Options::new(&cut)).await.unwrap();
            assert!(ledger.check().await.unwrap().is_empty());
            ledger.close().await;
        }
    }
}
