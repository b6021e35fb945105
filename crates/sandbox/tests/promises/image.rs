//! Containers whose root is an image's.

use std::fs;
use std::path::Path;
use std::time::Duration;

use skep_sandbox::container::Options;
use skep_sandbox::{Backend, Container, Error, Spec, Trouble, Workspace};
use testkit::{Docker, Home, Image, Podman};

use crate::contained::{IMAGE, KIND};
use crate::room::Room;

const PATIENCE: Duration = Duration::from_secs(300);
const NAME: &str = "localhost/skep-test:latest";
const CHECKED: &str = "localhost/skep-checked:latest";
/// What the tests of the seal use.
const PROGRAMS: [&str; 31] = [
    "sh", "bash", "cat", "chmod", "chown", "cp", "cut", "env", "find", "getent", "grep", "head",
    "hostname", "id", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "readlink", "rm",
    "sleep", "stat", "tail", "touch", "tr", "true", "unshare", "wc",
];

fn backend(image: &str) -> Container {
    Container::new(Options {
        engine: crate::contained::engine(),
        image: Some(image.to_owned()),
        ..Options::default()
    })
}

/// Runs ignored tests of this module, with an image.
fn with_image(image: Image, test: &str) {
    let podman = Podman::new(Home::new());
    image.import(&podman, NAME);
    podman.run_tests(["--exact", test, "--ignored"], PATIENCE);
    podman.assert_nothing_left();
}

/// One that says much of itself.
fn talkative() -> Image {
    Image::of(PROGRAMS)
        .file("/opt/tools/said", "#!/bin/sh\necho of the image")
        .file("/etc/marked", "of the image")
        .file("/home/someone/kept", "of the image")
        .file("/run/secrets/token", "of the image")
        .file("/etc/passwd", "of the image")
        .change("ENV PATH=/opt/tools:/usr/bin:/bin")
        .change("ENV IMAGE_SAYS=so")
        .change("ENTRYPOINT [\"/no/such/program\"]")
        .change("CMD [\"nonsense\"]")
        .change("USER 12345")
        .change("VOLUME /data")
}

#[test]
fn the_root_is_the_images_and_nothing_of_the_hosts_tools_is_there() {
    with_image(talkative(), "image::what_is_in_the_root_of_an_image");
}

#[test]
fn the_root_is_the_images_and_the_seal_holds_with_docker_too() {
    let home = Home::new().env(KIND, "container").env(IMAGE, NAME);
    let docker = Docker::start(home);
    talkative().import_to_docker(&docker, NAME);
    let test = "image::what_is_in_the_root_of_an_image";
    docker.run_tests(["--exact", test, "--ignored"], PATIENCE);
    Image::of(PROGRAMS).import_to_docker(&docker, NAME);
    docker.run_tests(SEAL, PATIENCE);
    docker.assert_nothing_left();
}

