//! `skep sandbox forward`, `ssh` and `ssh-config`: what runs in a sandbox is reached, with the client of
//! SSH that people have.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use testkit::{Ran, Started};

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
fn more_connections_than_a_sandbox_takes_wait_for_a_place() {
    let world = World::simple();
    let (server, port) = serving(&world);
    let (forwarded, said) = forward(&world, &[&format!("0:{port}")]);
    let at = addresses(&said)[0];
    // All places are taken by those who say nothing, and end when the others have asked.
    let connect = || TcpStream::connect(at).unwrap();
    let idle: Vec<_> = (0..64).map(|_| connect()).collect();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = connect();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(b"more").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        })
        .collect();
    drop(idle);
    for mut stream in waiting {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "heard 4");
    }
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    let said = forwarded.finish(DEADLINE).expect_code(0).stderr;
    assert!(!said.contains("connection"), "{said}");
    drop(server);
    world.assert_nothing_left();
}

/// Takes 64 connections and reads nothing of them, until it has answered at its second port.
const DEAF: &str = "import socket
s, t = [socket.create_server(('127.0.0.1', 0), backlog=64) for _ in 'st']
print('up', s.getsockname()[1], t.getsockname()[1], flush=True)
held = [s.accept()[0] for _ in range(64)]
print('held', flush=True)
c, _ = t.accept()
c.sendall(b'here')
c.close()
for c in held:
    try: c.sendall(b'late')
    except OSError: pass
    c.close()
";

/// Connects 63 times, and closes all of them when it is told; of what is closed the kernel forgets after
/// a second, and not after its usual minute.
const LEAVES: &str = "import socket, sys
held = [socket.create_connection(('127.0.0.1', int(sys.argv[1]))) for _ in range(63)]
for s in held:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
    s.sendall(b'x')
";

/// A sandbox that is called `try`, in which that runs, and where its two ports are reached here.
fn deaf(world: &World) -> (Started, [u16; 2]) {
    let create = ["sandbox", "create", "--for", "10m", "--name", "try"];
    world.skep(&create).expect_code(0);
    let mut server = world.start(&["sandbox", "exec", "try", "--", "python3", "-c", DEAF]);
    let up = server.line(DEADLINE, |line| line.starts_with("up "));
    let mut ports = up[3..].split(' ').map(|port| port.parse().unwrap());
    let ports = [ports.next().unwrap(), ports.next().unwrap()];
    (server, ports)
}

fn read(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn connections_that_were_closed_here_make_room_also_where_the_inside_never_hears_of_it() {
    let world = World::simple();
    let (mut server, [port, other]) = deaf(&world);
    let (_forwarded, said) = forward(&world, &[&format!("0:{port}"), &format!("0:{other}")]);
    let at = |which: usize| -> SocketAddr {
        let address = said["forwards"][which]["addresses"][0].as_str();
        address.unwrap().parse().unwrap()
    };
    // It ends its own direction, and waits for what comes.
    let mut patient = TcpStream::connect(at(0)).unwrap();
    patient.set_read_timeout(Some(DEADLINE)).unwrap();
    patient.shutdown(Shutdown::Write).unwrap();
    let args = ["-c", LEAVES, &at(0).port().to_string()];
    let leaving = world.home.start("python3", args, world.repo.path());
    leaving.finish(DEADLINE).expect_code(0);
    server.line(DEADLINE, |line| line == "held");
    let mut other = TcpStream::connect(at(1)).unwrap();
    other.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(read(&mut other).unwrap(), "here");
    assert_eq!(read(&mut patient).unwrap(), "late");
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    drop(server);
    world.assert_nothing_left();
}

#[test]
fn a_second_program_that_forwards_waits_for_a_place_too() {
    let world = World::simple();
    let (mut server, [port, other]) = deaf(&world);
    let (first, said) = forward(&world, &[&format!("0:{port}")]);
    let at = addresses(&said)[0];
    let _idle: Vec<_> = (0..64).map(|_| TcpStream::connect(at).unwrap()).collect();
    server.line(DEADLINE, |line| line == "held");
    let (second, said) = forward(&world, &[&format!("0:{other}")]);
    let mut waits = TcpStream::connect(addresses(&said)[0]).unwrap();
    let a_while = Duration::from_secs(4);
    waits.set_read_timeout(Some(a_while)).unwrap();
    let early = read(&mut waits).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock, "{early}");
    drop(first);
    waits.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(read(&mut waits).unwrap(), "here");
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    let said = second.finish(DEADLINE).expect_code(0).stderr;
    assert!(!said.contains("connection"), "{said}");
    drop(server);
    world.assert_nothing_left();
}

// docs/bad-input.md: A port here that is in use, or that this user may not have
// docs/bad-input.md: A port of a sandbox where nobody listens
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

/// A sandbox that is called `try`, and a file for `ssh -F`.
fn with_ssh(world: &World) -> PathBuf {
    let create = ["sandbox", "create", "--for", "10m", "--name", "try"];
    world.skep(&create).expect_code(0);
    let lines = world.skep(&["sandbox", "ssh-config"]).expect_code(0).stdout;
    world.home.file("ssh_config", lines)
}

