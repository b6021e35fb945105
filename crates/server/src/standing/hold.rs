//! The life of a holder: makes a place, serves it, and ends it.

use super::{
    berth::Berth,
    error::{Error as StandingError, Unable},
    held,
    keeper::{End, Hearing, LentOnes, given_up, written},
    kept::{Kept, Why, now},
    moments::Fork,
    more::More,
    place::{Place, Wish},
    running::{Nudge, Running},
    shown::state,
    talk::{Answer, Ask, Talk},
};
use crate::{Error, Node};
use domain::{SandboxId, Timestamp};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Clients at a time; one more is refused. As many connections as a sandbox takes leave room for others.
const CONNECTIONS: usize = 2 * sandbox::MOST_CONNECTIONS;
/// How long a client may take to ask, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the holder of a fork may take until it has its files.
const TAKES: Duration = Duration::from_secs(60);
/// How often the holder looks after its log.
const LOOK: Duration = Duration::from_secs(60);
/// How long clients may take to hear that it ends.
const TELLS: Duration = Duration::from_secs(3);
const LONGEST_NAME: usize = 64;

/// How a place is held.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// How long it is held; as long as it is to be anyway, where it was stopped and this is not given.
    pub lasts: Option<Duration>,
}

impl Order {
    /// That the name can be one, and is free.
    ///
    /// # Errors
    /// [`StandingError::Name`] and [`StandingError::NameTaken`].
    pub fn check(&self, data: &Path) -> Result<(), StandingError> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // What looks like the beginning of an id would name two things, and a command line takes what
        // begins with `-` for an option.
        let is_other = name.starts_with("x-") || name.starts_with('-');
        if name.is_empty() || name.len() > LONGEST_NAME || is_other || !name.chars().all(fits) {
            return Err(StandingError::Name { name: name.clone() });
        }
        let taken = held::list(data)?;
        match taken
            .iter()
            .find(|it| it.record.name.as_ref() == Some(name))
        {
            Some(held) => Err(StandingError::NameTaken {
                name: name.clone(),
                id: held.record.id.to_string(),
            }),
            None => Ok(()),
        }
    }
}

/// What a held place is made of.
#[derive(Debug, Clone)]
pub enum Of {
    /// Its own files: it was stopped. Of secrets and devices it gets these.
    Stopped(More),
    /// A commit of a repository.
    Commit(Wish),
    /// A snapshot of a place that another process holds.
    Snapshot(Fork),
}

impl Node {
    async fn make(&self, id: SandboxId, of: &Of, earlier: Option<&Kept>) -> Result<Place, Error> {
        match of {
            Of::Stopped(more) => match earlier {
                Some(kept) => self.resume(id, kept, more).await,
                None => Err(StandingError::Gone { id: id.to_string() }.into()),
            },
            Of::Commit(wish) => self.place(id, wish).await,
            Of::Snapshot(fork) => self.fork(id, fork).await,
        }
    }
}

/// Makes a place, or starts one again, and holds it until its time is over, a client stops or destroys it,
/// or `stop` comes.
///
/// # Errors
/// When the place cannot be made, or does not end. Of one that was to be made nothing is left then; one
/// that was to be started stays stopped.
pub async fn hold(
    node: Node,
    berth: Berth,
    of: &Of,
    order: Order,
    hearing: Hearing<'_>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut stop = std::pin::pin!(stop);
    let mut waiting = Vec::new();
    let is_new = !matches!(of, Of::Stopped(_));
    let made = async {
        let listener = berth.listen()?;
        let earlier = (!is_new).then(|| berth.kept()).transpose()?;
        let place = tokio::select! {
            made = node.make(berth.id, of, earlier.as_ref()) => made?,
            () = &mut stop => return Err(StandingError::Told.into()),
            talk = given_up(&listener), if !is_new => {
                waiting.push(talk);
                return Err(StandingError::GivenUp.into());
            }
        };
        Ok((listener, earlier, place))
    }
    .await;
    let now = node.ledger.now();
    // A place needs no ledger: others may back it up, or replace it.
    node.ledger.close().await;
    let (listener, earlier, place) = match made {
        Ok(made) => made,
        Err(error) => {
            node.sites.close(false).await;
            if is_new {
                berth.remove();
            }
            return Err(error);
        }
    };
    drop(node);
    let mut held = Held {
        berth,
        place,
        kept: None,
    };
    let begun = held.begin(order, now, earlier, hearing);
    let begun = tokio::select! {
        biased;
        begun = begun => begun,
        () = &mut stop => Ok(None),
        talk = given_up(&listener), if !is_new => {
            waiting.push(talk);
            Ok(None)
        }
    };
    let (served, end) = match begun {
        Ok(Some((ends, lent))) => {
            let Held { berth, place, kept } = held;
            let (place, ended) = serve(&listener, &berth, place, (ends, lent), stop).await;
            let Some(place) = place else {
                return Err(Error::Ended);
            };
            let (end, talk) = ended;
            waiting.extend(talk);
            held = Held { berth, place, kept };
            (Ok(()), end)
        }
        Ok(None) => (Ok(()), End::GiveUp),
        Err(error) => (Err(error), End::GiveUp),
    };
    // A new client finds nobody; who has just connected is told so.
    drop(listener);
    let closed = held.end(end, is_new).await;
    // Only now do those hear of it who asked for it.
    drop(waiting);
    closed.and(served)
}

