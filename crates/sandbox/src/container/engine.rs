//! The engine, as far as it is asked: an image with nothing in it, and containers that start and go.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateImageOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt as _;

use super::find::Way;
use super::marks::Mark;
use super::orphans::{self, Watchers};
use super::place::Place;
use super::request::{BOOT, OWNER};
use super::service::Service;
use super::traces;
use crate::{Error, Trouble, owner};

/// The image that is made here, of nothing: all that a sandbox sees comes from the host. Podman before
/// 4.4 gives an imported image no other tag.
pub(super) const NOTHING: &str = "localhost/skep-nothing:latest";
/// Seconds that one question may take, and how long the first ones may take together: one that answers
/// nothing is waited for no longer. One that was started for this is known to live, and has to begin.
const ANSWERS_WITHIN: u64 = 120;
const REACHED_WITHIN: Duration = Duration::from_secs(10);
const BEGUN_WITHIN: Duration = Duration::from_secs(60);
/// How long a container may take to be gone, and how often it is looked for meanwhile.
const GONE_WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
/// How long an image may be half made, by whoever else needs it.
const IMAGE_WITHIN: Duration = Duration::from_secs(5);
/// How long an engine may be unable to list containers.
const LISTED_WITHIN: Duration = Duration::from_secs(5);
/// The block of a tar archive.
const BLOCK: usize = 512;

/// One that answers. The fields are dropped in this order: the service has its socket in the place.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    service: Option<Mutex<Service>>,
    /// Where it listens.
    socket: PathBuf,
    pub(super) place: Place,
    /// There until the engine is let go.
    mark: Option<Mark>,
    /// Its name and version, for people.
    pub(super) name: String,
    pub(super) is_podman: bool,
    /// Whether it does nothing that its user could not do.
    pub(super) rootless: bool,
    /// Whether a container's watcher was looked at.
    watched: AtomicBool,
}

