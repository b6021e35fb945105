//! A connection to what listens on a sandbox's own loopback, made from outside.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Connections to one sandbox at a time, at most.
pub const MOST_CONNECTIONS: usize = 64;
/// How long a listener inside may take to take one. On a loopback that is done at once, or never.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// Where on a loopback something may listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// 127.0.0.1.
    Four,
    /// ::1.
    Six,
}

impl Family {
    /// In the order in which they are tried.
    pub(crate) const ALL: [Self; 2] = [Self::Four, Self::Six];
}

/// A connection to a port of a sandbox's own loopback. Its bytes are those of a hostile program; whoever
/// holds it reads and writes bytes, and gives nothing else. Shutting down ends one direction alone.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What keeps its place among those of the sandbox.
    _place: Box<dyn Any + Send + Sync>,
}

impl Connection {
    /// One that another process has shared, whose place is kept for as long as `place` lives.
    ///
    /// # Errors
    /// If the descriptor is none of a connection.
    pub fn shared(descriptor: OwnedFd, place: impl Any + Send + Sync) -> io::Result<Self> {
        Ok(Self {
            stream: TcpStream::from_std(descriptor.into())?,
            _place: Box::new(place),
        })
    }

    /// A descriptor of it for another process of the same user, for as long as this lives. A kind whose
    /// sandboxes are elsewhere would give one end of a pair of sockets.
    ///
    /// # Errors
    /// If there are too many descriptors.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
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

/// The places for connections to one sandbox.
#[derive(Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_CONNECTIONS)))
    }
}

impl Places {
    /// A place, if there is one: nobody waits for another's to become free.
    pub(crate) fn take(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = Arc::clone(&self.0).try_acquire_owned();
        place.map_err(|_| Error::TooManyConnections)
    }
}

/// What became of trying each family, in order, until one took the connection or would not refuse it.
#[derive(Debug, Default)]
pub(crate) struct Tried(Option<io::Error>);

impl Tried {
    /// Notes what one said; a connection where it took it, else whether another may be tried.
    pub(crate) fn note(&mut self, said: io::Result<TcpStream>) -> Option<TcpStream> {
        match said {
            Ok(stream) => return Some(stream),
            // What the first one says is the better explanation: the other may not even exist.
            Err(error) => self.0 = self.0.take().or(Some(error)),
        }
        None
    }

    /// Whether it makes sense to try another.
    pub(crate) fn goes_on(&self) -> bool {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        self.0.as_ref().is_none_or(refused)
    }

    /// Why there is no connection.
    pub(crate) fn failed(self, port: u16) -> Error {
        match self.0 {
            Some(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
                Error::NotConnected {
                    port,
                    source: error,
                }
            }
            _ => Error::NobodyListens { port },
        }
    }
}

/// The connection that a stream has become.
pub(crate) fn made(stream: TcpStream, place: OwnedSemaphorePermit) -> Result<Connection, Error> {
    // What is forwarded is often typed.
    stream
        .set_nodelay(true)
        .map_err(Error::io("connect to the sandbox"))?;
    Ok(Connection {
        stream,
        _place: Box::new(place),
    })
}

/// Connects on the loopback of this process.
pub(crate) async fn direct(port: u16, family: Family) -> io::Result<TcpStream> {
    let address: SocketAddr = match family {
        Family::Four => ([127, 0, 0, 1], port).into(),
        Family::Six => ([0, 0, 0, 0, 0, 0, 0, 1], port).into(),
    };
    let connected = tokio::time::timeout(TAKEN_WITHIN, TcpStream::connect(address)).await;
    not_itself(connected.map_err(|_| late())??)
}

/// Waits until a socket from inside is connected. That it is one is not believed.
pub(crate) async fn from_inside(socket: OwnedFd) -> io::Result<TcpStream> {
    let is_internet = matches!(
        sockopt::socket_domain(&socket)?,
        AddressFamily::INET | AddressFamily::INET6
    );
    let is_stream = sockopt::socket_type(&socket)? == SocketType::STREAM;
    if !is_internet || !is_stream || sockopt::socket_protocol(&socket)? != Some(ipproto::TCP) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    rustix::io::ioctl_fionbio(&socket, true)?;
    let stream = TcpStream::from_std(socket.into())?;
    let connected = tokio::time::timeout(TAKEN_WITHIN, stream.writable()).await;
    connected.map_err(|_| late())??;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => not_itself(stream),
    }
}

fn late() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "what listens there takes no connection",
    )
}

/// The kernel may choose as the port to connect from the one to connect to: then a socket meets itself,
/// and nobody listens.
fn not_itself(stream: TcpStream) -> io::Result<TcpStream> {
    match stream.local_addr()? == stream.peer_addr()? {
        true => Err(io::ErrorKind::ConnectionRefused.into()),
        false => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_from_inside_and_is_no_connection_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for other in [
            OwnedFd::from(reader),
            ours.into(),
            datagrams.into(),
            listener.into(),
        ] {
            let said = tokio::time::timeout(Duration::from_secs(60), from_inside(other)).await;
            assert!(said.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn a_socket_that_met_itself_is_a_port_where_nobody_listens() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let met = socket.connect(own).await.unwrap();
        let refused = from_inside(met.into_std().unwrap().into())
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
