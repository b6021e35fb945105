//! A connection out, every byte of which is counted and bounded: heads, bodies, interim answers, and
//! what makes TLS.

use super::passage::{Passage, Way};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection of a passage.
pub(super) struct Counted {
    stream: TcpStream,
    passage: Arc<Passage>,
}

impl Counted {
    pub(super) fn new(stream: TcpStream, passage: Arc<Passage>) -> Self {
        Self { stream, passage }
    }

    fn fail(&self, way: Way) -> io::Error {
        let why = self.passage.too_much(way);
        self.passage.ended(why.clone());
        io::Error::other(why)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, to))?;
        let count = to.filled().len().saturating_sub(before);
        self.passage.count(Way::Down, count as u64);
        // What is past the bound has come already, but goes no further.
        if count > 0 && self.passage.is_over(Way::Down) {
            to.set_filled(before);
            return Poll::Ready(Err(self.fail(Way::Down)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = usize::try_from(self.passage.room(Way::Up)).unwrap_or(usize::MAX);
        if room == 0 && !bytes.is_empty() {
            return Poll::Ready(Err(self.fail(Way::Up)));
        }
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.passage.count(Way::Up, count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
