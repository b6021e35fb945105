//! Connections to what listens inside, which process 1 begins and hands out.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::sync::oneshot;

use super::{Link, STARTED_WITHIN};
use crate::Error;
use crate::connection::{self, Connection, Family, Tried};
use crate::namespace::{packet, wire};

/// A connection that is asked for, and what is told of it.
pub(crate) struct Asked {
    pub(crate) id: u32,
    pub(crate) connected: oneshot::Receiver<io::Result<OwnedFd>>,
}

/// Nobody waits for that connection any more.
struct Forgotten<'a>(&'a Link, u32);

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.0.state().connecting.remove(&self.1);
    }
}

impl Link {
    /// Connects to a port of the loopback inside.
    pub(crate) async fn connect(&self, port: u16) -> Result<Connection, Error> {
        let place = self.places.take()?;
        let mut tried = Tried::default();
        for family in Family::ALL {
            let said = match self.ask_for_connection(port, family).await? {
                Ok(socket) => connection::from_inside(socket).await,
                Err(refused) => Err(refused),
            };
            if let Some(stream) = tried.note(said) {
                return connection::made(stream, place);
            }
            if !tried.goes_on() {
                break;
            }
        }
        Err(tried.failed(port))
    }

    /// Asks process 1 for a socket that connects to a port inside.
    async fn ask_for_connection(
        &self,
        port: u16,
        family: Family,
    ) -> Result<io::Result<OwnedFd>, Error> {
        let Asked { id, connected } = self.asks()?;
        let _forgotten = Forgotten(self, id);
        let family = match family {
            Family::Four => wire::FAMILY_4,
            Family::Six => wire::FAMILY_6,
        };
        let words = [wire::CONNECT, id, u32::from(port), family];
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            packet::send(socket, &words, &[], SendFlags::empty())
        });
        sent.await.map_err(|_| Error::Gone)?;
        match tokio::time::timeout(STARTED_WITHIN, connected).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(_)) => Err(Error::Gone),
            Err(_) => Err(Error::Silent {
                seconds: STARTED_WITHIN.as_secs(),
                doing: "making a connection",
            }),
        }
    }

    /// Notes that a connection is about to be asked for: from here on what becomes of it is told.
    pub(crate) fn asks(&self) -> Result<Asked, Error> {
        let (sender, connected) = oneshot::channel();
        let mut state = self.state();
        if state.gone {
            return Err(Error::Gone);
        }
        state.last_id = state.last_id.wrapping_add(1);
        let id = state.last_id;
        state.connecting.insert(id, sender);
        Ok(Asked { id, connected })
    }
}
