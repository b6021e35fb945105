//! The handle: how a ledger is opened, asked and closed.

use crate::{
    blob::directory::Directory,
    durable::{Disk, Durable, Syncer},
    error::{Error, Trouble},
    lease,
    log::Log,
    opening,
    options::Options,
    owner, reader, schema,
    sql::Sql,
    subscription::Tails,
    wake::{self, Wake},
    writer::{self, Call, Context, Message, Verb, Writer},
};
use std::{
    fs::File,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::{mpsc, oneshot, watch};

/// The ledger. Cheap to clone; all clones are the same ledger, and it ends with the last one.
///
/// A verb is one transaction: its change of state and its events, durable when it returns. A verb
/// whose caller stops waiting may still be done.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    writer: mpsc::Sender<Message>,
    reader: mpsc::Sender<reader::Message>,
    wake: Arc<Wake>,
    context: Arc<Context>,
    tails: Tails,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Writer and readers end with their queues.
        self.stop_listening();
    }
}

impl Inner {
    fn stop_listening(&self) {
        self.wake.stop();
        for thread in self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            thread.thread().unpark();
        }
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger")
    }
}

impl Ledger {
    /// Opens the ledger in a directory, and makes it where there is none. Leases whose owners
    /// have ended end here. Its verbs are answered by the runtime that it is opened in, which must
    /// go on as long as it is used.
    ///
    /// # Errors
    /// When the directory cannot be used, or was written by a newer Skep; [`Error::RowsLost`].
    pub async fn open(options: Options) -> Result<Self, Error> {
        let disk = Box::new(|log: &File| log.sync_data());
        Self::open_on(options, disk).await
    }

    /// The same, with what syncs its log.
    pub(crate) async fn open_on(options: Options, disk: Disk) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::current();
        let ledger = tokio::task::spawn_blocking(move || Self::start(&options, runtime, disk))
            .await
            .map_err(|_| Error::Closed)??;
        ledger
            .write("end the leases of lost owners", lease::sweep)
            .await?;
        Ok(ledger)
    }

    fn start(
        options: &Options,
        runtime: tokio::runtime::Handle,
        disk: Disk,
    ) -> Result<Self, Error> {
        let file = |error| Error::file("make its directory", error);
        opening::look(&options.directory)?;
        make_directory(&options.directory).map_err(file)?;
        let directory = options.directory.canonicalize().map_err(file)?;
        let run = directory.join("run");
        make_directory(&run).map_err(file)?;
        let blobs = Arc::new(Directory::open(
            directory.join("blobs"),
            Arc::clone(&options.ids),
        )?);
        schema::migrate(&directory)?;

        owner::tidy(&run);
        let (writer, writing) = mpsc::channel(writer::QUEUE);
        let (reader, reading) = mpsc::channel(reader::QUEUE);
        let (socket, path) = wake::bind(&run, options.ids.bits(), options.tick);
        let wake = Arc::new(Wake::new(path.clone()));
        let context = Arc::new(Context {
            clock: Arc::clone(&options.clock),
            ids: Arc::clone(&options.ids),
            lease: options.lease,
            admission: options.admission,
            directory: directory.clone(),
            run: run.clone(),
            blobs,
        });
        let log = Log::new(&directory);
        let durable = Arc::new(Durable::new(
            log.path().to_owned(),
            Arc::clone(&wake),
            wake::Peers::new(run, path),
            runtime,
            disk,
        ));
        let sql = schema::connect_deferred(&directory)
            .map_err(|trouble| trouble.during("open its file"))?;
        let syncer = Syncer::start(Arc::clone(&durable))
            .map_err(|error| Error::file("start a thread", error))?;
        let reading = Arc::new(Mutex::new(reading));
        let mut readers = Vec::with_capacity(reader::READERS);
        for _ in 0..reader::READERS {
            let sql = schema::connect(&directory, false)
                .map_err(|trouble| trouble.during("open its file"))?;
            let (queue, durable) = (Arc::clone(&reading), Arc::clone(&durable));
            readers.push(spawn("ledger-read", move || {
                reader::work(&Sql::from(sql), &queue, &durable);
            })?);
        }
        let work = {
            let (context, wake, durable) = (
                Arc::clone(&context),
                Arc::clone(&wake),
                Arc::clone(&durable),
            );
            move || {
                let writer = Writer {
                    sql: sql.into(),
                    context,
                    wake,
                    syncer,
                    durable,
                    known: Default::default(),
                    counts: Default::default(),
                    log,
                    readers,
                    kill: crate::kill::KillPoints::wanted(),
                    seen: None,
                };
                writer.work(writing);
            }
        };
        let mut threads = vec![spawn("ledger-write", work)?];
        let (listening, weak, tick) = (Arc::clone(&wake), writer.downgrade(), options.tick);
        threads.push(spawn("ledger-wake", move || {
            wake::listen(socket, &listening, &weak, tick);
        })?);
        Ok(Self(Arc::new(Inner {
            writer,
            reader,
            wake,
            context,
            tails: Tails::default(),
            threads: Mutex::new(threads),
        })))
    }

    /// Finishes what is queued and ends the threads. Every later verb, of any clone, fails with
    /// [`Error::Closed`].
    pub async fn close(&self) {
        // An error means that the thread has ended already.
        drop(self.0.writer.send(Message::Close).await);
        drop(self.0.reader.send(reader::Message::Close).await);
        self.0.stop_listening();
        let threads = std::mem::take(
            &mut *self
                .0
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().fold(true, |all, thread| {
                let ended = thread.join().is_ok();
                all && ended
            })
        })
        .await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("a thread of the ledger ended with a panic");
        }
        // Whoever waits looks, and finds the ledger closed.
        self.0.wake.bump();
    }

    /// A counter that changes after each commit, of this process or of another one. Wait for it
    /// to change, look, and wait again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.wake.subscribe()
    }

    /// The time by the ledger's clock.
    #[must_use]
    pub fn now(&self) -> domain::Timestamp {
        self.0.context.clock.now()
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.0.context
    }

    /// Where its data is.
    pub(crate) fn directory(&self) -> &Path {
        &self.0.context.directory
    }

    pub(crate) fn blobs(&self) -> &Arc<Directory> {
        &self.0.context.blobs
    }

    pub(crate) fn tails(&self) -> &Tails {
        &self.0.tails
    }

    pub(crate) fn weak_writer(&self) -> mpsc::WeakSender<Message> {
        self.0.writer.downgrade()
    }

    /// A verb: work in a transaction of its own, durable when it returns. The work is done again
    /// where another one, in the same commit, has to be undone.
    pub(crate) async fn write<T, F>(&self, doing: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Verb<'_>) -> Result<T, Trouble> + Clone + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            doing,
            work: Some(work),
            outcome: None,
            reply,
        };
        self.0
            .writer
            .send(Message::Verb(Box::new(call)))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// A question: it sees everything that was committed before it was asked, and what it answers
    /// is durable.
    pub(crate) async fn read<T, F>(&self, doing: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Sql) -> Result<T, Trouble> + Send + 'static,
    {
        let (question, answer) = reader::question(doing, work);
        self.0
            .reader
            .send(reader::Message::Ask(question))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// What is in it is for its user alone.
fn make_directory(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| Error::file("start a thread", error))
}
