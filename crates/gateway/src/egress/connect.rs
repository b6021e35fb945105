//! Connections out: a name is looked up once, and the connection is made to an address that was
//! checked.

use super::{Standing, State};
use async_trait::async_trait;
use domain::egress::{Host, Kind, Request, kind};
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
};
use tokio::{
    io::AsyncReadExt,
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

/// The machine's table of hosts.
const TABLE: &str = "/etc/hosts";

/// The longest table that is read, in bytes.
const TABLE_BYTES: u64 = 4 << 20;

/// A name that nothing is added to.
fn whole(name: &str) -> String {
    format!("{name}.")
}

async fn read(table: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = tokio::fs::File::open(table).await
        && let Err(error) = file.take(TABLE_BYTES).read_to_string(&mut text).await
    {
        tracing::debug!(%error, "the table of hosts cannot be read");
    }
    text
}

/// The addresses that a table has for a name: `ADDRESS NAME...` in each line, `#` begins a comment.
fn in_table(table: &str, name: &str) -> Vec<IpAddr> {
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    };
    table.lines().filter_map(entry).take(TRIES).collect()
}

/// The machine's own way of looking up names, each as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // A name with a dot at its end is in no table, and one without may be asked for with the
        // machine's search domains added: then it is another host that is reached.
        let table = read(Path::new(TABLE)).await;
        let known = in_table(&table, name);
        if !known.is_empty() {
            return Ok(known);
        }
        let found = tokio::net::lookup_host((whole(name), 0)).await?;
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
        "{host} leads to {address}, which is {}: only your own configuration can lead there. {missing}",
        described(*kind)
    )]
    Address {
        host: String,
        address: IpAddr,
        kind: Kind,
        missing: String,
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

/// What a configuration lacks that is to lead to an address.
fn missing(standing: &Standing, request: &Request<'_>, address: IpAddr) -> String {
    let Request { host, port, .. } = request;
    if standing.rules.has_address(host, address) {
        return format!(
            "It has the address, but names {host} with port {port} nowhere: add `[[egress.within]]` \
             or `[[egress.allow]]` with `host` and `ports` to it"
        );
    }
    "Its `egress.addresses` and `egress.hosts` do not have the address: name it in one of them, and \
     the host with its port in `[[egress.within]]` or `[[egress.allow]]`"
        .into()
}

/// A connection to where a request leads.
pub(super) async fn connect(
    state: &State,
    standing: &Standing,
    request: &Request<'_>,
) -> Result<TcpStream, Error> {
    let (host, port) = (request.host, request.port);
    let all = addresses(state, standing, host).await?;
    let may = |address: &&IpAddr| {
        let rules = &standing.rules;
        rules.opens(request, **address)
            || (rules.may_connect(request, **address) && !is_own(**address))
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
                missing: missing(standing, request, address),
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
    fn a_name_is_looked_up_as_it_is_and_not_below_a_search_domain() {
        assert_eq!(whole("api.example"), "api.example.");
        let table = "127.0.0.1\tlocalhost here\n# 10.0.0.1 api.example\n\n10.0.0.2 x Api.Example # y\n\
                     bad api.example\n::1 api.example\n";
        let found: Vec<_> = in_table(table, "api.example")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["10.0.0.2", "::1"]);
        assert!(in_table(table, "example").is_empty() && in_table(table, "y").is_empty());
    }

    #[test]
    fn an_address_of_this_machine_is_told_from_others() {
        assert!(is_own(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_own(IpAddr::from([198, 51, 100, 7])));
        assert!(!is_own(IpAddr::from([8, 8, 8, 8])));
    }
}
