//! What a person does with integrated work: takes it onto their branch, or leaves it.

use crate::{Error, Node, submit::blocking};
use domain::{ChangeId, RepositoryId, policy};
use git::{ApplyMode, CommitId, IntegrationBranch, Mirror, Published, Signature, Source};
use std::path::Path;

/// The newest requests whose uncommitted work is known again when it is taken.
const STARTS: usize = 200;

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
    /// one change. Afterwards the integration branch begins anew at the result. Uncommitted files that
    /// a request took along, and that are as they were then, become what was made of them.
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
        let (source, mirror, name, repository) = self.opened(path).await?;
        if let Some(url) = source.copy_of() {
            return Err(Error::NoCheckout {
                url: url.to_owned(),
                copy: source.common_dir().to_owned(),
                branch: name,
            });
        }
        let starts = self.starts(repository).await?;
        let change = match change {
            Some(id) => Some(self.ledger.change(id).await?),
            None => None,
        };
        if let Some(change) = change.as_ref().filter(|it| it.repository != repository) {
            return Err(Error::OtherRepository {
                id: change.id.to_string(),
                other: self.ledger.repository_path(change.repository).await?,
            });
        }
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
            let applied = source.apply(&mirror, base, tip, mode, &message, &starts)?;
            // The user's branch has moved: from here on nothing is a failure any more.
            let warning = shown.and_then(|shown| {
                shown
                    .settle(&branch, &source, &mirror, applied.after, &who)
                    .err()
            });
            let warning = warning.map(|error| unsettled(&name, &error));
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
        let (source, mirror, name, _) = self.opened(path).await?;
        let who = Signature::new("Skep", "skep@localhost", self.ledger.now().seconds());
        blocking(move || {
            let branch = IntegrationBranch::new(mirror, &name);
            let shown = Shown::read(&branch, &source, &name)?;
            let was = shown
                .users
                .or(shown.recorded)
                .ok_or_else(|| Error::NothingIntegrated {
                    branch: name.clone(),
                })?;
            shown.drop(&branch, &source, &name, &who)?;
            Ok(Dropped {
                branch: name,
                was: was.to_string(),
            })
        })
        .await
    }

    /// The commits that requests of the repository started from: those of `--dirty` hold uncommitted
    /// work.
    async fn starts(&self, repository: RepositoryId) -> Result<Vec<CommitId>, Error> {
        let requests = self.ledger.requests(STARTS, Some(repository)).await?;
        let starts = requests
            .iter()
            .filter_map(|request| request.ask.base.parse().ok());
        Ok(starts.collect())
    }

    async fn opened(&self, path: &Path) -> Result<(Source, Mirror, String, RepositoryId), Error> {
        self.ledger.may_work().await?;
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
            let name = policy.unwrap_or_default().integration.branch;
            IntegrationBranch::new(reader, &name).stock(&asked, head)?;
            Ok(name)
        })
        .await?;
        Ok((source, mirror, name, repository))
    }
}

