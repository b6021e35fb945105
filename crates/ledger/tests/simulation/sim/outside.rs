//! The world outside the ledger, which remembers what was really done to it: the integration
//! branches, and the bill of the provider.

use super::Broken;
use domain::{Amount, ChangeId, EventId, GrantId, RepositoryId};
use std::collections::BTreeMap;

/// A branch that moves by compare-and-swap.
#[derive(Default)]
pub(crate) struct Branch {
    /// Every commit with the change that it brought, the oldest first.
    pub(crate) commits: Vec<(String, ChangeId)>,
    /// The newest lease that has come to it: whoever has an older one may not move it any more.
    fence: u64,
}

impl Branch {
    pub(crate) fn tip(&self) -> &str {
        self.commits.last().map_or("", |(commit, _)| commit)
    }

    pub(crate) fn holds(&self, commit: &str) -> bool {
        self.commits.iter().any(|(known, _)| known == commit)
    }
}

/// What one move of a branch asks for.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) repository: RepositoryId,
    pub(crate) token: u64,
    /// The tip that the integrator saw.
    pub(crate) seen: String,
    pub(crate) to: String,
    pub(crate) change: ChangeId,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Outside {
    pub(crate) branches: BTreeMap<RepositoryId, Branch>,
    /// How often each sink was told of each event.
    pub(crate) told: BTreeMap<(EventId, String), u64>,
    /// Whether nobody is told: a mistake on purpose.
    pub(crate) mute: bool,
    /// What each call took.
    pub(crate) bill: BTreeMap<(GrantId, u64), Amount>,
    /// Whether branches let everybody move them who knows their tip: a mistake on purpose.
    pub(crate) unfenced: bool,
}

impl Outside {
    pub(crate) fn fence(&mut self, repository: RepositoryId, token: u64) {
        let branch = self.branches.entry(repository).or_default();
        branch.fence = branch.fence.max(token);
    }

    /// Whether the branch was moved.
    pub(crate) fn advance(&mut self, asked: &Move) -> Result<bool, Broken> {
        let branch = self.branches.entry(asked.repository).or_default();
        if branch.tip() != asked.seen || (asked.token < branch.fence && !self.unfenced) {
            return Ok(false);
        }
        if branch
            .commits
            .iter()
            .any(|(_, change)| *change == asked.change)
        {
            return Err(Broken::new(format!(
                "the change {} is on the branch twice",
                asked.change
            )));
        }
        branch.commits.push((asked.to.clone(), asked.change));
        Ok(true)
    }

    pub(crate) fn tell(&mut self, event: EventId, sink: String) {
        if !self.mute {
            *self.told.entry((event, sink)).or_default() += 1;
        }
    }

    pub(crate) fn call(&mut self, grant: GrantId, call: u64, took: Amount) -> Result<(), Broken> {
        match self.bill.insert((grant, call), took) {
            None => Ok(()),
            Some(_) => Err(Broken::new(format!(
                "call {call} of grant {grant} was made twice"
            ))),
        }
    }
}