impl Engine {
    /// Reaches it, for an owner with this data directory.
    pub(super) async fn reach(way: Way, data: Option<&Path>) -> Result<Self, Error> {
        let place = Place::new()?;
        let mark = data.and_then(|data| Mark::make(data, place.name(), &way, &place.socket()));
        let (socket, service) = match way {
            Way::Socket(socket) => (socket, None),
            Way::Start { podman, arguments } => {
                let socket = place.socket();
                let at = socket.clone();
                let started = super::blocking("start the engine", move || {
                    Service::start(&podman, &arguments, &at)
                });
                let service = started.await.inspect_err(|_| {
                    // Something of it may still be about to start.
                    if let Some(mark) = &mark {
                        mark.keep();
                    }
                })?;
                (socket, Some(Mutex::new(service)))
            }
        };
        let address = socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&address, ANSWERS_WITHIN, API_DEFAULT_VERSION)
            .map_err(unreachable)?;
        let ask = async {
            let docker = docker.negotiate_version().await.map_err(unreachable)?;
            let about = docker.version().await.map_err(unreachable)?;
            let rootless = match &service {
                // It runs as this user.
                Some(_) => !rustix::process::geteuid().is_root(),
                None => {
                    let about = docker.info().await.map_err(unreachable)?;
                    let options = about.security_options.unwrap_or_default();
                    options.iter().any(|option| option.contains("rootless"))
                }
            };
            Ok::<_, Error>((docker, about, rootless))
        };
        let within = match &service {
            Some(_) => BEGUN_WITHIN,
            None => REACHED_WITHIN,
        };
        let asked = tokio::time::timeout(within, ask).await;
        let asked = asked.unwrap_or_else(|_| Err(silent(&socket, within)));
        let (docker, about, rootless) = asked?;
        let components = about.components.unwrap_or_default();
        let is_podman = components.iter().any(|part| part.name.contains("Podman"));
        let name = if is_podman { "Podman" } else { "Docker" };
        let engine = Self {
            docker,
            service,
            socket,
            place,
            mark,
            name: format!("{name} {}", about.version.unwrap_or_default()),
            is_podman,
            rootless,
            watched: AtomicBool::new(false),
        };
        engine.make_image().await?;
        Ok(engine)
    }

    /// Whether it can be asked: it may have ended.
    pub(super) fn lives(&self) -> bool {
        match &self.service {
            Some(service) => {
                let mut service = service.lock().unwrap_or_else(PoisonError::into_inner);
                service.lives()
            }
            None => UnixStream::connect(&self.socket).is_ok(),
        }
    }

    /// Ends what is in a container that is not to be: an engine that does not know whether it was
    /// started removes it without that.
    async fn end_in(&self, id: &str) {
        let id = id.to_owned();
        let ended = super::blocking("end what is in a container", move || {
            orphans::end_of(&id);
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::warn!(%error, "what is in a container was not looked for");
        }
    }

    /// Notes that a container may be left.
    pub(super) fn leave(&self) {
        if let Some(mark) = &self.mark {
            mark.keep();
        }
    }

    /// That container is gone after all.
    pub(super) fn not_left(&self) {
        if let Some(mark) = &self.mark {
            mark.let_go();
        }
    }

    async fn make_image(&self) -> Result<(), Error> {
        let deadline = Instant::now() + IMAGE_WITHIN;
        loop {
            match self.docker.inspect_image(NOTHING).await {
                Ok(_) => return Ok(()),
                Err(error) if is_missing(&error) => break,
                Err(error) if !has_answered(&error) || Instant::now() > deadline => {
                    return Err(refused("look for an image", error));
                }
                // Podman names an image before it is whole: another process is making it.
                Err(error) => tracing::debug!(%error, "an image is not there yet"),
            }
            tokio::time::sleep(LOOK).await;
        }
        let (repo, tag) = NOTHING.rsplit_once(':').unwrap_or((NOTHING, "latest"));
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let body = bollard::body_full(nothing().into());
        let mut told = self.docker.create_image(Some(options), Some(body), None);
        while let Some(part) = told.next().await {
            part.map_err(|error| refused("make an image with nothing in it", error))?;
        }
        Ok(())
    }

    /// Makes a container of the image that people call so, and starts it; its id.
    pub(super) async fn start(
        &self,
        asked: ContainerCreateBody,
        image: &str,
    ) -> Result<String, Error> {
        let made = self.docker.create_container(None, asked).await;
        let made = made.map_err(|error| match is_missing(&error) {
            true => self.no_image(image),
            false => {
                // It may be made all the same.
                self.leave();
                refused("make a container", error)
            }
        })?;
        if let Err(error) = self.docker.start_container(&made.id, None).await {
            let error = refused("start a container", error);
            self.end_in(&made.id).await;
            if let Err(other) = self.remove(&made.id).await {
                self.leave();
                tracing::warn!(error = %other, id = made.id, "a container stays");
            }
            return Err(error);
        }
        if self.is_podman && !self.watched.swap(true, Ordering::Relaxed) {
            self.look_at_watcher(&made.id).await;
        }
        Ok(made.id)
    }

    /// Learns where watchers write down how containers end, from the first one.
    async fn look_at_watcher(&self, id: &str) {
        let id = id.to_owned();
        let looked = super::blocking("look at a container's watcher", move || {
            drop(Watchers::of(&id));
            Ok(())
        });
        if let Err(error) = looked.await {
            tracing::debug!(%error, "a container's watcher was not looked at");
        }
    }

    /// Removes a container, whatever its state is, and waits until it is gone. An engine that does not
    /// answer is not waited for: it may have been killed.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Error> {
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
            let asked = self.docker.remove_container(id, Some(options.build()));
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(answer) = tokio::time::timeout(left.max(LOOK), asked).await else {
                let what = "the engine does not answer";
                return Err(Error::engine(Trouble::EngineUnreachable, what.to_owned()));
            };
            match answer {
                Ok(()) => break,
                Err(error) if is_missing(&error) => break,
                Err(error) if !has_answered(&error) || Instant::now() > deadline => {
                    return Err(refused("remove a container", error));
                }
                // It is being removed already: it was made to go at its end.
                Err(error) => tracing::debug!(%error, id, "a container is not gone yet"),
            }
            tokio::time::sleep(LOOK).await;
        }
        clear_traces(vec![id.to_owned()]).await
    }

    /// The containers whose owners have ended, by their ids.
    pub(super) async fn stale(&self) -> Result<Vec<String>, Error> {
        let labels = HashMap::from([("label".to_owned(), vec![OWNER.to_owned()])]);
        let deadline = Instant::now() + LISTED_WITHIN;
        let listed = loop {
            let options = ListContainersOptionsBuilder::new()
                .all(true)
                .filters(&labels);
            match self.docker.list_containers(Some(options.build())).await {
                Ok(listed) => break listed,
                Err(error) if !has_answered(&error) || Instant::now() > deadline => {
                    return Err(refused("list containers", error));
                }
                // Podman lists nothing while one of them is about to go.
                Err(error) => tracing::debug!(%error, "containers are not listed yet"),
            }
            tokio::time::sleep(LOOK).await;
        };
        let stale = listed.into_iter().filter_map(|container| {
            let labels = container.labels.unwrap_or_default();
            let label = |name: &str| labels.get(name).map_or("", String::as_str);
            let stale = label(BOOT) != owner::boot() || owner::has_ended(label(OWNER));
            container.id.filter(|_| stale)
        });
        Ok(stale.collect())
    }

    /// Removes them, each that can be.
    pub(super) async fn sweep(&self) -> Result<Vec<String>, Error> {
        let (mut removed, mut failed) = (Vec::new(), None);
        for id in self.stale().await? {
            self.end_in(&id).await;
            match self.remove(&id).await {
                Ok(()) => removed.push(id),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(removed), Err)
    }
}