/// What is said when work was taken and the integration branch could not begin anew.
fn unsettled(name: &str, error: &Error) -> String {
    match error {
        Error::Git(git::Error::Moved { .. }) => {
            format!("more work came to {name} meanwhile: run `skep apply` again to take it")
        }
        error => format!(
            "{name} could not begin anew at the result: {}",
            domain::failure::chain(error)
        ),
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

    /// Forgets what is integrated, and deletes the user's branch. The compare-and-swap of the mirror's
    /// tip decides: work that landed meanwhile moves it first, and then nothing is changed.
    fn drop(
        &self,
        branch: &IntegrationBranch,
        source: &Source,
        name: &str,
        who: &Signature,
    ) -> Result<(), Error> {
        let moved = || Error::Moved {
            branch: name.to_owned(),
        };
        if self.users.is_some()
            && let Some(location) = source.checked_out_in(name)?
        {
            return Err(Error::CheckedOut {
                branch: name.to_owned(),
                place: location.display().to_string(),
            });
        }
        match branch.forget(self.recorded) {
            Err(git::Error::Moved { .. }) => return Err(moved()),
            forgotten => forgotten?,
        }
        let Some(users) = self.users else {
            return Ok(());
        };
        match branch.drop_branch(source, users, who)? {
            Published::Done => Ok(()),
            // It was switched to just now, or moved by a person: it is theirs.
            Published::CheckedOut { location } => Err(Error::CheckedOut {
                branch: name.to_owned(),
                place: location.display().to_string(),
            }),
            Published::Moved { .. } => Err(moved()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use git::NewCommit;
    use testkit::Repo;

    const NAME: &str = "skep/integration";

    /// A repository whose integration branch holds one commit.
    struct Scene {
        repo: Repo,
        source: Source,
        mirror: Mirror,
        branch: IntegrationBranch,
        landed: CommitId,
        _place: tempfile::TempDir,
    }

    fn who() -> Signature {
        Signature::new("Skep", "skep@localhost", 1_700_000_000)
    }

    impl Scene {
        fn new() -> Self {
            let repo = Repo::new();
            repo.file("a.txt", "a\n").commit("start");
            let place = tempfile::tempdir().unwrap();
            let program = git::Program::find(&std::env::var_os("PATH").unwrap()).unwrap();
            let source = Source::discover(repo.path(), program.clone()).unwrap();
            let mirror = Mirror::open_or_create(place.path(), program).unwrap();
            mirror.fetch(&source, source.head().commit).unwrap();
            let branch = IntegrationBranch::new(mirror.clone(), NAME);
            let landed = commit(&mirror, source.head().commit, "one");
            branch.advance(None, landed).unwrap();
            branch.publish(&source, None, landed, &who()).unwrap();
            Self {
                repo,
                source,
                mirror,
                branch,
                landed,
                _place: place,
            }
        }

        fn shown(&self) -> Shown {
            Shown::read(&self.branch, &self.source, NAME).unwrap()
        }

        /// More work lands, and is published or not yet.
        fn land(&self, published: bool) -> CommitId {
            let more = commit(&self.mirror, self.landed, "more");
            self.branch.advance(Some(self.landed), more).unwrap();
            if published {
                let seen = Some(self.landed);
                self.branch
                    .publish(&self.source, seen, more, &who())
                    .unwrap();
            }
            more
        }

        fn users(&self) -> Option<String> {
            self.repo.tip(NAME)
        }
    }

    fn commit(mirror: &Mirror, parent: CommitId, name: &str) -> CommitId {
        let mut writer = mirror.tree_writer(mirror.tree_of(parent).unwrap());
        writer
            .put_file(name.into(), false, &mut name.as_bytes(), name.len() as u64)
            .unwrap();
        mirror
            .commit(&NewCommit {
                tree: writer.finish().unwrap().tree,
                parents: &[parent],
                author: &who(),
                committer: &who(),
                message: name.into(),
            })
            .unwrap()
    }

    #[test]
    fn work_that_lands_while_earlier_work_is_taken_stays_and_the_person_is_told() {
        for published in [false, true] {
            let scene = Scene::new();
            let shown = scene.shown();
            let more = scene.land(published);
            let users = scene.users();
            scene
                .repo
                .git(&["merge", "--quiet", &scene.landed.to_string()]);
            let (branch, mirror) = (&scene.branch, &scene.mirror);
            let error = shown
                .settle(branch, &scene.source, mirror, scene.landed, &who())
                .unwrap_err();
            let said = unsettled(NAME, &error);
            assert!(said.contains("`skep apply` again"), "{said}");
            assert_eq!(branch.recorded().unwrap(), Some(more));
            assert_eq!(scene.users(), users);
            let next = scene.shown().current(branch, &scene.source, mirror);
            assert_eq!(next.unwrap(), Some(more), "it can be taken");
        }
    }

    #[test]
    fn work_that_lands_while_earlier_work_is_dropped_stays_and_nothing_is_half_done() {
        for published in [false, true] {
            let scene = Scene::new();
            let shown = scene.shown();
            let more = scene.land(published);
            let users = scene.users();
            let dropped = shown.drop(&scene.branch, &scene.source, NAME, &who());
            assert!(matches!(dropped, Err(Error::Moved { .. })), "{dropped:?}");
            assert_eq!(scene.branch.recorded().unwrap(), Some(more));
            assert_eq!(scene.users(), users);
        }
    }

    #[test]
    fn the_first_work_that_lands_while_a_persons_own_branch_is_dropped_stays() {
        let scene = Scene::new();
        scene.branch.forget(Some(scene.landed)).unwrap();
        let shown = scene.shown();
        assert_eq!(shown.recorded, None);
        let more = commit(&scene.mirror, scene.landed, "more");
        scene.branch.advance(None, more).unwrap();
        let dropped = shown.drop(&scene.branch, &scene.source, NAME, &who());
        assert!(matches!(dropped, Err(Error::Moved { .. })), "{dropped:?}");
        assert_eq!(scene.branch.recorded().unwrap(), Some(more));
        assert_eq!(scene.users(), Some(scene.landed.to_string()));
    }

    #[test]
    fn a_branch_that_is_checked_out_is_not_dropped_and_nothing_is_forgotten() {
        let scene = Scene::new();
        let shown = scene.shown();
        scene.repo.checkout(NAME);
        let dropped = shown.drop(&scene.branch, &scene.source, NAME, &who());
        assert!(
            matches!(dropped, Err(Error::CheckedOut { .. })),
            "{dropped:?}"
        );
        assert_eq!(scene.branch.recorded().unwrap(), Some(scene.landed));
        scene.repo.checkout("main");
        shown
            .drop(&scene.branch, &scene.source, NAME, &who())
            .unwrap();
        assert_eq!(scene.branch.recorded().unwrap(), None);
        assert_eq!(scene.users(), None);
    }
}
