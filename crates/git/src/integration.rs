//! The integration branch: where it is, and how it moves.
//!
//! Three places name it. The **user's branch** is what a person sees and may move or delete. The
//! mirror's **tip** is where integrated work really is; it can be ahead of the user's branch, because
//! a branch that is checked out is not moved. The mirror's **published** mark is what the user's
//! branch was last set to, so that a person's own move can be told from ours.

use bstr::ByteSlice;

use crate::commit::{NewCommit, Signature};
use crate::error::Error;
use crate::ids::CommitId;
use crate::merge::Merged;
use crate::mirror::Mirror;
use crate::publish::{Dropped, Published};
use crate::publishing::{self, Publishing};
use crate::references::Fence;
use crate::source::Source;

/// How far back a question of ancestry looks, in commits.
const HISTORY: usize = 1_000_000;

/// The integration branch of one repository.
#[derive(Clone)]
pub struct IntegrationBranch {
    mirror: Mirror,
    name: String,
}

/// Where the integration branch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Where the next change goes on top.
    pub tip: CommitId,
    /// The mirror's tip, for the compare-and-swap.
    pub recorded: Option<CommitId>,
    /// The user's branch, for the compare-and-swap.
    pub users: Option<CommitId>,
}

impl IntegrationBranch {
    /// The branch `name` of the repository that `mirror` is of.
    #[must_use]
    pub fn new(mirror: Mirror, name: &str) -> Self {
        Self {
            mirror,
            name: name.to_owned(),
        }
    }

    fn tip_ref(&self) -> String {
        format!("refs/skep/tip/{}", self.name)
    }

    fn fence_ref(&self) -> String {
        format!("refs/skep/fence/{}", self.name)
    }

    fn published_ref(&self) -> String {
        format!("refs/skep/published/{}", self.name)
    }

    /// The mirror's tip: integrated work, whether the user's branch could be moved there or not.
    ///
    /// # Errors
    /// When the mirror cannot be read.
    pub fn recorded(&self) -> Result<Option<CommitId>, Error> {
        self.mirror.read_ref(&self.tip_ref())
    }

    /// What the user's branch was last set to by us.
    ///
    /// # Errors
    /// When the mirror cannot be read.
    pub fn published(&self) -> Result<Option<CommitId>, Error> {
        self.mirror.read_ref(&self.published_ref())
    }

    /// Whether `commit` is integrated.
    ///
    /// # Errors
    /// When the mirror cannot be read.
    pub fn holds(&self, commit: CommitId) -> Result<bool, Error> {
        match self.recorded()? {
            Some(tip) => self.mirror.is_ancestor(commit, tip, HISTORY),
            None => Ok(false),
        }
    }

    /// Makes what work starts from present in the mirror: `base`, and the user's branch, which is
    /// returned. Both came here before; a mirror that was lost, or is damaged, gets them again.
    ///
    /// # Errors
    /// [`Error::Missing`] when neither the mirror nor the user's repository has `base`.
    pub fn stock(&self, source: &Source, base: CommitId) -> Result<Option<CommitId>, Error> {
        self.mirror.fetch(source, base)?;
        let users = source.branch(&self.name)?;
        if let Some(users) = users.filter(|users| !self.mirror.can_read(*users)) {
            self.mirror.fetch(source, users)?;
        }
        Ok(users)
    }

    /// Where work starts that builds on `needed`, all of which was integrated: the mirror's tip, or the
    /// user's branch, `users`, where a mirror that was lost does not have it. Where there is neither,
    /// it is the last that the user has on another branch; nothing if there is none.
    /// [`IntegrationBranch::stock`] comes before it.
    ///
    /// # Errors
    /// [`Error::WorkLost`] when some of it is nowhere; [`Error::WorkOutOfReach`] when the mirror has
    /// lost it and nobody can look elsewhere.
    pub fn start(
        &self,
        source: Option<&Source>,
        users: Option<CommitId>,
        needed: &[CommitId],
    ) -> Result<Option<CommitId>, Error> {
        let tip = match self.recorded()? {
            Some(tip) if self.regain(source, tip)? => Some(tip),
            _ => users,
        };
        for commit in needed {
            self.find(source, *commit)?;
        }
        match (tip, source) {
            (Some(tip), _) => Ok(Some(tip)),
            (None, Some(source)) => self.last_taken(source, needed),
            (None, None) => Ok(None),
        }
    }

    /// Whether the mirror has a commit that was integrated.
    #[must_use]
    pub fn keeps(&self, commit: CommitId) -> bool {
        self.mirror.can_read(commit)
    }

