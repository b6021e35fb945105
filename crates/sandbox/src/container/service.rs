//! Podman's service, started for as long as this process needs it.
//!
//! It ends by itself some seconds after the last conversation: one is held open for as long as this
//! process lives, so that it goes with its owner, however that ends. It is not killed then, for it may
//! be about to clear something away.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::namespace::start::wait_readable;
use crate::{Error, Trouble};

/// How long it may take to answer, and to end.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile.
const PAUSE: Duration = Duration::from_millis(5);
/// Seconds without a conversation after which it ends.
const IDLE: &str = "--time=3";
/// What is kept of its last words, in bytes.
const WORDS: usize = 4096;
/// Asks for events that never come: the conversation lasts.
const HOLD: &[u8] = b"GET /events?filters=%7B%22label%22%3A%5B%22skep.never%22%5D%7D HTTP/1.1\r\nHost: skep\r\n\r\n";

/// Dropped, it ends.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    held: Option<UnixStream>,
}

impl Service {
    /// Starts it, and waits until it answers at `socket`. Blocks.
    pub(super) fn start(
        podman: &Path,
        arguments: &[OsString],
        socket: &Path,
    ) -> Result<Self, Error> {
        let refused = |what: String| Error::engine(Trouble::EngineUnreachable, what);
        let mut address = OsString::from("unix://");
        address.push(socket);
        let mut child = Command::new(podman)
            .args(arguments)
            .args(["system", "service", IDLE])
            .arg(address)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_of_engine(name)))
            // It leaves files there, as of an image that it was sent.
            .env("TMPDIR", socket.parent().unwrap_or(socket))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                refused(format!("{} cannot be started ({error})", podman.display()))
            })?;
        let words = last_words(&mut child);
        let mut service = Self { child, held: None };
        let deadline = Instant::now() + ANSWERS_WITHIN;
        loop {
            match UnixStream::connect(socket) {
                Ok(mut held) => {
                    held.write_all(HOLD)
                        .map_err(Error::io("talk to the engine"))?;
                    service.held = Some(held);
                    return Ok(service);
                }
                Err(error) if !service.lives() || Instant::now() > deadline => {
                    let words = words.lock().unwrap_or_else(PoisonError::into_inner);
                    let words = String::from_utf8_lossy(&words).trim().to_owned();
                    return Err(refused(format!(
                        "the service of Podman does not start ({error}): {words}"
                    )));
                }
                Err(_) => pause(),
            }
        }
    }

    /// Whether it has not ended.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn end(&mut self) -> Result<(), Error> {
        let failed = || Error::io("end the service of Podman");
        self.held = None;
        if !self.lives() {
            return Ok(());
        }
        let pid = Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|error| failed()(error.into()))?;
        rustix::process::pidfd_send_signal(&pidfd, Signal::TERM)
            .map_err(|error| failed()(error.into()))?;
        let deadline = Instant::now() + ENDS_WITHIN;
        if !wait_readable(std::os::fd::AsFd::as_fd(&pidfd), deadline)? {
            self.child.kill().map_err(failed())?;
        }
        self.child.wait().map(drop).map_err(failed())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, pid = self.child.id(), "the service of Podman goes on");
        }
    }
}

/// There is no event for "it listens".
fn pause() {
    let time = rustix::event::Timespec::try_from(PAUSE).ok();
    if let Err(error) = rustix::event::poll(&mut [], time.as_ref()) {
        tracing::trace!(%error, "a pause was cut short");
    }
}

/// Reads all that it complains of, and keeps the end. The thread ends with the last process that
/// holds the other end.
fn last_words(child: &mut Child) -> Arc<Mutex<Vec<u8>>> {
    let words = Arc::new(Mutex::new(Vec::new()));
    if let Some(mut errors) = child.stderr.take() {
        let kept = Arc::clone(&words);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = errors.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(buffer.get(..length).unwrap_or_default());
                let surplus = kept.len().saturating_sub(WORDS);
                kept.drain(..surplus);
            }
        });
    }
    words
}

/// Whether Podman needs this variable. What else is in the environment may be a key, and what Podman
/// starts inherits what it has.
fn is_of_engine(name: &OsStr) -> bool {
    const NAMES: [&str; 9] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LC_ALL",
        "DBUS_SESSION_BUS_ADDRESS",
        "STORAGE_DRIVER",
        "STORAGE_OPTS",
    ];
    const BEGINNINGS: [&str; 2] = ["XDG_", "CONTAINERS_"];
    name.to_str().is_some_and(|name| {
        NAMES.contains(&name) || BEGINNINGS.iter().any(|it| name.starts_with(it))
    })
}
