//! Connections out: a name is looked up once, and the connection is made to an address that was
//! checked.

use super::{Standing, State};
use async_trait::async_trait;
use domain::egress::{Host, Kind, kind};
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// The most addresses of a name that are tried.
const TRIES: usize = 4;

/// Looks up names.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// The addresses of a name, the best first.
    ///
    /// # Errors
    /// When it has none, or that cannot be known.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The machine's own way of looking up names.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The name has no address.
    #[error("the name {name} cannot be looked up: {why}")]
    Unknown { name: String, why: String },
    /// It leads to where nobody may connect.
    #[error(
        "{host} leads to {address}, which is {}: only `egress.addresses` or `egress.hosts` of your \
         configuration can allow it",
        described(*kind)
    )]
    Address {
        host: String,
        address: IpAddr,
        kind: Kind,
    },
    /// Nobody answers.
    #[error("{host} port {port} cannot be reached: {why}")]
    Unreachable {
        host: String,
        port: u16,
        why: String,
    },
}

fn described(kind: Kind) -> &'static str {
    match kind {
        Kind::Public => "public",
        Kind::Loopback => "this machine",
        Kind::Private => "a private network",
        Kind::LinkLocal => "the local link",
        Kind::Special => "no address of a host",
    }
}

/// A connection to a host.
pub(super) async fn connect(
    state: &State,
    standing: &Standing,
    host: &Host,
    port: u16,
) -> Result<TcpStream, Error> {
    let all = addresses(state, standing, host).await?;
    let may = |address: &&IpAddr| {
        let users = &standing.users;
        users.names(host, **address) || (users.may_connect(host, **address) && !is_own(**address))
    };
    let checked: Vec<IpAddr> = all.iter().filter(may).take(TRIES).copied().collect();
    if checked.is_empty() {
        let address = all.first().copied();
        return Err(match address {
            Some(address) => Error::Address {
                host: host.to_string(),
                address,
                kind: match kind(address) {
                    // One that is public, and this machine's own.
                    Kind::Public => Kind::Loopback,
                    other => other,
                },
            },
            None => Error::Unknown {
                name: host.to_string(),
                why: "it has no address".into(),
            },
        });
    }
    let deadline = Instant::now() + state.bounds.connect * 2;
    let mut why = String::from("it took too long");
    for address in checked {
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        let within = deadline.min(Instant::now() + state.bounds.connect);
        match timeout_at(within, connecting).await {
            Ok(Ok(stream)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection keeps its delay");
                }
                return Ok(stream);
            }
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = "it took too long".into(),
        }
    }
    Err(Error::Unreachable {
        host: host.to_string(),
        port,
        why,
    })
}

/// Whether a public address is one of this machine's, whose services may trust who is here: only such
/// a one can be bound. Where the system lets any be bound, that cannot be told.
fn is_own(address: IpAddr) -> bool {
    let binds = |address: IpAddr| UdpSocket::bind(SocketAddr::new(address, 0)).is_ok();
    // For documentation, RFC 5737 and 3849: nobody has them.
    let nobodys = match address {
        IpAddr::V4(_) => IpAddr::from([198, 51, 100, 254]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    };
    binds(address) && !binds(nobodys)
}

async fn addresses(state: &State, standing: &Standing, host: &Host) -> Result<Vec<IpAddr>, Error> {
    let name = match host {
        Host::Address(address) => return Ok(vec![*address]),
        Host::Name(name) => name,
    };
    if let Some(pinned) = standing.users.pinned(name) {
        return Ok(vec![pinned]);
    }
    let unknown = |why: String| Error::Unknown {
        name: name.clone(),
        why,
    };
    // Looking up goes on in a thread of its own although nobody waits any more, and there are so many
    // threads for the whole program. So the room is free again when the thread is, and not before.
    let looking = async {
        let room = Arc::clone(&state.lookups).acquire_owned().await;
        let (resolver, name) = (Arc::clone(&state.resolver), name.clone());
        let looking = tokio::spawn(async move {
            let found = resolver.addresses(&name).await;
            drop(room);
            found
        });
        looking.await.unwrap_or_else(|error| Err(error.into()))
    };
    match timeout(state.bounds.resolve, looking).await {
        Ok(Ok(all)) => Ok(all),
        Ok(Err(error)) => Err(unknown(error.to_string())),
        Err(_) => Err(unknown("it took too long".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_machine_is_told_from_others() {
        assert!(is_own(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_own(IpAddr::from([198, 51, 100, 7])));
        assert!(!is_own(IpAddr::from([8, 8, 8, 8])));
    }
}
