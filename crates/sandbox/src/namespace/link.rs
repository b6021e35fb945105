//! The owner's side of the conversation with process 1: starts commands, keeps their time, and
//! learns how they end.

mod connect;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, OwnedRwLockWriteGuard, RwLock, oneshot};

use super::cgroup::{Cgroup, Strikes};
use super::packet::{self, Packet};
use super::{start, wire};
use crate::connection::Places;
use crate::process::Reach;
use crate::stdio::{DEFAULT_PATH, Stdio};
use crate::{Carry, Command, Error, Exit, Last, Limit, Output, Process, Strike, Terminal};

/// How long a command may take to be started, and to be gone once it is killed.
const STARTED_WITHIN: Duration = Duration::from_secs(20);
const KILLED_WITHIN: Duration = Duration::from_secs(20);
/// The words and variables of one command, in bytes, at most.
const MOST_PAYLOAD: usize = 8 << 20;

/// The conversation with one process 1, or with the helper of the kind `host`.
pub(crate) struct Link {
    socket: AsyncFd<OwnedFd>,
    state: Mutex<State>,
    /// The loop looks at the deadlines again.
    changed: Notify,
    cgroup: Option<Arc<Cgroup>>,
    /// For connections to what listens inside.
    places: Places,
    /// Held by each command until it has started, and alone by whoever wants none to start.
    starting: Arc<RwLock<()>>,
}

#[derive(Default)]
struct State {
    /// Who waits for the mount namespace that process 1 lends.
    lent: Option<oneshot::Sender<Lent>>,
    /// Who waits for what became of a connection.
    reached: Option<oneshot::Sender<u32>>,
    /// Who waits for a connection of their own.
    connecting: HashMap<u32, oneshot::Sender<io::Result<OwnedFd>>>,
    running: HashMap<u32, Running>,
    last_id: u32,
    gone: bool,
    struck: Option<Limit>,
    /// The limit for which the owner ended everything.
    ended_for: Option<Limit>,
    last: Last,
}

/// The mount namespace of a sandbox in which nothing runs. While this lives, nothing starts there.
pub(super) struct Quiet {
    pub(super) namespace: OwnedFd,
    _none_starts: OwnedRwLockWriteGuard<()>,
}

/// What process 1 answers: how many processes live inside, and its mount namespace.
type Lent = (u32, OwnedFd);

struct Running {
    started: Option<oneshot::Sender<Result<Option<OwnedFd>, Refusal>>>,
    exit: oneshot::Sender<Result<Exit, Error>>,
    /// What happens next if the command goes on, and when.
    next: Option<(Instant, Next)>,
    grace: Duration,
    timed_out: bool,
    strikes: Strikes,
}

/// A command that is about to be started, and what is told of it.
pub(crate) struct Entered {
    pub(crate) id: u32,
    pub(crate) started: oneshot::Receiver<Result<Option<OwnedFd>, Refusal>>,
    pub(crate) exit: oneshot::Receiver<Result<Exit, Error>>,
}

#[derive(Clone, Copy)]
enum Next {
    Terminate,
    Kill,
    GiveUp,
}

/// Why a command was not started: stage and errno, as the minder says them.
pub(crate) struct Refusal {
    stage: u32,
    errno: i32,
}

