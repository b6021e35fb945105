//! The `container` kind: sealed as the kind `namespace` is, in a container of Podman or Docker.
//!
//! The engine makes the outer wall: a container without a network, with one capability that only our
//! program has, a read-only root, and limits. Its first process is our static program, which comes to
//! its owner through a socket in a directory that only this container has, and makes the inner wall
//! there: all that a sandbox of the kind `namespace` is. From then on owner and inside talk to each
//! other, and the engine is not asked again until the end.

mod beside;
mod engine;
#[cfg(test)]
mod fake;
mod find;
mod image;
mod left;
mod marks;
mod meeting;
mod orphans;
mod place;
mod probe;
mod request;
mod running;
mod service;
mod sidecar;
mod state;
mod totals;
mod traces;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::{Mutex, OnceCell, RwLock, oneshot};

use self::beside::{Around, Mate};
use self::engine::{Engine, NOTHING};
pub use self::find::Choice;
use self::find::Way;
use self::image::Image;
pub use self::left::{Remains, clear, left};
use self::marks::Stale;
use self::meeting::Meeting;
use self::running::{ContainerSandbox, Running};
pub use self::sidecar::{Hidden, LONGEST_VALUE, Ready, Sidecar, When};
use self::totals::Bound;
use crate::blocking::blocking;
use crate::namespace::cgroup::Cgroup;
use crate::namespace::layout::Root;
use crate::namespace::plan::Plan;
use crate::namespace::{self, Built, NamespaceSandbox, layout, start, wire};
use crate::stdio::DEFAULT_PATH;
use crate::{Abilities, Backend, Enforcement, Error, Finding, Kind, Sandbox, Spec, Total};

/// Our processes in a container that are not the sandbox's: the first one, and process 1 inside.
const BESIDE: u64 = 2;
/// How long what nobody waits for any more may take to be gone.
const SETTLES: Duration = Duration::from_secs(30);

/// How containers are made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which engine makes them.
    pub engine: Choice,
    /// The data directory of whoever makes them: a label of each, for people.
    pub data: Option<PathBuf>,
    /// The image whose root they have; without one it is the host's. It must be there.
    pub image: Option<String>,
    /// Containers beside each of them.
    pub sidecars: Vec<Sidecar>,
    /// How much all of them may use together, where the engine can be told.
    pub total: Total,
}

/// Which engine there is, for whoever uses another kind: nothing is started, and nothing is said where
/// there is none.
#[must_use]
pub fn found() -> Option<Finding> {
    probe::found()
}

/// The `container` kind. Its clones share one engine, which is looked for when it is first needed.
#[derive(Debug, Clone, Default)]
pub struct Container {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    options: Options,
    engine: Mutex<Option<Arc<Engine>>>,
    /// The images, once they have been looked up: all sandboxes have the same.
    images: OnceCell<Images>,
    /// The group above all containers, once it was asked for.
    above: OnceCell<Bound>,
    /// Held by whatever goes on without anybody who waits for it.
    busy: Arc<RwLock<()>>,
}

impl Container {
    /// Nothing is done before the first sandbox is made.
    pub fn new(options: Options) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                engine: Mutex::default(),
                images: OnceCell::new(),
                above: OnceCell::new(),
                busy: Arc::default(),
            }),
        }
    }
}

impl Shared {
    /// The engine, which is looked for, and started where need be, if there is none that lives.
    async fn engine(&self) -> Result<Arc<Engine>, Error> {
        let mut known = self.engine.lock().await;
        if let Some(engine) = known.as_ref().filter(|engine| engine.lives()) {
            return Ok(Arc::clone(engine));
        }
        *known = None;
        let choice = self.options.engine.clone();
        let way: Way = blocking("look for an engine", move || find::look(&choice)).await?;
        let data = self.options.data.as_deref();
        // What was left in another engine, whoever clears up asks that one for.
        let stale = Stale::of(data).found_by(&way);
        let engine = Arc::new(Engine::reach(way, data).await?);
        if let Err(error) = left::take_away(&engine, stale).await {
            tracing::warn!(%error, "containers that were left behind stay");
        }
        *known = Some(Arc::clone(&engine));
        Ok(engine)
    }

