//! The same promises in a container, with an engine of the tests' own; and what is a container's alone.

use std::fs;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use skep_sandbox::container::{Choice, Options};
use skep_sandbox::{Backend, Container, Error, Namespace, Spec, Total, Trouble, Workspace};
use testkit::{Docker, Home, Podman, leaks};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Names the kind that rooms are of, where it is another one.
pub(crate) const KIND: &str = "SKEP_TEST_KIND";
/// Names the image whose root containers have, where they have one.
pub(crate) const IMAGE: &str = "SKEP_TEST_IMAGE";

/// The kind of a room of which nothing else is said.
pub(crate) fn kind() -> Arc<dyn Backend> {
    static CONTAINER: OnceLock<Arc<dyn Backend>> = OnceLock::new();
    if std::env::var_os(KIND).is_none_or(|kind| kind != "container") {
        return Arc::new(Namespace::new());
    }
    Arc::clone(CONTAINER.get_or_init(|| Arc::new(container())))
}

/// The engine that a test has made for this program; the machine's own is not it.
pub(crate) fn engine() -> Choice {
    match is_docker() {
        true => Choice::Found,
        false => Choice::Podman(Vec::new()),
    }
}

fn is_docker() -> bool {
    std::env::var_os("DOCKER_HOST").is_some()
}

/// Its own program, for questions.
pub(crate) fn engines_program() -> Command {
    Command::new(if is_docker() { "docker" } else { "podman" })
}

fn container() -> Container {
    Container::new(Options {
        engine: engine(),
        image: std::env::var(IMAGE).ok(),
        sidecars: std::env::var(SIDECAR)
            .map(|image| vec![crate::sidecars::server(&image)])
            .unwrap_or_default(),
        ..Options::default()
    })
}

/// Beside each container is one that serves, where this is set: the image of that.
pub(crate) const SIDECAR: &str = "SKEP_TEST_SIDECAR";

/// What is promised of a seal.
const SEAL: [&str; 14] = [
    "--test-threads=2",
    "rooms_are",
    "seal::",
    "escapes::",
    "extras::",
    "network::",
    "layers::",
    "system_calls::",
    "limits::",
    "terminal::",
    "workspaces::writes_land",
    // These are of the other kind alone.
    "--skip",
    "without_control_groups",
    "--skip=limits::what_all_sandboxes",
];

/// The containers that this program's engine has.
pub(crate) fn containers() -> Vec<String> {
    let listed = engines_program()
        .args(["ps", "--all", "--no-trunc", "--format", "{{.ID}}"])
        .output()
        .unwrap();
    let ids = String::from_utf8(listed.stdout).unwrap();
    ids.lines().map(str::to_owned).collect()
}

/// As whoever runs programs in that home.
fn all_of_the_seal_holds(home: Home) {
    let podman = Podman::new(home.env(KIND, "container"));
    podman.run_tests(SEAL, PATIENCE);
    podman.assert_nothing_left();
}

#[test]
fn all_of_the_seal_holds_in_a_container_too() {
    all_of_the_seal_holds(Home::new());
}

#[test]
fn all_of_the_seal_holds_in_a_container_of_an_ordinary_user() {
    all_of_the_seal_holds(Home::new().as_user(65534));
}

#[test]
fn all_of_the_seal_holds_in_a_container_of_docker() {
    let docker = Docker::start(Home::new().env(KIND, "container"));
    docker.run_tests(SEAL, PATIENCE);
    docker.assert_nothing_left();
}

/// As whoever runs programs in that home.
fn no_address_is_reached(home: Home) {
    let podman = Podman::new(home.env(KIND, "container"));
    crate::addresses::none_is_reached(podman.home());
    podman.assert_nothing_left();
}

#[test]
fn no_address_is_reached_from_a_container_either() {
    no_address_is_reached(Home::new());
}

#[test]
fn no_address_is_reached_from_a_container_of_an_ordinary_user_either() {
    no_address_is_reached(Home::new().as_user(65534));
}

#[test]
fn no_address_is_reached_from_a_container_of_docker_either() {
    let docker = Docker::start(Home::new().env(KIND, "container"));
    crate::addresses::none_is_reached(docker.home());
    docker.assert_nothing_left();
}

/// Without it, Podman hides parts of `/proc`, and the kernel lets nobody in the container mount one.
const UNMASKED: &str = "--security-opt=unmask=ALL";

