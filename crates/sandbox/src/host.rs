//! The `host` kind: ordinary processes of this machine, **unsealed**.
//!
//! It exists for people who ask for it by name, where no seal is possible or wanted. A command sees
//! everything that its owner sees, except the environment; limits are not enforced. What a command
//! starts are descendants of a helper of ours, whatever sessions they make; they are ended with the
//! command, and all of them with the owner, however it ends. A process that wants to get away can:
//! it may kill the helper, as it may do all else that its user may.

mod peer;

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::task::JoinHandle;

pub use self::peer::Guard;
use crate::blocking::blocking;
use crate::connection::{self, Family, Places, Tried};
use crate::namespace::link::Link;
use crate::namespace::start::Helper;
use crate::{
    Abilities, Backend, Carry, Channel, Command, Connection, Diagnosis, Enforcement, Error,
    Finding, Kind, Output, Process, Sandbox, Spec, Stats, Strike, Workspace,
};

/// The `host` kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

#[async_trait]
impl Backend for Host {
    fn kind(&self) -> Kind {
        Kind::Host
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            local_files: true,
            ..Abilities::default()
        }
    }

    async fn probe(&self, _place: &Path) -> Vec<Finding> {
        vec![Finding {
            name: "host processes",
            ok: true,
            optional: false,
            detail: "commands run unsealed, with all that this user may do".to_owned(),
            remedy: None,
        }]
    }

    async fn create(&self, spec: Spec) -> Result<Box<dyn Sandbox>, Error> {
        let Workspace::Directory(workspace) = spec.workspace else {
            return Err(Error::Spec {
                what: "the kind `host` works in a plain directory of this machine, and the workspace is none"
                    .to_owned(),
            });
        };
        if !spec.also.is_empty() {
            return Err(Error::Spec {
                what: "the kind `host` works in one directory, and there are several workspaces"
                    .to_owned(),
            });
        }
        if !spec.mounts.is_empty() || !spec.masked.is_empty() {
            return Err(Error::Spec {
                what: "the kind `host` can neither mount nor mask anything".to_owned(),
            });
        }
        if !spec.extras.is_none() {
            return Err(Error::Spec {
                what: "the kind `host` has no secrets and no devices of its own".to_owned(),
            });
        }
        for (what, path) in [
            ("workspace", Some(&workspace)),
            ("home", spec.home.as_ref()),
        ] {
            if let Some(path) = path.filter(|path| !path.is_dir()) {
                return Err(Error::Setup {
                    step: "find",
                    subject: format!("the {what} {}", path.display()),
                    remedy: "check that it is a directory and that you may read it".to_owned(),
                    source: std::io::ErrorKind::NotFound.into(),
                });
            }
        }
        let channel = spec
            .channel_port
            .map(|port| -> Result<Channel, Error> {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                    .map_err(Error::io("listen on the loopback of the host"))?;
                let port = listener
                    .local_addr()
                    .map_err(Error::io("read the port of the channel"))?
                    .port();
                let guard = Some(Guard::this_user(port));
                Ok(Channel {
                    listener,
                    port,
                    guard,
                })
            })
            .transpose()?;
        let home = spec.home.unwrap_or_else(|| workspace.clone());
        let (helper, socket) = blocking("start the sandbox", Helper::start).await?;
        let link = Link::new(socket, None)?;
        Ok(Box::new(HostSandbox {
            listening: tokio::spawn(Arc::clone(&link).run()),
            end: Arc::new(Mutex::new(End {
                link: Arc::clone(&link),
                helper,
            })),
            link,
            workspace,
            home,
            channel: Mutex::new(channel),
            places: Places::default(),
        }))
    }
}

struct HostSandbox {
    /// Ends with the helper, or with the socket to it.
    listening: JoinHandle<()>,
    link: Arc<Link>,
    end: Arc<Mutex<End>>,
    workspace: PathBuf,
    home: PathBuf,
    channel: Mutex<Option<Channel>>,
    places: Places,
}

