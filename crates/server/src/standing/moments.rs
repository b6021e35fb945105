//! Snapshots of a place, the way back to one, and forks.
//!
//! A fork has a holder of its own. The holder of its source makes the files, and keeps them from being
//! swept until the fork's holder has them: whichever of the two is killed, what is left is a workspace
//! that nobody holds, and whoever looks next removes it.

use super::{
    error::{Error as StandingError, Unable},
    held,
    kept::Kept,
    more::{Given, More},
    place::Place,
};
use crate::{Error, Node, submit::blocking};
use domain::{SandboxId, entity::Beside};
use git::{CommitId, Mirror, TreeId};
use serde::{Deserialize, Serialize};
use site::{Parting, Site, Wanted};
use std::path::PathBuf;

/// The snapshots of a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moments {
    /// The one that was taken, or that the place was taken back to; none for where it began.
    pub snapshot: Option<String>,
    /// All of them, oldest first.
    pub snapshots: Vec<String>,
}

/// A snapshot of a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Its name.
    pub name: String,
    /// What was written between the one before it and this one, in bytes on disk.
    pub bytes: u64,
}

/// What a fork was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkOf {
    /// The sandbox.
    pub id: SandboxId,
    /// Its snapshot.
    pub snapshot: String,
}

/// A fork that is asked for.
#[derive(Debug, Clone)]
pub struct Fork {
    /// The sandbox, by its id or its name.
    pub of: String,
    /// Its snapshot.
    pub at: String,
    /// What the fork gets beyond what every place has: nothing of it is inherited.
    pub more: More,
}

/// What the holder of a fork has to know of its source, and who starts a place again of that place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Origin {
    /// What the place is a fork of, if it is one.
    #[serde(default)]
    pub(super) of: Option<ForkOf>,
    /// The repository, as the ledger names it, and its top.
    pub(super) repository: String,
    pub(super) top: PathBuf,
    pub(super) commit: String,
    pub(super) roots: Vec<PathBuf>,
    /// Further repositories that are written.
    #[serde(default)]
    pub(super) also: Vec<Beside>,
    /// Further repositories that are shown.
    #[serde(default)]
    pub(super) beside: Vec<Beside>,
}

impl Node {
    /// Makes a place from a snapshot of one that another process holds.
    ///
    /// # Errors
    /// When there is no such place or snapshot, or no sandbox can be made; nothing is left then.
    pub(super) async fn fork(&self, id: SandboxId, fork: &Fork) -> Result<Place, Error> {
        self.ledger.may_work().await?;
        self.sites.check_room()?;
        self.sweep().await;
        let source = held::find(&self.options.data, &fork.of)?;
        // As long as this conversation lasts, the source's holder keeps the files for this one.
        let (origin, talk) = source.part(id, fork.at.clone()).await?;
        let (mirror, base) = self.origin(&origin).await?;
        let wanted = self.wanted(id, &origin, &fork.more).await?;
        let mut given = self.extras_of(&fork.more)?;
        let site = self.sites.join(&mirror, wanted).await?;
        drop(talk);
        if let Some(dotfiles) = &fork.more.dotfiles {
            given.dotfiles = Some(self.put(dotfiles, &site).await?);
        }
        Ok(self.place_of(id, (origin, given), site, (mirror, base)))
    }

    /// Makes a place again that was stopped, around the files that it had, its dotfiles among them.
    ///
    /// # Errors
    /// When its files cannot be used any more, or no sandbox can be made around them; they stay.
    pub(super) async fn resume(
        &self,
        id: SandboxId,
        kept: &Kept,
        more: &More,
    ) -> Result<Place, Error> {
        let Some(origin) = &kept.origin else {
            return Err(StandingError::Gone { id: id.to_string() }.into());
        };
        self.ledger.may_work().await?;
        self.sweep().await;
        let (mirror, base) = self.origin(origin).await?;
        let wanted = self.wanted(id, origin, more).await?;
        let given = Given {
            dotfiles: kept.record.given.dotfiles.clone(),
            ..self.extras_of(more)?
        };
        let site = self.sites.resume(&mirror, wanted).await?;
        Ok(self.place_of(id, (origin.clone(), given), site, (mirror, base)))
    }

    /// The mirror of its repository, and the tree of its commit.
    async fn origin(&self, origin: &Origin) -> Result<(Mirror, TreeId), Error> {
        let mirror = self.sites.mirror(&origin.repository).await?;
        let commit = commit(origin)?;
        let looked = mirror.clone();
        let base = blocking(move || Ok(looked.tree_of(commit)?)).await?;
        Ok((mirror, base))
    }

    async fn wanted(&self, id: SandboxId, origin: &Origin, more: &More) -> Result<Wanted, Error> {
        Ok(Wanted {
            extra_roots: origin.roots.clone(),
            also: self.written(&origin.also).await?,
            beside: self.shown(&origin.beside).await?,
            extras: more.extras.clone(),
            ..Wanted::plain(id.to_string(), &origin.repository, commit(origin)?)
        })
    }

    fn place_of(
        &self,
        id: SandboxId,
        (origin, given): (Origin, Given),
        site: Site,
        (mirror, base): (Mirror, TreeId),
    ) -> Place {
        Place {
            id,
            repository: origin.top,
            commit: origin.commit,
            fork_of: origin.of,
            also: origin.also,
            beside: origin.beside,
            given,
            sites: self.sites.clone(),
            site,
            mirror,
            base,
            known_as: origin.repository,
            roots: origin.roots,
        }
    }
}

