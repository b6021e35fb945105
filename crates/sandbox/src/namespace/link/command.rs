//! Starting a command inside, and why it was not.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::sync::oneshot;

use super::super::{packet, start, wire};
use super::{Link, Next, Running, STARTED_WITHIN};
use crate::process::{Ended, Reach};
use crate::stdio::{DEFAULT_PATH, Stdio};
use crate::{Carry, Command, Error, Last, Process, Terminal};

/// The words and variables of one command, in bytes, at most.
const MOST_PAYLOAD: usize = 8 << 20;

/// A command that is about to be started, and what is told of it.
pub(crate) struct Entered {
    pub(crate) id: u32,
    pub(crate) started: oneshot::Receiver<Result<Option<OwnedFd>, Refusal>>,
    pub(crate) exit: oneshot::Receiver<Result<Ended, Error>>,
}

/// Why a command was not started: stage and errno, as the minder says them.
pub(crate) struct Refusal {
    pub(super) stage: u32,
    pub(super) errno: i32,
}

impl Link {
    /// Notes that a command is about to be started: from here on its start and its end are told. One that
    /// only `reads` is started after a limit has ended the others, too.
    pub(crate) fn enter(&self, command: &Command, reads: bool) -> Result<Entered, Error> {
        let (started_sender, started) = oneshot::channel();
        let (exit_sender, exit) = oneshot::channel();
        let strikes = self.strikes();
        let mut state = self.state();
        if state.gone {
            return Err(Error::Gone);
        }
        if let Some(limit) = state.ended_for.filter(|_| !reads) {
            return Err(Error::Struck { limit });
        }
        // Files may be read while a command runs: what struck that one still explains its end.
        if !reads {
            state.struck = None;
        }
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
            refused: Vec::new(),
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
        self.start(command, &program, 0, false).await
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
        let reads = carry.task.reads();
        self.start(command, nothing, wire::CARRY, reads).await
    }

    async fn start(
        self: &Arc<Self>,
        command: Command,
        program: &OsStr,
        mut flags: u32,
        reads: bool,
    ) -> Result<Process, Error> {
        let payload = payload(&command, program)?;
        let file = start::memory_file("skep-command", &payload)
            .map_err(Error::io("pass a command to the sandbox"))?;
        let stdio = match command.terminal {
            None => Some(Stdio::new(&command.stdin)?),
            Some(_) => None,
        };
        let _starting = self.starting.read().await;
        let Entered { id, started, exit } = self.enter(&command, reads)?;
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
                if !reads && self.state().ended_for.is_some() {
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