    /// The images of the configuration.
    async fn images(&self, engine: &Engine) -> Result<&Images, Error> {
        let look = async || {
            let mut images = Images::default();
            if let Some(name) = &self.options.image {
                images.root = Some(engine.image(name).await?);
            }
            for sidecar in &self.options.sidecars {
                images.beside.push(engine.image(&sidecar.image).await?);
            }
            Ok(images)
        };
        self.images.get_or_try_init(look).await
    }

    /// Starts all that runs beside the container `of`, and waits until it is ready. Where one is not,
    /// none is left.
    async fn mates(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        of: &str,
        labels: &HashMap<String, String>,
    ) -> Result<Vec<Mate>, Error> {
        let images = &self.images(engine).await?.beside;
        let around = Around {
            shared: self,
            engine,
            labels,
            of,
        };
        let each = self.options.sidecars.iter().zip(images);
        let started = join_all(each.map(|(sidecar, image)| around.start(sidecar, image))).await;
        let (mut mates, mut failed) = (Vec::new(), Vec::new());
        for started in started {
            match started {
                Ok(mate) => mates.push(mate),
                Err(error) => failed.push(error),
            }
        }
        // One may have ended while others were waited for.
        failed.extend(mates.iter().filter_map(Mate::ended).map(Error::of_sidecar));
        if failed.is_empty() {
            return Ok(mates);
        }
        end_all(&mates).await;
        Err(Error::of_sidecars(failed))
    }

    async fn create(self: &Arc<Self>, spec: Spec) -> Result<Box<dyn Sandbox>, Error> {
        if spec.extras.nested {
            return Err(Error::Spec {
                what: "in a container, none can be made within; use the kind `namespace` for that"
                    .to_owned(),
            });
        }
        let engine = self.engine().await?;
        let image = self.images(&engine).await?.root.as_ref();
        let root = match image {
            Some(_) => Root::Image,
            None => Root::Host,
        };
        let (plan, spec) = blocking("read what a sandbox holds", move || {
            Ok((
                layout::files(&spec, Plan::behind(wire::BEHIND), root)?,
                spec,
            ))
        })
        .await?;
        let meeting = engine.place.meeting()?;
        let above = self.bound(&engine).await.and_then(Result::ok);
        let mut asked = request::of(
            &engine,
            &self.options,
            image,
            &spec,
            plan.needed(),
            meeting.directory(),
        )?;
        request::below(&mut asked, above.as_deref());
        let path = image.map_or_else(|| DEFAULT_PATH.into(), Image::path);
        let name = image.map_or(NOTHING, |image| &image.name);
        let id = engine.start(asked, name).await?;
        let running = Running::new(self, &engine, id);
        let labels = request::labels(&self.options, meeting.directory());
        let made = async {
            let inner = inside(&engine, &running, &meeting, plan, spec).await?;
            let mates = self.mates(&engine, running.id(), &labels).await?;
            // Had it ended, the network that they joined by a number may be another one.
            if !mates.is_empty() && !inner.diagnose().await.alive {
                end_all(&mates).await;
                return Err(Error::Gone);
            }
            Ok((inner, mates))
        };
        match made.await {
            Ok((inner, mates)) => {
                let sandbox = ContainerSandbox::new(inner, mates, running, path);
                Ok(Box::new(sandbox))
            }
            Err(error) => {
                if let Err(other) = running.gone().await {
                    tracing::warn!(error = %other, id = running.id(), "a container stays");
                }
                Err(error)
            }
        }
    }
}

/// What the names in the configuration mean.
#[derive(Debug, Default)]
struct Images {
    root: Option<Image>,
    /// In the order of the sidecars.
    beside: Vec<Image>,
}

