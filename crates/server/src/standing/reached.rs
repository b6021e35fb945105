//! A connection to what listens in a place that a process holds.

use super::{error::Error, talk::Talk};
use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection to a port inside, whose place the holder keeps for as long as this lives. What comes are
/// bytes of a hostile program.
#[derive(Debug)]
pub struct Reached {
    stream: TcpStream,
    _talk: Talk,
}

impl Reached {
    pub(super) fn new(talk: Talk, descriptors: Vec<OwnedFd>) -> Result<Self, Error> {
        let descriptor = descriptors.into_iter().next();
        let missing = || Error::Conversation(io::ErrorKind::UnexpectedEof.into());
        let descriptor = descriptor.ok_or_else(missing)?;
        let stream = TcpStream::from_std(descriptor.into()).map_err(Error::Conversation)?;
        Ok(Self {
            stream,
            _talk: talk,
        })
    }
}

impl AsyncRead for Reached {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Reached {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