/// What ends everything. Dropped, it does.
struct End {
    link: Arc<Link>,
    helper: Helper,
}

impl End {
    fn end(&mut self) -> Result<(), Error> {
        self.link.hang_up();
        self.helper.end()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            let pid = self.helper.pid();
            tracing::warn!(%error, pid, "the commands of a sandbox do not end");
        }
    }
}

#[async_trait]
impl Sandbox for HostSandbox {
    fn kind(&self) -> Kind {
        Kind::Host
    }

    fn workspace(&self) -> &Path {
        &self.workspace
    }

    fn home(&self) -> &Path {
        &self.home
    }

    fn base_env(&self) -> Vec<(OsString, OsString)> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| crate::stdio::DEFAULT_PATH.into());
        crate::stdio::base_env(path, &self.home)
    }

    fn take_channel(&self) -> Option<Channel> {
        self.channel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn exec(&self, command: Command) -> Result<Process, Error> {
        let search_path = command.env.iter().find(|(name, _)| name == "PATH");
        let search_path = search_path
            .map(|(_, path)| path.clone())
            .unwrap_or_default();
        self.link.exec(command).await.map_err(|error| match error {
            // A directory of PATH that may not be searched hides that nothing was found.
            Error::CannotStart { program, source }
                if source.kind() == std::io::ErrorKind::PermissionDenied
                    && !exists(&program, &search_path) =>
            {
                Error::NotFound { program }
            }
            other => other,
        })
    }

    async fn carry(&self, carry: Carry) -> Result<Process, Error> {
        self.link.carry(&carry, &self.workspace).await
    }

    async fn connect(&self, port: u16) -> Result<Connection, Error> {
        if self.listening.is_finished() {
            return Err(Error::Gone);
        }
        let place = self.places.take()?;
        let mut tried = Tried::default();
        for family in Family::ALL {
            if let Some(stream) = tried.note(connection::direct(port, family).await) {
                return connection::made(stream, place);
            }
            if !tried.goes_on() {
                break;
            }
        }
        Err(tried.failed(port))
    }

    fn strike(&self) -> Arc<dyn Strike> {
        Arc::clone(&self.link) as Arc<dyn Strike>
    }

    async fn diagnose(&self) -> Diagnosis {
        let helper = || self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let has_ended = self.link.has_ended(|| helper().helper.has_ended()).await;
        let mut end = helper();
        let ended = has_ended.then(|| self.link.end(end.helper.status()));
        Diagnosis {
            kind: Kind::Host,
            sealed: false,
            alive: !has_ended,
            ended,
            first_process: Some(end.helper.pid()),
            limits_in_force: Enforcement::None,
            landlock_abi: None,
            calls_named: false,
            memory_bytes: None,
            processes: None,
            out_of_memory_kills: None,
            commands: self.link.commands(),
            last: self.link.last(),
            sidecars: Vec::new(),
        }
    }

    async fn stats(&self) -> Stats {
        let pid = {
            let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            end.helper.pid()
        };
        let read = tokio::task::spawn_blocking(move || Stats::of_tree(pid));
        read.await.unwrap_or_default()
    }

    fn remember(&self, output: &Output) {
        self.link.remember(output, |text| text);
    }

    async fn destroy(self: Box<Self>) -> Result<(), Error> {
        let end = Arc::clone(&self.end);
        let ended = blocking("end the sandbox", move || {
            end.lock().unwrap_or_else(PoisonError::into_inner).end()
        });
        ended.await
    }
}

/// Whether there is such a file, in `search_path` if it is only a name.
fn exists(program: &Path, search_path: &std::ffi::OsStr) -> bool {
    match program.components().count() {
        1 => std::env::split_paths(search_path).any(|place| place.join(program).exists()),
        _ => program.exists(),
    }
}
