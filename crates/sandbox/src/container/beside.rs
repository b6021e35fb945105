//! Containers that run beside a sandbox's, in its network.
//!
//! The first process of each is ours, as in the sandbox's own: it comes to its owner through a socket,
//! starts what the owner says, and ends with the owner, and all of its container with it. So the engine
//! never learns the variables, keeps no log, and runs no check.

mod request;
mod words;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::words::Words;
use super::Shared;
use super::engine::Engine;
use super::image::Image;
use super::running::Running;
use super::sidecar::{Ready, Sidecar, When};
use crate::namespace::link::Link;
use crate::namespace::start;
use crate::{Beside, Command, Error, Exit, Process, Unready};

/// How often it is asked whether it is ready: nothing tells.
const LOOK: Duration = Duration::from_millis(100);
/// How long a command that looks may take.
const LOOKS_WITHIN: Duration = Duration::from_secs(10);

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
    running: Running,
    link: Arc<Link>,
    listening: JoinHandle<()>,
    /// Reads what it prints, and waits for its end.
    minding: JoinHandle<()>,
    words: Words,
    ended: watch::Receiver<Option<Result<Exit, ()>>>,
}

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
        let id = self.engine.start(asked, &image.name).await?;
        let running = Running::new(self.shared, self.engine, id);
        let begun = async {
            let met = meeting.wait(self.engine, running.id()).await?;
            let socket = super::blocking("start the container", move || {
                start::serve_beside(&met.socket)?;
                Ok(met.socket)
            })
            .await?;
            let link = Link::new(socket, None)?;
            let listening = tokio::spawn(Arc::clone(&link).run());
            Ok((link, listening))
        };
        let (link, listening) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return Err(remove(running, error).await),
        };
        let (told, ended) = watch::channel(None);
        let mut mate = Mate {
            sidecar: sidecar.clone(),
            running,
            link,
            listening,
            minding: tokio::spawn(async {}),
            words: Words::default(),
            ended,
        };
        match mate.begin(image, told).await {
            Ok(()) => Ok(mate),
            Err(error) => {
                if let Err(other) = mate.end().await {
                    tracing::warn!(error = %other, "a sidecar stays");
                }
                Err(error)
            }
        }
    }
}

async fn remove(running: Running, error: Error) -> Error {
    if let Err(other) = running.gone().await {
        tracing::warn!(error = %other, "a sidecar stays");
    }
    error
}

impl Mate {
    /// Starts its command, and waits until it is ready.
    async fn begin(
        &mut self,
        image: &Image,
        told: watch::Sender<Option<Result<Exit, ()>>>,
    ) -> Result<(), Error> {
        let words = words_of(&self.sidecar, image);
        let command = self.command(words, image);
        let process = match self.link.exec(command).await {
            Ok(process) => process,
            Err(error) => return Err(self.not_ready(error.to_string())),
        };
        self.minding = tokio::spawn(mind(process, self.words.clone(), told));
        let Some(Ready { when, within }) = self.sidecar.ready.clone() else {
            return Ok(());
        };
        let mut ended = self.ended.clone();
        let shown = tokio::select! {
            _ended = ended.wait_for(Option::is_some) => Err("its command has ended".to_owned()),
            shown = tokio::time::timeout(within, self.shows(&when, image)) => match shown {
                Ok(shown) => shown.map_err(|error| error.to_string()),
                Err(_) => Err(format!("{when} within {} seconds", within.as_secs())),
            },
        };
        shown.map_err(|what| self.not_ready(what))
    }

    /// Asks until it is ready.
    async fn shows(&self, when: &When, image: &Image) -> Result<(), Error> {
        loop {
            let shown = match when {
                When::Port(port) => self.link.reach(*port).await?,
                When::Command(words) => {
                    let command = self.command(words.clone(), image);
                    let mut process = self.link.exec(command.with_timeout(LOOKS_WITHIN)).await?;
                    // What it prints is nobody's: it must not fill the pipes.
                    let (nothing, out, err) = (
                        Words::default(),
                        process.stdout.take(),
                        process.stderr.take(),
                    );
                    let (exit, (), ()) =
                        tokio::join!(process.wait(), nothing.keep(out), nothing.keep(err));
                    exit?.success()
                }
            };
            if shown {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn command(&self, words: Vec<String>, image: &Image) -> Command {
        let config = &image.config;
        let place = config.working_dir.as_deref().filter(|it| !it.is_empty());
        let own = self.sidecar.env.iter();
        Command::new(words, place.unwrap_or("/"))
            .with_env([("PATH", image.path()), ("HOME", "/tmp".into())])
            .with_env(
                config
                    .env
                    .iter()
                    .flatten()
                    .filter_map(|pair| pair.split_once('=')),
            )
            .with_env(own.map(|(name, value)| (name, value.value())))
    }

    fn not_ready(&self, what: String) -> Error {
        let state = match *self.ended.borrow() {
            None => "running".to_owned(),
            Some(Ok(exit)) => format!("not running ({exit})"),
            Some(Err(())) => "not running".to_owned(),
        };
        Error::Sidecar(Box::new(Unready {
            name: self.sidecar.name.clone(),
            image: self.sidecar.image.clone(),
            what: self.sidecar.without_values(what),
            state,
            output: self.words.last(&self.sidecar),
        }))
    }

    /// How it is.
    pub(super) fn shown(&self) -> Beside {
        let ended = *self.ended.borrow();
        Beside {
            name: self.sidecar.name.clone(),
            image: self.sidecar.image.clone(),
            container: self.running.id().to_owned(),
            alive: ended.is_none() && !self.listening.is_finished(),
            exit: ended.and_then(Result::ok),
            output: self.words.last(&self.sidecar),
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
        self.minding.abort();
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
async fn mind(mut process: Process, words: Words, told: watch::Sender<Option<Result<Exit, ()>>>) {
    let (out, err) = (process.stdout.take(), process.stderr.take());
    let (exit, (), ()) = tokio::join!(process.wait(), words.keep(out), words.keep(err));
    told.send_replace(Some(exit.map_err(drop)));
}
