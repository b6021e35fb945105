//! What a person does with integrated work: takes it onto their branch, or leaves it.

use crate::{Error, Node, submit::blocking};
use domain::{ChangeId, policy};
use git::{ApplyMode, CommitId, IntegrationBranch, Mirror, Published, Signature, Source};
use std::path::Path;

/// What was taken.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The integration branch.
    pub from: String,
    /// The branch that it went onto; none for a detached head.
    pub onto: Option<String>,
    /// Where that was.
    pub before: String,
    /// Where it is.
    pub after: String,
    /// What is left to say although the work was taken: why the integration branch could not begin
    /// anew at the result.
    pub warning: Option<String>,
}

/// What was left.
#[derive(Debug, Clone)]
pub struct Dropped {
    /// The integration branch.
    pub branch: String,
    /// Where it was.
    pub was: String,
}

impl Node {
    /// Takes integrated work onto the current branch of the repository at `path`: all of it, or the
    /// one change. Afterwards the integration branch begins anew at the result.
    ///
    /// # Errors
    /// When uncommitted work is in the way, something is in progress, or it conflicts. The
    /// repository is as it was then.
    pub async fn apply(
        &self,
        path: &Path,
        mode: ApplyMode,
        change: Option<ChangeId>,
    ) -> Result<Applied, Error> {
        let (source, mirror, name) = self.opened(path).await?;
        let change = match change {
            Some(id) => Some(self.ledger.change(id).await?),
            None => None,
        };
        let who = Signature::new("Skep", "skep@localhost", self.ledger.now().seconds());
        blocking(move || {
            let branch = IntegrationBranch::new(mirror.clone(), &name);
            let (base, tip, mode, shown) = match &change {
                Some(change) => {
                    let parse = |text: &str| {
                        text.parse::<CommitId>().map_err(|_| Error::NotACommit {
                            name: text.to_owned(),
                        })
                    };
                    (
                        parse(&change.base)?,
                        parse(&change.commit)?,
                        ApplyMode::CherryPick,
                        None,
                    )
                }
                None => {
                    let shown = Shown::read(&branch, &source, &name)?;
                    let tip = shown.current(&branch, &source, &mirror)?.ok_or_else(|| {
                        Error::NothingIntegrated {
                            branch: name.clone(),
                        }
                    })?;
                    mirror.fetch(&source, source.head().commit)?;
                    let base = mirror.merge_base(source.head().commit, tip)?.unwrap_or(tip);
                    (base, tip, mode, Some(shown))
                }
            };
            let message = format!("Take the work of {name}\n");
            let applied = source.apply(&mirror, base, tip, mode, &message)?;
            // The user's branch has moved: from here on nothing is a failure any more.
            let warning = shown.and_then(|shown| {
                shown
                    .settle(&branch, &source, &mirror, applied.after, &who)
                    .err()
            });
            let warning = warning.map(|error| match error {
                Error::Git(git::Error::Moved { .. }) => {
                    format!("more work came to {name} meanwhile: run `skep apply` again to take it")
                }
                error => format!(
                    "{name} could not begin anew at the result: {}",
                    domain::failure::chain(&error)
                ),
            });
            Ok(Applied {
                from: change.map_or(name, |change| change.id.to_string()),
                onto: applied.branch.map(|branch| branch.to_string()),
                before: applied.before.to_string(),
                after: applied.after.to_string(),
                warning,
            })
        })
        .await
    }

    /// Deletes the integration branch and forgets what it held; candidates stay in the mirror.
    ///
    /// # Errors
    /// When there is none, it is checked out, or it was moved meanwhile.
    pub async fn drop_work(&self, path: &Path) -> Result<Dropped, Error> {
        let (source, mirror, name) = self.opened(path).await?;
        let who = Signature::new("Skep", "skep@localhost", self.ledger.now().seconds());
        blocking(move || {
            let branch = IntegrationBranch::new(mirror, &name);
            let Shown { users, recorded } = Shown::read(&branch, &source, &name)?;
            let was = users.or(recorded);
            let was = was.ok_or_else(|| Error::NothingIntegrated {
                branch: name.clone(),
            })?;
            if let Some(users) = users {
                match source.drop_branch(&name, users, &who)? {
                    Published::Done => {}
                    Published::CheckedOut { location } => {
                        let place = location.display().to_string();
                        return Err(Error::CheckedOut {
                            branch: name,
                            place,
                        });
                    }
                    Published::Moved { .. } => return Err(Error::Moved { branch: name }),
                }
            }
            match branch.forget(recorded) {
                Err(git::Error::Moved { .. }) => return Err(Error::Moved { branch: name }),
                forgotten => forgotten?,
            }
            Ok(Dropped {
                branch: name,
                was: was.to_string(),
            })
        })
        .await
    }

    async fn opened(&self, path: &Path) -> Result<(Source, Mirror, String), Error> {
        let source = self.source(path).await?;
        let repository = self
            .ledger
            .repository(&source.common_dir().to_string_lossy())
            .await?;
        let mirror = self.sites.mirror(&repository.to_string()).await?;
        let (asked, reader) = (source.clone(), mirror.clone());
        let name = blocking(move || {
            let head = asked.head().commit;
            reader.fetch(&asked, head)?;
            let file = reader.read(head, policy::FILE.into(), policy::MAX_BYTES as u64)?;
            let policy = file
                .map(|bytes| policy::Policy::parse(&bytes))
                .transpose()?;
            Ok(policy.unwrap_or_default().integration.branch)
        })
        .await?;
        Ok((source, mirror, name))
    }
}

/// Where the integration branch was when it was looked at. What is done about it is done only while
/// that holds: work that lands meanwhile is not lost.
#[derive(Debug, Clone, Copy)]
struct Shown {
    /// The user's branch.
    users: Option<CommitId>,
    /// The mirror's tip.
    recorded: Option<CommitId>,
}

impl Shown {
    fn read(branch: &IntegrationBranch, source: &Source, name: &str) -> Result<Self, Error> {
        // A landing moves the mirror's tip first, so that a tip read first is never newer than the
        // branch: the compare-and-swap then fails.
        let recorded = branch.recorded()?;
        let users = source.branch(name)?;
        Ok(Self { users, recorded })
    }

    /// Where integrated work is: the user's branch if it moved on, else the mirror's tip, which can be
    /// ahead of it.
    fn current(
        &self,
        branch: &IntegrationBranch,
        source: &Source,
        mirror: &Mirror,
    ) -> Result<Option<CommitId>, Error> {
        Ok(match (self.users, self.recorded) {
            (Some(users), Some(recorded)) if branch.holds(users)? => Some(recorded),
            (Some(users), _) => {
                mirror.fetch(source, users)?;
                Some(users)
            }
            (None, recorded) if branch.published()?.is_none() => recorded,
            (None, _) => None,
        })
    }

    /// Lets the integration branch begin anew at what the user has now.
    fn settle(
        &self,
        branch: &IntegrationBranch,
        source: &Source,
        mirror: &Mirror,
        after: CommitId,
        who: &Signature,
    ) -> Result<(), Error> {
        let now = source.reopen()?;
        mirror.fetch(&now, after)?;
        branch.advance(self.recorded, after)?;
        // A branch that is checked out stays where it is; the next change moves it.
        branch.publish(&now, self.users, after, who)?;
        Ok(())
    }
}
