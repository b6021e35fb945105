//! The three standard streams of a command, and the environment that most commands need.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe;

use crate::{Error, Stdin};

/// Where programs are looked for when nothing else is known.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Both sides of the three streams.
pub(crate) struct Stdio {
    /// What the command gets as its descriptors 0, 1 and 2.
    pub(crate) inside: [OwnedFd; 3],
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

impl Stdio {
    /// Makes the streams. Must be called within a tokio runtime.
    pub(crate) fn new(stdin: &Stdin) -> Result<Self, Error> {
        let (input, sender) = match stdin {
            Stdin::Null => (open_null()?, None),
            Stdin::Bytes(bytes) => (bytes_to_read(bytes)?, None),
            Stdin::Pipe => {
                let (read, write) = new_pipe()?;
                set_nonblocking(&write)?;
                let sender = pipe::Sender::from_owned_fd(write)
                    .map_err(Error::io("prepare the input of a command"))?;
                (read, Some(sender))
            }
        };
        let (stdout, out) = output_pipe()?;
        let (stderr, err) = output_pipe()?;
        Ok(Self {
            inside: [input, out, err],
            stdin: sender,
            stdout,
            stderr,
        })
    }
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| Error::io("make a pipe")(error.into()))
}

fn output_pipe() -> Result<(pipe::Receiver, OwnedFd), Error> {
    let (read, write) = new_pipe()?;
    set_nonblocking(&read)?;
    let receiver = pipe::Receiver::from_owned_fd(read)
        .map_err(Error::io("prepare the output of a command"))?;
    Ok((receiver, write))
}

fn set_nonblocking(fd: &OwnedFd) -> Result<(), Error> {
    rustix::io::ioctl_fionbio(fd, true).map_err(|error| Error::io("prepare a pipe")(error.into()))
}

fn open_null() -> Result<OwnedFd, Error> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io("open /dev/null")(error.into()))
}

/// A file in memory with these bytes, opened for reading only: the command can be given all of its
/// input without anyone writing while it reads.
fn bytes_to_read(bytes: &[u8]) -> Result<OwnedFd, Error> {
    let failed = || Error::io("prepare the input of a command");
    let memory = rustix::fs::memfd_create("skep-input", MemfdFlags::CLOEXEC)
        .map_err(|error| failed()(error.into()))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(bytes).map_err(failed())?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed()(error.into()))
}

/// The environment that most commands need.
pub(crate) fn base_env(path: OsString, home: &Path) -> Vec<(OsString, OsString)> {
    let pairs: [(&str, OsString); 7] = [
        ("PATH", path),
        ("HOME", home.into()),
        ("USER", "agent".into()),
        ("LOGNAME", "agent".into()),
        ("SHELL", "/bin/sh".into()),
        ("LANG", "C.UTF-8".into()),
        ("TMPDIR", "/tmp".into()),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect()
}