#[tokio::test]
#[ignore = "run by another test, which makes its image"]
async fn what_is_in_the_root_of_an_image() {
    assert!(Path::new("/usr/bin/python3").exists(), "the host has it");
    let room = Room::of(&backend(NAME), |_| {}).await;
    let mut entries: Vec<_> = room
        .says("ls -A /")
        .await
        .lines()
        .map(str::to_owned)
        .collect();
    // An engine may make this one, for places in it that are none of the sandbox's.
    entries.retain(|name| name != "var");
    let expected = [
        "bin",
        "data",
        "dev",
        "etc",
        "home",
        "lib",
        "lib64",
        "opt",
        "proc",
        "sbin",
        "tmp",
        "usr",
        "workspace",
    ];
    assert_eq!(entries, expected, "neither /run nor /sys nor the host's");
    assert_eq!(
        room.says("said; cat /etc/marked /home/someone/kept").await,
        "of the image\nof the imageof the image"
    );
    for path in [
        "/usr/bin/python3",
        "/usr/share/doc",
        "/etc/shadow",
        "/.host",
        "/.skep-host",
    ] {
        assert!(
            !room.sh(&format!("test -e {path}")).await.exit.success(),
            "{path}"
        );
    }
    // What the image says of users, programs and variables does not count, but for PATH.
    assert_eq!(
        room.says("id -u; grep -c agent: /etc/passwd; echo $HOME$IMAGE_SAYS")
            .await,
        "1000\n1\n/home/agent"
    );
    assert_eq!(
        room.says("ls -A /home; cat /etc/resolv.conf").await,
        "agent\nsomeone"
    );
    for place in [
        "/",
        "/opt/tools",
        "/etc",
        "/data",
        "/home",
        "/home/someone",
        "/usr/bin",
    ] {
        let script = format!("touch {place}/x");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
    room.says("echo x > ~/x; echo x > /tmp/x; echo x > x").await;
    assert!(room.host_workspace().join("x").exists());
    let diagnosis = room.sandbox.diagnose().await;
    assert!(diagnosis.sealed && diagnosis.alive);
    room.sandbox.destroy().await.unwrap();
}

#[test]
fn a_check_of_health_that_an_image_brings_never_runs() {
    let podman = Podman::new(Home::new());
    Image::of(PROGRAMS).import(&podman, NAME);
    let recipe = podman.root().join("recipe");
    let text = format!("FROM {NAME}\nHEALTHCHECK --interval=1s CMD touch /tmp/ran\n");
    fs::write(&recipe, text).unwrap();
    let args = [
        "build",
        "--format=docker",
        "--pull=never",
        "-t",
        CHECKED,
        "-f",
    ];
    let args = args.map(str::to_owned).into_iter();
    let args = args.chain([
        recipe.display().to_string(),
        podman.root().join("tmp").display().to_string(),
    ]);
    let home = podman.home();
    home.run("podman", args, &home.home(), PATIENCE)
        .expect_code(0);
    let test = "image::nothing_runs_beside_the_sandbox";
    podman.run_tests(["--exact", test, "--ignored"], PATIENCE);
    podman.assert_nothing_left();
}

#[tokio::test]
#[ignore = "run by another test, which makes its image"]
async fn nothing_runs_beside_the_sandbox() {
    let room = Room::of(&backend(CHECKED), |_| {}).await;
    let id = crate::contained::containers().remove(0);
    let ran = std::process::Command::new("podman")
        .args(["healthcheck", "run", &id])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let image = std::process::Command::new("podman")
        .args(["image", "inspect", "--format", "{{.HealthCheck}}", CHECKED])
        .output()
        .unwrap();
    let has = String::from_utf8_lossy(&image.stdout).into_owned();
    assert!(has.contains("touch"), "the image has one: {has}");
    assert!(
        !ran.status.success() && said.contains("no defined healthcheck"),
        "{said}"
    );
    room.sandbox.destroy().await.unwrap();
}

/// What is promised of a seal wherever the tools come from.
const SEAL: [&str; 14] = [
    "--test-threads=2",
    "rooms_are",
    "seal::a_file_of_the_host",
    "seal::the_hosts_processes",
    "seal::process_1",
    "seal::no_setting",
    "seal::there_are_no_capabilities",
    "commands::nothing_of_the_owners",
    "escapes::another_workspace",
    "escapes::no_root_or_directory",
    "network::there_is_no_interface",
    "network::the_hosts_loopback",
    "network::the_channel_accepts",
    "layers::",
];

/// As whoever runs programs in that home.
fn the_seal_holds(home: Home) {
    let podman = Podman::new(home.env(KIND, "container").env(IMAGE, NAME));
    Image::of(PROGRAMS).import(&podman, NAME);
    podman.run_tests(SEAL, PATIENCE);
    podman.assert_nothing_left();
}

#[test]
fn the_seal_holds_with_the_root_of_an_image_too() {
    the_seal_holds(Home::new());
}

#[test]
fn the_seal_holds_with_the_root_of_an_image_of_an_ordinary_user_too() {
    the_seal_holds(Home::new().as_user(65534));
}

// docs/bad-input.md: An image that the engine does not have
#[test]
fn an_image_that_is_missing_is_named_with_the_command_that_gets_it() {
    let podman = Podman::new(Home::new());
    let test = "image::an_image_that_is_nowhere";
    podman.run_tests(["--exact", test, "--ignored"], PATIENCE);
    podman.assert_nothing_left();
}

#[tokio::test]
#[ignore = "run by another test, which has an engine"]
async fn an_image_that_is_nowhere() {
    let place = tempfile::tempdir().unwrap();
    let missing = "registry.invalid/no/such:1";
    let backend = backend(missing);
    let workspace = Workspace::Directory(place.path().to_owned());
    let refused = backend.create(Spec::new(workspace)).await.err().unwrap();
    assert!(matches!(refused, Error::ImageMissing { .. }), "{refused}");
    assert_eq!(Trouble::of_error(&refused), Some(Trouble::ImageMissing));
    let said = refused.to_string();
    assert!(said.contains(&format!("`podman pull {missing}`")), "{said}");
    let findings = backend.probe(place.path()).await;
    let image = findings
        .iter()
        .find(|finding| finding.name == "images")
        .unwrap();
    assert!(!image.ok && !image.optional);
    assert_eq!(
        image.remedy.as_deref(),
        Some(&*format!("`podman pull {missing}`"))
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}