/// A place that is ready, and what is written down of it.
struct Held {
    berth: Berth,
    place: Place,
    kept: Option<Kept>,
}

impl Held {
    /// Writes it down and lets it be found; nothing where nobody waits for it any more.
    async fn begin(
        &mut self,
        order: Order,
        now: Timestamp,
        earlier: Option<Kept>,
        hearing: Hearing<'_>,
    ) -> Result<Option<(Instant, LentOnes)>, Error> {
        let is_new = earlier.is_none();
        let kept = written(&self.place, order, now, earlier);
        if is_new {
            self.place.keep().await?;
            self.berth.write(&kept)?;
        }
        let lent = LentOnes::of(&self.berth, &self.place).await?;
        let ends = Instant::now() + kept.record.ends.since(now);
        let kept = kept.held(now);
        if !(hearing.ready)(&kept.record) || !hearing.stands.await {
            return Ok(None);
        }
        self.berth.write(&kept)?;
        self.berth.reserve(&kept);
        self.kept = Some(kept);
        (hearing.settled)();
        Ok(Some((ends, lent)))
    }

    /// Ends what runs; what becomes of the files, `end` says.
    async fn end(self, end: End, is_new: bool) -> Result<(), Error> {
        let Self { berth, place, kept } = self;
        let goes = match end {
            End::Destroy => true,
            End::GiveUp => is_new,
            End::Stop(_) => false,
        };
        if goes {
            // First: whoever is killed from here on, the files go.
            let struck = berth.strike();
            let closed = place.close().await;
            berth.remove();
            return closed.and(struck.map_err(Into::into));
        }
        let rested = place.rest().await;
        // Whatever failed, what runs in it ends with this process at the latest: it is stopped.
        let written = match (end, kept) {
            (End::Stop(why), Some(kept)) => berth.write(&kept.stopped(why, now())),
            _ => Ok(()),
        };
        rested.and(written.map_err(Into::into))
    }
}

/// Serves clients until it ends, and says how it does.
async fn serve(
    listener: &tokio::net::UnixListener,
    berth: &Berth,
    place: Place,
    (ends, lent): (Instant, LentOnes),
    stop: impl Future<Output = ()>,
) -> (Option<Place>, (End, Option<Talk>)) {
    let place = Arc::new(place);
    let (leaving, mut asked) = mpsc::channel(CONNECTIONS);
    let mut clients = JoinSet::new();
    let holder = Holder {
        place: Arc::clone(&place),
        leaving,
        ending: CancellationToken::new(),
        lent: Arc::new(lent),
    };
    let ended = tokio::select! {
        () = holder.serve(listener, berth, ends, &mut clients) => (End::Destroy, None),
        Some((end, talk)) = asked.recv() => (end, Some(talk)),
        () = stop => (End::Stop(Why::Told), None),
    };
    // What runs for clients ends with them, and they are told.
    holder.ending.cancel();
    drop(holder);
    let all_told = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(TELLS, all_told).await.is_err() {
        tracing::debug!("some clients do not hear that it ends");
    }
    clients.shutdown().await;
    (Arc::into_inner(place), ended)
}

