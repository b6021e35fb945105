//! What a site should hold.

use crate::{
    also::Also,
    beside::Beside,
    error::Error,
    include::{self, Included},
};
use domain::{egress::Part, entity::Request, policy::Setup};
use gateway::Outlet;
use git::{CommitId, TreeId};
use ledger::Ledger;
use std::{path::PathBuf, sync::Arc};

/// What a site should hold.
#[derive(Clone)]
pub struct Wanted {
    /// Its name among the workspaces: unique, and the same as the attempt's where it has one.
    pub id: String,
    /// The repository that the commit is in, as part of a base's name.
    pub repository: String,
    /// The commit that is checked out.
    pub base: CommitId,
    /// The tree whose content is wanted instead of the commit's, for checks.
    pub tree: Option<TreeId>,
    /// What prepares the workspace. What it writes is not part of a change.
    pub setup: Option<Setup>,
    /// Files that are taken along. They are not part of a change unless they are written again.
    pub include: Arc<Vec<Included>>,
    /// Toolchains that the policy names.
    pub extra_roots: Vec<PathBuf>,
    /// Programs that must work inside besides the toolchains: that of an agent.
    pub programs: Vec<PathBuf>,
    /// Whether the site has a channel to the gateway, which its owner serves.
    pub channel: bool,
    /// Which part of the work happens in it.
    pub part: Part,
    /// What makes the way out of it that a policy grants. The site serves that itself unless its owner
    /// serves the channel.
    pub outlet: Option<Outlet>,
    /// Further repositories that are written. The kind `host` can write one only.
    pub also: Vec<Also>,
    /// Further repositories that are shown, read-only. The kind `host` cannot show any.
    pub beside: Vec<Beside>,
    /// What its sandbox gets beyond what every one has; that of its setup never does, since what a setup
    /// leaves is shared.
    pub extras: sandbox::Extras,
}

impl Wanted {
    /// A site on a commit and nothing besides: for an agent, without a channel.
    #[must_use]
    pub fn plain(id: impl Into<String>, repository: impl Into<String>, base: CommitId) -> Self {
        Self {
            id: id.into(),
            repository: repository.into(),
            base,
            tree: None,
            setup: None,
            include: Arc::default(),
            extra_roots: Vec::new(),
            programs: Vec::new(),
            channel: false,
            part: Part::Agent,
            outlet: None,
            also: Vec::new(),
            beside: Vec::new(),
            extras: sandbox::Extras::default(),
        }
    }

    /// A site on `base` with what a request asks of every one: setup, files, toolchains.
    ///
    /// # Errors
    /// When a file that is taken along cannot be read, or a further repository is not known.
    pub async fn new(
        ledger: &Ledger,
        request: &Request,
        id: String,
        base: CommitId,
    ) -> Result<Self, Error> {
        let policy = &request.ask.policy;
        let mut beside = Vec::new();
        for one in &request.ask.sources.beside {
            let commit = one.commit.parse().map_err(|_| Error::NotACommit {
                name: one.commit.clone(),
            })?;
            beside.push(Beside {
                name: one.name.clone(),
                repository: one.repository.to_string(),
                commit,
                place: ledger.repository_path(one.repository).await?.into(),
            });
        }
        Ok(Self {
            id,
            repository: request.ask.repository.to_string(),
            base,
            tree: None,
            setup: policy.setup.clone(),
            include: Arc::new(include::load(ledger, &request.ask.included).await?),
            extra_roots: policy.toolchains.roots.iter().map(PathBuf::from).collect(),
            programs: Vec::new(),
            channel: false,
            part: Part::Checks,
            outlet: None,
            also: Vec::new(),
            beside,
            extras: sandbox::Extras::default(),
        })
    }
}