/// Tests of the kind `namespace` for whoever works in a container himself, as that user.
fn holds_within<const N: usize>(user: &str, more: &[&str], args: [&str; N]) {
    let podman = Podman::new(Home::new());
    // The engine lets nobody in a container give it another name.
    let options = [
        "--network=none",
        "--hostname=skep",
        UNMASKED,
        "--user",
        user,
    ];
    let options: Vec<&str> = options.iter().chain(more).copied().collect();
    let ran = podman.run_inside(&options, args, PATIENCE);
    assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
    podman.assert_nothing_left();
}

fn all_of_the_seal_holds_within(user: &str) {
    let args = [
        "--test-threads=2",
        "seal::",
        "escapes::",
        "network::",
        "layers::",
        "terminal::",
        "addresses::",
        "workspaces::writes_land",
    ];
    holds_within(user, &[], args);
    let bombs = [
        // What multiplies takes processes that others in the container need.
        "--test-threads=1",
        "limits::",
        // The control groups of a container are the engine's.
        "--skip=limits::processor_time",
        "--skip=limits::what_all_sandboxes",
        "--skip=limits::what_is_in_force",
    ];
    holds_within(user, &[], bombs);
    // So that all of these calls work outside, the engine's own walls are away.
    let bare = ["--cap-add=ALL", "--security-opt=seccomp=unconfined"];
    holds_within(user, &bare, ["system_calls::"]);
}

#[test]
fn all_of_the_seal_of_namespaces_holds_within_a_container_too() {
    all_of_the_seal_holds_within("0");
}

#[test]
fn all_of_the_seal_of_namespaces_holds_for_an_ordinary_user_of_a_container_too() {
    all_of_the_seal_holds_within("65534");
}

#[tokio::test]
async fn rooms_are_of_the_kind_that_was_asked_for() {
    let asked = kind().kind();
    let room = crate::room::Room::new().await;
    assert_eq!(room.sandbox.kind(), asked);
    assert_eq!(room.sandbox.diagnose().await.kind, asked);
}

/// An ignored test of this program, in a process of its own with that Podman.
pub(crate) fn test(podman: &Podman, name: &str) -> Command {
    let mut command = podman.this_program();
    command.args(["--exact", name, "--ignored", "--nocapture"]);
    command
}

#[tokio::test]
#[ignore = "the owner that another test kills"]
async fn an_owner_of_a_container_that_waits() {
    crate::ends::own(&container()).await;
}

#[tokio::test]
#[ignore = "a process that sweeps, for another test"]
async fn a_sandbox_that_comes_later() {
    let place = tempfile::tempdir().unwrap();
    let workspace = Workspace::Directory(place.path().to_owned());
    let sandbox = container().create(Spec::new(workspace)).await.unwrap();
    sandbox.destroy().await.unwrap();
}

/// What is left in the directory for temporary files.
fn places(podman: &Podman) -> Vec<String> {
    let entries = fs::read_dir(podman.root().join("tmp")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("skep-")).collect()
}

#[test]
fn a_killed_owner_takes_its_container_along() {
    let podman = Podman::new(Home::new());
    let owner = "contained::an_owner_of_a_container_that_waits";
    crate::ends::killed_owner(&mut test(&podman, owner), || {
        assert_eq!(podman.containers().len(), 1);
    });
    podman.wait_until_quiet();
    assert_eq!(podman.containers(), Vec::<String>::new());
    assert_eq!(places(&podman).len(), 1);
    let later = "contained::a_sandbox_that_comes_later";
    assert!(test(&podman, later).status().unwrap().success());
    assert_eq!(places(&podman), Vec::<String>::new());
}

#[test]
fn a_container_that_nobody_could_remove_is_removed_by_the_next_owner() {
    let podman = Podman::new(Home::new());
    let owner = "contained::an_owner_of_a_container_that_waits";
    crate::ends::killed_owner(&mut test(&podman, owner), || {
        // Whoever would clear it away at its end.
        for process in leaks::processes_of(podman.root()) {
            if process.command.contains("conmon") {
                kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL).unwrap();
            }
        }
    });
    podman.wait_until_quiet();
    assert_eq!(podman.containers().len(), 1);
    let later = "contained::a_sandbox_that_comes_later";
    assert!(test(&podman, later).status().unwrap().success());
    assert_eq!(podman.containers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_named_with_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let backend = Container::new(Options {
        engine: Choice::Socket(place.path().join("engine.sock")),
        ..Options::default()
    });
    let workspace = Workspace::Directory(place.path().to_owned());
    let refused = backend.create(Spec::new(workspace)).await.err().unwrap();
    assert_eq!(
        Trouble::of_error(&refused),
        Some(Trouble::EngineUnreachable)
    );
    let said = refused.to_string();
    assert!(
        said.contains("engine.sock") && said.contains("start the engine"),
        "{said}"
    );
    assert!(matches!(refused, Error::Engine { .. }));
    let findings = backend.probe(place.path()).await;
    assert_eq!(findings.len(), 1);
    assert!(!findings[0].ok && !findings[0].optional && findings[0].remedy.is_some());
}

