//! `skep sandbox forward`.

mod gone;

use super::data;
use crate::{
    context::Context,
    exit::Exit,
    output::Output,
    report::Error,
    signals::Signals,
    view::{
        paint::{LOOK, paint},
        text,
    },
};
use sandbox::Connection;
use sandbox::MOST_CONNECTIONS;
use server::standing::{self, Held, Unable, find};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

/// Ports at once, at most.
const MOST_PORTS: usize = 16;
/// How often a port is picked that is free on both loopbacks.
const TRIES: usize = 16;
/// How long is waited where no connection can be taken: there are too many descriptors, or connections.
const REST: Duration = Duration::from_millis(100);

/// Reach what listens in a sandbox on this machine's loopback, until `Ctrl-C`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sandbox forward try 3000\n  skep sandbox forward try 8080:3000 0:5432"
)]
pub(super) struct Args {
    /// The sandbox, by its id or name or the beginning of one
    id: String,
    /// Ports in it, each with the port here before it if that is another one; 0 takes one that is free
    #[arg(required = true, value_name = "[LOCAL:]PORT")]
    ports: Vec<Ports>,
    /// Listen at this address in place of the loopback: whoever reaches it, reaches the ports
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,
}

/// A port here, and the one inside that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: u16,
    inside: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no port: write 3000, or 8080:3000 for port 8080 here, or 0:3000 for one that is free"
            )
        };
        let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let (local, inside) = match text.split_once(':') {
            Some((local, inside)) => (port(local)?, port(inside)?),
            None => (port(text)?, port(text)?),
        };
        match inside {
            0 => Err(wrong()),
            inside => Ok(Self { local, inside }),
        }
    }
}

#[derive(serde::Serialize)]
struct Object {
    id: String,
    forwards: Vec<Shown>,
}

#[derive(serde::Serialize)]
struct Shown {
    /// The port inside.
    port: u16,
    /// Where it is reached here.
    addresses: Vec<SocketAddr>,
}

/// Where one port inside is reached.
struct Open {
    inside: u16,
    listeners: Vec<(TcpListener, SocketAddr)>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    if args.ports.len() > MOST_PORTS {
        return Err(Error::Usage(format!(
            "`skep sandbox forward` takes {MOST_PORTS} ports at once"
        )));
    }
    let held = find(&data(context)?, &args.id).map_err(server::Error::from)?;
    let mut signals = Signals::listen()?;
    let ended = held.watch().await.map_err(server::Error::from)?;
    let mut open = Vec::new();
    for ports in &args.ports {
        open.push(listen(*ports, args.bind).await?);
    }
    let output = context.output;
    say(output, &held, &open)?;
    if let Some(address) = args.bind.filter(|address| !address.is_loopback()) {
        let warning = format!(
            "{} whoever reaches {address}, from other machines too, reaches what listens in the sandbox, without a password\n",
            paint(LOOK, "note:")
        );
        output.aside(&warning);
    }
    let ways = Ways {
        held: Arc::new(held),
        places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        turn: Arc::default(),
        said: Arc::default(),
        output,
    };
    // Dropped, they end with all that they carry.
    let mut serving = JoinSet::new();
    for one in open {
        for (listener, _) in one.listeners {
            serving.spawn(ways.clone().serve(listener, one.inside));
        }
    }
    signals.or(ended).await?;
    let note = format!("{} the sandbox has ended\n", paint(LOOK, "note:"));
    output.aside(&note);
    Ok(Exit::Done)
}

fn say(output: Output, held: &Held, open: &[Open]) -> Result<(), Error> {
    let id = held.record.id.to_string();
    let addresses = |one: &Open| one.listeners.iter().map(|(_, at)| *at).collect::<Vec<_>>();
    if output.is_json() {
        let shown = open.iter().map(|one| Shown {
            port: one.inside,
            addresses: addresses(one),
        });
        let forwards = shown.collect();
        return output.object(&Object { id, forwards });
    }
    for one in open {
        let at: Vec<_> = addresses(one).iter().map(SocketAddr::to_string).collect();
        let verb = match at.len() {
            1 => "leads",
            _ => "lead",
        };
        let at = at.join(" and ");
        output.say(&format!("{at} {verb} to port {} of {id}\n", one.inside))?;
    }
    Ok(())
}

/// Listens for one port. On the loopback that is both of its addresses, at the same port: a browser may
/// take either for `localhost`.
async fn listen(ports: Ports, bind: Option<IpAddr>) -> Result<Open, Error> {
    let refused = |address: SocketAddr| {
        let inside = ports.inside;
        move |error: io::Error| taken(address, inside, error)
    };
    let mut tries = 0..TRIES;
    loop {
        let address = bind.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let first = listener((address, ports.local).into());
        let first = first
            .await
            .map_err(refused((address, ports.local).into()))?;
        let port = first.1.port();
        let mut listeners = vec![first];
        if bind.is_none() {
            let six = (Ipv6Addr::LOCALHOST, port).into();
            match listener(six).await {
                Ok(second) => listeners.push(second),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    // Another one may be free on both.
                    if ports.local == 0 && tries.next().is_some() {
                        continue;
                    }
                    return Err(refused(six)(error));
                }
                Err(error) => tracing::debug!(%error, "there is no other loopback here"),
            }
        }
        let inside = ports.inside;
        return Ok(Open { inside, listeners });
    }
}