impl Link {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(socket: OwnedFd, cgroup: Option<Arc<Cgroup>>) -> Result<Arc<Self>, Error> {
        let failed = || Error::io("talk to the sandbox");
        rustix::io::ioctl_fionbio(&socket, true).map_err(|error| failed()(error.into()))?;
        // SAFETY: the descriptor is owned, never replaced, and lives as long as its registration.
        let socket =
            unsafe { AsyncFd::register(socket) }.map_err(|error| failed()(error.into_parts().1))?;
        let (state, changed) = (Mutex::default(), Notify::new());
        Ok(Arc::new(Self {
            socket,
            state,
            changed,
            cgroup,
            places: Places::default(),
            starting: Arc::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the conversation: the other side ends what it has started, and then itself.
    pub(crate) fn hang_up(&self) {
        if let Err(error) = rustix::net::shutdown(self.socket.get_ref(), Shutdown::Both) {
            tracing::debug!(%error, "the other side has hung up already");
        }
    }

    /// What is remembered of the command that ended last.
    pub(crate) fn last(&self) -> Last {
        self.state().last.clone()
    }

    /// Keeps the last lines of a command whose output was captured, without what is to be hidden.
    pub(crate) fn remember(&self, output: &Output, hide: impl Fn(String) -> String) {
        let (stdout, stderr) = (hide(output.stdout.text()), hide(output.stderr.text()));
        self.state().last = Last::captured(output.exit, &stdout, &stderr);
    }

    /// How many commands run.
    pub(crate) fn commands(&self) -> usize {
        self.state().running.len()
    }

    /// Listens to process 1 until it is gone. Woken by a message, by a deadline, and by a change of
    /// the deadlines; owns the ends of commands; ends with the socket, or with the sandbox, which
    /// aborts it.
    pub(crate) async fn run(self: Arc<Self>) {
        // However this ends, by the socket or by being aborted, whoever waits must hear of it.
        let _ending = Ending(&self);
        loop {
            let deadline = self
                .state()
                .running
                .values()
                .filter_map(|command| command.next)
                .map(|next| next.0)
                .min();
            let until = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                message = self.socket.async_io(Interest::READABLE, |socket| {
                    packet::receive(socket, RecvFlags::empty())
                }) => match message {
                    Ok(Some(packet)) => self.hear(packet),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "the sandbox is not heard any more");
                        break;
                    }
                },
                () = tokio::time::sleep_until(until.into()) => self.keep_time(),
                () = self.changed.notified() => {}
            }
        }
    }

    pub(crate) fn hear(&self, packet: Packet) {
        let mut state = self.state();
        match packet.words {
            [wire::STARTED, id, ..] => {
                if let Some(started) = state
                    .running
                    .get_mut(&id)
                    .and_then(|command| command.started.take())
                {
                    tell(started, Ok(packet.descriptor));
                }
            }
            [wire::REFUSED, id, stage, errno, ..] => {
                if let Some(command) = state.running.remove(&id)
                    && let Some(started) = command.started
                {
                    tell(
                        started,
                        Err(Refusal {
                            stage,
                            errno: i32::try_from(errno).unwrap_or(0),
                        }),
                    );
                }
            }
            [wire::EXITED, id, status, ..] => {
                if let Some(command) = state.running.remove(&id) {
                    let struck = state.struck;
                    drop(state);
                    let exit = self.judge(&command, status, struck);
                    self.state().last = Last::ended(exit);
                    if let Some(started) = command.started {
                        tell(started, Ok(None));
                    }
                    tell(command.exit, Ok(exit));
                }
            }
            [wire::LENT, processes, ..] => {
                if let (Some(waits), Some(namespace)) = (state.lent.take(), packet.descriptor) {
                    tell(waits, (processes, namespace));
                }
            }
            [wire::REACHED, errno, ..] => {
                if let Some(waits) = state.reached.take() {
                    tell(waits, errno);
                }
            }
            [wire::CONNECTED, id, errno, ..] => {
                if let Some(waits) = state.connecting.remove(&id) {
                    let refused = || io::Error::from_raw_os_error(errno.cast_signed());
                    tell(waits, packet.descriptor.ok_or_else(refused));
                }
            }
            [wire::STRUCK, which, ..] => {
                state.struck = Some(match which {
                    wire::STRUCK_MEMORY => Limit::Memory,
                    _ => Limit::Processes,
                });
            }
            _ => {}
        }
    }

    /// Puts together how a command ended, and which limit explains it.
    fn judge(&self, command: &Running, status: u32, struck: Option<Limit>) -> Exit {
        let status = ExitStatus::from_raw(status.cast_signed());
        let mut exit = Exit {
            code: status.code(),
            signal: status.signal(),
            timed_out: command.timed_out,
            limit: None,
        };
        if status.success() || command.timed_out {
            return exit;
        }
        let now = self.strikes();
        exit.limit = if now.memory > command.strikes.memory {
            Some(Limit::Memory)
        } else if now.processes > command.strikes.processes {
            Some(Limit::Processes)
        } else if exit.signal == Some(libc::SIGXFSZ) {
            Some(Limit::FileBytes)
        } else if exit.signal == Some(libc::SIGKILL) {
            struck
        } else {
            None
        };
        exit
    }