/// Removes what is left of containers that are gone for their engine.
pub(super) async fn clear_traces(ids: Vec<String>) -> Result<(), Error> {
    let clear = move || {
        ids.iter().for_each(|id| traces::clear(id));
        Ok(())
    };
    super::blocking("remove what is left of a container", clear).await
}

/// One that takes a connection and says nothing.
fn silent(socket: &Path, within: Duration) -> Error {
    let seconds = within.as_secs();
    let what = format!(
        "the engine at {} says nothing within {seconds} seconds",
        socket.display()
    );
    Error::engine(Trouble::EngineUnreachable, what)
}

pub(super) fn is_missing(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error::DockerResponseServerError as Answer;
    matches!(
        error,
        Answer {
            status_code: 404,
            ..
        }
    )
}

pub(super) fn has_answered(error: &bollard::errors::Error) -> bool {
    matches!(
        error,
        bollard::errors::Error::DockerResponseServerError { .. }
    )
}

/// What an engine says, without what is said of the saying.
fn words(error: bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message,
        other => chain(&other),
    }
}

/// An error with what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}

fn unreachable(error: bollard::errors::Error) -> Error {
    let what = format!("the engine does not answer ({})", words(error));
    Error::engine(Trouble::EngineUnreachable, what)
}

pub(super) fn refused(doing: &str, error: bollard::errors::Error) -> Error {
    if !has_answered(&error) {
        return unreachable(error);
    }
    let words = words(error);
    let trouble = class(&words);
    Error::engine(trouble, format!("the engine cannot {doing} ({words})"))
}

/// What an engine complains of, by the words that Podman, Docker and what they share have for it.
fn class(words: &str) -> Trouble {
    const KNOWN: [(&str, Trouble); 5] = [
        ("unable to find user", Trouble::UserMissing),
        ("no matching entries in passwd", Trouble::UserMissing),
        ("invalid reference format", Trouble::ImageName),
        ("invalid image reference", Trouble::ImageName),
        ("repository name must be", Trouble::ImageName),
    ];
    let found = KNOWN.iter().find(|(said, _)| words.contains(said));
    found.map_or(Trouble::RuntimeRefuses, |(_, trouble)| *trouble)
}

fn put(header: &mut [u8], at: usize, text: &[u8]) {
    for (to, from) in header.iter_mut().skip(at).zip(text) {
        *to = *from;
    }
}

/// A tar archive with one directory in it: some engines take none that is empty.
fn nothing() -> Vec<u8> {
    let mut header = [0u8; BLOCK];
    put(&mut header, 0, b".skep/");
    // Mode, user, group, size and time are octal numbers.
    for (at, number) in [(100, "0000555"), (108, "0000000"), (116, "0000000")] {
        put(&mut header, at, number.as_bytes());
    }
    for at in [124, 136] {
        put(&mut header, at, b"00000000000");
    }
    put(&mut header, 156, b"5");
    put(&mut header, 257, b"ustar\0");
    put(&mut header, 263, b"00");
    // The sum counts its own place as spaces.
    put(&mut header, 148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.resize(3 * BLOCK, 0);
    archive
}
