//! What all sites of a process share: bases, mirrors, and what is done in the background.

use crate::{
    disk::{DiskBounds, Watch},
    error::Error,
    flights::Flights,
    gc,
    host::Host,
    kept::is_kept,
    near,
    pool::{Pool, Warm},
};
use git::{CommitId, Mirror, Source};
use ledger::Ledger;
use sandbox::toolchains::Toolchains;
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use workspace::{Base, Layering, Layers, Store, Workspace};

/// How sites are made.
#[derive(Clone)]
pub struct Options {
    /// Where bases and workspaces are kept.
    pub directory: PathBuf,
    /// The kind of sandbox.
    pub backend: Arc<dyn sandbox::Backend>,
    /// How a workspace lies over its base.
    pub layering: Layering,
    /// Where toolchains come from.
    pub host: Host,
    /// What a sandbox may use.
    pub limits: sandbox::Limits,
    /// What each site may take on disk.
    pub disk: DiskBounds,
    /// How many sandboxes are kept ready.
    pub warm: Warm,
    /// The git program.
    pub git: git::Program,
}

/// Opens sites. Cheap to clone.
#[derive(Clone)]
pub struct Sites {
    shared: Arc<Shared>,
    /// Devices that every sandbox gets but that of a setup, as the user names them.
    devices: Arc<[String]>,
    /// Whether namespaces can be made in each of these.
    nested: bool,
}

struct Shared {
    options: Options,
    store: Store,
    /// Set when the trash need not be emptied any further: the program ends.
    stop: AtomicBool,
    cleaning: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// Measures what all of it takes, some time after a base was made.
    keeping: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// Setups that are under way.
    flights: Flights,
    /// Sandboxes that are ready.
    pool: Pool,
    /// Open mirrors by repository: opening one again would read its packs again.
    mirrors: Mutex<HashMap<String, Mirror>>,
}

