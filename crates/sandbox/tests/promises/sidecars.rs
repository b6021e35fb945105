//! Containers beside a sandbox's: what they share with it, what they cannot, and how they end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use skep_sandbox::container::{Hidden, Options, Ready, Sidecar, When};
use skep_sandbox::{Backend, Container, Enforcement, Limits};
use testkit::{Docker, Home, Image, Podman};

use crate::contained::{KIND, SIDECAR};
use crate::room::{PATIENCE, Room, is_root, spec};

/// How long all that runs in one engine may take.
const ALL: Duration = Duration::from_secs(300);
const NAME: &str = "localhost/skep-beside:latest";
const PROGRAMS: [&str; 11] = [
    "sh", "cat", "grep", "id", "ls", "perl", "readlink", "sleep", "touch", "true", "unshare",
];
pub(crate) const PORT: u16 = 7432;
pub(crate) const SECRET: &str = "hush-7c1f";
/// Serves the loopback, one word for each connection.
const SERVE: &str = "socket(S,2,1,0)||die; setsockopt(S,1,2,1); bind(S,pack('S n C4 x8',2,7432,127,0,0,1))||die \"$!\"; \
    listen(S,9); $|=1; print \"serving\\n\"; while(accept(C,S)){print C \"served\\n\"; close C}";

pub(crate) fn sidecar<const N: usize>(command: [&str; N], ready: Option<When>) -> Sidecar {
    Sidecar {
        name: "db".into(),
        image: NAME.into(),
        user: None,
        command: command.map(str::to_owned).into(),
        env: vec![("TOKEN".into(), Hidden::new(SECRET))],
        writable: Vec::new(),
        ready: ready.map(|when| Ready {
            when,
            within: PATIENCE,
        }),
        limits: Limits {
            memory_bytes: Some(256 << 20),
            processes: Some(50),
            ..Limits::default()
        },
    }
}

/// One that serves.
pub(crate) fn server(image: &str) -> Sidecar {
    Sidecar {
        image: image.to_owned(),
        ..sidecar(["perl", "-e", SERVE], Some(When::Port(PORT)))
    }
}

pub(crate) fn beside(sidecars: Vec<Sidecar>) -> Container {
    Container::new(Options {
        engine: crate::contained::engine(),
        sidecars,
        ..Options::default()
    })
}

fn ask() -> String {
    format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{PORT}; cat <&3'")
}

/// Runs ignored tests of this module, as whoever runs programs in that home.
pub(crate) fn run(home: Home, test: &str) {
    let podman = Podman::new(home);
    Image::of(PROGRAMS)
        .change("ENV OF=image")
        .change("VOLUME /data")
        .import(&podman, NAME);
    podman.run_tests(["--exact", test, "--ignored"], ALL);
    podman.assert_nothing_left();
}

#[test]
fn sidecars_of_docker_keep_every_promise_too() {
    let docker = Docker::start(Home::new());
    Image::of(PROGRAMS)
        .change("ENV OF=image")
        .change("VOLUME /data")
        .import_to_docker(&docker, NAME);
    let args = [
        "--test-threads=1",
        "--ignored",
        "sidecars::a_server_is_reached",
        "sidecars::what_a_sidecar_has",
        "unready::sidecars_that_are_not_ready",
        "unready::several_that_fail",
        "unready::killed_for_memory",
    ];
    docker.run_tests(args, ALL);
    docker.assert_nothing_left();
}

#[test]
fn a_server_beside_a_sandbox_is_reached_from_inside_and_is_gone_with_it() {
    run(Home::new(), "sidecars::a_server_is_reached");
}

#[test]
fn a_server_beside_a_sandbox_of_an_ordinary_user_is_reached_too() {
    run(Home::new().as_user(65534), "sidecars::a_server_is_reached");
}

