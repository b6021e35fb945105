//! What a holder writes down, and what is asked of it before it is ready.

use super::{
    berth::{Berth, Record},
    error::Error,
    hold::{Order, answer},
    kept::{self, Kept, Phase, Why},
    moments::Moments,
    place::Place,
    talk::{Answer, Ask, Stays, Talk},
};
use crate::Error as NodeError;
use domain::Timestamp;
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::net::UnixListener;

/// How long a client may take to ask that finds a sandbox which is not ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long forks may take to be made from a snapshot that was taken for them.
const LENT_FOR: Duration = Duration::from_secs(3_600);
/// How often a name is looked for that no other snapshot has.
const TRIES: usize = 8;

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

/// The snapshots that go unless it is said that they stay. They are written down, so that a holder that
/// is killed leaves none either.
#[derive(Debug)]
pub(super) struct LentOnes {
    directory: PathBuf,
    names: Mutex<Vec<String>>,
}

impl LentOnes {
    /// Those of a holder before this one are forgotten.
    pub(super) async fn of(berth: &Berth, place: &Place) -> Result<Self, NodeError> {
        let directory = berth.path().to_owned();
        let left = kept::lent(&directory)?;
        for name in &left {
            place.forget(name).await?;
        }
        if !left.is_empty() {
            kept::write_lent(&directory, &[])?;
        }
        Ok(Self {
            directory,
            names: Mutex::default(),
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<String>)) -> Result<(), Error> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut names);
        kept::write_lent(Path::new(&self.directory), &names)
    }

    fn settle(&self, name: &str) {
        if let Err(error) = self.change(|names| names.retain(|other| other != name)) {
            tracing::warn!(%error, name, "a snapshot that stays may be forgotten");
        }
    }

    /// Takes a snapshot for forks, and waits until the client has said whether it stays.
    pub(super) async fn lend(&self, place: &Place, talk: &mut Talk) -> Result<(), Error> {
        let taken = match self.take(place).await {
            Ok(taken) => taken,
            Err(error) => return answer(talk, &super::hold::refused(&error), &[]).await,
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
        if !stays && let Err(error) = place.forget(&name).await {
            tracing::warn!(%error, name, "a snapshot stays that nobody wants");
        }
        self.settle(&name);
        told
    }

    async fn take(&self, place: &Place) -> Result<Moments, NodeError> {
        let mut tries = TRIES;
        loop {
            let name = place.next().await?;
            self.change(|names| names.push(name.clone()))?;
            match place.snapshot(Some(name.clone())).await {
                Ok(moments) => return Ok(moments),
                // Somebody else took the number, and keeps it.
                Err(NodeError::Standing(Error::Unable {
                    why: super::Unable::Taken,
                    ..
                })) if tries > 0 => {
                    tries = tries.saturating_sub(1);
                    self.settle(&name);
                }
                Err(error) => {
                    self.settle(&name);
                    return Err(error);
                }
            }
        }
    }
}