impl Sites {
    /// Opens the store of bases and workspaces.
    ///
    /// # Errors
    /// When the directory cannot serve.
    pub fn open(options: Options) -> Result<Self, Error> {
        let store = Store::open(&options.directory, options.layering)?;
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                store,
                stop: AtomicBool::new(false),
                cleaning: Mutex::default(),
                keeping: Mutex::default(),
                flights: Flights::default(),
                pool: Pool::default(),
                mirrors: Mutex::default(),
            }),
            devices: Arc::default(),
            nested: false,
        })
    }

    /// Gives these devices of the host to every sandbox that seals, but to those of setups, and lets
    /// namespaces be made there or not.
    #[must_use]
    pub fn giving(self, devices: &[String], nested: bool) -> Self {
        Self {
            devices: devices.into(),
            nested,
            ..self
        }
    }

    pub(crate) fn nested(&self) -> bool {
        self.nested
    }

    pub(crate) fn devices(&self) -> &[String] {
        &self.devices
    }

    /// The kind of sandbox.
    #[must_use]
    pub fn kind(&self) -> sandbox::Kind {
        self.shared.options.backend.kind()
    }

    /// The image whose root its sandboxes have, where that is not the host's.
    #[must_use]
    pub fn image(&self) -> Option<String> {
        self.shared.options.backend.image().map(str::to_owned)
    }

    /// What that kind can do.
    #[must_use]
    pub fn abilities(&self) -> sandbox::Abilities {
        self.shared.options.backend.abilities()
    }

    /// That a new site would not be ended at once for want of room on the disk.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub fn check_room(&self) -> Result<(), Error> {
        let options = &self.shared.options;
        options.disk.check(&options.directory)
    }

    /// Moves what no process works in to the trash, and empties it in the background. The workspaces
    /// of attempts that are open in the ledger stay, because their next holders go on in them, and so do
    /// those of sandboxes that have a record.
    ///
    /// # Errors
    /// When the ledger or the store cannot be read.
    pub async fn sweep(&self, ledger: &Ledger) -> Result<(), Error> {
        let options = &self.shared.options;
        discard_unused(ledger, self.shared.store.clone(), &options.directory).await?;
        self.clean();
        if gc::is_scarce(&options.directory, options.disk.store) {
            self.keep();
        }
        Ok(())
    }

    /// The mirror of a repository, made unless it is there.
    ///
    /// # Errors
    /// When it cannot be opened or made.
    pub async fn mirror(&self, repository: &str) -> Result<Mirror, Error> {
        if let Some(mirror) = self.mirrors().get(repository) {
            return Ok(mirror.clone());
        }
        let mirrors = self.shared.options.directory.join(gc::MIRRORS);
        let place = mirrors.join(repository);
        let program = self.shared.options.git.clone();
        let open = move || {
            workspace::make_apart(&mirrors)?;
            Ok(Mirror::open_or_create(&place, program)?)
        };
        let mirror = blocking(open).await?;
        self.mirrors().insert(repository.to_owned(), mirror.clone());
        Ok(mirror)
    }

    fn mirrors(&self) -> std::sync::MutexGuard<'_, HashMap<String, Mirror>> {
        lock(&self.shared.mirrors)
    }

    pub(crate) fn host(&self) -> &Host {
        &self.shared.options.host
    }

    /// The git program.
    #[must_use]
    pub fn git(&self) -> &git::Program {
        &self.shared.options.git
    }

    /// Makes the base of a commit, unless it is there and its history is whole. With `source`,
    /// objects may be taken from the user's repository where that is quicker.
    ///
    /// # Errors
    /// When the commit cannot be checked out.
    pub async fn base(
        &self,
        repository: &str,
        mirror: &Mirror,
        commit: CommitId,
        source: Option<Source>,
    ) -> Result<Base, Error> {
        let (sites, mirror) = (self.clone(), mirror.clone());
        let (key, repository) = (base_key(repository, commit), repository.to_owned());
        let built = AtomicBool::new(false);
        let (base, is_new) = blocking(move || {
            let store = &sites.shared.store;
            let base = || {
                let (base, new) =
                    near::base(store, &key, &repository, &mirror, commit, source.as_ref())?;
                built.fetch_or(new, Ordering::Relaxed);
                Ok::<_, Error>(base)
            };
            let found = base()?;
            if near::is_whole(&mirror, found.trees()) {
                return Ok((found, built.into_inner()));
            }
            drop(found);
            match near::evict(store, &key) {
                Ok(()) | Err(workspace::Error::NoBase { .. }) => {
                    tracing::warn!(base = key, "a damaged base is made again");
                }
                // Its files are whole, and whoever is there goes on with them.
                Err(workspace::Error::BaseInUse { user, .. }) => {
                    tracing::warn!(base = key, user, "a damaged base is in use and stays");
                }
                Err(error) => return Err(error.into()),
            }
            Ok((base()?, true))
        })
        .await?;
        if is_new {
            self.keep();
        }
        Ok(base)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.shared.flights
    }

    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Sees to it that a workspace takes no more of the disk than it may.
    pub(crate) fn watch(&self, workspace: &Workspace, sandbox: &dyn sandbox::Sandbox) -> Watch {
        Watch::start(self.shared.options.disk, workspace, sandbox.strike())
    }

    /// Empties the trash in the background; [`Sites::close`] waits for it.
    pub(crate) fn clean(&self) {
        let sites = self.clone();
        self.beside(
            move || match sites.shared.store.empty_trash(&sites.shared.stop) {
                Ok(_) | Err(workspace::Error::Stopped) => {}
                Err(error) => tracing::warn!(%error, "the trash cannot be emptied"),
            },
        );
    }

    /// Does blocking work in the background; [`Sites::close`] waits for it.
    pub(crate) fn beside(&self, work: impl FnOnce() + Send + 'static) {
        let task = tokio::task::spawn_blocking(work);
        let mut cleaning = lock(&self.shared.cleaning);
        cleaning.retain(|task| !task.is_finished());
        cleaning.push(task);
    }

    /// Sees to it, a little later and in the background, that all of it takes no more than it may:
    /// whoever waits for a base is not to wait for the measuring of files.
    pub(crate) fn keep(&self) {
        let mut keeping = lock(&self.shared.keeping);
        if keeping.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let sites = self.clone();
        *keeping = Some(tokio::spawn(async move {
            tokio::time::sleep(KEEP_AFTER).await;
            sites.keep_now().await;
        }));
    }

    async fn keep_now(&self) {
        let sites = self.clone();
        let kept = blocking(move || {
            let Shared {
                store,
                options,
                stop,
                ..
            } = &*sites.shared;
            gc::keep(store, &options.directory, options.disk.store, stop)
        });
        match kept.await {
            Ok(()) => self.clean(),
            Err(Error::Workspace(workspace::Error::Stopped)) => {}
            Err(error) => tracing::warn!(%error, "what bases take could not be measured"),
        }
    }

    /// Waits until what was closed is deleted, or stops that where `quickly`; the next sweep goes on.
    pub async fn close(&self, quickly: bool) {
        self.cool().await;
        if !quickly {
            self.shared.options.backend.settle().await;
        }
        self.shared.stop.store(quickly, Ordering::Release);
        let keeping = lock(&self.shared.keeping).take();
        if let Some(task) = keeping.filter(|task| !task.is_finished()) {
            task.abort();
            if !quickly {
                self.keep_now().await;
            }
        }
        let tasks = std::mem::take(&mut *lock(&self.shared.cleaning));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::warn!(%error, "the task that empties the trash failed");
            }
        }
    }
}

