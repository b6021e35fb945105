//! SSH into a sandbox: the server's side, on this program's own input and output.
//!
//! A client starts this program and speaks with it through a pipe. No port is opened, so nobody is asked
//! who they are: whoever speaks runs this program as its user, who may do all of it anyway.

mod key;
mod program;
mod session;
mod spool;

pub(crate) use self::key::{ALIAS, tell_clients};

use self::session::{Client, Error as SessionError};
use crate::{exit::Exit, report::Error, signals::Signals};
use russh::{
    Disconnect, MethodKind, MethodSet, SshId,
    server::{Config, run_stream},
};
use rustix::fs::FileType;
use server::standing::Held;
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixStream, unix::pipe},
};

/// How long a client may take to hang up once it is told that the sandbox has ended.
const HANGS_UP_WITHIN: Duration = Duration::from_secs(2);

/// Serves the one client at this program's input and output, until it hangs up or the sandbox ends.
///
/// # Errors
/// When the sandbox does not answer, the key cannot be had, or what comes is not SSH.
pub(crate) async fn serve(held: Held, data: &Path) -> Result<Exit, Error> {
    let mut signals = Signals::listen()?;
    let config = Config {
        server_id: SshId::Standard(concat!("SSH-2.0-skep_", env!("CARGO_PKG_VERSION")).into()),
        methods: MethodSet::from([MethodKind::None].as_slice()),
        keys: vec![key::key(data)?],
        // A person may look at an editor for hours; a client that is gone has closed the pipe.
        inactivity_timeout: None,
        ..Config::default()
    };
    let ended = held.watch().await.map_err(server::Error::from)?;
    let client = Client::new(held, data.into());
    let stream = tokio::io::join(input().map_err(streams)?, output().map_err(streams)?);
    let serving = async {
        let mut session = run_stream(Arc::new(config), stream, client).await?;
        let handle = session.handle();
        tokio::select! {
            served = &mut session => return served,
            () = ended => {}
        }
        let why = "the sandbox has ended".to_owned();
        handle
            .disconnect(Disconnect::ByApplication, why, String::new())
            .await?;
        tokio::time::timeout(HANGS_UP_WITHIN, session)
            .await
            .unwrap_or(Ok(()))
    };
    match signals.or(serving).await? {
        Ok(()) => Ok(Exit::Done),
        Err(error) => hung_up(error),
    }
}

type Input = Box<dyn AsyncRead + Send + Unpin>;
type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// This program's input: a pipe, or a socket, whichever a client has made.
fn input() -> io::Result<Input> {
    let fd = io::stdin().as_fd().try_clone_to_owned()?;
    if is_socket(&fd)? {
        return Ok(Box::new(socket(fd)?));
    }
    Ok(Box::new(pipe::Receiver::from_owned_fd(fd)?))
}

fn output() -> io::Result<Output> {
    let fd = io::stdout().as_fd().try_clone_to_owned()?;
    if is_socket(&fd)? {
        return Ok(Box::new(socket(fd)?));
    }
    Ok(Box::new(pipe::Sender::from_owned_fd(fd)?))
}

fn is_socket(fd: &OwnedFd) -> io::Result<bool> {
    let found = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Socket)
}

fn socket(fd: OwnedFd) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn streams(source: io::Error) -> Error {
    Error::System {
        doing: "using the input and the output, which must be pipes or sockets of an SSH client,",
        source,
    }
}

/// That a client hangs up is how it ends.
fn hung_up(error: SessionError) -> Result<Exit, Error> {
    let SessionError::Protocol(error) = error;
    match error {
        russh::Error::Disconnect | russh::Error::HUP | russh::Error::SendError => Ok(Exit::Done),
        russh::Error::IO(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
            ) =>
        {
            Ok(Exit::Done)
        }
        error => Err(Error::System {
            doing: "speaking SSH with the client",
            source: io::Error::other(error),
        }),
    }
}
