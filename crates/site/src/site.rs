//! One site: commands in its sandbox, its changes as a tree, its end.

use crate::{
    also::Written,
    beside::Shown,
    disk::{Full, Watch},
    elsewhere::Elsewhere,
    error::Error,
    extract::{Extracted, Part, extract},
    open::{Sites, blocking, discard},
    setup::SetUp,
    turns::Turns,
    way::Way,
};
use git::{Mirror, TreeId};
use sandbox::{Channel, Command, Exit, Sandbox, toolchains::Toolchains};
use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use workspace::{Layering, Limits, Workspace};

/// The most bytes of output that are kept of one command, head and tail together.
pub(crate) const MAX_OUTPUT: usize = 1 << 20;

/// A workspace with its sandbox. Dropping it ends what runs in it and deletes the workspace, unless
/// it is to outlive the process.
pub struct Site {
    pub(crate) sites: Sites,
    /// What several threads work on, one at a time; none once the site is closed.
    pub(crate) workspace: Option<Arc<Mutex<Workspace>>>,
    disk: Watch,
    sandbox: Option<Box<dyn Sandbox>>,
    /// What leads out of it; it ends first, so that all is recorded.
    way: Mutex<Option<Way>>,
    environment: Vec<(OsString, OsString)>,
    pub(crate) toolchains: Toolchains,
    pub(crate) mirror: Mirror,
    pub(crate) base: TreeId,
    outlives: bool,
    pub(crate) layering: Layering,
    pub(crate) turns: Turns,
    /// Further repositories that are written.
    pub(crate) also: Vec<Written>,
    /// Further repositories stay checked out while it lives.
    shown: Vec<Shown>,
    pub(crate) set_up: Option<SetUp>,
    was_ready: bool,
    /// Where its files are not of this machine.
    elsewhere: Option<Elsewhere>,
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Ran {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote, standard output first; head and tail where it was long.
    pub output: Vec<u8>,
    /// How long it took.
    pub duration: Duration,
}

impl Ran {
    /// The end of the output, at most so many bytes, as text.
    #[must_use]
    pub fn tail(&self, bytes: usize) -> String {
        let start = self.output.len().saturating_sub(bytes);
        String::from_utf8_lossy(self.output.get(start..).unwrap_or_default()).into_owned()
    }
}

impl Site {
    pub(crate) fn new(
        sites: Sites,
        workspace: Workspace,
        disk: Watch,
        (sandbox, way): (Box<dyn Sandbox>, Option<Way>),
        toolchains: &Toolchains,
        mirror: Mirror,
        base: TreeId,
    ) -> Self {
        let besides = way.as_ref().map_or(&[][..], |way| &way.environment);
        let environment = environment(&*sandbox, toolchains, besides);
        Self {
            sites,
            layering: workspace.layering(),
            workspace: Some(Arc::new(Mutex::new(workspace))),
            disk,
            sandbox: Some(sandbox),
            way: Mutex::new(way),
            environment,
            toolchains: toolchains.clone(),
            mirror,
            base,
            outlives: false,
            turns: Turns::default(),
            also: Vec::new(),
            shown: Vec::new(),
            set_up: None,
            was_ready: false,
            elsewhere: None,
        }
    }

    pub(crate) fn elsewhere(mut self, elsewhere: Option<Elsewhere>) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    pub(crate) fn was_ready_if(mut self, was_ready: bool) -> Self {
        self.was_ready = was_ready;
        self
    }

    /// Whether its sandbox was ready before anybody asked for it.
    #[must_use]
    pub fn was_ready(&self) -> bool {
        self.was_ready
    }

    pub(crate) fn set_up_as(mut self, set_up: Option<SetUp>) -> Self {
        self.set_up = set_up;
        self
    }

    pub(crate) fn showing(mut self, shown: Vec<Shown>) -> Self {
        self.shown = shown;
        self
    }

    pub(crate) fn writing(mut self, also: Vec<Written>) -> Self {
        self.also = also;
        self
    }

    /// The further repositories that it shows.
    pub(crate) fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// From now on the workspace is deleted by [`Site::close`] alone: work that is dropped half-way
    /// can be gone on with.
    pub fn outlive(&mut self) {
        self.outlives = true;
    }

