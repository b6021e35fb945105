//! Containers that run beside a sandbox's, in its network.
//!
//! The first process of each is ours, as in the sandbox's own: it comes to its owner through a socket,
//! starts what the owner says, and ends with the owner, and all of its container with it. So the engine
//! never learns the variables, keeps no log, and runs no check.

mod health;
mod request;
mod words;

use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use self::health::Known;
use self::request::OURS;
use self::words::Words;
use super::Shared;
use super::engine::Engine;
use super::image::Image;
use super::running::Running;
use super::sidecar::{Ready, Sidecar};
use crate::namespace::cgroup::Cgroup;
use crate::namespace::link::Link;
use crate::namespace::start;
use crate::{Beside, Command, Enforcement, Error, Exit, Process, Trouble, Unready};

/// What is said of one that ended too early.
const ENDED: &str = "its command has ended";

/// Where a sandbox's containers are made.
pub(super) struct Around<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) engine: &'a Arc<Engine>,
    pub(super) labels: &'a HashMap<String, String>,
    /// The container whose network it is.
    pub(super) of: &'a str,
}

/// One that runs. Dropped, it ends.
pub(super) struct Mate {
    sidecar: Sidecar,
    image: Image,
    running: Running,
    link: Arc<Link>,
    listening: JoinHandle<()>,
    /// Reads what it prints, and waits for its end, once its command has started.
    minding: Option<JoinHandle<()>>,
    words: Words,
    ended: watch::Receiver<Ended>,
    health: Known,
    /// Held by whoever looks whether it is ready.
    looks: Mutex<()>,
    /// The group in which its limits are in force, where there is one.
    cgroup: Option<Arc<Cgroup>>,
    limits_in_force: Enforcement,
}

/// How its command ended, if it has; nothing can be said of one that was lost.
type Ended = Option<Result<Exit, ()>>;

impl Around<'_> {
    /// The network of the sandbox's container, in the engine's words.
    async fn network(&self) -> Result<String, Error> {
        if !self.engine.is_podman {
            return Ok(format!("container:{}", self.of));
        }
        // By its name, Podman would keep the sandbox's container for as long as it knows this one.
        match self.engine.first_process(self.of).await {
            Some(pid) => Ok(format!("ns:/proc/{pid}/ns/net")),
            None => Err(Error::Gone),
        }
    }

    /// Starts one, and waits until it is ready.
    pub(super) async fn start(&self, sidecar: &Sidecar, image: &Image) -> Result<Mate, Error> {
        let meeting = self.engine.place.meeting()?.for_anyone()?;
        let mut asked = request::of(
            self.engine,
            self.labels.clone(),
            sidecar,
            image,
            self.network().await?,
            meeting.directory(),
        )?;
        let above = self.shared.bound(self.engine).await.and_then(Result::ok);
        super::request::below(&mut asked, above.as_deref());
        let id = self.engine.start(asked, &image.name).await;
        let id = id.map_err(|error| not_started(sidecar, error))?;
        let running = Running::new(self.shared, self.engine, id);
        let limits = sidecar.limits;
        let begun = async {
            let met = meeting.wait(self.engine, running.id()).await?;
            running.has_met(&met);
            // Before anything of the image runs there: it would find nobody else's way in.
            drop(meeting);
            let (socket, found) = super::blocking("start the container", move || {
                start::serve_beside(&met.socket)?;
                let found = met
                    .pid
                    .and_then(|pid| Cgroup::of_process(pid, &limits, OURS));
                Ok((met.socket, found))
            })
            .await?;
            let (cgroup, limits_in_force) = match found {
                Some((cgroup, by)) => (Some(Arc::new(cgroup)), by),
                None => (None, Enforcement::None),
            };
            let link = Link::new(socket, cgroup.clone())?;
            let listening = tokio::spawn(Arc::clone(&link).run());
            Ok((link, listening, cgroup, limits_in_force))
        };
        let (link, listening, cgroup, limits_in_force) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return Err(remove(running, not_started(sidecar, error)).await),
        };
        let (told, ended) = watch::channel(None);
        let mut mate = Mate {
            sidecar: sidecar.clone(),
            image: image.clone(),
            running,
            link,
            listening,
            minding: None,
            words: Words::default(),
            ended,
            health: Known::not_ready(),
            looks: Mutex::new(()),
            cgroup,
            limits_in_force,
        };
        match mate.begin(told).await {
            Ok(()) => Ok(mate),
            Err(unready) => {
                if let Err(other) = mate.end().await {
                    tracing::warn!(error = %other, "a sidecar stays");
                }
                Err(Error::of_sidecar(unready))
            }
        }
    }
}

/// What keeps a container from being one of a sidecar, where that is its own trouble.
fn not_started(sidecar: &Sidecar, error: Error) -> Error {
    let (trouble, what) = match error {
        Error::Engine { trouble, what } if trouble != Trouble::EngineUnreachable => (trouble, what),
        other => return other,
    };
    Error::of_sidecar(Unready {
        name: sidecar.name.clone(),
        image: sidecar.image.clone(),
        what: sidecar.without_values(what),
        state: "not started".to_owned(),
        trouble,
        output: Vec::new(),
    })
}