async fn listener(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Why nothing listens at an address, with what to do.
fn taken(address: SocketAddr, inside: u16, error: io::Error) -> Error {
    let message = match error.kind() {
        io::ErrorKind::AddrInUse => format!("something else listens at {address} already"),
        io::ErrorKind::PermissionDenied => {
            format!("this user may not listen at port {}", address.port())
        }
        io::ErrorKind::AddrNotAvailable => {
            return Error::Usage(format!("{} is no address of this machine", address.ip()));
        }
        _ => {
            return Error::System {
                doing: "listening for connections",
                source: error,
            };
        }
    };
    Error::Refused {
        message,
        hint: format!("name another port before it: `0:{inside}` takes one that is free"),
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Ways {
    held: Arc<Held>,
    places: Arc<Semaphore>,
    /// Of those who wait for a place in the sandbox, one at a time asks.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// What was said last of each port inside, so that it is not said for each connection.
    said: Arc<Mutex<HashMap<u16, String>>>,
    output: Output,
}

impl Ways {
    /// Takes connections to a port. Woken by one, and by the end of one; owns them; ends when it is
    /// dropped. As many as a sandbox takes are carried; one more waits here for its place, the others
    /// where they are not taken yet.
    async fn serve(self, listener: TcpListener, inside: u16) {
        let mut carried = JoinSet::new();
        loop {
            tokio::select! {
                Some(_ended) = carried.join_next() => {}
                taken = listener.accept() => match taken {
                    Ok((stream, _)) => {
                        // Places become free as connections end, heard of here or not.
                        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                            return;
                        };
                        carried.spawn(self.clone().carry(stream, inside, place));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a connection could not be taken");
                        tokio::time::sleep(REST).await;
                    }
                },
            }
        }
    }

    /// Carries one connection, each direction until its own end, or both until whoever connected has gone.
    async fn carry(self, stream: TcpStream, inside: u16, _place: OwnedSemaphorePermit) {
        let carried = async {
            stream.set_nodelay(true)?;
            let gone = gone::gone(&stream)?;
            tokio::select! {
                gone = gone => gone,
                carried = self.join(stream, inside) => carried,
            }
        };
        if let Err(error) = carried.await {
            tracing::debug!(%error, "a connection broke");
        }
    }

    async fn join(&self, mut stream: TcpStream, inside: u16) -> io::Result<()> {
        let mut reached = match self.connect(inside).await {
            Ok(reached) => reached,
            Err(error) => {
                self.note(inside, domain::failure::chain(&error));
                // Whoever connected sees that nobody is there, and not an answer of nothing.
                return stream.set_zero_linger();
            }
        };
        self.said().remove(&inside);
        copy_bidirectional(&mut stream, &mut reached)
            .await
            .map(drop)
    }

    /// Connects, as soon as there is room. A place in the sandbox becomes free a moment after the
    /// connection that had it has ended here, and others than this program may have some.
    async fn connect(&self, inside: u16) -> Result<Connection, standing::Error> {
        match self.held.connect(inside).await {
            Err(error) if is_full(&error) => {}
            connected => return connected,
        }
        let _turn = self.turn.lock().await;
        loop {
            match self.held.connect(inside).await {
                Err(error) if is_full(&error) => tokio::time::sleep(REST).await,
                connected => return connected,
            }
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, HashMap<u16, String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, inside: u16, why: String) {
        let before = self.said().insert(inside, why.clone());
        if before.as_ref() != Some(&why) {
            let note = format!("{} {}\n", paint(LOOK, "note:"), text::line(&why));
            self.output.aside(&note);
        }
    }
}

/// Whether a sandbox has as many connections as it takes.
fn is_full(error: &standing::Error) -> bool {
    matches!(
        error,
        standing::Error::Unable {
            why: Unable::Busy,
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        let ports = |local, inside| Ok(Ports { local, inside });
        assert_eq!("3000".parse(), ports(3000, 3000));
        assert_eq!("8080:3000".parse(), ports(8080, 3000));
        assert_eq!("0:5432".parse(), ports(0, 5432));
        for wrong in [
            "", "0", "1:0", ":3000", "3000:", "65536", "-1", "1:2:3", "http",
        ] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }

    // docs/bad-input.md: A port here that is in use, or that this user may not have
    #[tokio::test]
    async fn a_port_that_is_in_use_is_named_with_what_to_do_and_0_takes_one_that_is_free() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = other.local_addr().unwrap().port();
        let Err(refused) = listen(Ports { local, inside: 80 }, None).await else {
            panic!("it is in use");
        };
        let report = crate::report::Report::of(&refused);
        assert!(report.message.contains(&format!("127.0.0.1:{local}")));
        assert!(report.hint.unwrap().contains("`0:80`"));
        let free = listen(
            Ports {
                local: 0,
                inside: 80,
            },
            None,
        )
        .await
        .unwrap();
        let ports: Vec<_> = free.listeners.iter().map(|(_, at)| at.port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0));
        assert!(free.listeners.iter().all(|(_, at)| at.ip().is_loopback()));
    }
}
