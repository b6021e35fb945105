//! A sealed workspace that is a person's own.

use super::{
    error::Error as StandingError,
    moments::ForkOf,
    more::{Given, More},
    running::{Run, Running},
};
use crate::{
    Diff, Error, Node,
    reach::commit_of,
    submit::{self, blocking},
};
use domain::{SandboxId, entity::Beside};
use git::{CommitId, Mirror, TreeId};
use sandbox::{Carry, Command, Diagnosis, Stats, Stdin};
use site::{Full, Site, Sites, Wanted};
use std::{ffi::OsString, path::PathBuf, sync::Arc};
use tokio_util::sync::CancellationToken;

/// The longest patch that is made of a place, in bytes.
const MAX_PATCH: usize = 64 << 20;
/// An id that no other sandbox has.
#[must_use]
pub fn fresh_id() -> SandboxId {
    // The ledger's source of random bits.
    SandboxId::from_bits(ledger::Options::new("").ids.bits())
}

/// What is tried where a shell is asked for and none is named.
const SHELLS: [&str; 2] = ["bash", "sh"];

/// What a place is made from.
#[derive(Debug, Clone)]
pub struct Wish {
    /// A path in the repository.
    pub path: PathBuf,
    /// The revision that is checked out, in git's words; `HEAD` where none is named.
    pub revision: Option<String>,
    /// Whether the setup of the policy at that commit runs first.
    pub setup: bool,
    /// Further repositories that are written in it, as [`Node::also`] gives them.
    pub also: Vec<Beside>,
    /// Further repositories that are shown in it, as [`Node::beside`] gives them.
    pub beside: Vec<Beside>,
    /// What it gets beyond what every one has.
    pub more: More,
}

/// A sealed workspace of a repository, as agents get one, without an agent, a channel or a network;
/// its setup gets what the policy grants to setups.
/// Dropping it ends what runs in it and deletes it.
pub struct Place {
    /// Its id.
    pub id: SandboxId,
    /// The top of the repository that it was made from.
    pub repository: PathBuf,
    /// The commit that is checked out.
    pub commit: String,
    /// What it is a fork of, if it is one.
    pub fork_of: Option<ForkOf>,
    /// Further repositories that are written in it.
    pub also: Vec<Beside>,
    /// Further repositories that are shown in it.
    pub beside: Vec<Beside>,
    /// What it has got beyond what every one has.
    pub given: Given,
    pub(super) sites: Sites,
    pub(super) site: Site,
    pub(super) mirror: Mirror,
    pub(super) base: TreeId,
    /// The repository, as the ledger names it.
    pub(super) known_as: String,
    /// The toolchains that the policy names.
    pub(super) roots: Vec<PathBuf>,
}

/// What was changed in a place since it was made.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The files, and a patch for `git apply`.
    pub diff: Diff,
    /// The same of each further repository, in their order.
    pub also: Vec<Diff>,
    /// What was found and is no part of a change, a sentence each.
    pub not_taken: Vec<String>,
}

impl Node {
    /// Makes a place. What killed processes left is swept first.
    ///
    /// # Errors
    /// When the repository, the revision or the policy cannot be used, the setup fails, or no sandbox
    /// can be made; nothing is left then.
    pub async fn place(&self, id: SandboxId, wish: &Wish) -> Result<Place, Error> {
        self.ledger.may_work().await?;
        self.sweep().await;
        let source = self.source(&wish.path).await?;
        let common = source.common_dir().to_string_lossy().into_owned();
        let repository = self.ledger.repository(&common).await?.to_string();
        let mirror = self.sites.mirror(&repository).await?;
        let (commit, policy, include, base) = {
            let (source, mirror) = (source.clone(), mirror.clone());
            let revision = wish.revision.clone();
            blocking(move || {
                let commit = match revision {
                    Some(revision) => source.resolve(&revision)?,
                    None => source.head().commit,
                };
                mirror.fetch(&source, commit)?;
                let policy = submit::policy(&mirror, commit)?;
                let ignored = match policy.include.as_slice() {
                    [] => Vec::new(),
                    globs => source.ignored(globs)?,
                };
                let include = site::included(source.top(), ignored, &policy.include)?;
                let base = mirror.tree_of(commit)?;
                Ok((commit, policy, include, base))
            })
            .await?
        };
        let top = source.top().to_owned();
        // Made with the user's repository, from which objects may be taken.
        self.sites
            .base(&repository, &mirror, commit, Some(source))
            .await?;
        let roots: Vec<PathBuf> = policy.toolchains.roots.iter().map(PathBuf::from).collect();
        let wanted = Wanted {
            setup: policy.setup.filter(|_| wish.setup),
            include: Arc::new(include),
            extra_roots: roots.clone(),
            // Whatever a policy grants to agents, nobody but a person is here, who has a network.
            outlet: self
                .gateway
                .outlet_of_setup(&policy.egress, &CancellationToken::new()),
            also: self.written(&wish.also).await?,
            beside: self.shown(&wish.beside).await?,
            extras: wish.more.extras.clone(),
            ..Wanted::plain(id.to_string(), &repository, commit)
        };
        let mut given = self.extras_of(&wish.more)?;
        let site = self.sites.site(&mirror, wanted).await?;
        if let Some(dotfiles) = &wish.more.dotfiles {
            given.dotfiles = Some(self.put(dotfiles, &site).await?);
        }
        Ok(Place {
            id,
            repository: top,
            commit: CommitId::to_string(&commit),
            fork_of: None,
            also: wish.also.clone(),
            beside: wish.beside.clone(),
            given,
            sites: self.sites.clone(),
            site,
            mirror,
            base,
            known_as: repository,
            roots,
        })
    }
}

