//! A repository with the base of its commit, and sandboxes over it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use git::{CommitId, Source};
use sandbox::{Backend, Command, Namespace, Sandbox, Spec, Tmp, exec_captured};
use skep_site::{Sites, Warm};
use testkit::Repo;
use workspace::{Base, Layering, Layers, Store, Workspace};

use crate::figures::{self, Failed};

/// Files of the repository.
const FILES: usize = 90_000;
/// What one sandbox may use of the machine's memory.
const MEMORY: u64 = 8 << 30;
/// What is kept of a command's output.
const OUTPUT: usize = 4_096;
/// What making a directory takes at most where nothing was deleted of late.
const SETTLED: Duration = Duration::from_micros(300);
/// How long that is waited for: a minute, and another for the numbers to be written to the disk.
const UNSETTLED: Duration = Duration::from_secs(120);
/// The name of the repository.
const NAME: &str = "bench";

/// What all sandboxes here have in common. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stage {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    base: Base,
    backend: Namespace,
    next: AtomicUsize,
    data: tempfile::TempDir,
}

/// A workspace with its sandbox.
pub(crate) struct Made {
    pub(crate) workspace: Workspace,
    pub(crate) sandbox: Box<dyn Sandbox>,
}

impl Stage {
    pub(crate) async fn new() -> Result<Stage, Failed> {
        let repo = Repo::generated(figures::files(FILES)?);
        let data = tempfile::tempdir()?;
        let backend = Namespace::new();
        let options = figures::options(data.path(), backend.clone(), Warm::OFF)?;
        let source = Source::discover(repo.path(), options.git.clone())?;
        let sites = Sites::open(options)?;
        let mirror = sites.mirror(NAME).await?;
        let main: CommitId = repo.head().parse()?;
        mirror.fetch(&source, main)?;
        let base = sites.base(NAME, &mirror, main, None).await?;
        sites.close(true).await;
        let plain = data.path().join("plain");
        std::fs::create_dir(&plain)?;
        settle(data.path()).await?;
        Ok(Stage {
            shared: Arc::new(Shared {
                store: Store::open(data.path(), Layering::Overlay)?,
                base,
                backend,
                next: AtomicUsize::new(0),
                data,
            }),
        })
    }

    /// A directory that is no workspace: for sandboxes without one, and for those of others.
    pub(crate) fn plain(&self) -> PathBuf {
        self.shared.data.path().join("plain")
    }

    /// A new workspace over the base, its sandbox ready for commands.
    pub(crate) async fn open(&self) -> Result<Made, Failed> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let workspace = self
            .shared
            .store
            .create(&format!("bench-{number}"), &self.shared.base)?;
        let Layers::Overlay {
            lowers,
            upper,
            work,
        } = workspace.layers()
        else {
            return Err("the workspace is no overlay".into());
        };
        let mut spec = spec(sandbox::Workspace::Overlay {
            lowers,
            upper,
            work,
            volatile: true,
        });
        spec.home = Some(workspace.home());
        spec.tmp = Tmp::Directory(workspace.tmp());
        let sandbox = self.shared.backend.create(spec).await?;
        Ok(Made { workspace, sandbox })
    }

    /// A sandbox around an empty directory.
    pub(crate) async fn open_bare(&self) -> Result<Box<dyn Sandbox>, Failed> {
        let spec = spec(sandbox::Workspace::Directory(self.plain()));
        Ok(self.shared.backend.create(spec).await?)
    }

    /// One whole life: workspace and sandbox up, a command, all gone for everybody.
    pub(crate) async fn cycle(&self) -> Result<(), Failed> {
        let made = self.open().await?;
        run(&*made.sandbox).await?;
        made.close().await
    }

    /// Deletes what was moved to the trash, as is done in the background.
    pub(crate) fn clean(&self) -> Result<(), Failed> {
        self.shared.store.empty_trash(&AtomicBool::new(false))?;
        Ok(())
    }
}

/// Waits until making a directory is as fast as it can be. For some minutes after many files were
/// deleted, as at the end of an earlier measurement, an ext4 without a journal looks at each of their
/// numbers before it gives one to a new file: that takes a millisecond then, and a life makes some
/// fifteen.
async fn settle(place: &Path) -> Result<(), Failed> {
    let began = Instant::now();
    while usual_mkdir(place)? > SETTLED {
        if began.elapsed() > UNSETTLED {
            eprintln!("making a directory is slow here: the lives with a workspace are, too");
            break;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}

/// What making a directory takes, usually.
fn usual_mkdir(place: &Path) -> Result<Duration, Failed> {
    let mut took = [Duration::ZERO; 9];
    for it in &mut took {
        let fresh = tempfile::Builder::new()
            .prefix("settle-")
            .tempdir_in(place)?;
        let began = Instant::now();
        std::fs::create_dir(fresh.path().join("of-it"))?;
        *it = began.elapsed();
    }
    took.sort();
    let [_, _, _, _, usual, ..] = took;
    Ok(usual)
}

impl Made {
    pub(crate) async fn close(self) -> Result<(), Failed> {
        self.sandbox.destroy().await?;
        Ok(self.workspace.delete()?)
    }
}

fn spec(files: sandbox::Workspace) -> Spec {
    let mut spec = Spec::new(files);
    spec.channel_port = Some(0);
    spec.limits.memory_bytes = Some(MEMORY);
    spec
}

/// Runs the smallest of commands.
pub(crate) async fn run(sandbox: &dyn Sandbox) -> Result<(), Failed> {
    let command = Command::new(["/usr/bin/true"], sandbox.workspace()).with_env(sandbox.base_env());
    let output = exec_captured(sandbox, command, OUTPUT).await?;
    match output.exit.success() {
        true => Ok(()),
        false => Err(format!("true: {}", output.exit).into()),
    }
}

/// The proportional memory of a process, in KiB. Nothing where its list is closed to us.
pub(crate) fn pss_kib(process: &str) -> Option<u64> {
    let rollup = Path::new("/proc").join(process).join("smaps_rollup");
    let text = std::fs::read_to_string(rollup).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
