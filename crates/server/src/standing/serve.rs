//! What a holder does for its clients, while it holds a place.

use super::{
    berth::Berth,
    error::{Error as StandingError, Unable},
    keeper::{End, LentOnes},
    kept::Why,
    place::Place,
    running::{Nudge, Running},
    said::Told,
    shown::state,
    talk::{Answer, Ask, Talk},
};
use crate::Error;
use domain::SandboxId;
use std::{sync::Arc, time::Duration};
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

/// Serves clients until it ends, and says how it does.
pub(super) async fn serve(
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

    /// Hears from a client what the command printed last, if the client says it, which it may after all that
    /// it did to it.
    async fn hear_of(
        &self,
        talk: &mut Talk,
        exit: sandbox::Exit,
        refused: Vec<sandbox::Call>,
    ) -> Result<(), StandingError> {
        let said = async {
            while let Some((said, _)) = talk.hear::<serde_json::Value>().await? {
                if let Ok(told) = serde_json::from_value::<Told>(said) {
                    self.place.remember(exit, refused, told);
                    break;
                }
            }
            Ok(())
        };
        tokio::select! {
            said = tokio::time::timeout(PATIENCE, said) => said.unwrap_or(Ok(())),
            () = self.ending.cancelled() => Ok(()),
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
                        Ok(exit) => {
                            answer(talk, &Answer::Exited(exit), &[]).await?;
                            return self.hear_of(talk, exit, running.refused().to_vec()).await;
                        }
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
