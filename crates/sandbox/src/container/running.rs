//! A sandbox in a container: what the kind `namespace` makes, and the container around it.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

use super::Shared;
use super::beside::Mate;
use super::engine::Engine;
use super::meeting::Met;
use crate::namespace::NamespaceSandbox;
use crate::{
    Carry, Channel, Command, Connection, Diagnosis, Error, Kind, Output, Process, Sandbox, Stats,
    Strike, Trouble, Workspace,
};

/// How long a service that was killed may take to end, and how often it is looked.
const DYING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);
/// How long what is in a container may take to end: its mounts may have to be written out.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A container that was started. Its end is that of its first process; the engine removes it then.
pub(super) struct Running {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    id: String,
    /// Its first process, since that has come.
    first: OnceLock<OwnedFd>,
    is_gone: AtomicBool,
}

impl Running {
    pub(super) fn new(shared: &Arc<Shared>, engine: &Arc<Engine>, id: String) -> Self {
        Self {
            shared: Arc::clone(shared),
            engine: Arc::clone(engine),
            id,
            first: OnceLock::new(),
            is_gone: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Notes its first process, which has come to its owner.
    pub(super) fn has_met(&self, met: &Met) {
        let pid = met.pid.and_then(|pid| i32::try_from(pid).ok());
        let first = pid.and_then(Pid::from_raw);
        // Where it cannot be seen from here, its end is not waited for.
        if let Some(first) = first.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
            self.first.get_or_init(|| first);
        }
    }

    /// Waits until nothing of it is left. Where the engine has been killed, one that is started in its
    /// place says so, or does it.
    pub(super) async fn gone(&self) -> Result<(), Error> {
        ended(self.first.get()).await;
        match self.engine.remove(&self.id).await {
            Err(error) if Trouble::of_error(&error) == Some(Trouble::EngineUnreachable) => {
                // One that was killed a moment ago may not have ended yet.
                let deadline = Instant::now() + DYING;
                while self.engine.lives() && Instant::now() < deadline {
                    tokio::time::sleep(LOOK).await;
                }
                let engine = self.shared.engine().await?;
                // The same one does not answer a second time either.
                if Arc::ptr_eq(&engine, &self.engine) {
                    return Err(error);
                }
                engine.remove(&self.id).await?;
            }
            other => other?,
        }
        self.is_gone.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Waits for the end of a container's first process, which has begun. Podman forgets a container that
/// it was told to remove while its processes were still ending, and then what the runtime has of it,
/// its control groups and the file with its exit stay.
async fn ended(first: Option<&OwnedFd>) {
    let Some(first) = first else { return };
    // SAFETY: the descriptor is borrowed for longer than the registration lives, and never replaced.
    let Ok(first) = (unsafe { AsyncFd::register(first.as_fd()) }) else {
        return;
    };
    match tokio::time::timeout(ENDS_WITHIN, first.readable()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the end of a container is not waited for"),
        Err(_) => tracing::debug!("a container takes long to end"),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_gone.load(Ordering::Relaxed) {
            return;
        }
        self.engine.leave();
        let busy = Arc::clone(&self.shared.busy).try_read_owned();
        let (Ok(runtime), Ok(busy)) = (tokio::runtime::Handle::try_current(), busy) else {
            return;
        };
        // Its end has begun: where there is time for that, it is waited for.
        let (shared, engine) = (Arc::clone(&self.shared), Arc::clone(&self.engine));
        let (id, first) = (std::mem::take(&mut self.id), self.first.take());
        runtime.spawn(async move {
            ended(first.as_ref()).await;
            match engine.remove(&id).await {
                Ok(()) => engine.not_left(),
                Err(error) => tracing::debug!(%error, id, "a container that was dropped stays"),
            }
            drop(engine);
            drop(shared);
            drop(busy);
        });
    }
}

/// A running sandbox. Dropped, the inside is ended first, and its container ends with it.
pub(super) struct ContainerSandbox {
    inner: NamespaceSandbox,
    /// What runs beside it, which ends after it.
    mates: Vec<Mate>,
    running: Running,
    /// Where programs are looked for inside.
    path: OsString,
}

impl ContainerSandbox {
    pub(super) fn new(
        inner: NamespaceSandbox,
        mates: Vec<Mate>,
        running: Running,
        path: OsString,
    ) -> Self {
        Self {
            inner,
            mates,
            running,
            path,
        }
    }
}

#[async_trait]
impl Sandbox for ContainerSandbox {
    fn kind(&self) -> Kind {
        Kind::Container
    }

    fn workspace(&self) -> &Path {
        self.inner.workspace()
    }

    fn home(&self) -> &Path {
        self.inner.home()
    }

    fn base_env(&self) -> Vec<(OsString, OsString)> {
        crate::stdio::base_env(self.path.clone(), self.home())
    }

    fn take_channel(&self) -> Option<Channel> {
        self.inner.take_channel()
    }

    async fn exec(&self, command: Command) -> Result<Process, Error> {
        self.inner.exec(command).await
    }

    async fn carry(&self, carry: Carry) -> Result<Process, Error> {
        self.inner.carry(carry).await
    }

    async fn connect(&self, port: u16) -> Result<Connection, Error> {
        self.inner.connect(port).await
    }

    async fn switch(&self, layers: Vec<Workspace>) -> Result<(), Error> {
        self.inner
            .switch(layers)
            .await
            .map_err(|error| match error {
                Error::CannotSwitch { why, .. } => Error::CannotSwitch {
                    kind: Kind::Container,
                    why,
                },
                other => other,
            })
    }

    fn strike(&self) -> Arc<dyn Strike> {
        self.inner.strike()
    }

    async fn diagnose(&self) -> Diagnosis {
        let found = self.inner.diagnose().await;
        Diagnosis {
            kind: Kind::Container,
            sidecars: join_all(self.mates.iter().map(Mate::shown)).await,
            ..found
        }
    }

    async fn stats(&self) -> Stats {
        self.inner.stats().await
    }

    fn remember(&self, output: &Output) {
        self.inner.remember(output);
    }

    async fn destroy(self: Box<Self>) -> Result<(), Error> {
        let Self {
            inner,
            mates,
            running,
            ..
        } = *self;
        let ended = Box::new(inner).destroy().await;
        // Its network is theirs: they go first.
        let stays = super::end_all(&mates).await;
        ended.and(running.gone().await)?;
        stays.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;
    use crate::Container;
    use crate::container::{Options, fake};

    /// Whether a process has not ended, waited for or not.
    fn lives(pid: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    #[tokio::test]
    async fn a_container_is_removed_when_what_is_in_it_has_ended_also_where_it_is_dropped() {
        for is_dropped in [false, true] {
            // As one whose mounts have to be written out.
            let mut first = Command::new("sleep").arg("0.3").spawn().unwrap();
            let pid = first.id();
            let (tell, told) = mpsc::channel();
            let (way, _place, served) = fake::serve(move |asked| {
                tell.send((asked.to_owned(), lives(pid))).unwrap();
                ((404, "{}"), true)
            });
            let engine = Arc::new(Engine::reach(way, None).await.unwrap());
            let shared = Container::new(Options::default()).shared;
            let running = Running::new(&shared, &engine, "one".to_owned());
            let (socket, _other) = UnixStream::pair().unwrap();
            running.has_met(&Met {
                socket: socket.into(),
                pid: Some(pid),
            });
            match is_dropped {
                true => drop(running),
                false => running.gone().await.unwrap(),
            }
            let served = tokio::task::spawn_blocking(|| served.join());
            served.await.unwrap().unwrap();
            let (asked, lived) = told.recv().unwrap();
            assert!(asked.starts_with("DELETE ") && !lived, "{asked}: {lived}");
            first.wait().unwrap();
        }
    }
}
