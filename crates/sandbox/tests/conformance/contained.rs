//! The kind `container`, with an engine of the tests' own: all of its tests run in one process, so that
//! they share it.

use std::sync::OnceLock;
use std::time::Duration;

use skep_sandbox::Container;
use skep_sandbox::container::{Choice, Options};
use testkit::{Home, Podman};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The engine that the environment names.
pub(crate) fn backend() -> Container {
    static BACKEND: OnceLock<Container> = OnceLock::new();
    let backend = BACKEND.get_or_init(|| {
        Container::new(Options {
            engine: Choice::Podman(Vec::new()),
            ..Options::default()
        })
    });
    backend.clone()
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
