//! What listens inside is reached from outside.

use std::net::TcpListener;

use skep_sandbox::{Backend, Channel, Connection, Error, MOST_CONNECTIONS, Stdin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::subject::{PATIENCE, Subject};

/// A sandbox in whose network the test itself listens.
async fn with_listener(backend: &dyn Backend) -> (Subject, Channel) {
    let subject = Subject::with(backend, |spec, _| spec.channel_port = Some(0)).await;
    let channel = subject.sandbox.take_channel().unwrap();
    (subject, channel)
}

async fn rest(connection: &mut Connection) -> String {
    let mut text = String::new();
    let read = connection.read_to_string(&mut text);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    text
}

pub(crate) async fn a_port_inside_is_reached_and_each_direction_ends_alone(backend: &dyn Backend) {
    let (subject, channel) = with_listener(backend).await;
    let inside = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = channel.listener.accept().unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        write!(stream, "heard {said}")
    });
    let mut connection = subject.sandbox.connect(channel.port).await.unwrap();
    connection.write_all(b"all of it").await.unwrap();
    connection.shutdown().await.unwrap();
    assert_eq!(rest(&mut connection).await, "heard all of it");
    inside.join().unwrap().unwrap();
}

pub(crate) async fn where_nobody_listens_that_is_said_at_once(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let of_the_host = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = of_the_host.local_addr().unwrap().port();
    let reached = subject.sandbox.connect(port).await;
    match backend.kind().is_sealed() {
        true => assert!(
            matches!(reached, Err(Error::NobodyListens { .. })),
            "the host's loopback is another one: {reached:?}"
        ),
        false => drop(reached.unwrap()),
    }
    drop(of_the_host);
    let refused = subject.sandbox.connect(port).await.unwrap_err();
    assert!(matches!(refused, Error::NobodyListens { port: named } if named == port));
    assert!(refused.to_string().contains("start its server"));
}

/// Listens at an address, does something, says "up" and the port, and does something else.
const SERVER: &str = "import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family)
s.bind((sys.argv[1], 0))
s.listen(0)
";
const UP: &str = "print('up', flush=True)
print(s.getsockname()[1], flush=True)
";

async fn serve(
    subject: &Subject,
    address: &str,
    before: &str,
    after: &str,
) -> (skep_sandbox::Process, u16) {
    let script = format!("{SERVER}{before}{UP}{after}");
    let argv = ["/usr/bin/python3", "-c", &script, address];
    let command = skep_sandbox::Command::new(argv, "/").with_stdin(Stdin::Pipe);
    let mut process = subject.up(command).await;
    let mut port = String::new();
    let output = process.stdout.as_mut().unwrap();
    loop {
        match output.read_u8().await.unwrap() {
            b'\n' => break,
            digit => port.push(digit.into()),
        }
    }
    (process, port.parse().unwrap())
}

pub(crate) async fn a_server_of_a_command_is_reached_wherever_on_the_loopback_it_listens(
    backend: &dyn Backend,
) {
    let subject = Subject::new(backend).await;
    for address in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
        let answer = "c, _ = s.accept(); c.sendall(c.recv(3)); c.close(); sys.stdin.read()";
        let (server, port) = serve(&subject, address, "", answer).await;
        let mut connection = subject.sandbox.connect(port).await.unwrap();
        connection.write_all(b"yes").await.unwrap();
        assert_eq!(rest(&mut connection).await, "yes", "{address}");
        drop(server);
    }
}

pub(crate) async fn a_listener_that_takes_no_connection_keeps_nobody_else_waiting(
    backend: &dyn Backend,
) {
    let subject = Subject::new(backend).await;
    let fill = "all = []
for i in range(8):
    c = socket.socket(); c.setblocking(False); c.connect_ex(s.getsockname()); all.append(c)
";
    let (server, port) = serve(&subject, "127.0.0.1", fill, "sys.stdin.read()").await;
    let mut connecting = std::pin::pin!(subject.sandbox.connect(port));
    for _ in 0..3 {
        tokio::select! {
            connected = &mut connecting => panic!("{connected:?}"),
            says = subject.says("echo here") => assert_eq!(says, "here"),
        }
    }
    drop(server);
}

pub(crate) async fn connections_are_bounded_and_a_closed_one_makes_room(backend: &dyn Backend) {
    let (subject, channel) = with_listener(backend).await;
    let mut all = Vec::new();
    for _ in 0..MOST_CONNECTIONS {
        all.push(subject.sandbox.connect(channel.port).await.unwrap());
    }
    let refused = subject.sandbox.connect(channel.port).await;
    assert!(matches!(refused, Err(Error::TooManyConnections)));
    assert!(subject.sh("true").await.exit.success());
    all.pop();
    assert!(subject.sandbox.connect(channel.port).await.is_ok());
}
