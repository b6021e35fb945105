//! `skep sandbox forward`: what listens in a sandbox is reached.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use rustix::process::Signal;
use serde_json::Value;
use testkit::Started;

use crate::world::{DEADLINE, World};

/// Listens inside, says "up" with the port, and tells each client how much it sent, once that has ended
/// its own direction.
const SERVER: &str = "import socket
s = socket.create_server(('127.0.0.1', 0))
print('up', s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept()
    n = 0
    while True:
        b = c.recv(65536)
        n += len(b)
        if not b: break
    c.sendall(b'heard %d' % n)
    c.close()
";

/// A sandbox that is called `try`, in which a server runs: its port.
fn serving(world: &World) -> (Started, u16) {
    let create = ["sandbox", "create", "--for", "10m", "--name", "try"];
    world.skep(&create).expect_code(0);
    let mut server = world.start(&["sandbox", "exec", "try", "--", "python3", "-c", SERVER]);
    let up = server.line(DEADLINE, |line| line.starts_with("up "));
    (server, up[3..].parse().unwrap())
}

fn forward(world: &World, more: &[&str]) -> (Started, Value) {
    let args = [&["sandbox", "--json", "forward", "try"], more].concat();
    let mut forward = world.start(&args);
    let line = forward.line(DEADLINE, |line| line.starts_with('{'));
    (forward, serde_json::from_str(&line).unwrap())
}

fn addresses(said: &Value) -> Vec<SocketAddr> {
    let all = said["forwards"][0]["addresses"].as_array().unwrap();
    let read = |it: &Value| it.as_str().unwrap().parse().unwrap();
    all.iter().map(read).collect()
}

/// What the server says of so many bytes.
fn says(at: SocketAddr, bytes: usize) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(&vec![b'x'; bytes])?;
    stream.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn a_port_of_a_sandbox_is_reached_on_both_loopbacks_until_either_ends() {
    let world = World::simple();
    let (server, port) = serving(&world);
    let (mut forwarded, said) = forward(&world, &[&format!("0:{port}")]);
    let at = addresses(&said);
    assert!(said["id"].as_str().unwrap().starts_with("x-"));
    assert_eq!(said["forwards"][0]["port"], port);
    assert!(at.iter().all(|at| at.ip().is_loopback() && at.port() != 0));
    for at in &at {
        assert_eq!(says(*at, 1_000_000).unwrap(), "heard 1000000", "{at}");
    }
    // The others wait for the server, and end without a word.
    let waiting: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(at[0]).unwrap())
        .collect();
    drop(waiting);
    assert_eq!(says(at[0], 3).unwrap(), "heard 3");
    forwarded.signal(Signal::INT);
    assert!(forwarded.ends_within(DEADLINE));
    forwarded.finish(DEADLINE).expect_code(130);
    assert!(TcpStream::connect(at[0]).is_err());

    let (ended, _) = forward(&world, &[&format!("0:{port}")]);
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    let ran = ended.finish(DEADLINE).expect_code(0);
    assert!(
        ran.stderr.contains("the sandbox has ended"),
        "{}",
        ran.stderr
    );
    drop(server);
    world.assert_nothing_left();
}

#[test]
fn where_nobody_listens_a_connection_breaks_and_the_reason_is_said_once() {
    let world = World::simple();
    let create = ["sandbox", "create", "--for", "10m", "--name", "try"];
    world.skep(&create).expect_code(0);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let in_use = ["sandbox", "forward", "try", &format!("{port}:80")];
    let said = world.skep(&in_use).expect_code(6).stderr;
    assert!(
        said.contains("listens at 127.0.0.1") && said.contains("`0:80`"),
        "{said}"
    );
    let (forwarded, said) = forward(&world, &["0:7"]);
    let at = addresses(&said);
    for _ in 0..3 {
        let broken = says(at[0], 1).unwrap_err();
        assert!(
            matches!(
                broken.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
            ),
            "{broken}"
        );
    }
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    let said = forwarded.finish(DEADLINE).expect_code(0).stderr;
    let why = "nothing listens on port 7 of the sandbox";
    assert_eq!(said.matches(why).count(), 1, "{said}");
    for wrong in [&["forward", "try", "x"][..], &["forward", "try", "1:0"]] {
        world.skep(&[&["sandbox"], wrong].concat()).expect_code(2);
    }
    world
        .skep(&["sandbox", "forward", "try", "0:7"])
        .expect_code(5);
}
