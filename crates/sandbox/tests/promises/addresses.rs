//! Addresses beyond the sandbox: of the network, of the cloud's metadata, of version 6, of a server for
//! names.
//!
//! The tests must not change the host's network, and not depend on it. So the owner runs in a network
//! of its own in which all of these addresses answer: each is first seen to do so outside the sandbox.

use testkit::Home;

use crate::room::{Room, is_root};

/// Gives the loopback of a new network addresses as a host may have them, and executes what follows.
const SETTLE: &str = r#"
import fcntl, os, socket, struct, sys
try:
    # Who has no rights over this network serves low ports all the same.
    with open('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'w') as ports: ports.write('0')
except OSError: pass
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def v4(name, address):
    request = struct.pack('16sH2x4s8x', name, socket.AF_INET, socket.inet_aton(address))
    fcntl.ioctl(four, 0x8916, request)
def up(name):
    fcntl.ioctl(four, 0x8914, struct.pack('16sH14x', name, 0x49))
up(b'lo')
v4(b'lo:1', '169.254.169.254')
v4(b'lo:2', '192.168.7.7')
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
fcntl.ioctl(six, 0x8916, struct.pack('16sIi', socket.inet_pton(socket.AF_INET6, 'fd00::7'), 128, 1))
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// Serves every address by TCP and UDP, says so, and ends with its input.
const SERVE: &str = r#"
import socket, sys, threading
def tcp(family, address, port):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port)); s.listen()
    def run():
        while True: s.accept()[0].sendall(b'x')
    threading.Thread(target=run, daemon=True).start()
def udp(family, address, port):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((address, port))
    def run():
        while True:
            _, peer = s.recvfrom(512); s.sendto(b'x', peer)
    threading.Thread(target=run, daemon=True).start()
for family, address in ((socket.AF_INET, '169.254.169.254'), (socket.AF_INET, '192.168.7.7'),
                        (socket.AF_INET6, 'fd00::7')):
    for port in (53, 80):
        tcp(family, address, port); udp(family, address, port)
print('up', flush=True)
sys.stdin.read()
"#;

/// Asks every address, and prints for each what became of it. Nothing is waited for in vain.
const ASK: &str = r#"
import errno, socket, time
began = time.monotonic()
for family, address in ((socket.AF_INET, '169.254.169.254'), (socket.AF_INET, '192.168.7.7'),
                        (socket.AF_INET6, 'fd00::7'), (socket.AF_INET6, '::ffff:192.168.7.7')):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for port in (53, 80):
            s = socket.socket(family, kind)
            s.settimeout(20)
            try:
                s.connect((address, port)); s.send(b'?'); s.recv(1)
                print('answered')
            except OSError as e:
                print(errno.errorcode.get(e.errno, 'no answer'))
print('at once' if time.monotonic() - began < 10 else 'late')
"#;

#[tokio::test]
#[ignore = "the owner in a network of its own, for another test"]
async fn an_owner_in_a_network_with_many_addresses() {
    let python = "/usr/bin/python3";
    let mut server = std::process::Command::new(python)
        .args(["-c", SERVE])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(server.stdout.as_mut().unwrap(), &mut up).unwrap();
    let outside = std::process::Command::new(python)
        .args(["-c", ASK])
        .output()
        .unwrap();
    let outside = String::from_utf8(outside.stdout).unwrap();
    assert_eq!(outside, "answered\n".repeat(16) + "at once\n");

    let room = Room::new().await;
    let inside = room.run(room.command([python, "-c", ASK])).await;
    // Engines may leave out version 6 altogether.
    let inside = inside.stdout.text().replace("EADDRNOTAVAIL", "ENETUNREACH");
    assert_eq!(inside, "ENETUNREACH\n".repeat(16) + "at once\n");
    // Names are not asked for anywhere either, and that too is known at once.
    let named = room.sh("getent ahosts skep.example").await.exit;
    assert!(!named.success() && !named.timed_out, "{named:?}");
    drop(server.stdin.take());
    server.wait().unwrap();
    println!("all of it was refused");
}

/// Asserts that none is reached by what an owner in this home makes.
pub(crate) fn none_is_reached(home: &Home) {
    let owner = home.this_program();
    let mut command = std::process::Command::new("/usr/bin/unshare");
    if !is_root() || !crate::room::succeeds_outside("unshare --net true") {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--", "/usr/bin/python3", "-c", SETTLE]);
    if let Some(user) = home.user() {
        // Only then: who makes a network has rights over it.
        command.args(["/usr/bin/setpriv", "--clear-groups", "--inh-caps=-all"]);
        command.arg(format!("--reuid={user}"));
        command.arg(format!("--regid={user}"));
    }
    let variables = owner.get_envs().filter_map(|(name, it)| Some((name, it?)));
    let output = command
        .arg(owner.get_program())
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("addresses::an_owner_in_a_network_with_many_addresses")
        .env_clear()
        .envs(variables)
        .current_dir(home.home())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let refused = output.status.success() && said.contains("all of it was refused");
    assert!(refused, "{said}\n{errors}");
}

#[test]
fn no_address_of_the_network_of_the_metadata_or_for_names_is_reached() {
    none_is_reached(&Home::new());
}
