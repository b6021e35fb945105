//! The kind `container`, with an engine of the tests' own: all of its tests run in one process, so that
//! they share it.

use std::sync::OnceLock;
use std::time::Duration;

use skep_sandbox::Container;
use skep_sandbox::container::{Choice, Options};
use testkit::{Docker, Home, Image, Podman};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Names the image whose root the containers have, where they have one.
const IMAGE: &str = "SKEP_TEST_IMAGE";

/// The engine that the environment names.
pub(crate) fn backend() -> Container {
    static BACKEND: OnceLock<Container> = OnceLock::new();
    let backend = BACKEND.get_or_init(|| {
        Container::new(Options {
            engine: engine(),
            image: std::env::var(IMAGE).ok(),
            ..Options::default()
        })
    });
    backend.clone()
}

/// Without it, Podman hides parts of `/proc`, and the kernel lets nobody in the container mount one.
const UNMASKED: &str = "--security-opt=unmask=ALL";

/// The machine's own is none of them.
fn engine() -> Choice {
    match std::env::var_os("DOCKER_HOST") {
        Some(_) => Choice::Found,
        None => Choice::Podman(Vec::new()),
    }
}

/// As whoever runs programs in that home.
fn keeps_every_promise(home: Home) {
    let podman = Podman::new(home);
    podman.run_tests(["--test-threads=2", "--ignored", "container::"], PATIENCE);
    podman.assert_nothing_left();
}

#[test]
fn a_container_keeps_every_promise_and_leaves_nothing() {
    keeps_every_promise(Home::new());
}

#[test]
fn a_container_of_an_ordinary_user_keeps_every_promise_too() {
    keeps_every_promise(Home::new().as_user(65534));
}

#[test]
fn a_container_of_docker_keeps_every_promise_too() {
    let docker = Docker::start(Home::new());
    docker.run_tests(["--test-threads=2", "--ignored", "container::"], PATIENCE);
    docker.assert_nothing_left();
}

/// The kind `namespace` for whoever works in a container himself, as that user.
fn namespaces_keep_every_promise_in_a_container(user: &str) {
    let podman = Podman::new(Home::new());
    let ran = podman.run_inside(
        &["--network=none", UNMASKED, "--user", user],
        [
            "--test-threads=2",
            "namespace::",
            "namespace_without_control_groups::",
        ],
        PATIENCE,
    );
    assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
    podman.assert_nothing_left();
}

#[test]
fn namespaces_keep_every_promise_in_a_container_too() {
    namespaces_keep_every_promise_in_a_container("0");
}

#[test]
fn namespaces_keep_every_promise_to_an_ordinary_user_of_a_container() {
    namespaces_keep_every_promise_in_a_container("65534");
}

#[test]
fn a_container_that_hides_what_a_sandbox_needs_is_told_what_to_do() {
    let podman = Podman::new(Home::new());
    let test = "namespace::tells::a_probe_says_what_is_there_and_leaves_nothing";
    let ran = podman.run_inside(&["--network=none"], ["--exact", test], PATIENCE);
    assert_eq!(ran.status.code(), Some(101));
    let said = ran.stdout + &ran.stderr;
    assert!(said.contains(UNMASKED), "{said}");
    podman.assert_nothing_left();
}

#[test]
fn a_container_with_the_root_of_an_image_keeps_every_promise_too() {
    let name = "localhost/skep-test:latest";
    let podman = Podman::new(Home::new().env(IMAGE, name));
    let image = Image::of([
        "sh", "bash", "cat", "chmod", "env", "head", "id", "ls", "mkdir", "mkfifo", "mv", "pwd",
        "seq", "setsid", "sleep", "stat", "tail", "touch", "true", "wc",
    ]);
    image.import(&podman, name);
    let args = [
        "--test-threads=2",
        "--ignored",
        "container::",
        // Those are of Python's use of memory, of servers in Python, and of calls that it makes.
        "--skip",
        "figures_are_of_what_ran",
        "--skip",
        "refusals::",
        "--skip",
        "a_server_of_a_command_is_reached",
        "--skip",
        "a_listener_that_takes_no_connection",
    ];
    podman.run_tests(args, PATIENCE);
    podman.assert_nothing_left();
}