    /// Finds a commit that was integrated. What the mirror has is as the person wants it, on a branch
    /// or not. What it has lost is there only if it is on a branch of the user.
    fn find(&self, source: Option<&Source>, commit: CommitId) -> Result<(), Error> {
        if self.keeps(commit) {
            return Ok(());
        }
        let branch = || self.name.clone();
        let Some(source) = source else {
            return Err(Error::WorkOutOfReach {
                commit,
                branch: branch(),
            });
        };
        // Asked before it is fetched: afterwards the mirror has it, wanted or not.
        if source.is_on_a_branch(commit)? && self.regain(Some(source), commit)? {
            return Ok(());
        }
        Err(Error::WorkLost {
            commit,
            branch: branch(),
        })
    }

    /// The last of these commits that the user has on a branch.
    fn last_taken(&self, source: &Source, commits: &[CommitId]) -> Result<Option<CommitId>, Error> {
        let mut last = None;
        for commit in commits {
            let is_later = match last {
                Some(last) => !self.mirror.is_ancestor(*commit, last, HISTORY)?,
                None => true,
            };
            if is_later && source.is_on_a_branch(*commit)? {
                last = Some(*commit);
            }
        }
        Ok(last)
    }

    /// Fetches a commit that was integrated if the mirror has lost it. Whether it is there then.
    fn regain(&self, source: Option<&Source>, commit: CommitId) -> Result<bool, Error> {
        if self.keeps(commit) {
            return Ok(true);
        }
        let Some(source) = source else {
            return Ok(false);
        };
        match self.mirror.fetch(source, commit) {
            Ok(()) => Ok(true),
            Err(error) if error.is_damage() => Ok(false),
            Err(Error::Damaged { source, .. }) if source.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a change lands on where the user's branch is gone: `base`, and the last of `integrated` that
    /// the user has on another branch, since what lands may build on it. `base` alone where the branch
    /// is there.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the two do not merge.
    pub fn base_with(
        &self,
        source: &Source,
        base: CommitId,
        integrated: &[CommitId],
        who: &Signature,
    ) -> Result<CommitId, Error> {
        if source.branch(&self.name)?.is_some() {
            return Ok(base);
        }
        match self.last_taken(source, integrated)? {
            Some(taken) => self.join(base, taken, who),
            None => Ok(base),
        }
    }

    /// Finds the tip for work that starts from `base`. A branch that a person deleted begins anew at
    /// `base`; one that a person moved is taken as it is; one that `base` has left behind is brought
    /// forward; and where both have gone on, they are merged. A mirror's tip that is lost is as none.
    ///
    /// # Errors
    /// [`Error::Diverged`] when that merge has conflicts.
    pub fn standing(
        &self,
        source: &Source,
        base: CommitId,
        who: &Signature,
    ) -> Result<Standing, Error> {
        let recorded = self.recorded()?;
        let published = self.mirror.read_ref(&self.published_ref())?;
        let users = source.branch(&self.name)?;
        // What we published came from the mirror.
        if let Some(users) = users.filter(|users| published != Some(*users)) {
            self.mirror.fetch(source, users)?;
        }
        let kept = match recorded {
            Some(tip) if self.regain(Some(source), tip)? => Some(tip),
            _ => None,
        };
        let join = |ours, theirs| self.join(ours, theirs, who);
        let own = match (users, kept) {
            (None, Some(recorded)) if published.is_none() => Some(recorded),
            (None, _) => None,
            (Some(users), Some(recorded))
                if published != Some(users) && published != Some(recorded) =>
            {
                Some(join(users, recorded)?)
            }
            (Some(users), _) if published != Some(users) => Some(users),
            (Some(users), recorded) => Some(recorded.unwrap_or(users)),
        };
        let tip = match own {
            Some(own) => join(own, base)?,
            None => base,
        };
        Ok(Standing {
            tip,
            recorded,
            users,
        })
    }

    /// The later of the two where one holds the other, else their merge.
    ///
    /// # Errors
    /// [`Error::Diverged`] when that has conflicts.
    pub fn join(
        &self,
        ours: CommitId,
        theirs: CommitId,
        who: &Signature,
    ) -> Result<CommitId, Error> {
        if self.mirror.is_ancestor(theirs, ours, HISTORY)? {
            return Ok(ours);
        }
        if self.mirror.is_ancestor(ours, theirs, HISTORY)? {
            return Ok(theirs);
        }
        match self.mirror.merge(ours, theirs, None)? {
            Merged::Conflicted { files, .. } => Err(Error::Diverged {
                branch: self.name.clone(),
                files: files
                    .iter()
                    .map(|file| file.to_str_lossy().into_owned())
                    .collect(),
            }),
            Merged::Clean { tree } => {
                let message = format!("Bring {} up to date\n", self.name);
                self.mirror.commit(&NewCommit {
                    tree,
                    parents: &[ours, theirs],
                    author: who,
                    committer: who,
                    message: message.as_str().into(),
                })
            }
        }
    }

    /// Takes over the moving of the mirror's tip: whoever held it before cannot move it by
    /// [`IntegrationBranch::land`] any more. The token is that of a lease; take over before the
    /// intent to land is stored under that lease, so that one who lost it meanwhile goes no further.
    ///
    /// # Errors
    /// When the mirror cannot be written.
    pub fn hold(&self, token: u64) -> Result<(), Error> {
        let name = self.fence_ref();
        self.mirror.put_fence(&Fence { name: &name, token })
    }

    /// Moves the mirror's tip, if it is still where it was seen and nobody else has taken over.
    ///
    /// # Errors
    /// [`Error::Moved`] when it is elsewhere; [`Error::Fenced`] when somebody has taken over.
    pub fn land(&self, seen: Option<CommitId>, to: CommitId, token: u64) -> Result<(), Error> {
        let name = self.fence_ref();
        let fence = Fence { name: &name, token };
        self.mirror
            .update_ref_held(&self.tip_ref(), Some(to), seen, Some(&fence))
    }

    /// Moves the mirror's tip, if it is still where it was seen, whoever lands changes on it.
    ///
    /// # Errors
    /// [`Error::Moved`] when it is not.
    pub fn advance(&self, seen: Option<CommitId>, to: CommitId) -> Result<(), Error> {
        self.mirror.update_ref(&self.tip_ref(), Some(to), seen)
    }

    /// Moves the user's branch to the mirror's tip, if it is still where it was seen, and marks it as
    /// published.
    ///
    /// # Errors
    /// When the objects or the reference cannot be written.
    pub fn publish(
        &self,
        source: &Source,
        seen: Option<CommitId>,
        to: CommitId,
        who: &Signature,
    ) -> Result<Published, Error> {
        let note = Publishing::begin(&self.mirror, source, &self.name, to)?;
        let published = source.publish(&self.mirror, &self.name, to, seen, who)?;
        if published == Published::Done {
            let mark = self.published_ref();
            self.mirror
                .update_ref(&mark, Some(to), self.mirror.read_ref(&mark)?)?;
        }
        note.done()?;
        Ok(published)
    }

    /// Removes the user's branch, if it is still where it was seen.
    ///
    /// # Errors
    /// When the reference cannot be removed.
    pub fn drop_branch(
        &self,
        source: &Source,
        seen: CommitId,
        who: &Signature,
    ) -> Result<Dropped, Error> {
        let note = Publishing::begin_drop(&self.mirror, source, &self.name, seen)?;
        let dropped = source.drop_branch(&self.name, seen, who)?;
        note.done()?;
        Ok(dropped)
    }

    /// Forgets what is integrated, if the mirror's tip is still where it was seen: the next work
    /// begins at its own base. The user's branch is left to the caller.
    ///
    /// # Errors
    /// [`Error::Moved`] when the tip is elsewhere; when the mirror cannot be written.
    pub fn forget(&self, seen: Option<CommitId>) -> Result<(), Error> {
        self.mirror.update_ref(&self.tip_ref(), None, seen)?;
        let mark = self.published_ref();
        let published = self.mirror.read_ref(&mark)?;
        if published.is_some() {
            self.mirror.update_ref(&mark, None, published)?;
        }
        Ok(())
    }

    /// Publishes integrated work that was not published yet, because a process ended in between or the
    /// branch was checked out. A branch that a person moved or deleted is left alone. What was
    /// published, if anything was.
    ///
    /// # Errors
    /// When the mirror cannot be read, or the objects or the reference cannot be written.
    pub fn publish_pending(
        &self,
        source: &Source,
        who: &Signature,
    ) -> Result<Option<CommitId>, Error> {
        let (recorded, published) = (self.recorded()?, self.published()?);
        let Some(tip) = recorded.filter(|_| recorded != published) else {
            return Ok(None);
        };
        let users = source.branch(&self.name)?;
        // It may have been moved by a process that was killed before it marked that.
        let ours = users == published
            || users == Some(tip)
            || (users.is_some() && users == publishing::noted(&self.mirror, &self.name));
        if !ours {
            return Ok(None);
        }
        let done = self.publish(source, users, tip, who)? == Published::Done;
        Ok(done.then_some(tip))
    }
}
