//! A sealed workspace that is a person's own.

use super::{
    error::Error as StandingError,
    moments::ForkOf,
    more::{Given, More},
    running::{Run, Running},
    said::Told,
};
use crate::{
    Error, Node,
    reach::commit_of,
    submit::{self, blocking},
};
use domain::{SandboxId, entity::Beside};
use git::{CommitId, FileChange, Mirror, TreeId};
use sandbox::{Call, Captured, Carry, Command, Diagnosis, Exit, Output, Stats, Stdin};
use site::{Extracted, Full, Site, Sites, Wanted};
use std::{ffi::OsString, fs::File, path::PathBuf, sync::Arc};
use tokio_util::sync::CancellationToken;
use workspace::Limits;

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

/// What was changed in one repository of a place since that was made. It can be asked when the place is
/// gone.
#[derive(Clone)]
pub struct Changed {
    /// The files.
    pub files: Vec<FileChange>,
    /// What was found and is no part of a change, a sentence each.
    pub not_taken: Vec<String>,
    mirror: Mirror,
    base: TreeId,
    tree: TreeId,
}

impl Node {
    /// Makes a place. What killed processes left is swept first.
    ///
    /// # Errors
    /// When the repository, the revision or the policy cannot be used, the setup fails, or no sandbox
    /// can be made; nothing is left then.
    pub async fn place(&self, id: SandboxId, wish: &Wish) -> Result<Place, Error> {
        self.ledger.may_work().await?;
        self.sites.check_room()?;
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

    /// Keeps what a command printed last, of which its client told.
    pub(super) fn remember(&self, exit: Exit, refused: Vec<Call>, told: Told) {
        let captured = |text: String| Captured {
            head: text.into_bytes(),
            ..Captured::default()
        };
        let output = Output {
            exit,
            stdout: captured(told.stdout),
            stderr: captured(told.stderr),
            refused,
        };
        // One that has ended meanwhile remembers nothing.
        if let Ok(sandbox) = self.site.sandbox() {
            sandbox.remember(&output);
        }
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

    /// What its files take on disk, in bytes.
    ///
    /// # Errors
    /// When it was closed, or they cannot be measured at this moment.
    pub(super) async fn disk_bytes(&self) -> Result<u64, Error> {
        Ok(self.site.disk_bytes().await?)
    }

    /// Which bound on the disk was passed, if one was: what ran in it was ended then, and nothing is
    /// started any more.
    #[must_use]
    pub fn full(&self) -> Option<Full> {
        self.site.full()
    }

    /// What was changed since it was made, in its own repository and then in each further one; what the
    /// setup wrote and what git ignores is no part of it. Of each by itself it is an error when there is
    /// more than a change may hold, or it cannot be read.
    ///
    /// # Errors
    /// When nothing can be read: the place has ended.
    pub async fn changed(&self) -> Result<Vec<Result<Changed, Error>>, Error> {
        let mut parts = self.site.extract_each().await?.into_iter();
        let own = parts.next().ok_or(Error::Ended)?.extracted;
        let own = Changed::of(self.mirror.clone(), self.base, own).await;
        let mut all = vec![own];
        for (one, part) in self.also.iter().zip(parts) {
            all.push(self.changed_in(one, part.extracted).await);
        }
        Ok(all)
    }

    async fn changed_in(
        &self,
        one: &Beside,
        extracted: Result<Extracted, site::Error>,
    ) -> Result<Changed, Error> {
        let mirror = self.sites.mirror(&one.repository.to_string()).await?;
        let base = mirror.tree_of(commit_of(one)?)?;
        Changed::of(mirror, base, extracted).await
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

impl Changed {
    async fn of(
        mirror: Mirror,
        base: TreeId,
        extracted: Result<Extracted, site::Error>,
    ) -> Result<Self, Error> {
        let Extracted {
            tree, not_taken, ..
        } = extracted?;
        blocking(move || {
            Ok(Self {
                files: mirror.diff(base, tree)?,
                not_taken,
                mirror,
                base,
                tree,
            })
        })
        .await
    }

    /// Writes a patch for `git apply` into a file.
    ///
    /// # Errors
    /// When it cannot be written whole: there may be a part of it in the file then.
    pub async fn write_patch(&self, file: File) -> Result<(), Error> {
        // What a change may hold, once as it is, and once as it was: each in letters, which takes more.
        let most = Limits::default().total_bytes.saturating_mul(4);
        let (mirror, base, tree) = (self.mirror.clone(), self.base, self.tree);
        blocking(move || Ok(mirror.write_patch(base, tree, &file, most)?)).await
    }
}