    /// From now on its files survive this process and a restart of the machine, until they are taken
    /// away by [`Site::close`]: [`Sites::resume`] opens them again.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub async fn keep(&mut self) -> Result<(), Error> {
        let files = self.files()?;
        blocking(move || Ok(held(&files).keep()?)).await?;
        self.outlives = true;
        Ok(())
    }

    /// Waits until all that was written in it is on the disk.
    ///
    /// # Errors
    /// When that is not known.
    pub async fn sync(&self) -> Result<(), Error> {
        let files = self.files()?;
        blocking(move || Ok(held(&files).sync()?)).await
    }

    /// The sandbox.
    ///
    /// # Errors
    /// After [`Site::close`].
    pub fn sandbox(&self) -> Result<&dyn Sandbox, Error> {
        self.sandbox
            .as_deref()
            .ok_or(Error::Sandbox(sandbox::Error::Gone))
    }

    /// Which bound on the disk was passed, if one was: nothing is started in the site any more.
    #[must_use]
    pub fn full(&self) -> Option<Full> {
        self.disk.full()
    }

    /// Waits until the site has taken more of the disk than it may, or too little is left of it; what
    /// runs in the site is ended then. For ever, where that does not happen.
    pub async fn until_full(&self) -> Full {
        self.disk.until_full().await
    }

    /// The listener inside the sandbox, once.
    #[must_use]
    pub fn take_channel(&self) -> Option<Channel> {
        self.sandbox.as_ref()?.take_channel()
    }

    /// What commands get as their environment.
    #[must_use]
    pub fn environment(&self) -> &[(OsString, OsString)] {
        &self.environment
    }

    /// Where the workspace is, as commands see it.
    #[must_use]
    pub fn inside(&self) -> PathBuf {
        self.sandbox
            .as_ref()
            .map(|sandbox| sandbox.workspace().to_owned())
            .unwrap_or_default()
    }

    /// Runs `sh -c COMMAND` at the top of the workspace.
    ///
    /// # Errors
    /// When the sandbox refuses; a command that fails is no error.
    pub async fn run(&self, command: &str, timeout: Duration) -> Result<Ran, Error> {
        shell(self.sandbox()?, &self.environment, command, timeout).await
    }

    /// Reads what changed since the site was opened into a tree of the mirror, and into one of its own
    /// mirror for each further repository.
    ///
    /// # Errors
    /// When the workspace holds more than a change may, or cannot be read.
    pub async fn extract(&self) -> Result<Extracted, Error> {
        let mut parts = self.extract_each().await?.into_iter();
        let own = parts.next().ok_or(Error::Ended)?;
        let mut all = own.extracted?;
        for Part { name, extracted } in parts {
            all.add(name.unwrap_or_default(), extracted?);
        }
        Ok(all)
    }

    /// As [`Site::extract`], of each repository by itself, its own first: one that cannot be read, or
    /// has more than a change may hold, keeps none of the others from being read.
    ///
    /// # Errors
    /// When the site has ended.
    pub async fn extract_each(&self) -> Result<Vec<Part>, Error> {
        self.turns.check()?;
        let workspace = self.files()?;
        let (mirror, base, also) = (self.mirror.clone(), self.base, self.also.clone());
        if let Some(elsewhere) = &self.elsewhere {
            let room = held(&workspace).tmp();
            let sandbox = self.sandbox()?;
            let extracted = elsewhere.extract(sandbox, (mirror, base), room).await;
            return Ok(vec![Part {
                name: None,
                extracted,
            }]);
        }
        blocking(move || {
            let (workspace, limits) = (held(&workspace), Limits::default());
            let own = [(None, mirror, base)].into_iter();
            let also = also
                .into_iter()
                .map(|one| (Some(one.name), one.mirror, one.base));
            let parts = own.chain(also).map(|(name, mirror, base)| {
                let of = (&*workspace, name.as_deref());
                let extracted = extract(&mirror, base, of, &limits);
                Part { name, extracted }
            });
            Ok(parts.collect())
        })
        .await
    }