/// Runs the program of SSH that is asked for, with a shell's redirections around it.
fn shell(world: &World, script: &str) -> Ran {
    let script = script.replace("SSH ", "ssh -F \"$HOME/../ssh_config\" -o LogLevel=ERROR ");
    let started = world.home.start("sh", ["-c", &script], world.repo.path());
    started.finish(DEADLINE)
}

fn ssh(world: &World, command: &str) -> Ran {
    let config = world.home.root().join("ssh_config");
    let config = config.to_str().unwrap();
    let args = ["-F", config, "-o", "LogLevel=ERROR", "skep-try", command];
    let started = world.home.start("ssh", args, world.repo.path());
    started.finish(DEADLINE)
}

#[test]
fn commands_over_ssh_are_as_on_any_machine() {
    let world = World::simple();
    let config = with_ssh(&world);
    let ran = ssh(&world, "pwd; echo err >&2; exit 7").expect_code(7);
    assert!(ran.stdout.starts_with("/workspace/"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "err\n");
    ssh(&world, "kill -9 $$").expect_code(255);
    ssh(&world, "no-such-program").expect_code(127);
    // Both directions are full at once, and the input ends before the output does.
    let ran = shell(
        &world,
        "head -c 40000000 /dev/zero | SSH skep-try cat | wc -c",
    );
    assert_eq!(ran.stdout.trim(), "40000000", "{}", ran.stderr);
    let ran = shell(
        &world,
        "head -c 6000000 /dev/zero | SSH skep-try 'od -v' | wc -l",
    );
    assert_eq!(ran.stdout.trim(), "375001", "{}", ran.stderr);
    // The keys change on the way.
    let often = "head -c 20000000 /dev/zero | SSH -o RekeyLimit=1M skep-try cat | wc -c";
    assert_eq!(shell(&world, often).stdout.trim(), "20000000");
    // What nobody inside reads holds nothing up.
    let ran = shell(
        &world,
        "head -c 40000000 /dev/zero | SSH skep-try 'echo here'",
    );
    assert_eq!(ran.stdout, "here\n", "{}", ran.stderr);
    let variables =
        "LANG=C.UTF-9 SSH -o SendEnv=LANG -o SetEnv=SECRET=1 skep-try 'echo $LANG,$SECRET,$HOME'";
    let said = shell(&world, variables).stdout;
    assert_eq!(said, "C.UTF-9,,/home/agent\n");
    let said = shell(
        &world,
        "printf 'echo $((6*7))\\nexit 5\\n' | SSH -T skep-try",
    );
    assert_eq!(said.expect_code(5).stdout, "42\n");
    // What is started beside a command outlives it, as an editor's server must.
    let beside = ssh(&world, "nohup sleep 1000 >/dev/null 2>&1 & echo $!");
    let pid = beside.expect_code(0).stdout.trim().to_owned();
    ssh(&world, &format!("kill -0 {pid}")).expect_code(0);

    let mut runs = world.home.start(
        "ssh",
        [
            "-F",
            config.to_str().unwrap(),
            "skep-try",
            "echo $$; exec sleep 1000",
        ],
        world.repo.path(),
    );
    let pid = runs.line(DEADLINE, |_| true);
    runs.kill();
    // It ends with its client.
    let gone = format!("while kill -0 {pid} 2>/dev/null; do sleep 0.05; done");
    let wait = ["sandbox", "exec", "try", "--", "sh", "-c", &gone];
    world.skep(&wait).expect_code(0);

    let mut runs = world.home.start(
        "ssh",
        [
            "-F",
            config.to_str().unwrap(),
            "skep-try",
            "echo up; exec sleep 1000",
        ],
        world.repo.path(),
    );
    runs.line(DEADLINE, |line| line == "up");
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    runs.finish(DEADLINE).expect_code(255);
    let missing = ssh(&world, "true").expect_code(255);
    assert!(
        missing.stderr.contains("there is no sandbox `try`"),
        "{}",
        missing.stderr
    );
    world.assert_nothing_left();
}

#[test]
fn a_command_ends_where_nobody_reads_its_output_any_more() {
    let world = World::simple();
    let create = ["sandbox", "create", "--for", "10m", "--name", "try"];
    world.skep(&create).expect_code(0);
    let program = env!("CARGO_BIN_EXE_skep");
    let script = format!("'{program}' sandbox exec try -- yes | head -1");
    assert_eq!(shell(&world, &script).expect_code(0).stdout, "y\n");
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

/// Runs a command at a terminal of 30 lines, waits until it has said "up", makes the terminal one of 40
/// lines, and prints what came.
const RESIZE: &str = "import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 30, 100, 0, 0))
came, resized = b'', False
while True:
    try: part = os.read(fd, 4096)
    except OSError: break
    if not part: break
    came += part
    if b'up' in came and not resized:
        resized = True
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 120, 0, 0))
_, status = os.waitpid(pid, 0)
print(came.decode(), os.waitstatus_to_exitcode(status))
";

