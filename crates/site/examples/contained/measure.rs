//! The figures.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use git::{CommitId, Mirror, Source};
use sandbox::{Backend, Command, Container, Limits, Sandbox, Spec, Tmp, exec_captured};
use skep_site::{Options, Sites, Wanted, Warm};
use testkit::Repo;
use workspace::{Base, Layering, Layers, Store, Workspace};

use crate::{
    figures::{self, Failed, figure, ms},
    peer,
};

/// Files of the repository.
const FILES: usize = 2_000;
/// How often a container is made, how many commands are run in one, and how many are taken from the
/// pool.
const ROUNDS: usize = 20;
const COMMANDS: usize = 200;
const TAKEN: usize = 12;
/// Rounds before that, which are not counted.
const BEFORE: usize = 2;
/// How long a sandbox may take to be ready.
const DEADLINE: Duration = Duration::from_secs(120);
/// What one container may use of the machine's memory.
const MEMORY: u64 = 1 << 30;
/// What is kept of a command's output.
const OUTPUT: usize = 4_096;
/// The name of the repository.
const NAME: &str = "bench";

/// What all of them have in common.
struct Stage {
    data: tempfile::TempDir,
    backend: Container,
    mirror: Mirror,
    commit: CommitId,
    _repo: Repo,
}

/// A workspace with its container.
struct Made {
    workspace: Workspace,
    sandbox: Box<dyn Sandbox>,
}

pub(crate) async fn all() -> Result<(), Failed> {
    let stage = Stage::new().await?;
    stage.cold().await?;
    stage.warm().await
}

impl Stage {
    async fn new() -> Result<Stage, Failed> {
        let repo = Repo::generated(figures::files(FILES)?);
        let data = tempfile::tempdir()?;
        let backend = Container::default();
        let sites = sites(&data, &backend, Warm::OFF)?;
        let source = Source::discover(repo.path(), sites.git().clone())?;
        let mirror = sites.mirror(NAME).await?;
        let commit: CommitId = repo.head().parse()?;
        mirror.fetch(&source, commit)?;
        sites.close(true).await;
        Ok(Stage {
            data,
            backend,
            mirror,
            commit,
            _repo: repo,
        })
    }

    /// A workspace and its container until commands can be started; the engine's own containers, in
    /// turn; then commands in one.
    async fn cold(&self) -> Result<(), Failed> {
        let sites = sites(&self.data, &self.backend, Warm::OFF)?;
        let base = sites.base(NAME, &self.mirror, self.commit, None).await?;
        let store = Store::open(self.data.path(), Layering::Overlay)?;
        let (mut ready, mut run) = (Vec::new(), Vec::new());
        let (mut start, mut exec) = (Vec::new(), Vec::new());
        for round in 0..BEFORE + ROUNDS {
            let began = Instant::now();
            let made = self.open(&store, &base, round).await?;
            ready.push(ms(began.elapsed()));
            made.close().await?;

            let began = Instant::now();
            peer::run(MEMORY)?;
            run.push(ms(began.elapsed()));

            let began = Instant::now();
            let id = peer::start(MEMORY)?;
            start.push(ms(began.elapsed()));
            let began = Instant::now();
            peer::exec(&id)?;
            exec.push(ms(began.elapsed()));
            peer::remove(&id)?;
        }
        figure("container_ready_p50_ms", "ms", counted(&ready))?;
        figure("podman_run_p50_ms", "ms", counted(&run))?;
        figure("podman_start_p50_ms", "ms", counted(&start))?;
        figure("container_ready_ratio", "x", &ratios(&ready, &run))?;
        figure("container_start_ratio", "x", &ratios(&ready, &start))?;

        let made = self.open(&store, &base, BEFORE + ROUNDS).await?;
        let mut samples = Vec::new();
        for _ in 0..BEFORE + COMMANDS {
            let began = Instant::now();
            yes(&*made.sandbox).await?;
            samples.push(ms(began.elapsed()));
        }
        made.close().await?;
        store.empty_trash(&AtomicBool::new(false))?;
        sites.close(true).await;
        figure("container_exec_p50_ms", "ms", counted(&samples))?;
        figure("podman_exec_p50_ms", "ms", counted(&exec))
    }

    /// A new workspace over the base, its container ready for commands.
    async fn open(&self, store: &Store, base: &Base, number: usize) -> Result<Made, Failed> {
        let workspace = store.create(&format!("bench-{number}"), base)?;
        let Layers::Overlay {
            lowers,
            upper,
            work,
        } = workspace.layers()
        else {
            return Err("the workspace is no overlay".into());
        };
        let mut spec = Spec::new(sandbox::Workspace::Overlay {
            lowers,
            upper,
            work,
            volatile: true,
        });
        spec.channel_port = Some(0);
        spec.limits.memory_bytes = Some(MEMORY);
        spec.home = Some(workspace.home());
        spec.tmp = Tmp::Directory(workspace.tmp());
        let sandbox = self.backend.create(spec).await?;
        Ok(Made { workspace, sandbox })
    }

    /// A site whose container was ready before anybody asked for it.
    async fn warm(&self) -> Result<(), Failed> {
        let warm = Warm { all: 2, each: 2 };
        let sites = sites(&self.data, &self.backend, warm)?;
        let mut samples = Vec::new();
        // The first two are never ready.
        for run in 0..2 + TAKEN {
            if run >= 2 {
                // Both, so that none is being made meanwhile.
                let full = async {
                    while sites.ready() < warm.each {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::time::timeout(DEADLINE, full).await?;
            }
            let wanted = self.wanted(format!("warm-{run}"));
            let began = Instant::now();
            let site = sites.site(&self.mirror, wanted).await?;
            let took = began.elapsed();
            if run >= 2 {
                if !site.was_ready() {
                    return Err("a container that is not from the pool was opened".into());
                }
                samples.push(ms(took));
            }
            site.close().await?;
        }
        sites.close(false).await;
        figure("container_warm_p50_ms", "ms", &samples)
    }

    fn wanted(&self, id: String) -> Wanted {
        Wanted {
            channel: true,
            ..Wanted::plain(id, NAME, self.commit)
        }
    }
}

impl Made {
    async fn close(self) -> Result<(), Failed> {
        self.sandbox.destroy().await?;
        Ok(self.workspace.delete()?)
    }
}

fn sites(data: &tempfile::TempDir, backend: &Container, warm: Warm) -> Result<Sites, Failed> {
    let usual = figures::options(data.path(), backend.clone(), warm)?;
    Ok(Sites::open(Options {
        limits: Limits {
            memory_bytes: Some(MEMORY),
            ..Limits::default()
        },
        ..usual
    })?)
}

/// Runs the smallest of commands.
async fn yes(sandbox: &dyn Sandbox) -> Result<(), Failed> {
    let command = Command::new(["/usr/bin/true"], sandbox.workspace()).with_env(sandbox.base_env());
    let output = exec_captured(sandbox, command, OUTPUT).await?;
    match output.exit.success() {
        true => Ok(()),
        false => Err(format!("true: {}", output.exit).into()),
    }
}

/// The samples without those of the first rounds.
fn counted(samples: &[f64]) -> &[f64] {
    samples.get(BEFORE..).unwrap_or_default()
}

/// Of neighbours, so that a slow moment of the machine is in both.
fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    let pairs = counted(ours).iter().zip(counted(theirs));
    pairs.map(|(ours, theirs)| ours / theirs).collect()
}