    /// What its files take on disk, in bytes: what was written, the home and the temporary directory. A
    /// workspace that is a copy counts whole.
    ///
    /// # Errors
    /// When the site has ended, or its files cannot be measured at this moment.
    pub async fn disk_bytes(&self) -> Result<u64, Error> {
        let mut meter = held(&*self.files()?).meter();
        blocking(move || Ok(meter.taken()?.bytes)).await
    }

    pub(crate) fn files(&self) -> Result<Arc<Mutex<Workspace>>, Error> {
        let files = self.workspace.clone();
        files.ok_or(Error::Sandbox(sandbox::Error::Gone))
    }

    /// Ends what leads out of the site, and records the rest of what left it: while the work's lease
    /// is still held.
    pub async fn seal(&self) {
        let way = {
            let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
            way.take()
        };
        if let Some(way) = way {
            way.served.close().await;
        }
    }

    /// Ends what runs in the site and deletes the workspace in the background.
    ///
    /// # Errors
    /// When the sandbox does not end.
    pub async fn close(mut self) -> Result<(), Error> {
        self.seal().await;
        let ended = match self.sandbox.take() {
            Some(sandbox) => sandbox.destroy().await,
            None => Ok(()),
        };
        self.discard();
        Ok(ended?)
    }

    /// Ends what runs in the site and keeps the workspace, so that it can be gone on with:
    /// [`Sites::reopen`], [`Sites::resume`].
    ///
    /// # Errors
    /// When the sandbox does not end.
    pub async fn leave(mut self) -> Result<(), Error> {
        self.seal().await;
        let ended = match self.sandbox.take() {
            Some(sandbox) => sandbox.destroy().await,
            None => Ok(()),
        };
        self.workspace = None;
        Ok(ended?)
    }

    /// As [`Site::leave`]; all that was written is on the disk then.
    ///
    /// # Errors
    /// When the sandbox does not end, or that is not known.
    pub async fn rest(mut self) -> Result<(), Error> {
        self.turns.stop();
        self.seal().await;
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.destroy().await?;
        }
        self.sync().await
    }

    fn discard(&mut self) {
        self.turns.stop();
        let files = self.workspace.take().and_then(Arc::into_inner);
        if let Some(workspace) = files {
            let workspace = workspace.into_inner();
            discard(
                &self.sites,
                workspace.unwrap_or_else(PoisonError::into_inner),
            );
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.way = Mutex::default();
        self.sandbox = None;
        if !self.outlives {
            self.discard();
        }
    }
}

/// The files, whatever became of who held them before: what they are is on the disk.
pub(crate) fn held(files: &Mutex<Workspace>) -> MutexGuard<'_, Workspace> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What commands get as their environment: the sandbox's own, the toolchains', and what besides.
#[must_use]
pub fn environment(
    sandbox: &dyn Sandbox,
    toolchains: &Toolchains,
    besides: &[(OsString, OsString)],
) -> Vec<(OsString, OsString)> {
    let own = [
        ("PATH", toolchains.path.clone()),
        ("GIT_TERMINAL_PROMPT", "0".into()),
        ("CI", "true".into()),
    ];
    let mut environment = sandbox.base_env();
    let set = toolchains.env.iter().cloned();
    let own = own
        .into_iter()
        // Where no toolchain is shown, programs are where the sandbox says.
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (OsString::from(name), value));
    for (name, value) in set.chain(besides.iter().cloned()).chain(own) {
        environment.retain(|(known, _)| *known != name);
        environment.push((name, value));
    }
    environment
}

pub(crate) async fn shell(
    sandbox: &dyn Sandbox,
    environment: &[(OsString, OsString)],
    command: &str,
    timeout: Duration,
) -> Result<Ran, Error> {
    let start = std::time::Instant::now();
    let command = Command::new(["sh", "-c", command], sandbox.workspace())
        .with_env(environment.iter().cloned())
        .with_timeout(timeout);
    let output = sandbox::exec_captured(sandbox, command, MAX_OUTPUT).await?;
    let mut text = output.stdout.text();
    text.push_str(&output.stderr.text());
    Ok(Ran {
        exit: output.exit,
        output: text.into_bytes(),
        duration: start.elapsed(),
    })
}