#[tokio::test]
async fn an_engine_that_says_nothing_is_waited_for_some_seconds_and_no_more() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("mute.sock");
    let _mute = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let backend = Container::new(Options {
        engine: Choice::Socket(socket),
        ..Options::default()
    });
    let began = std::time::Instant::now();
    let findings = backend.probe(place.path()).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    let [found] = findings.as_slice() else {
        panic!("it is said once: {findings:?}")
    };
    assert_eq!(found.detail.matches("mute.sock").count(), 1, "{found:?}");
    let remedy = found.remedy.as_deref().unwrap();
    assert!(!found.ok && !found.detail.contains(remedy), "{found:?}");
}

#[test]
fn a_sandbox_whose_engine_was_killed_is_gone_in_a_few_seconds() {
    let podman = Podman::new(Home::new());
    let test = "contained::the_engine_of_a_sandbox_is_killed";
    podman.run_tests(["--exact", test, "--ignored"], PATIENCE);
    podman.assert_nothing_left();
}

#[tokio::test]
#[ignore = "run by another test, which has an engine"]
async fn the_engine_of_a_sandbox_is_killed() {
    let room = crate::room::Room::of(&container(), |_| {}).await;
    let own = std::process::id();
    let children = format!("/proc/{own}/task");
    let mut killed = 0;
    for thread in fs::read_dir(children).unwrap().flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if line.contains("podman") && line.contains("service") {
                let pid = Pid::from_raw(child.parse().unwrap()).unwrap();
                kill_process(pid, Signal::KILL).unwrap();
                killed += 1;
            }
        }
    }
    assert_eq!(killed, 1, "the service is a child of this process");
    assert_eq!(room.says("echo on").await, "on", "the engine is not needed");
    let began = std::time::Instant::now();
    room.sandbox.destroy().await.unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(containers(), Vec::<String>::new());
}

#[test]
fn what_all_containers_use_together_is_bounded_where_the_engine_can_be_told() {
    let podman = Podman::new(Home::new());
    let test = "contained::containers_with_a_bound_for_all";
    podman.run_tests(["--exact", test, "--ignored"], PATIENCE);
    podman.assert_nothing_left();
}

#[tokio::test]
#[ignore = "run by another test, which has an engine"]
async fn containers_with_a_bound_for_all() {
    let of = |total| {
        Container::new(Options {
            engine: Choice::Podman(Vec::new()),
            total,
            ..Options::default()
        })
    };
    let said = async |backend: Container| {
        let place = tempfile::tempdir().unwrap();
        let findings = backend.probe(place.path()).await;
        findings.into_iter().find(|it| it.name == "limits of all")
    };
    assert_eq!(
        said(of(Total::default())).await,
        None,
        "nothing is to be bounded"
    );
    let backend = of(crate::limits::TOGETHER);
    let found = said(backend.clone()).await.unwrap();
    assert_eq!(found.ok, crate::room::is_root(), "{found:?}");
    if found.ok {
        crate::limits::together(backend).await;
    }
}

#[tokio::test]
#[ignore = "the owner that another test kills"]
async fn an_owner_of_bounded_containers_that_waits() {
    let backend = Container::new(Options {
        engine: Choice::Podman(Vec::new()),
        total: crate::limits::TOGETHER,
        ..Options::default()
    });
    crate::ends::own(&backend).await;
}

#[test]
fn the_group_above_the_containers_of_a_killed_owner_is_removed_by_the_next() {
    let podman = Podman::new(Home::new());
    let owner = "contained::an_owner_of_bounded_containers_that_waits";
    let mut left = Vec::new();
    crate::ends::killed_owner(&mut test(&podman, owner), || {
        let all = leaks::processes_of(podman.root());
        left = all
            .iter()
            .flat_map(|it| crate::ends::groups_of(it.pid.cast_unsigned()))
            .collect();
    });
    assert_eq!(left.is_empty(), !crate::room::is_root());
    podman.wait_until_quiet();
    assert_eq!(podman.containers(), Vec::<String>::new());
    drop(Namespace::new());
    left.retain(|group| group.exists());
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}