fn commit(origin: &Origin) -> Result<CommitId, Error> {
    origin.commit.parse().map_err(|_| Error::NotACommit {
        name: origin.commit.clone(),
    })
}

impl Place {
    /// Keeps the files as they are now, under a name. Nothing may run inside.
    ///
    /// # Errors
    /// [`StandingError::Unable`] where there are no snapshots, the name is taken, or something runs.
    pub(super) async fn snapshot(&self, name: String) -> Result<Moments, Error> {
        let taken = self.site.snapshot(&name).await;
        taken.map_err(of_moments)?;
        self.moments(Some(name)).await
    }

    /// Takes the files back to a snapshot, or without one to where the place began. What was written
    /// since is gone, and so are later snapshots. Nothing may run inside.
    ///
    /// # Errors
    /// As [`Place::snapshot`]; when there is no such snapshot.
    pub async fn undo(&self, to: Option<String>) -> Result<Moments, Error> {
        let undone = self.site.undo(to.as_deref()).await;
        undone.map_err(of_moments)?;
        self.moments(to).await
    }

    async fn moments(&self, snapshot: Option<String>) -> Result<Moments, Error> {
        Ok(Moments {
            snapshot,
            snapshots: self.site.snapshots().await?,
        })
    }

    /// The snapshots, oldest first, each measured; none where there can be none.
    ///
    /// # Errors
    /// When they cannot be measured.
    pub async fn measured(&self) -> Result<Option<Vec<Moment>>, Error> {
        if self.site.check_snapshots().is_err() {
            return Ok(None);
        }
        let mut all = Vec::new();
        for name in self.site.snapshots().await? {
            match self.site.snapshot_bytes(&name).await {
                Ok(bytes) => all.push(Moment { name, bytes }),
                // The place was taken back to before it meanwhile.
                Err(site::Error::Workspace(workspace::Error::NoSnapshot { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(all))
    }

    /// What it takes to make it again, or a fork of it.
    pub(super) fn origin(&self, of: Option<ForkOf>) -> Origin {
        Origin {
            of,
            repository: self.known_as.clone(),
            top: self.repository.clone(),
            commit: self.commit.clone(),
            roots: self.roots.clone(),
            also: self.also.clone(),
            beside: self.beside.clone(),
        }
    }

    /// Takes the name of a snapshot away: nothing leads to it any more, and what was written stays.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub(super) async fn forget(&self, name: &str) -> Result<(), Error> {
        Ok(self.site.forget(name).await?)
    }

    /// The name that the next snapshot gets which is given none: a number above those that there are, and
    /// above these.
    pub(super) async fn next(
        &self,
        reserved: impl Iterator<Item = String>,
    ) -> Result<String, Error> {
        let mut names = self.site.snapshots().await?;
        names.extend(reserved);
        Ok(next(&names))
    }

    /// Makes the files of a fork for another holder. While what comes beside lives, nobody sweeps them.
    ///
    /// # Errors
    /// As [`Place::undo`], but that something may run.
    pub(super) async fn part(&self, id: SandboxId, at: &str) -> Result<(Origin, Parting), Error> {
        let parting = self.site.fork_for_another(at, &id.to_string()).await;
        let origin = self.origin(Some(ForkOf {
            id: self.id,
            snapshot: at.to_owned(),
        }));
        Ok((origin, parting.map_err(of_moments)?))
    }
}

/// The name of the next snapshot that is given none: a number above those before it.
fn next(names: &[String]) -> String {
    let numbers = names.iter().filter_map(|name| name.strip_prefix('s'));
    let last = numbers.filter_map(|it| it.parse::<u32>().ok()).max();
    format!("s{}", last.unwrap_or(0).saturating_add(1))
}

/// What a person can see to is said without the rooms that it went through.
fn of_moments(error: site::Error) -> Error {
    use workspace::Error as Files;
    let (why, message) = match &error {
        site::Error::NoSnapshots { .. } => (Unable::NoSnapshots, error.to_string()),
        site::Error::Sandbox(busy @ sandbox::Error::Busy { .. }) => {
            (Unable::Busy, busy.to_string())
        }
        site::Error::Workspace(files) => {
            let why = match files {
                Files::NoSnapshot { .. } => Unable::NotFound,
                Files::SnapshotExists { .. } => Unable::Taken,
                Files::TooManySnapshots { .. } => Unable::TooMany,
                Files::Name { .. } => Unable::Name,
                _ => return error.into(),
            };
            (why, files.to_string())
        }
        _ => return error.into(),
    };
    StandingError::Unable { why, message }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_without_a_name_gets_the_next_number() {
        let names = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(next(&[]), "s1");
        assert_eq!(next(&names(&["s1", "before", "s7", "sx"])), "s8");
    }

    #[test]
    fn what_has_no_snapshots_says_why_and_is_no_other_failure() {
        let why = "workspaces are plain copies on this machine";
        let error = site::Error::NoSnapshots {
            kind: sandbox::Kind::Namespace,
            why,
        };
        match of_moments(error) {
            Error::Standing(StandingError::Unable {
                why: Unable::NoSnapshots,
                message,
            }) => assert!(message.contains(why), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}
