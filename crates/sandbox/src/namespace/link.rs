//! The owner's side of the conversation with process 1: starts commands, keeps their time, and
//! learns how they end. Here is what is heard; the files below are about what is said.

mod ask;
mod command;
mod connect;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, RwLock, oneshot};

use self::command::Refusal;
#[cfg(feature = "fuzzing")]
pub(crate) use self::command::payload;
use super::cgroup::{Cgroup, Strikes};
use super::packet::{self, Packet};
use super::wire;
use crate::connection::Places;
use crate::process::Ended;
use crate::trouble::{SHELL_NOT_FOUND, SHELL_SIGNALED};
use crate::{Call, End, Error, Exit, Last, Limit, Output, Strike};

/// How long a command may take to be started, and to be gone once it is killed.
const STARTED_WITHIN: Duration = Duration::from_secs(20);
const KILLED_WITHIN: Duration = Duration::from_secs(20);
/// How long the end of the other side may take to be known whole, and how often it is looked at.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

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
    /// Whether no further call is told.
    calls_over: bool,
    /// The limit for which the owner ended everything.
    ended_for: Option<Limit>,
    last: Last,
    /// How often limits had struck when a command ended last: its end explains them.
    explained: Strikes,
    /// How the process on the other side ended, where somebody else than its owner had to say so.
    told: Option<ExitStatus>,
}

/// What process 1 answers: how many processes live inside, and its mount namespace.
type Lent = (u32, OwnedFd);

struct Running {
    started: Option<oneshot::Sender<Result<Option<OwnedFd>, Refusal>>>,
    exit: oneshot::Sender<Result<Ended, Error>>,
    /// What happens next if the command goes on, and when.
    next: Option<(Instant, Next)>,
    grace: Duration,
    timed_out: bool,
    strikes: Strikes,
    /// The calls that were refused to it, each once.
    refused: Vec<Call>,
}

#[derive(Clone, Copy)]
enum Next {
    Terminate,
    Kill,
    GiveUp,
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
        self.state().last = Last::captured(output, &stdout, &stderr);
    }

    /// Whether process 1 tells no further refused call.
    pub(crate) fn calls_are_over(&self) -> bool {
        self.state().calls_over
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
                    let now = self.strikes();
                    let exit = judge(&command, status, struck, now);
                    let refused = command.refused;
                    let mut state = self.state();
                    state.last = Last::ended(exit, refused.clone());
                    state.explained = now;
                    drop(state);
                    if let Some(started) = command.started {
                        tell(started, Ok(None));
                    }
                    tell(command.exit, Ok(Ended { exit, refused }));
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
            [wire::CALL_REFUSED, id, number, first, second, ..] => {
                if let Some(command) = state.running.get_mut(&id) {
                    let call = Call::new(number, [first, second]);
                    // Whoever says so inside is not believed to keep to the bound.
                    if command.refused.len() < wire::MOST_TOLD && !command.refused.contains(&call) {
                        command.refused.push(call);
                    }
                }
            }
            [wire::CALLS_OVER, ..] => state.calls_over = true,
            [wire::STRUCK, which, ..] => {
                state.struck = Some(match which {
                    wire::STRUCK_MEMORY => Limit::Memory,
                    _ => Limit::Processes,
                });
            }
            [wire::ENDED, status, ..] => {
                state.told = Some(ExitStatus::from_raw(status.cast_signed()));
            }
            _ => {}
        }
    }

    /// Whether the other side has ended: its process, as the owner sees that, or the conversation. One may
    /// be seen a moment before the other; both are waited for, so that it can be said how it ended.
    pub(crate) async fn has_ended(&self, process_has: impl Fn() -> bool) -> bool {
        if !process_has() && !self.state().gone {
            return false;
        }
        let deadline = Instant::now() + KNOWN_WITHIN;
        while !(process_has() && self.state().gone) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// How the other side ended, of which the owner knows this status or none, and which limit explains it.
    pub(crate) fn end(&self, status: Option<ExitStatus>) -> End {
        let struck = self.strikes().memory;
        let state = self.state();
        let status = status.or(state.told);
        let was_killed = status.and_then(|status| status.signal()) == Some(libc::SIGKILL);
        let for_memory = was_killed && struck > state.explained.memory;
        End::of(
            status,
            state.ended_for.or(for_memory.then_some(Limit::Memory)),
        )
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
}

/// Puts together how a command ended, and which limit explains it, given how often limits have struck now.
fn judge(command: &Running, status: u32, struck: Option<Limit>, now: Strikes) -> Exit {
    let status = ExitStatus::from_raw(status.cast_signed());
    let mut exit = Exit {
        code: status.code(),
        signal: status.signal(),
        timed_out: command.timed_out,
        limit: None,
        refused: None,
    };
    // By the code, since the status is the inside's word, in which more bits than the code's may be set.
    if exit.success() || command.timed_out {
        return exit;
    }
    exit.limit = if now.memory > command.strikes.memory {
        Some(Limit::Memory)
    } else if now.processes > command.strikes.processes {
        Some(Limit::Processes)
    } else if was_for_a_file(&exit) {
        Some(Limit::FileBytes)
    } else if exit.signal == Some(libc::SIGKILL) {
        struck
    } else {
        None
    };
    if exit.limit.is_none() && may_be_for_a_refused_call(&exit) {
        exit.refused = command.refused.last().copied();
    }
    exit
}

/// Whether a file became too large, by the signal; a shell says by its code which signal ended its command.
fn was_for_a_file(exit: &Exit) -> bool {
    exit.signal == Some(libc::SIGXFSZ) || exit.code == Some(SHELL_SIGNALED + libc::SIGXFSZ)
}

/// Whether a failure may be for a refused call: not where there was no such program, or for a call that
/// ends its caller, or where somebody ended the command.
fn may_be_for_a_refused_call(exit: &Exit) -> bool {
    const BY_SOMEBODY: [i32; 5] = [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGSYS,
    ];
    match (exit.code, exit.signal) {
        (Some(code), _) => code != SHELL_NOT_FOUND,
        (None, Some(signal)) => !BY_SOMEBODY.contains(&signal),
        (None, None) => false,
    }
}

/// Whoever waited may have gone away.
fn tell<T>(sender: oneshot::Sender<T>, value: T) {
    if sender.send(value).is_err() {
        tracing::trace!("nobody waits for the command any more");
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