#[test]
fn a_terminal_over_ssh_has_the_size_of_the_persons_and_changes_with_it() {
    let world = World::simple();
    let config = with_ssh(&world);
    let command = "trap 'stty size; exit 3' WINCH; tty; echo up; while :; do sleep 0.05; done";
    let args = ["-c", RESIZE, "ssh", "-F", config.to_str().unwrap()];
    let args = [&args[..], &["-t", "skep-try", command]].concat();
    let ran = world.home.start("python3", args, world.repo.path());
    let said = ran.finish(DEADLINE).expect_code(0).stdout;
    assert!(said.contains("/dev/pts/"), "{said}");
    assert!(
        said.contains("40 120\r\n") && said.trim().ends_with(" 3"),
        "{said}"
    );
    let typed = "printf 'stty size; exit 4\\n' | TERM=dumb SSH -tt skep-try";
    let said = shell(&world, typed).expect_code(4).stdout;
    assert!(said.contains("24 80") && said.contains("(skep)"), "{said}");
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn over_ssh_ports_inside_are_reached_and_nothing_else_is_opened() {
    let world = World::simple();
    let (server, port) = serving(&world);
    let lines = world.skep(&["sandbox", "--json", "ssh-config", "try"]);
    let told = lines.expect_code(0).json_lines().remove(0);
    assert_eq!(told["hosts"][1], "skep-try");
    world
        .home
        .file("ssh_config", told["text"].as_str().unwrap());
    let through = |target: &str, more: &str| {
        let script = format!("printf 12345 | SSH {more} -W {target} skep-try");
        shell(&world, &script)
    };
    let ran = through(&format!("localhost:{port}"), "");
    assert_eq!(ran.expect_code(0).stdout, "heard 5");
    let of_the_host = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = of_the_host.local_addr().unwrap().port();
    for target in [format!("127.0.0.1:{other}"), format!("192.0.2.1:{port}")] {
        let ran = through(&target, "");
        assert_ne!(ran.status.code(), Some(0), "{target}");
        assert!(ran.stdout.is_empty(), "{target}");
    }
    let back = "SSH -o ExitOnForwardFailure=yes -R 0:localhost:1 skep-try true";
    assert_ne!(shell(&world, back).status.code(), Some(0));
    let agent = "eval $(ssh-agent) >/dev/null; SSH -A skep-try 'echo \"$SSH_AUTH_SOCK\"'; ssh-agent -k >/dev/null";
    assert_eq!(shell(&world, agent).stdout, "\n");
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    drop(server);
    world.assert_nothing_left();
}

#[test]
fn files_are_copied_over_ssh_and_stay_inside() {
    let world = World::simple();
    with_ssh(&world);
    let copy =
        "set -e; head -c 3000000 /dev/urandom > large; mkdir -p tree/sub; echo one > tree/sub/file
        scp -O -q -F \"$HOME/../ssh_config\" -r large tree skep-try:
        scp -O -q -F \"$HOME/../ssh_config\" skep-try:large again
        cmp large again; rm -rf again large
        rsync -e 'ssh -F '\"$HOME/../ssh_config\" -a tree/ skep-try:synced/
        rsync -e 'ssh -F '\"$HOME/../ssh_config\" -a skep-try:synced/ back/
        scp -q -F \"$HOME/../ssh_config\" skep-try:large again; scp -q -F \"$HOME/../ssh_config\" again skep-try:third
        echo 'get third' | sftp -q -b - -F \"$HOME/../ssh_config\" skep-try >/dev/null; cmp again third
        cat back/sub/file";
    let ran = shell(&world, copy).expect_code(0);
    assert_eq!(ran.stdout, "one\n");
    let ran = ssh(&world, "stat -c %s large; cat tree/sub/file").expect_code(0);
    assert_eq!(ran.stdout, "3000000\none\n");
    let ran = ssh(&world, "ls -l large | cut -c1").expect_code(0);
    assert_eq!(ran.stdout, "-\n");
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn over_one_connection_any_number_of_commands_can_be_run_in_turn() {
    let world = World::simple();
    with_ssh(&world);
    // More than there may be at a time.
    let script = "SSH -M -N -f -o ControlPath=master skep-try
        for n in $(seq 70); do SSH -o ControlPath=master skep-try \"echo $n\" || echo failed; done
        SSH -o ControlPath=master -O exit skep-try";
    let ran = shell(&world, script);
    let all: String = (1..=70).map(|n| format!("{n}\n")).collect();
    assert_eq!(ran.stdout, all, "{}", ran.stderr);
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

// docs/bad-input.md: `skep sandbox ssh` at a terminal
#[test]
fn a_person_at_a_terminal_is_told_what_ssh_is_for() {
    let world = World::simple();
    let typed = format!(
        "script -qec '{} sandbox ssh try' /dev/null",
        env!("CARGO_BIN_EXE_skep")
    );
    let ran = shell(&world, &typed);
    assert_eq!(ran.status.code(), Some(6));
    assert!(
        ran.stdout.contains("skep sandbox ssh-config"),
        "{}",
        ran.stdout
    );
    let keys = fs::metadata(world.data().join("ssh"));
    assert!(keys.is_err(), "no key is made before it is needed");
}