#[derive(Clone)]
struct Holder {
    place: Arc<Place>,
    /// Clients that wait for the end that they asked for.
    leaving: mpsc::Sender<(End, Talk)>,
    /// It ends: commands are ended, and their clients told.
    ending: CancellationToken,
    lent: Arc<LentOnes>,
}

impl Holder {
    /// Serves clients until its time is over. Woken by a connection, by the end of one, and by its
    /// clock; owns the connections; ends at its time, or when it is dropped.
    async fn serve(
        &self,
        listener: &tokio::net::UnixListener,
        berth: &Berth,
        ends: Instant,
        clients: &mut JoinSet<()>,
    ) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(ends) => return,
                _ = look.tick() => berth.shorten_log(),
                Some(_ended) = clients.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (holder, talk) = (self.clone(), Talk::new(stream));
                        let is_full = clients.len() >= CONNECTIONS;
                        clients.spawn(holder.attend(talk, is_full));
                    }
                    // Out of descriptors, most likely: those that are there end.
                    Err(error) => {
                        tracing::warn!(%error, "a client could not connect");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    async fn attend(self, mut talk: Talk, is_full: bool) {
        if !talk.is_of_this_user() {
            tracing::warn!("another user asked for something");
            return;
        }
        let heard = tokio::select! {
            heard = tokio::time::timeout(PATIENCE, talk.hear::<Ask>()) => heard,
            () = self.ending.cancelled() => return,
        };
        let asked = match heard {
            Ok(Ok(Some((ask, _)))) => ask,
            other => {
                tracing::debug!(?other, "a client asked nothing");
                return;
            }
        };
        let answered = match asked {
            Ask::Destroy | Ask::Stop => {
                let end = match asked {
                    Ask::Stop => End::Stop(Why::Asked),
                    _ => End::Destroy,
                };
                let said = answer(&talk, &Answer::Ending, &[]).await;
                if self.leaving.send((end, talk)).await.is_err() {
                    tracing::debug!("it ends already");
                }
                said
            }
            _ if is_full => {
                let refused = Answer::Refused {
                    message: format!(
                        "{CONNECTIONS} commands and connections use the sandbox already; wait for one, or end some"
                    ),
                    reason: None,
                    code: None,
                    unable: Some(Unable::Busy),
                };
                answer(&talk, &refused, &[]).await
            }
            Ask::State => answer(&talk, &state(&self.place, false).await, &[]).await,
            Ask::Inspect => answer(&talk, &state(&self.place, true).await, &[]).await,
            Ask::Exec(run) => self.pass_on(&mut talk, self.place.exec(run)).await,
            Ask::Carry(carry) => self.pass_on(&mut talk, self.place.carry(carry)).await,
            Ask::Snapshot { name } => {
                let kept = self.lent.snapshot(&self.place, name).await;
                answer(&talk, &told(kept.map(Answer::Moments)), &[]).await
            }
            Ask::Lend => tokio::select! {
                lent = self.lent.lend(&self.place, &mut talk) => lent,
                // It is forgotten by whoever holds the sandbox next.
                () = self.ending.cancelled() => Ok(()),
            },
            Ask::Undo { to } => {
                let undone = self.place.undo(to).await;
                answer(&talk, &told(undone.map(Answer::Moments)), &[]).await
            }
            Ask::Connect { port } => self.connect(&mut talk, port).await,
            Ask::Watch => {
                let said = answer(&talk, &Answer::Watched, &[]).await;
                self.until_gone(&mut talk).await;
                said
            }
            Ask::Fork { id, at } => self.part(&mut talk, id, &at).await,
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "a client went away");
        }
    }

    /// Makes the files of a fork, and keeps them until its holder has them or is gone.
    async fn part(&self, talk: &mut Talk, id: SandboxId, at: &str) -> Result<(), StandingError> {
        let (origin, parting) = match self.place.part(id, at).await {
            Ok(both) => both,
            Err(error) => return answer(talk, &refused(&error), &[]).await,
        };
        answer(talk, &Answer::Forked(origin), &[]).await?;
        let taken = tokio::time::timeout(TAKES, self.until_gone(talk)).await;
        if taken.is_err() {
            tracing::warn!(%id, "the holder of a fork does not take its files");
        }
        drop(parting);
        Ok(())
    }

    /// Connects a client to what listens inside. Its place is taken until the client goes away.
    async fn connect(&self, talk: &mut Talk, port: u16) -> Result<(), StandingError> {
        let shared = match self.place.connect(port).await {
            Ok(connection) => connection.share().map(|fd| (connection, fd)),
            Err(error) => return answer(talk, &refused(&error), &[]).await,
        };
        let (connection, descriptor) = shared.map_err(StandingError::Conversation)?;
        answer(talk, &Answer::Connected, &[descriptor]).await?;
        self.until_gone(talk).await;
        drop(connection);
        Ok(())
    }

    /// Waits until a client has hung up, or the sandbox ends.
    async fn until_gone(&self, talk: &mut Talk) {
        tokio::select! {
            () = talk.until_hung_up() => {}
            () = self.ending.cancelled() => {}
        }
    }

    /// Passes on to a client what is started for it. When the client goes away, it is killed; with the
    /// sandbox, it is ended and the client told.
    async fn pass_on(
        &self,
        talk: &mut Talk,
        starting: impl Future<Output = Result<Running, Error>>,
    ) -> Result<(), StandingError> {
        let started = tokio::select! {
            started = starting => started,
            // The sandbox does not answer, and the client waits no longer.
            () = talk.until_hung_up() => return Ok(()),
            () = self.ending.cancelled() => Err(Error::Ended),
        };
        let mut running = match started {
            Ok(running) => running,
            Err(error) => return answer(talk, &refused(&error), &[]).await,
        };
        let ends = running.take_ends().map(super::Ends::into_descriptors);
        let descriptors = ends
            .transpose()
            .map_err(StandingError::Conversation)?
            .unwrap_or_default();
        answer(talk, &Answer::Started, &descriptors).await?;
        // Here they would keep a terminal from hanging up, and an output from ending.
        drop(descriptors);
        let mut ends = false;
        loop {
            tokio::select! {
                exit = running.wait() => {
                    let told = match exit {
                        Ok(exit) if ends => Answer::Ended(exit),
                        Ok(exit) => Answer::Exited(exit),
                        Err(error) => refused(&error),
                    };
                    return answer(talk, &told, &[]).await;
                }
                () = self.ending.cancelled(), if !ends => {
                    ends = true;
                    running.nudge(Nudge::Kill).await;
                }
                heard = talk.hear::<Nudge>() => match heard? {
                    Some((nudge, _)) => running.nudge(nudge).await,
                    None => return Ok(()),
                },
            }
        }
    }
}