async fn remove(running: Running, error: Error) -> Error {
    if let Err(other) = running.gone().await {
        tracing::warn!(error = %other, "a sidecar stays");
    }
    error
}

impl Mate {
    /// Starts its command, and waits until it is ready.
    async fn begin(&mut self, told: watch::Sender<Ended>) -> Result<(), Unready> {
        let command = self.command(words_of(&self.sidecar, &self.image));
        let process = match self.link.exec(command).await {
            Ok(process) => process,
            Err(error) => {
                let trouble = Trouble::of_error(&error);
                return Err(self.not_ready(error.to_string(), trouble));
            }
        };
        let (words, health) = (self.words.clone(), self.health.clone());
        self.minding = Some(tokio::spawn(mind(process, words, health, told)));
        if let Some(Ready { when, within }) = self.sidecar.ready.clone() {
            let mut ended = self.ended.clone();
            let shown = tokio::select! {
                _ended = ended.wait_for(Option::is_some) => Err(ENDED.to_owned()),
                shown = tokio::time::timeout(within, self.becomes_ready(&when)) => match shown {
                    Ok(shown) => shown.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("{when} within {} seconds", within.as_secs())),
                },
            };
            shown.map_err(|what| self.not_ready(what, None))?;
        }
        self.health.note(true);
        self.ended().map_or(Ok(()), Err)
    }

    fn command(&self, words: Vec<String>) -> Command {
        let config = &self.image.config;
        let place = config.working_dir.as_deref().filter(|it| !it.is_empty());
        let own = self.sidecar.env.iter();
        Command::new(words, place.unwrap_or("/"))
            .with_env([("PATH", self.image.path()), ("HOME", "/tmp".into())])
            .with_env(
                config
                    .env
                    .iter()
                    .flatten()
                    .filter_map(|pair| pair.split_once('=')),
            )
            .with_env(own.map(|(name, value)| (name, value.value())))
    }

    /// That its command has ended, if it has: nobody may count on it then.
    pub(super) fn ended(&self) -> Option<Unready> {
        (!self.is_alive()).then(|| self.not_ready(ENDED.to_owned(), None))
    }

    fn is_alive(&self) -> bool {
        self.ended.borrow().is_none() && !self.listening.is_finished()
    }

    /// How its command ended, and what explains that.
    fn exit(&self, output: &[String]) -> (Option<Exit>, Option<Trouble>) {
        let exit = self.ended.borrow().and_then(Result::ok);
        (exit, exit.and_then(|exit| Trouble::of_exit(&exit, output)))
    }

    fn not_ready(&self, what: String, trouble: Option<Trouble>) -> Unready {
        let output = self.words.last(&self.sidecar);
        let (exit, of_exit) = self.exit(&output);
        let state = match exit {
            Some(exit) => format!("not running ({exit})"),
            None if self.is_alive() && self.minding.is_some() => "running".to_owned(),
            None => "not running".to_owned(),
        };
        Unready {
            name: self.sidecar.name.clone(),
            image: self.sidecar.image.clone(),
            what: self.sidecar.without_values(what),
            state,
            trouble: trouble.or(of_exit).unwrap_or(Trouble::SidecarNotReady),
            output,
        }
    }

    /// How it is.
    pub(super) async fn shown(&self) -> Beside {
        if self.is_alive() {
            self.look_again().await;
        }
        let output = self.words.last(&self.sidecar);
        let (exit, trouble) = self.exit(&output);
        let cgroup = self.cgroup.as_deref();
        Beside {
            name: self.sidecar.name.clone(),
            image: self.sidecar.image.clone(),
            container: self.running.id().to_owned(),
            alive: self.is_alive(),
            health: self.health.told(),
            exit,
            trouble,
            remedy: trouble.map(Trouble::remedy_beside),
            limits_in_force: self.limits_in_force,
            memory_bytes: cgroup.and_then(Cgroup::memory_bytes),
            out_of_memory_kills: cgroup.map(|cgroup| cgroup.strikes().memory),
            output,
        }
    }

    /// Ends it, and waits until nothing is left of it.
    pub(super) async fn end(&self) -> Result<(), Error> {
        self.link.hang_up();
        self.running.gone().await
    }
}

impl Drop for Mate {
    fn drop(&mut self) {
        self.link.hang_up();
        if let Some(minding) = &self.minding {
            minding.abort();
        }
        self.listening.abort();
    }
}

/// The command of a sidecar: the image's entrypoint, and what it gets.
fn words_of(sidecar: &Sidecar, image: &Image) -> Vec<String> {
    let entry = image.config.entrypoint.iter().flatten().cloned();
    let command = match sidecar.command.as_slice() {
        [] => image.config.cmd.as_deref().unwrap_or_default(),
        command => command,
    };
    entry.chain(command.iter().cloned()).collect()
}

/// Reads what a command prints to its end, and tells how it ended. Ends with the command, or dropped,
/// which kills it.
async fn mind(mut process: Process, words: Words, health: Known, told: watch::Sender<Ended>) {
    let (out, err) = (process.stdout.take(), process.stderr.take());
    let (exit, (), ()) = tokio::join!(process.wait(), words.keep(out), words.keep(err));
    health.end();
    told.send_replace(Some(exit.map_err(drop)));
}
