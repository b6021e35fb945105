//! A sandbox in a container: what the kind `namespace` makes, and the container around it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;

use super::Shared;
use super::beside::Mate;
use super::engine::Engine;
use crate::namespace::NamespaceSandbox;
use crate::{
    Carry, Channel, Command, Connection, Diagnosis, Error, Kind, Output, Process, Sandbox, Stats,
    Strike, Trouble, Workspace,
};

/// How long a service that was killed may take to end, and how often it is looked.
const DYING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// A container that was started. Its end is that of its first process; the engine removes it then.
pub(super) struct Running {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    id: String,
    is_gone: AtomicBool,
}

impl Running {
    pub(super) fn new(shared: &Arc<Shared>, engine: &Arc<Engine>, id: String) -> Self {
        Self {
            shared: Arc::clone(shared),
            engine: Arc::clone(engine),
            id,
            is_gone: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Waits until nothing of it is left. Where the engine has been killed, one that is started in its
    /// place says so, or does it.
    pub(super) async fn gone(&self) -> Result<(), Error> {
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
        let id = std::mem::take(&mut self.id);
        runtime.spawn(async move {
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
            // The container's own first process is none of the sandbox's.
            processes: found.processes.map(|count| count.saturating_sub(1)),
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