    fn strikes(&self) -> Strikes {
        self.cgroup
            .as_ref()
            .map(|cgroup| cgroup.strikes())
            .unwrap_or_default()
    }

    /// Does what is due.
    fn keep_time(&self) {
        let now = Instant::now();
        let mut state = self.state();
        let mut lost = Vec::new();
        for (id, command) in &mut state.running {
            let Some((_, next)) = command.next.filter(|(due, _)| *due <= now) else {
                continue;
            };
            command.timed_out = true;
            match next {
                Next::Terminate => {
                    self.signal(*id, libc::SIGTERM);
                    command.next =
                        Some((now.checked_add(command.grace).unwrap_or(now), Next::Kill));
                }
                Next::Kill => {
                    self.signal(*id, libc::SIGKILL);
                    command.next = Some((now + KILLED_WITHIN, Next::GiveUp));
                }
                Next::GiveUp => lost.push(*id),
            }
        }
        for id in lost {
            if let Some(command) = state.running.remove(&id) {
                let seconds = KILLED_WITHIN.as_secs();
                tell(
                    command.exit,
                    Err(Error::Silent {
                        seconds,
                        doing: "killing a command",
                    }),
                );
            }
        }
    }
}

impl Strike for Link {
    fn strike(&self, limit: Limit) {
        let mut state = self.state();
        state.ended_for = Some(limit);
        state.struck = Some(limit);
        let due = Instant::now() + KILLED_WITHIN;
        for (id, command) in &mut state.running {
            self.signal(*id, libc::SIGKILL);
            command.next = Some((due, Next::GiveUp));
        }
        drop(state);
        self.changed.notify_one();
    }
}

impl Link {
    /// Asks process 1 to signal all of a command.
    fn signal(&self, id: u32, signal: i32) {
        let words = [wire::SIGNAL, id, signal.cast_unsigned()];
        if let Err(error) = packet::send(self.socket.get_ref(), &words, &[], SendFlags::empty()) {
            tracing::debug!(%error, "a signal does not reach the sandbox");
        }
    }

    /// Notes that a command is about to be started: from here on its start and its end are told.
    pub(crate) fn enter(&self, command: &Command) -> Result<Entered, Error> {
        let (started_sender, started) = oneshot::channel();
        let (exit_sender, exit) = oneshot::channel();
        let strikes = self.strikes();
        let mut state = self.state();
        if state.gone {
            return Err(Error::Gone);
        }
        if let Some(limit) = state.ended_for {
            return Err(Error::Struck { limit });
        }
        state.struck = None;
        state.last_id = state.last_id.wrapping_add(1);
        let id = state.last_id;
        // A time that no clock reaches is none.
        let due = command
            .timeout
            .and_then(|it| Instant::now().checked_add(it));
        let running = Running {
            started: Some(started_sender),
            exit: exit_sender,
            next: due.map(|due| (due, Next::Terminate)),
            grace: command.grace,
            timed_out: false,
            strikes,
        };
        state.running.insert(id, running);
        Ok(Entered { id, started, exit })
    }

    /// Starts a command and returns once it runs.
    pub(crate) async fn exec(self: &Arc<Self>, command: Command) -> Result<Process, Error> {
        let program = command.argv.first().ok_or(Error::InvalidCommand {
            what: "it has no words",
        })?;
        let program = program.clone();
        self.start(command, &program, 0).await
    }

    /// Starts to carry files in or out; relative paths begin in `workspace`.
    pub(crate) async fn carry(
        self: &Arc<Self>,
        carry: &Carry,
        workspace: &Path,
    ) -> Result<Process, Error> {
        // There is nothing to look for.
        let nothing = OsStr::new("/");
        let command = carry.command(workspace);
        self.start(command, nothing, wire::CARRY).await
    }