impl Place {
    /// The kind of its sandbox.
    #[must_use]
    pub fn kind(&self) -> sandbox::Kind {
        self.sites.kind()
    }

    /// The image whose root its sandbox has, where that is not the host's.
    #[must_use]
    pub fn image(&self) -> Option<String> {
        self.sites.image()
    }

    /// Where the workspace is, as commands see it.
    #[must_use]
    pub fn inside(&self) -> PathBuf {
        self.site.inside()
    }

    /// Starts a command at the top of the workspace. Dropping it kills all that it started.
    ///
    /// # Errors
    /// When there is no such program, or the sandbox has ended.
    pub async fn exec(&self, run: Run) -> Result<Running, Error> {
        let sandbox = self.site.sandbox().map_err(Error::Site)?;
        let is_shell = run.argv.is_empty();
        let mut tries: Vec<Vec<OsString>> = SHELLS.iter().map(|it| vec![it.into()]).collect();
        if !is_shell {
            tries = vec![run.argv.clone()];
        }
        let last = tries.len().saturating_sub(1);
        for (index, argv) in tries.into_iter().enumerate() {
            let command = self.command(&run, argv, is_shell);
            match sandbox.exec(command).await {
                Err(sandbox::Error::NotFound { .. }) if index < last => {}
                started => return Ok(Running::here(started.map_err(StandingError::of_start)?)),
            }
        }
        Err(Error::Ended)
    }

    /// Connects to what listens on a port of its loopback.
    ///
    /// # Errors
    /// When nothing does, there are too many connections, or the sandbox has ended.
    pub async fn connect(&self, port: u16) -> Result<sandbox::Connection, Error> {
        let sandbox = self.site.sandbox().map_err(Error::Site)?;
        Ok(sandbox.connect(port).await?)
    }

    /// Starts to carry files in or out; relative paths begin at the top of the workspace. Dropping it
    /// kills what carries.
    ///
    /// # Errors
    /// When the sandbox has ended.
    pub async fn carry(&self, carry: Carry) -> Result<Running, Error> {
        let sandbox = self.site.sandbox().map_err(Error::Site)?;
        let started = sandbox.carry(carry).await;
        Ok(Running::here(started.map_err(StandingError::of_start)?))
    }

    fn command(&self, run: &Run, argv: Vec<OsString>, is_shell: bool) -> Command {
        let mut command = Command::new(argv, self.site.inside())
            .with_env(self.site.environment().iter().cloned());
        if run.terminal.is_some() {
            // A person is there: programs need not behave as if nobody looked.
            command.env.retain(|(name, _)| name != "CI");
        }
        if is_shell {
            command = command.with_env([("PS1", "(skep) \\w\\$ ")]);
        }
        command = command.with_env(run.env.iter().cloned());
        command.terminal = run.terminal;
        command.timeout = run.timeout;
        command.keep_background = run.keep_background;
        command.with_stdin(match run.stdin {
            true => Stdin::Pipe,
            false => Stdin::Null,
        })
    }

    /// How the sandbox is, and what it uses.
    ///
    /// # Errors
    /// When it was closed.
    pub async fn diagnose(&self) -> Result<(Diagnosis, Stats), Error> {
        let sandbox = self.site.sandbox().map_err(Error::Site)?;
        Ok((sandbox.diagnose().await, sandbox.stats().await))
    }

    /// Waits until the place has taken more of the disk than it may; what runs in it is ended then.
    pub async fn until_full(&self) -> Full {
        self.site.until_full().await
    }

    /// What was changed since it was made; what the setup wrote and what git ignores is no part of it.
    ///
    /// # Errors
    /// When there is more than a change may hold, or it cannot be read.
    pub async fn changed(&self) -> Result<Changed, Error> {
        let extracted = self.site.extract().await?;
        let diff = differs(self.mirror.clone(), self.base, extracted.tree).await?;
        let mut also = Vec::with_capacity(self.also.len());
        for (one, (_, tree)) in self.also.iter().zip(extracted.also) {
            let mirror = self.sites.mirror(&one.repository.to_string()).await?;
            let commit = commit_of(one)?;
            let base = mirror.tree_of(commit)?;
            also.push(differs(mirror, base, tree).await?);
        }
        Ok(Changed {
            diff,
            also,
            not_taken: extracted.not_taken,
        })
    }

    /// From now on its files survive this process and a restart of the machine, until it is closed.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub(super) async fn keep(&mut self) -> Result<(), Error> {
        Ok(self.site.keep().await?)
    }

    /// Ends what runs in it and keeps its files; all of them are on the disk then.
    ///
    /// # Errors
    /// When the sandbox does not end.
    pub(super) async fn rest(self) -> Result<(), Error> {
        let ended = self.site.rest().await;
        self.sites.close(false).await;
        Ok(ended?)
    }

    /// Ends what runs in it and deletes it; waits until it is gone.
    ///
    /// # Errors
    /// When the sandbox does not end.
    pub async fn close(self) -> Result<(), Error> {
        let ended = self.site.close().await;
        self.sites.close(false).await;
        Ok(ended?)
    }
}

/// What a tree has otherwise than another, with a patch.
async fn differs(mirror: Mirror, base: TreeId, tree: TreeId) -> Result<Diff, Error> {
    blocking(move || {
        let patch = mirror.whole_patch(base, tree, MAX_PATCH)?;
        Ok(Diff {
            files: mirror.diff(base, tree)?,
            patch: patch.text.into(),
            truncated: patch.truncated,
        })
    })
    .await
}
