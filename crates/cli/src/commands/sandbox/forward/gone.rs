//! Hearing that whoever connected here has gone altogether.
//!
//! One that has closed its connection looks like one that has ended only its own direction and waits for
//! an answer. But a machine answers for a connection that a program still has, and resets one that none
//! has any more: Linux a minute after it was closed, unless the program has wished for less.

use std::{io, os::fd::AsFd as _, time::Duration};

use rustix::net::sockopt;
use tokio::{io::Interest, net::TcpStream};

/// How often the other end is asked about a connection on which nothing comes.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// How often it may leave that unanswered before it counts as gone: a machine on a network may sleep.
const UNANSWERED: u32 = 24;

/// Ends when nobody is at the other end of a connection any more. It takes no byte of it.
///
/// # Errors
/// When there are too many descriptors, or the connection cannot be watched.
pub(super) fn gone(
    stream: &TcpStream,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + use<>> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, ASKED_EVERY)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, UNANSWERED)?;
    let watched = stream.as_fd().try_clone_to_owned()?;
    let watched = TcpStream::from_std(watched.into())?;
    Ok(async move { watched.ready(Interest::ERROR).await.map(drop) })
}
