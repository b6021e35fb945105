//! What sandboxes of the kind `container` cost: the measuring half of the group `container` of
//! `cargo xtask bench sandbox`, beside `podman run` of the same image by the same engine.
//!
//! Each line that it prints is a figure: its name, its unit and its samples. What the figures mean is
//! in `docs/benchmarks.md`. Podman is used in a home of its own: what the machine has of it is neither
//! seen nor touched.
#![allow(
    clippy::print_stderr,
    reason = "what cannot be measured here is said to the person who measures"
)]

#[path = "../figures/mod.rs"]
mod figures;
mod measure;
mod peer;

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use figures::Failed;
use testkit::{Home, Podman};

/// Says that this process is the one in the home.
const INSIDE: &str = "SKEP_BENCH_INSIDE";
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    if std::env::var_os(INSIDE).is_some() {
        return measure::all().await;
    }
    if !is_there("podman") || !(is_there("runc") || is_there("crun")) {
        eprintln!(
            "there is no engine of containers (apt-get install podman runc): no figures of containers"
        );
        return Ok(());
    }
    let podman = Podman::over_overlays(Home::new().env(INSIDE, "1"));
    let ran = podman.run_this_program(PATIENCE);
    if !ran.status.success() {
        return Err(format!("in containers: {}\n{}", ran.status, ran.stderr).into());
    }
    podman.assert_nothing_left();
    let mut out = std::io::stdout().lock();
    out.write_all(ran.stdout.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Whether a program can be started.
fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
