//! The life of a holder: makes a place, has it served, and ends it.

use super::{
    berth::Berth,
    error::Error as StandingError,
    held,
    keeper::{End, Hearing, LentOnes, given_up, written},
    kept::{Kept, Why, now},
    moments::Fork,
    more::More,
    place::{Place, Wish},
    serve::{answer, refused, serve},
};
use crate::{Error, Node};
use domain::{SandboxId, Timestamp};
use std::{path::Path, time::Duration};
use tokio::time::Instant;

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
    // Only now do those hear of it who asked for it. Whether it is destroyed they see for themselves.
    if let (End::Stop(_), Err(error)) = (end, &closed) {
        for talk in &waiting {
            if let Err(error) = answer(talk, &refused(error), &[]).await {
                tracing::debug!(%error, "who had it stopped went away");
            }
        }
    }
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
        // Whatever failed, what runs in it ends with this process at the latest: it is stopped. As one
        // whose holder was killed, where its files may not be whole on the disk.
        let written = match (end, kept) {
            (End::Stop(why), Some(kept)) => {
                let why = if rested.is_ok() { why } else { Why::Killed };
                berth.write(&kept.stopped(why, now()))
            }
            _ => Ok(()),
        };
        rested.and(written.map_err(Into::into))
    }
}
