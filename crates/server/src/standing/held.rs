//! What others do with a place that a process holds.

use super::{
    berth::{self, Record},
    berths::{self, Damaged},
    error::Error,
    kept::{Standing, Status},
    moments::{Moments, Origin},
    running::{Run, Running},
    talk::{Answer, Ask, Stays, Talk},
};
use crate::Error as NodeError;
use domain::SandboxId;
use sandbox::{Carry, Connection};
use serde::Serialize;
use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, Instant},
};

/// How long a holder may take to answer, and to end.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const READS_WITHIN: Duration = Duration::from_secs(120);
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const LOOKS: Duration = Duration::from_millis(10);

/// A sandbox that a process holds, or one that was stopped.
#[derive(Debug)]
pub struct Held {
    /// What is known of it.
    pub record: Record,
    /// Whether anything can run in it.
    pub standing: Standing,
    directory: File,
}

/// A sandbox, and how it is.
#[derive(Debug, Serialize)]
pub struct State {
    /// What is known of it.
    #[serde(flatten)]
    pub record: Record,
    /// Whether anything can run in it.
    #[serde(flatten)]
    pub standing: Standing,
    /// What its holder says; nothing where it has none, or that does not answer.
    pub state: Option<serde_json::Value>,
}

/// An answer, the descriptors beside it, and the conversation that goes on.
type Answered = (Answer, Vec<std::os::fd::OwnedFd>, Talk);

/// A snapshot that goes with this value, unless it is to stay.
#[derive(Debug)]
pub struct Lent {
    /// Its name.
    pub snapshot: String,
    talk: Talk,
}

impl Lent {
    /// It stays.
    ///
    /// # Errors
    /// When the holder has ended, or cannot write it down: it may go then.
    pub async fn keep(mut self) -> Result<(), Error> {
        let kept = async {
            self.talk.say(&Stays, &[]).await?;
            let gone = || Error::Conversation(io::ErrorKind::UnexpectedEof.into());
            match self.talk.hear().await? {
                Some((Answer::Kept, _)) => Ok(()),
                Some((answer, _)) => Err(answer.into_error(gone)),
                None => Err(gone()),
            }
        };
        let kept = tokio::time::timeout(ANSWERS_WITHIN, kept).await;
        kept.map_err(|_| Error::Conversation(std::io::ErrorKind::TimedOut.into()))?
    }
}

/// All of them, the oldest first. What is past its time is removed, and what dead holders left half made.
///
/// # Errors
/// When they cannot be looked at.
pub fn list(data: &Path) -> Result<Vec<Held>, Error> {
    Ok(list_all(data)?.0)
}

/// As [`list`], and those of which something cannot be read.
///
/// # Errors
/// When they cannot be looked at.
pub fn list_all(data: &Path) -> Result<(Vec<Held>, Vec<Damaged>), Error> {
    let (whole, damaged) = berths::found(data)?;
    let whole = whole
        .into_iter()
        .map(|(record, standing, directory)| Held {
            record,
            standing,
            directory,
        })
        .collect();
    Ok((whole, damaged))
}

/// The one with this id or this name, whole: for what cannot be taken back.
///
/// # Errors
/// [`Error::NotFound`]; what is wrong with it, of one that is damaged.
pub fn find_whole(data: &Path, name: &str) -> Result<Held, Error> {
    let (mut all, mut damaged) = list_all(data)?;
    take_whole(&mut all, &mut damaged, name)
}

/// As [`find_whole`], out of those that are here.
///
/// # Errors
/// [`Error::NotFound`]; what is wrong with it, of one that is damaged.
pub fn take_whole(
    all: &mut Vec<Held>,
    damaged: &mut Vec<Damaged>,
    name: &str,
) -> Result<Held, Error> {
    if let Some(place) = all.iter().position(|held| held.is_called(name)) {
        return Ok(all.remove(place));
    }
    let begins = |held: &&Held| !name.is_empty() && held.begins_with(name);
    Err(match all.iter().find(begins) {
        Some(held) => Error::NotWhole {
            name: name.into(),
            id: held.record.id.to_string(),
        },
        None => missing(damaged, name),
    })
}

/// Why there is none of this id or name.
fn missing(damaged: &mut Vec<Damaged>, name: &str) -> Error {
    match damaged.iter().position(|it| it.id.to_string() == name) {
        Some(place) => damaged.remove(place).why,
        None => Error::NotFound { name: name.into() },
    }
}