/// Ends what runs beside a sandbox, and waits until it is gone; the first failure.
async fn end_all(mates: &[Mate]) -> Option<Error> {
    let ended = join_all(mates.iter().map(Mate::end)).await;
    let mut failed = ended.into_iter().filter_map(Result::err);
    let first = failed.next();
    for error in first.iter().chain(&failed.collect::<Vec<_>>()) {
        tracing::warn!(%error, "a sidecar stays");
    }
    first
}

/// Meets the first process of a container, and has it make the inside.
async fn inside(
    engine: &Engine,
    running: &Running,
    meeting: &Meeting,
    plan: Plan,
    spec: Spec,
) -> Result<NamespaceSandbox, Error> {
    let met = meeting.wait(engine, running.id()).await?;
    running.has_met(&met);
    match blocking("start the sandbox", move || build(plan, &spec, met)).await {
        Err(Error::Gone) => Err(engine.why_ended(running.id()).await),
        built => NamespaceSandbox::new(built?),
    }
}

/// Has the first process make the inside.
fn build(mut plan: Plan, spec: &Spec, met: meeting::Met) -> Result<Built, Error> {
    let found = met
        .pid
        .and_then(|pid| Cgroup::of_process(pid, &spec.limits, BESIDE));
    let landlock_abi = namespace::seal(&mut plan, spec, found.is_some());
    let file =
        start::memory_file("skep-plan", plan.bytes()).map_err(Error::io("start the sandbox"))?;
    start::send_plan(&met.socket, &plan, file.as_fd(), None)
        .map_err(Error::io("start the sandbox"))?;
    let first = start::await_born(&met.socket, &plan)?;
    let inside = start::await_ready(met.socket, &plan, first)?;
    let (cgroup, enforcement) = match found {
        Some((cgroup, enforcement)) => (Some(cgroup), enforcement),
        None => (None, Enforcement::RlimitsAndWatcher),
    };
    Ok(Built {
        inside,
        cgroup,
        enforcement,
        landlock_abi,
        workspaces: spec
            .workspaces()?
            .into_iter()
            .map(|(place, _)| place)
            .collect(),
        workspace: spec.workspace_path()?,
        layered: spec.workspace.is_layered(),
        extras: spec.extras.clone(),
    })
}

#[async_trait]
impl Backend for Container {
    fn kind(&self) -> Kind {
        Kind::Container
    }

    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    fn image(&self) -> Option<&str> {
        self.shared.options.image.as_deref()
    }

    async fn images(&self) -> Result<Option<String>, Error> {
        let options = &self.shared.options;
        if options.image.is_none() && options.sidecars.is_empty() {
            return Ok(None);
        }
        let engine = self.shared.engine().await?;
        let images = self.shared.images(&engine).await?;
        let root = images.root.iter().map(|image| format!("root {}", image.id));
        let beside = images.beside.iter().zip(&options.sidecars);
        let beside = beside.map(|(image, of)| format!("beside {} {:x}", image.id, of.mark()));
        Ok(Some(root.chain(beside).collect::<Vec<_>>().join(" ")))
    }

    async fn probe(&self, place: &Path) -> Vec<Finding> {
        probe::probe(self, place).await
    }

    async fn create(&self, spec: Spec) -> Result<Box<dyn Sandbox>, Error> {
        // In a task of its own: whoever does not wait for it any more must not leave half of it behind.
        let shared = Arc::clone(&self.shared);
        let busy = Arc::clone(&shared.busy).read_owned().await;
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let made = shared.create(spec).await;
            if let Err(Ok(unwanted)) = tell.send(made)
                && let Err(error) = unwanted.destroy().await
            {
                tracing::warn!(%error, "a container that nobody waited for stays");
            }
            // Who waits for that is about to let the engine go.
            drop(shared);
            drop(busy);
        });
        told.await.map_err(|error| Error::Io {
            doing: "start the sandbox",
            source: std::io::Error::other(error),
        })?
    }

    async fn settle(&self) {
        if tokio::time::timeout(SETTLES, self.shared.busy.write())
            .await
            .is_err()
        {
            tracing::warn!("a container may be left; the next who uses the engine removes it");
        }
    }
}