    async fn start(
        self: &Arc<Self>,
        command: Command,
        program: &OsStr,
        mut flags: u32,
    ) -> Result<Process, Error> {
        let payload = payload(&command, program)?;
        let file = start::memory_file("skep-command", &payload)
            .map_err(Error::io("pass a command to the sandbox"))?;
        let stdio = match command.terminal {
            None => Some(Stdio::new(&command.stdin)?),
            Some(_) => None,
        };
        let _starting = self.starting.read().await;
        let Entered { id, started, exit } = self.enter(&command)?;
        // From here on a dropped process, as when this function is cancelled, kills the command.
        let reach = Box::new(CommandReach {
            link: Arc::clone(self),
            id,
        });
        let mut process = Process::new(exit, reach);
        self.changed.notify_one();
        if command.keep_background {
            flags |= wire::KEEP_BACKGROUND;
        }
        let size = command.terminal.map_or(0, |size| {
            flags |= wire::TERMINAL;
            u32::from(size.rows) << 16 | u32::from(size.columns)
        });
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let words = [wire::EXEC, id, flags, bytes, size];
        let inside = stdio.map(|stdio| process.take_streams(stdio));
        let mut descriptors = vec![file.as_fd()];
        descriptors.extend(inside.iter().flatten().map(AsFd::as_fd));
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            packet::send(socket, &words, &descriptors, SendFlags::empty())
        });
        if let Err(error) = sent.await {
            tracing::debug!(%error, "a command does not reach the sandbox");
            return Err(Error::Gone);
        }
        match tokio::time::timeout(STARTED_WITHIN, started).await {
            Ok(Ok(Ok(terminal))) => {
                let terminal = terminal.filter(|_| command.terminal.is_some());
                process.terminal = terminal.map(Terminal::new).transpose()?;
                if command.terminal.is_some() && process.terminal.is_none() {
                    // Its minder was killed before it could hand it out.
                    return Err(Error::Gone);
                }
                // A strike while it was on its way did not reach it.
                if self.state().ended_for.is_some() {
                    process.kill();
                }
                Ok(process)
            }
            Ok(Ok(Err(refusal))) => {
                let error = refusal.explain(program, &command);
                self.state().last = Last::refused(&error);
                Err(error)
            }
            Ok(Err(_)) => Err(Error::Gone),
            Err(_) => Err(Error::Silent {
                seconds: STARTED_WITHIN.as_secs(),
                doing: "starting a command",
            }),
        }
    }
}

impl Link {
    /// Whether anything answers at a port of the loopback inside. One at a time asks.
    pub(crate) async fn reach(&self, port: u16) -> Result<bool, Error> {
        let (sender, reached) = oneshot::channel();
        {
            let mut state = self.state();
            if state.gone {
                return Err(Error::Gone);
            }
            state.reached = Some(sender);
        }
        let words = [wire::REACH, u32::from(port)];
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            packet::send(socket, &words, &[], SendFlags::empty())
        });
        sent.await.map_err(|_| Error::Gone)?;
        match tokio::time::timeout(STARTED_WITHIN, reached).await {
            Ok(Ok(errno)) => Ok(errno == 0),
            Ok(Err(_)) => Err(Error::Gone),
            Err(_) => Err(Error::Silent {
                seconds: STARTED_WITHIN.as_secs(),
                doing: "looking at a port",
            }),
        }
    }

    /// Sees to it that nothing runs in the sandbox, and that nothing starts.
    pub(super) async fn quiet(&self) -> Result<Quiet, Error> {
        let none_starts = Arc::clone(&self.starting).write_owned().await;
        let (sender, lent) = oneshot::channel();
        {
            let mut state = self.state();
            if state.gone {
                return Err(Error::Gone);
            }
            // Also one whose start nobody waits for any more: it is in this list until its end.
            if !state.running.is_empty() {
                return Err(Error::Busy {
                    processes: state.running.len(),
                });
            }
            state.lent = Some(sender);
        }
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            packet::send(socket, &[wire::LEND], &[], SendFlags::empty())
        });
        if let Err(error) = sent.await {
            tracing::debug!(%error, "the sandbox is not asked for its namespace");
            return Err(Error::Gone);
        }
        match tokio::time::timeout(STARTED_WITHIN, lent).await {
            Ok(Ok((0, namespace))) => Ok(Quiet {
                namespace,
                _none_starts: none_starts,
            }),
            Ok(Ok((processes, _))) => Err(Error::Busy {
                processes: usize::try_from(processes).unwrap_or(usize::MAX),
            }),
            Ok(Err(_)) => Err(Error::Gone),
            Err(_) => Err(Error::Silent {
                seconds: STARTED_WITHIN.as_secs(),
                doing: "counting its processes",
            }),
        }
    }
}