/// A client that does not listen does not hold anything up.
pub(super) async fn answer(
    talk: &Talk,
    answer: &Answer,
    descriptors: &[std::os::fd::OwnedFd],
) -> Result<(), StandingError> {
    let said = tokio::time::timeout(PATIENCE, talk.say(answer, descriptors)).await;
    said.map_err(|_| StandingError::Conversation(std::io::ErrorKind::TimedOut.into()))?
}

fn told(done: Result<Answer, Error>) -> Answer {
    done.unwrap_or_else(|error| refused(&error))
}

pub(super) fn refused(error: &Error) -> Answer {
    Answer::Refused {
        message: domain::failure::chain(error),
        reason: error.reason(),
        code: match error {
            Error::Standing(StandingError::Program { code, .. }) => Some(*code),
            _ => None,
        },
        unable: match error {
            Error::Standing(StandingError::Unable { why, .. }) => Some(*why),
            Error::Sandbox(sandbox::Error::TooManyConnections) => Some(Unable::Busy),
            _ if is_over(error) => Some(Unable::Over),
            _ => None,
        },
    }
}

/// Whether nothing will run in the sandbox any more, whatever is asked of it.
fn is_over(error: &Error) -> bool {
    use sandbox::Error as E;
    matches!(
        error,
        Error::Sandbox(E::Gone | E::Struck { .. })
            | Error::Site(site::Error::Sandbox(E::Gone | E::Struck { .. }) | site::Error::Full(_))
    )
}
