//! What a holder writes down, and what is asked of it before it is ready.

use super::{
    berth::{Berth, Record},
    error::{Error, Unable},
    hold::Order,
    kept::{self, Kept, Phase, Why},
    moments::Moments,
    place::Place,
    serve::{answer, refused},
    talk::{Answer, Ask, Stays, Talk},
};
use crate::Error as NodeError;
use domain::Timestamp;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixListener, sync::Mutex};

/// How long a client may take to ask that finds a sandbox which is not ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long forks may take to be made from a snapshot that was taken for them.
const LENT_FOR: Duration = Duration::from_secs(3_600);

/// Who hears of a place that is held.
pub struct Hearing<'a> {
    /// Hears of it once it can be used; false where nobody waits for it any more.
    pub ready: Box<dyn FnOnce(&Record) -> bool + Send + 'a>,
    /// Comes when whoever asked for it has said that it stays, or, with false, has gone without that.
    pub stands: std::pin::Pin<Box<dyn Future<Output = bool> + Send + 'a>>,
    /// Hears that it is written down.
    pub settled: Box<dyn FnOnce() + Send + 'a>,
}

/// How a holder ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The sandbox is stopped.
    Stop(Why),
    /// It goes with its files: it was destroyed, or its time is over.
    Destroy,
    /// It never was what was asked for: one that was made goes, and one that was to be started stays
    /// stopped.
    GiveUp,
}

/// What is written down of a place that is ready.
pub(super) fn written(place: &Place, order: Order, now: Timestamp, earlier: Option<Kept>) -> Kept {
    if let Some(mut kept) = earlier {
        if let Some(lasts) = order.lasts {
            kept.record.ends = now.plus(lasts);
        }
        kept.record.given = place.given.clone();
        return kept;
    }
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
        ends: now.plus(order.lasts.unwrap_or_default()),
        pid: std::process::id(),
    };
    Kept {
        record,
        phase: Phase::Made,
        since: now,
        why: None,
        boot: workspace::this_boot(),
        origin: Some(place.origin(place.fork_of.clone())),
    }
}

/// Waits until somebody asks a sandbox to end that is not ready, and says so. Woken by connections; owns
/// the one that it hears. Others are told to come again.
pub(super) async fn given_up(listener: &UnixListener) -> Talk {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut talk = Talk::new(stream);
        if !talk.is_of_this_user() {
            continue;
        }
        let Ok(Ok(Some((ask, _)))) = tokio::time::timeout(PATIENCE, talk.hear::<Ask>()).await
        else {
            continue;
        };
        let told = match ask {
            Ask::Destroy | Ask::Stop => {
                if let Err(error) = answer(&talk, &Answer::Ending, &[]).await {
                    tracing::debug!(%error, "who gave it up went away");
                }
                return talk;
            }
            _ => Answer::Refused {
                message: "the sandbox is about to be ready; ask again".to_owned(),
                reason: None,
                code: None,
                unable: None,
            },
        };
        if let Err(error) = answer(&talk, &told, &[]).await {
            tracing::debug!(%error, "a client went away");
        }
    }
}

/// The snapshots that go unless it is said that they stay. They are written down before they are taken, so
/// that a holder that is killed leaves none either.
///
/// Every snapshot of a place is taken through this, one at a time: what is written here is the name of
/// none that somebody took for themselves, at no moment.
#[derive(Debug)]
pub(super) struct LentOnes {
    directory: PathBuf,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    lent: Vec<String>,
    /// What stands on the disk: the same, or more where it could not be written last.
    written: Vec<String>,
}

impl Names {
    fn write(&mut self, directory: &Path) -> Result<(), Error> {
        kept::write_lent(directory, &self.lent)?;
        self.written.clone_from(&self.lent);
        Ok(())
    }

    /// One is lent no more. Where that cannot be written down, its name is nobody's until it can, and it
    /// goes with whoever holds the sandbox next if it cannot until then.
    fn settle(&mut self, directory: &Path, name: &str) -> Result<(), Error> {
        self.lent.retain(|other| other != name);
        let written = self.write(directory);
        if let Err(error) = &written {
            tracing::warn!(%error, name, "that a snapshot is not lent any more is not written down");
        }
        written
    }

    /// The next number: above those of all that are there, also of those that were lent and are gone
    /// because the files were taken back.
    async fn next(&self, place: &Place) -> Result<String, NodeError> {
        let reserved = self.lent.iter().chain(&self.written);
        place.next(reserved.cloned()).await
    }
}

impl LentOnes {
    /// Those of a holder before this one are forgotten.
    pub(super) async fn of(berth: &Berth, place: &Place) -> Result<Self, NodeError> {
        let directory = berth.path().to_owned();
        let written = kept::lent(&directory)?;
        for name in &written {
            place.forget(name).await?;
        }
        let lent = Vec::new();
        let mut names = Names { lent, written };
        if !names.written.is_empty() {
            names.write(&directory)?;
        }
        Ok(Self {
            directory,
            names: Mutex::new(names),
        })
    }

    /// Takes a snapshot that stays, under a name or under the next number.
    ///
    /// # Errors
    /// As [`Place::snapshot`].
    pub(super) async fn snapshot(
        &self,
        place: &Place,
        name: Option<String>,
    ) -> Result<Moments, NodeError> {
        let mut names = self.names.lock().await;
        let name = match name {
            Some(name) if names.lent.contains(&name) => {
                let why = Unable::Taken;
                let message = format!("forks are being made of a snapshot `{name}`");
                return Err(Error::Unable { why, message }.into());
            }
            Some(name) => {
                if names.written.contains(&name) {
                    names.write(&self.directory)?;
                }
                name
            }
            None => names.next(place).await?,
        };
        place.snapshot(name).await
    }

    /// Takes a snapshot for forks, and waits until the client has said whether it stays. One that says so
    /// is told when that is written down, or why it is not.
    pub(super) async fn lend(&self, place: &Place, talk: &mut Talk) -> Result<(), Error> {
        let taken = match self.take(place).await {
            Ok(taken) => taken,
            Err(error) => return answer(talk, &refused(&error), &[]).await,
        };
        let name = taken.snapshot.clone().unwrap_or_default();
        let told = answer(talk, &Answer::Moments(taken), &[]).await;
        let stays = match told {
            Ok(()) => {
                let heard = tokio::time::timeout(LENT_FOR, talk.hear::<Stays>()).await;
                matches!(heard, Ok(Ok(Some(_))))
            }
            Err(_) => false,
        };
        let mut names = self.names.lock().await;
        if stays {
            let settled = names.settle(&self.directory, &name);
            drop(names);
            let said = match settled {
                Ok(()) => Answer::Kept,
                Err(error) => refused(&error.into()),
            };
            return answer(talk, &said, &[]).await;
        }
        match place.forget(&name).await {
            // What is written of one that is gone does no harm.
            Ok(()) => drop(names.settle(&self.directory, &name)),
            // It is written down, and goes with whoever holds the sandbox next.
            Err(error) => tracing::warn!(%error, name, "a snapshot stays that nobody wants"),
        }
        told
    }

    async fn take(&self, place: &Place) -> Result<Moments, NodeError> {
        let mut names = self.names.lock().await;
        let name = names.next(place).await?;
        names.lent.push(name.clone());
        let taken = match names.write(&self.directory) {
            Ok(()) => place.snapshot(name.clone()).await,
            Err(error) => Err(error.into()),
        };
        if taken.is_err() {
            // Why it was not taken is what the client hears.
            drop(names.settle(&self.directory, &name));
        }
        taken
    }
}
