//! The network inside: a loopback of its own, and one channel.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};

use crate::room::{Room, succeeds_outside};

#[tokio::test]
async fn the_channel_accepts_what_is_connected_inside() {
    let room = Room::with(|spec| spec.channel_port = Some(0)).await;
    let channel = room.sandbox.take_channel().unwrap();
    assert!(
        room.sandbox.take_channel().is_none(),
        "it is handed out once"
    );
    let port = channel.port;
    let outside = std::thread::spawn(move || {
        let (stream, _) = channel.listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream)
            .write_all(format!("you said {line}").as_bytes())
            .unwrap();
    });
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; cat <&3");
    let output = room.run(room.command(["/bin/bash", "-c", &script])).await;
    assert_eq!(
        output.stdout.text(),
        "you said hello\n",
        "{}",
        output.stderr.text()
    );
    outside.join().unwrap();
    // The port is not one of the host.
    assert!(!succeeds_outside(&format!(
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'"
    )));
}

#[tokio::test]
async fn the_channel_takes_the_port_that_is_asked_for() {
    let room = Room::with(|spec| spec.channel_port = Some(8319)).await;
    assert_eq!(room.sandbox.take_channel().unwrap().port, 8319);
}

#[tokio::test]
async fn without_a_channel_nothing_listens() {
    let room = Room::new().await;
    assert!(room.sandbox.take_channel().is_none());
    assert_eq!(room.says("tail -n +2 /proc/net/tcp | wc -l").await, "0");
}

#[tokio::test]
async fn the_hosts_loopback_is_another_one() {
    let room = Room::new().await;
    let (mut ways, mut servers) = (Vec::new(), Vec::new());
    for address in ["127.0.0.1", "::1"] {
        // A container may have no version 6.
        let Ok(listener) = TcpListener::bind((address, 0)) else {
            assert_eq!(address, "::1");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        ways.push(format!("exec 3<>/dev/tcp/{address}/{port}"));
        let socket = UdpSocket::bind((address, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        ways.push(format!(
            "exec 3<>/dev/udp/{address}/{port} && echo ask >&3 && read -r -n 1 -t 20 -u 3"
        ));
        let answering = socket.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let mut asked = [0; 8];
            while let (4, peer) = answering.recv_from(&mut asked).unwrap() {
                answering.send_to(b"yes\n", peer).unwrap();
            }
        });
        servers.push((listener, socket, thread));
    }
    for way in ways {
        let script = format!("bash -c '{way}'");
        assert!(succeeds_outside(&script), "{script}");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
    for (_, socket, thread) in servers {
        // What is no question ends it.
        socket.send_to(b"", socket.local_addr().unwrap()).unwrap();
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn there_is_no_interface_but_the_loopback_and_no_route() {
    let room = Room::new().await;
    assert_eq!(
        room.says("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")
            .await,
        "lo"
    );
    assert_eq!(room.says("tail -n +2 /proc/net/route").await, "");
    assert_eq!(room.says("cat /etc/resolv.conf").await, "");
    assert!(!room.sh("getent hosts example.org").await.exit.success());
    assert!(
        !room
            .sh("bash -c 'echo > /dev/udp/192.0.2.1/53'")
            .await
            .exit
            .success()
    );
    assert_eq!(room.says("getent hosts localhost | wc -l").await, "1");
}

#[tokio::test]
async fn abstract_sockets_of_the_host_are_not_there() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let room = Room::new().await;
    let name = format!("skep-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    for script in [
        format!("grep -q @{name} /proc/net/unix"),
        format!(
            "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"\\0{name}\")'"
        ),
    ] {
        assert!(succeeds_outside(&script), "{script}");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
}

#[tokio::test]
async fn servers_and_clients_inside_find_each_other() {
    let room = Room::new().await;
    let script = "node -e 'const s = require(\"net\").createServer(c => c.end(\"served\")).listen(0, \"localhost\", () => require(\"net\").connect(s.address().port, \"localhost\").on(\"data\", d => { console.log(String(d)); s.close() }))'";
    assert_eq!(room.says(script).await, "served");
    assert_eq!(
        room.says("node -p 'Object.keys(require(\"os\").networkInterfaces()).join()'")
            .await,
        "lo"
    );
}
