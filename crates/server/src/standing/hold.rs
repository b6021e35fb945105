//! The life of a holder: makes a place, serves it, and ends it.

use super::{
    berth::{Berth, Record},
    error::Error as StandingError,
    held,
    moments::Fork,
    place::{Place, Wish},
    running::{Nudge, Running},
    shown::state,
    talk::{Answer, Ask, Talk},
};
use crate::{Error, Node};
use domain::{SandboxId, Timestamp};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// Clients at a time; one more is refused. As many connections as a sandbox takes leave room for others.
const CONNECTIONS: usize = 2 * sandbox::MOST_CONNECTIONS;
/// How long a client may take to ask, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the holder of a fork may take until it has its files.
const TAKES: Duration = Duration::from_secs(60);
/// How often the holder looks after its log.
const LOOK: Duration = Duration::from_secs(60);
const LONGEST_NAME: usize = 64;

/// How a place is held.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// How long it is held.
    pub lasts: Duration,
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
        // What looks like the beginning of an id would name two things.
        let is_id = name.starts_with("x-");
        if name.is_empty() || name.len() > LONGEST_NAME || is_id || !name.chars().all(fits) {
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
    /// A commit of a repository.
    Commit(Wish),
    /// A snapshot of a place that another process holds.
    Snapshot(Fork),
}

impl Node {
    async fn make(&self, id: SandboxId, of: &Of) -> Result<Place, Error> {
        match of {
            Of::Commit(wish) => self.place(id, wish).await,
            Of::Snapshot(fork) => self.fork(id, fork).await,
        }
    }
}

/// Makes a place and holds it until its time is over, a client destroys it, or `stop` comes. `ready`
/// hears of it once it can be used; if that says that nobody waits for it any more, it ends at once.
///
/// # Errors
/// When the place cannot be made, or does not end. Nothing of it is left.
pub async fn hold(
    node: Node,
    berth: Berth,
    of: &Of,
    order: Order,
    ready: impl FnOnce(&Record) -> bool,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut stop = std::pin::pin!(stop);
    let made = tokio::select! {
        made = node.make(berth.id, of) => made,
        () = &mut stop => Err(Error::Ended),
    };
    let now = node.ledger.now();
    // A place needs no ledger: others may back it up, or replace it.
    node.ledger.close().await;
    let place = match made {
        Ok(place) => Arc::new(place),
        Err(error) => {
            node.sites.close(false).await;
            berth.remove();
            return Err(error);
        }
    };
    drop(node);
    let held = begin(&berth, &place, order, now, ready);
    let (leaving, mut asked) = mpsc::channel(CONNECTIONS);
    let mut clients = JoinSet::new();
    let mut waiting = Vec::new();
    let served = match held {
        Ok(Some((listener, ends))) => {
            let holder = Holder {
                place: Arc::clone(&place),
                leaving,
            };
            tokio::select! {
                () = holder.serve(&listener, &berth, ends, &mut clients) => {}
                Some(talk) = asked.recv() => waiting.push(talk),
                () = &mut stop => {}
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
    };
    // What runs for clients ends with them.
    clients.shutdown().await;
    let closed = match Arc::into_inner(place) {
        Some(place) => place.close().await,
        None => Err(Error::Ended),
    };
    berth.remove();
    // Only now do those hear of it who asked for it.
    drop(waiting);
    closed.and(served)
}

type Begun = Option<(tokio::net::UnixListener, Instant)>;

/// Lets the place be found; nothing where nobody waits for it any more.
fn begin(
    berth: &Berth,
    place: &Place,
    order: Order,
    now: Timestamp,
    ready: impl FnOnce(&Record) -> bool,
) -> Result<Begun, StandingError> {
    let listener = berth.listen()?;
    let ends = Instant::now() + order.lasts;
    let record = Record {
        id: place.id,
        name: order.name,
        repository: place.repository.clone(),
        commit: place.commit.clone(),
        kind: place.kind(),
        image: place.image(),
        fork_of: place.fork_of.clone(),
        also: place.also.iter().map(Into::into).collect(),
        beside: place.beside.iter().map(Into::into).collect(),
        given: place.given.clone(),
        created: now,
        ends: now.plus(order.lasts),
        pid: std::process::id(),
    };
    berth.write(&record)?;
    Ok(ready(&record).then_some((listener, ends)))
}

#[derive(Clone)]
struct Holder {
    place: Arc<Place>,
    /// Clients that wait for the end.
    leaving: mpsc::Sender<Talk>,
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
        let asked = match tokio::time::timeout(PATIENCE, talk.hear::<Ask>()).await {
            Ok(Ok(Some((ask, _)))) => ask,
            other => {
                tracing::debug!(?other, "a client asked nothing");
                return;
            }
        };
        let answered = match asked {
            Ask::Destroy => {
                let said = answer(&talk, &Answer::Ending, &[]).await;
                if self.leaving.send(talk).await.is_err() {
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
                    unable: None,
                };
                answer(&talk, &refused, &[]).await
            }
            Ask::State => answer(&talk, &state(&self.place, false).await, &[]).await,
            Ask::Inspect => answer(&talk, &state(&self.place, true).await, &[]).await,
            Ask::Exec(run) => pass_on(&mut talk, self.place.exec(run).await).await,
            Ask::Carry(carry) => pass_on(&mut talk, self.place.carry(carry).await).await,
            Ask::Snapshot { name } => {
                let kept = self.place.snapshot(name).await;
                answer(&talk, &told(kept.map(Answer::Moments)), &[]).await
            }
            Ask::Undo { to } => {
                let undone = self.place.undo(to).await;
                answer(&talk, &told(undone.map(Answer::Moments)), &[]).await
            }
            Ask::Connect { port } => self.connect(&mut talk, port).await,
            Ask::Watch => {
                let said = answer(&talk, &Answer::Watched, &[]).await;
                talk.until_hung_up().await;
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
        let taken = tokio::time::timeout(TAKES, talk.until_hung_up()).await;
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
        talk.until_hung_up().await;
        drop(connection);
        Ok(())
    }
}

/// Passes on to a client what was started for it. When the client goes away, it is killed.
async fn pass_on(talk: &mut Talk, started: Result<Running, Error>) -> Result<(), StandingError> {
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
    loop {
        tokio::select! {
            exit = running.wait() => {
                let told = exit.map_or_else(|error| refused(&error), Answer::Exited);
                return answer(talk, &told, &[]).await;
            }
            heard = talk.hear::<Nudge>() => match heard? {
                Some((nudge, _)) => running.nudge(nudge).await,
                None => return Ok(()),
            },
        }
    }
}

/// A client that does not listen does not hold anything up.
async fn answer(
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
            _ => None,
        },
    }
}