/// The one with this id, this name, or an id or a name that begins like this.
///
/// # Errors
/// [`Error::NotFound`] and [`Error::Ambiguous`]; what is wrong with it, of one that is damaged and whose
/// whole id this is.
pub fn find(data: &Path, name: &str) -> Result<Held, Error> {
    let (mut all, mut damaged) = list_all(data)?;
    let exact = all.iter().position(|held| held.is_called(name));
    let places: Vec<usize> = match exact {
        Some(place) => vec![place],
        None => (0..all.len())
            .filter(|place| all.get(*place).is_some_and(|held| held.begins_with(name)))
            .collect(),
    };
    match places.as_slice() {
        [] => Err(missing(&mut damaged, name)),
        _ if name.is_empty() => Err(Error::NotFound { name: name.into() }),
        [place] => Ok(all.swap_remove(*place)),
        several => Err(Error::Ambiguous {
            name: name.into(),
            ids: several
                .iter()
                .filter_map(|place| Some(all.get(*place)?.record.id.to_string()))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

impl Held {
    /// Whether this is its id or its name, whole.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.record.name.as_deref() == Some(name) || self.record.id.to_string() == name
    }

    /// Whether its id, also without its letter, or its name begins like this.
    fn begins_with(&self, name: &str) -> bool {
        let id = self.record.id.to_string();
        let of_name = self.record.name.as_deref();
        id.starts_with(name)
            || id.get(2..).is_some_and(|it| it.starts_with(name))
            || of_name.is_some_and(|it| it.starts_with(name))
    }

    /// How it is; with `changes` also what was changed in it. A holder that does not answer is shown
    /// without.
    pub async fn state(self, changes: bool) -> State {
        let (ask, within) = match changes {
            true => (Ask::Inspect, READS_WITHIN),
            false => (Ask::State, ANSWERS_WITHIN),
        };
        if self.standing.status == Status::Stopped {
            return State {
                record: self.record,
                standing: self.standing,
                state: None,
            };
        }
        let state = match self.ask(&ask, within).await {
            Ok((Answer::State(state), ..)) => Some(state),
            other => {
                tracing::debug!(?other, id = %self.record.id, "a holder does not answer");
                None
            }
        };
        State {
            record: self.record,
            standing: self.standing,
            state,
        }
    }

    /// Runs a command in it.
    ///
    /// # Errors
    /// When it cannot be started, or the holder has ended.
    pub async fn exec(&self, run: Run) -> Result<Running, NodeError> {
        match self.ask(&Ask::Exec(run), STARTS_WITHIN).await? {
            (Answer::Started, fds, talk) => Running::there(talk, fds),
            (answer, ..) => Err(answer.into_error(|| self.gone()).into()),
        }
    }

    /// Keeps its files as they are now for forks that are about to be made: under the next number, and
    /// only if [`Lent::keep`] says so in the end.
    ///
    /// # Errors
    /// [`Error::Unable`] says what is in the way.
    pub async fn lend(&self) -> Result<Lent, Error> {
        match self.ask(&Ask::Lend, STARTS_WITHIN).await? {
            (Answer::Moments(moments), _, talk) => Ok(Lent {
                snapshot: moments.snapshot.unwrap_or_default(),
                talk,
            }),
            (answer, ..) => Err(answer.into_error(|| self.gone())),
        }
    }

    /// Connects to what listens on a port of its loopback.
    ///
    /// # Errors
    /// When nothing does, there are too many connections, or the holder has ended.
    pub async fn connect(&self, port: u16) -> Result<Connection, Error> {
        match self.ask(&Ask::Connect { port }, STARTS_WITHIN).await? {
            (Answer::Connected, fds, talk) => {
                let missing = || io::ErrorKind::UnexpectedEof.into();
                let descriptor = fds.into_iter().next().ok_or_else(missing);
                // The holder keeps its place until the conversation ends.
                let shared = descriptor.and_then(|fd| Connection::shared(fd, talk));
                shared.map_err(Error::Conversation)
            }
            (answer, ..) => Err(answer.into_error(|| self.gone())),
        }
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When its holder does not answer, or has ended already.
    pub async fn watch(&self) -> Result<impl Future<Output = ()> + Send + use<>, Error> {
        match self.ask(&Ask::Watch, ANSWERS_WITHIN).await? {
            (Answer::Watched, _, mut talk) => Ok(async move { talk.until_hung_up().await }),
            (answer, ..) => Err(answer.into_error(|| self.gone())),
        }
    }

    /// Carries files in or out of it.
    ///
    /// # Errors
    /// When the holder has ended.
    pub async fn carry(&self, carry: Carry) -> Result<Running, NodeError> {
        match self.ask(&Ask::Carry(carry), STARTS_WITHIN).await? {
            (Answer::Started, fds, talk) => Running::there(talk, fds),
            (answer, ..) => Err(answer.into_error(|| self.gone()).into()),
        }
    }

    /// Keeps its files as they are now, under this name or the next number.
    ///
    /// # Errors
    /// [`Error::Unable`] says what is in the way.
    pub async fn snapshot(&self, name: Option<String>) -> Result<Moments, Error> {
        self.moments(&Ask::Snapshot { name }).await
    }

    /// Takes its files back to a snapshot, or without one to where it began. What was written since is
    /// gone, and so are later snapshots.
    ///
    /// # Errors
    /// [`Error::Unable`] says what is in the way.
    pub async fn undo(&self, to: Option<String>) -> Result<Moments, Error> {
        self.moments(&Ask::Undo { to }).await
    }

    async fn moments(&self, ask: &Ask) -> Result<Moments, Error> {
        match self.ask(ask, STARTS_WITHIN).await? {
            (Answer::Moments(moments), ..) => Ok(moments),
            (answer, ..) => Err(answer.into_error(|| self.gone())),
        }
    }

    /// Has the files of a fork made. Its holder keeps them until the conversation ends.
    pub(super) async fn part(&self, id: SandboxId, at: String) -> Result<(Origin, Talk), Error> {
        match self.ask(&Ask::Fork { id, at }, STARTS_WITHIN).await? {
            (Answer::Forked(origin), _, talk) => Ok((origin, talk)),
            (answer, ..) => Err(answer.into_error(|| self.gone())),
        }
    }

    /// Ends what runs in it and takes its files away; waits until nothing is left of it.
    ///
    /// # Errors
    /// When the holder does not end.
    pub async fn destroy(self, data: &Path) -> Result<(), Error> {
        self.holder().destroy(data).await
    }

    /// Ends what runs in it, and keeps its files; waits until they are on the disk. One that is stopped
    /// stays so.
    ///
    /// # Errors
    /// When the holder does not end, or could not end what runs or bring the files to the disk.
    pub async fn stop(self, data: &Path) -> Result<Self, Error> {
        let deadline = Instant::now() + ENDS_WITHIN;
        let mut now = self;
        loop {
            if now.standing.status == Status::Stopped {
                return Ok(now);
            }
            let holder = now.holder();
            if !holder.end(&Ask::Stop).await? {
                holder.wait(deadline).await?;
            }
            now = find_whole(data, &now.record.id.to_string())?;
        }
    }

    fn holder(&self) -> Holder<'_> {
        Holder {
            id: self.record.id,
            pid: self.record.pid,
            directory: &self.directory,
        }
    }

    fn gone(&self) -> Error {
        self.holder().gone()
    }

    async fn ask(&self, ask: &Ask, within: Duration) -> Result<Answered, Error> {
        if let (Status::Stopped, Some(why)) = (self.standing.status, self.standing.why) {
            return Err(Error::Stopped {
                id: self.record.id.to_string(),
                why,
            });
        }
        self.holder().tell(ask, within).await
    }
}

impl Damaged {
    /// Ends what runs in it and takes its files away, as [`Held::destroy`]. Who holds it stands in what
    /// cannot be read; where that listens does not.
    ///
    /// # Errors
    /// When the holder does not end.
    pub async fn destroy(self, data: &Path) -> Result<(), Error> {
        let Some(directory) = berths::open(data, self.id)? else {
            return Ok(());
        };
        let peer = Talk::connect(&berth::socket(&directory)).await;
        let holder = Holder {
            id: self.id,
            pid: peer.ok().and_then(|talk| talk.peer()).unwrap_or_default(),
            directory: &directory,
        };
        holder.destroy(data).await
    }
}

/// The process that holds a sandbox.
struct Holder<'a> {
    id: SandboxId,
    pid: u32,
    /// Of the sandbox.
    directory: &'a File,
}

impl Holder<'_> {
    async fn destroy(&self, data: &Path) -> Result<(), Error> {
        let deadline = Instant::now() + ENDS_WITHIN;
        let id = self.id;
        loop {
            let place = data.to_owned();
            let away = tokio::task::spawn_blocking(move || berths::take_away(&place, id)).await;
            if away.map_err(|_| self.gone())?? {
                return Ok(());
            }
            if !self.end(&Ask::Destroy).await? {
                self.wait(deadline).await?;
            }
        }
    }

    /// Has the holder end; false where it has none that listens: it is about to be ready, or about to end.
    async fn end(&self, how: &Ask) -> Result<bool, Error> {
        match self.tell(how, ANSWERS_WITHIN).await {
            Ok((Answer::Ending, _, mut talk)) => {
                let ended = tokio::time::timeout(ENDS_WITHIN, talk.hear()).await;
                match ended.map_err(|_| self.silent())? {
                    Ok(Some((answer @ Answer::Refused { .. }, _))) => {
                        Err(answer.into_error(|| self.gone()))
                    }
                    // It has ended; how, is written down.
                    _ => Ok(true),
                }
            }
            Ok((answer, ..)) => Err(answer.into_error(|| self.gone())),
            // Killed a moment ago, it may break off in the middle of this.
            Err(Error::Gone { .. } | Error::Conversation(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The time between two looks at what another process is about to do.
    async fn wait(&self, deadline: Instant) -> Result<(), Error> {
        if Instant::now() >= deadline {
            return Err(self.silent());
        }
        tokio::time::sleep(LOOKS).await;
        Ok(())
    }

    fn silent(&self) -> Error {
        Error::Silent {
            id: self.id.to_string(),
            pid: self.pid,
        }
    }

    fn gone(&self) -> Error {
        Error::Gone {
            id: self.id.to_string(),
        }
    }

    async fn tell(&self, ask: &Ask, within: Duration) -> Result<Answered, Error> {
        let asked = async {
            let Ok(mut talk) = Talk::connect(&berth::socket(self.directory)).await else {
                return Err(self.gone());
            };
            talk.say(ask, &[]).await?;
            match talk.hear().await? {
                Some((answer, fds)) => Ok((answer, fds, talk)),
                None => Err(self.gone()),
            }
        };
        tokio::time::timeout(within, asked)
            .await
            .map_err(|_| self.silent())?
    }
}