/// Whoever waited may have gone away.
fn tell<T>(sender: oneshot::Sender<T>, value: T) {
    if sender.send(value).is_err() {
        tracing::trace!("nobody waits for the command any more");
    }
}

impl Refusal {
    fn explain(self, program: &OsStr, command: &Command) -> Error {
        let source = std::io::Error::from_raw_os_error(self.errno);
        match (self.stage, self.errno) {
            (wire::REFUSED_FORK, libc::EAGAIN) => Error::TooManyProcesses,
            (wire::REFUSED_DIRECTORY, _) => Error::WorkingDirectory {
                dir: command.cwd.clone(),
                source,
            },
            (wire::REFUSED_EXEC, libc::ENOENT) => Error::NotFound {
                program: program.into(),
            },
            (wire::REFUSED_TERMINAL, _) => Error::NoTerminal { source },
            _ => Error::CannotStart {
                program: program.into(),
                source,
            },
        }
    }
}

/// A command as process 1 reads it: three counts, then texts with a zero byte each: the directory,
/// the words, the variables, and the paths to try as the program.
pub(crate) fn payload(command: &Command, program: &OsStr) -> Result<Vec<u8>, Error> {
    let variables = command.env.iter().map(|(name, value)| {
        let mut pair = name.as_bytes().to_vec();
        pair.push(b'=');
        pair.extend_from_slice(value.as_bytes());
        pair
    });
    let words = command.argv.iter().map(|word| word.as_bytes().to_vec());
    let texts = std::iter::once(command.cwd.as_os_str().as_bytes().to_vec())
        .chain(words)
        .chain(variables)
        .chain(candidates(command, program));
    let count = candidates(command, program).count();
    let mut payload = Vec::new();
    for count in [command.argv.len(), command.env.len(), count] {
        payload.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    }
    for text in texts {
        if text.contains(&0) {
            return Err(Error::InvalidCommand {
                what: "a word of it holds a zero byte",
            });
        }
        payload.extend_from_slice(&text);
        payload.push(0);
        // At once: a long name and a long PATH multiply.
        if payload.len() > MOST_PAYLOAD {
            return Err(Error::InvalidCommand {
                what: "its words and variables are larger than 8 MiB",
            });
        }
    }
    Ok(payload)
}

/// Where the program may be, as a shell would look for it.
fn candidates(command: &Command, program: &OsStr) -> impl Iterator<Item = Vec<u8>> {
    let path = command.env.iter().find(|(name, _)| name == "PATH");
    let path = path.map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path.as_os_str());
    let is_path = program.as_bytes().contains(&b'/');
    let as_it_is = is_path.then(|| program.as_bytes().to_vec());
    let directories = path.as_bytes().split(|byte| *byte == b':');
    let searched = directories.map(|directory| match directory {
        b"" => [b".", b"/".as_slice(), program.as_bytes()].concat(),
        directory => [directory, b"/", program.as_bytes()].concat(),
    });
    as_it_is
        .into_iter()
        .chain(searched.take(if is_path { 0 } else { usize::MAX }))
}

struct CommandReach {
    link: Arc<Link>,
    id: u32,
}

impl Reach for CommandReach {
    fn signal_tree(&self, signal: i32) {
        self.link.signal(self.id, signal);
    }
}

/// Says at the end of listening that the sandbox is gone.
struct Ending<'a>(&'a Link);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.gone = true;
        state.lent = None;
        state.reached = None;
        state.connecting.clear();
        // Whoever waits finds the sender dropped: the sandbox is gone.
        state.running.clear();
    }
}
