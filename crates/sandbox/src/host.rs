//! The `host` kind: ordinary processes of this machine, **unsealed**.
//!
//! It exists for people who ask for it by name, where no seal is possible or wanted. A command sees
//! everything that its owner sees, except the environment; limits are not enforced; what a command
//! starts is killed as a process group, which a process can leave.

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::process::Reach;
use crate::stdio::Stdio;
use crate::{
    Backend, Channel, Command, Diagnosis, Enforcement, Error, Exit, Finding, Kind, Limit, Process,
    Sandbox, Spec, Strike, Workspace,
};

/// The `host` kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

#[async_trait]
impl Backend for Host {
    fn kind(&self) -> Kind {
        Kind::Host
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
                what: "the kind `host` works in a plain directory, and the workspace is an overlay"
                    .to_owned(),
            });
        };
        if !spec.mounts.is_empty() || !spec.masked.is_empty() {
            return Err(Error::Spec {
                what: "the kind `host` can neither mount nor mask anything".to_owned(),
            });
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
                Ok(Channel { listener, port })
            })
            .transpose()?;
        let home = spec.home.unwrap_or_else(|| workspace.clone());
        Ok(Box::new(HostSandbox {
            workspace,
            home,
            channel: Mutex::new(channel),
            running: Arc::new(AtomicUsize::new(0)),
            ended: Arc::new(AtomicBool::new(false)),
            groups: Arc::default(),
            struck: Arc::default(),
        }))
    }
}

struct HostSandbox {
    workspace: PathBuf,
    home: PathBuf,
    channel: Mutex<Option<Channel>>,
    running: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    /// The groups that run, so that the end of the sandbox is the end of them.
    groups: Arc<Mutex<Vec<Arc<Group>>>>,
    /// The limit for which the owner ended everything.
    struck: Arc<OnceLock<Limit>>,
}

/// What a [`Strike`] reaches of it.
struct HostStrike {
    groups: Arc<Mutex<Vec<Arc<Group>>>>,
    struck: Arc<OnceLock<Limit>>,
}

impl Strike for HostStrike {
    fn strike(&self, limit: Limit) {
        // The lock first: a command is either in the list, or finds the limit.
        let groups = self
            .groups
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.struck.get_or_init(|| limit);
        groups.iter().for_each(|group| group.signal(Signal::KILL));
    }
}

/// A process group whose leader has not been reaped, so that its number is still its own.
struct Group {
    leader: Pid,
    reaped: Mutex<bool>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        let reaped = self
            .reaped
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !*reaped && let Err(error) = rustix::process::kill_process_group(self.leader, signal) {
            tracing::debug!(%error, "a process group did not take a signal");
        }
    }
}

struct HostReach(Arc<Group>);

impl Reach for HostReach {
    fn signal_tree(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            self.0.signal(signal);
        }
    }
}

/// The leader of a group. Dropped before its end, it kills the group.
struct Leader {
    child: std::process::Child,
    group: Arc<Group>,
    groups: Arc<Mutex<Vec<Arc<Group>>>>,
    running: Arc<AtomicUsize>,
}

impl Leader {
    /// Ends the group (unless its background goes on) and takes the leader's exit.
    fn reap(&mut self, keep_background: bool) -> std::io::Result<std::process::ExitStatus> {
        if !keep_background {
            self.group.signal(Signal::KILL);
        }
        let mut reaped = self
            .group
            .reaped
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let status = self.child.wait();
        *reaped = true;
        status
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !*self
            .group
            .reaped
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            && let Err(error) = self.reap(false)
        {
            tracing::warn!(%error, "a command could not be reaped");
        }
        self.groups
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .retain(|group| !Arc::ptr_eq(group, &self.group));
        self.running.fetch_sub(1, Ordering::Relaxed);
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
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }

    async fn exec(&self, command: Command) -> Result<Process, Error> {
        if self.ended.load(Ordering::Relaxed) {
            return Err(Error::Gone);
        }
        if let Some(limit) = self.struck.get() {
            return Err(Error::Struck { limit: *limit });
        }
        let (program, arguments) = command.argv.split_first().ok_or(Error::InvalidCommand {
            what: "it has no words",
        })?;
        if let Err(source) = std::fs::read_dir(&command.cwd) {
            return Err(Error::WorkingDirectory {
                dir: command.cwd,
                source,
            });
        }
        let stdio = Stdio::new(&command.stdin)?;
        let search_path = command.env.iter().find(|(name, _)| name == "PATH");
        let search_path = search_path
            .map(|(_, path)| path.clone())
            .unwrap_or_default();
        let mut builder = std::process::Command::new(program);
        builder
            .args(arguments)
            .env_clear()
            .envs(command.env)
            .current_dir(&command.cwd)
            .stdin(stdio.inside.0)
            .stdout(stdio.inside.1)
            .stderr(stdio.inside.2)
            .process_group(0);
        let child = builder.spawn().map_err(|source| {
            let program = PathBuf::from(program);
            match source.kind() {
                std::io::ErrorKind::NotFound => Error::NotFound { program },
                // A directory of PATH that may not be searched hides that nothing was found.
                std::io::ErrorKind::PermissionDenied if !exists(&program, &search_path) => {
                    Error::NotFound { program }
                }
                _ => Error::CannotStart { program, source },
            }
        })?;
        drop(builder);
        let leader = Pid::from_child(&child);
        let group = Arc::new(Group {
            leader,
            reaped: Mutex::new(false),
        });
        self.running.fetch_add(1, Ordering::Relaxed);
        self.groups
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(Arc::clone(&group));
        if self.struck.get().is_some() {
            group.signal(Signal::KILL);
        }
        let struck = Arc::clone(&self.struck);
        let leader_guard = Leader {
            child,
            group: Arc::clone(&group),
            groups: Arc::clone(&self.groups),
            running: Arc::clone(&self.running),
        };
        let pidfd = rustix::process::pidfd_open(leader, rustix::process::PidfdFlags::NONBLOCK)
            .map_err(|error| Error::io("watch a command")(error.into()))?;
        // SAFETY: the descriptor is owned, never replaced, and lives as long as its registration.
        let pidfd = unsafe { AsyncFd::register(pidfd) }
            .map_err(|error| Error::io("watch a command")(error.into_parts().1))?;
        let (sender, receiver) = oneshot::channel();
        let (timeout, grace, keep) = (command.timeout, command.grace, command.keep_background);
        // Wakes at the leader's end and at the deadlines; owns the leader; ends with it. A dropped
        // `Process` or sandbox kills the group, which ends this too.
        tokio::spawn(async move {
            let mut leader = leader_guard;
            let timed_out = wait_or_end(&pidfd, &leader.group, timeout, grace).await;
            let exit = leader
                .reap(keep)
                .map_err(Error::io("take the exit of a command"))
                .map(|status| Exit {
                    code: status.code(),
                    signal: status.signal(),
                    timed_out,
                    limit: struck
                        .get()
                        .copied()
                        .filter(|_| status.signal() == Some(libc::SIGKILL) && !timed_out),
                });
            drop(leader);
            if sender.send(exit).is_err() {
                tracing::trace!("nobody waits for the command any more");
            }
        });
        Ok(Process::new(
            stdio.stdin,
            stdio.stdout,
            stdio.stderr,
            receiver,
            Box::new(HostReach(group)),
        ))
    }

    fn strike(&self) -> Arc<dyn Strike> {
        Arc::new(HostStrike {
            groups: Arc::clone(&self.groups),
            struck: Arc::clone(&self.struck),
        })
    }

    async fn diagnose(&self) -> Diagnosis {
        Diagnosis {
            kind: Kind::Host,
            sealed: false,
            alive: !self.ended.load(Ordering::Relaxed),
            first_process: None,
            limits_in_force: Enforcement::None,
            landlock_abi: None,
            memory_bytes: None,
            processes: None,
            out_of_memory_kills: None,
            commands: self.running.load(Ordering::Relaxed),
        }
    }

    async fn destroy(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

impl Drop for HostSandbox {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let groups = self
            .groups
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        groups.iter().for_each(|group| group.signal(Signal::KILL));
    }
}

/// Whether there is such a file, in `search_path` if it is only a name.
fn exists(program: &Path, search_path: &std::ffi::OsStr) -> bool {
    match program.components().count() {
        1 => std::env::split_paths(search_path).any(|place| place.join(program).exists()),
        _ => program.exists(),
    }
}

/// Waits for the leader's end; after `timeout` asks the group to end, after `grace` more kills it.
async fn wait_or_end(
    pidfd: &AsyncFd<std::os::fd::OwnedFd>,
    group: &Group,
    timeout: Option<std::time::Duration>,
    grace: std::time::Duration,
) -> bool {
    let ended = async {
        if let Err(error) = pidfd.readable().await {
            tracing::warn!(%error, "a command cannot be watched");
        }
    };
    tokio::pin!(ended);
    let Some(timeout) = timeout else {
        ended.await;
        return false;
    };
    if tokio::time::timeout(timeout, &mut ended).await.is_ok() {
        return false;
    }
    group.signal(Signal::TERM);
    if tokio::time::timeout(grace, &mut ended).await.is_err() {
        group.signal(Signal::KILL);
        ended.await;
    }
    true
}