/// How long after a base was made all is measured.
const KEEP_AFTER: Duration = Duration::from_secs(10);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what no process works in from a directory of sites, and waits until it is deleted, and
/// the control groups of processes that have ended. It needs neither git nor a sandbox: for whoever
/// ends work and runs none.
///
/// # Errors
/// When the ledger or the store cannot be read, or something cannot be deleted.
pub async fn sweep(ledger: &Ledger, directory: &Path) -> Result<(), Error> {
    // How new workspaces would lie over their bases does not matter: none is made.
    let store = Store::open(directory, Layering::Copy)?;
    discard_unused(ledger, store.clone(), directory).await?;
    blocking(move || {
        // It removes them when it looks at the machine.
        drop(sandbox::Namespace::new());
        Ok(store.empty_trash(&AtomicBool::new(false)).map(drop)?)
    })
    .await
}

/// Moves what no process works in to the trash.
async fn discard_unused(ledger: &Ledger, store: Store, directory: &Path) -> Result<(), Error> {
    // Asked first: an attempt that opens after this is held by its process.
    let open = open_attempts(ledger).await?;
    let directory = directory.to_owned();
    let stays = move |id: &str| open.contains(id) || is_kept(&directory, id);
    blocking(move || Ok(store.sweep(stays).map(drop)?)).await
}

/// The workspaces of attempts that are open in the ledger.
pub(crate) async fn open_attempts(ledger: &Ledger) -> Result<HashSet<String>, Error> {
    let open = ledger.open_attempts().await?;
    Ok(open.iter().map(ToString::to_string).collect())
}

/// The name of a commit's base.
pub(crate) fn base_key(repository: &str, commit: impl std::fmt::Display) -> String {
    format!("{repository}-{commit}")
}

/// A workspace that is deleted unless it becomes a site, or was there before.
pub(crate) struct Guard {
    sites: Sites,
    workspace: Option<Workspace>,
    stays: bool,
}

impl Guard {
    pub(crate) fn new(sites: &Sites, workspace: Workspace) -> Self {
        Self {
            sites: sites.clone(),
            workspace: Some(workspace),
            stays: false,
        }
    }

    /// Whatever becomes of the site, the files stay.
    pub(crate) fn keeping(mut self) -> Self {
        self.stays = true;
        self
    }

    pub(crate) fn workspace(&self) -> Result<&Workspace, Error> {
        self.workspace.as_ref().ok_or(Error::Ended)
    }

    pub(crate) fn take(&mut self) -> Result<Workspace, Error> {
        self.workspace.take().ok_or(Error::Ended)
    }

    /// Runs blocking work on the workspace.
    pub(crate) async fn with(
        &mut self,
        work: impl FnOnce(&Workspace) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let workspace = self.take()?;
        let (workspace, done) = blocking(move || {
            let done = work(&workspace);
            Ok((workspace, done))
        })
        .await?;
        self.workspace = Some(workspace);
        done
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(workspace) = self.workspace.take()
            && !self.stays
        {
            discard(&self.sites, workspace);
        }
    }
}

/// Puts the files of toolchains into a new home. Nothing has run in it yet, so that no link can lead
/// these writes elsewhere.
pub(crate) fn furnish(workspace: &Workspace, toolchains: &Toolchains) -> Result<(), Error> {
    let home = workspace.home();
    toolchains
        .write_files(&home)
        .map_err(|source| Error::Unreadable {
            path: home.display().to_string(),
            source,
        })
}

/// What a sandbox shows of a workspace, of each repository that is written in it.
pub(crate) fn all_layers(workspace: &Workspace) -> Vec<sandbox::Workspace> {
    let also = workspace.also_layers().into_iter().map(|(_, files)| files);
    let all = [workspace.layers()].into_iter().chain(also);
    all.map(layers).collect()
}

/// What a sandbox shows of one of them.
pub(crate) fn layers(files: Layers) -> sandbox::Workspace {
    match files {
        Layers::Overlay {
            lowers,
            upper,
            work,
        } => sandbox::Workspace::Overlay {
            lowers,
            upper,
            work,
            volatile: true,
        },
        Layers::Directory(directory) => sandbox::Workspace::Directory(directory),
    }
}

/// Moves a workspace to the trash and empties it in the background.
pub(crate) fn discard(sites: &Sites, workspace: Workspace) {
    if let Err(error) = workspace.delete() {
        tracing::warn!(%error, "a workspace could not be deleted; the next sweep will try again");
    }
    sites.clean();
}

/// Runs work that blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Ended)?
}