#[tokio::test]
#[ignore = "run by another test, which makes its image"]
async fn a_server_is_reached() {
    let room = Room::of(&beside(vec![server(NAME)]), |_| {}).await;
    assert_eq!(room.says(&ask()).await, "served");
    let listed = crate::contained::engines_program()
        .args(["ps", "--format", "{{.Labels}}"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.matches("skep.owner").count(), 2, "{listed}");
    let diagnosis = room.sandbox.diagnose().await;
    let [db] = diagnosis.sidecars.as_slice() else {
        panic!("{diagnosis:?}")
    };
    assert_eq!((db.name.as_str(), db.image.as_str()), ("db", NAME));
    assert!(db.alive && db.exit.is_none() && db.trouble.is_none());
    assert!(db.health.ready && db.health.since > 0);
    // Podman without root sets no limits where control groups are of version 1, and that is said.
    match db.limits_in_force {
        Enforcement::None => assert!(!is_root()),
        _ => assert!(db.memory_bytes.is_some() && db.out_of_memory_kills == Some(0)),
    }
    assert_eq!(db.output, ["serving"]);
    let place = tempfile::tempdir().unwrap();
    let findings = beside(vec![server(NAME)]).probe(place.path()).await;
    let limits = findings.iter().find(|it| it.name == "limits of sidecars");
    let in_force = db.limits_in_force != Enforcement::None;
    assert_eq!(limits.unwrap().ok, in_force, "{limits:?}");
    room.sandbox.destroy().await.unwrap();
    let left = crate::contained::engines_program()
        .args(["ps", "--all", "--quiet"])
        .output()
        .unwrap();
    assert_eq!(left.stdout, b"");
}

#[test]
fn a_sidecar_has_no_network_no_capability_and_no_workspace_and_writes_in_memory_only() {
    run(Home::new(), "sidecars::what_a_sidecar_has");
}

#[tokio::test]
#[ignore = "run by another test, which makes its image"]
async fn what_a_sidecar_has() {
    let place = crate::room::directories();
    let secret = place.path().join("workspace/in-the-workspace");
    fs::write(&secret, "").unwrap();
    let script = format!(
        "exec 2>&1
         grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status
         cat /proc/net/route | grep -vc Iface
         grep -c : /proc/net/dev; grep -c lo: /proc/net/dev
         ls -d {} /workspace /.skep-host /run/secrets/*
         for at in / /usr /etc /.skep; do touch $at/x; done
         for at in /tmp /run /var/tmp /dev/shm /data /cache; do touch $at/x && echo wrote; done
         echo $OF $TOKEN $HOME
         cat /proc/1/environ; for fd in /proc/1/fd/*; do readlink $fd && echo seen; done
         unshare -Ur true && echo got a namespace
         test -e /.skep/socket && echo got a way to the owner
         perl -e 'exit(syscall({socket}, 40, 1, 0) < 0)' && echo got a socket of another kind
         perl -e 'exit(syscall({socket}, 17, 3, 0) < 0)' && echo got a socket of another kind
         echo names; cat /etc/hosts /etc/resolv.conf
         touch /tmp/done; sleep 1000",
        secret.display(),
        socket = libc::SYS_socket,
    );
    let mut one = sidecar(["sh", "-c", &script], None);
    let done = ["sh", "-c", "test -e /tmp/done"].map(str::to_owned);
    one.ready = Some(Ready {
        when: When::Command(done.into()),
        within: PATIENCE,
    });
    one.writable = vec!["/cache".into()];
    let sandbox = beside(vec![one]).create(spec(place.path())).await.unwrap();
    let said = sandbox.diagnose().await.sidecars.remove(0).output;
    for line in &said[..6] {
        let (name, value) = line.split_once(':').unwrap();
        let expected = match name {
            "NoNewPrivs" => "1",
            "Seccomp" => "2",
            _ => "0000000000000000",
        };
        assert_eq!(value.trim(), expected, "{name}");
    }
    let rest = said[6..].join("\n");
    assert!(
        rest.starts_with("0\n1\n1\n"),
        "only a loopback, and no route: {rest}"
    );
    assert_eq!(rest.matches("wrote").count(), 6, "{rest}");
    assert!(
        rest.contains("unshare: ") && !rest.contains("got a"),
        "{rest}"
    );
    for refused in [
        "/x'",
        "in-the-workspace",
        "'/workspace'",
        "'/.skep-host'",
        "/proc/1/environ",
    ] {
        let told = said
            .iter()
            .any(|line| line.contains(refused) && line.contains(": "));
        assert!(told, "{refused}: {rest}");
    }
    assert_eq!(rest.matches("Read-only file system").count(), 3, "{rest}");
    assert!(rest.contains("image [hidden] /tmp"), "{rest}");
    // What it knows of names is nothing of the machine's.
    let names = rest.split_once("names\n").unwrap().1;
    let names: Vec<&str> = names.split_whitespace().collect();
    assert_eq!(
        names,
        ["127.0.0.1", "localhost", "skep", "::1", "localhost"]
    );
    assert!(!rest.contains(SECRET) && !rest.contains("seen"), "{rest}");
    // Nor does anybody see the value outside.
    for container in crate::contained::containers() {
        let shown = crate::contained::engines_program()
            .args(["inspect", &container])
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("skep.owner") && !shown.contains(SECRET));
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(SECRET));
    }
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
#[ignore = "the owner that another test kills"]
async fn an_owner_with_a_sidecar_that_waits() {
    crate::ends::own(&beside(vec![server(NAME)])).await;
}

#[test]
fn a_killed_owner_takes_its_sidecars_along() {
    let podman = Podman::new(Home::new());
    Image::of(PROGRAMS).import(&podman, NAME);
    let owner = "sidecars::an_owner_with_a_sidecar_that_waits";
    crate::ends::killed_owner(&mut crate::contained::test(&podman, owner), || {
        assert_eq!(podman.containers().len(), 2);
    });
    podman.assert_nothing_left();
}

#[test]
fn with_a_sidecar_there_is_no_address_but_the_loopback_either() {
    let home = Home::new().env(KIND, "container").env(SIDECAR, NAME);
    let podman = Podman::new(home);
    Image::of(PROGRAMS).import(&podman, NAME);
    let args = [
        "--test-threads=2",
        "rooms_are",
        "network::",
        "system_calls::calls_that_reach_out",
        "sidecars::it_is_reached_here",
        "--include-ignored",
        // A sidecar listens there.
        "--skip",
        "without_a_channel_nothing_listens",
    ];
    podman.run_tests(args, ALL);
    crate::addresses::none_is_reached(podman.home());
    podman.assert_nothing_left();
}

#[tokio::test]
#[ignore = "run by another test, which has a sidecar"]
async fn it_is_reached_here() {
    let room = Room::new().await;
    assert_eq!(room.says(&ask()).await, "served");
    assert!(!Path::new("/proc/self/root/.skep").exists());
}
